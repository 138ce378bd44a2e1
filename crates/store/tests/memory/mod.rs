//! A disk in memory that keeps the promises of `Disk` and no more: a power failure loses, tears, zeroes
//! and reorders what was not synced, a failed sync leaves pages that look written and never are.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use dormouse_store::{Disk, DiskFile, OpenHow};

const SECTOR_BYTES: usize = 512;

/// A small random generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Content {
    /// What a reader sees.
    now: Arc<Vec<u8>>,
    /// What is on the medium, and what may come to it.
    durable: Arc<Vec<u8>>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct World {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    /// Bytes that all files together may have.
    capacity: Option<usize>,
    fail_next_sync: bool,
    fail_next_write: bool,
    /// After so many more changes nothing has an effect: the machine has stopped.
    changes_left: Option<u64>,
    syncs: u64,
}

impl World {
    fn used(&self) -> usize {
        self.names
            .values()
            .map(|file| self.files[*file].now.len())
            .sum()
    }

    fn grow(&self, file: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.files[file].now.len());
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    /// To be asked before each change.
    fn is_running(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            Some(0) => Err(io::Error::other("the machine has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, file: usize, change: Change) {
        let content = &mut self.files[file];
        apply(Arc::make_mut(&mut content.now), &change);
        content.unsynced.push(change);
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            let end = offset + data.len();
            grow(bytes, end);
            bytes[*offset..end].copy_from_slice(data);
        }
        Change::Length(len) => {
            bytes.truncate(*len);
            grow(bytes, *len);
        }
    }
}

/// `Vec::resize` is slow in a build that is not optimized.
fn grow(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&vec![0; len.saturating_sub(bytes.len())]);
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, file) => {
            names.insert(path.clone(), *file);
        }
        NameChange::Move(from, to, file) => {
            names.remove(from);
            names.insert(to.clone(), *file);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<World>>);

