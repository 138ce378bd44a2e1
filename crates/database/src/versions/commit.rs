//! What a record of the end of a transaction tells (`access/xact.h`).

use super::record::{Reader, Record};

/// How a transaction ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Committed {
        /// Its parts, each with a number of its own.
        parts: Vec<u32>,
        /// Other processes were told that what they know of the catalog is no longer so.
        invalidates: bool,
    },
    Aborted {
        parts: Vec<u32>,
    },
    /// A transaction that was prepared before, perhaps in another life of the backend.
    PreparedCommitted,
    /// Nothing ended.
    Not,
}

const KIND: u8 = 0x70;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const HAS_INFO: u8 = 0x80;

/// What the record has beside the time.
const HAS_DATABASE: u32 = 1;
const HAS_PARTS: u32 = 1 << 1;
const HAS_FILES: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;

/// Bytes of the name of a relation's file.
const FILE_BYTES: usize = 12;

impl End {
    /// Of a record of the manager of transactions; `None` if it cannot be read.
    pub(super) fn decode(record: &Record<'_>) -> Option<Self> {
        let kind = record.info & KIND;
        if kind == COMMIT_PREPARED {
            return Some(Self::PreparedCommitted);
        }
        if kind != COMMIT && kind != ABORT {
            return Some(Self::Not);
        }
        let mut data = Reader(record.data);
        data.take(8)?;
        let info = match record.info & HAS_INFO {
            0 => 0,
            _ => data.word()?,
        };
        if info & HAS_DATABASE != 0 {
            data.take(8)?;
        }
        let mut parts = Vec::new();
        if info & HAS_PARTS != 0 {
            let count = data.word()? as usize;
            let mut numbers = Reader(data.take(count.checked_mul(4)?)?);
            while let Some(number) = numbers.word() {
                parts.push(number);
            }
        }
        if info & HAS_FILES != 0 {
            let count = data.word()? as usize;
            data.take(count.checked_mul(FILE_BYTES)?)?;
        }
        let invalidates = info & HAS_INVALIDATIONS != 0;
        Some(match kind {
            COMMIT => Self::Committed { parts, invalidates },
            _ => Self::Aborted { parts },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(info: u8, data: &[u8]) -> Option<End> {
        End::decode(&Record {
            transaction: 9,
            manager: super::super::record::manager::TRANSACTION,
            info,
            files: Vec::new(),
            data,
        })
    }

    #[test]
    fn parts_are_found() {
        let mut data = vec![0; 8];
        assert!(
            matches!(end(COMMIT, &data), Some(End::Committed { parts, .. }) if parts.is_empty())
        );
        data.extend((HAS_PARTS | HAS_INVALIDATIONS | HAS_DATABASE).to_le_bytes());
        data.extend([0; 8]);
        for word in [2_u32, 10, 11] {
            data.extend(word.to_le_bytes());
        }
        let committed = End::Committed {
            parts: vec![10, 11],
            invalidates: true,
        };
        assert_eq!(end(COMMIT | HAS_INFO, &data), Some(committed));
        let aborted = End::Aborted {
            parts: vec![10, 11],
        };
        assert_eq!(end(ABORT | HAS_INFO, &data), Some(aborted));
        assert_eq!(end(COMMIT | HAS_INFO, &data[..22]), None);
        assert_eq!(end(COMMIT_PREPARED, &[]), Some(End::PreparedCommitted));
        assert_eq!(end(0x50, &[]), Some(End::Not));
    }
}
