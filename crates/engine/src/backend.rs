//! One running Postgres: bytes in, bytes out.

mod boot;
mod ending;
mod exchange;
mod exit;
mod fork;
mod instance;
mod interrupter;
mod join;
mod pgproc;
mod saving;
mod session;
mod sharing;
mod trim;
mod user;
mod wal;

pub(crate) use boot::run_program;
pub(crate) use exit::ServerExit;
pub(crate) use fork::Spares;
pub use interrupter::Interrupter;
pub use session::{
    Bond, IdleLimits, PreparedStatement, Sequences, SessionIdentity, SessionRefused, SessionState,
};
pub(crate) use sharing::share_if_asked;
pub use sharing::{Company, SharedMemory};
pub use user::User;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use volume::Volume;
use wasmtime::{AsContextMut, Global, Store, TypedFunc, Val};

use self::instance::{enter, export};
use crate::error::BackendError;
use crate::host::{ClientIo, Exit, Host, Interrupt, raise_interrupt, slice_mut};
use crate::processes::Process;
use crate::read_watch::ReadWatch;
use crate::rewrite::SENT_CANCEL;
use crate::ticker::Call;

/// Limits of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendLimits {
    /// Most bytes of memory (`backend.memory_bytes_max`). Postgres' own 128 MiB of address space,
    /// touched or not, count. Past it a statement fails with 53200.
    pub memory_bytes_max: u64,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 512 << 20,
        }
    }
}

/// The exit status by which an error has unwound to the main loop.
const STATUS_LONGJMP: i32 = 100;

/// A running Postgres in its own wasm instance.
pub struct Backend {
    store: Store<Host>,
    calls: Calls,
    interrupt: Arc<Interrupt>,
    /// Set while a call is under way: a future that was dropped leaves it set.
    busy: Arc<AtomicBool>,
    seated: session::Seated,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Backend")
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

/// The exports that run a backend.
struct Calls {
    main_loop_once: TypedFunc<(), ()>,
    main_longjmp: TypedFunc<(), ()>,
    send_ready: TypedFunc<(), ()>,
    flush: TypedFunc<(), ()>,
    buffered: TypedFunc<(), i32>,
    in_transaction: TypedFunc<(), i32>,
    /// Of a function's object id, a collation, and an argument.
    call_function: TypedFunc<(u32, u32, u32), u32>,
    stack_pointer: Global,
}

impl Backend {
    fn new(mut store: Store<Host>) -> wasmtime::Result<Self> {
        let stack_pointer = store
            .data()
            .guest()
            .instance
            .get_global(&mut store, "__stack_pointer")
            .ok_or_else(|| wasmtime::format_err!("no stack pointer"))?;
        let calls = Calls {
            main_loop_once: export(&mut store, "PostgresMainLoopOnce")?,
            main_longjmp: export(&mut store, "PostgresMainLongJmp")?,
            send_ready: export(&mut store, "PostgresSendReadyForQueryIfNecessary")?,
            flush: export(&mut store, "pgl_pq_flush")?,
            buffered: export(&mut store, "pq_buffer_remaining_data")?,
            in_transaction: export(&mut store, "IsTransactionBlock")?,
            call_function: export(&mut store, "OidFunctionCall1Coll")?,
            stack_pointer,
        };
        let interrupt = Arc::clone(&store.data().interrupt);
        Ok(Self {
            store,
            calls,
            interrupt,
            busy: Arc::default(),
            seated: session::Seated::default(),
        })
    }

    /// Gives a backend that is continued random numbers of its own. What Postgres draws from the
    /// system differs by itself; the states of its two fast generators came with the memory.
    async fn reseed(&mut self) -> Result<(), BackendError> {
        /// `setseed(float8)`.
        const SETSEED: u32 = 1599;
        let host = self.store.data();
        let address = host.module.addresses.prng_state;
        let environment = Arc::clone(&host.environment);
        let memory = host.guest().memory;
        if let Ok(state) = slice_mut(memory.data_mut(&mut self.store), address, 16) {
            environment.random(state);
        }
        let mut seed = [0; 8];
        environment.random(&mut seed);
        // A whole number of 53 bits, from -1 to 1.
        let seed = (u64::from_le_bytes(seed) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        self.call_builtin(SETSEED, &seed.to_le_bytes()).await?;
        Ok(())
    }

    /// Calls an SQL function that is built in, by its object id, with one argument passed by
    /// reference; its result as Postgres returns it. It must need no transaction.
    async fn call_builtin(
        &mut self,
        function: u32,
        argument: &[u8; 8],
    ) -> Result<u32, BackendError> {
        let guard = self.begin().await?;
        let stack = self.calls.stack_pointer.get(&mut self.store);
        let place = (stack.i32().unwrap_or_default() as u32).wrapping_sub(16);
        let set = |store: &mut Store<Host>, global: Global, value| global.set(store, value);
        let global = self.calls.stack_pointer;
        set(&mut self.store, global, Val::I32(place as i32)).map_err(ended)?;
        let memory = self.store.data().guest().memory;
        if let Ok(target) = slice_mut(memory.data_mut(&mut self.store), place, 8) {
            target.copy_from_slice(argument);
        }
        enter(&mut self.store);
        let result = self
            .calls
            .call_function
            .call_async(&mut self.store, (function, 0, place))
            .await
            .map_err(ended)?;
        set(&mut self.store, global, stack).map_err(ended)?;
        self.end(guard);
        Ok(result)
    }

    /// A handle that interrupts this backend from another task or thread.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.interrupt))
    }

