//! Room: what a volume's bytes are counted as, and which growth is refused.
//!
//! What a full volume must still be able to do is whatever ends its being full, and whatever keeps what was
//! promised: crash recovery, checkpoints, commits, DROP, TRUNCATE, DELETE, VACUUM. So a write is refused
//! only if it makes a *data file* longer. A data file is Postgres' own word for what holds tables, indexes
//! and temporary results; here, every file in a directory of the root, but for those
//! - in the directories `pg_*`, other than `pg_tblspc`: WAL, commit states, and the like;
//! - whose names begin with `pg_`: the maps and caches in `base` and `global` that a start rewrites;
//! - that are free-space or visibility maps: they follow their table, and VACUUM makes them.
//!
//! These may grow past the limit too, but not without end: a superuser could write anything into them.
//!
//! Invariants
//! 1. A page of a file counts when the file becomes that long, whether it has been stored yet or not:
//!    Postgres makes files longer first, and its checkpoints fill in what memory holds.
//! 2. The count changes with what the files are, not with when they were written: opened again, a
//!    volume counts the same.
//! 3. Files of the log are counted apart.

use std::collections::HashSet;
use std::path::PathBuf;

use super::files::not_a_file;
use super::{State, Volume};
use crate::contents::Contents;
use crate::error::{Result, VolumeError};
use crate::node::{Content, Ino, Node};
use crate::page::{FILE_BYTES_MAX, PAGE_BYTES, pages_spanned};
use crate::pages::Pages;
use crate::tree::Tree;
use crate::volumes::ShortDisk;
use crate::wal::WAL_DIRECTORY;

/// Bytes that first pages of files and Postgres' catalogs may take at the limit, `volume.bytes_reserve`:
/// TRUNCATE makes new files and notes them in the catalogs. What files give back refills it, and so does
/// opening the volume.
pub const BYTES_RESERVE: u64 = 1 << 20;

/// Bytes past the limit to which files grow that are not data files, `volume.bytes_margin`: what Postgres needs to
/// end its being full, many times over. Whoever writes other things into such files goes no further.
pub const BYTES_MARGIN: u64 = 16 << 20;

/// A file of the log that is to be longer than any segment is none.
const LOG_FILE_BYTES_MAX: u64 = 64 << 20;

/// What of a file counts as its first pages: an empty index has up to five (hash: its meta page, two
/// buckets, a bitmap, and one to grow by).
const FIRST_BYTES: u64 = 8 * PAGE_BYTES as u64;

/// Numbers of Postgres' catalogs are below; what users make gets this and above.
const FIRST_NORMAL_NUMBER: u32 = 16384;
/// The catalog that holds what users store as large objects.
const LARGE_OBJECTS: u32 = 2613;

/// What was refused for want of room: for the DETAIL and HINT of an error of which Postgres knows no more
/// than ENOSPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A limit of ours.
    Limit {
        /// Its name, as in the configuration.
        limit: &'static str,
        /// Its number, bytes where its name says so.
        max: u64,
        /// Bytes that the volume had then, as [`Volume::data_bytes`] counts them.
        used: u64,
    },
    /// The host's disk was full.
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// To which file of the host.
        path: PathBuf,
    },
}

#[derive(Debug)]
pub(super) struct Room {
    bytes_max: u64,
    /// Nothing is refused.
    recovering: bool,
    /// Files that are in the log's directory, or had their last name there.
    log: HashSet<Ino>,
    /// Pages of those that are not the template's.
    log_pages: u64,
    /// Pages of the other changed files that are not stored: holes.
    promised: u64,
    /// Pages taken of [`BYTES_RESERVE`].
    reserved: u64,
    /// At how many bytes data files stop, for as long as the disk is short.
    stop: Option<(ShortDisk, u64)>,
    /// The last refusal that nobody took.
    refusal: Option<Refusal>,
}

/// How a file that grows is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// Never refused.
    Free,
    /// Refused at the limit once the reserve is used up.
    Reserved,
    /// Refused at the limit.
    Limited,
}

impl Room {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            recovering: false,
            log: HashSet::new(),
            log_pages: 0,
            promised: 0,
            reserved: 0,
            stop: None,
            refusal: None,
        }
    }
}

impl Volume {
    /// Bytes of its files that are not its template's, as `volume.bytes_max` limits them: without the log,
    /// and with the holes in changed files, which Postgres is going to fill.
    pub fn data_bytes(&self) -> u64 {
        self.state.read().data_pages() * PAGE_BYTES as u64
    }

