//! The wasm instance under a backend.

use std::sync::Arc;

use volume::Volume;
use wasmtime::{AsContextMut, Store, TypedFunc, UpdateDeadline};

use super::BackendLimits;
use crate::engine::EngineInner;
use crate::files::{FileTable, Namespace, Scratch, StandardStreams};
use crate::host::{
    Children, Client, Exit, Guest, Host, Libraries, Timer, raise_cancel, raise_interrupt,
};
use crate::module::MainModule;

pub(super) fn files(
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

pub(super) fn host(
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
        company: None,
        guest: None,
    }
}

pub(super) async fn instantiate(engine: &EngineInner, host: Host) -> wasmtime::Result<Store<Host>> {
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

/// The guest is entered anew: how deep its stack is will be measured from here.
pub(super) fn enter(store: &mut Store<Host>) {
    store.set_epoch_deadline(1);
    store.data_mut().stack_top = 0;
}

pub(super) fn export<P, R>(store: &mut Store<Host>, name: &str) -> wasmtime::Result<TypedFunc<P, R>>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults,
{
    store.data().guest().instance.get_typed_func(store, name)
}

pub(super) async fn call(
    store: &mut Store<Host>,
    name: &str,
    argument: i32,
) -> wasmtime::Result<i32> {
    let function: TypedFunc<i32, i32> = export(store, name)?;
    enter(store);
    function.call_async(&mut *store, argument).await
}
