//! A template: a read-only tree and its pages, shared by every volume made from it.
//!
//! On disk a directory with two files that are never changed: `template.manifest` and
//! `template.pages`.
//!
//! Invariants
//! 1. A template's directory is there whole or not at all: it is written beside, and renamed.
//! 2. Its nodes are numbered 1 to n in the order of a walk from the root; its pages in that order too.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{Disk, OpenHow, RealDisk};

use crate::contents::Contents;
use crate::error::{Result, VolumeError};
use crate::id::TemplateId;
use crate::manifest::{self, TemplateManifest};
use crate::node::{Content, Entries, Ino, Mtime, Node};
use crate::page::{PAGE_BYTES, PageRef, SLOTS_MAX, TEMPLATE_DEPTH};
use crate::page_table::PageTable;
use crate::pages_file::PagesFile;
use crate::tree::Tree;

const MANIFEST_NAME: &str = "template.manifest";
const PAGES_NAME: &str = "template.pages";

/// A read-only database image that volumes are made from. Open it once a process and share it.
#[derive(Debug)]
pub struct Template {
    id: TemplateId,
    nodes: Arc<[Node]>,
    page_count: u32,
    /// Missing in a template without pages.
    pages: Option<PagesFile>,
}

impl Template {
    /// Opens the template in `directory`, which `Volume::save_as_template` wrote.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] if there is none, [`VolumeError::Corrupt`] if its files are not what
    /// was written, [`VolumeError::Io`] if they cannot be read.
    pub fn open(directory: &Path) -> Result<Arc<Self>> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Self::open_on(&disk, directory)
    }

    /// As [`Self::open`], from a disk of the caller's choice. Templates are made once a machine and never
    /// written again: they are only written to the real one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Arc<Self>> {
        let path = directory.join(MANIFEST_NAME);
        let payload =
            store::read_sealed(&**disk, &path, manifest::TEMPLATE_KIND, manifest::FORMAT, 0)
                .map_err(|error| VolumeError::from_read(&path, error))?;
        let TemplateManifest {
            id,
            page_count,
            nodes,
        } = manifest::decode_template(&payload)
            .map_err(|malformed| VolumeError::corrupt(&path, malformed.0))?;
        let pages = match page_count {
            0 => None,
            _ => Some(PagesFile::open(
                disk,
                &directory.join(PAGES_NAME),
                OpenHow::Read,
                page_count,
            )?),
        };
        Ok(Arc::new(Self {
            id,
            nodes,
            page_count,
            pages,
        }))
    }

    /// The template with an empty root directory and nothing else; [`TemplateId::EMPTY`].
    pub fn empty() -> Arc<Self> {
        let nodes = Arc::new([Node::directory(0o700, Mtime::default())]);
        Arc::new(Self {
            id: TemplateId::EMPTY,
            nodes,
            page_count: 0,
            pages: None,
        })
    }

    /// A template that has no file, for what only looks at its tree.
    #[cfg(test)]
    pub(crate) fn without_pages(id: TemplateId, nodes: Arc<[Node]>, page_count: u32) -> Arc<Self> {
        Arc::new(Self {
            id,
            nodes,
            page_count,
            pages: None,
        })
    }

    /// Its id.
    pub fn id(&self) -> TemplateId {
        self.id
    }

    /// Files, directories and symbolic links in it, the root included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of its pages on disk.
    pub fn bytes(&self) -> u64 {
        u64::from(self.page_count) * PAGE_BYTES as u64
    }

    pub(crate) fn nodes(&self) -> Arc<[Node]> {
        Arc::clone(&self.nodes)
    }

    pub(crate) fn page_count(&self) -> u32 {
        self.page_count
    }

    pub(crate) fn read_page(&self, slot: u32, crc: u32, page: &mut [u8]) -> Result<()> {
        let pages = self
            .pages
            .as_ref()
            .expect("BUG: a template page of a template without pages");
        pages.read(slot, crc, page)
    }
}

