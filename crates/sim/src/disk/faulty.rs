//! The disk that fails: [`store::Disk`] in memory, with everything that a disk may do and still keep
//! its promises, and some things that break them, on demand.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use store::{Disk, DiskFile, OpenHow};

use crate::disk::faults::{DiskCounts, Fault, Faults};
use crate::disk::names::NodeId;
use crate::disk::state::{State, dead};

/// A disk as one process sees it. A crash or a kill makes this handle and all files opened through
/// it dead for good: every call fails. Both give a new handle, for the next process.
///
/// What happens depends on the seed, the faults and the calls in their order, on nothing else.
#[derive(Debug)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    boot: u64,
}

impl FaultyDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(seed, faults))),
            boot: 0,
        }
    }

    /// Power loss. Synced content and synced names survive, of all else something.
    #[must_use]
    pub fn crash(&self) -> Arc<Self> {
        self.next_boot(State::crash)
    }

    /// The process ends, the system goes on: everything that was written is seen by the next process,
    /// and what was not synced is still not durable.
    #[must_use]
    pub fn kill(&self) -> Arc<Self> {
        self.next_boot(State::kill)
    }

    fn next_boot(&self, end: impl FnOnce(&mut State)) -> Arc<Self> {
        let mut state = self.state.lock();
        end(&mut state);
        Arc::new(Self {
            state: Arc::clone(&self.state),
            boot: state.boot,
        })
    }

    /// After so many more calls that change something the machine stops, perhaps in the middle of
    /// that call: it and all calls after it fail, until [`FaultyDisk::crash`] or [`FaultyDisk::kill`].
    pub fn stop_after(&self, calls: u64) {
        self.state.lock().fuse = Some(calls);
    }

    /// Whether the machine has stopped, and nothing can be done with this handle any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state.lock().alive(self.boot).is_err()
    }

    /// The next call of this kind fails.
    pub fn fail_next(&self, fault: Fault) {
        self.state.lock().ordered.push(fault);
    }

    /// Other probabilities from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Bytes that all files together may take from now on, in blocks of 4,096; none is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes that are free; [`u64::MAX`] without a capacity.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.state.lock().free()
    }

    /// Flips a bit of a file's byte on the medium. False if the file ends before it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and the like.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) -> io::Result<bool> {
        self.state.lock().flip(path, offset, bit)
    }

    /// Length of a file in bytes as a process sees it, without a fault.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and the like.
    pub fn len_of(&self, path: &Path) -> io::Result<u64> {
        self.state.lock().len_of(path)
    }

    /// Bytes of the medium that a file takes.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and the like.
    pub fn room_of(&self, path: &Path) -> io::Result<u64> {
        self.state.lock().room_of(path)
    }

    /// Reads from a file as a process does, without a fault; returns the bytes read.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and the like.
    pub fn peek(&self, path: &Path, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.state.lock().peek(path, buffer, offset)
    }

    /// The names that a process sees in a directory, ascending, without a fault.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and the like.
    pub fn names_in(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.state.lock().names_in(directory)
    }

    /// What happened to this disk so far.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.state.lock().counts
    }

    /// A call that changes nothing.
    fn look<T>(&self, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.alive(self.boot)?;
        call(&mut state)
    }

    fn change<T>(&self, call: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        change(&self.state, self.boot, call)
    }
}

/// A call that changes something. It may be the one in which the machine stops, which `call` is told:
/// then it is done, or begun, or not, and nobody learns which.
fn change<T>(
    state: &Mutex<State>,
    boot: u64,
    call: impl FnOnce(&mut State, bool) -> io::Result<T>,
) -> io::Result<T> {
    let mut state = state.lock();
    state.alive(boot)?;
    match state.fuse {
        Some(0) => {
            if state.random.one_in(2) {
                // Whoever called is no more.
                let _ = call(&mut state, true);
            }
            state.stopped = true;
            Err(dead())
        }
        fuse => {
            state.fuse = fuse.map(|calls| calls - 1);
            call(&mut state, false)
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let node = match how {
            OpenHow::Create => self.change(|state, _| state.open(path, how))?,
            OpenHow::Read | OpenHow::Write => self.look(|state| state.open(path, how))?,
        };
        Ok(Arc::new(FaultyFile {
            state: Arc::clone(&self.state),
            boot: self.boot,
            node,
            writable: how != OpenHow::Read,
        }))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.change(|state, _| state.create_directory(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.look(|state| state.exists(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.look(|state| state.list(directory))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state, _| state.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state, _| state.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state, _| state.remove(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.change(|state, _| state.sync_directory(path))
    }
}

#[derive(Debug)]
struct FaultyFile {
    state: Arc<Mutex<State>>,
    boot: u64,
    node: NodeId,
    writable: bool,
}

impl FaultyFile {
    fn look<T>(&self, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.alive(self.boot)?;
        call(&mut state)
    }

    fn change<T>(&self, call: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(rustix::io::Errno::BADF.into());
        }
        change(&self.state, self.boot, call)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        self.state.lock().close(self.node, self.boot);
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.look(|state| state.len(self.node))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.look(|state| state.read(self.node, buffer, offset))
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(|state, stops| state.write(self.node, data, offset, stops))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state, _| state.set_len(self.node, len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|state, _| state.allocate(self.node, len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|state, _| state.punch(self.node, offset, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // A process may sync what it opened to read.
        change(&self.state, self.boot, |state, _| state.sync(self.node))
    }
}
