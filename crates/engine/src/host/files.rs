//! System calls on files.

use volume::Mtime;
use wasmtime::{Caller, Linker};

use super::{Host, read_u32, slice, slice_mut, split, string, write_u32};
use crate::errno::{Errno, answer};
use crate::files::{FileKind, OpenFlags, Place, Status};

const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
const AT_REMOVEDIR: i32 = 0x200;
const AT_EMPTY_PATH: i32 = 0x1000;

type Answer = Result<i32, Errno>;

fn now(host: &Host) -> Mtime {
    let now = host.environment.realtime();
    Mtime {
        seconds: now.as_secs() as i64,
        nanos: now.subsec_nanos(),
    }
}

/// Adds a system call: its body gets the guest's memory and the host, and its answer is a value
/// or a negated error number.
macro_rules! syscall {
    ($linker:ident, $module:literal, $name:literal, |$memory:ident, $host:ident $(, $arg:ident : $ty:ty)*| $body:expr) => {
        $linker.func_wrap($module, $name, |mut caller: Caller<'_, Host> $(, $arg: $ty)*| -> i32 {
            let ($memory, $host) = split(&mut caller);
            let _ = &$memory;
            #[allow(unused_mut, unused_braces, reason = "not every body is a block that changes something")]
            let mut run = || -> Answer { $body };
            answer(run())
        })?
    };
}

/// As `syscall`, but error numbers are positive, as WASI has them.
macro_rules! wasi {
    ($linker:ident, $name:literal, |$memory:ident, $host:ident $(, $arg:ident : $ty:ty)*| $body:expr) => {
        $linker.func_wrap("wasi_snapshot_preview1", $name, |mut caller: Caller<'_, Host> $(, $arg: $ty)*| -> i32 {
            let ($memory, $host) = split(&mut caller);
            let _ = &$memory;
            #[allow(unused_mut, unused_braces, reason = "not every body is a block that changes something")]
            let mut run = || -> Answer { $body };
            -answer(run())
        })?
    };
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_paths(linker)?;
    link_status(linker)?;
    link_descriptors(linker)?;
    link_data(linker)
}

