//! How long compaction makes a session wait: `compaction DIR MIB`. A volume of MIB is shared, two thirds of it
//! are written again, and then it is compacted while another thread reads and writes pages.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]
#![allow(clippy::print_stdout, reason = "the figures")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dormouse_volume::{Base, DatabaseId, Ino, Mtime, PAGE_BYTES, Template, Volume, Volumes};

/// Pages of a file: a GiB, as Postgres cuts its own.
const FILE_PAGES: u64 = (1 << 30) / PAGE_BYTES as u64;

struct Files(Vec<Ino>);

impl Files {
    fn write(&self, volume: &Volume, page: u64, byte: u8) {
        let ino = self.0[(page / FILE_PAGES) as usize];
        let offset = page % FILE_PAGES * PAGE_BYTES as u64;
        let written = volume.write(ino, offset, &[byte; PAGE_BYTES], Mtime::default());
        assert_eq!(written.unwrap(), PAGE_BYTES);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (directory, mib) = (arguments.next().unwrap(), arguments.next().unwrap());
    let pages = mib.parse::<u64>().unwrap() * (1 << 20) / PAGE_BYTES as u64;
    let volumes = Volumes::plain(Path::new(&directory));
    let base = Base::template(Template::empty());
    let volume = Volume::create(&volumes, DatabaseId::SCRATCH, &base).unwrap();
    let make =
        |number: u64| volume.create_file(Ino::ROOT, &number.to_string(), 0o600, Mtime::default());
    let files = Files(
        (0..pages.div_ceil(FILE_PAGES))
            .map(|number| make(number).unwrap())
            .collect(),
    );
    (0..pages).for_each(|page| files.write(&volume, page, 1));
    let shared = Instant::now();
    volume.share().unwrap();
    println!("share, with the first flush: {:?}", shared.elapsed());
    (0..pages)
        .filter(|page| page % 3 > 0)
        .for_each(|page| files.write(&volume, page, 2));
    let flushed = Instant::now();
    volume.flush().unwrap();
    println!("flush: {:?}", flushed.elapsed());

    let done = AtomicBool::new(false);
    let (steps, mut waits) = std::thread::scope(|scope| {
        let session = scope.spawn(|| {
            let mut waits = Vec::new();
            let mut page = 1;
            while !done.load(Ordering::Relaxed) {
                page = (page * 31 + 7) % pages;
                let started = Instant::now();
                files.write(&volume, page, 3);
                waits.push(started.elapsed());
                std::thread::yield_now();
            }
            waits
        });
        let mut steps = Vec::new();
        loop {
            let started = Instant::now();
            let step = volume.compact(&|_| 1).unwrap();
            steps.push((started.elapsed(), step.pages_copied));
            if !step.more {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        (steps, session.join().unwrap())
    });
    let copied: u64 = steps.iter().map(|(_, pages)| pages).sum();
    let mut times: Vec<Duration> = steps.iter().map(|(time, _)| *time).collect();
    let total: Duration = times.iter().sum();
    println!("{copied} pages copied in {} steps, {total:?}", steps.len());
    tell("a step", &mut times);
    tell("a page written beside it", &mut waits);
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: p50 {:?}, p99 {:?}, longest {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
