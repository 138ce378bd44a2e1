//! System calls on descriptors.

use wasmtime::{Caller, Linker};

use super::Answer;
use crate::errno::{Errno, answer};
use crate::files::FileKind;
use crate::host::{Host, read_u32, slice_mut, split, write_u32};

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
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
