//! The tree of names and nodes: a shared, read-only base and the nodes that differ from it.
//!
//! Pure: it reads and writes no pages. Whoever removes a node gives its pages free.
//!
//! Invariants
//! 1. The base is never changed; a base node is copied into the overlay when it first changes. So a
//!    new tree costs nothing, however large its base, and so does freezing what a tree is now as the
//!    base of others, but for one reference a changed node.
//! 2. Every node but the root, and those unlinked while open, has exactly one name.
//! 3. Node numbers are never reused, nor is a base number given to a new node.
//! 4. A clone shares its nodes, and copies one only when it changes it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::contents::Contents;
use crate::error::{Result, VolumeError};
use crate::node::{Content, DirectoryEntry, Entries, Ino, Node};
use crate::page::PageRef;

/// Bytes of the longest name.
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of the longest target of a symbolic link.
pub const SYMLINK_TARGET_BYTES_MAX: usize = 4096;

/// Symbolic links followed in resolving one path.
pub const SYMLINKS_FOLLOWED_MAX: usize = 8;

/// Nodes that one volume can change, create or delete relative to its template: the limit
/// `volume.nodes_max`. A Postgres table with an index takes about six.
pub const NODES_MAX: usize = 4_194_304;

/// Nodes that differ from what is below; `None` for one that was removed.
pub(crate) type Changes = HashMap<Ino, Option<Arc<Node>>, BuildHasherDefault<InoHasher>>;

/// What a tree stands on: a template's nodes, and the changes of all layers over it in one.
#[derive(Clone, Debug)]
pub(crate) struct TreeBase {
    nodes: Arc<[Node]>,
    changes: Arc<Changes>,
    next: u32,
}

impl TreeBase {
    /// A base in which node n stands at index n - 1 and the first is the root.
    pub(crate) fn new(nodes: Arc<[Node]>) -> Self {
        let next = u32::try_from(nodes.len() + 1).expect("BUG: a template beyond 2^32 nodes");
        Self {
            nodes,
            changes: Arc::default(),
            next,
        }
    }

    fn get(&self, ino: Ino) -> Option<&Node> {
        match self.changes.get(&ino) {
            Some(changed) => changed.as_deref(),
            None => self.nodes.get((ino.get() as usize).checked_sub(1)?),
        }
    }

    fn share(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.changes.get(&ino) {
            Some(changed) => changed.clone(),
            None => self.get(ino).cloned().map(Arc::new),
        }
    }

    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.get(ino).is_some()
    }

    /// Above every number in it.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    base: TreeBase,
    overlay: Changes,
    next: u32,
}

impl Tree {
    /// A tree equal to `base`.
    pub(crate) fn new(base: TreeBase) -> Self {
        let next = base.next;
        Self {
            base,
            overlay: HashMap::default(),
            next,
        }
    }

    /// What the tree is now, as the base of others.
    pub(crate) fn freeze(&self) -> TreeBase {
        let mut changes = Changes::clone(&self.base.changes);
        changes.extend(self.overlay.iter().map(|(ino, node)| (*ino, node.clone())));
        TreeBase {
            nodes: Arc::clone(&self.base.nodes),
            changes: Arc::new(changes),
            next: self.next,
        }
    }

    /// The same tree as changes of `base`, which is one that this tree's base was made from, with every
    /// page where `moved` says. `done` is a tree that was rebased so before, and what it became: what has
    /// not changed since is not done again.
    pub(crate) fn rebase(
        &self,
        base: &TreeBase,
        moved: &dyn Fn(PageRef) -> PageRef,
        done: Option<(&Self, &Self)>,
    ) -> Self {
        let same = |ino: &Ino, node: &Option<Arc<Node>>| match (base.changes.get(ino), node) {
            (Some(Some(below)), Some(node)) => Arc::ptr_eq(below, node),
            (Some(None), None) => true,
            // A node that a layer added and another removed was never there.
            (None, None) => !base.contains(*ino),
            _ => false,
        };
        let move_node = |ino: &Ino, node: &Arc<Node>| {
            let done = done.and_then(|(before, after)| {
                let changed = |tree: &Self| tree.changed(*ino).cloned();
                Some((changed(before)?, changed(after)?))
            });
            match &done {
                Some((before, after)) if Arc::ptr_eq(before, node) => Arc::clone(after),
                _ => moved_node(node, moved, done.as_ref()),
            }
        };
        let frozen = self.freeze();
        let differing = frozen.changes.iter().filter(|(ino, node)| !same(ino, node));
        Self {
            overlay: differing
                .map(|(ino, node)| (*ino, node.as_ref().map(|node| move_node(ino, node))))
                .collect(),
            base: base.clone(),
            next: self.next,
        }
    }

