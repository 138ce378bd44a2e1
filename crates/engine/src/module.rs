//! Compiled modules: what the linker and the backends need to know of each.

use std::collections::HashMap;

use parking_lot::Mutex;
use wasmtime::{InstancePre, Linker, Module};

use crate::error::{BackendError, EngineError};
use crate::host::{Host, KnownLinks};
use crate::landmarks::{self, sessions};
use crate::rewrite::{CALLBACKS, Dylink, Rewritten, Segment};

/// What is kept of a module beside its compiled code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Description {
    pub(crate) segments: Vec<Segment>,
    pub(crate) dylink: Dylink,
    pub(crate) first_callback: u32,
    pub(crate) symbols: HashMap<String, u32>,
    pub(crate) function_slots: HashMap<String, u32>,
    pub(crate) mutable_globals: Vec<String>,
}

impl From<Rewritten> for Description {
    fn from(module: Rewritten) -> Self {
        Self {
            segments: module.segments,
            dylink: module.dylink,
            first_callback: module.first_callback,
            symbols: module.symbols.into_iter().collect(),
            function_slots: module.function_slots.into_iter().collect(),
            mutable_globals: module.mutable_globals,
        }
    }
}

/// A library that can be linked into a running backend.
pub(crate) struct LibraryModule {
    pub(crate) module: Module,
    pub(crate) description: Description,
    pub(crate) links: Mutex<KnownLinks>,
}

/// `pglite.wasm` or `initdb.wasm`, ready to be instantiated.
pub(crate) struct MainModule {
    pub(crate) pre: InstancePre<Host>,
    pub(crate) description: Description,
    pub(crate) addresses: Addresses,
}

/// Where the host reads and writes Postgres' variables. Zero where a module has no such variable.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Addresses {
    pub(crate) interrupt_pending: u32,
    pub(crate) query_cancel_pending: u32,
    /// Holds the address of the latch.
    pub(crate) my_latch: u32,
    pub(crate) prng_state: u32,
    /// Holds the address of the variables.
    pub(crate) transaction_variables: u32,
    pub(crate) wal_segment_size: u32,
    pub(crate) interrupt_holdoff_count: u32,
    pub(crate) critical_section_count: u32,
    /// Hold the addresses of what this process has in shared memory, and its numbers.
    pub(crate) my_proc: u32,
    pub(crate) my_status: u32,
    pub(crate) my_signal_slot: u32,
    pub(crate) my_process_id: u32,
    pub(crate) my_process_number: u32,
    pub(crate) local_latch: u32,
    /// Holds the address of the queue of invalidations; and the offset in that of its readers' states.
    pub(crate) invalidations: (u32, u32),
    /// What a session has in its process; see [`landmarks::sessions`](crate::landmarks::sessions).
    pub(crate) settings: u32,
    pub(crate) statements: u32,
    pub(crate) unnamed_statement: u32,
    pub(crate) sequences: u32,
    pub(crate) last_sequence: u32,
    pub(crate) portals: u32,
    pub(crate) channels: u32,
    pub(crate) client_encoding: u32,
    /// In the order of [`landmarks::sessions::TIMEOUTS`].
    pub(crate) timeouts: [u32; 3],
}

impl MainModule {
    pub(crate) fn new(
        linker: &Linker<Host>,
        module: &Module,
        description: Description,
    ) -> Result<Self, EngineError> {
        let address = |name: &str| description.symbols.get(name).copied().unwrap_or_default();
        let addresses = Addresses {
            interrupt_pending: address("InterruptPending"),
            query_cancel_pending: address("QueryCancelPending"),
            my_latch: address("MyLatch"),
            prng_state: address("pg_global_prng_state"),
            transaction_variables: address("TransamVariables"),
            wal_segment_size: address("wal_segment_size"),
            interrupt_holdoff_count: address("InterruptHoldoffCount"),
            critical_section_count: address("CritSectionCount"),
            my_proc: address("MyProc"),
            my_status: address(sessions::STATUS),
            my_signal_slot: address(sessions::SIGNAL_SLOT),
            my_process_id: address("MyProcPid"),
            local_latch: address(sessions::LOCAL_LATCH),
            my_process_number: address(landmarks::PROC_NUMBER),
            invalidations: (
                address(landmarks::SINVAL_QUEUE),
                address(landmarks::SINVAL_STATES),
            ),
            settings: address(sessions::SETTINGS),
            statements: address(sessions::STATEMENTS),
            unnamed_statement: address(sessions::UNNAMED),
            sequences: address(sessions::SEQUENCES),
            last_sequence: address(sessions::LAST_SEQUENCE),
            portals: address(sessions::PORTALS),
            channels: address(sessions::CHANNELS),
            client_encoding: address(sessions::CLIENT_ENCODING),
            timeouts: sessions::TIMEOUTS.map(|(symbol, _)| address(symbol)),
        };
        let pre = linker.instantiate_pre(module).map_err(EngineError::Wasm)?;
        Ok(Self {
            pre,
            description,
            addresses,
        })
    }

    pub(crate) fn module(&self) -> &Module {
        self.pre.module()
    }

    /// Address of a symbol, or table slot of a function, without which a process cannot join others.
    pub(crate) fn symbol(&self, name: &str) -> Result<u32, BackendError> {
        let address = self.description.symbols.get(name).copied();
        address.ok_or_else(|| BackendError::Start(format!("no {name}")))
    }

    /// Table slot of a callback of the host.
    pub(crate) fn callback(&self, name: &str) -> u32 {
        let index = CALLBACKS.iter().position(|(callback, _)| *callback == name);
        self.description.first_callback + index.expect("BUG: a known callback") as u32
    }
}
