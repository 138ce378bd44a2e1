//! Records of PostgreSQL's log (`access/xlogrecord.h`), as far as they tell what was changed.

/// Bytes of a record's header.
pub(super) const HEADER_BYTES: usize = 24;

/// Resource managers (`access/rmgrlist.h`) whose records matter, and the first that extensions may have.
pub(super) mod manager {
    pub(in crate::versions) const XLOG: u8 = 0;
    pub(in crate::versions) const TRANSACTION: u8 = 1;
    pub(in crate::versions) const DATABASE: u8 = 4;
    pub(in crate::versions) const RELATION_MAP: u8 = 7;
    pub(in crate::versions) const HEAP2: u8 = 9;
    pub(in crate::versions) const HEAP: u8 = 10;
    pub(in crate::versions) const GENERIC: u8 = 20;
    pub(in crate::versions) const CUSTOM_FIRST: u8 = 128;
}

/// Marks of the parts of a record.
const DATA_SHORT: u8 = 255;
const DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_TRANSACTION: u8 = 252;
const BLOCK_MAX: u8 = 32;

/// Of a part that tells of a block.
const HAS_IMAGE: u8 = 0x10;
const SAME_RELATION: u8 = 0x80;
/// Of the image of a block: it has a hole, and it is compressed in one of three ways.
const HAS_HOLE: u8 = 0x01;
const COMPRESSED: u8 = 0x04 | 0x08 | 0x10;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The transaction, or the part of one, that wrote it; 0 for none.
    pub(super) transaction: u32,
    pub(super) manager: u8,
    pub(super) info: u8,
    /// Names of the files of the relations whose blocks it is about, neighbours once.
    pub(super) files: Vec<u32>,
    /// What it has beside what belongs to blocks.
    pub(super) data: &'a [u8],
}

/// LSN of the record before.
pub(super) fn previous(record: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*record.get(8..16)?.first_chunk()?))
}

/// Whether the checksum of a whole record is right.
pub(super) fn is_whole(record: &[u8]) -> bool {
    let (Some(sum), Some(body)) = (record.get(20..HEADER_BYTES), record.get(HEADER_BYTES..)) else {
        return false;
    };
    let found = crc32c::crc32c_append(crc32c::crc32c(body), &record[..20]);
    found.to_le_bytes() == *sum
}

impl<'a> Record<'a> {
    /// Of all bytes of a record; `None` if they are none.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let mut record = Self {
            transaction: u32::from_le_bytes(*header[4..8].first_chunk()?),
            info: header[16],
            manager: header[17],
            files: Vec::new(),
            data: &[],
        };
        let mut parts = Reader(body);
        // Bytes behind the description of the parts, which are in the order of these.
        let mut behind = 0;
        let mut data_bytes = 0;
        while parts.0.len() > behind {
            match parts.byte()? {
                DATA_SHORT => data_bytes = usize::from(parts.byte()?),
                DATA_LONG => data_bytes = parts.word()? as usize,
                ORIGIN => drop(parts.take(2)?),
                TOP_TRANSACTION => drop(parts.take(4)?),
                block if block <= BLOCK_MAX => behind += record.block(&mut parts)?,
                _ => return None,
            }
            if data_bytes > 0 {
                behind += data_bytes;
                break;
            }
        }
        if parts.0.len() != behind {
            return None;
        }
        record.data = &body[body.len() - data_bytes..];
        Some(record)
    }

    /// Reads what a record tells of a block: how many bytes behind belong to it.
    fn block(&mut self, parts: &mut Reader<'a>) -> Option<usize> {
        let flags = parts.byte()?;
        let mut behind = usize::from(parts.half()?);
        if flags & HAS_IMAGE != 0 {
            behind += usize::from(parts.half()?);
            parts.take(2)?;
            let image = parts.byte()?;
            if image & HAS_HOLE != 0 && image & COMPRESSED != 0 {
                parts.take(2)?;
            }
        }
        if flags & SAME_RELATION == 0 {
            parts.take(8)?;
            let file = parts.word()?;
            if self.files.last() != Some(&file) {
                self.files.push(file);
            }
        }
        parts.take(4)?;
        Some(behind)
    }
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn half(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.first_chunk()?;
        Some(u16::from_le_bytes(*bytes))
    }

    pub(super) fn word(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of `parts` with a right checksum.
    pub(in crate::versions) fn record(
        manager: u8,
        info: u8,
        transaction: u32,
        parts: &[u8],
    ) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend((HEADER_BYTES as u32 + parts.len() as u32).to_le_bytes());
        record.extend(transaction.to_le_bytes());
        record.extend(0_u64.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let sum = crc32c::crc32c_append(crc32c::crc32c(parts), &record);
        record.extend(sum.to_le_bytes());
        record.extend(parts);
        record
    }

    #[test]
    fn files_and_data_are_found() {
        let mut parts = vec![0, SAME_RELATION ^ SAME_RELATION, 3, 0];
        for word in [1663_u32, 5, 16_400, 7] {
            parts.extend(word.to_le_bytes());
        }
        // A second block of the same relation with an image that is compressed and has a hole.
        parts.extend([
            1,
            SAME_RELATION | HAS_IMAGE,
            0,
            0,
            2,
            0,
            9,
            9,
            HAS_HOLE | 0x04,
            1,
            1,
        ]);
        parts.extend(8_u32.to_le_bytes());
        parts.extend([DATA_SHORT, 4]);
        parts.extend(*b"abciidata");
        let bytes = record(manager::HEAP, 0x20, 77, &parts);
        assert!(is_whole(&bytes));
        let found = Record::decode(&bytes).unwrap();
        assert_eq!((found.transaction, found.manager), (77, manager::HEAP));
        assert_eq!((found.files, found.data), (vec![16_400], &b"data"[..]));
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(!is_whole(&other));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            is_whole(&bytes);
            previous(&bytes);
            Record::decode(&bytes);
            Record::decode(&record(10, 0, 1, &bytes));
        }
    }
}
