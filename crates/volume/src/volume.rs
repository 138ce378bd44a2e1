//! The volume: one database's tree and pages behind one lock, and its durable versions.
//!
//! On disk two files, `<id>.manifest` (sealed, the last durable version) and `<id>.pages`.
//!
//! Invariants
//! 1. The pages that the durable version refers to are never overwritten: whatever is written, and
//!    whenever the process dies, opening shows the last version that was flushed, exactly.
//! 2. A version is one instant: all changes that returned before `flush` was called, none that began
//!    after it returned.
//! 3. The manifest is replaced only after the pages it refers to are on the disk, and slots of the
//!    version before are free only after that.
//! 4. One [`Volume`] a database and process: the caller sees to it (the data directory is locked).
//!
//! Page I/O happens under the lock, shared for reads. Without it, a flush finishing between finding
//! a slot and reading it could give that slot to another page. A database has one backend and that has
//! one thread, so nobody waits; the lock is free again while a flush waits for the disk.

mod files;
mod versions;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::{Result, VolumeError};
use crate::id::{DatabaseId, TemplateId, Version};
use crate::manifest;
use crate::node::{Ino, Node};
use crate::page::{PageRef, Place};
use crate::pages::Pages;
use crate::pages_file::PagesFile;
use crate::slots::{Slots, slot_count};
use crate::template::{self, Template};
use crate::tree::Tree;

/// Bytes of own pages that a new volume may hold, the limit `volume.bytes_max`.
pub const BYTES_MAX_DEFAULT: u64 = 10 << 30;

/// The durable state of one database. Shared between threads; dropped without a flush, it loses what
/// was written since the last one.
#[derive(Debug)]
pub struct Volume {
    id: DatabaseId,
    directory: PathBuf,
    template: Arc<Template>,
    state: RwLock<State>,
    /// Held by whoever needs frozen slots to stay: flushes and copies, one at a time.
    /// Taken before `state`.
    slots_held: Mutex<()>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    pages: Pages,
    /// How often each node is open.
    open: HashMap<Ino, u32>,
    /// Nodes without a name that are kept because they are open.
    orphans: HashSet<Ino>,
    /// The last durable version.
    version: Version,
    /// Whether the tree differs from it.
    changed: bool,
    /// Why this volume can flush no more.
    broken: Option<&'static str>,
}

/// The volume as of one instant, whose slots are frozen.
#[derive(Debug)]
struct Snapshot {
    tree: Tree,
    own: Option<Arc<PagesFile>>,
}

// Making, opening and removing volumes.
impl Volume {
    /// A new volume that shows `template`. Nothing is written before the first own page or flush;
    /// until that flush the database does not exist on disk.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if the database was flushed before: open or remove it.
    pub fn create(directory: &Path, id: DatabaseId, template: Arc<Template>) -> Result<Self> {
        if Self::exists(directory, id)? {
            return Err(VolumeError::Exists);
        }
        let tree = Tree::new(template.nodes());
        Ok(Self::assemble(
            directory,
            id,
            template,
            tree,
            None,
            Slots::default(),
        ))
    }

    /// An empty volume that belongs to no database, to run initdb in. What an earlier scratch volume
    /// left in `directory` is removed: one at a time in each directory.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if leftovers cannot be removed.
    pub fn scratch(directory: &Path) -> Result<Self> {
        Self::remove(directory, DatabaseId::SCRATCH)?;
        Self::create(directory, DatabaseId::SCRATCH, Template::empty())
    }

    /// Opens the last flushed version of a database. `templates` finds the template it was made from;
    /// it is not asked for the empty one.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] if the database was never flushed or is removed,
    /// [`VolumeError::Corrupt`] if its files are not what was written, and what `templates` returns.
    pub fn open(
        directory: &Path,
        id: DatabaseId,
        templates: &dyn Fn(TemplateId) -> Result<Arc<Template>>,
    ) -> Result<Self> {
        let path = manifest_path(directory, id);
        let malformed = |error: manifest::Malformed| VolumeError::corrupt(&path, error.0);
        let payload = store::read_sealed(
            &store::RealDisk,
            &path,
            manifest::VOLUME_KIND,
            manifest::FORMAT,
            id.get(),
        )
        .map_err(|error| VolumeError::from_read(&path, error))?;
        let template_id = manifest::template_of(&payload).map_err(malformed)?;
        let template = match template_id {
            TemplateId::EMPTY => Template::empty(),
            _ => templates(template_id)?,
        };
        if template.id() != template_id {
            return Err(VolumeError::Invalid(
                "another template was given than the volume's",
            ));
        }
        let decoded = manifest::decode(&payload, template.nodes(), template.page_count())
            .map_err(malformed)?;
        let own = match slot_count(&decoded.own_slots) {
            0 => None,
            count => Some(Arc::new(PagesFile::open(
                &pages_path(directory, id),
                true,
                count,
            )?)),
        };
        let slots = Slots::opened(&decoded.own_slots);
        let mut volume = Self::assemble(directory, id, template, decoded.tree, own, slots);
        volume.state.get_mut().version = decoded.version;
        Ok(volume)
    }

    /// Whether a flushed version of the database is in `directory`.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if the directory cannot be searched.
    pub fn exists(directory: &Path, id: DatabaseId) -> Result<bool> {
        let path = manifest_path(directory, id);
        path.try_exists()
            .map_err(|source| VolumeError::io("look for", &path, source))
    }