    /// Waits for its turn, and marks it as busy until [`end`](Self::end).
    async fn begin(&mut self) -> Result<Busy, BackendError> {
        self.store.data_mut().take_turn().await?;
        if self.store.data().interrupt.has_signals() {
            raise_interrupt(&mut self.store.as_context_mut());
        }
        self.set_in_call(true);
        let call = self.store.data().engine.begin_call();
        Ok(Busy::begin(&self.busy, call))
    }

    fn end(&mut self, busy: Busy) {
        busy.end();
        self.set_in_call(false);
        self.store.data_mut().give_turn();
    }

    fn set_in_call(&mut self, in_call: bool) {
        if let Some(process) = &mut self.store.data_mut().process {
            process.in_call = in_call;
        }
    }

    /// Forgets a cancel that came when no statement was running, from outside or from another process.
    pub fn clear_cancel(&mut self) {
        self.interrupt.take_cancel();
        self.interrupt.forget_signals(SENT_CANCEL as u32);
    }

    /// Where bytes for Postgres go: whole protocol messages.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.store.data_mut().client.input
    }

    /// The bytes that Postgres has sent.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.store.data_mut().client.output
    }

    /// Attaches the other end of the client's connection, used while Postgres needs more input in
    /// the middle of something, or has more output than fits; without one, reading says that the
    /// client is gone, and output is gathered.
    pub fn attach(&mut self, io: Option<Box<dyn ClientIo>>) -> Option<Box<dyn ClientIo>> {
        let client = &mut self.store.data_mut().client;
        client.gone = false;
        std::mem::replace(&mut client.io, io)
    }

    /// From now on this is told of what the backend reads of its volume.
    pub fn watch_reads(&mut self, watch: Option<Box<dyn ReadWatch>>) {
        self.store.data_mut().files.watch_reads(watch);
    }

    /// Whether the attached client was found to be gone.
    pub fn client_gone(&self) -> bool {
        self.store.data().client.gone
    }

    /// Bytes of linear memory in use or reserved by this backend's heap.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().guest().memory.data_size(&self.store)
    }

    /// Whether a call was dropped before it ended, or another process of the database has crashed. Such a
    /// backend must be dropped too.
    pub fn is_broken(&self) -> bool {
        let process = self.store.data().process.as_ref();
        self.busy.load(Ordering::Acquire) || process.is_some_and(Process::is_crashed)
    }

    /// The volume that this backend runs on.
    pub fn volume(&self) -> Arc<Volume> {
        Arc::clone(self.store.data().files.namespace().volume())
    }

    fn export<P, R>(&mut self, name: &str) -> Result<TypedFunc<P, R>, BackendError>
    where
        P: wasmtime::WasmParams,
        R: wasmtime::WasmResults,
    {
        export(&mut self.store, name).map_err(ended)
    }
}

/// Marks a backend as broken for as long as a call is under way.
struct Busy {
    busy: Arc<AtomicBool>,
    _call: Call,
}

impl Busy {
    fn begin(busy: &Arc<AtomicBool>, call: Call) -> Self {
        busy.store(true, Ordering::Release);
        Self {
            busy: Arc::clone(busy),
            _call: call,
        }
    }

    fn end(self) {
        self.busy.store(false, Ordering::Release);
    }
}

fn start_error(error: wasmtime::Error) -> BackendError {
    BackendError::Start(format!("{error:#}"))
}

fn ended(error: wasmtime::Error) -> BackendError {
    match error.downcast_ref::<Exit>() {
        Some(Exit::Status(status)) => BackendError::Exited(*status),
        Some(Exit::Unresponsive) => BackendError::Unresponsive,
        _ => {
            // The backtrace is for the log; a client gets the cause alone.
            tracing::error!(error = %format!("{error:#}"), "a backend crashed");
            BackendError::Crashed(error.root_cause().to_string())
        }
    }
}
