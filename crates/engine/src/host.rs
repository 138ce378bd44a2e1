//! The host side of a guest: its state, and the functions that its imports lead to.
//!
//! One file for each kind of call; each adds its functions to the linker that all backends share.

mod client;
mod clock;
mod files;
mod library;
mod memory;
mod process;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use wasmtime::{Caller, Instance, Linker, Memory, StoreContextMut, Table};

pub(crate) use client::Client;
pub use client::{ClientIo, ClientIoError};
pub(crate) use library::{KnownLinks, Libraries, SavedLibraries, SavedLibrary, restore, save};
pub(crate) use process::Children;

use crate::backend::Company;
use crate::engine::EngineInner;
use crate::environment::Environment;
use crate::errno::Errno;
use crate::error::BackendError;
use crate::files::FileTable;
use crate::memory::MemoryImage;
use crate::module::MainModule;
use crate::processes::{Crashed, Process};
use crate::rewrite::{SENT_CANCEL, SENT_TERMINATE};

/// Everything a guest can see of the world, and what the host keeps for it.
pub(crate) struct Host {
    pub(crate) files: FileTable,
    pub(crate) client: Client,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) interrupt: Arc<Interrupt>,
    pub(crate) timer: Timer,
    /// When the wait for a latch that is under way ends, on the monotonic clock.
    pub(crate) wait_deadline: Option<Duration>,
    pub(crate) libraries: Libraries,
    /// How to run child programs; only `initdb` may.
    pub(crate) children: Option<Children>,
    pub(crate) engine: Arc<EngineInner>,
    pub(crate) module: Arc<MainModule>,
    /// Most bytes of linear memory; past it the guest's `malloc` fails.
    pub(crate) memory_bytes_max: u64,
    pub(crate) umask: u32,
    /// The image that the memory was mapped from, if it was.
    pub(crate) mapped: Option<Arc<MemoryImage>>,
    /// Highest stack address seen since the host entered the guest: how deep the guest is.
    pub(crate) stack_top: usize,
    pub(crate) stack_bytes_max: usize,
    /// Its place among the processes of its database, if it shares memory with others.
    pub(crate) process: Option<Process>,
    /// Those who may want to come in beside it in the middle of a statement.
    pub(crate) company: Option<Arc<dyn Company>>,
    /// Set once the instance exists.
    pub(crate) guest: Option<Guest>,
}

/// Handles into the instance.
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) instance: Instance,
    pub(crate) memory: Memory,
    pub(crate) table: Table,
}

impl Host {
    /// Waits until no other process of its database runs.
    pub(crate) async fn take_turn(&mut self) -> Result<(), BackendError> {
        let environment = Arc::clone(&self.environment);
        match &mut self.process {
            Some(process) => {
                let taken = process.take_turn(|| environment.monotonic()).await;
                taken.map_err(|Crashed| {
                    BackendError::Crashed("another process of the database crashed".to_owned())
                })
            }
            None => Ok(()),
        }
    }

