//! The volume: one database's tree and pages behind one lock, and its durable versions.
//!
//! On disk a manifest (sealed, the last durable version), a file of own pages, and what the journal
//! holds of the WAL written since.
//!
//! Invariants
//! 1. The pages that the durable version refers to are never overwritten: whatever is written, and
//!    whenever the process dies, opening shows the last version that was flushed, exactly, and over it
//!    the WAL that was synced since.
//! 2. A version is one instant: all changes that returned before `flush` was called, none that began
//!    after it returned.
//! 3. The manifest is replaced only after the pages it refers to are on the disk, and slots of the
//!    version before are free only after that; the journal is released after that, too.
//! 4. One [`Volume`] a database and process: the caller sees to it (the data directory is locked).
//! 5. Layers are never written: what a volume was when it was shared stays as it was.
//!
//! Page I/O happens under the lock, shared for reads. Without it, a flush finishing between finding
//! a slot and reading it could give that slot to another page. A database has one backend and that has
//! one thread, so nobody waits; the lock is free again while a flush waits for the disk.

mod compaction;
mod files;
mod layers;
mod log;
mod room;
mod versions;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use store::{OpenHow, Position};

use crate::base::Base;
use crate::error::{Result, VolumeError};
use crate::id::{DatabaseId, TemplateId, Version};
use crate::manifest::{self, Malformed};
use crate::node::{Ino, Node};
use crate::pages::Pages;
use crate::pages_file::PagesFile;
use crate::slots::{Slots, slot_count};
use crate::template::{self, Template};
use crate::tree::Tree;
use crate::volumes::Volumes;
use crate::wal::Wal;

use compaction::Plan;
pub use compaction::{Compaction, LAYERS_SLACK_BYTES, LayerUse};
use layers::Frozen;
pub use log::{Owed, carry_log};
use room::Room;
pub use room::{BYTES_MARGIN, BYTES_RESERVE, Refusal};

/// Bytes that a new volume's files may have beyond its template's, the limit `volume.bytes_max`.
pub const BYTES_MAX_DEFAULT: u64 = 10 << 30;

/// The durable state of one database. Shared between threads; dropped without a flush, it loses what
/// was written since the last one, but for the WAL that was synced.
#[derive(Debug)]
pub struct Volume {
    id: DatabaseId,
    volumes: Arc<Volumes>,
    state: RwLock<State>,
    /// Held by whoever needs frozen slots to stay: flushes and copies, one at a time.
    /// Taken before `state`.
    slots_held: Mutex<()>,
    /// Files of layers, and runs of slots in them whose room is to be given back.
    owed_room: Mutex<Vec<OwedRoom>>,
    /// Pages that were read of its files.
    pages_read: AtomicU64,
    /// Held by who compacts. Taken before `slots_held`.
    compaction: Mutex<Option<Plan>>,
}

/// A file, and runs of neighbouring slots in it.
type OwedRoom = (Arc<PagesFile>, Vec<Vec<u32>>);

#[derive(Debug)]
struct State {
    tree: Tree,
    pages: Pages,
    wal: Wal,
    room: Room,
    /// Which of the volume's pages files the own pages are in.
    epoch: u32,
    /// Layers that this volume became when it was shared, and that are not on disk yet.
    frozen: Vec<Frozen>,
    /// How often each node is open.
    open: HashMap<Ino, u32>,
    /// Nodes without a name that are kept because they are open.
    orphans: HashSet<Ino>,
    /// What the last durable version is over.
    durable_base: Arc<Base>,
    /// The last durable version.
    version: Version,
    /// Whether the tree differs from it.
    changed: bool,
    /// A flush is under way: what it writes is in no durable version yet.
    flushing: bool,
    /// Bytes of pages in no durable version at which a write waits for one.
    dirty_bytes_max: u64,
    /// How many syncs of files other than the log were asked for, and how many of them the last
    /// durable version has met.
    syncs_asked: u64,
    syncs_met: u64,
    /// How many of them nobody waits for.
    syncs_waived: u64,
    /// The last entry of the journal that is in the tree; 0 for none.
    applied: u64,
    /// Replies need not wait for the log: durability `relaxed`.
    relaxed: bool,
    /// Why this volume can flush no more.
    broken: Option<&'static str>,
    /// It was given up: nothing may be written any more.
    retired: bool,
}

/// Why nothing can be done with a volume that was given up.
const RETIRED: &str = "it was given up";