fn link_paths(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    syscall!(
        linker,
        "env",
        "__syscall_openat",
        |memory, host, at: i32, path: u32, flags: i32, varargs: u32| {
            let path = string(memory, path)?;
            let mode = if varargs == 0 {
                0
            } else {
                read_u32(memory, varargs)
            } & !host.umask;
            let now = now(host);
            host.files.open_at(at, &path, OpenFlags(flags), mode, now)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_mkdirat",
        |memory, host, at: i32, path: u32, mode: u32| {
            let now = now(host);
            match host.files.place(at, &string(memory, path)?)? {
                Place::Volume(path) => {
                    let namespace = host.files.namespace();
                    let (parent, name) = namespace.volume_parent(&path)?;
                    if name.is_empty() {
                        return Err(Errno::EXIST);
                    }
                    namespace
                        .volume()
                        .mkdir(parent, name, mode & !host.umask & 0o777, now)?;
                }
                Place::Scratch(path) => host.files.namespace().scratch.mkdir(&path)?,
                place => return Err(exists_or_read_only(host, &place)),
            }
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_rmdir",
        |memory, host, path: u32| { remove_directory(host, AT_FDCWD, &string(memory, path)?) }
    );
    syscall!(
        linker,
        "env",
        "__syscall_unlinkat",
        |memory, host, at: i32, path: u32, flags: i32| {
            let path = string(memory, path)?;
            if flags & AT_REMOVEDIR != 0 {
                return remove_directory(host, at, &path);
            }
            match host.files.place(at, &path)? {
                Place::Volume(path) => {
                    let namespace = host.files.namespace();
                    let (parent, name) = namespace.volume_parent(&path)?;
                    namespace.volume().unlink(parent, name)?;
                }
                Place::Scratch(path) => host.files.namespace().scratch.unlink(&path)?,
                place => return Err(missing_or_read_only(host, &place)),
            }
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_renameat",
        |memory, host, from_at: i32, from: u32, to_at: i32, to: u32| {
            let from = host.files.place(from_at, &string(memory, from)?)?;
            let to = host.files.place(to_at, &string(memory, to)?)?;
            let namespace = host.files.namespace();
            match (from, to) {
                (Place::Volume(from), Place::Volume(to)) => {
                    let (from_parent, from_name) = namespace.volume_parent(&from)?;
                    let (to_parent, to_name) = namespace.volume_parent(&to)?;
                    namespace
                        .volume()
                        .rename(from_parent, from_name, to_parent, to_name)?;
                }
                (Place::Scratch(from), Place::Scratch(to)) => {
                    namespace.scratch.rename(&from, &to)?
                }
                (from, Place::Distribution(_) | Place::Device(_)) => {
                    namespace.status(&from, false)?;
                    return Err(Errno::ROFS);
                }
                _ => return Err(Errno::XDEV),
            }
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_symlinkat",
        |memory, host, target: u32, at: i32, path: u32| {
            let target = string(memory, target)?;
            let now = now(host);
            match host.files.place(at, &string(memory, path)?)? {
                Place::Volume(path) => {
                    let namespace = host.files.namespace();
                    let (parent, name) = namespace.volume_parent(&path)?;
                    namespace.volume().symlink(parent, name, &target, now)?;
                    Ok(0)
                }
                _ => Err(Errno::PERM),
            }
        }
    );
    // The volume has no hard links; Postgres does without where they are refused.
    syscall!(
        linker,
        "env",
        "__syscall_linkat",
        |_memory, _host, _a: i32, _b: u32, _c: i32, _d: u32, _e: i32| Err(Errno::PERM)
    );
    syscall!(
        linker,
        "env",
        "__syscall_readlinkat",
        |memory, host, at: i32, path: u32, buffer: u32, len: u32| {
            let place = host.files.place(at, &string(memory, path)?)?;
            let Place::Volume(path) = place else {
                host.files.namespace().status(&place, false)?;
                return Err(Errno::INVAL);
            };
            let namespace = host.files.namespace();
            let target = namespace
                .volume()
                .readlink(namespace.volume_ino(&path, false)?)?;
            let count = target.len().min(len as usize);
            slice_mut(memory, buffer, count as u32)?.copy_from_slice(&target.as_bytes()[..count]);
            Ok(count as i32)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_chdir",
        |memory, host, path: u32| { host.files.chdir(&string(memory, path)?).map(|()| 0) }
    );
    syscall!(
        linker,
        "env",
        "__syscall_getcwd",
        |memory, host, buffer: u32, len: u32| {
            let directory = host.files.directory();
            let bytes = directory.len() as u32 + 1;
            if bytes > len {
                return Err(Errno::RANGE);
            }
            let target = slice_mut(memory, buffer, bytes)?;
            target[..directory.len()].copy_from_slice(directory.as_bytes());
            target[directory.len()] = 0;
            Ok(bytes as i32)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_umask",
        |_memory, host, mask: u32| { Ok(std::mem::replace(&mut host.umask, mask & 0o777) as i32) }
    );
    syscall!(
        linker,
        "env",
        "__syscall_truncate64",
        |memory, host, path: u32, len: i64| {
            let bytes = u64::try_from(len).map_err(|_| Errno::INVAL)?;
            let now = now(host);
            match host.files.place(AT_FDCWD, &string(memory, path)?)? {
                Place::Volume(path) => {
                    let namespace = host.files.namespace();
                    namespace
                        .volume()
                        .set_len(namespace.volume_ino(&path, true)?, bytes, now)?;
                    Ok(0)
                }
                place => Err(missing_or_read_only(host, &place)),
            }
        }
    );
    Ok(())
}

fn remove_directory(host: &mut Host, at: i32, path: &str) -> Answer {
    match host.files.place(at, path)? {
        Place::Volume(path) => {
            let namespace = host.files.namespace();
            let (parent, name) = namespace.volume_parent(&path)?;
            namespace.volume().rmdir(parent, name)?;
        }
        Place::Scratch(path) => host.files.namespace().scratch.rmdir(&path)?,
        place => return Err(missing_or_read_only(host, &place)),
    }
    Ok(0)
}

fn missing_or_read_only(host: &Host, place: &Place) -> Errno {
    host.files
        .namespace()
        .status(place, false)
        .err()
        .unwrap_or(Errno::ROFS)
}

fn exists_or_read_only(host: &Host, place: &Place) -> Errno {
    match host.files.namespace().status(place, false) {
        Ok(_) => Errno::EXIST,
        Err(_) => Errno::ROFS,
    }
}

fn link_status(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    syscall!(
        linker,
        "env",
        "__syscall_fstat64",
        |memory, host, fd: i32, buffer: u32| {
            write_status(memory, buffer, &host.files.status(fd)?)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_stat64",
        |memory, host, path: u32, buffer: u32| {
            let status = status_at(host, AT_FDCWD, &string(memory, path)?, true)?;
            write_status(memory, buffer, &status)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_lstat64",
        |memory, host, path: u32, buffer: u32| {
            let status = status_at(host, AT_FDCWD, &string(memory, path)?, false)?;
            write_status(memory, buffer, &status)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_newfstatat",
        |memory, host, at: i32, path: u32, buffer: u32, flags: i32| {
            let path = string(memory, path)?;
            let status = if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
                host.files.status(at)?
            } else {
                status_at(host, at, &path, flags & AT_SYMLINK_NOFOLLOW == 0)?
            };
            write_status(memory, buffer, &status)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_faccessat",
        |memory, host, at: i32, path: u32, mode: i32, _flags: i32| {
            const W_OK: i32 = 2;
            let path = string(memory, path)?;
            status_at(host, at, &path, true)?;
            if mode & W_OK != 0 && matches!(host.files.place(at, &path)?, Place::Distribution(_)) {
                return Err(Errno::ROFS);
            }
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_chmod",
        |memory, host, path: u32, mode: u32| {
            chmod(host, AT_FDCWD, &string(memory, path)?, mode)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_fchmodat2",
        |memory, host, at: i32, path: u32, mode: u32, _flags: i32| {
            chmod(host, at, &string(memory, path)?, mode)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_fchmod",
        |_memory, host, fd: i32, mode: u32| {
            let path = host.files.path(fd)?.to_owned();
            chmod(host, AT_FDCWD, &path, mode)
        }
    );
    // There is one user; who owns a file is not kept.
    syscall!(
        linker,
        "env",
        "__syscall_fchownat",
        |_memory, _host, _a: i32, _b: u32, _c: i32, _d: i32, _e: i32| Ok(0)
    );
    syscall!(
        linker,
        "env",
        "__syscall_fchown32",
        |_memory, _host, _a: i32, _b: i32, _c: i32| Ok(0)
    );
    syscall!(
        linker,
        "env",
        "__syscall_utimensat",
        |memory, host, at: i32, path: u32, _times: u32, _flags: i32| {
            let path = string(memory, path)?;
            let now = now(host);
            if let Place::Volume(path) = host.files.place(at, &path)? {
                let namespace = host.files.namespace();
                namespace
                    .volume()
                    .set_mtime(namespace.volume_ino(&path, true)?, now)?;
            }
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_statfs64",
        |memory, _host, _path: u32, size: u32, buffer: u32| {
            const BLOCK_BYTES: u32 = 8192;
            const BLOCKS: u32 = 1 << 30;
            slice_mut(memory, buffer, size)?.fill(0);
            for (offset, value) in [
                (4, BLOCK_BYTES),
                (40, BLOCK_BYTES),
                (8, BLOCKS),
                (12, BLOCKS),
                (16, BLOCKS),
                (36, 255),
            ] {
                write_u32(memory, buffer + offset, value);
            }
            Ok(0)
        }
    );
    Ok(())
}

fn status_at(host: &Host, at: i32, path: &str, follow: bool) -> Result<Status, Errno> {
    host.files
        .namespace()
        .status(&host.files.place(at, path)?, follow)
}

fn chmod(host: &mut Host, at: i32, path: &str, mode: u32) -> Answer {
    let place = host.files.place(at, path)?;
    let namespace = host.files.namespace();
    match &place {
        Place::Volume(path) => {
            namespace
                .volume()
                .set_mode(namespace.volume_ino(path, true)?, mode & 0o7777)?;
        }
        place => {
            namespace.status(place, true)?;
        }
    }
    Ok(0)
}

/// `struct stat` of the guest's C library: 96 bytes.
fn write_status(memory: &mut [u8], at: u32, status: &Status) -> Answer {
    let target = slice_mut(memory, at, 96)?;
    target.fill(0);
    let mut put = |offset: usize, bytes: &[u8]| {
        target[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &status.device.to_le_bytes());
    put(4, &status.st_mode().to_le_bytes());
    put(8, &1u32.to_le_bytes());
    put(24, &status.bytes.to_le_bytes());
    put(32, &8192u32.to_le_bytes());
    put(36, &(status.bytes.div_ceil(512) as u32).to_le_bytes());
    for time in [40, 56, 72] {
        put(time, &status.mtime.0.to_le_bytes());
        put(time + 8, &status.mtime.1.to_le_bytes());
    }
    put(88, &status.ino.to_le_bytes());
    Ok(0)
}

fn link_descriptors(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasi!(linker, "fd_close", |_memory, host, fd: i32| host
        .files
        .close(fd)
        .map(|()| 0));
    syscall!(linker, "env", "__syscall_dup", |_memory, host, fd: i32| {
        host.files.duplicate(fd, 0)
    });
    syscall!(
        linker,
        "env",
        "__syscall_dup3",
        |_memory, host, fd: i32, to: i32, _flags: i32| { host.files.duplicate_to(fd, to) }
    );
    syscall!(
        linker,
        "env",
        "__syscall_pipe2",
        |memory, host, at: u32, _flags: i32| {
            let (read, write) = host.files.pipe()?;
            write_u32(memory, at, read as u32);
            write_u32(memory, at + 4, write as u32);
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_fcntl64",
        |memory, host, fd: i32, command: i32, varargs: u32| {
            const F_DUPFD: i32 = 0;
            const F_GETFD: i32 = 1;
            const F_SETFD: i32 = 2;
            const F_GETFL: i32 = 3;
            const F_SETFL: i32 = 4;
            const F_GETLK: i32 = 12;
            const F_SETLK: i32 = 13;
            const F_SETLKW: i32 = 14;
            const F_DUPFD_CLOEXEC: i32 = 1030;
            match command {
                F_DUPFD | F_DUPFD_CLOEXEC => {
                    let from = read_u32(memory, varargs) as usize;
                    host.files.duplicate(fd, from.min(4096))
                }
                F_GETFL => host.files.flags(fd),
                F_GETFD | F_SETFD | F_SETFL => host.files.flags(fd).map(|_| 0),
                // One process: a lock is always free.
                F_GETLK | F_SETLK | F_SETLKW | 5..=7 => host.files.flags(fd).map(|_| 0),
                _ => Err(Errno::INVAL),
            }
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_ioctl",
        |_memory, host, fd: i32, _request: i32, _varargs: u32| {
            host.files.flags(fd)?;
            Err(Errno::NOTTY)
        }
    );
    wasi!(
        linker,
        "fd_fdstat_get",
        |memory, host, fd: i32, buffer: u32| {
            let kind = match host.files.status(fd)?.kind {
                FileKind::Directory => 3,
                FileKind::Symlink => 7,
                FileKind::Device => 2,
                FileKind::Regular | FileKind::Pipe => 4,
            };
            let target = slice_mut(memory, buffer, 24)?;
            target.fill(0);
            target[0] = kind;
            Ok(0)
        }
    );
    wasi!(linker, "fd_seek", |memory,
                              host,
                              fd: i32,
                              offset: i64,
                              whence: i32,
                              at: u32| {
        let position = host.files.seek(fd, offset, whence)?;
        slice_mut(memory, at, 8)?.copy_from_slice(&position.to_le_bytes());
        Ok(0)
    });
    syscall!(
        linker,
        "env",
        "__syscall_getdents64",
        |memory, host, fd: i32, buffer: u32, len: u32| {
            const ENTRY_BYTES: usize = 280;
            const NAME_BYTES_MAX: usize = 255;
            let target = slice_mut(memory, buffer, len)?;
            let mut used = 0;
            host.files.list(fd, |name, kind, position| {
                let Some(entry) = target.get_mut(used..used + ENTRY_BYTES) else {
                    return false;
                };
                entry.fill(0);
                let kind: u8 = match kind {
                    FileKind::Regular => 8,
                    FileKind::Directory => 4,
                    FileKind::Symlink => 10,
                    FileKind::Device => 2,
                    FileKind::Pipe => 1,
                };
                entry[..8].copy_from_slice(&position.to_le_bytes());
                entry[8..16].copy_from_slice(&position.to_le_bytes());
                entry[16..18].copy_from_slice(&(ENTRY_BYTES as u16).to_le_bytes());
                entry[18] = kind;
                let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
                entry[19..19 + name.len()].copy_from_slice(name);
                used += ENTRY_BYTES;
                true
            })?;
            Ok(used as i32)
        }
    );
    Ok(())
}

fn link_data(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasi!(linker, "fd_read", |memory,
                              host,
                              fd: i32,
                              vectors: u32,
                              count: u32,
                              at: u32| {
        read_vectors(memory, host, fd, vectors, count, None, at)
    });
    wasi!(linker, "fd_pread", |memory,
                               host,
                               fd: i32,
                               vectors: u32,
                               count: u32,
                               offset: i64,
                               at: u32| {
        let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        read_vectors(memory, host, fd, vectors, count, Some(offset), at)
    });
    wasi!(linker, "fd_write", |memory,
                               host,
                               fd: i32,
                               vectors: u32,
                               count: u32,
                               at: u32| {
        write_vectors(memory, host, fd, vectors, count, None, at)
    });
    wasi!(
        linker,
        "fd_pwrite",
        |memory, host, fd: i32, vectors: u32, count: u32, offset: i64, at: u32| {
            let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
            write_vectors(memory, host, fd, vectors, count, Some(offset), at)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_ftruncate64",
        |_memory, host, fd: i32, len: i64| {
            let bytes = u64::try_from(len).map_err(|_| Errno::INVAL)?;
            let now = now(host);
            host.files.set_len(fd, bytes, now).map(|()| 0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_fallocate",
        |_memory, host, fd: i32, mode: i32, offset: i64, len: i64| {
            if mode != 0 {
                return Err(Errno::NOSYS);
            }
            let end = offset
                .checked_add(len)
                .and_then(|end| u64::try_from(end).ok())
                .ok_or(Errno::INVAL)?;
            if host.files.status(fd)?.bytes < end {
                let now = now(host);
                host.files.set_len(fd, end, now)?;
            }
            Ok(0)
        }
    );
    syscall!(
        linker,
        "env",
        "__syscall_fadvise64",
        |_memory, _host, _fd: i32, _offset: i64, _len: i64, _advice: i32| Ok(0)
    );
    // A sync takes a ticket and returns: whoever gives out replies waits for it; see `Volume::owed`.
    syscall!(
        linker,
        "env",
        "__syscall_fdatasync",
        |_memory, host, fd: i32| host.files.sync(fd).map(|()| 0)
    );
    wasi!(linker, "fd_sync", |_memory, host, fd: i32| host
        .files
        .sync(fd)
        .map(|()| 0));
    Ok(())
}

/// Most vectors of one scattered read or write (`IOV_MAX`).
const VECTORS_MAX: u32 = 1024;

fn vector(memory: &[u8], vectors: u32, index: u32) -> (u32, u32) {
    let at = vectors + 8 * index;
    (read_u32(memory, at), read_u32(memory, at + 4))
}

fn read_vectors(
    memory: &mut [u8],
    host: &mut Host,
    fd: i32,
    vectors: u32,
    count: u32,
    mut offset: Option<u64>,
    at: u32,
) -> Answer {
    if count > VECTORS_MAX {
        return Err(Errno::INVAL);
    }
    let mut total = 0u32;
    for index in 0..count {
        let (target, len) = vector(memory, vectors, index);
        let read = host
            .files
            .read(fd, slice_mut(memory, target, len)?, offset)? as u32;
        total += read;
        offset = offset.map(|offset| offset + u64::from(read));
        if read < len {
            break;
        }
    }
    write_u32(memory, at, total);
    Ok(0)
}

fn write_vectors(
    memory: &mut [u8],
    host: &mut Host,
    fd: i32,
    vectors: u32,
    count: u32,
    mut offset: Option<u64>,
    at: u32,
) -> Answer {
    if count > VECTORS_MAX {
        return Err(Errno::INVAL);
    }
    let now = now(host);
    let mut total = 0u32;
    for index in 0..count {
        let (source, len) = vector(memory, vectors, index);
        let written = match host
            .files
            .write(fd, slice(memory, source, len)?, offset, now)
        {
            Ok(written) => written as u32,
            // What was written before the error counts; the next call meets the error again.
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        };
        total += written;
        offset = offset.map(|offset| offset + u64::from(written));
        if written < len {
            break;
        }
    }
    write_u32(memory, at, total);
    Ok(0)
}
