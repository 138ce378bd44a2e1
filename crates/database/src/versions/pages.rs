//! The pages of the log as they are written, and the records in them (`access/xlog_internal.h`).
//!
//! Postgres writes its log in whole pages, the last one again and again as it fills, and what is behind the end of
//! a write may be there in part. So a record counts once its checksum is right, and a page is kept until all that
//! begins in it was read.

use super::record::{HEADER_BYTES, is_whole, manager, previous};

/// Bytes of a page of the log.
const PAGE: u64 = 8192;
/// Bytes of a page's header, and of that of the first page of a segment.
const PAGE_HEADER: u64 = 24;
const LONG_PAGE_HEADER: u64 = 40;
/// What the headers of PostgreSQL 18 begin with.
const MAGIC: u16 = 0xD118;
/// In a page's header: it is a long one.
const LONG: u16 = 0x0002;
/// Most bytes of pages that are kept, and so of one record.
const BYTES_MAX: usize = 4 << 20;
/// Kind of the record behind which the rest of a segment is empty.
const SWITCH: u8 = 0x40;
const KIND: u8 = 0xF0;

/// Why the log can be read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Something between was not seen.
    Gap,
    /// A record that is larger than what is kept.
    TooLarge,
    /// A record that does not follow the one before.
    Order,
}

/// The part of the log that was written and is not read yet.
#[derive(Debug)]
pub(super) struct LogPages {
    /// Whole pages, of which the first begins at `base`.
    pages: Vec<u8>,
    base: u64,
    /// Where the next record begins, or the page that it begins in.
    next: u64,
    /// Where the last record that was read begins; 0 if none was.
    last: u64,
    segment_bytes: u64,
}

impl LogPages {
    /// Read from a record's begin on.
    pub(super) fn from(next: u64) -> Self {
        Self {
            pages: Vec::new(),
            base: next - next % PAGE,
            next,
            last: 0,
            segment_bytes: PAGE,
        }
    }

    /// Up to where the log was read.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Gives memory back that can be had again: the page that is written next is written whole.
    pub(super) fn forget_pages(&mut self) {
        if self.pages.len() <= PAGE as usize {
            self.pages = Vec::new();
        }
    }

    /// Takes what was written at `lsn`, whole pages.
    pub(super) fn wrote(&mut self, lsn: u64, bytes: &[u8], segment_bytes: u64) -> Result<(), Lost> {
        if !lsn.is_multiple_of(PAGE) || !bytes.len().is_multiple_of(PAGE as usize) {
            return Err(Lost::Gap);
        }
        self.segment_bytes = segment_bytes.max(PAGE);
        for (at, page) in (lsn..)
            .step_by(PAGE as usize)
            .zip(bytes.chunks(PAGE as usize))
        {
            let Some(offset) = at.checked_sub(self.base) else {
                continue;
            };
            let offset = usize::try_from(offset).map_err(|_| Lost::Gap)?;
            if offset > self.pages.len() {
                return Err(Lost::Gap);
            }
            if offset == self.pages.len() {
                if offset >= BYTES_MAX {
                    return Err(Lost::TooLarge);
                }
                self.pages.extend_from_slice(page);
            } else {
                self.pages[offset..offset + page.len()].copy_from_slice(page);
            }
        }
        Ok(())
    }

    /// Puts the next record into `record`, if all of it is there: where it ends.
    pub(super) fn next_record(&mut self, record: &mut Vec<u8>) -> Result<Option<u64>, Lost> {
        record.clear();
        let Some(begin) = self.begin() else {
            return Ok(None);
        };
        let Some(_) = self.gather(begin, 4, record) else {
            return Ok(None);
        };
        let total = record
            .first_chunk()
            .map_or(0, |len| u32::from_le_bytes(*len)) as usize;
        if total < HEADER_BYTES {
            return Ok(None);
        }
        if total > BYTES_MAX {
            return Err(Lost::TooLarge);
        }
        record.clear();
        let Some(end) = self.gather(begin, total, record) else {
            return Ok(None);
        };
        if !is_whole(record) {
            return Ok(None);
        }
        if self.last != 0 && previous(record) != Some(self.last) {
            return Err(Lost::Order);
        }
        self.last = begin;
        let is_switch = record[17] == manager::XLOG && record[16] & KIND == SWITCH;
        self.next = match is_switch {
            true => end.next_multiple_of(self.segment_bytes),
            false => end.next_multiple_of(8),
        };
        Ok(Some(end))
    }

