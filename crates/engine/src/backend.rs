//! One running Postgres: bytes in, bytes out.

mod exit;
mod fork;
mod join;
mod pgproc;
mod session;
mod trim;
mod user;
mod wal;

pub use join::SharedMemory;
pub use session::{
    Bond, IdleLimits, PreparedStatement, Sequences, SessionIdentity, SessionRefused, SessionState,
};
pub use user::User;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use volume::Volume;
use wasmtime::{AsContextMut, Global, Store, TypedFunc, UpdateDeadline, Val};

pub(crate) use exit::ServerExit;
pub(crate) use fork::Spares;

use crate::buffers::Buffers;
use crate::engine::EngineInner;
use crate::error::{BackendError, EngineError};
use crate::files::{FileTable, Namespace, Scratch, StandardStreams};
use crate::host::{
    Children, Client, ClientIo, Exit, Guest, Host, Interrupt, Libraries, Timer, raise_cancel,
    raise_interrupt, slice_mut,
};
use crate::image::Image;
use crate::memory::MemoryImage;
use crate::module::MainModule;
use crate::pagemap::own_pages;
use crate::processes::Process;
use crate::rewrite::START;
use crate::state::HostState;
use crate::{heap, saved};

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

/// The exit status by which Postgres says that it is up and has returned to its host.
const STATUS_ALIVE: i32 = 99;
/// The exit status by which an error has unwound to the main loop.
const STATUS_LONGJMP: i32 = 100;

/// Part of the guest's stack in memory that is surely stack: more than Postgres ever goes down by
/// default (`max_stack_depth`), half of what this build reserves.
const STACK_BYTES: usize = 4 << 20;

/// Settings without which this build does not work; on the command line nobody can change them
/// for good. There are no other processes: nothing may wait for one.
const ARGUMENTS: [&str; 23] = [
    "/pglite/bin/postgres",
    "--single",
    "-j",
    "-c",
    "exit_on_error=false",
    "-c",
    "max_worker_processes=0",
    "-c",
    "max_parallel_workers=0",
    "-c",
    "max_parallel_workers_per_gather=0",
    "-c",
    "max_parallel_maintenance_workers=0",
    "-c",
    "io_method=sync",
    "-c",
    "min_dynamic_shared_memory=8MB",
    "-c",
    "post_auth_delay=0",
    "-c",
    "pre_auth_delay=0",
    "-D",
    crate::files::DATA_DIRECTORY,
];

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

/// Interrupts a backend from anywhere.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<Interrupt>);

impl Interrupter {
    /// Waits until another process has sent a signal, or something is asked from outside.
    pub async fn asked(&self) {
        self.0.asked().await;
    }

