//! Backends that share Postgres' shared memory: processes of one running database.

use std::ops::Range;
use std::sync::Arc;

use volume::Volume;
use wasmtime::{TypedFunc, WasmParams};

use super::pgproc::{LATCH_OWNER, PROC_DATABASE, PROC_PID};
use super::{Backend, BackendLimits, ended, enter};
use crate::engine::EngineInner;
use crate::error::BackendError;
use crate::host::{read_u32, slice_mut, write_u32};
use crate::image::Image;
use crate::landmarks::{self, exit};
use crate::memory::SharedPages;
use crate::processes::{Process, Processes};

/// `PGShmemMagic` of Postgres' `pg_shmem.h`.
const SHARED_MEMORY_MAGIC: u32 = 679_834_894;

/// `PG_DYNSHMEM_CONTROL_MAGIC` of Postgres' `dsm.c`.
const CONTROL_MAGIC: u32 = 0x9a50_3d32;

/// Of `GucContext`: settings that a running server takes from its files.
const PGC_SIGHUP: i32 = 2;

/// Place of `xactCompletionCount`, of 64 bits, in `TransamVariablesData`.
const ENDED_TRANSACTIONS: u32 = 56;

/// Variables that tell where Postgres has put what in its shared memory, and how large it has made it.
const LAYOUT: [&str; 6] = [
    "BufferBlocks",
    "BufferDescriptors",
    "MainLWLockArray",
    "NBuffers",
    "TransamVariables",
    "wal_segment_size",
];

/// The shared memory of one running database.
#[derive(Debug, Clone)]
pub struct SharedMemory {
    processes: Arc<Processes>,
    layout: Layout,
}

/// Where things are in it: the same for all who are to share it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    ranges: Vec<Range<usize>>,
    variables: [u32; LAYOUT.len()],
}

impl SharedMemory {
    /// Whether nobody gets a turn in it any more.
    pub fn is_stopped(&self) -> bool {
        self.processes.is_stopped()
    }

    /// Ends all backends that share it: each fails when it is to run again.
    pub fn stop(&self) {
        self.processes.stop();
    }

    /// Waits until none of them runs, after [`stop`](Self::stop).
    pub async fn stopped(&self) {
        self.processes.stopped().await;
    }
}

impl Backend {
    /// Where Postgres has its shared memory: the main segment, and the control segment of dynamic ones.
    fn layout(&self) -> Option<Layout> {
        let main = self.main_segment()?;
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let symbols = &host.module.description.symbols;
        let variable = |name| symbols.get(name).map_or(0, |at| read_u32(memory, *at));
        let control = (0..memory.len() as u32)
            .step_by(65_536)
            .find(|at| read_u32(memory, *at) == CONTROL_MAGIC)?;
        let control = control as usize..control as usize + 65_536;
        Some(Layout {
            ranges: vec![main, control],
            variables: LAYOUT.map(variable),
        })
    }

    fn main_segment(&self) -> Option<Range<usize>> {
        let host = self.store.data();
        let address = *host.module.description.symbols.get("MyProc")?;
        let memory = host.guest().memory.data(&self.store);
        let inside = read_u32(memory, address);
        // It begins at a border of a wasm page, below everything in it.
        let mut start = inside / 65_536 * 65_536;
        while start > 0 {
            if read_u32(memory, start) == SHARED_MEMORY_MAGIC {
                let bytes = read_u32(memory, start + 8);
                return Some(start as usize..(start + bytes) as usize);
            }
            start -= 65_536;
        }
        None
    }

    /// Makes the shared memory of this backend one that others can have too.
    ///
    /// # Errors
    ///
    /// [`BackendError::Start`] if it cannot be found or mapped.
    pub fn share_memory(&mut self) -> Result<SharedMemory, BackendError> {
        let layout = self
            .layout()
            .ok_or_else(|| BackendError::Start("no shared memory".to_owned()))?;
        // It may have been shared before.
        self.be_the_server()?;
        let host = self.store.data();
        let variables = host.module.addresses.transaction_variables;
        let symbols = &host.module.description.symbols;
        let own = ["MyProc", "MyDatabaseId"].map(|name| symbols.get(name).copied().unwrap_or(0));
        let memory = host.guest().memory;
        let memory = memory.data_mut(&mut self.store);
        let [process, database] = own.map(|at| read_u32(memory, at));
        if database == 0 || read_u32(memory, process + PROC_DATABASE) != database {
            return Err(BackendError::Start("its database in PGPROC".to_owned()));
        }
        let pages = SharedPages::of(memory, layout.ranges.clone());
        let pages = pages.map_err(|error| BackendError::Start(error.to_string()))?;
        // Processes that join know snapshots of the image's time, and would take them for those of a booted
        // database that has ended as many transactions.
        let count = read_u32(memory, variables) + ENDED_TRANSACTIONS + 4;
        write_u32(memory, count, read_u32(memory, count) + 1);
        let server_exit = self.be_one_of_many(false)?;
        let processes = Arc::new(Processes::new(pages, server_exit));
        let mut process = Process::new(&processes, &self.interrupt);
        process.rename(self.process_id());
        self.store.data_mut().process = Some(process);
        Ok(SharedMemory { processes, layout })
    }

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
        if backend.layout().as_ref() != Some(&shared.layout) {
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
        self.be_one_of_many(true)?;
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