    /// Lets the others run: whether it had the turn.
    pub(crate) fn give_turn(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::give_turn)
    }

    /// Whether somebody has asked that its memory be shared, and there is company to ask.
    pub(crate) fn is_asked_to_share(&self) -> bool {
        self.company.is_some() && self.interrupt.is_asked_to_share()
    }

    /// Waits until that is so; for ever if it `may` not be met now.
    pub(crate) fn asked_to_share(&self, may: bool) -> impl Future<Output = ()> + use<> {
        let has_company = may && self.company.is_some();
        let interrupt = has_company.then(|| Arc::clone(&self.interrupt));
        async move {
            match interrupt {
                Some(interrupt) => interrupt.until(Interrupt::is_asked_to_share).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether Postgres should look for interrupts soon.
    pub(crate) fn should_look(&self) -> bool {
        let now = || self.environment.monotonic();
        let process = self.process.as_ref();
        self.interrupt.has_signals()
            || self.is_asked_to_share()
            || process.is_some_and(|process| process.should_yield(now()))
    }

    pub(crate) fn guest(&self) -> Guest {
        self.guest
            .expect("BUG: the guest calls its host only once it is instantiated")
    }
}

/// Why a guest left wasm for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exit {
    /// `exit(code)`.
    #[error("the program exited with status {0}")]
    Status(i32),
    /// `abort()`, or a failed assertion.
    #[error("the program aborted")]
    Abort,
    /// The watchdog ended a guest that ignored an interrupt.
    #[error("the program did not react to an interrupt in time and was stopped")]
    Unresponsive,
    /// A library called a function that does not exist here.
    #[error("a library called a function that is not available here")]
    MissingFunction,
}

/// The timer behind `setitimer(ITIMER_REAL)`.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    /// When it fires, on the environment's monotonic clock.
    pub(crate) deadline: Option<Duration>,
    /// It fired, and the guest has not taken the signal yet.
    pub(crate) fired: bool,
}

impl Timer {
    /// Notes that the deadline has passed, if it has.
    pub(crate) fn check(&mut self, now: Duration) -> bool {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.fired = true;
        }
        self.fired
    }
}

/// Requests from outside to a running guest; shared with whoever may cancel it.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    flags: AtomicU32,
    changed: Notify,
}

impl Interrupt {
    const CANCEL: u32 = 1;
    const STOP: u32 = 2;
    /// Wants nothing of the guest: the host shares its memory.
    const SHARE: u32 = 4;
    /// The signals of [`SENT`](crate::rewrite::SENT), each at its bit, above the others.
    const SIGNALS_SHIFT: u32 = 8;

    /// What ends a statement.
    const ENDING: u32 =
        Self::CANCEL | Self::STOP | ((SENT_CANCEL | SENT_TERMINATE) as u32) << Self::SIGNALS_SHIFT;

