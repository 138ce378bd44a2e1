//! Files that live in the memory of one backend: `/tmp` and `/dev/shm`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::errno::Errno;

/// Most bytes that the files of one backend take, the limit `backend.scratch_bytes_max`.
const BYTES_MAX: usize = 64 << 20;

/// What a file takes beside its contents, in bytes.
const FILE_BYTES: usize = 256;

/// The contents of one file; shared by the directory entry and every open file.
pub(crate) type ScratchFile = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Clone)]
pub(crate) enum ScratchNode {
    Directory,
    File(ScratchFile),
}

/// A flat map of absolute paths; the places are few and shallow.
#[derive(Debug)]
pub(crate) struct Scratch {
    nodes: Mutex<BTreeMap<String, ScratchNode>>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert("/tmp".to_owned(), ScratchNode::Directory);
        nodes.insert("/dev/shm".to_owned(), ScratchNode::Directory);
        Self {
            nodes: Mutex::new(nodes),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Option<ScratchNode> {
        self.nodes.lock().get(path).cloned()
    }

    /// The file at `path`, made if it is not there and `create` says so.
    pub(crate) fn open(&self, path: &str, create: bool) -> Result<ScratchFile, Errno> {
        let mut nodes = self.nodes.lock();
        match nodes.get(path) {
            Some(ScratchNode::File(file)) => return Ok(Arc::clone(file)),
            Some(ScratchNode::Directory) => return Err(Errno::ISDIR),
            None if !create => return Err(Errno::NOENT),
            None => {}
        }
        Self::parent(&nodes, path)?;
        if nodes.len() >= BYTES_MAX / FILE_BYTES / 16 {
            return Err(Errno::NOSPC);
        }
        let file = ScratchFile::default();
        nodes.insert(path.to_owned(), ScratchNode::File(Arc::clone(&file)));
        Ok(file)
    }

    /// Whether `file` may become `bytes` long.
    pub(crate) fn check_growth(&self, file: &ScratchFile, bytes: usize) -> Result<(), Errno> {
        let before = file.lock().len();
        if bytes <= before {
            return Ok(());
        }
        match self.bytes().max(before).saturating_add(bytes - before) > BYTES_MAX {
            true => Err(Errno::NOSPC),
            false => Ok(()),
        }
    }

    /// Bytes of all files that have a name.
    fn bytes(&self) -> usize {
        let nodes = self.nodes.lock();
        let files = nodes.values().map(|node| match node {
            ScratchNode::File(file) => FILE_BYTES + file.lock().len(),
            ScratchNode::Directory => FILE_BYTES,
        });
        files.sum()
    }

    pub(crate) fn mkdir(&self, path: &str) -> Result<(), Errno> {
        let mut nodes = self.nodes.lock();
        if nodes.contains_key(path) {
            return Err(Errno::EXIST);
        }
        Self::parent(&nodes, path)?;
        nodes.insert(path.to_owned(), ScratchNode::Directory);
        Ok(())
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<(), Errno> {
        let mut nodes = self.nodes.lock();
        match nodes.get(path) {
            None => Err(Errno::NOENT),
            Some(ScratchNode::Directory) => Err(Errno::ISDIR),
            Some(ScratchNode::File(_)) => {
                nodes.remove(path);
                Ok(())
            }
        }
    }

    pub(crate) fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let mut nodes = self.nodes.lock();
        match nodes.get(path) {
            None => return Err(Errno::NOENT),
            Some(ScratchNode::File(_)) => return Err(Errno::NOTDIR),
            Some(ScratchNode::Directory) => {}
        }
        let inside = format!("{path}/");
        if nodes
            .range(inside.clone()..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(&inside))
        {
            return Err(Errno::NOTEMPTY);
        }
        nodes.remove(path);
        Ok(())
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let mut nodes = self.nodes.lock();
        Self::parent(&nodes, to)?;
        match nodes.get(from) {
            None => return Err(Errno::NOENT),
            Some(ScratchNode::Directory) => return Err(Errno::PERM),
            Some(ScratchNode::File(_)) => {}
        }
        if matches!(nodes.get(to), Some(ScratchNode::Directory)) {
            return Err(Errno::ISDIR);
        }
        if let Some(node) = nodes.remove(from) {
            nodes.insert(to.to_owned(), node);
        }
        Ok(())
    }

    /// Names in a directory, and whether each is a directory itself.
    pub(crate) fn list(&self, path: &str) -> Vec<(String, bool)> {
        let inside = format!("{path}/");
        let nodes = self.nodes.lock();
        nodes
            .range(inside.clone()..)
            .take_while(|(name, _)| name.starts_with(&inside))
            .filter(|(name, _)| !name[inside.len()..].contains('/'))
            .map(|(name, node)| {
                (
                    name[inside.len()..].to_owned(),
                    matches!(node, ScratchNode::Directory),
                )
            })
            .collect()
    }

    fn parent(nodes: &BTreeMap<String, ScratchNode>, path: &str) -> Result<(), Errno> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        match nodes.get(parent) {
            Some(ScratchNode::Directory) => Ok(()),
            Some(ScratchNode::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }
}
