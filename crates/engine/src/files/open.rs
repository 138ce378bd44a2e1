//! Open files of one backend.

mod data;
mod flags;
mod listing;
mod opening;
mod saved;

pub(crate) use flags::OpenFlags;
pub(crate) use saved::SavedFile;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use volume::Ino;

use crate::errno::Errno;
use crate::files::namespace::Device;
use crate::files::scratch::ScratchFile;
use crate::files::{FileKind, Namespace, Place};
use crate::read_watch::ReadWatch;

/// Most descriptors one backend may hold. Postgres keeps far fewer (`max_files_per_process`).
const DESCRIPTORS_MAX: usize = 4096;

/// Bytes going through a pipe of the guest to itself.
type Pipe = Arc<Mutex<std::collections::VecDeque<u8>>>;

/// What standard input, output and error lead to.
#[derive(Debug, Clone)]
pub(crate) enum StandardStreams {
    /// Input is at its end; output and error go to the log, by line.
    Log,
    /// As for a child of `initdb`: input from, and output to, memory.
    Captured {
        input: ScratchFile,
        output: ScratchFile,
    },
}

#[derive(Debug, Clone)]
enum Object {
    Volume(Ino),
    VolumeDirectory(Ino),
    Scratch(ScratchFile),
    ScratchDirectory(String),
    Distribution { contents: Bytes, id: u64 },
    DistributionDirectory(String),
    Device(Device),
    PipeRead(Pipe),
    PipeWrite(Pipe),
    Log(Arc<Mutex<Vec<u8>>>),
}

/// One opening of a file; descriptors made by `dup` share it.
#[derive(Debug)]
struct Open {
    object: Object,
    path: String,
    flags: OpenFlags,
    offset: u64,
    descriptors: u32,
    /// Directory entries still to be given out by `getdents`, made at the first call.
    listing: Option<Vec<(String, FileKind)>>,
}

/// The descriptors of one backend.
#[derive(Debug)]
pub(crate) struct FileTable {
    namespace: Namespace,
    directory: String,
    opens: Vec<Option<Open>>,
    descriptors: Vec<Option<usize>>,
    /// Is told of what is read of the volume.
    watch: Option<Box<dyn ReadWatch>>,
}

impl FileTable {
    pub(crate) fn new(namespace: Namespace, streams: StandardStreams) -> Self {
        let mut table = Self {
            namespace,
            directory: "/".to_owned(),
            opens: Vec::new(),
            descriptors: Vec::new(),
            watch: None,
        };
        let objects = match streams {
            StandardStreams::Log => [
                Object::Device(Device::Null),
                Object::Log(Arc::default()),
                Object::Log(Arc::default()),
            ],
            StandardStreams::Captured { input, output } => [
                Object::Scratch(input),
                Object::Scratch(output),
                Object::Log(Arc::default()),
            ],
        };
        for (object, flags) in objects.into_iter().zip([0, 1, 1]) {
            table
                .install(object, String::new(), OpenFlags(flags))
                .expect("BUG: three descriptors fit in an empty table");
        }
        table
    }

