//! Open files of one backend.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use volume::{Ino, Mtime, NodeKind};

use super::namespace::{Device, device_status, distribution_status, scratch_status};
use super::scratch::{ScratchFile, ScratchNode};
use super::{FileKind, Namespace, Place, Status};
use crate::errno::Errno;

/// Most descriptors one backend may hold. Postgres keeps far fewer (`max_files_per_process`).
const DESCRIPTORS_MAX: usize = 4096;

/// `O_*` of the guest's C library (musl's generic values).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFlags(pub(crate) i32);

impl OpenFlags {
    const ACCESS: i32 = 0o3;
    const CREATE: i32 = 0o100;
    const EXCLUSIVE: i32 = 0o200;
    const TRUNCATE: i32 = 0o1000;
    const APPEND: i32 = 0o2000;
    /// Data is durable when a write ends; `O_SYNC` has this bit too.
    const DATA_SYNC: i32 = 0o10_000;
    const DIRECTORY: i32 = 0o200_000;
    const NOFOLLOW: i32 = 0o400_000;

    fn has(self, bit: i32) -> bool {
        self.0 & bit != 0
    }

    fn writes(self) -> bool {
        self.0 & Self::ACCESS != 0
    }

    fn reads(self) -> bool {
        self.0 & Self::ACCESS != 1
    }
}

/// Bytes going through a pipe of the guest to itself.
type Pipe = Arc<Mutex<std::collections::VecDeque<u8>>>;

/// Most bytes that wait in a pipe; a writer past it gets `EAGAIN`.
const PIPE_BYTES_MAX: usize = 65_536;

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

/// A descriptor that survives in an image, with what is needed to open it again in a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedFile {
    pub(crate) descriptors: Vec<u32>,
    pub(crate) path: String,
    pub(crate) flags: i32,
    pub(crate) offset: u64,
    /// An end of the pipe that the backend has to itself; else a file of the volume, which is
    /// found again by its path: a template numbers its files anew.
    pub(crate) pipe: bool,
}

/// The descriptors of one backend.
#[derive(Debug)]
pub(crate) struct FileTable {
    namespace: Namespace,
    directory: String,
    opens: Vec<Option<Open>>,
    descriptors: Vec<Option<usize>>,
}

