//! Backends that join another one: further processes of one running database.

use std::sync::Arc;

use volume::Volume;
use wasmtime::{AsContextMut, TypedFunc, WasmParams};

use super::exit::be_one_of_many;
use super::pgproc::{LATCH_OWNER, PROC_DATABASE, PROC_PID};
use super::sharing::{SharedMemory, layout};
use super::{Backend, BackendLimits, ended, enter};
use crate::engine::EngineInner;
use crate::error::BackendError;
use crate::host::{read_u32, slice_mut, write_u32};
use crate::image::Image;
use crate::landmarks::{self, exit};
use crate::processes::Process;

/// Of `GucContext`: settings that a running server takes from its files.
const PGC_SIGHUP: i32 = 2;

impl Backend {
    /// A further process of a running database.
    pub(crate) async fn join(
        engine: &Arc<EngineInner>,
        image: &Image,
        shared: &SharedMemory,
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Self, BackendError> {
        let mut backend = Self::follow(engine, image, volume, limits).await?;
        // Settings of ALTER SYSTEM, for one, may have made it another.
        if layout(&backend.store).as_ref() != Some(&shared.layout) {
            return Err(BackendError::Start(
                "its shared memory is not laid out as the template's".to_owned(),
            ));
        }
        let process = Process::new(&shared.processes, &backend.interrupt);
        backend.store.data_mut().process = Some(process);
        let guard = backend.begin().await?;
        let memory = backend.store.data().guest().memory;
        let bytes = memory.data_mut(&mut backend.store);
        let attached = shared.processes.pages().attach(bytes);
        attached.map_err(|error| BackendError::Start(error.to_string()))?;
        if let Err(error) = backend.begin_process().await {
            // Refused by Postgres, it has left the others in good order.
            backend.has_ended(&error);
            return Err(error);
        }
        backend.end(guard);
        Ok(backend)
    }

    /// What Postgres does when a process comes to life.
    async fn begin_process(&mut self) -> Result<(), BackendError> {
        let process = self.store.data().process.as_ref();
        let process_id = process.map_or(landmarks::GETPID, Process::id);
        let module = Arc::clone(&self.store.data().module);
        let my_proc = module.symbol("MyProc")?;
        let memory = self.store.data().guest().memory;
        let bytes = memory.data_mut(&mut self.store);
        write_u32(bytes, my_proc, 0);
        // What it knows of shared statistics is where they were in the image's time. Nothing of it is pending:
        // who takes an image has seen to that.
        write_u32(bytes, module.symbol(landmarks::PGSTAT_REFERENCES)?, 0);
        write_u32(bytes, module.symbol("MyProcPid")?, process_id);
        let local_latch = module.symbol(landmarks::sessions::LOCAL_LATCH)?;
        write_u32(bytes, local_latch + LATCH_OWNER, process_id);
        be_one_of_many(&mut self.store.as_context_mut(), true)?;
        self.call(landmarks::INIT_PROCESS, ()).await?;
        let process = read_u32(memory.data(&self.store), my_proc);
        self.call(landmarks::PROC_ARRAY_ADD, process).await?;
        let remove = module.symbol(exit::REMOVE_PROC)?;
        self.call("on_shmem_exit", (remove, 0u32)).await?;
        // Others look only at processes of their own database when they ask whose snapshot still needs a
        // row, and whose weak lock is in the way of a strong one.
        let bytes = memory.data_mut(&mut self.store);
        if read_u32(bytes, process + PROC_PID) != process_id {
            return Err(BackendError::Start("its place in PGPROC".to_owned()));
        }
        let database = read_u32(bytes, module.symbol("MyDatabaseId")?);
        write_u32(bytes, process + PROC_DATABASE, database);
        self.call(landmarks::PGSTAT_BEINIT, ()).await?;
        self.call(landmarks::PGSTAT_BESTART, ()).await?;
        self.call(landmarks::SINVAL_INIT, 0).await?;
        self.call(landmarks::PROC_SIGNAL_INIT, (0, 0)).await?;
        // What the image has cached may have been changed since: everything is looked up again.
        let bytes = memory.data_mut(&mut self.store);
        let number = read_u32(bytes, module.symbol(landmarks::PROC_NUMBER)?);
        let queue = read_u32(bytes, module.symbol(landmarks::SINVAL_QUEUE)?);
        let state = queue + module.symbol(landmarks::SINVAL_STATES)? + 16 * number;
        if read_u32(bytes, state) != process_id {
            return Err(BackendError::Start("its place among readers".to_owned()));
        }
        const RESET_STATE: u32 = 8;
        const HAS_MESSAGES: u32 = 10;
        let aio = read_u32(bytes, module.symbol(landmarks::AIO_CONTROL)?);
        let states = read_u32(bytes, aio + module.symbol(landmarks::AIO_STATES)?);
        let own = states + module.symbol(landmarks::AIO_STATE_BYTES)? * number;
        write_u32(bytes, module.symbol(landmarks::AIO_BACKEND)?, own);
        for flag in [RESET_STATE, HAS_MESSAGES] {
            if let Ok(byte) = slice_mut(bytes, state + flag, 1) {
                byte.fill(1);
            }
        }
        // The image has the template's settings, not those of ALTER SYSTEM.
        self.call("ProcessConfigFile", PGC_SIGHUP).await
    }

    async fn call<P: WasmParams + Sync>(
        &mut self,
        name: &str,
        params: P,
    ) -> Result<(), BackendError> {
        let function: TypedFunc<P, ()> = self.export(name)?;
        enter(&mut self.store);
        function
            .call_async(&mut self.store, params)
            .await
            .map_err(ended)
    }
}