    /// Lets go of the pages that were read to their end.
    pub(super) fn release(&mut self) {
        let base = self.next - self.next % PAGE;
        let read = usize::try_from(base - self.base).unwrap_or(usize::MAX);
        self.pages.drain(..read.min(self.pages.len()));
        self.pages.shrink_to(64 << 10);
        self.base = base;
    }

    /// Where the next record begins, if its page is there.
    fn begin(&self) -> Option<u64> {
        match self.next % PAGE {
            0 => Some(self.next + self.header(self.next)?),
            _ => Some(self.next),
        }
    }

    /// Bytes of the header of a page, if that was written.
    fn header(&self, page: u64) -> Option<u64> {
        let at = usize::try_from(page.checked_sub(self.base)?).ok()?;
        let header = self.pages.get(at..)?.first_chunk::<16>()?;
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let address = header.last_chunk()?;
        if half(0) != MAGIC || u64::from_le_bytes(*address) != page {
            return None;
        }
        Some(match half(2) & LONG {
            0 => PAGE_HEADER,
            _ => LONG_PAGE_HEADER,
        })
    }

    /// Appends `count` bytes of records from `at` on to `into`: where they end. `None` if they are not all there.
    fn gather(&self, mut at: u64, count: usize, into: &mut Vec<u8>) -> Option<u64> {
        let mut missing = count;
        loop {
            let offset = usize::try_from(at.checked_sub(self.base)?).ok()?;
            let taken = missing.min((PAGE - at % PAGE) as usize);
            into.extend_from_slice(self.pages.get(offset..offset + taken)?);
            at += taken as u64;
            missing -= taken;
            if missing == 0 {
                return Some(at);
            }
            at += self.header(at)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;

    use super::*;

    const SEGMENT: u64 = 1 << 20;

    /// A log in the making, from `begin` on.
    struct Log {
        begin: u64,
        pages: Vec<u8>,
        at: u64,
        last: u64,
    }

    impl Log {
        fn new(begin: u64) -> Self {
            let mut log = Self {
                begin,
                pages: Vec::new(),
                at: begin,
                last: 0,
            };
            log.open_page();
            log
        }

        fn open_page(&mut self) {
            let first = self.at.is_multiple_of(SEGMENT);
            let header = if first { LONG_PAGE_HEADER } else { PAGE_HEADER };
            let at = (self.at - self.begin) as usize;
            self.pages.resize(at + PAGE as usize, 0);
            self.pages[at..at + 2].copy_from_slice(&MAGIC.to_le_bytes());
            self.pages[at + 2..at + 4].copy_from_slice(&(u16::from(first) * LONG).to_le_bytes());
            self.pages[at + 8..at + 16].copy_from_slice(&self.at.to_le_bytes());
            self.at += header;
        }

        fn put(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                if self.at.is_multiple_of(PAGE) {
                    self.open_page();
                }
                let room = (PAGE - self.at % PAGE) as usize;
                let (now, rest) = bytes.split_at(room.min(bytes.len()));
                let at = (self.at - self.begin) as usize;
                self.pages[at..at + now.len()].copy_from_slice(now);
                self.at += now.len() as u64;
                bytes = rest;
            }
        }

        fn append(&mut self, body: &[u8], info: u8) -> Vec<u8> {
            if self.at.is_multiple_of(PAGE) {
                self.open_page();
            }
            let begin = self.at;
            let mut record = Vec::new();
            record.extend((HEADER_BYTES as u32 + body.len() as u32).to_le_bytes());
            record.extend(7_u32.to_le_bytes());
            record.extend(self.last.to_le_bytes());
            record.extend([info, manager::XLOG, 0, 0]);
            let sum = crc32c::crc32c_append(crc32c::crc32c(body), &record);
            record.extend(sum.to_le_bytes());
            record.extend(body);
            self.put(&record);
            self.at = self.at.next_multiple_of(8);
            self.last = begin;
            record
        }
    }

    /// Reads all that is there.
    fn read(pages: &mut LogPages, found: &mut Vec<Vec<u8>>) {
        let mut record = Vec::new();
        while pages.next_record(&mut record).unwrap().is_some() {
            found.push(record.clone());
        }
        pages.release();
    }

    #[test]
    fn the_rest_of_a_segment_may_be_empty() {
        let begin = 5 * SEGMENT - 3 * PAGE;
        let mut log = Log::new(begin);
        let mut expected = vec![log.append(b"one", 0), log.append(b"", SWITCH)];
        let mut pages = LogPages::from(begin);
        let mut found = Vec::new();
        log.pages.resize(3 * PAGE as usize, 0);
        pages.wrote(begin, &log.pages, SEGMENT).unwrap();
        read(&mut pages, &mut found);
        assert_eq!(pages.next(), 5 * SEGMENT);
        let last = log.last;
        let mut log = Log::new(5 * SEGMENT);
        log.last = last;
        expected.push(log.append(b"three", 0));
        pages.wrote(5 * SEGMENT, &log.pages, SEGMENT).unwrap();
        read(&mut pages, &mut found);
        assert_eq!((found, pages.next()), (expected, log.at));
    }

    #[test]
    fn what_does_not_follow_is_told() {
        let mut log = Log::new(SEGMENT);
        log.append(&[1; 20_000], 0);
        let mut pages = LogPages::from(SEGMENT);
        let second = &log.pages[PAGE as usize..];
        assert_eq!(pages.wrote(SEGMENT + PAGE, second, SEGMENT), Err(Lost::Gap));
        assert_eq!(pages.wrote(SEGMENT + 8, second, SEGMENT), Err(Lost::Gap));
        pages.wrote(SEGMENT, &log.pages, SEGMENT).unwrap();
        let mut record = Vec::new();
        assert!(pages.next_record(&mut record).unwrap().is_some());
        let begin = log.at;
        log.last = 77;
        log.append(b"x", 0);
        assert_eq!(pages.next(), begin);
        pages.wrote(SEGMENT, &log.pages, SEGMENT).unwrap();
        assert_eq!(pages.next_record(&mut record), Err(Lost::Order));
    }

    proptest::proptest! {
        #[test]
        fn records_are_found_however_they_are_written(
            bodies in vec((0usize..20_000, proptest::bool::ANY, 0usize..9000), 1..12),
        ) {
            let begin = 3 * SEGMENT - 2 * PAGE;
            let mut log = Log::new(begin);
            let mut pages = LogPages::from(begin);
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            let mut written = begin;
            for (bytes, is_flushed, behind) in bodies {
                expected.push(log.append(&vec![bytes as u8; bytes], 0));
                if is_flushed {
                    // From the page that was written last on; what is behind the end is there in part.
                    let from = (written - written % PAGE - begin) as usize;
                    let to = (log.at.next_multiple_of(PAGE) - begin) as usize;
                    let mut bytes = log.pages[from..to.max(from + PAGE as usize).min(log.pages.len())].to_vec();
                    let cut = bytes.len() - behind.min(PAGE as usize - 100).min(bytes.len());
                    bytes[cut..].fill(0);
                    pages.wrote(begin + from as u64, &bytes, SEGMENT).unwrap();
                    read(&mut pages, &mut found);
                    let last_page = begin + from as u64 + bytes.len() as u64 - PAGE;
                    written = last_page;
                }
            }
            let from = (written - begin) as usize;
            pages.wrote(written, &log.pages[from..], SEGMENT).unwrap();
            read(&mut pages, &mut found);
            proptest::prop_assert_eq!(found, expected);
            proptest::prop_assert_eq!(pages.next(), log.at);
        }
    }
}
