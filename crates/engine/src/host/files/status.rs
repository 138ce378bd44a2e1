//! System calls on what is known of files.

use wasmtime::{Caller, Linker};

use super::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Answer, now};
use crate::errno::{Errno, answer};
use crate::files::{Place, Status};
use crate::host::{Host, slice_mut, split, string, write_u32};

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
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