    /// A node that is not the template's as it was.
    fn changed(&self, ino: Ino) -> Option<&Arc<Node>> {
        let changed = self
            .overlay
            .get(&ino)
            .or_else(|| self.base.changes.get(&ino));
        changed?.as_ref()
    }

    /// Whether it equals its base.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.overlay.is_empty()
    }

    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    pub(crate) fn base(&self) -> &TreeBase {
        &self.base
    }

    /// What differs from the base, ascending by number.
    pub(crate) fn changes(&self) -> Vec<(Ino, Option<&Node>)> {
        let changes = self
            .overlay
            .iter()
            .map(|(ino, node)| (*ino, node.as_deref()));
        let mut changes: Vec<_> = changes.collect();
        changes.sort_unstable_by_key(|(ino, _)| *ino);
        changes
    }

    /// Makes a change that a manifest names; the caller has checked that it fits this base.
    pub(crate) fn restore(&mut self, ino: Ino, node: Option<Node>) {
        self.overlay.insert(ino, node.map(Arc::new));
    }

    /// Continues numbering where a manifest left off.
    pub(crate) fn restore_next(&mut self, next: u32) {
        self.next = next;
    }

    /// The pages of the files that differ from the base.
    pub(crate) fn changed_pages(&self) -> impl Iterator<Item = PageRef> {
        let nodes = self.overlay.values().flatten();
        let files = nodes.filter_map(|node| node.contents().ok());
        files.flat_map(|contents| contents.table().iter().map(|(_, page)| page))
    }

    /// The files that differ from the template's.
    pub(crate) fn changed_files(&self) -> impl Iterator<Item = (Ino, &Contents)> {
        let base = self.base.changes.iter();
        let below = base.filter(|(ino, _)| !self.overlay.contains_key(ino));
        let nodes = self.overlay.iter().chain(below);
        nodes.filter_map(|(ino, node)| Some((*ino, node.as_ref()?.contents().ok()?)))
    }

    /// Whether the node is not the template's as it was.
    pub(crate) fn is_changed(&self, ino: Ino) -> bool {
        self.overlay.contains_key(&ino) || self.base.changes.contains_key(&ino)
    }

    /// The slots of the pages file at `depth` that changed files refer to, in no order.
    pub(crate) fn slots_at(&self, depth: u8) -> Vec<u32> {
        self.changed_pages()
            .filter(|page| page.depth() == depth)
            .map(PageRef::slot)
            .collect()
    }

    /// Of each of `layers` layers, the lowest first, how many pages it refers to.
    pub(crate) fn pages_by_layer(&self, layers: usize) -> Vec<u64> {
        let mut counts = vec![0; layers];
        for (_, file) in self.changed_files() {
            for (_, page) in file.table().iter() {
                if let Some(count) = page.layer().and_then(|layer| counts.get_mut(layer)) {
                    *count += 1;
                }
            }
        }
        counts
    }

    pub(crate) fn get(&self, ino: Ino) -> Result<&Node> {
        let node = match self.overlay.get(&ino) {
            Some(changed) => changed.as_deref(),
            None => self.base.get(ino),
        };
        node.ok_or(VolumeError::NotFound)
    }

    pub(crate) fn get_mut(&mut self, ino: Ino) -> Result<&mut Node> {
        if !self.overlay.contains_key(&ino) {
            let node = self.base.share(ino).ok_or(VolumeError::NotFound)?;
            self.check_room()?;
            self.overlay.insert(ino, Some(node));
        }
        let changed = self.overlay.get_mut(&ino).and_then(Option::as_mut);
        changed.map(Arc::make_mut).ok_or(VolumeError::NotFound)
    }

    pub(crate) fn lookup(&self, directory: Ino, name: &str) -> Result<Ino> {
        let entries = self.get(directory)?.entries()?;
        entries.get(name).copied().ok_or(VolumeError::NotFound)
    }

    pub(crate) fn list(&self, directory: Ino) -> Result<Vec<DirectoryEntry>> {
        let entries = self.get(directory)?.entries()?;
        let entry = |(name, ino): (&Arc<str>, &Ino)| {
            let kind = self.get(*ino)?.kind();
            Ok(DirectoryEntry {
                name: Arc::clone(name),
                ino: *ino,
                kind,
            })
        };
        entries.iter().map(entry).collect()
    }

    /// The node at `path`, from the root. Symbolic links on the way are followed, a last one only if
    /// `follow_last`.
    pub(crate) fn resolve(&self, path: &str, follow_last: bool) -> Result<Ino> {
        if !path.starts_with('/') {
            return Err(VolumeError::Invalid("a path starts with a slash"));
        }
        let mut at = Ino::ROOT;
        // The names still to go, the next one last.
        let mut names: Vec<&str> = path.rsplit('/').collect();
        let mut followed = 0;
        while let Some(name) = names.pop() {
            match name {
                "" | "." => continue,
                ".." => return Err(VolumeError::Invalid("a path has no `..`")),
                _ => {}
            }
            let next = self.lookup(at, name)?;
            // After a slash at the end an empty name is left: `link/` is what the link leads to.
            let is_last = names.is_empty();
            match &self.get(next)?.content {
                Content::Symlink(target) if follow_last || !is_last => {
                    followed += 1;
                    if followed > SYMLINKS_FOLLOWED_MAX {
                        return Err(VolumeError::Invalid("too many symbolic links in a path"));
                    }
                    if target.starts_with('/') {
                        at = Ino::ROOT;
                    }
                    names.extend(target.rsplit('/'));
                }
                _ => at = next,
            }
        }
        if path.ends_with('/') {
            self.get(at)?.entries()?;
        }
        Ok(at)
    }

    /// Puts a new node into `directory` and returns its number.
    pub(crate) fn create(&mut self, directory: Ino, name: &str, node: Node) -> Result<Ino> {
        check_name(name)?;
        if self.get(directory)?.entries()?.contains_key(name) {
            return Err(VolumeError::Exists);
        }
        self.check_room()?;
        let ino = Ino::new(self.next);
        // The last number stays unused, so that `next` always has a value.
        let max = u64::from(u32::MAX);
        let exhausted = VolumeError::NoSpace {
            limit: "volume.inos_max",
            max,
        };
        let next = self.next.checked_add(1).ok_or(exhausted)?;
        self.entries_mut(directory)?.insert(name.into(), ino);
        self.next = next;
        self.overlay.insert(ino, Some(Arc::new(node)));
        Ok(ino)
    }

    /// Takes the name of a file or symbolic link away and returns the node, which stays.
    pub(crate) fn unlink(&mut self, directory: Ino, name: &str) -> Result<Ino> {
        let ino = self.lookup(directory, name)?;
        if self.get(ino)?.entries().is_ok() {
            return Err(VolumeError::IsDirectory);
        }
        self.entries_mut(directory)?.remove(name);
        Ok(ino)
    }

    /// Takes the name of an empty directory away and returns the node, which stays.
    pub(crate) fn unlink_directory(&mut self, directory: Ino, name: &str) -> Result<Ino> {
        let ino = self.lookup(directory, name)?;
        if !self.get(ino)?.entries()?.is_empty() {
            return Err(VolumeError::NotEmpty);
        }
        self.entries_mut(directory)?.remove(name);
        Ok(ino)
    }

    /// Moves a name, as POSIX does; returns the node that lost its name to it, if any.
    pub(crate) fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) -> Result<Option<Ino>> {
        check_name(to.1)?;
        let moved = self.lookup(from.0, from.1)?;
        let replaced = self.get(to.0)?.entries()?.get(to.1).copied();
        if replaced == Some(moved) {
            return Ok(None);
        }
        let is_directory = self.get(moved)?.entries().is_ok();
        if is_directory && self.is_within(to.0, moved) {
            return Err(VolumeError::Invalid("a directory cannot move into itself"));
        }
        if let Some(replaced) = replaced {
            match (is_directory, self.get(replaced)?.entries()) {
                (true, Ok(entries)) if !entries.is_empty() => return Err(VolumeError::NotEmpty),
                (true, Err(_)) => return Err(VolumeError::NotDirectory),
                (false, Ok(_)) => return Err(VolumeError::IsDirectory),
                (true, Ok(_)) | (false, Err(_)) => {}
            }
        }
        // Both directories can change before either does.
        self.entries_mut(from.0)?;
        self.entries_mut(to.0)?.insert(to.1.into(), moved);
        self.entries_mut(from.0)?.remove(from.1);
        Ok(replaced)
    }

    /// Removes a node that has no name, and returns it.
    pub(crate) fn remove(&mut self, ino: Ino) -> Option<Arc<Node>> {
        let below = self.base.share(ino);
        let removed = if below.is_some() {
            self.overlay.insert(ino, None)
        } else {
            self.overlay.remove(&ino)
        };
        removed.unwrap_or(below)
    }

    /// Puts a node back that has no name, as an open file keeps it.
    pub(crate) fn keep(&mut self, ino: Ino, node: Arc<Node>) {
        self.overlay.insert(ino, Some(node));
    }

    /// The node, shared.
    pub(crate) fn share(&self, ino: Ino) -> Option<Arc<Node>> {
        match self.overlay.get(&ino) {
            Some(changed) => changed.clone(),
            None => self.base.share(ino),
        }
    }

    /// Whether `ino` is `top` or somewhere below it.
    fn is_within(&self, ino: Ino, top: Ino) -> bool {
        // A damaged tree could have a circle; each directory is entered once.
        let mut seen = HashSet::from([top]);
        let mut to_visit = vec![top];
        while let Some(at) = to_visit.pop() {
            if at == ino {
                return true;
            }
            let entries = self.get(at).and_then(Node::entries);
            to_visit.extend(
                entries
                    .into_iter()
                    .flat_map(Entries::values)
                    .filter(|ino| seen.insert(**ino)),
            );
        }
        false
    }

    fn entries_mut(&mut self, directory: Ino) -> Result<&mut Entries> {
        self.get(directory)?.entries()?;
        match &mut self.get_mut(directory)?.content {
            Content::Directory(entries) => Ok(entries),
            _ => Err(VolumeError::NotDirectory),
        }
    }

    fn check_room(&self) -> Result<()> {
        if self.overlay.len() >= NODES_MAX {
            return Err(VolumeError::NoSpace {
                limit: "volume.nodes_max",
                max: NODES_MAX as u64,
            });
        }
        Ok(())
    }
}

