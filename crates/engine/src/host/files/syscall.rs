//! How a system call is added.

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
