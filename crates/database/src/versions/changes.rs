//! Which commit changed which file last.

use std::collections::HashMap;

use super::commit::End;
use super::record::{Record, manager};

/// Most transactions, and parts of them, that are watched at once.
const OPEN_MAX: usize = 16_384;
/// Most files of one transaction that are told apart; past it, it is as if it had changed all.
const FILES_OF_ONE_MAX: usize = 256;
/// Most files whose last commit is known; past it, it is as if all had been changed.
const FILES_MAX: usize = 4096;

/// Names of files below it are those of the system catalogs, as long as they are not written anew.
const FIRST_NORMAL_FILE: u32 = 16_384;
/// `pg_statistic` and `pg_statistic_ext_data` with their TOAST tables: no result depends on what they say.
const STATISTICS: [u32; 4] = [2619, 2840, 3429, 3430];

/// Kinds of records of the heap that change rows.
const HEAP_KIND: u8 = 0x70;
const HEAP_CHANGES: [u8; 5] = [0x00, 0x10, 0x20, 0x40, 0x50];
const HEAP2_MULTI_INSERT: u8 = 0x50;

/// More transactions are open than are watched.
#[derive(Debug)]
pub(super) struct TooMany;

/// What a transaction that is open, or a part of it, has changed.
#[derive(Debug, Default)]
struct Changed {
    files: Vec<u32>,
    everything: bool,
}

/// What was changed, by whom, and by which commit last. Commits are known by the LSN of their end.
#[derive(Debug)]
pub(super) struct Changes {
    open: HashMap<u32, Changed>,
    /// Those with lower numbers may have changed something before.
    first: u32,
    files: HashMap<u32, u64>,
    catalog: u64,
    /// Everything may have been changed then.
    everything: u64,
}

impl Changes {
    /// Of all transactions from `first` on, where nothing is known of what was before `at`.
    pub(super) fn new(first: u32, at: u64) -> Self {
        Self {
            open: HashMap::new(),
            first,
            files: HashMap::new(),
            catalog: at,
            everything: at,
        }
    }

    /// The last commit that may have changed the catalog.
    pub(super) fn catalog(&self) -> u64 {
        self.catalog.max(self.everything)
    }

    /// The last commit that may have changed the catalog or one of `files`.
    pub(super) fn last(&self, files: &[u32]) -> u64 {
        let known = files
            .iter()
            .filter_map(|file| self.files.get(file).copied());
        known.fold(self.catalog(), u64::max)
    }

    /// Takes note of a record that ends at `end`.
    pub(super) fn read(&mut self, record: &Record<'_>, end: u64) -> Result<(), TooMany> {
        if record.manager == manager::TRANSACTION {
            self.ended(record, end);
            return Ok(());
        }
        match what(record) {
            What::Nothing => return Ok(()),
            what => self.changed(record, what == What::Everything),
        }
        if record.transaction == 0 {
            self.committed(0, false, end);
        }
        match self.open.len() > OPEN_MAX {
            true => Err(TooMany),
            false => Ok(()),
        }
    }

    fn changed(&mut self, record: &Record<'_>, everything: bool) {
        let changed = self.open.entry(record.transaction).or_default();
        changed.everything |= everything;
        for file in &record.files {
            if changed.files.last() != Some(file) && !changed.files.contains(file) {
                changed.files.push(*file);
            }
        }
        if changed.files.len() > FILES_OF_ONE_MAX {
            changed.everything = true;
            changed.files = Vec::new();
        }
    }

    fn ended(&mut self, record: &Record<'_>, end: u64) {
        match End::decode(record) {
            Some(End::Not) => {}
            Some(End::Aborted { parts }) => {
                for part in parts.iter().chain([&record.transaction]) {
                    self.open.remove(part);
                }
            }
            Some(End::Committed { parts, invalidates }) => {
                for part in parts.iter().chain([&record.transaction]) {
                    self.committed(*part, invalidates, end);
                }
            }
            Some(End::PreparedCommitted) | None => self.everything = end,
        }
        if self.files.len() > FILES_MAX {
            self.files = HashMap::new();
            self.everything = end;
        }
    }