fn moved_node(
    node: &Arc<Node>,
    moved: &dyn Fn(PageRef) -> PageRef,
    done: Option<&(Arc<Node>, Arc<Node>)>,
) -> Arc<Node> {
    let Content::File(contents) = &node.content else {
        return Arc::clone(node);
    };
    let done =
        done.and_then(|(before, after)| Some((before.contents().ok()?, after.contents().ok()?)));
    Arc::new(Node {
        mode: node.mode,
        mtime: node.mtime,
        content: Content::File(contents.moved(moved, done)),
    })
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    match name {
        "" | "." | ".." => Err(VolumeError::Invalid("a name cannot be empty, `.` or `..`")),
        _ if name.len() > NAME_BYTES_MAX => Err(VolumeError::Invalid("a name is too long")),
        _ if name.contains(['/', '\0']) => Err(VolumeError::Invalid(
            "a name cannot contain a slash or a zero byte",
        )),
        _ => Ok(()),
    }
}

pub(crate) fn check_target(target: &str) -> Result<()> {
    if target.is_empty() || target.len() > SYMLINK_TARGET_BYTES_MAX || target.contains('\0') {
        return Err(VolumeError::Invalid(
            "a symbolic link's target is empty, too long or binary",
        ));
    }
    Ok(())
}