impl MemoryDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// The same files and names, all durable, on a disk of its own.
    pub(crate) fn copy(&self) -> Self {
        let world = self.world();
        let files = world.files.iter().map(|file| Content {
            now: Arc::clone(&file.now),
            durable: Arc::clone(&file.now),
            unsynced: Vec::new(),
        });
        Self(Arc::new(Mutex::new(World {
            files: files.collect(),
            names: world.names.clone(),
            durable_names: world.names.clone(),
            ..World::default()
        })))
    }

    /// What a power failure leaves.
    pub(crate) fn crash(&self, random: &mut Random) -> Self {
        let world = self.world();
        let mut names = world.durable_names.clone();
        for change in &world.name_changes {
            if random.below(2) == 0 {
                apply_name(&mut names, change);
            }
        }
        let files = world.files.iter().map(|file| {
            let mut bytes = Vec::clone(&file.durable);
            // Of every sector of every write: it came, it did not, or its place holds something else.
            let luck = random.below(4);
            for change in &file.unsynced {
                match change {
                    Change::Length(_) if random.below(2) == 0 => {}
                    Change::Length(_) => apply(&mut bytes, change),
                    Change::Write(offset, data) => {
                        for (n, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                            let offset = offset + n * SECTOR_BYTES;
                            let data = match (luck, random.below(8)) {
                                (0, _) | (1, 0..4) | (2, 0) => continue,
                                (_, 6) => vec![0; sector.len()],
                                (1 | 2, 7) => vec![random.next() as u8; sector.len()],
                                _ => sector.to_vec(),
                            };
                            apply(&mut bytes, &Change::Write(offset, data));
                        }
                    }
                }
            }
            let bytes = Arc::new(bytes);
            Content {
                now: Arc::clone(&bytes),
                durable: bytes,
                unsynced: Vec::new(),
            }
        });
        Self(Arc::new(Mutex::new(World {
            files: files.collect(),
            durable_names: names.clone(),
            names,
            capacity: world.capacity,
            ..World::default()
        })))
    }

    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.world().capacity = bytes;
    }

    pub(crate) fn used(&self) -> usize {
        self.world().used()
    }

    pub(crate) fn fail_next_sync(&self) {
        self.world().fail_next_sync = true;
    }

    pub(crate) fn fail_next_write(&self) {
        self.world().fail_next_write = true;
    }

    /// Stops the machine after so many more changes of the disk.
    pub(crate) fn stop_in(&self, changes: u64) {
        self.world().changes_left = Some(changes);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.world().changes_left == Some(0)
    }

    pub(crate) fn clear_faults(&self) {
        let mut world = self.world();
        world.changes_left = None;
        (world.fail_next_sync, world.fail_next_write) = (false, false);
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// Names and contents, ascending by name.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let world = self.world();
        let files = world.names.iter();
        files
            .map(|(path, file)| (path.clone(), Vec::clone(&world.files[*file].now)))
            .collect()
    }

    /// Takes a name away, durably.
    pub(crate) fn forget(&self, path: &Path) {
        let mut world = self.world();
        world.names.remove(path);
        world.durable_names.remove(path);
    }

    /// Flips a bit of a file, under those who have it open.
    pub(crate) fn flip(&self, path: &Path, at: usize, bit: usize) {
        let mut world = self.world();
        let file = world.names[path];
        Arc::make_mut(&mut world.files[file].now)[at] ^= 1 << bit;
    }

    /// Replaces a file's content, durably.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.world();
        let bytes = Arc::new(bytes);
        let file = world.names.get(path).copied();
        let file = file.unwrap_or_else(|| {
            world.files.push(Content::default());
            world.files.len() - 1
        });
        world.files[file] = Content {
            now: Arc::clone(&bytes),
            durable: bytes,
            unsynced: Vec::new(),
        };
        world.names.insert(path.to_owned(), file);
        world.durable_names.insert(path.to_owned(), file);
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        if how == OpenHow::Create {
            world.is_running()?;
        }
        let found = world.names.get(path).copied();
        let file = match (found, how) {
            (Some(file), OpenHow::Create) => {
                world.change(file, Change::Length(0));
                file
            }
            (Some(file), _) => file,
            (None, OpenHow::Create) => {
                let file = world.files.len();
                world.files.push(Content::default());
                world.names.insert(path.to_owned(), file);
                world
                    .name_changes
                    .push(NameChange::Set(path.to_owned(), file));
                file
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MemoryFile(self.clone(), file)))
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.world().names.contains_key(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let names = world
            .names
            .keys()
            .filter_map(|path| path.strip_prefix(directory).ok());
        Ok(names
            .map(|name| name.to_str().unwrap().to_owned())
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.is_running()?;
        let Some(file) = world.names.get(from).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let change = NameChange::Move(from.to_owned(), to.to_owned(), file);
        apply_name(&mut world.names, &change);
        world.name_changes.push(change);
        Ok(())
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.is_running()?;
        if world.names.remove(path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.name_changes.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.is_running()?;
        // As with files: after a failed sync the changes are seen, and never durable.
        let changes = std::mem::take(&mut world.name_changes);
        if std::mem::take(&mut world.fail_next_sync) {
            return Err(io::Error::other("the directory did not sync"));
        }
        for change in &changes {
            apply_name(&mut world.durable_names, change);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile(MemoryDisk, usize);

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.world().files[self.1].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.0.world();
        let from = world.files[self.1]
            .now
            .get(offset as usize..)
            .unwrap_or_default();
        let read = from.len().min(buffer.len());
        buffer[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.is_running()?;
        if std::mem::take(&mut world.fail_next_write) {
            let half = data[..data.len() / 2].to_vec();
            world.change(self.1, Change::Write(offset as usize, half));
            return Err(io::Error::other("the write failed"));
        }
        world.grow(self.1, offset as usize + data.len())?;
        world.change(self.1, Change::Write(offset as usize, data.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.is_running()?;
        world.grow(self.1, len as usize)?;
        world.change(self.1, Change::Length(len as usize));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.is_running()?;
        world.grow(self.1, len as usize)?;
        if world.files[self.1].now.len() < len as usize {
            world.change(self.1, Change::Length(len as usize));
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.is_running()?;
        let end = (offset + len).min(world.files[self.1].now.len() as u64);
        let zeros = vec![0; end.saturating_sub(offset) as usize];
        world.change(self.1, Change::Write(offset as usize, zeros));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.0.world();
        world.is_running()?;
        world.syncs += 1;
        let fails = std::mem::take(&mut world.fail_next_sync);
        let content = &mut world.files[self.1];
        // Like a kernel's pages after a failed write-back: clean, readable, and not on the medium.
        let unsynced = std::mem::take(&mut content.unsynced);
        if fails {
            return Err(io::Error::other("the file did not sync"));
        }
        let durable = Arc::make_mut(&mut content.durable);
        for change in &unsynced {
            apply(durable, change);
        }
        Ok(())
    }
}