    /// Bytes of the log that are stored: of `pg_wal`, without what the template has of it. A checkpoint of
    /// Postgres makes it less, as it removes the segments before.
    pub fn wal_bytes(&self) -> u64 {
        self.state.read().room.log_pages * PAGE_BYTES as u64
    }

    /// Sets the limit `volume.bytes_max`: past it data files do not grow. What the volume holds already
    /// stays, and can be overwritten.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.state.write().room.bytes_max = bytes_max;
    }

    /// While set, no growth is refused. To be set while a backend starts: crash recovery does again what
    /// was done before, under the limits of then.
    pub fn set_recovering(&self, recovering: bool) {
        self.state.write().room.recovering = recovering;
    }

    /// The last operation since the last call that was refused for want of room, if one was.
    pub fn take_refusal(&self) -> Option<Refusal> {
        // Most statements were refused nothing: they need not wait for the lock.
        self.state.read().room.refusal.as_ref()?;
        self.state.write().room.refusal.take()
    }
}

impl State {
    /// Counts anew.
    pub(super) fn count_room(&mut self) {
        let files = self.tree.changed_files();
        self.room.promised = files.map(|(_, file)| file.holes()).sum();
        (self.room.log, self.room.log_pages) = (HashSet::new(), 0);
        let in_log = self
            .wal
            .directory()
            .and_then(|log| self.tree.list(log).ok());
        for entry in in_log.unwrap_or_default() {
            self.enter_log(entry.ino);
        }
    }

    /// `ino` has a name in `directory` now.
    pub(super) fn entered(&mut self, directory: Ino, ino: Ino) {
        if self.wal.is_directory(directory) {
            self.enter_log(ino);
        } else if self.room.log.remove(&ino) {
            self.room.log_pages -= self.pages_beyond_template(ino);
            self.room.promised += self.holes(ino);
        }
    }

    fn enter_log(&mut self, ino: Ino) {
        if self.room.log.insert(ino) {
            self.room.log_pages += self.pages_beyond_template(ino);
            self.room.promised -= self.holes(ino);
        }
    }