    /// Removes a database's files durably; none being there is fine. No [`Volume`] of it may be open.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if a file cannot be removed; call again to finish.
    pub fn remove(directory: &Path, id: DatabaseId) -> Result<()> {
        // The manifest first: without it the database is gone, and its pages are only garbage.
        store::remove_sealed(&store::RealDisk, &manifest_path(directory, id))
            .map_err(VolumeError::from_write)?;
        remove_file(&pages_path(directory, id))
    }

    /// An independent volume that starts as this one is now. It exists on disk from its own first
    /// flush on. Until its first write, that of an unchanged volume costs as little as `create`;
    /// otherwise the own pages are copied, or shared by the host's file system where it can.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if `id` was flushed before, [`VolumeError::Io`] if pages cannot be
    /// copied, [`VolumeError::Broken`] if this volume holds a page that was torn by a failed write.
    pub fn fork(&self, directory: &Path, id: DatabaseId) -> Result<Self> {
        if (directory, id) == (&self.directory, self.id) || Self::exists(directory, id)? {
            return Err(VolumeError::Exists);
        }
        let held = self.slots_held.lock();
        let snapshot = self.snapshot()?;
        let slots_used = snapshot.tree.own_slots();
        let own = match (&snapshot.own, slot_count(&slots_used)) {
            (Some(own), count @ 1..) => {
                let path = pages_path(directory, id);
                // A partial copy is garbage; the first error is the one to tell.
                let copied =
                    PagesFile::copy(own, count, &path).inspect_err(|_| drop(remove_file(&path)))?;
                Some(Arc::new(copied))
            }
            _ => None,
        };
        drop(held);
        let template = Arc::clone(&self.template);
        let slots = Slots::copied(&slots_used);
        let mut fork = Self::assemble(directory, id, template, snapshot.tree, own, slots);
        fork.state.get_mut().pages.bytes_max = self.state.read().pages.bytes_max;
        Ok(fork)
    }

    /// Writes what the volume is now as the template `id` into the new directory `directory`, whole
    /// and durable when it returns.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if `directory` exists, [`VolumeError::Io`] if it cannot be written,
    /// [`VolumeError::Corrupt`] if a page is not what was written, [`VolumeError::Broken`] as for `fork`.
    pub fn save_as_template(&self, directory: &Path, id: TemplateId) -> Result<()> {
        let _held = self.slots_held.lock();
        let Snapshot { tree, own } = self.snapshot()?;
        let read = |reference: PageRef, page: &mut [u8]| match (reference.place(), &own) {
            (Place::Template(slot), _) => self.template.read_page(slot, reference.crc(), page),
            (Place::Own(slot), Some(own)) => own.read(slot, reference.crc(), page),
            _ => unreachable!("BUG: a page table lists a hole, or an own page without a file"),
        };
        template::save(directory, id, &tree, &read)
    }

    fn assemble(
        directory: &Path,
        id: DatabaseId,
        template: Arc<Template>,
        tree: Tree,
        own: Option<Arc<PagesFile>>,
        slots: Slots,
    ) -> Self {
        let pages = Pages {
            template: Arc::clone(&template),
            own,
            own_path: pages_path(directory, id),
            slots,
            bytes_max: BYTES_MAX_DEFAULT,
            torn: false,
        };
        let state = State {
            tree,
            pages,
            open: HashMap::new(),
            orphans: HashSet::new(),
            version: Version::default(),
            changed: false,
            broken: None,
        };
        let (directory, state) = (directory.to_owned(), RwLock::new(state));
        Self {
            id,
            directory,
            template,
            state,
            slots_held: Mutex::new(()),
        }
    }
}

impl State {
    fn is_dirty(&self) -> bool {
        self.changed || self.version == Version::default()
    }

    fn check_whole(&self) -> Result<()> {
        match self.broken {
            Some(reason) => Err(VolumeError::Broken(reason)),
            None if self.pages.torn => Err(VolumeError::Broken("a write failed half way")),
            None => Ok(()),
        }
    }

    /// The tree without its orphans, which nobody can reach once it is opened elsewhere.
    fn snapshot(&self) -> Snapshot {
        let mut tree = self.tree.clone();
        for orphan in &self.orphans {
            tree.remove(*orphan);
        }
        Snapshot {
            tree,
            own: self.pages.own.clone(),
        }
    }

    fn create(&mut self, directory: Ino, name: &str, node: Node) -> Result<Ino> {
        self.check_named(directory)?;
        let ino = self.tree.create(directory, name, node)?;
        self.changed = true;
        Ok(ino)
    }

    /// A directory that was removed while open takes no new names.
    fn check_named(&self, directory: Ino) -> Result<()> {
        if self.orphans.contains(&directory) {
            return Err(VolumeError::NotFound);
        }
        Ok(())
    }

    /// `ino` has lost its name.
    fn unnamed(&mut self, ino: Ino) {
        self.changed = true;
        if self.open.contains_key(&ino) {
            self.orphans.insert(ino);
        } else {
            self.free(ino);
        }
    }

    fn free(&mut self, ino: Ino) {
        let removed = self.tree.remove(ino);
        let contents = removed.as_ref().and_then(|node| node.contents().ok());
        for (_, page) in contents
            .into_iter()
            .flat_map(|contents| contents.table().iter())
        {
            self.pages.release(page);
        }
    }
}

fn manifest_path(directory: &Path, id: DatabaseId) -> PathBuf {
    directory.join(format!("{id}.manifest"))
}

fn pages_path(directory: &Path, id: DatabaseId) -> PathBuf {
    directory.join(format!("{id}.pages"))
}

/// Removes a file, if it is there.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", path, source))
        }
        _ => Ok(()),
    }
}
