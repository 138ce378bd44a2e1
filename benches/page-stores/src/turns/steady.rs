//! Reading and writing databases that are there: one large one, or many small ones in turn.

use crate::{
    figures::{Figures, Times},
    folder, itself,
    page::{Batch, PAGE_BYTES, Page, Random},
    sizes::{BATCHES, SMALL_PAGES, Sizes},
    stores::{Candidate, PageStore, Result},
};
use std::path::Path;

/// The database that is large.
const LARGE: u64 = 1;

/// Pages in one batch while the large database is filled.
const FILL_BATCH: u32 = 1_024;

/// Reads before the clock starts, for the store's own cache.
const WARM_READS: usize = 2_000;

/// The least batches of each size, however long they take.
const BATCHES_MIN: usize = 8;

/// Which databases a steady turn uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// The large one.
    Large,
    /// The many small ones, each after the other.
    Many,
}

pub(super) fn fill_large(candidate: Candidate, directory: &Path, sizes: &Sizes) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    for first in (0..sizes.large_pages).step_by(FILL_BATCH as usize) {
        let end = (first + FILL_BATCH).min(sizes.large_pages);
        store.write(LARGE, &Batch::filled(LARGE, (first..end).collect(), 1))?;
    }
    store.sleep(LARGE)?;
    Ok(Figures::new())
}

pub(super) fn steady(
    candidate: Candidate,
    directory: &Path,
    sizes: &Sizes,
    set: Set,
    nonce: u64,
) -> Result<Figures> {
    let (databases, pages) = match set {
        Set::Large => (1, sizes.large_pages),
        Set::Many => (sizes.databases, SMALL_PAGES),
    };
    let mut random = Random::new(nonce);
    // The host may have forgotten the files while others had their turns.
    folder::warm(directory)?;
    let mut store = candidate.open(directory)?;
    let mut figures = Figures::new();
    let mut page = [0; PAGE_BYTES];
    // All awake before the clock starts: waking is measured elsewhere.
    for database in 1..=databases {
        read(&mut *store, database, 0, &mut page)?;
    }

    let mut somewhere = || {
        let database = 1 + u64::from(random.below(databases as u32));
        (database, random.below(pages))
    };
    for _ in 0..WARM_READS {
        let (database, number) = somewhere();
        read(&mut *store, database, number, &mut page)?;
    }
    let mut times = Times::default();
    while times.sum() < sizes.slice {
        let (database, number) = somewhere();
        times.time(|| read(&mut *store, database, number, &mut page))?;
    }
    note(&mut figures, "read", &times, 1);

    for batch_pages in BATCHES {
        let mut times = Times::default();
        let mut pages_written = 0;
        let before = itself::bytes_written()?;
        let mut next = random.below(databases as u32);
        while times.count() < BATCHES_MIN || times.sum() < sizes.slice {
            let database = 1 + u64::from(next);
            next = (next + 1) % databases as u32;
            // A batch larger than a small database makes it larger.
            let end = pages.max(batch_pages as u32);
            let numbers = random.distinct(batch_pages, end);
            let batch = Batch::filled(database, numbers, nonce);
            pages_written += batch.len();
            times.time(|| store.write(database, &batch))?;
        }
        let what = format!("write_{batch_pages}");
        note(&mut figures, &what, &times, pages_written / times.count());
        let reached = itself::bytes_written()? - before;
        let given = pages_written * PAGE_BYTES;
        figures.insert(
            format!("{what}_written_ratio"),
            reached as f64 / given as f64,
        );
    }
    Ok(figures)
}

/// Reads a page that must be there, of this database.
fn read(store: &mut dyn PageStore, database: u64, number: u32, page: &mut Page) -> Result<()> {
    if !store.read(database, number, page)? || page[..8] != database.to_le_bytes() {
        return Err(format!("database {database} does not have its page {number}").into());
    }
    Ok(())
}

fn note(figures: &mut Figures, what: &str, times: &Times, pages_each: usize) {
    let pages = (times.count() * pages_each) as f64;
    figures.insert(
        format!("{what}_pages_per_s"),
        pages / times.sum().as_secs_f64(),
    );
    figures.insert(format!("{what}_p50_us"), times.percentile(0.5));
    figures.insert(format!("{what}_p99_us"), times.percentile(0.99));
}

/// Forks the large database into the new one `to`, and removes that.
pub(super) fn fork(candidate: Candidate, directory: &Path, to: u64) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let mut page = [0; PAGE_BYTES];
    read(&mut *store, LARGE, 0, &mut page)?;
    let mut times = Times::default();
    if !times.time(|| store.fork(LARGE, to))? {
        return Ok(Figures::new());
    }
    store.sleep(to)?;
    store.remove(to)?;
    let figure = ("fork_ms".to_owned(), times.percentile(0.5) / 1e3);
    Ok(Figures::from([figure]))
}