    fn committed(&mut self, transaction: u32, invalidates: bool, end: u64) {
        // Numbers go round: what is less is what is less than half of the way behind.
        let is_older = transaction != 0 && (transaction.wrapping_sub(self.first) as i32) < 0;
        let changed = self.open.remove(&transaction).unwrap_or_default();
        if is_older || changed.everything {
            self.everything = end;
        }
        for file in changed.files {
            if file >= FIRST_NORMAL_FILE {
                self.files.insert(file, end);
                // It may be a catalog that was written anew.
                if invalidates {
                    self.catalog = end;
                }
            } else if !STATISTICS.contains(&file) {
                self.catalog = end;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Nothing,
    Files,
    Everything,
}

/// What a record changes, as far as a query could see it.
fn what(record: &Record<'_>) -> What {
    let kind = record.info & HEAP_KIND;
    match record.manager {
        manager::HEAP if HEAP_CHANGES.contains(&kind) => What::Files,
        manager::HEAP2 if kind == HEAP2_MULTI_INSERT => What::Files,
        manager::GENERIC => What::Files,
        manager::RELATION_MAP | manager::DATABASE | manager::CUSTOM_FIRST.. => What::Everything,
        _ => What::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(changes: &mut Changes, transaction: u32, file: u32) {
        let record = Record {
            transaction,
            manager: manager::HEAP,
            info: 0x80,
            files: vec![file],
            data: &[],
        };
        changes.read(&record, 0).unwrap();
    }

    fn end(changes: &mut Changes, info: u8, transaction: u32, parts: &[u32], at: u64) {
        let mut data = vec![0; 8];
        data.extend(2_u32.to_le_bytes());
        data.extend((parts.len() as u32).to_le_bytes());
        data.extend(parts.iter().flat_map(|part| part.to_le_bytes()));
        let record = Record {
            transaction,
            manager: manager::TRANSACTION,
            info: info | 0x80,
            files: Vec::new(),
            data: &data,
        };
        changes.read(&record, at).unwrap();
    }

    #[test]
    fn only_what_is_committed_counts() {
        let mut changes = Changes::new(100, 1000);
        for (transaction, file) in [(100, 20_000), (101, 20_001), (102, 20_002)] {
            wrote(&mut changes, transaction, file);
        }
        assert_eq!(changes.last(&[20_000, 20_001, 20_002]), 1000);
        // A part of it is rolled back, another one not.
        end(&mut changes, 0x20, 101, &[], 1001);
        end(&mut changes, 0x00, 100, &[102], 1002);
        assert_eq!(changes.last(&[20_000]), 1002);
        assert_eq!(changes.last(&[20_001]), 1000);
        assert_eq!(changes.last(&[20_002, 20_001]), 1002);
        assert_eq!(changes.catalog(), 1000);
        wrote(&mut changes, 103, 1259);
        end(&mut changes, 0x00, 103, &[], 1003);
        assert_eq!((changes.catalog(), changes.last(&[])), (1003, 1003));
        wrote(&mut changes, 104, STATISTICS[0]);
        end(&mut changes, 0x00, 104, &[], 1004);
        assert_eq!(changes.last(&[20_001]), 1003);
    }

    #[test]
    fn who_began_before_may_have_changed_everything() {
        let mut changes = Changes::new(5, 10);
        wrote(&mut changes, u32::MAX, 20_000);
        end(&mut changes, 0x20, u32::MAX, &[], 11);
        assert_eq!(changes.last(&[]), 10);
        end(&mut changes, 0x00, u32::MAX - 1, &[], 12);
        assert_eq!(changes.last(&[]), 12);
        end(&mut changes, 0x30, 6, &[], 13);
        assert_eq!(changes.last(&[]), 13);
    }

    #[test]
    fn too_much_is_everything() {
        let mut changes = Changes::new(5, 10);
        for file in 0..FILES_OF_ONE_MAX as u32 + 1 {
            wrote(&mut changes, 7, 20_000 + file);
        }
        end(&mut changes, 0x00, 7, &[], 20);
        assert_eq!(changes.last(&[99_999]), 20);
    }
}