    /// From now on this is told of what is read of the volume.
    pub(crate) fn watch_reads(&mut self, watch: Option<Box<dyn ReadWatch>>) {
        self.watch = watch;
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// The place that `path` names, seen from the directory descriptor `at` (or `AT_FDCWD`).
    pub(crate) fn place(&self, at: i32, path: &str) -> Result<Place, Errno> {
        const AT_FDCWD: i32 = -100;
        if at == AT_FDCWD || path.starts_with('/') {
            return Namespace::place(&self.directory, path);
        }
        Namespace::place(&self.open(at)?.path, path)
    }

    pub(crate) fn chdir(&mut self, path: &str) -> Result<(), Errno> {
        let absolute = super::namespace::absolute(&self.directory, path)?;
        let place = Namespace::place("/", &absolute)?;
        if self.namespace.status(&place, true)?.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        self.directory = absolute;
        Ok(())
    }

    fn install(&mut self, object: Object, path: String, flags: OpenFlags) -> Result<i32, Errno> {
        let open = Open {
            object,
            path,
            flags,
            offset: 0,
            descriptors: 1,
            listing: None,
        };
        let index = match self.opens.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.opens.push(None);
                self.opens.len() - 1
            }
        };
        self.opens[index] = Some(open);
        match self.free_descriptor(0) {
            Ok(descriptor) => {
                self.descriptors[descriptor] = Some(index);
                Ok(descriptor as i32)
            }
            Err(errno) => {
                self.forget(index);
                Err(errno)
            }
        }
    }

    fn free_descriptor(&mut self, from: usize) -> Result<usize, Errno> {
        while self.descriptors.len() <= from {
            self.descriptors.push(None);
        }
        let free = self.descriptors[from..]
            .iter()
            .position(Option::is_none)
            .map(|at| at + from);
        match free {
            Some(free) => Ok(free),
            None if self.descriptors.len() < DESCRIPTORS_MAX => {
                self.descriptors.push(None);
                Ok(self.descriptors.len() - 1)
            }
            None => Err(Errno::MFILE),
        }
    }

    fn index(&self, descriptor: i32) -> Result<usize, Errno> {
        let slot = usize::try_from(descriptor).map_err(|_| Errno::BADF)?;
        self.descriptors
            .get(slot)
            .copied()
            .flatten()
            .ok_or(Errno::BADF)
    }

    fn open(&self, descriptor: i32) -> Result<&Open, Errno> {
        self.opens[self.index(descriptor)?]
            .as_ref()
            .ok_or(Errno::BADF)
    }

    fn open_mut(&mut self, descriptor: i32) -> Result<&mut Open, Errno> {
        let index = self.index(descriptor)?;
        self.opens[index].as_mut().ok_or(Errno::BADF)
    }

    pub(crate) fn close(&mut self, descriptor: i32) -> Result<(), Errno> {
        let index = self.index(descriptor)?;
        self.descriptors[descriptor as usize] = None;
        if let Some(open) = &mut self.opens[index] {
            open.descriptors -= 1;
            if open.descriptors == 0 {
                self.forget(index);
            }
        }
        Ok(())
    }

    fn forget(&mut self, index: usize) {
        if let Some(Open {
            object: Object::Volume(ino),
            ..
        }) = self.opens[index].take()
            && let Err(error) = self.namespace.volume().close_ref(ino)
        {
            tracing::error!(%error, "a file of the volume could not be closed");
        }
    }

    /// `dup`, at or above `from`.
    pub(crate) fn duplicate(&mut self, descriptor: i32, from: usize) -> Result<i32, Errno> {
        let index = self.index(descriptor)?;
        let free = self.free_descriptor(from)?;
        self.descriptors[free] = Some(index);
        self.open_mut(descriptor)?.descriptors += 1;
        Ok(free as i32)
    }

    /// `dup3`: `to` is closed first if it is open.
    pub(crate) fn duplicate_to(&mut self, descriptor: i32, to: i32) -> Result<i32, Errno> {
        let index = self.index(descriptor)?;
        let slot = usize::try_from(to).map_err(|_| Errno::BADF)?;
        if slot >= DESCRIPTORS_MAX {
            return Err(Errno::BADF);
        }
        if descriptor == to {
            return Ok(to);
        }
        if self.index(to).is_ok() {
            self.close(to)?;
        }
        while self.descriptors.len() <= slot {
            self.descriptors.push(None);
        }
        self.descriptors[slot] = Some(index);
        self.open_mut(descriptor)?.descriptors += 1;
        Ok(to)
    }

    /// A pipe: the descriptors of its reading and its writing end.
    pub(crate) fn pipe(&mut self) -> Result<(i32, i32), Errno> {
        let pipe = Pipe::default();
        let read = self.install(
            Object::PipeRead(Arc::clone(&pipe)),
            String::new(),
            OpenFlags(0),
        )?;
        match self.install(Object::PipeWrite(pipe), String::new(), OpenFlags(1)) {
            Ok(write) => Ok((read, write)),
            Err(errno) => {
                self.close(read)?;
                Err(errno)
            }
        }
    }

    /// Whether a read would find something at once; false for an empty pipe.
    pub(crate) fn readable(&self, descriptor: i32) -> Result<bool, Errno> {
        Ok(match &self.open(descriptor)?.object {
            Object::PipeRead(pipe) => !pipe.lock().is_empty(),
            _ => true,
        })
    }

    pub(crate) fn flags(&self, descriptor: i32) -> Result<i32, Errno> {
        Ok(self.open(descriptor)?.flags.0)
    }

    /// The path that a descriptor was opened by.
    pub(crate) fn path(&self, descriptor: i32) -> Result<&str, Errno> {
        Ok(&self.open(descriptor)?.path)
    }
}

impl Drop for FileTable {
    fn drop(&mut self) {
        for index in 0..self.opens.len() {
            self.forget(index);
        }
    }
}
