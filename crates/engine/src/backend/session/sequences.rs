//! What a session knows of sequences.

use crate::backend::Backend;
use crate::error::BackendError;
use crate::guest_hash::entries;
use crate::host::{read_u32, slice, slice_mut, write_u32};
use crate::module::Addresses;

/// Bytes of a `SeqTableData`, and offsets in it.
const SEQUENCE_BYTES: u32 = 40;
const SEQUENCE_LOCK: u32 = 8;
const SEQUENCE_VALID: u32 = 12;

/// Sequences that a session has used, as Postgres keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    entries: Vec<Vec<u8>>,
    /// The one that was used last: its place among them.
    last: Option<usize>,
}

impl Sequences {
    /// Those of a session.
    pub(super) fn of(memory: &[u8], addresses: &Addresses) -> Self {
        let mut sequences = Self::default();
        let last = read_u32(memory, addresses.last_sequence);
        for entry in entries(memory, addresses.sequences) {
            if entry == last {
                sequences.last = Some(sequences.entries.len());
            }
            let bytes = slice(memory, entry, SEQUENCE_BYTES);
            sequences.entries.extend(bytes.ok().map(<[u8]>::to_vec));
        }
        sequences
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Backend {
    pub(super) async fn restore_sequences(
        &mut self,
        sequences: &Sequences,
    ) -> Result<(), BackendError> {
        if sequences.is_empty() {
            return Ok(());
        }
        /// As in `sequence.c`: the key is an object id, `HASH_ELEM | HASH_BLOBS`.
        const CONTROL_BYTES: u32 = 48;
        const KEY_BYTES: u32 = 16;
        const ENTRY_BYTES: u32 = 20;
        const FLAGS: u32 = 40;
        const HASH_ENTER: u32 = 1;
        let addresses = self.store.data().module.addresses;
        let memory = self.store.data().guest().memory;
        let guard = self.begin().await?;
        let scratch = self.function::<u32, u32>("malloc", CONTROL_BYTES).await?;
        let name = self.c_string("Sequence values").await?;
        if scratch == 0 {
            return Err(BackendError::Crashed("out of memory".to_owned()));
        }
        let bytes = memory.data_mut(&mut self.store);
        if let Ok(control) = slice_mut(bytes, scratch, CONTROL_BYTES) {
            control.fill(0);
        }
        write_u32(bytes, scratch + KEY_BYTES, 4);
        write_u32(bytes, scratch + ENTRY_BYTES, SEQUENCE_BYTES);
        let table = self
            .function::<_, u32>("hash_create", (name, 16u32, scratch, FLAGS))
            .await?;
        write_u32(memory.data_mut(&mut self.store), addresses.sequences, table);
        for (index, saved) in sequences.entries.iter().enumerate() {
            let id = read_u32(saved, 0);
            write_u32(memory.data_mut(&mut self.store), scratch, id);
            let entry = self
                .function::<_, u32>("hash_search", (table, scratch, HASH_ENTER, scratch + 8))
                .await?;
            let bytes = memory.data_mut(&mut self.store);
            if let Ok(target) = slice_mut(bytes, entry, SEQUENCE_BYTES) {
                target.copy_from_slice(saved);
            }
            // No transaction of this process has locked it.
            write_u32(bytes, entry + SEQUENCE_LOCK, 0);
            if sequences.last == Some(index) && saved.get(SEQUENCE_VALID as usize) == Some(&1) {
                write_u32(bytes, addresses.last_sequence, entry);
            }
        }
        self.free(name).await?;
        self.free(scratch).await?;
        self.end(guard);
        Ok(())
    }
}