    /// Asks the statement that runs now to end with 57014. A backend that runs none is told at
    /// its next statement; see [`Backend::clear_cancel`].
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Ends the backend at its next loop or call, whatever it does: for one that ignored
    /// [`cancel`](Self::cancel).
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Backend {
    /// Starts Postgres on an existing data directory, running its crash recovery if need be.
    pub(crate) async fn boot(
        engine: &Arc<EngineInner>,
        volume: Arc<Volume>,
        database: &str,
        limits: BackendLimits,
    ) -> Result<Self, BackendError> {
        let scratch = Arc::new(Scratch::new());
        let files = files(engine, Some(volume), scratch, StandardStreams::Log);
        let host = host(engine, engine.postgres(), files, limits, None);
        let mut store = instantiate(engine, host).await.map_err(start_error)?;
        cold_start(&mut store).await.map_err(start_error)?;
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([database]).collect();
        call(&mut store, "pgl_setPGliteActive", 1)
            .await
            .map_err(start_error)?;
        match main(&mut store, &arguments).await {
            Ok(status) | Err(Ended::Exit(status)) if status == STATUS_ALIVE => {}
            Ok(status) | Err(Ended::Exit(status)) => {
                return Err(BackendError::Exited(status));
            }
            Err(Ended::Other(error)) => return Err(BackendError::Start(error)),
        }
        let start: TypedFunc<(), ()> =
            export(&mut store, "pgl_startPGlite").map_err(start_error)?;
        enter(&mut store);
        start
            .call_async(&mut store, ())
            .await
            .map_err(start_error)?;
        Self::new(store).map_err(start_error)
    }

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

    /// Takes the image of this backend, which must be idle, outside a transaction, and must never
    /// have served a client with data of its own.
    pub(crate) fn image(&mut self) -> Result<Image, EngineError> {
        let state = self.state()?;
        let host = self.store.data();
        let memory = MemoryImage::of(host.guest().memory.data(&self.store))
            .map_err(|error| EngineError::Image(error.to_string()))?;
        let mut id = [0; 16];
        host.environment.random(&mut id);
        Ok(Image::new(id, memory, state))
    }

    /// This backend as its differences from `base`; it must be as for [`image`](Self::image), but
    /// for the data.
    pub(crate) fn save(&mut self, base: &Image) -> Result<Vec<u8>, EngineError> {
        self.be_the_server()
            .map_err(|error| EngineError::Image(error.to_string()))?;
        let state = self.state()?;
        let stack_pointer = self.stack_pointer();
        let host = self.store.data();
        let forked = matches!(&host.mapped, Some(image) if Arc::ptr_eq(image, &base.memory));
        let memory = host.guest().memory.data(&self.store);
        let shared = host.process.as_ref().map_or(&[][..], Process::shared);
        let own = forked.then(|| own_pages(memory)).and_then(|own| match own {
            Ok(own) => {
                base.hot.saw(&own);
                Some(with(own, shared))
            }
            Err(error) => {
                tracing::debug!(%error, "a backend's own pages are unknown; all are compared");
                None
            }
        });
        let dead = dead(memory, stack_pointer, &host.module.description.symbols);
        Ok(saved::encode(base, own, memory, &dead, &state))
    }

    fn stack_pointer(&mut self) -> usize {
        let value = self.calls.stack_pointer.get(&mut self.store);
        value.i32().unwrap_or_default() as u32 as usize
    }

    fn state(&mut self) -> Result<HostState, EngineError> {
        let host = self.store.data();
        let idle = host.client.input.is_empty() && host.client.output.is_empty();
        if host.process.as_ref().is_some_and(|own| !own.is_alone()) {
            // The shared memory knows of other processes.
            return Err(EngineError::Image("its memory is shared".to_owned()));
        }
        if !idle || self.is_broken() {
            return Err(EngineError::Image("the backend is not idle".to_owned()));
        }
        let (directory, files) = host.files.save().map_err(|errno| {
            EngineError::Image(format!("an open file cannot be kept (errno {})", errno.0))
        })?;
        let umask = host.umask;
        let timer_armed = host.timer.fired || host.timer.deadline.is_some();
        let module = Arc::clone(&host.module);
        let guest = host.guest();
        let mut globals = Vec::new();
        for name in &module.description.mutable_globals {
            let global = guest.instance.get_global(&mut self.store, name);
            match global.map(|global| global.get(&mut self.store)) {
                Some(Val::I32(value)) => globals.push(value as u32),
                _ => return Err(EngineError::Image(format!("{name} is not an i32"))),
            }
        }
        Ok(HostState {
            globals,
            libraries: crate::host::save(&mut self.store).map_err(EngineError::Wasm)?,
            directory,
            files,
            umask,
            timer_armed,
        })
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
        Ok(Busy::begin(&self.busy))
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

    /// Forgets a cancel that came when no statement was running.
    pub fn clear_cancel(&mut self) {
        self.interrupt.take_cancel();
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

    /// Begins a client's connection: takes a startup message, answers as a server would that
    /// trusts it.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended; it must be dropped then.
    pub async fn connect(&mut self, startup: &[u8]) -> Result<(), BackendError> {
        self.input().extend_from_slice(startup);
        let guard = self.begin().await?;
        let port: TypedFunc<(), i32> = self.export("pgl_getMyProcPort")?;
        let process: TypedFunc<(i32, i32, i32), i32> = self.export("ProcessStartupPacket")?;
        let send: TypedFunc<(), ()> = self.export("pgl_sendConnData")?;
        enter(&mut self.store);
        let port = port.call_async(&mut self.store, ()).await.map_err(ended)?;
        let status = process
            .call_async(&mut self.store, (port, 1, 1))
            .await
            .map_err(ended)?;
        if status != 0 {
            return Err(BackendError::Start(
                "it refused the startup packet".to_owned(),
            ));
        }
        send.call_async(&mut self.store, ()).await.map_err(ended)?;
        self.calls
            .flush
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(())
    }

    /// Runs Postgres until it has used up [`input`](Self::input) and waits for the next message;
    /// its answer is in [`output`](Self::output).
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended: what it sent before is still in the output. It must
    /// be dropped then, as also if this future is dropped before it is ready.
    pub async fn exchange(&mut self) -> Result<(), BackendError> {
        let guard = self.begin().await?;
        while self.has_input().await? {
            if let Err(error) = self.step().await {
                self.has_ended(&error);
                return Err(error);
            }
        }
        self.end(guard);
        Ok(())
    }

    /// Postgres may have ended this process in good order, after a FATAL error.
    fn has_ended(&mut self, error: &BackendError) {
        if matches!(error, BackendError::Exited(_))
            && let Some(process) = &mut self.store.data_mut().process
        {
            process.exited();
        }
    }

    async fn has_input(&mut self) -> Result<bool, BackendError> {
        if !self.store.data().client.input.is_empty() {
            return Ok(true);
        }
        let buffered = self
            .calls
            .buffered
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        Ok(buffered > 0)
    }

    /// One message.
    async fn step(&mut self) -> Result<(), BackendError> {
        let stack = self.calls.stack_pointer.get(&mut self.store);
        enter(&mut self.store);
        let outcome = self
            .calls
            .main_loop_once
            .call_async(&mut self.store, ())
            .await;
        if let Err(error) = outcome {
            match error.downcast_ref::<Exit>() {
                Some(Exit::Status(STATUS_LONGJMP)) => {
                    self.calls
                        .stack_pointer
                        .set(&mut self.store, stack)
                        .map_err(ended)?;
                    enter(&mut self.store);
                    self.calls
                        .main_longjmp
                        .call_async(&mut self.store, ())
                        .await
                        .map_err(ended)?;
                }
                _ => return Err(ended(error)),
            }
        }
        self.calls
            .send_ready
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        self.calls
            .flush
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)
    }

    /// Whether a transaction block is open.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn in_transaction(&mut self) -> Result<bool, BackendError> {
        let guard = self.begin().await?;
        let open = self
            .calls
            .in_transaction
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(open != 0)
    }

    /// Ends a process that joined others, in good order: nothing of it stays in the shared memory.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if it ended in another way.
    pub async fn leave(mut self) -> Result<(), BackendError> {
        let guard = self.begin().await?;
        self.terminate().await?;
        self.has_ended(&BackendError::Exited(0));
        guard.end();
        Ok(())
    }

    /// Ends Postgres as a clean shutdown does, with a shutdown checkpoint, so that the next boot
    /// has nothing to recover.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if it ended in another way; the volume is as after a crash then, which
    /// the next boot recovers from.
    pub async fn shut_down(mut self) -> Result<(), BackendError> {
        self.be_the_server()?;
        self.terminate().await
    }

    /// Says goodbye, and runs what was to be done at the end.
    async fn terminate(&mut self) -> Result<(), BackendError> {
        const TERMINATE: &[u8] = b"X\0\0\0\x04";
        call(&mut self.store, "pgl_setPGliteActive", 0)
            .await
            .map_err(ended)?;
        self.input().extend_from_slice(TERMINATE);
        enter(&mut self.store);
        let left = self
            .calls
            .main_loop_once
            .call_async(&mut self.store, ())
            .await;
        clean(left.err())?;
        let run: TypedFunc<(), ()> = self.export("pgl_run_atexit_funcs")?;
        enter(&mut self.store);
        let left = run.call_async(&mut self.store, ()).await;
        clean(left.err())
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
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn begin(busy: &Arc<AtomicBool>) -> Self {
        busy.store(true, Ordering::Release);
        Self(Arc::clone(busy))
    }

    fn end(self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How a program's `main` ended other than by returning.
enum Ended {
    Exit(i32),
    Other(String),
}

/// Ranges in order, without overlaps: `own`, which are, and what was shared with other processes.
fn with(own: Vec<Range<usize>>, shared: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut all: Vec<_> = own
        .into_iter()
        .flat_map(|range| apart(range, shared))
        .collect();
    all.extend(shared.iter().cloned());
    all.sort_by_key(|range| range.start);
    all
}

/// The parts of a range that lie outside of others.
fn apart(range: Range<usize>, others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut parts = vec![range];
    for other in others {
        let cut = parts.into_iter().flat_map(|part| {
            let before = part.start..part.end.min(other.start);
            let after = part.start.max(other.end)..part.end;
            [before, after]
        });
        parts = cut.filter(|part| !part.is_empty()).collect();
    }
    parts
}

/// What is nobody's in the memory of a backend that waits for its next message, in order.
fn dead(memory: &[u8], stack_pointer: usize, symbols: &HashMap<String, u32>) -> Vec<Range<usize>> {
    // Below the stack pointer everything is left over.
    let top = stack_pointer / 16 * 16;
    let stack = top.saturating_sub(STACK_BYTES)..top;
    let mut dead = vec![stack];
    dead.extend(heap::free(memory, symbols));
    dead.extend(Buffers::of(memory, symbols).empty());
    // The buffers lie in one block of the heap, between free ones.
    dead.sort_by_key(|range| range.start);
    dead
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

/// Leaving with status zero is how a shutdown ends.
fn clean(error: Option<wasmtime::Error>) -> Result<(), BackendError> {
    match error.map(ended) {
        None | Some(BackendError::Exited(0)) => Ok(()),
        Some(error) => Err(error),
    }
}

fn files(
    engine: &EngineInner,
    volume: Option<Arc<Volume>>,
    scratch: Arc<Scratch>,
    streams: StandardStreams,
) -> FileTable {
    let namespace = Namespace {
        volume,
        scratch,
        distribution: engine.distribution().clone(),
    };
    FileTable::new(namespace, streams)
}

fn host(
    engine: &Arc<EngineInner>,
    module: Arc<MainModule>,
    files: FileTable,
    limits: BackendLimits,
    children: Option<Children>,
) -> Host {
    Host {
        files,
        client: Client::default(),
        environment: Arc::clone(engine.environment()),
        interrupt: Arc::default(),
        timer: Timer::default(),
        wait_deadline: None,
        libraries: Libraries::default(),
        children,
        engine: Arc::clone(engine),
        module,
        memory_bytes_max: limits.memory_bytes_max,
        umask: 0o077,
        mapped: None,
        stack_top: 0,
        stack_bytes_max: crate::engine::WASM_STACK_BYTES,
        process: None,
        guest: None,
    }
}

async fn instantiate(engine: &EngineInner, host: Host) -> wasmtime::Result<Store<Host>> {
    let module = Arc::clone(&host.module);
    let mut store = Store::new(engine.wasm(), host);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        let mut context = context.as_context_mut();
        let host = context.data_mut();
        if host.interrupt.stopping() {
            return Err(Exit::Unresponsive.into());
        }
        if host.guest.is_some() {
            let now = host.environment.monotonic();
            let fired = host.timer.check(now);
            if host.interrupt.take_cancel() {
                raise_cancel(&mut context);
            } else if fired || context.data().should_look() {
                raise_interrupt(&mut context);
            }
        }
        Ok(UpdateDeadline::Yield(1))
    });
    let instance = module.pre.instantiate_async(&mut store).await?;
    let missing = |name: &str| wasmtime::format_err!("the module does not export {name}");
    let memory = instance
        .get_memory(&mut store, "memory")
        .ok_or_else(|| missing("memory"))?;
    let table = instance
        .get_table(&mut store, "__indirect_function_table")
        .ok_or_else(|| missing("its table"))?;
    store.data_mut().guest = Some(Guest {
        instance,
        memory,
        table,
    });
    Ok(store)
}

/// What an instance needs that does not come with a mapped image.
async fn cold_start(store: &mut Store<Host>) -> wasmtime::Result<()> {
    let module = Arc::clone(&store.data().module);
    let memory = store.data().guest().memory;
    let data = memory.data_mut(&mut *store);
    for segment in &module.description.segments {
        let target = slice_mut(data, segment.offset, segment.bytes.len() as u32)
            .map_err(|_| wasmtime::format_err!("a data segment lies outside the memory"))?;
        target.copy_from_slice(&segment.bytes);
    }
    enter(store);
    for name in [START, "__wasm_call_ctors"] {
        if let Ok(function) = export::<(), ()>(store, name) {
            function.call_async(&mut *store, ()).await?;
        }
    }
    let set: TypedFunc<(u32, u32), ()> = export(store, "pgl_set_rw_cbs")?;
    let callbacks = (
        module.callback("client_read"),
        module.callback("client_write"),
    );
    set.call_async(&mut *store, callbacks).await?;
    for (setter, callback) in [
        ("pgl_set_system_fn", "system"),
        ("pgl_set_popen_fn", "popen"),
        ("pgl_set_pclose_fn", "pclose"),
    ] {
        let set: TypedFunc<u32, ()> = export(store, setter)?;
        set.call_async(&mut *store, module.callback(callback))
            .await?;
    }
    Ok(())
}

/// The guest is entered anew: how deep its stack is will be measured from here.
fn enter(store: &mut Store<Host>) {
    store.set_epoch_deadline(1);
    store.data_mut().stack_top = 0;
}

fn export<P, R>(store: &mut Store<Host>, name: &str) -> wasmtime::Result<TypedFunc<P, R>>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults,
{
    store.data().guest().instance.get_typed_func(store, name)
}

async fn call(store: &mut Store<Host>, name: &str, argument: i32) -> wasmtime::Result<i32> {
    let function: TypedFunc<i32, i32> = export(store, name)?;
    enter(store);
    function.call_async(&mut *store, argument).await
}

/// Calls `main` with a command line.
async fn main(store: &mut Store<Host>, arguments: &[&str]) -> Result<i32, Ended> {
    let other = |error: wasmtime::Error| Ended::Other(format!("{error:#}"));
    let malloc: TypedFunc<u32, u32> = export(store, "malloc").map_err(other)?;
    let main: TypedFunc<(i32, u32), i32> = export(store, "__main_argc_argv").map_err(other)?;
    let text: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    let pointers = 4 * (arguments.len() + 1);
    let bytes = (pointers + text) as u32;
    let base = malloc.call_async(&mut *store, bytes).await.map_err(other)?;
    let memory = store.data().guest().memory;
    let target = slice_mut(memory.data_mut(&mut *store), base, bytes)
        .map_err(|_| Ended::Other("no memory for the command line".to_owned()))?;
    let mut at = pointers;
    for (index, argument) in arguments.iter().enumerate() {
        target[4 * index..4 * index + 4].copy_from_slice(&(base + at as u32).to_le_bytes());
        target[at..at + argument.len()].copy_from_slice(argument.as_bytes());
        target[at + argument.len()] = 0;
        at += argument.len() + 1;
    }
    target[pointers - 4..pointers].fill(0);
    let global = store
        .data()
        .guest()
        .instance
        .get_global(&mut *store, "__stack_pointer");
    let stack = global.map(|global| global.get(&mut *store));
    enter(store);
    let outcome = main
        .call_async(&mut *store, (arguments.len() as i32, base))
        .await;
    // The exit unwound the frames; their stack is given back.
    if let (Some(global), Some(stack)) = (global, stack) {
        global.set(&mut *store, stack).map_err(other)?;
    }
    outcome.map_err(|error| match error.downcast_ref::<Exit>() {
        Some(Exit::Status(status)) => Ended::Exit(*status),
        _ => other(error),
    })
}

/// Runs a program to its end: its exit status.
pub(crate) async fn run_program(
    engine: &Arc<EngineInner>,
    module: Arc<MainModule>,
    volume: Arc<Volume>,
    scratch: Arc<Scratch>,
    streams: StandardStreams,
    arguments: &[&str],
    children: Option<Children>,
) -> Result<i32, EngineError> {
    let limits = BackendLimits::default();
    let files = files(engine, Some(volume), scratch, streams);
    let host = host(engine, module, files, limits, children);
    let mut store = instantiate(engine, host).await.map_err(EngineError::Wasm)?;
    cold_start(&mut store).await.map_err(EngineError::Wasm)?;
    let status = match main(&mut store, arguments).await {
        Ok(status) | Err(Ended::Exit(status)) => status,
        Err(Ended::Other(error)) => return Err(BackendError::Crashed(error).into()),
    };
    // `exit` of the C library would have written what its streams still hold.
    let flush: TypedFunc<i32, i32> = export(&mut store, "fflush").map_err(EngineError::Wasm)?;
    enter(&mut store);
    flush
        .call_async(&mut store, 0)
        .await
        .map_err(EngineError::Wasm)?;
    Ok(status)
}
