//! What keeps a session in its process.

use crate::backend::Backend;
use crate::backend::pgproc::{PROC_LOCKS, PROC_TEMP_NAMESPACE, PROC_TRANSACTION};
use crate::guest_hash::entries;
use crate::host::read_u32;
use crate::settings;

/// Why a session cannot leave its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// It has made temporary tables.
    TemporaryTables,
    /// It holds locks: advisory ones of the session, outside a transaction.
    Locks,
    /// It listens to channels.
    Channels,
    /// It has cursors `WITH HOLD`.
    Cursors,
    /// A transaction is open, though not as a block.
    Transaction,
    /// Its client has an encoding other than the database's: statements would not come back as they were.
    Encoding,
}

impl Backend {
    /// Why the session cannot leave this process now. To be asked between two transactions.
    pub fn bond(&self) -> Option<Bond> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let addresses = host.module.addresses;
        let own = read_u32(memory, addresses.my_proc);
        if read_u32(memory, own + PROC_TRANSACTION) != 0 {
            return Some(Bond::Transaction);
        }
        let encoding = settings::text(memory, read_u32(memory, addresses.client_encoding));
        if !encoding.is_some_and(|encoding| ["UTF8", "SQL_ASCII"].contains(&encoding.as_str())) {
            return Some(Bond::Encoding);
        }
        if read_u32(memory, addresses.channels) != 0 {
            return Some(Bond::Channels);
        }
        let holds = (0..16).map(|list| own + PROC_LOCKS + 8 * list).any(|head| {
            let next = read_u32(memory, head + 4);
            next != 0 && next != head
        });
        if holds {
            return Some(Bond::Locks);
        }
        // The unnamed portal ends with its transaction.
        if !entries(memory, addresses.portals).is_empty() {
            return Some(Bond::Cursors);
        }
        // Once made, the schema stays with the process; whether anything is in it only a query tells.
        (read_u32(memory, own + PROC_TEMP_NAMESPACE) != 0).then_some(Bond::TemporaryTables)
    }

    /// The number of the transaction that is open, of those of this process; 0 outside of transactions.
    pub fn transaction_number(&self) -> u32 {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let own = read_u32(memory, host.module.addresses.my_proc);
        read_u32(memory, own + PROC_TRANSACTION)
    }

    /// Object id of the schema for temporary tables that this process has, 0 for none.
    pub fn temporary_schema(&self) -> u32 {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let own = read_u32(memory, host.module.addresses.my_proc);
        read_u32(memory, own + PROC_TEMP_NAMESPACE)
    }
}
