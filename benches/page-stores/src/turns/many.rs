//! Many small databases: making, starting, touching, removing.

use crate::{
    figures::{Figures, Times},
    itself,
    page::{Batch, PAGE_BYTES},
    sizes::{SMALL_PAGES, Sizes},
    stores::{Candidate, Result},
};
use std::{path::Path, time::Instant};

const MIB: f64 = (1 << 20) as f64;

/// Makes every database with one batch of all of its pages.
pub(super) fn make(candidate: Candidate, directory: &Path, sizes: &Sizes) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let mut times = Times::default();
    for database in 1..=sizes.databases {
        let batch = Batch::filled(database, (0..SMALL_PAGES).collect(), 1);
        times.time(|| store.write(database, &batch))?;
        times.time(|| store.sleep(database))?;
    }
    let each = times.sum().as_secs_f64() * 1e3 / sizes.databases as f64;
    Ok(Figures::from([("make_ms".to_owned(), each)]))
}

/// From an empty process to one page of one database.
pub(super) fn start(candidate: Candidate, directory: &Path, sizes: &Sizes) -> Result<Figures> {
    let before = itself::memory()?;
    let begin = Instant::now();
    let mut store = candidate.open(directory)?;
    let mut page = [0; PAGE_BYTES];
    let found = store.read(sizes.databases / 2, 7, &mut page)?;
    let time = begin.elapsed();
    if !found {
        return Err("the page is not there".into());
    }
    store.sleep(sizes.databases / 2)?;
    let (memory, descriptors) = (itself::memory()?, itself::descriptors()?);
    Ok(Figures::from([
        ("start_ms".to_owned(), time.as_secs_f64() * 1e3),
        (
            "start_mib".to_owned(),
            memory.saturating_sub(before) as f64 / MIB,
        ),
        ("start_descriptors".to_owned(), descriptors as f64),
    ]))
}

/// Wakes all, looks, lets all sleep, looks again.
pub(super) fn touch(candidate: Candidate, directory: &Path, sizes: &Sizes) -> Result<Figures> {
    let before = itself::memory()?;
    let mut store = candidate.open(directory)?;
    let mut page = [0; PAGE_BYTES];
    let mut times = Times::default();
    for database in 1..=sizes.databases {
        let number = (database % u64::from(SMALL_PAGES)) as u32;
        if !times.time(|| store.read(database, number, &mut page))? {
            return Err(format!("database {database} is not there").into());
        }
    }
    let mut figures = Figures::from([("wake_p50_us".to_owned(), times.percentile(0.5))]);
    let mut look = |when: &str| -> Result<()> {
        let memory = itself::memory()?.saturating_sub(before) as f64 / MIB;
        figures.insert(format!("{when}_mib"), memory);
        figures.insert(format!("{when}_threads"), itself::threads()? as f64);
        figures.insert(format!("{when}_descriptors"), itself::descriptors()? as f64);
        Ok(())
    };
    look("awake")?;
    for database in 1..=sizes.databases {
        store.sleep(database)?;
    }
    look("asleep")?;
    Ok(figures)
}

/// Removes every second database.
pub(super) fn remove(candidate: Candidate, directory: &Path, sizes: &Sizes) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let mut times = Times::default();
    for database in (1..=sizes.databases).step_by(2) {
        times.time(|| store.remove(database))?;
    }
    let each = times.sum().as_secs_f64() * 1e3 / times.count() as f64;
    Ok(Figures::from([("remove_ms".to_owned(), each)]))
}

pub(super) fn tidy(candidate: Candidate, directory: &Path) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let begin = Instant::now();
    store.tidy()?;
    let time = begin.elapsed().as_secs_f64();
    Ok(Figures::from([("tidy_s".to_owned(), time)]))
}
