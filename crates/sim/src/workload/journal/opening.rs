//! How the journal's process begins and ends, and what happens to the disk in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{Entry, Journal, JournalError, Position};

use super::{DIRECTORY, JournalWorkload};
use crate::disk::{DiskCounts, Faults};
use crate::history::Notes;
use crate::workload::Broken;

/// Failed openings in a row after which the disk fails no more, so that a history goes on.
const OPENINGS_FAILED_MAX: u32 = 20;

#[derive(Debug, Clone)]
pub(super) struct Flip {
    path: PathBuf,
    offset: u64,
    bit: u8,
}

impl JournalWorkload {
    /// One try to open the journal.
    pub(super) fn open(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        self.generation += self.random.below(2);
        let before = self.disk.counts();
        let disk = Arc::clone(&self.disk);
        let options = self.options.clone();
        let result = Journal::open(disk, Path::new(DIRECTORY), 77, self.generation, options)
            .and_then(|journal| Ok((read_all(&journal)?, journal)));
        let (found, journal) = match result {
            Ok(opened) => opened,
            Err(error) => return self.not_opened(&error, before, notes),
        };
        let count: usize = found.values().map(Vec::len).sum();
        let next = journal.next();
        notes.done("openings", format_args!("{count} entries, next is {next}"));
        let damaged = self.flipped.is_some();
        let all_durable = journal.is_durable(Position::from_number(next.get() - 1));
        // A journal that is full may not have written anything yet.
        let decided = all_durable && !journal.is_full();
        self.model
            .open(&found, next.get(), self.generation, decided, damaged)?;
        if all_durable {
            self.model.found_is_durable();
        }
        if decided {
            self.flipped = None;
        }
        for (owner, before) in self.model.released() {
            journal.release(owner, Position::from_number(before));
        }
        self.journal = Some(journal);
        self.openings_failed = 0;
        self.counts_at_opening = before;
        self.disk.set_faults(self.faults.clone());
        Ok(())
    }

    fn not_opened(
        &mut self,
        error: &JournalError,
        before: DiskCounts,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let refused = matches!(
            error,
            JournalError::Corrupt { .. } | JournalError::MissingSegment { .. }
        );
        if refused {
            notes.done("refused openings", format_args!("{error}"));
            let Some(flip) = self.flipped.take() else {
                return Err(Broken(format!("nothing is damaged, but: {error}")));
            };
            return self.flip(&flip);
        }
        notes.done("failed openings", format_args!("{error}"));
        self.openings_failed += 1;
        if self.openings_failed == OPENINGS_FAILED_MAX {
            self.disk.set_faults(Faults {
                names_survive: self.faults.names_survive,
                reserves_room: self.faults.reserves_room,
                ..Faults::default()
            });
        }
        self.expect_cause(before, error)
    }

    /// Damage while the journal is open is met by the reader.
    pub(super) fn damage_open(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let Some(journal) = self.journal.clone() else {
            return Ok(());
        };
        let Some(flip) = self.random_flip() else {
            return Ok(());
        };
        self.flip(&flip)?;
        for owner in self.model.owners() {
            let before = self.disk.counts();
            match journal.entries(owner) {
                Ok(entries) => self.model.check(owner, &entries)?,
                Err(error @ JournalError::Corrupt { .. }) => {
                    notes.done("refused entries", format_args!("{error}"));
                }
                Err(error) => self.expect_cause(before, &error)?,
            }
        }
        self.flip(&flip)
    }

    fn flip(&mut self, flip: &Flip) -> Result<(), Broken> {
        match self.disk.flip(&flip.path, flip.offset, flip.bit) {
            Ok(true) => Ok(()),
            result => Err(Broken(format!(
                "{} changed: {result:?}",
                flip.path.display()
            ))),
        }
    }

    /// Some bit of some segment.
    fn random_flip(&mut self) -> Option<Flip> {
        let mut names = self.disk.names_in(Path::new(DIRECTORY)).ok()?;
        names.retain(|name| name.ends_with(".journal"));
        let name = names.get(self.random.index(names.len()))?;
        let path = Path::new(DIRECTORY).join(name);
        let bytes = self.disk.len_of(&path).ok()?;
        // Groups are at the front.
        let front = self.random.within(1..=bytes.max(1));
        Some(Flip {
            offset: self.random.below(front),
            bit: self.random.below(8) as u8,
            path,
        })
    }

    /// The process ends, and perhaps the power; perhaps a bit flips before the next process opens.
    pub(super) fn boot(&mut self, crash: bool, notes: &mut Notes) -> Result<(), Broken> {
        let old = self.journal.take();
        notes.done(if crash { "crashes" } else { "kills" }, format_args!(""));
        self.disk = match crash {
            true => self.disk.crash(),
            false => self.disk.kill(),
        };
        // A dead process' journal does nothing any more, even if it does not know yet.
        if let Some(old) = old
            && old.append(1, b"from the dead", true).is_ok()
            && old.write_group().is_ok()
        {
            return Err(Broken("a dead process has written a group".to_owned()));
        }
        if self.flipped.is_none()
            && self.random.one_in(8)
            && let Some(flip) = self.random_flip()
        {
            notes.done("flips", format_args!("{flip:?}"));
            self.flip(&flip)?;
            self.flipped = Some(flip);
        }
        Ok(())
    }

    /// An older generation finds the journal closed to it.
    pub(super) fn open_fenced(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        if self.journal.take().is_none() || self.flipped.is_some() {
            return Ok(());
        }
        self.generation += 1;
        self.open(notes)?;
        // On a full disk the newer one could not leave its generation.
        if self.journal.take().is_none_or(|journal| journal.is_full()) {
            return Ok(());
        }
        let before = self.disk.counts();
        let older = self.generation - 1;
        let disk = Arc::clone(&self.disk);
        let options = self.options.clone();
        match Journal::open(disk, Path::new(DIRECTORY), 77, older, options) {
            Err(JournalError::Fenced { .. }) => {
                notes.done("fenced openings", format_args!("generation {older}"));
                Ok(())
            }
            Err(error) => self.expect_cause(before, &error),
            Ok(_) => Err(Broken(format!("generation {older} was not fenced off"))),
        }
    }
}

fn read_all(journal: &Journal) -> Result<BTreeMap<u64, Vec<Entry>>, JournalError> {
    let owners = journal.owners().into_iter();
    owners
        .map(|owner| Ok((owner, journal.entries(owner)?)))
        .collect()
}
