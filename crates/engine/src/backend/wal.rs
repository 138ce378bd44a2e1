//! What the host asks a backend about its WAL and its transactions, without SQL.

use wasmtime::TypedFunc;

use super::{Backend, ended, enter};
use crate::error::BackendError;
use crate::host::{read_u32, slice};

/// `pg_current_wal_insert_lsn()`.
const INSERT_POSITION: u32 = 2852;
/// Bytes of a WAL page, and of its header: the first page of a segment has the long one.
const PAGE_BYTES: u64 = 8192;
const HEADER_BYTES: u64 = 24;
const LONG_HEADER_BYTES: u64 = 40;
/// Places of `nextXid` and `oldestXid` in `TransamVariablesData`.
const NEXT_TRANSACTION: u32 = 8;
const OLDEST_TRANSACTION: u32 = 16;

impl Backend {
    /// The LSN after the last byte of WAL, written or not. It stands still as long as nothing is
    /// changed, and some microseconds suffice to ask.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn wal_position(&mut self) -> Result<u64, BackendError> {
        let at = self.call_builtin(INSERT_POSITION, &[0; 8]).await?;
        let memory = self.store.data().guest().memory;
        let data = memory.data(&self.store);
        let position = slice(data, at, 8)
            .ok()
            .and_then(|bytes| bytes.first_chunk());
        let position = position.map(|bytes| u64::from_le_bytes(*bytes));
        let segment_bytes = read_u32(data, self.store.data().module.addresses.wal_segment_size);
        let free: TypedFunc<u32, ()> = self.export("pfree")?;
        let guard = self.begin().await?;
        enter(&mut self.store);
        free.call_async(&mut self.store, at).await.map_err(ended)?;
        self.end(guard);
        let position = position
            .ok_or_else(|| BackendError::Crashed("its WAL position cannot be read".to_owned()))?;
        Ok(end_of_wal(position, u64::from(segment_bytes)))
    }

    /// The LSN up to which WAL has been synced.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn wal_flushed(&mut self) -> Result<u64, BackendError> {
        let flushed: TypedFunc<u32, u64> = self.export("GetFlushRecPtr")?;
        let guard = self.begin().await?;
        enter(&mut self.store);
        // The timeline is not asked for.
        let position = flushed
            .call_async(&mut self.store, 0)
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(position)
    }

    /// Writes and syncs the WAL of commits that did not wait for it (`synchronous_commit = off`), as
    /// a WAL writer would if there were one. Whether there was anything to write.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended, as it does if the WAL cannot be written.
    pub async fn flush_wal(&mut self) -> Result<bool, BackendError> {
        let position = self.wal_position().await?;
        if self.wal_flushed().await? >= position {
            return Ok(false);
        }
        let flush: TypedFunc<u64, ()> = self.export("XLogFlush")?;
        let guard = self.begin().await?;
        enter(&mut self.store);
        flush
            .call_async(&mut self.store, position)
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(true)
    }

    /// The number of the next transaction that gets one: the lower half of it, as rows bear it.
    pub fn next_transaction(&self) -> u32 {
        let host = self.store.data();
        let data = host.guest().memory.data(&self.store);
        let variables = read_u32(data, host.module.addresses.transaction_variables);
        read_u32(data, variables.wrapping_add(NEXT_TRANSACTION))
    }

    /// How many transactions ago the oldest began that some row may bear and that is not frozen:
    /// what `VACUUM (FREEZE)` brings down, and what must stay far below 2^31.
    pub fn transaction_age(&self) -> u32 {
        let host = self.store.data();
        let data = host.guest().memory.data(&self.store);
        let variables = read_u32(data, host.module.addresses.transaction_variables);
        self.next_transaction()
            .wrapping_sub(read_u32(data, variables.wrapping_add(OLDEST_TRANSACTION)))
    }
}

/// The end of the last record, if the next begins at `position`: between them may be the header of
/// a page that is not begun yet, and up to which nothing can be flushed.
fn end_of_wal(position: u64, segment_bytes: u64) -> u64 {
    let in_page = position % PAGE_BYTES;
    let first = segment_bytes != 0 && position % segment_bytes < PAGE_BYTES;
    let header = if first {
        LONG_HEADER_BYTES
    } else {
        HEADER_BYTES
    };
    if in_page == header {
        position - header
    } else {
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_begun_has_no_header() {
        const SEGMENT: u64 = 1 << 20;
        assert_eq!(end_of_wal(SEGMENT + 40, SEGMENT), SEGMENT);
        assert_eq!(end_of_wal(SEGMENT + 24, SEGMENT), SEGMENT + 24);
        assert_eq!(end_of_wal(SEGMENT + 8192 + 24, SEGMENT), SEGMENT + 8192);
        assert_eq!(end_of_wal(SEGMENT + 8192 + 40, SEGMENT), SEGMENT + 8232);
        assert_eq!(end_of_wal(SEGMENT + 800, SEGMENT), SEGMENT + 800);
    }
}
