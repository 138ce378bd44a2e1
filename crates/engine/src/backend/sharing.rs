//! Making the shared memory of a backend one that others can have too: between two of its statements, or in the
//! middle of one, wherever a process that has company would let the others run.

use std::ops::Range;
use std::sync::Arc;

use wasmtime::{AsContext, AsContextMut, StoreContextMut};

use super::Backend;
use super::exit::{be_one_of_many, be_the_server};
use super::pgproc::PROC_DATABASE;
use crate::error::BackendError;
use crate::host::{Host, read_u32, write_u32};
use crate::memory::SharedPages;
use crate::processes::{Process, Processes};

/// `PGShmemMagic` of Postgres' `pg_shmem.h`.
const SHARED_MEMORY_MAGIC: u32 = 679_834_894;

/// `PG_DYNSHMEM_CONTROL_MAGIC` of Postgres' `dsm.c`.
const CONTROL_MAGIC: u32 = 0x9a50_3d32;

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
    pub(super) processes: Arc<Processes>,
    pub(super) layout: Layout,
}

/// Where things are in it: the same for all who are to share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
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

/// Those who may want to come in beside a backend while it runs a statement.
pub trait Company: Send + Sync {
    /// Whether somebody does.
    fn is_wanted(&self) -> bool;

    /// The memory of the backend is shared, or why it is not. It is called by the statement that runs: briefly.
    fn come(&self, shared: Result<SharedMemory, BackendError>);
}

impl Backend {
    /// Who is asked, when an [`Interrupter`](super::Interrupter) says so, whether the backend's memory is to be
    /// shared in the middle of a statement. Nobody without this.
    pub fn expect(&mut self, company: Option<Arc<dyn Company>>) {
        self.store.data_mut().company = company;
    }

    /// Makes the shared memory of this backend one that others can have too.
    ///
    /// # Errors
    ///
    /// [`BackendError::Start`] if it cannot be found or mapped.
    pub fn share_memory(&mut self) -> Result<SharedMemory, BackendError> {
        share(&mut self.store.as_context_mut())
    }
}

/// Shares the memory of a guest whose statement is under way, if somebody has asked for it and still wants it. To be
/// called where the turn may be given back; the guest has it afterwards.
pub(crate) fn share_if_asked(store: &mut StoreContextMut<'_, Host>) {
    let host = store.data();
    if !host.is_asked_to_share() {
        return;
    }
    let Some(company) = host.company.clone() else {
        return;
    };
    host.interrupt.forget_sharing();
    if !company.is_wanted() {
        return;
    }
    let shared = share(store);
    if shared.is_ok() {
        let host = store.data_mut();
        let now = host.environment.monotonic();
        if let Some(process) = &mut host.process {
            process.goes_on(now);
        }
    }
    company.come(shared);
}

fn share(store: &mut StoreContextMut<'_, Host>) -> Result<SharedMemory, BackendError> {
    let layout =
        layout(&*store).ok_or_else(|| BackendError::Start("no shared memory".to_owned()))?;
    // It may have been shared before.
    be_the_server(store)?;
    let host = store.data();
    let (variables, number) = {
        let addresses = host.module.addresses;
        (addresses.transaction_variables, addresses.my_process_id)
    };
    let symbols = &host.module.description.symbols;
    let own = ["MyProc", "MyDatabaseId"].map(|name| symbols.get(name).copied().unwrap_or(0));
    let memory = host.guest().memory;
    let memory = memory.data_mut(&mut *store);
    let [process, database] = own.map(|at| read_u32(memory, at));
    if database == 0 || read_u32(memory, process + PROC_DATABASE) != database {
        return Err(BackendError::Start("its database in PGPROC".to_owned()));
    }
    let number = read_u32(memory, number);
    let pages = SharedPages::of(memory, layout.ranges.clone());
    let pages = pages.map_err(|error| BackendError::Start(error.to_string()))?;
    // Processes that join know snapshots of the image's time, and would take them for those of a booted
    // database that has ended as many transactions.
    let count = read_u32(memory, variables) + ENDED_TRANSACTIONS + 4;
    write_u32(memory, count, read_u32(memory, count) + 1);
    let server_exit = be_one_of_many(store, false)?;
    let processes = Arc::new(Processes::new(pages, server_exit));
    let mut process = Process::new(&processes, &store.data().interrupt);
    process.rename(number);
    store.data_mut().process = Some(process);
    Ok(SharedMemory { processes, layout })
}

/// Where Postgres has its shared memory: the main segment, and the control segment of dynamic ones.
pub(super) fn layout(store: impl AsContext<Data = Host>) -> Option<Layout> {
    let store = store.as_context();
    let host = store.data();
    let memory = host.guest().memory.data(&store);
    let symbols = &host.module.description.symbols;
    let main = main_segment(memory, *symbols.get("MyProc")?)?;
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

/// The segment that `MyProc`, a pointer at this address, points into.
fn main_segment(memory: &[u8], my_proc: u32) -> Option<Range<usize>> {
    let inside = read_u32(memory, my_proc);
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