    /// Changes the contents of the file `ino`, and counts what that does.
    pub(super) fn change_file<T>(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Contents, &mut Pages) -> Result<T>,
    ) -> Result<T> {
        let (own, holes) = (self.pages.own_pages(), self.holes(ino));
        let data = self.data_pages();
        let node = self.tree.get_mut(ino)?;
        let changed = match &mut node.content {
            Content::File(contents) => change(contents, &mut self.pages),
            _ => Err(not_a_file()),
        };
        if self.room.log.contains(&ino) {
            self.room.log_pages = self.room.log_pages + self.pages.own_pages() - own;
        } else {
            self.room.promised = self.room.promised + self.holes(ino) - holes;
            self.refill(data);
        }
        changed
    }

    /// Gives the pages of `removed` free, which was the node `ino`, changed or not.
    pub(super) fn free_pages(&mut self, ino: Ino, removed: &Node, holes: u64) {
        let (own, data) = (self.pages.own_pages(), self.data_pages());
        let table = removed.contents().map(Contents::table);
        for (_, page) in table.into_iter().flat_map(|table| table.iter()) {
            self.pages.release(page);
        }
        if self.room.log.remove(&ino) {
            self.room.log_pages -= own - self.pages.own_pages();
        } else {
            self.room.promised -= holes;
            self.refill(data);
        }
    }

    /// Whether the file `ino` may become `len` bytes long; `disk` tells if the host's is nearly full.
    pub(super) fn check_growth(
        &mut self,
        disk: Option<ShortDisk>,
        ino: Ino,
        len: u64,
    ) -> Result<()> {
        let before = self.tree.get(ino)?.contents()?.len();
        // What is too long for any file is refused by that.
        let grows = len > before && len <= FILE_BYTES_MAX;
        if !grows || self.room.recovering {
            return Ok(());
        }
        if self.room.log.contains(&ino) {
            let (limit, max) = ("volume.bytes_max", self.room.bytes_max);
            return match len <= LOG_FILE_BYTES_MAX {
                true => Ok(()),
                false => Err(VolumeError::NoSpace { limit, max }),
            };
        }
        let pages = u64::from(pages_spanned(len) - pages_spanned(before));
        let bytes = (self.data_pages() + pages) * PAGE_BYTES as u64;
        let own = (self.room.bytes_max, "volume.bytes_max", self.room.bytes_max);
        let (at, limit, max) = match disk {
            Some(disk) => own.min((self.stop_at(disk), "disk.reserve_bytes", disk.reserve_bytes)),
            None => own,
        };
        if pages == 0 {
            return Ok(());
        }
        if bytes <= at {
            self.room.reserved = 0;
            return Ok(());
        }
        // Where a file is needs a search; only who is at a limit pays for it.
        let reserved = self.room.reserved + pages;
        match growth(&self.tree, ino, len) {
            Growth::Free if bytes <= at.saturating_add(BYTES_MARGIN) => {}
            Growth::Reserved if reserved * PAGE_BYTES as u64 <= BYTES_RESERVE => {
                self.room.reserved = reserved;
            }
            Growth::Free | Growth::Reserved | Growth::Limited => {
                return Err(VolumeError::NoSpace { limit, max });
            }
        }
        Ok(())
    }

    /// What files have given back since there were `before` pages refills the reserve.
    fn refill(&mut self, before: u64) {
        let given_back = before.saturating_sub(self.data_pages());
        self.room.reserved = self.room.reserved.saturating_sub(given_back);
    }

    /// The bytes at which data files stop while the host's disk is short: the fewest that there were
    /// since it is.
    fn stop_at(&mut self, disk: ShortDisk) -> u64 {
        let used = self.data_pages() * PAGE_BYTES as u64;
        let stop = match self.room.stop {
            Some((since, stop)) if since == disk => stop.min(used),
            _ => used,
        };
        self.room.stop = Some((disk, stop));
        stop
    }

    /// Remembers why there was no room.
    pub(super) fn noted<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.note(error);
        }
        result
    }

    pub(super) fn note(&mut self, error: &VolumeError) {
        let refusal = match error {
            VolumeError::NoSpace { limit, max } => Refusal::Limit {
                limit,
                max: *max,
                used: self.data_pages() * PAGE_BYTES as u64,
            },
            VolumeError::DiskFull { action, path } => Refusal::DiskFull {
                action,
                path: path.clone(),
            },
            VolumeError::FlushFailed { source, .. } => return self.note(source),
            _ => return,
        };
        self.room.refusal = Some(refusal);
    }

    fn data_pages(&self) -> u64 {
        self.pages.own_pages() - self.room.log_pages + self.room.promised
    }

    /// Pages of a file that are holes, if it is not the template's as it was.
    pub(super) fn holes(&self, ino: Ino) -> u64 {
        match self.tree.get(ino).and_then(Node::contents) {
            Ok(contents) if self.tree.is_changed(ino) => contents.holes(),
            _ => 0,
        }
    }

    fn pages_beyond_template(&self, ino: Ino) -> u64 {
        let contents = self.tree.get(ino).and_then(Node::contents);
        let pages = contents.into_iter().flat_map(|file| file.table().iter());
        pages.filter(|(_, page)| page.layer().is_some()).count() as u64
    }
}

/// How the growth of the file `ino` to `len` bytes is seen.
fn growth(tree: &Tree, ino: Ino, len: u64) -> Growth {
    let Some((top, name)) = place(tree, ino) else {
        return Growth::Free;
    };
    let is_postgres = |name: &str| name.starts_with("pg_");
    let is_data = top
        .as_deref()
        .is_some_and(|top| top == "pg_tblspc" || !is_postgres(top));
    if !is_data || is_postgres(&name) {
        return Growth::Free;
    }
    let relation = name.split('.').next().unwrap_or(&name);
    if relation.ends_with("_fsm") || relation.ends_with("_vm") {
        return Growth::Free;
    }
    let is_catalog = relation
        .parse()
        .is_ok_and(|number: u32| number < FIRST_NORMAL_NUMBER && number != LARGE_OBJECTS);
    if is_catalog || len <= FIRST_BYTES {
        return Growth::Reserved;
    }
    Growth::Limited
}

/// The directory of the root that a file is in, `None` for the root itself, and its name; `None` for a file
/// that has lost its name.
fn place(tree: &Tree, ino: Ino) -> Option<(Option<String>, String)> {
    let mut to_visit = vec![(None, Ino::ROOT)];
    // A damaged tree could have a circle; each directory is entered once.
    let mut seen = HashSet::new();
    while let Some((top, directory)) = to_visit.pop() {
        let entries = tree.get(directory).ok()?.entries().ok()?;
        for (name, entry) in entries {
            if *entry == ino {
                return Some((top, name.to_string()));
            }
            let is_directory = tree.get(*entry).is_ok_and(|node| node.entries().is_ok());
            // Nothing that grows is looked for in the log.
            let is_log = top.is_none() && **name == *WAL_DIRECTORY;
            if is_directory && !is_log && seen.insert(*entry) {
                let below = top.clone().unwrap_or_else(|| name.to_string());
                to_visit.push((Some(below), *entry));
            }
        }
    }
    None
}