    /// Asks the running statement to end with 57014.
    pub(crate) fn cancel(&self) {
        self.flags.fetch_or(Self::CANCEL, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Ends the guest at its next safe point, statement or not.
    pub(crate) fn stop(&self) {
        self.flags.fetch_or(Self::STOP, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    pub(crate) fn take_cancel(&self) -> bool {
        self.flags.fetch_and(!Self::CANCEL, Ordering::AcqRel) & Self::CANCEL != 0
    }

    /// Leaves signals for the guest; `bits` as in [`SENT`](crate::rewrite::SENT).
    pub(crate) fn send(&self, bits: u32) {
        self.flags
            .fetch_or(bits << Self::SIGNALS_SHIFT, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    pub(crate) fn has_signals(&self) -> bool {
        self.flags.load(Ordering::Acquire) >> Self::SIGNALS_SHIFT != 0
    }

    pub(crate) fn take_signals(&self) -> u32 {
        let low = (1 << Self::SIGNALS_SHIFT) - 1;
        self.flags.fetch_and(low, Ordering::AcqRel) >> Self::SIGNALS_SHIFT
    }

    /// Forgets signals that were left; `bits` as in [`SENT`](crate::rewrite::SENT).
    pub(crate) fn forget_signals(&self, bits: u32) {
        self.flags
            .fetch_and(!(bits << Self::SIGNALS_SHIFT), Ordering::AcqRel);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.flags.load(Ordering::Acquire) & Self::STOP != 0
    }

    /// Asks that the guest's memory be shared.
    pub(crate) fn ask_to_share(&self) {
        self.flags.fetch_or(Self::SHARE, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_asked_to_share(&self) -> bool {
        self.flags.load(Ordering::Acquire) & Self::SHARE != 0
    }

    pub(crate) fn forget_sharing(&self) {
        self.flags.fetch_and(!Self::SHARE, Ordering::AcqRel);
    }

    /// Whether the guest is asked for anything.
    pub(crate) fn pending(&self) -> bool {
        self.flags.load(Ordering::Acquire) & !Self::SHARE != 0
    }

    /// Waits until something is asked.
    pub(crate) async fn asked(&self) {
        self.until(Self::pending).await;
    }

    /// Waits until the running statement is to end, or the guest.
    pub(crate) async fn ending(&self) {
        self.until(|own| own.flags.load(Ordering::Acquire) & Self::ENDING != 0)
            .await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }
}

/// Adds every host function to `linker`.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    client::link(linker)?;
    clock::link(linker)?;
    files::link(linker)?;
    library::link(linker)?;
    memory::link(linker)?;
    process::link(linker)?;
    wait::link(linker)
}

/// Writes what Postgres' `SIGINT` handler would: the next `CHECK_FOR_INTERRUPTS` raises 57014.
pub(crate) fn raise_cancel(store: &mut StoreContextMut<'_, Host>) {
    let addresses = store.data().module.addresses;
    let memory = store.data().guest().memory;
    let bytes = memory.data_mut(store);
    write_u32(bytes, addresses.query_cancel_pending, 1);
    write_u32(bytes, addresses.interrupt_pending, 1);
    let latch = read_u32(bytes, addresses.my_latch);
    if latch != 0 {
        write_u32(bytes, latch, 1);
    }
}

/// Makes the next `CHECK_FOR_INTERRUPTS` call `ProcessInterrupts`, which takes due signals.
pub(crate) fn raise_interrupt(store: &mut StoreContextMut<'_, Host>) {
    let address = store.data().module.addresses.interrupt_pending;
    let memory = store.data().guest().memory;
    write_u32(memory.data_mut(store), address, 1);
}

/// Whether the guest has not looked for interrupts since it was asked to.
pub(crate) fn is_interrupt_pending(caller: &mut Caller<'_, Host>) -> bool {
    let address = caller.data().module.addresses.interrupt_pending;
    read_u32(split(caller).0, address) != 0
}

/// The guest's memory and its host state, borrowed together.
pub(crate) fn split<'a>(caller: &'a mut Caller<'_, Host>) -> (&'a mut [u8], &'a mut Host) {
    let memory = caller.data().guest().memory;
    memory.data_and_store_mut(caller)
}

pub(crate) fn slice(memory: &[u8], at: u32, len: u32) -> Result<&[u8], Errno> {
    let end = at.checked_add(len).ok_or(Errno::FAULT)?;
    memory.get(at as usize..end as usize).ok_or(Errno::FAULT)
}

pub(crate) fn slice_mut(memory: &mut [u8], at: u32, len: u32) -> Result<&mut [u8], Errno> {
    let end = at.checked_add(len).ok_or(Errno::FAULT)?;
    memory
        .get_mut(at as usize..end as usize)
        .ok_or(Errno::FAULT)
}

/// Longest C string taken from a guest.
const STRING_BYTES_MAX: usize = 65_536;

/// The NUL-terminated string at `at`.
pub(crate) fn string(memory: &[u8], at: u32) -> Result<String, Errno> {
    let tail = memory.get(at as usize..).ok_or(Errno::FAULT)?;
    let tail = &tail[..tail.len().min(STRING_BYTES_MAX)];
    let end = tail
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(Errno::NAMETOOLONG)?;
    String::from_utf8(tail[..end].to_vec()).map_err(|_| Errno::INVAL)
}

/// Reads a little-endian word; zero outside the memory.
pub(crate) fn read_u32(memory: &[u8], at: u32) -> u32 {
    let bytes = memory
        .get(at as usize..)
        .and_then(|tail| tail.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Writes a little-endian word; outside the memory nothing is written.
pub(crate) fn write_u32(memory: &mut [u8], at: u32, value: u32) {
    if let Some(bytes) = memory
        .get_mut(at as usize..)
        .and_then(|tail| tail.first_chunk_mut::<4>())
    {
        *bytes = value.to_le_bytes();
    }
}
