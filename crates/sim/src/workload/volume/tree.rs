//! What a volume must show: names, and files as lists of pages.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use volume::PAGE_BYTES;

/// Where the log goes on: number of the segment, bytes of it that are used.
pub(super) type LogEnd = (u64, u64);

/// The directory of the log.
pub(super) const LOG: &str = "/pg_wal";
/// Segments are short, so that histories have many, but longer than what is gathered without a sync.
pub(super) const SEGMENT_BYTES: u64 = 40 * PAGE_BYTES as u64;

type Page = [u8; PAGE_BYTES];

/// Bytes in pages; `None` is a page of zeros.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct File {
    pub(super) len: u64,
    pages: Vec<Option<Arc<Page>>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Directory,
    File(File),
}

/// Paths and what they lead to; the root is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) log_end: LogEnd,
}

/// What was written to a segment of the log.
#[derive(Debug, Clone)]
pub(super) struct LogWrite {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl File {
    /// The bytes of one page, up to the end of the file.
    pub(super) fn page(&self, number: usize) -> &[u8] {
        const ZEROS: &Page = &[0; PAGE_BYTES];
        let left = self.len.saturating_sub((number * PAGE_BYTES) as u64);
        let page = self.pages.get(number).and_then(Option::as_deref);
        &page.unwrap_or(ZEROS)[..left.min(PAGE_BYTES as u64) as usize]
    }

    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Whether a page is all zeros.
    pub(super) fn is_zero(&self, number: usize) -> bool {
        self.pages.get(number).is_none_or(Option::is_none)
    }

    pub(super) fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        self.set_len(self.len.max(offset + data.len() as u64));
        while !data.is_empty() {
            let within = (offset % PAGE_BYTES as u64) as usize;
            let (piece, rest) = data.split_at(data.len().min(PAGE_BYTES - within));
            let slot = &mut self.pages[(offset / PAGE_BYTES as u64) as usize];
            let mut page = slot.as_deref().map_or([0; PAGE_BYTES], |page| *page);
            page[within..within + piece.len()].copy_from_slice(piece);
            *slot = page.iter().any(|byte| *byte != 0).then(|| Arc::new(page));
            offset += piece.len() as u64;
            data = rest;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let cut = self.len > len;
        self.len = len;
        self.pages
            .resize(len.div_ceil(PAGE_BYTES as u64) as usize, None);
        let within = (len % PAGE_BYTES as u64) as usize;
        if cut && within > 0 {
            let last = len - within as u64;
            self.write_zeros_after(last, within);
        }
    }

    fn write_zeros_after(&mut self, page_start: u64, within: usize) {
        let slot = &mut self.pages[(page_start / PAGE_BYTES as u64) as usize];
        if let Some(page) = slot {
            let mut page = **page;
            page[within..].fill(0);
            *slot = page.iter().any(|byte| *byte != 0).then(|| Arc::new(page));
        }
    }
}

impl Tree {
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        match self.nodes.get(path)? {
            Node::File(file) => Some(file),
            Node::Directory => None,
        }
    }

    pub(super) fn file_mut(&mut self, path: &str) -> &mut File {
        match self.nodes.get_mut(path) {
            Some(Node::File(file)) => file,
            _ => unreachable!("BUG: {path} is chosen among the files"),
        }
    }

    /// The paths of files, or of directories, that are not of the log.
    pub(super) fn paths(&self, directories: bool) -> Vec<String> {
        let nodes = self.nodes.iter().filter(|(path, node)| {
            !path.starts_with(LOG) && matches!(node, Node::Directory) == directories
        });
        nodes.map(|(path, _)| path.clone()).collect()
    }

    /// Numbers of the log's segments, ascending.
    pub(super) fn segments(&self) -> Vec<u64> {
        let names = self.nodes.keys().filter_map(|path| {
            let name = path.strip_prefix(LOG)?.strip_prefix("/00000001")?;
            u64::from_str_radix(name, 16).ok()
        });
        names.collect()
    }

    /// Pages of files outside the log that are neither zeros nor among those of `other`.
    pub(super) fn pages_beyond(&self, other: &Self) -> u64 {
        let theirs: HashSet<*const Page> =
            other.pages().map(|(_, page)| Arc::as_ptr(page)).collect();
        let ours = self
            .pages()
            .filter(|(path, page)| !path.starts_with(LOG) && !theirs.contains(&Arc::as_ptr(page)));
        ours.count() as u64
    }

    fn pages(&self) -> impl Iterator<Item = (&str, &Arc<Page>)> {
        let files = self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path, file)),
            Node::Directory => None,
        });
        files.flat_map(|(path, file)| file.pages.iter().flatten().map(|page| (&**path, page)))
    }

    pub(super) fn is_empty_directory(&self, path: &str) -> bool {
        let below = format!("{path}/");
        !self.nodes.keys().any(|other| other.starts_with(&below))
    }

    /// Moves a name and what is below it.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        let below = format!("{from}/");
        let moved: Vec<String> = self
            .nodes
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes
                    .insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
    }

    /// Writes to the log again, after a crash.
    pub(super) fn replay(&mut self, write: &LogWrite) {
        let path = segment_path(write.segment);
        let node = self
            .nodes
            .entry(path)
            .or_insert_with(|| Node::File(File::default()));
        if let Node::File(file) = node {
            file.set_len(file.len.max(SEGMENT_BYTES));
            file.write(write.offset, &write.bytes);
        }
    }
}

pub(super) fn segment_path(segment: u64) -> String {
    format!("{LOG}/00000001{segment:016X}")
}

/// The directory and the name in it of a path.
pub(super) fn place(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(place) => place,
        None => ("/", path),
    }
}
