//! Waiting: `poll`, and the signals that end it.

use std::time::Duration;

use wasmtime::{AsContextMut, Caller, Linker};

use super::{Host, raise_cancel, read_u32, split};
use crate::errno::Errno;
use crate::rewrite::{HOST, STACK_IS_LOW, TAKE_SIGNALS};

/// Native stack that Postgres needs to report an error, in bytes.
const STACK_RESERVE_BYTES: usize = 1 << 20;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        "env",
        "__syscall_poll",
        |mut caller: Caller<'_, Host>, (fds, count, timeout): (u32, u32, i32)| {
            Box::new(async move { poll(&mut caller, fds, count, timeout).await })
        },
    )?;
    linker.func_wrap(HOST, TAKE_SIGNALS, |mut caller: Caller<'_, Host>| {
        let host = caller.data_mut();
        let now = host.environment.monotonic();
        let fired = host.timer.check(now);
        host.timer.fired = false;
        i32::from(fired)
    })?;
    // The stack grows down from the highest address seen since the host entered the guest.
    linker.func_wrap(HOST, STACK_IS_LOW, |mut caller: Caller<'_, Host>| {
        let marker = 0u8;
        let here = std::ptr::from_ref(&marker).addr();
        let host = caller.data_mut();
        host.stack_top = host.stack_top.max(here);
        let used = host.stack_top - here;
        i32::from(used + STACK_RESERVE_BYTES > host.stack_bytes_max)
    })?;
    Ok(())
}

/// Waits for a descriptor to become readable, the timeout, the timer, or a request to cancel.
async fn poll(caller: &mut Caller<'_, Host>, fds: u32, count: u32, timeout_ms: i32) -> i32 {
    let start = caller.data().environment.monotonic();
    let deadline =
        u64::try_from(timeout_ms).ok().map(|timeout| start + Duration::from_millis(timeout));
    loop {
        if caller.data().interrupt.pending() {
            if caller.data().interrupt.take_cancel() {
                raise_cancel(&mut caller.as_context_mut());
            }
            // A request to stop is met by the epoch callback, once wasm runs again.
            return -Errno::INTR.0;
        }
        let host = caller.data_mut();
        let now = host.environment.monotonic();
        if host.timer.check(now) {
            return -Errno::INTR.0;
        }
        let ready = ready(caller, fds, count);
        if ready > 0 || deadline.is_some_and(|deadline| deadline <= now) {
            return ready;
        }
        let host = caller.data();
        let wake = [deadline, host.timer.deadline].into_iter().flatten().min();
        let interrupt = std::sync::Arc::clone(&host.interrupt);
        match wake {
            Some(wake) => {
                // A timeout here is the expected end of a sleep.
                let _elapsed = tokio::time::timeout(wake - now, interrupt.asked()).await;
            }
            None => interrupt.asked().await,
        }
    }
}

/// Fills in `revents` of each `struct pollfd`; how many have any.
fn ready(caller: &mut Caller<'_, Host>, fds: u32, count: u32) -> i32 {
    const POLLIN: u16 = 1;
    const POLLNVAL: u16 = 32;
    let (memory, host) = split(caller);
    let mut ready = 0;
    for index in 0..count {
        let at = fds + 8 * index;
        let fd = read_u32(memory, at) as i32;
        let events = read_u32(memory, at + 4) as u16;
        let found = match host.files.readable(fd) {
            _ if fd < 0 => 0,
            Ok(true) => events & POLLIN,
            Ok(false) => 0,
            Err(_) => POLLNVAL,
        };
        if let Ok(target) = super::slice_mut(memory, at + 6, 2) {
            target.copy_from_slice(&found.to_le_bytes());
        }
        ready += i32::from(found != 0);
    }
    ready
}