/// Writes `tree`, whose pages `read` reads, as the template `id` into the new directory `directory`.
pub(crate) fn save(
    directory: &Path,
    id: TemplateId,
    tree: &Tree,
    read: &dyn Fn(PageRef, &mut [u8]) -> Result<()>,
) -> Result<()> {
    if id == TemplateId::EMPTY {
        return Err(VolumeError::Invalid("this id is the empty template's"));
    }
    if directory
        .try_exists()
        .map_err(|e| VolumeError::io("look for", directory, e))?
    {
        return Err(VolumeError::Exists);
    }
    let beside = beside(directory);
    let failed = |source| VolumeError::io("write the template", &beside, source);
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => fs::create_dir_all(&beside).map_err(failed)?,
    }

    let pages = File::create(beside.join(PAGES_NAME)).map_err(failed)?;
    let mut pages = PagesWriter {
        out: BufWriter::new(pages),
        count: 0,
        read,
        failed: &failed,
    };
    let nodes = compact(tree, &mut pages)?;
    let (file, page_count) = (
        pages.out.into_inner().map_err(|e| failed(e.into_error()))?,
        pages.count,
    );
    file.sync_all().map_err(failed)?;

    let path = beside.join(MANIFEST_NAME);
    let payload = manifest::encode_template(id, page_count, &nodes);
    store::write_sealed(
        &store::RealDisk,
        &path,
        manifest::TEMPLATE_KIND,
        manifest::FORMAT,
        0,
        &payload,
    )
    .map_err(VolumeError::from_write)?;
    fs::rename(&beside, directory).map_err(failed)?;
    let parent = directory
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    store::Disk::sync_directory(&store::RealDisk, parent.unwrap_or_else(|| Path::new(".")))
        .map_err(failed)
}

/// The nodes of `tree` in the order of a walk, numbered by it, their pages appended to `pages`.
fn compact(tree: &Tree, pages: &mut PagesWriter<'_>) -> Result<Vec<Node>> {
    let mut order = vec![Ino::ROOT];
    let mut numbers = HashMap::from([(Ino::ROOT, Ino::ROOT)]);
    let mut at = 0;
    while let Some(ino) = order.get(at) {
        at += 1;
        for ino in tree
            .get(*ino)?
            .entries()
            .into_iter()
            .flat_map(Entries::values)
        {
            let number = u32::try_from(order.len() + 1).expect("BUG: more nodes than numbers");
            if numbers.insert(*ino, Ino::new(number)).is_some() {
                return Err(VolumeError::Invalid(
                    "a node has two names: the volume is corrupt",
                ));
            }
            order.push(*ino);
        }
    }
    let renumbered = |ino: &Ino| *numbers.get(ino).expect("BUG: the walk missed a name");
    let mut nodes = Vec::with_capacity(order.len());
    for ino in order {
        let node = tree.get(ino)?;
        let content = match &node.content {
            Content::Directory(entries) => Content::Directory(
                entries
                    .iter()
                    .map(|(name, ino)| (Arc::clone(name), renumbered(ino)))
                    .collect(),
            ),
            Content::File(contents) => Content::File(pages.append(contents)?),
            Content::Symlink(target) => Content::Symlink(target.clone()),
        };
        nodes.push(Node {
            mode: node.mode,
            mtime: node.mtime,
            content,
        });
    }
    Ok(nodes)
}

/// A pages file being written from front to back.
struct PagesWriter<'a> {
    out: BufWriter<File>,
    count: u32,
    read: &'a dyn Fn(PageRef, &mut [u8]) -> Result<()>,
    failed: &'a dyn Fn(io::Error) -> VolumeError,
}

impl PagesWriter<'_> {
    /// Appends the pages of `contents`; returns the same contents, referring to the new file.
    fn append(&mut self, contents: &Contents) -> Result<Contents> {
        let mut table = PageTable::default();
        let mut page = [0; PAGE_BYTES];
        for (number, old) in contents.table().iter() {
            if self.count == SLOTS_MAX {
                let max = u64::from(SLOTS_MAX);
                return Err(VolumeError::NoSpace {
                    limit: "volume.slots_max",
                    max,
                });
            }
            (self.read)(old, &mut page)?;
            self.out.write_all(&page).map_err(self.failed)?;
            table.set(number, PageRef::new(TEMPLATE_DEPTH, self.count, old.crc()));
            self.count += 1;
        }
        Ok(Contents::from_parts(contents.len(), table).expect("BUG: the same pages as before"))
    }
}

fn beside(directory: &Path) -> PathBuf {
    let mut name = OsString::from(directory);
    name.push(".tmp");
    name.into()
}
