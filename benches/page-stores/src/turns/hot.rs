//! The same pages overwritten again and again: the space that takes, and what reaches the disk.

use crate::{
    figures::{Figures, Times},
    folder::disk_bytes,
    itself,
    page::{Batch, PAGE_BYTES, Random},
    sizes::{HOT_BATCH, HOT_PAGES, Sizes},
    stores::{Candidate, Result},
};
use std::path::Path;

const DATABASE: u64 = 1;

pub(super) fn hot(candidate: Candidate, directory: &Path, sizes: &Sizes) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let all: Vec<u32> = (0..HOT_PAGES).collect();
    for numbers in all.chunks(HOT_BATCH) {
        store.write(DATABASE, &Batch::filled(DATABASE, numbers.to_vec(), 1))?;
    }

    let before = itself::bytes_written()?;
    let mut random = Random::new(1);
    let mut times = Times::default();
    let mut peak = 0;
    for pass in 0..sizes.hot_passes as u64 {
        let mut left = all.clone();
        while !left.is_empty() {
            let numbers = (0..HOT_BATCH.min(left.len()))
                .map(|_| left.swap_remove(random.below(left.len() as u32) as usize))
                .collect();
            let batch = Batch::filled(DATABASE, numbers, 2 + pass);
            times.time(|| store.write(DATABASE, &batch))?;
        }
        peak = peak.max(disk_bytes(directory)?);
    }
    store.sleep(DATABASE)?;
    // What is written behind the last batch's back belongs to it too.
    drop(store);
    let written = itself::bytes_written()? - before;

    let live = f64::from(HOT_PAGES) * PAGE_BYTES as f64;
    let passes = sizes.hot_passes as f64;
    Ok(Figures::from([
        (
            "hot_pages_per_s".to_owned(),
            f64::from(HOT_PAGES) * passes / times.sum().as_secs_f64(),
        ),
        ("hot_p99_us".to_owned(), times.percentile(0.99)),
        ("hot_peak_ratio".to_owned(), peak as f64 / live),
        (
            "hot_end_ratio".to_owned(),
            disk_bytes(directory)? as f64 / live,
        ),
        (
            "hot_written_ratio".to_owned(),
            written as f64 / (live * passes),
        ),
    ]))
}
