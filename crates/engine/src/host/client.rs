//! The bytes of the client's connection: the callbacks that Postgres reads and writes by.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use wasmtime::{AsContextMut, Caller, Linker};

use super::wait::may_let_others_run;
use super::{
    Host, Interrupt, is_interrupt_pending, raise_cancel, raise_interrupt, slice, slice_mut, split,
};
use crate::backend::share_if_asked;
use crate::rewrite::HOST;

/// Output that is gathered before the guest waits for the client to take it, in bytes.
const OUTPUT_BYTES_HIGH: usize = 256 * 1024;

/// How long output is gathered while the guest goes on.
const OUTPUT_GATHERED_MAX: Duration = Duration::from_millis(100);

/// The client went away, or its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct ClientIoError;

/// The other end of a backend's byte streams. Both calls follow the rules of `Future::poll`.
pub trait ClientIo: Send {
    /// Appends bytes from the client to `input`; at least one when ready.
    ///
    /// Called only while the guest waits inside a message or in `COPY FROM STDIN`.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>>;

    /// Takes bytes from the front of `output` towards the client; at least one when ready.
    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>>;
}

/// What is on its way between a guest and its client.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    pub(crate) io: Option<Box<dyn ClientIo>>,
    /// The client is gone: output is dropped, and reading answers so.
    pub(crate) gone: bool,
    /// The statement has ended: whoever gets its last output waits for the client, not the guest.
    pub(crate) is_ending: bool,
    /// Output that may be gathered though it is more than [`OUTPUT_BYTES_HIGH`]: a statement that was to end
    /// while it waited for the client says so without waiting again.
    allowed: usize,
    /// When the first of the output was written.
    since: Option<Duration>,
}

/// What a guest that waits for its client is told when there is none any more: `COPY` fails, and
/// the protocol stays in step.
const COPY_FAIL: &[u8] = b"f\0\0\0\x18client disconnected\0";

impl Client {
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.input.is_empty() {
            let filled = match (&mut self.io, self.gone) {
                (Some(io), false) => {
                    // The client may be waiting for what is still in the output.
                    while !self.output.is_empty() {
                        if ready!(io.poll_drain(context, &mut self.output)).is_err() {
                            self.output.clear();
                            self.gone = true;
                        }
                    }
                    ready!(io.poll_fill(context, &mut self.input))
                }
                _ => Err(ClientIoError),
            };
            if filled.is_err() {
                self.gone = true;
                self.input.extend_from_slice(COPY_FAIL);
            }
        }
        Poll::Ready(())
    }

    /// Whether the guest is to wait for the client.
    fn is_full(&self) -> bool {
        !self.is_ending && self.output.len() >= OUTPUT_BYTES_HIGH.max(self.allowed)
    }

    /// Another statement begins.
    pub(crate) fn begin(&mut self) {
        self.is_ending = false;
        self.allowed = 0;
        self.since = None;
    }

    /// Whether output has waited for long, now that there is more of it.
    fn is_old(&mut self, now: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_old = !self.is_ending && now.saturating_sub(since) >= OUTPUT_GATHERED_MAX;
        if is_old {
            self.since = None;
        }
        is_old
    }

    /// Gives the client what it takes now, and again when it takes more; never ready.
    pub(super) fn poll_push(&mut self, context: &mut Context<'_>) -> Poll<Infallible> {
        while !self.output.is_empty()
            && !self.gone
            && let Some(io) = &mut self.io
            && let Poll::Ready(drained) = io.poll_drain(context, &mut self.output)
        {
            if drained.is_err() {
                self.output.clear();
                self.gone = true;
            }
        }
        Poll::Pending
    }

    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.output.len() >= OUTPUT_BYTES_HIGH {
            let Some(io) = &mut self.io else {
                return Poll::Ready(());
            };
            if self.gone {
                self.output.clear();
            } else if ready!(io.poll_drain(context, &mut self.output)).is_err() {
                self.gone = true;
            }
        }
        Poll::Ready(())
    }
}

/// A message that means nothing in the middle of a `COPY`, and lets Postgres look for interrupts.
const EMPTY_COPY_DATA: &[u8] = b"d\0\0\0\x04";

/// What a guest waits for its client to do.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Input,
    Room,
}

