//! Processes killed while they write, and what is found afterwards.
//!
//! A writer writes batches numbered from its first sequence on, each made from its number alone, to a
//! few databases, one at a time; it says each number on its standard output once the batch is
//! durable. So after a kill the store must hold exactly the batches up to the last number said, or
//! one more.

use crate::{
    child::Child,
    figures::Figures,
    page::{Batch, PAGE_BYTES, Random, sequence_of},
    stores::{Candidate, Result},
    turns::Turn,
};
use std::{
    collections::HashMap,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

const DATABASES: u32 = 4;
const PAGES: u32 = 512;
const BATCH_PAGES_MAX: u32 = 64;

/// Batches that a writer gets done before it is killed, at most.
const BATCHES_MAX: u32 = 60;

/// How long after its last batch a writer is killed, at most, in microseconds.
const DELAY_MAX_US: u32 = 4_000;

/// The batch of this number: its database and pages.
fn batch(sequence: u64) -> (u64, Vec<u32>) {
    let mut random = Random::new(sequence);
    let database = 1 + u64::from(random.below(DATABASES));
    let pages = 1 + random.below(BATCH_PAGES_MAX);
    (database, random.distinct(pages as usize, PAGES))
}

/// Writes batches from `first` on, for ever.
pub(crate) fn write(candidate: Candidate, directory: &Path, first: u64) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let mut said = std::io::stdout().lock();
    let mut sequence = first;
    loop {
        let (database, numbers) = batch(sequence);
        store.write(database, &Batch::filled(database, numbers, sequence))?;
        writeln!(said, "{sequence}")?;
        said.flush()?;
        sequence += 1;
    }
}

/// Looks at every page after a kill, when `said` was the last batch known to be durable.
pub(crate) fn check(candidate: Candidate, directory: &Path, said: u64) -> Result<Figures> {
    let begin = Instant::now();
    let mut store = candidate.open(directory)?;
    let mut page = [0; PAGE_BYTES];
    store.read(1, 0, &mut page)?;
    let opened = begin.elapsed();

    let mut expected = HashMap::new();
    for sequence in 1..=said {
        let (database, numbers) = batch(sequence);
        expected.extend(numbers.into_iter().map(|n| ((database, n), sequence)));
    }
    let (next_database, next) = batch(said + 1);
    let (mut new, mut old, mut lost, mut damaged) = (0, 0, 0, 0);
    for database in 1..=u64::from(DATABASES) {
        for number in 0..PAGES {
            page.fill(0);
            store.read(database, number, &mut page)?;
            let found = sequence_of(database, number, &page);
            let of_next = database == next_database && next.contains(&number);
            match found {
                Err(_) => damaged += 1,
                Ok(Some(found)) if of_next && found == said + 1 => new += 1,
                Ok(found) if found == expected.get(&(database, number)).copied() => {
                    old += u64::from(of_next);
                }
                Ok(_) => lost += 1,
            }
        }
    }
    let verdict = match (new, old) {
        _ if damaged > 0 => "damaged",
        _ if lost > 0 => "lost",
        (1.., 1..) => "torn",
        (1.., 0) => "next",
        _ => "said",
    };
    Ok(Figures::from([
        ("open_ms".to_owned(), opened.as_secs_f64() * 1e3),
        (verdict.to_owned(), 1.0),
    ]))
}

/// What all the kills of one store came to: counts of verdicts, and the times to open afterwards.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    /// Exactly what was said to be durable.
    pub(crate) said: usize,
    /// That, and the whole batch that was under way.
    pub(crate) next: usize,
    /// A part of the batch that was under way.
    pub(crate) torn: usize,
    /// Not all of what was said to be durable.
    pub(crate) lost: usize,
    /// Pages that nobody wrote.
    pub(crate) damaged: usize,
    /// Errors on opening or reading.
    pub(crate) refused: Vec<String>,
    /// Milliseconds to open and read a page.
    pub(crate) open_ms: Vec<f64>,
}

impl Kills {
    /// Kills once more a writer on `directory`, which holds the batches up to `last`. Returns the last
    /// batch there is now; `None` if the store is not as it must be and no more to be used.
    pub(crate) fn once_more(
        &mut self,
        candidate: Candidate,
        directory: &Path,
        last: u64,
        random: &mut Random,
    ) -> Result<Option<u64>> {
        let said = kill_a_writer(candidate, directory, last, random)?;
        let checked = Child::turn(Turn::CrashCheck, candidate, directory, said, false)?.figures();
        let figures = match checked {
            Ok(figures) => figures,
            Err(error) => {
                self.refused.push(error.to_string());
                return Ok(None);
            }
        };
        self.open_ms.extend(figures.get("open_ms"));
        let is = |verdict| figures.contains_key(verdict);
        self.said += usize::from(is("said"));
        self.next += usize::from(is("next"));
        self.torn += usize::from(is("torn"));
        self.lost += usize::from(is("lost"));
        self.damaged += usize::from(is("damaged"));
        Ok(match (is("said"), is("next")) {
            (true, _) => Some(said),
            (_, true) => Some(said + 1),
            _ => None,
        })
    }
}

/// Starts a writer, kills it in mid-write, and returns the last batch it said.
fn kill_a_writer(
    candidate: Candidate,
    directory: &Path,
    last: u64,
    random: &mut Random,
) -> Result<u64> {
    let mut writer = Child::turn(Turn::CrashWrite, candidate, directory, last + 1, false)?;
    let until = last + 1 + u64::from(random.below(BATCHES_MAX));
    let mut said = last;
    while said < until {
        said = writer.line()?.parse()?;
    }
    let delay = Duration::from_micros(u64::from(random.below(DELAY_MAX_US)));
    let begin = Instant::now();
    while begin.elapsed() < delay {
        std::hint::spin_loop();
    }
    for line in writer.kill()? {
        said = line.parse()?;
    }
    Ok(said)
}