impl FileTable {
    pub(crate) fn new(namespace: Namespace, streams: StandardStreams) -> Self {
        let mut table = Self {
            namespace,
            directory: "/".to_owned(),
            opens: Vec::new(),
            descriptors: Vec::new(),
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

    pub(crate) fn open_at(
        &mut self,
        at: i32,
        path: &str,
        flags: OpenFlags,
        mode: u32,
        now: Mtime,
    ) -> Result<i32, Errno> {
        let base = if path.starts_with('/') || at == -100 {
            self.directory.clone()
        } else {
            self.open(at)?.path.clone()
        };
        let absolute = super::namespace::absolute(&base, path)?;
        let object = match Namespace::place("/", &absolute)? {
            Place::Volume(inside) => self.open_volume(&inside, flags, mode, now)?,
            Place::Scratch(inside) => self.open_scratch(inside, flags)?,
            Place::Device(device) => Object::Device(device),
            Place::Distribution(inside) => self.open_distribution(inside, flags)?,
        };
        self.install(object, absolute, flags)
    }

    fn open_volume(
        &self,
        path: &str,
        flags: OpenFlags,
        mode: u32,
        now: Mtime,
    ) -> Result<Object, Errno> {
        let volume = &self.namespace.volume();
        let follow = !flags.has(OpenFlags::NOFOLLOW);
        let ino = match self.namespace.volume_ino(path, follow) {
            Ok(_) if flags.has(OpenFlags::CREATE) && flags.has(OpenFlags::EXCLUSIVE) => {
                return Err(Errno::EXIST);
            }
            Ok(ino) => ino,
            Err(Errno::NOENT) if flags.has(OpenFlags::CREATE) => {
                let (parent, name) = self.namespace.volume_parent(path)?;
                volume.create_file(parent, name, mode & 0o777, now)?
            }
            Err(errno) => return Err(errno),
        };
        match volume.node(ino)?.kind {
            NodeKind::Directory if flags.writes() => return Err(Errno::ISDIR),
            NodeKind::Directory => return Ok(Object::VolumeDirectory(ino)),
            NodeKind::Symlink => return Err(Errno::LOOP),
            NodeKind::File if flags.has(OpenFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            NodeKind::File => {}
        }
        if flags.has(OpenFlags::TRUNCATE) && flags.writes() {
            volume.set_len(ino, 0, now)?;
        }
        volume.open_ref(ino)?;
        Ok(Object::Volume(ino))
    }

    fn open_scratch(&self, path: String, flags: OpenFlags) -> Result<Object, Errno> {
        let scratch = &self.namespace.scratch;
        match scratch.get(&path) {
            Some(ScratchNode::Directory) if flags.writes() => return Err(Errno::ISDIR),
            Some(ScratchNode::Directory) => return Ok(Object::ScratchDirectory(path)),
            Some(_) if flags.has(OpenFlags::CREATE) && flags.has(OpenFlags::EXCLUSIVE) => {
                return Err(Errno::EXIST);
            }
            _ => {}
        }
        let file = scratch.open(&path, flags.has(OpenFlags::CREATE))?;
        if flags.has(OpenFlags::TRUNCATE) && flags.writes() {
            file.lock().clear();
        }
        Ok(Object::Scratch(file))
    }

    fn open_distribution(&self, path: String, flags: OpenFlags) -> Result<Object, Errno> {
        let missing = if flags.has(OpenFlags::CREATE) {
            Errno::ROFS
        } else {
            Errno::NOENT
        };
        let node = self.namespace.distribution.node(&path).ok_or(missing)?;
        if flags.writes() {
            return Err(Errno::ROFS);
        }
        match node {
            crate::distribution::Node::Directory { .. } => Ok(Object::DistributionDirectory(path)),
            crate::distribution::Node::File { id, .. } => {
                let contents = self.namespace.distribution.read(id).ok_or(Errno::IO)?;
                Ok(Object::Distribution {
                    contents,
                    id: u64::from(id.get()),
                })
            }
        }
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

    pub(crate) fn status(&self, descriptor: i32) -> Result<Status, Errno> {
        match &self.open(descriptor)?.object {
            Object::Volume(ino) | Object::VolumeDirectory(ino) => {
                self.namespace.volume_status(*ino)
            }
            Object::Scratch(file) => {
                Ok(scratch_status(FileKind::Regular, file.lock().len() as u64))
            }
            Object::ScratchDirectory(_) => Ok(scratch_status(FileKind::Directory, 0)),
            Object::Distribution { contents, id } => Ok(distribution_status(
                FileKind::Regular,
                contents.len() as u64,
                *id,
            )),
            Object::DistributionDirectory(_) => Ok(distribution_status(FileKind::Directory, 0, 0)),
            Object::Device(_) | Object::Log(_) => Ok(device_status()),
            Object::PipeRead(_) | Object::PipeWrite(_) => Ok(Status {
                kind: FileKind::Pipe,
                ..device_status()
            }),
        }
    }

    /// Reads at `offset`, or at the file's own position, which then moves.
    pub(crate) fn read(
        &mut self,
        descriptor: i32,
        buffer: &mut [u8],
        offset: Option<u64>,
    ) -> Result<usize, Errno> {
        let index = self.index(descriptor)?;
        let Self {
            opens, namespace, ..
        } = self;
        let open = opens[index].as_mut().ok_or(Errno::BADF)?;
        if !open.flags.reads() {
            return Err(Errno::BADF);
        }
        let at = offset.unwrap_or(open.offset);
        let read = match &open.object {
            Object::Volume(ino) => namespace.volume().read(*ino, at, buffer)?,
            Object::Scratch(file) => copy_from(&file.lock(), at, buffer),
            Object::Distribution { contents, .. } => copy_from(contents, at, buffer),
            Object::Device(Device::Null) => 0,
            Object::Device(Device::Random) => {
                getrandom::fill(buffer).map_err(|_| Errno::IO)?;
                buffer.len()
            }
            Object::PipeRead(pipe) => {
                let mut pipe = pipe.lock();
                if pipe.is_empty() {
                    return Err(Errno::AGAIN);
                }
                let count = buffer.len().min(pipe.len());
                for (target, byte) in buffer.iter_mut().zip(pipe.drain(..count)) {
                    *target = byte;
                }
                count
            }
            Object::VolumeDirectory(_)
            | Object::ScratchDirectory(_)
            | Object::DistributionDirectory(_) => return Err(Errno::ISDIR),
            Object::PipeWrite(_) | Object::Log(_) => return Err(Errno::BADF),
        };
        if offset.is_none() {
            open.offset += read as u64;
        }
        Ok(read)
    }

    /// Writes at `offset`, or at the file's own position (its end, if opened to append).
    pub(crate) fn write(
        &mut self,
        descriptor: i32,
        bytes: &[u8],
        offset: Option<u64>,
        now: Mtime,
    ) -> Result<usize, Errno> {
        let index = self.index(descriptor)?;
        let Self {
            opens, namespace, ..
        } = self;
        let open = opens[index].as_mut().ok_or(Errno::BADF)?;
        if !open.flags.writes() {
            return Err(Errno::BADF);
        }
        let append = open.flags.has(OpenFlags::APPEND) && offset.is_none();
        let at = offset.unwrap_or(open.offset);
        let (at, written) = match &open.object {
            Object::Volume(ino) => {
                let at = if append {
                    namespace.volume().node(*ino)?.len
                } else {
                    at
                };
                let volume = namespace.volume();
                let written = volume.write(*ino, at, bytes, now)?;
                if open.flags.has(OpenFlags::DATA_SYNC) {
                    volume.sync(*ino)?;
                }
                (at, written)
            }
            Object::Scratch(file) => {
                let at = if append { file.lock().len() as u64 } else { at };
                let start = usize::try_from(at).map_err(|_| Errno::INVAL)?;
                let end = start.checked_add(bytes.len()).ok_or(Errno::INVAL)?;
                namespace.scratch.check_growth(file, end)?;
                let mut file = file.lock();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[start..end].copy_from_slice(bytes);
                (at, bytes.len())
            }
            Object::Device(_) => (at, bytes.len()),
            Object::PipeWrite(pipe) => {
                let mut pipe = pipe.lock();
                if pipe.len() + bytes.len() > PIPE_BYTES_MAX {
                    return Err(Errno::AGAIN);
                }
                pipe.extend(bytes);
                (at, bytes.len())
            }
            Object::Log(line) => {
                log_lines(&mut line.lock(), bytes);
                (at, bytes.len())
            }
            _ => return Err(Errno::BADF),
        };
        if offset.is_none() {
            open.offset = at + written as u64;
        }
        Ok(written)
    }

    /// `lseek`: the new position.
    pub(crate) fn seek(&mut self, descriptor: i32, offset: i64, whence: i32) -> Result<u64, Errno> {
        let bytes = self.status(descriptor)?.bytes;
        let open = self.open_mut(descriptor)?;
        if matches!(
            open.object,
            Object::PipeRead(_) | Object::PipeWrite(_) | Object::Log(_)
        ) {
            return Err(Errno::SPIPE);
        }
        let base = match whence {
            0 => 0,
            1 => open.offset,
            2 => bytes,
            _ => return Err(Errno::INVAL),
        };
        let position = base.checked_add_signed(offset).ok_or(Errno::INVAL)?;
        open.offset = position;
        if position == 0 {
            open.listing = None;
        }
        Ok(position)
    }

    pub(crate) fn set_len(&mut self, descriptor: i32, bytes: u64, now: Mtime) -> Result<(), Errno> {
        let open = self.open(descriptor)?;
        if !open.flags.writes() {
            return Err(Errno::INVAL);
        }
        match &open.object {
            Object::Volume(ino) => Ok(self.namespace.volume().set_len(*ino, bytes, now)?),
            Object::Scratch(file) => {
                let bytes = usize::try_from(bytes).map_err(|_| Errno::INVAL)?;
                self.namespace.scratch.check_growth(file, bytes)?;
                file.lock().resize(bytes, 0);
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// `fsync` and `fdatasync`.
    pub(crate) fn sync(&self, descriptor: i32) -> Result<(), Errno> {
        match &self.open(descriptor)?.object {
            Object::Volume(ino) | Object::VolumeDirectory(ino) => {
                Ok(self.namespace.volume().sync(*ino)?)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn flags(&self, descriptor: i32) -> Result<i32, Errno> {
        Ok(self.open(descriptor)?.flags.0)
    }

    /// The path that a descriptor was opened by.
    pub(crate) fn path(&self, descriptor: i32) -> Result<&str, Errno> {
        Ok(&self.open(descriptor)?.path)
    }

    /// The next entries of a directory that `take` accepts; it returns false when full.
    pub(crate) fn list(
        &mut self,
        descriptor: i32,
        mut take: impl FnMut(&str, FileKind, u64) -> bool,
    ) -> Result<(), Errno> {
        let open = self.open(descriptor)?;
        if open.listing.is_none() {
            let listing = self.listing(&open.object)?;
            self.open_mut(descriptor)?.listing = Some(listing);
        }
        let open = self.open_mut(descriptor)?;
        let listing = open.listing.as_deref().unwrap_or_default();
        let mut position = open.offset as usize;
        while let Some((name, kind)) = listing.get(position) {
            if !take(name, *kind, position as u64 + 1) {
                break;
            }
            position += 1;
        }
        open.offset = position as u64;
        Ok(())
    }

    fn listing(&self, object: &Object) -> Result<Vec<(String, FileKind)>, Errno> {
        let mut entries = vec![
            (".".to_owned(), FileKind::Directory),
            ("..".to_owned(), FileKind::Directory),
        ];
        match object {
            Object::VolumeDirectory(ino) => {
                for entry in self.namespace.volume().list(*ino)? {
                    let kind = match entry.kind {
                        NodeKind::File => FileKind::Regular,
                        NodeKind::Directory => FileKind::Directory,
                        NodeKind::Symlink => FileKind::Symlink,
                    };
                    entries.push((entry.name.to_string(), kind));
                }
            }
            Object::ScratchDirectory(path) => {
                for (name, directory) in self.namespace.scratch.list(path) {
                    let kind = if directory {
                        FileKind::Directory
                    } else {
                        FileKind::Regular
                    };
                    entries.push((name, kind));
                }
            }
            Object::DistributionDirectory(path) => {
                for (name, node) in self.namespace.distribution.list(path).into_iter().flatten() {
                    let kind = match node {
                        crate::distribution::Node::Directory { .. } => FileKind::Directory,
                        crate::distribution::Node::File { .. } => FileKind::Regular,
                    };
                    entries.push((name.to_owned(), kind));
                }
            }
            _ => return Err(Errno::NOTDIR),
        }
        Ok(entries)
    }

    /// What an image must remember: the volume's files and the pipes; and the directory.
    pub(crate) fn save(&self) -> Result<(String, Vec<SavedFile>), Errno> {
        let mut saved = Vec::new();
        for (index, open) in self.opens.iter().enumerate() {
            let Some(open) = open else { continue };
            let descriptors: Vec<u32> = (0u32..)
                .zip(&self.descriptors)
                .filter(|(_, slot)| **slot == Some(index))
                .map(|(descriptor, _)| descriptor)
                .collect();
            let pipe = match &open.object {
                Object::Volume(ino) if self.volume_file(&open.path) == Ok(*ino) => false,
                // The standard streams, which every backend begins with.
                Object::Log(_) | Object::Device(_) if matches!(descriptors[..], [0..=2]) => {
                    continue;
                }
                Object::PipeRead(_) | Object::PipeWrite(_) => true,
                // A booted backend keeps nothing else open; an image that would lose a file
                // must not be made.
                _ => return Err(Errno::BADF),
            };
            saved.push(SavedFile {
                descriptors,
                path: open.path.clone(),
                flags: open.flags.0,
                offset: open.offset,
                pipe,
            });
        }
        Ok((self.directory.clone(), saved))
    }

    /// The inode of an absolute path that leads into the volume.
    fn volume_file(&self, path: &str) -> Result<Ino, Errno> {
        match Namespace::place("/", path)? {
            Place::Volume(inside) => self.namespace.volume_ino(&inside, true),
            _ => Err(Errno::NOENT),
        }
    }

    /// Opens what [`save`](Self::save) told, at the same descriptors. A descriptor that is taken or
    /// out of range is an error; so is a file that is not there, unless `may_be_gone`: then nothing is in it,
    /// and the guest, which will find out that it is gone, can close it.
    pub(crate) fn restore(
        &mut self,
        directory: &str,
        saved: &[SavedFile],
        may_be_gone: bool,
    ) -> Result<(), Errno> {
        directory.clone_into(&mut self.directory);
        let pipe = Pipe::default();
        for file in saved {
            let taken = |descriptor: &u32| {
                *descriptor as usize >= DESCRIPTORS_MAX || self.index(*descriptor as i32).is_ok()
            };
            if file.descriptors.iter().any(taken) {
                return Err(Errno::BADF);
            }
            let flags = OpenFlags(file.flags);
            let object = if !file.pipe {
                let found = self.volume_file(&file.path).and_then(|ino| {
                    self.namespace.volume().open_ref(ino)?;
                    Ok(ino)
                });
                match found {
                    Ok(ino) => Object::Volume(ino),
                    Err(Errno::NOENT) if may_be_gone => Object::Device(Device::Null),
                    Err(errno) => return Err(errno),
                }
            } else if flags.writes() {
                Object::PipeWrite(Arc::clone(&pipe))
            } else {
                Object::PipeRead(Arc::clone(&pipe))
            };
            self.opens.push(Some(Open {
                object,
                path: file.path.clone(),
                flags,
                offset: file.offset,
                descriptors: file.descriptors.len() as u32,
                listing: None,
            }));
            for descriptor in &file.descriptors {
                let slot = *descriptor as usize;
                while self.descriptors.len() <= slot {
                    self.descriptors.push(None);
                }
                self.descriptors[slot] = Some(self.opens.len() - 1);
            }
        }
        Ok(())
    }
}

impl Drop for FileTable {
    fn drop(&mut self) {
        for index in 0..self.opens.len() {
            self.forget(index);
        }
    }
}

fn copy_from(contents: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(contents.len());
    let count = buffer.len().min(contents.len() - start);
    buffer[..count].copy_from_slice(&contents[start..start + count]);
    count
}

/// Longest line that is gathered before it is logged unfinished.
const LOG_LINE_BYTES_MAX: usize = 8192;

fn log_lines(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        if *byte == b'\n' || line.len() >= LOG_LINE_BYTES_MAX {
            let text = String::from_utf8_lossy(line);
            if !text.trim().is_empty() {
                tracing::debug!(target: "postgres", "{}", text.trim_end());
            }
            line.clear();
        }
        if *byte != b'\n' {
            line.push(*byte);
        }
    }
}
