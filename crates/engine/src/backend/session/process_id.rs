//! The number by which Postgres knows a process.

use crate::backend::Backend;
use crate::backend::pgproc::{LATCH_OWNER, PROC_LATCH_OWNER, PROC_PID};
use crate::error::BackendError;
use crate::host::{read_u32, write_u32};

/// Offset in `PgBackendStatus`.
const STATUS_PID: u32 = 4;

impl Backend {
    /// The number by which Postgres knows this process: what `pg_backend_pid()` tells.
    pub fn process_id(&self) -> u32 {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        read_u32(memory, host.module.addresses.my_process_id)
    }

    /// Gives the process another number, that of its session.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn set_process_id(&mut self, id: u32) -> Result<(), BackendError> {
        let old = self.process_id();
        if old == id {
            return Ok(());
        }
        let guard = self.begin().await?;
        let addresses = self.store.data().module.addresses;
        let number = addresses.my_process_number;
        let (queue, states) = addresses.invalidations;
        let memory = self.store.data().guest().memory;
        let bytes = memory.data_mut(&mut self.store);
        let own = read_u32(bytes, addresses.my_proc);
        let queue = read_u32(bytes, queue) + states;
        let places = [
            addresses.my_process_id,
            own + PROC_PID,
            own + PROC_LATCH_OWNER,
            read_u32(bytes, addresses.my_signal_slot),
            read_u32(bytes, addresses.my_status) + STATUS_PID,
            queue + 16 * read_u32(bytes, number),
        ];
        write_u32(bytes, addresses.local_latch + LATCH_OWNER, id);
        for place in places {
            // Some of them are not in use in a process that is alone.
            if read_u32(bytes, place) == old {
                write_u32(bytes, place, id);
            }
        }
        if let Some(process) = &mut self.store.data_mut().process {
            process.rename(id);
        }
        self.end(guard);
        Ok(())
    }
}