/// The volume as of one instant, whose slots are frozen.
#[derive(Debug)]
struct Snapshot {
    tree: Tree,
    base: Arc<Base>,
    own: Option<Arc<PagesFile>>,
    epoch: u32,
    applied: u64,
    lsn: u64,
}

// Making, opening and removing volumes.
impl Volume {
    /// A new volume that shows `base`, and what the journal may hold of its WAL. Nothing is written
    /// before the first own page or flush.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if the database was flushed before: open or remove it.
    pub fn create(volumes: &Arc<Volumes>, id: DatabaseId, base: &Arc<Base>) -> Result<Self> {
        if Self::exists(volumes, id)? {
            return Err(VolumeError::Exists);
        }
        let tree = Tree::new(base.tree().clone());
        let mut volume = Self::assemble(volumes, id, base, tree, 0, None, Slots::default());
        volume.replay(0)?;
        Ok(volume)
    }

    /// An empty volume that belongs to no database, to run initdb in. What an earlier scratch volume
    /// left in `directory` is removed: one at a time in each directory.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if leftovers cannot be removed.
    pub fn scratch(directory: &Path) -> Result<Self> {
        let volumes = Volumes::plain(directory);
        Self::remove(&volumes, DatabaseId::SCRATCH, &|_| false)?;
        Self::create(
            &volumes,
            DatabaseId::SCRATCH,
            &Base::template(Template::empty()),
        )
    }

    /// Opens the last flushed version of a database, with the WAL that the journal holds since.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] if the database was never flushed or is removed,
    /// [`VolumeError::Corrupt`] if its files are not what was written, [`VolumeError::Fenced`] if a
    /// later generation wrote them, and what finding its base gives.
    pub fn open(volumes: &Arc<Volumes>, id: DatabaseId) -> Result<Self> {
        let path = volumes.manifest_path(id);
        volumes.settle_names()?;
        let (header, payload) = volumes.read_manifest(&path, id)?;
        if header.generation > volumes.generation() {
            return Err(VolumeError::Fenced {
                found: header.generation,
                ours: volumes.generation(),
            });
        }
        let base = volumes.base(header.base)?;
        let decoded = manifest::decode(&payload, &base)
            .map_err(|Malformed(reason)| VolumeError::corrupt(&path, reason))?;
        let own = match slot_count(&decoded.own_slots) {
            0 => None,
            count => {
                let path = volumes.pages_path(id, header.epoch);
                let file = PagesFile::open(volumes.disk(), &path, OpenHow::Write, count)?;
                Some(Arc::new(file))
            }
        };
        let slots = Slots::opened(&decoded.own_slots);
        let (tree, epoch) = (decoded.tree, header.epoch);
        let mut volume = Self::assemble(volumes, id, &base, tree, epoch, own, slots);
        let state = volume.state.get_mut();
        state.version = header.version;
        state.wal.restore_end(header.lsn);
        let same_journal = volumes
            .journal()
            .is_some_and(|journal| journal.id() == header.journal);
        volume.replay(if same_journal { header.applied } else { 0 })?;
        if same_journal
            && header.applied > 0
            && let Some(journal) = volumes.journal()
        {
            // Whoever wrote this version may have died before it said so.
            journal.release(id.get(), Position::from_number(header.applied + 1));
        }
        Ok(volume)
    }

    /// Whether a flushed version of the database is there.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if the directory cannot be searched.
    pub fn exists(volumes: &Volumes, id: DatabaseId) -> Result<bool> {
        let path = volumes.manifest_path(id);
        volumes
            .disk()
            .exists(&path)
            .map_err(|source| VolumeError::io("look for", &path, source))
    }

    /// Removes a database's files durably, and its entries in the journal; none being there is fine.
    /// No [`Volume`] of it may be open. `is_layer` tells which of its epochs are layers that others are
    /// based on: those stay.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if a file cannot be removed; call again to finish.
    pub fn remove(volumes: &Volumes, id: DatabaseId, is_layer: &dyn Fn(u32) -> bool) -> Result<()> {
        let path = volumes.manifest_path(id);
        let epoch = match volumes.read_manifest(&path, id) {
            Ok((header, _)) => header.epoch,
            // It was never shared, or this was all but done before.
            Err(VolumeError::NotFound) => 0,
            // Which epochs there were is not known: its pages stay behind.
            Err(error @ VolumeError::Io { .. }) => return Err(error),
            Err(_) => 0,
        };
        for epoch in (0..=epoch.saturating_add(1)).filter(|epoch| !is_layer(*epoch)) {
            volumes.remove_layer(crate::id::LayerId { origin: id, epoch })?;
        }
        // Last, for it alone tells the epochs to whoever finishes what was begun.
        store::remove_sealed(&**volumes.disk(), &path).map_err(VolumeError::from_write)?;
        if let Some(journal) = volumes.journal() {
            journal.forget(id.get());
        }
        Ok(())
    }

