//! Waiting for a latch, for time, for descriptors; and the signals that end it.

use std::future::poll_fn;
use std::time::Duration;

use wasmtime::{AsContextMut, Caller, Linker};

use super::{Host, raise_cancel, read_u32, split};
use crate::backend::share_if_asked;
use crate::errno::Errno;
use crate::rewrite::{
    HOST, SEND_SIGNAL, SENT_TO_SELF, SLEEP, STACK_IS_LOW, TAKE_SIGNALS, WAIT, WAIT_BEGIN, YIELD,
};

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
    linker.func_wrap(
        HOST,
        WAIT_BEGIN,
        |mut caller: Caller<'_, Host>, events: i32, timeout_ms: i32| {
            const WL_TIMEOUT: i32 = 8;
            let host = caller.data_mut();
            let timeout = u64::try_from(timeout_ms)
                .ok()
                .filter(|_| events & WL_TIMEOUT != 0);
            host.wait_deadline = timeout
                .map(|timeout| host.environment.monotonic() + Duration::from_millis(timeout));
        },
    )?;
    linker.func_wrap_async(
        HOST,
        WAIT,
        |mut caller: Caller<'_, Host>, (latch,): (u32,)| {
            Box::new(async move {
                let deadline = caller.data().wait_deadline;
                let set = |caller: &mut Caller<'_, Host>| read_u32(split(caller).0, latch) != 0;
                let woken = wait(&mut caller, deadline, Some(latch), set).await?;
                Ok(i32::from(woken == Woken::Signal))
            })
        },
    )?;
    linker.func_wrap_async(
        HOST,
        SLEEP,
        |mut caller: Caller<'_, Host>, (request,): (u32,)| {
            Box::new(async move {
                let (memory, host) = split(&mut caller);
                let seconds = u64::from(read_u32(memory, request))
                    | u64::from(read_u32(memory, request + 4)) << 32;
                let nanos = read_u32(memory, request + 8);
                if nanos >= 1_000_000_000 || seconds > i64::MAX as u64 {
                    return Ok(Errno::INVAL.0);
                }
                let deadline = host
                    .environment
                    .monotonic()
                    .checked_add(Duration::new(seconds, nanos));
                Ok(match wait(&mut caller, deadline, None, |_| false).await? {
                    Woken::Ready => 0,
                    Woken::Signal => Errno::INTR.0,
                })
            })
        },
    )?;
    linker.func_wrap(HOST, TAKE_SIGNALS, |mut caller: Caller<'_, Host>| {
        let host = caller.data_mut();
        let now = host.environment.monotonic();
        let fired = host.timer.check(now);
        host.timer.fired = false;
        i32::from(fired) | host.interrupt.take_signals() as i32
    })?;
    linker.func_wrap(
        HOST,
        SEND_SIGNAL,
        |caller: Caller<'_, Host>, process: i32, signal: i32| {
            const NO_SUCH_PROCESS: i32 = -1;
            // A negative number is a group of processes: each is its own.
            let process = process.unsigned_abs();
            match &caller.data().process {
                Some(own) if own.id() != process => match own.signal(process, signal) {
                    true => 0,
                    false => NO_SUCH_PROCESS,
                },
                _ => SENT_TO_SELF,
            }
        },
    )?;
    linker.func_wrap_async(HOST, YIELD, |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move { let_others_run(&mut caller).await })
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

/// Whether the guest holds no lightweight lock, for which nobody can wait: Postgres counts those, and critical
/// sections, as reasons not to be interrupted.
pub(super) fn may_let_others_run(caller: &mut Caller<'_, Host>) -> bool {
    let addresses = caller.data().module.addresses;
    let memory = split(caller).0;
    let reasons = [
        addresses.interrupt_holdoff_count,
        addresses.critical_section_count,
    ];
    reasons.map(|at| read_u32(memory, at)) == [0, 0]
}

/// Lets other processes come in, and run if this one has run for long, where it may.
async fn let_others_run(caller: &mut Caller<'_, Host>) -> wasmtime::Result<()> {
    let host = caller.data();
    let now = host.environment.monotonic();
    let process = host.process.as_ref();
    let is_long = process.is_some_and(|own| own.should_yield(now));
    if !is_long && !host.is_asked_to_share() {
        return Ok(());
    }
    if may_let_others_run(caller) {
        share_if_asked(&mut caller.as_context_mut());
        let host = caller.data_mut();
        host.give_turn();
        tokio::task::yield_now().await;
        caller.data_mut().take_turn().await?;
    }
    Ok(())
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// What was waited for is there, or the time is up.
    Ready,
    /// A signal is due, or somebody asked to cancel or stop.
    Signal,
}

/// Waits until `ready`, the deadline, the timer, or a request from outside. Other processes can bring about
/// only that `latch` is set.
async fn wait(
    caller: &mut Caller<'_, Host>,
    deadline: Option<Duration>,
    latch: Option<u32>,
    mut ready: impl FnMut(&mut Caller<'_, Host>) -> bool,
) -> wasmtime::Result<Woken> {
    loop {
        if ready(caller) {
            return Ok(Woken::Ready);
        }
        // Who waits for a latch waits for others, and holds nothing. A short sleep may be one with a lock.
        let may = latch.is_some() || may_let_others_run(caller);
        if may {
            share_if_asked(&mut caller.as_context_mut());
        }
        let interrupt = std::sync::Arc::clone(&caller.data().interrupt);
        if interrupt.pending() {
            if interrupt.take_cancel() {
                raise_cancel(&mut caller.as_context_mut());
            }
            // A request to stop is met by the epoch callback, once wasm runs again.
            return Ok(Woken::Signal);
        }
        let host = caller.data_mut();
        let now = host.environment.monotonic();
        if host.timer.check(now) {
            return Ok(Woken::Signal);
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Ok(Woken::Ready);
        }
        let wake = [deadline, host.timer.deadline].into_iter().flatten().min();
        let waiting = host
            .process
            .as_ref()
            .zip(latch)
            .map(|(own, latch)| own.wait_for(latch));
        if may {
            host.give_turn();
        }
        let sharing = host.asked_to_share(may);
        let latched = async {
            match &waiting {
                Some(waiting) => waiting.woken().await,
                None => std::future::pending().await,
            }
        };
        let asked = async {
            tokio::select! {
                () = interrupt.asked() => {}
                () = sharing => {}
                () = latched => {}
            }
        };
        let woken = async {
            match wake {
                Some(wake) => {
                    // A timeout here is the expected end of a sleep.
                    let _elapsed = tokio::time::timeout(wake - now, asked).await;
                }
                None => asked.await,
            }
        };
        // Meanwhile the client gets what there is for it.
        let pushing = poll_fn(|context| caller.data_mut().client.poll_push(context));
        tokio::select! {
            biased;
            () = woken => {}
            never = pushing => match never {},
        }
        caller.data_mut().take_turn().await?;
    }
}

/// `poll`: how many descriptors are ready, or a negated error number.
async fn poll(
    caller: &mut Caller<'_, Host>,
    fds: u32,
    count: u32,
    timeout_ms: i32,
) -> wasmtime::Result<i32> {
    let start = caller.data().environment.monotonic();
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    let deadline = timeout.map(|timeout| start + timeout);
    let waited = wait(caller, deadline, None, |caller| {
        ready(caller, fds, count) > 0
    })
    .await?;
    Ok(match waited {
        Woken::Ready => ready(caller, fds, count),
        Woken::Signal => -Errno::INTR.0,
    })
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
