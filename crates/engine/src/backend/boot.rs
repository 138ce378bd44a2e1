//! Starting Postgres, or another program of it, from nothing.

use std::sync::Arc;

use volume::{Ino, Volume, VolumeError};
use wasmtime::{Store, TypedFunc};

use super::instance::{call, enter, export, files, host, instantiate};
use super::{Backend, BackendLimits, start_error};
use crate::engine::EngineInner;
use crate::error::{BackendError, EngineError};
use crate::files::{Scratch, StandardStreams};
use crate::host::{Children, Exit, Host, slice_mut};
use crate::module::MainModule;
use crate::rewrite::START;

/// The exit status by which Postgres says that it is up and has returned to its host.
const STATUS_ALIVE: i32 = 99;

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

impl Backend {
    /// Starts Postgres on an existing data directory, running its crash recovery if need be.
    pub(crate) async fn boot(
        engine: &Arc<EngineInner>,
        volume: Arc<Volume>,
        database: &str,
        limits: BackendLimits,
    ) -> Result<Self, BackendError> {
        let _call = engine.begin_call();
        remove_lock_file(&volume)?;
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
}

/// Removes what another start has left that was ended in the middle. Who has the volume has it alone; Postgres
/// would refuse to start, for good, where it finds the file without a number in it.
fn remove_lock_file(volume: &Volume) -> Result<(), BackendError> {
    const LOCK_FILE: &str = "postmaster.pid";
    match volume.unlink(Ino::ROOT, LOCK_FILE) {
        Ok(()) | Err(VolumeError::NotFound) => Ok(()),
        Err(error) => Err(BackendError::Start(format!("{LOCK_FILE}: {error}"))),
    }
}

/// How a program's `main` ended other than by returning.
enum Ended {
    Exit(i32),
    Other(String),
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
    let _call = engine.begin_call();
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