    /// Writes what the volume is now as the template `id` into the new directory `directory`, whole
    /// and durable when it returns.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if `directory` exists, [`VolumeError::Io`] if it cannot be written,
    /// [`VolumeError::Corrupt`] if a page is not what was written, [`VolumeError::Broken`] if this
    /// volume holds a page that was torn by a failed write.
    pub fn save_as_template(&self, directory: &Path, id: TemplateId) -> Result<()> {
        let _held = self.slots_held.lock();
        let Snapshot {
            tree, own, base, ..
        } = self.snapshot()?;
        let own_depth = base.depth() + 1;
        let read = |reference: crate::page::PageRef, page: &mut [u8]| match &own {
            Some(own) if reference.depth() == own_depth => {
                own.read(reference.slot(), reference.crc(), page)
            }
            _ => base.read(reference, page),
        };
        template::save(directory, id, &tree, &read)
    }

    /// Gives it up: a flush under way ends, and from then on nothing is written, neither by
    /// [`write`](Self::write) nor by a sync, a flush or anything else; each fails. To be called before
    /// another volume of the same database is opened, or its files are removed, while others may still
    /// have this one.
    pub fn retire(&self) {
        let _held = self.slots_held.lock();
        let mut state = self.state.write();
        state.broken = Some(RETIRED);
        state.retired = true;
    }

    /// Whether it can flush no more, after a sync that failed or because it was given up. What was
    /// durable can be opened anew, with what the journal has.
    pub fn is_broken(&self) -> bool {
        self.state.read().broken.is_some()
    }

    fn assemble(
        volumes: &Arc<Volumes>,
        id: DatabaseId,
        base: &Arc<Base>,
        tree: Tree,
        epoch: u32,
        own: Option<Arc<PagesFile>>,
        slots: Slots,
    ) -> Self {
        let pages = Pages {
            layered: tree.pages_by_layer(base.layer_count()),
            base: Arc::clone(base),
            own,
            own_path: volumes.pages_path(id, epoch),
            disk: Arc::clone(volumes.disk()),
            slots,
            leftover: true,
            cut_short: None,
            torn: false,
        };
        let mut state = State {
            tree,
            pages,
            wal: Wal::default(),
            room: Room::new(BYTES_MAX_DEFAULT),
            epoch,
            frozen: Vec::new(),
            open: HashMap::new(),
            orphans: HashSet::new(),
            durable_base: Arc::clone(base),
            version: Version::default(),
            changed: false,
            flushing: false,
            dirty_bytes_max: u64::MAX,
            syncs_asked: 0,
            syncs_met: 0,
            syncs_waived: 0,
            applied: 0,
            relaxed: false,
            broken: None,
            retired: false,
        };
        state.find_wal();
        state.count_room();
        Self {
            id,
            volumes: Arc::clone(volumes),
            state: RwLock::new(state),
            slots_held: Mutex::new(()),
            owed_room: Mutex::new(Vec::new()),
            pages_read: AtomicU64::new(0),
            compaction: Mutex::new(None),
        }
    }
}

impl State {
    fn is_dirty(&self) -> bool {
        self.changed
            || self.flushing
            || !self.frozen.is_empty()
            || self.version == Version::default()
    }

    /// That it was not given up.
    fn check_kept(&self) -> Result<()> {
        match self.retired {
            true => Err(VolumeError::Broken(RETIRED)),
            false => Ok(()),
        }
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
            base: Arc::clone(&self.pages.base),
            own: self.pages.own.clone(),
            epoch: self.epoch,
            applied: self.applied,
            lsn: self.wal.end(),
        }
    }

    fn create(&mut self, directory: Ino, name: &str, node: Node) -> Result<Ino> {
        self.check_named(directory)?;
        let ino = self.tree.create(directory, name, node)?;
        self.changed = true;
        self.named(directory, name, ino);
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
        let holes = self.holes(ino);
        if let Some(removed) = self.tree.remove(ino) {
            self.free_pages(ino, &removed, holes);
        }
    }
}
