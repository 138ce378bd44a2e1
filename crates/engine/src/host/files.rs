//! System calls on files.

#[macro_use]
mod syscall;

mod data;
mod descriptors;
mod paths;
mod status;

use volume::Mtime;
use wasmtime::Linker;

use crate::errno::Errno;
use crate::host::Host;

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

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    paths::link(linker)?;
    status::link(linker)?;
    descriptors::link(linker)?;
    data::link(linker)
}