/// Waits for the client while others run, and lets them in when they ask for it.
async fn wait_for_client(caller: &mut Caller<'_, Host>, wanted: Wanted) -> wasmtime::Result<()> {
    loop {
        share_if_asked(&mut caller.as_context_mut());
        caller.data_mut().give_turn();
        let sharing = caller.data().asked_to_share(true);
        let waiting = async {
            match wanted {
                Wanted::Input => wait_for_input(caller).await,
                Wanted::Room => wait_for_room(caller).await,
            }
        };
        let is_over = tokio::select! {
            biased;
            () = waiting => true,
            () = sharing => false,
        };
        caller.data_mut().take_turn().await?;
        if is_over {
            return Ok(());
        }
    }
}

/// Waits until there is input; a request to cancel or a timer that fires ends the wait with a
/// message that changes nothing, since only a `COPY` waits for its client in mid-statement.
async fn wait_for_input(caller: &mut Caller<'_, Host>) {
    if !caller.data().client.input.is_empty() {
        return;
    }
    let interrupt = Arc::clone(&caller.data().interrupt);
    let interrupted = or_timer(caller.data(), interrupt.asked());
    let input = poll_fn(|context| caller.data_mut().client.poll_read(context));
    let is_interrupted = tokio::select! {
        biased;
        () = input => false,
        () = interrupted => true,
    };
    if is_interrupted {
        raise(caller, &interrupt);
        caller
            .data_mut()
            .client
            .input
            .extend_from_slice(EMPTY_COPY_DATA);
    }
}

/// Waits until the client has taken output; what is to end the statement, and a timer that fires, end the wait.
/// Then the guest waits no more until it has looked for interrupts: nobody is kept from cancelling a statement by
/// a client that does not read.
async fn wait_for_room(caller: &mut Caller<'_, Host>) {
    let interrupt = Arc::clone(&caller.data().interrupt);
    let interrupted = or_timer(caller.data(), interrupt.ending());
    let written = poll_fn(|context| caller.data_mut().client.poll_written(context));
    let is_interrupted = tokio::select! {
        biased;
        () = written => false,
        () = interrupted => true,
    };
    if is_interrupted {
        raise(caller, &interrupt);
        let client = &mut caller.data_mut().client;
        client.allowed = client.output.len() + OUTPUT_BYTES_HIGH;
    }
}

/// Waits until something is asked, or the guest's timer fires.
fn or_timer<F: Future<Output = ()>>(host: &Host, asked: F) -> impl Future<Output = ()> + use<F> {
    let timer = host
        .timer
        .deadline
        .map(|deadline| deadline.saturating_sub(host.environment.monotonic()));
    async move {
        match timer {
            // Either end of this wait is an interruption.
            Some(timer) => drop(tokio::time::timeout(timer, asked).await),
            None => asked.await,
        }
    }
}

/// Lets the guest look for what has ended a wait.
fn raise(caller: &mut Caller<'_, Host>, interrupt: &Interrupt) {
    let mut store = caller.as_context_mut();
    if interrupt.take_cancel() {
        raise_cancel(&mut store);
    } else {
        raise_interrupt(&mut store);
    }
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        HOST,
        "client_read",
        |mut caller: Caller<'_, Host>, (at, len): (u32, u32)| {
            Box::new(async move {
                if caller.data().client.input.is_empty() {
                    wait_for_client(&mut caller, Wanted::Input).await?;
                }
                let (memory, host) = split(&mut caller);
                let count = host.client.input.len().min(len as usize);
                match slice_mut(memory, at, count as u32) {
                    Ok(target) => target.copy_from_slice(&host.client.input[..count]),
                    Err(_) => return Ok(-1),
                }
                host.client.input.advance(count);
                Ok::<i32, wasmtime::Error>(count as i32)
            })
        },
    )?;
    linker.func_wrap_async(
        HOST,
        "client_write",
        |mut caller: Caller<'_, Host>, (at, len): (u32, u32)| {
            Box::new(async move {
                let (memory, host) = split(&mut caller);
                match slice(memory, at, len) {
                    Ok(bytes) if !host.client.gone => host.client.output.extend_from_slice(bytes),
                    Ok(_) => {}
                    Err(_) => return Ok(-1),
                }
                let host = caller.data_mut();
                let now = host.environment.monotonic();
                if host.client.is_old(now) {
                    poll_fn(|context| {
                        let _ = caller.data_mut().client.poll_push(context);
                        Poll::Ready(())
                    })
                    .await;
                }
                // What is said with a lock held is gathered, as an error is, however long: who waits lets others run.
                if caller.data().client.is_full()
                    && may_let_others_run(&mut caller)
                    && !is_interrupt_pending(&mut caller)
                {
                    wait_for_client(&mut caller, Wanted::Room).await?;
                }
                Ok::<i32, wasmtime::Error>(len as i32)
            })
        },
    )?;
    Ok(())
}
