//! System calls on the contents of files.

use wasmtime::{Caller, Linker};

use super::{Answer, now};
use crate::errno::{Errno, answer};
use crate::host::{Host, read_u32, slice, slice_mut, split, write_u32};

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasi!(linker, "fd_read", |memory,
                              host,
                              fd: i32,
                              vectors: u32,
                              count: u32,
                              at: u32| {
        read_vectors(memory, host, fd, Vectors::at(vectors, count, None), at)
    });
    wasi!(linker, "fd_pread", |memory,
                               host,
                               fd: i32,
                               vectors: u32,
                               count: u32,
                               offset: i64,
                               at: u32| {
        let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        read_vectors(
            memory,
            host,
            fd,
            Vectors::at(vectors, count, Some(offset)),
            at,
        )
    });
    wasi!(linker, "fd_write", |memory,
                               host,
                               fd: i32,
                               vectors: u32,
                               count: u32,
                               at: u32| {
        write_vectors(memory, host, fd, Vectors::at(vectors, count, None), at)
    });
    wasi!(
        linker,
        "fd_pwrite",
        |memory, host, fd: i32, vectors: u32, count: u32, offset: i64, at: u32| {
            let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
            write_vectors(
                memory,
                host,
                fd,
                Vectors::at(vectors, count, Some(offset)),
                at,
            )
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

/// Pieces of the guest's memory that one call reads or writes.
#[derive(Clone, Copy)]
struct Vectors {
    /// Where the first is described.
    first: u32,
    count: u32,
    /// Where in the file they begin, if not where it stands.
    offset: Option<u64>,
}

impl Vectors {
    fn at(first: u32, count: u32, offset: Option<u64>) -> Self {
        Self {
            first,
            count,
            offset,
        }
    }
}

fn vector(memory: &[u8], vectors: u32, index: u32) -> (u32, u32) {
    let at = vectors + 8 * index;
    (read_u32(memory, at), read_u32(memory, at + 4))
}

fn read_vectors(memory: &mut [u8], host: &mut Host, fd: i32, vectors: Vectors, at: u32) -> Answer {
    each_vector(memory, vectors, at, |memory, (target, len), offset, _| {
        let target = slice_mut(memory, target, len)?;
        Ok(Some(host.files.read(fd, target, offset)? as u32))
    })
}

fn write_vectors(memory: &mut [u8], host: &mut Host, fd: i32, vectors: Vectors, at: u32) -> Answer {
    let now = now(host);
    each_vector(
        memory,
        vectors,
        at,
        |memory, (source, len), offset, total| {
            match host
                .files
                .write(fd, slice(memory, source, len)?, offset, now)
            {
                Ok(written) => Ok(Some(written as u32)),
                // What was written before the error counts; the next call meets the error again.
                Err(_) if total > 0 => Ok(None),
                Err(errno) => Err(errno),
            }
        },
    )
}

/// Moves the bytes of one vector after the other, and stores at `at` how many there were: until one moves
/// fewer than it has, or none any more.
fn each_vector(
    memory: &mut [u8],
    vectors: Vectors,
    at: u32,
    mut bytes: impl FnMut(&mut [u8], (u32, u32), Option<u64>, u32) -> Result<Option<u32>, Errno>,
) -> Answer {
    if vectors.count > VECTORS_MAX {
        return Err(Errno::INVAL);
    }
    let mut offset = vectors.offset;
    let mut total = 0u32;
    for index in 0..vectors.count {
        let found = vector(memory, vectors.first, index);
        let Some(moved) = bytes(memory, found, offset, total)? else {
            break;
        };
        total += moved;
        offset = offset.map(|offset| offset + u64::from(moved));
        if moved < found.1 {
            break;
        }
    }
    write_u32(memory, at, total);
    Ok(0)
}
