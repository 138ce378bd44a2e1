//! One bit flipped in the files of a store that is closed: is that noticed, or served?

use crate::{
    child::Child,
    figures::Figures,
    folder::{self, Folder},
    page::{Batch, PAGE_BYTES, sequence_of},
    stores::{Candidate, Result},
    turns::Turn,
};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const DATABASES: u64 = 2;
const PAGES: u32 = 300;

/// Bytes of a file that count as used if one of them is not zero.
const BLOCK_BYTES: usize = 512;

/// Fills the databases, tidies up, and writes one page in three again: so there are bytes both where
/// the engine keeps them in the end and where it puts them first.
pub(crate) fn write(candidate: Candidate, directory: &Path) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    for database in 1..=DATABASES {
        store.write(database, &Batch::filled(database, (0..PAGES).collect(), 1))?;
    }
    store.tidy()?;
    for database in 1..=DATABASES {
        let again = (0..PAGES).step_by(3).collect();
        store.write(database, &Batch::filled(database, again, 2))?;
        store.sleep(database)?;
    }
    Ok(Figures::new())
}

/// Reads all pages: how many are refused, served wrong, or served as of an earlier write or as never
/// written.
pub(crate) fn check(candidate: Candidate, directory: &Path) -> Result<Figures> {
    let mut store = candidate.open(directory)?;
    let (mut refused, mut served, mut lost) = (0, 0, 0);
    let mut page = [0; PAGE_BYTES];
    for database in 1..=DATABASES {
        for number in 0..PAGES {
            page.fill(0);
            if store.read(database, number, &mut page).is_err() {
                refused += 1;
                continue;
            }
            let expected = if number % 3 == 0 { 2 } else { 1 };
            match sequence_of(database, number, &page) {
                Ok(Some(found)) if found == expected => {}
                Ok(_) => lost += 1,
                Err(_) => served += 1,
            }
        }
    }
    Ok(Figures::from([
        ("refused".to_owned(), f64::from(refused)),
        ("served".to_owned(), f64::from(served)),
        ("lost".to_owned(), f64::from(lost)),
    ]))
}

/// What all the flips of one store came to.
#[derive(Debug, Default)]
pub(crate) struct Flips {
    /// An error on opening or reading, and no wrong page.
    pub(crate) detected: usize,
    /// A wrong page was given out.
    pub(crate) served: usize,
    /// Pages were missing or of an earlier write, without an error: durable data silently gone.
    pub(crate) lost: usize,
    /// All pages were right.
    pub(crate) harmless: usize,
}

impl Flips {
    /// Flips `count` bits in turn, spread evenly over the used bytes of what [`write()`] left in
    /// `directory`, each in a fresh copy.
    pub(crate) fn of(candidate: Candidate, directory: &Path, count: usize) -> Result<Self> {
        let used = used_blocks(directory)?;
        let mut flips = Self::default();
        for nth in 0..count {
            let (file, block) = &used[used.len() * (2 * nth + 1) / (2 * count)];
            let parent = directory.parent().unwrap_or(directory);
            let copy = Folder::new(parent, "rot")?;
            let target = copy.path().join("copy");
            folder::copy(directory, &target)?;
            flip(&target.join(file), *block)?;
            let checked = Child::turn(Turn::RotCheck, candidate, &target, 0, false)?.figures();
            let number = |figures: &Figures, name| figures.get(name).is_some_and(|n| *n > 0.0);
            match checked {
                Ok(figures) if number(&figures, "served") => flips.served += 1,
                Ok(figures) if number(&figures, "lost") => flips.lost += 1,
                Ok(figures) if !number(&figures, "refused") => flips.harmless += 1,
                // Refused, or the process ended with an error or a panic.
                Ok(_) | Err(_) => flips.detected += 1,
            }
        }
        Ok(flips)
    }
}

/// File below `directory` and number of each block that is not all zeros.
fn used_blocks(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut used = Vec::new();
    for file in folder::files(directory)? {
        let bytes = fs::read(&file)?;
        let name = file.strip_prefix(directory)?;
        let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
        let blocks = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        used.extend(blocks.map(|(number, _)| (name.to_owned(), number as u64)));
    }
    Ok(used)
}

/// Flips a bit in the first byte of the block that is not zero.
fn flip(file: &Path, block: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut bytes = [0; BLOCK_BYTES];
    let start = block * BLOCK_BYTES as u64;
    let found = file.read_at(&mut bytes, start)?;
    let at = bytes[..found].iter().position(|byte| *byte != 0);
    let at = at.ok_or("the block is empty")?;
    Ok(file.write_all_at(&[bytes[at] ^ 0x10], start + at as u64)?)
}
