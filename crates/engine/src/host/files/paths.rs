//! System calls on names of files.

use wasmtime::{Caller, Linker};

use super::{AT_FDCWD, AT_REMOVEDIR, Answer, now};
use crate::errno::{Errno, answer};
use crate::files::{OpenFlags, Place};
use crate::host::{Host, read_u32, slice_mut, split, string};

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
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
