//! The step between the server and workerd: a process that becomes workerd, after it has asked to end with the server.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, process::Command};

/// Becomes the program that `args` begin with, with the others as its arguments; it is killed when the thread that
/// started this process ends. Returns only if that does not work.
pub fn launch(args: impl IntoIterator<Item = OsString>) -> io::Error {
    let mut args = args.into_iter();
    let Some(program) = args.next() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "which program?");
    };
    if let Err(error) = end_with_parent() {
        return error;
    }
    Command::new(program).args(args).exec()
}

#[cfg(target_os = "linux")]
fn end_with_parent() -> io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Whose parent has ended before that is a child of init, or of nobody that it can see.
    if getppid().is_none_or(|parent| parent.is_init()) {
        return Err(io::Error::other("the server has ended"));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent() -> io::Result<()> {
    Ok(())
}