/// Node numbers are dense and not chosen by an attacker: one multiplication spreads them, where the
/// standard hasher would cost more than the rest of a page read's bookkeeping.
#[derive(Default)]
pub(crate) struct InoHasher(u64);

impl Hasher for InoHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Mtime;

    fn tree() -> Tree {
        Tree::new(TreeBase::new(Arc::new([Node::directory(
            0o755,
            Mtime::default(),
        )])))
    }

    fn directory(tree: &mut Tree, parent: Ino, name: &str) -> Ino {
        tree.create(parent, name, Node::directory(0o755, Mtime::default()))
            .unwrap()
    }

    fn file(tree: &mut Tree, parent: Ino, name: &str) -> Ino {
        tree.create(parent, name, Node::file(0o644, Mtime::default()))
            .unwrap()
    }

    fn symlink(tree: &mut Tree, parent: Ino, name: &str, target: &str) {
        let content = Content::Symlink(target.into());
        let node = Node {
            mode: 0o777,
            mtime: Mtime::default(),
            content,
        };
        tree.create(parent, name, node).unwrap();
    }

    #[test]
    fn paths_follow_links_in_the_middle() {
        let mut tree = tree();
        let a = directory(&mut tree, Ino::ROOT, "a");
        let b = directory(&mut tree, a, "b");
        let x = file(&mut tree, b, "x");
        symlink(&mut tree, Ino::ROOT, "absolute", "/a/b");
        symlink(&mut tree, a, "relative", "b");
        symlink(&mut tree, Ino::ROOT, "loop", "loop");
        for path in ["/a/b/x", "//a/./b/x", "/absolute/x", "/a/relative/x"] {
            assert_eq!(tree.resolve(path, false).unwrap(), x, "{path}");
        }
        assert_eq!(tree.resolve("/", false).unwrap(), Ino::ROOT);
        assert_eq!(tree.resolve("/absolute", true).unwrap(), b);
        assert_eq!(tree.resolve("/absolute/", false).unwrap(), b);
        assert_ne!(tree.resolve("/absolute", false).unwrap(), b);
        assert!(matches!(
            tree.resolve("/loop/x", false),
            Err(VolumeError::Invalid(_))
        ));
        assert!(matches!(
            tree.resolve("/a/../a", false),
            Err(VolumeError::Invalid(_))
        ));
        assert!(matches!(
            tree.resolve("a", false),
            Err(VolumeError::Invalid(_))
        ));
        assert!(matches!(
            tree.resolve("/a/b/x/y", false),
            Err(VolumeError::NotDirectory)
        ));
        assert!(matches!(
            tree.resolve("/a/b/x/", false),
            Err(VolumeError::NotDirectory)
        ));
        assert!(matches!(
            tree.resolve("/a/y", false),
            Err(VolumeError::NotFound)
        ));
    }

    #[test]
    fn rename_is_posix() {
        let mut tree = tree();
        let a = directory(&mut tree, Ino::ROOT, "a");
        let b = directory(&mut tree, a, "b");
        let x = file(&mut tree, Ino::ROOT, "x");
        let y = file(&mut tree, a, "y");
        let root = Ino::ROOT;
        assert!(matches!(
            tree.rename((root, "a"), (b, "a")),
            Err(VolumeError::Invalid(_))
        ));
        assert!(matches!(
            tree.rename((root, "a"), (root, "x")),
            Err(VolumeError::NotDirectory)
        ));
        assert!(matches!(
            tree.rename((root, "x"), (a, "b")),
            Err(VolumeError::IsDirectory)
        ));
        assert!(matches!(
            tree.rename((root, "none"), (a, "b")),
            Err(VolumeError::NotFound)
        ));
        assert_eq!(tree.rename((root, "x"), (root, "x")).unwrap(), None);
        assert_eq!(tree.rename((root, "x"), (a, "y")).unwrap(), Some(y));
        assert_eq!(tree.lookup(a, "y").unwrap(), x);
        let c = directory(&mut tree, root, "c");
        assert_eq!(tree.rename((a, "b"), (root, "c")).unwrap(), Some(c));
        assert!(matches!(
            tree.rename((root, "c"), (root, "a")),
            Err(VolumeError::NotEmpty)
        ));
        assert_eq!(tree.rename((root, "c"), (a, "d")).unwrap(), None);
        assert_eq!(tree.list(a).unwrap().len(), 2);
    }

    #[test]
    fn names_have_rules() {
        let mut tree = tree();
        for name in ["", ".", "..", "a/b", "a\0", &"n".repeat(256)] {
            let node = Node::file(0o644, Mtime::default());
            assert!(matches!(
                tree.create(Ino::ROOT, name, node),
                Err(VolumeError::Invalid(_))
            ));
        }
        file(&mut tree, Ino::ROOT, &"n".repeat(255));
        assert_eq!(tree.changes().len(), 2);
    }
}
