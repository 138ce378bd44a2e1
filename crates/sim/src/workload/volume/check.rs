//! Whether a volume shows what the model says.

use std::collections::BTreeMap;
use std::path::Path;

use volume::{Ino, NodeKind, PAGE_BYTES, VolumeError};

use super::VolumeWorkload;
use super::database::Database;
use super::tree::{File, Node};
use crate::disk::DiskCounts;
use crate::history::Notes;
use crate::workload::Broken;

/// Reads that the disk fails in a row before the file is left unchecked.
const TRIES: u32 = 20;

impl VolumeWorkload {
    /// Some file, or everything.
    pub(super) fn read_back(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        notes.done("readings", format_args!("of database {}", database.id));
        self.check_all(database, None)
    }

    /// Compares names and contents of everything. A page of the `damaged` file may be refused.
    pub(super) fn check_all(
        &self,
        database: &mut Database,
        damaged: Option<&Path>,
    ) -> Result<(), Broken> {
        let found = self.names(database)?;
        let kinds = |node: &Node| match node {
            Node::Directory => NodeKind::Directory,
            Node::File(_) => NodeKind::File,
        };
        let nodes = database.model.now.nodes.iter();
        let expected: BTreeMap<&String, NodeKind> =
            nodes.map(|(path, node)| (path, kinds(node))).collect();
        let shown: BTreeMap<&String, NodeKind> = found
            .iter()
            .map(|(path, (kind, _))| (path, *kind))
            .collect();
        if shown != expected {
            return Err(Broken(format!(
                "database {} shows the names {:?}, not {:?}",
                database.id,
                shown.keys(),
                expected.keys()
            )));
        }
        for (path, (_, ino)) in &found {
            if let Some(file) = database.model.now.file(path).cloned() {
                self.check_file(database, path, *ino, &file, damaged)?;
            }
        }
        for (ino, file) in database.held.clone() {
            if let Some(file) = file {
                self.check_file(database, "without a name", ino, &file, damaged)?;
            }
        }
        Ok(())
    }

    /// All paths of a volume.
    fn names(&self, database: &Database) -> Result<BTreeMap<String, (NodeKind, Ino)>, Broken> {
        let failed = |error: VolumeError| Broken(format!("a directory cannot be listed: {error}"));
        let mut found = BTreeMap::new();
        let mut directories = vec![(String::new(), Ino::ROOT)];
        while let Some((above, ino)) = directories.pop() {
            for entry in database.volume().list(ino).map_err(failed)? {
                let path = format!("{above}/{}", entry.name);
                if entry.kind == NodeKind::Directory {
                    directories.push((path.clone(), entry.ino));
                }
                found.insert(path, (entry.kind, entry.ino));
            }
        }
        Ok(found)
    }

    pub(super) fn check_file(
        &self,
        database: &mut Database,
        path: &str,
        ino: Ino,
        file: &File,
        damaged: Option<&Path>,
    ) -> Result<(), Broken> {
        let id = database.id;
        let info = database.volume().node(ino);
        let len = info
            .map_err(|error| Broken(format!("{path} of database {id} is gone: {error}")))?
            .len;
        if len != file.len {
            let what = format!("{path} of database {id} has {len} bytes, not {}", file.len);
            return Err(Broken(what));
        }
        let mut bytes = [0; PAGE_BYTES + 1];
        for page in 0..file.page_count() {
            let offset = (page * PAGE_BYTES) as u64;
            let expected = file.page(page);
            let buffer = &mut bytes[..PAGE_BYTES];
            for _ in 0..TRIES {
                let before = self.disk.counts();
                match database.volume().read(ino, offset, buffer) {
                    Ok(read) if buffer[..read] == *expected => break,
                    Ok(read) => {
                        let what = what_differs(&buffer[..read], expected);
                        return Err(Broken(format!(
                            "page {page} of {path} of database {id} {what}"
                        )));
                    }
                    Err(error) => self.unreadable(database, before, &error, damaged)?,
                }
            }
        }
        Ok(())
    }

    fn unreadable(
        &self,
        database: &mut Database,
        before: DiskCounts,
        error: &VolumeError,
        damaged: Option<&Path>,
    ) -> Result<(), Broken> {
        match (error, damaged) {
            (VolumeError::Corrupt { path, .. }, Some(damaged)) if path == damaged => Ok(()),
            _ => self.refused(database, before, error),
        }
    }

    /// Room that the free slots of a database's own pages file take after a flush is bounded, as
    /// `volume/FORMAT.md` says: a quarter of the live ones, at least 64, and at most twice that.
    pub(super) fn check_room(&self, database: &Database) -> Result<(), Broken> {
        if !self.faults.reserves_room || self.disk.is_stopped() {
            return Ok(());
        }
        let prefix = format!("{:016x}.", database.id);
        let names = self.names_of_volumes()?;
        let epochs = names.iter().filter_map(|name| {
            let epoch = name.strip_prefix(&prefix)?.strip_suffix(".pages")?;
            u32::from_str_radix(epoch, 16).ok()
        });
        let Some(epoch) = epochs.max() else {
            return Ok(());
        };
        let is_layer = |layer: &volume::LayerId| {
            layer.origin == database.database_id() && layer.epoch == epoch
        };
        let mut layers = super::process::layers(&database.volume().base()).into_iter();
        if layers.any(|layer| is_layer(&layer)) {
            return Ok(());
        }
        let path = Path::new(super::VOLUMES).join(format!("{prefix}{epoch:x}.pages"));
        let room = self
            .disk
            .room_of(&path)
            .map_err(|error| Broken(format!("{} is not there: {error}", path.display())))?;
        let live = database.volume().own_bytes() / PAGE_BYTES as u64;
        let most = live + 2 * (live / 4).max(64);
        let pages = room.div_ceil(PAGE_BYTES as u64);
        self.expect(pages <= most, || {
            format!(
                "{} takes the room of {pages} pages for {live}, at most {most} were promised",
                path.display()
            )
        })
    }
}

fn what_differs(found: &[u8], expected: &[u8]) -> String {
    if found.len() != expected.len() {
        return format!("has {} bytes, not {}", found.len(), expected.len());
    }
    let differs = |(a, b): (&u8, &u8)| a != b;
    let first = found.iter().zip(expected).position(differs).unwrap_or(0);
    let count = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    format!("has {count} wrong bytes, the first at {first}")
}
