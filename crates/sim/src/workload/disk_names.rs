//! Sealed files on a faulty disk.
//!
//! Checked: a path reads as its old content or as its new content, and as the new one once a write
//! returned Ok, whatever the disk did; a removed file stays away; damage is refused; nothing fails
//! without a cause.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use store::{Disk, SealedError, read_sealed, remove_sealed, write_sealed};

use crate::disk::{DiskCounts, Faults, FaultyDisk};
use crate::history::Notes;
use crate::random::Random;
use crate::workload::{Broken, Workload};

const KIND: [u8; 8] = *b"simulate";
const FORMAT: u16 = 1;
/// Few, so that writes of one path meet often.
const PATHS: u64 = 6;
const DIRECTORIES: [&str; 2] = ["/one", "/two/deep"];
/// A disk that is sometimes too small for the files, in blocks of 4,096 bytes.
const BLOCKS_MAX: u64 = 40;

pub(crate) struct DiskNames {
    disk: Arc<FaultyDisk>,
    random: Random,
    files: Vec<Model>,
    next_write: u64,
}

/// What a path may read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Absent,
    /// What the write of this number wrote.
    Written(u64),
    Damaged,
}

/// What is known of a path.
#[derive(Debug)]
struct Model {
    path: PathBuf,
    owner: u64,
    /// What it may read as now.
    seen: Vec<Content>,
    /// What it may read as after a power failure.
    durable: Vec<Content>,
    /// A durable removal took the temporary file away, and nothing was written since.
    no_temporary: bool,
}

impl Model {
    fn is_now(&mut self, content: Content) {
        self.seen = vec![content];
        self.durable = vec![content];
    }

    fn may_be(&mut self, content: Content) {
        for contents in [&mut self.seen, &mut self.durable] {
            if !contents.contains(&content) {
                contents.push(content);
            }
        }
    }

    /// What it reads as for certain, with and without a power failure.
    fn certain(&self) -> Option<Content> {
        match (&self.seen[..], &self.durable[..]) {
            ([seen], [durable]) if seen == durable => Some(*seen),
            _ => None,
        }
    }
}

impl DiskNames {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = Arc::new(FaultyDisk::new(random.bits(), Faults::default()));
        for directory in DIRECTORIES.iter().chain(&["/two"]) {
            let made = disk.create_directory(directory.as_ref());
            made.and_then(|()| disk.sync_directory("/".as_ref()))
                .and_then(|()| disk.sync_directory("/two".as_ref()).or(Ok(())))
                .expect("BUG: a disk without faults fails");
        }
        disk.set_faults(Faults::of_history(&mut random));
        let files = (0..PATHS).map(|n| Model {
            path: PathBuf::from(DIRECTORIES[(n % 2) as usize]).join(format!("file{n}")),
            owner: n,
            seen: vec![Content::Absent],
            durable: vec![Content::Absent],
            no_temporary: false,
        });
        Self {
            disk,
            files: files.collect(),
            random,
            next_write: 0,
        }
    }

    fn write(&mut self, at: usize, notes: &mut Notes) -> Result<(), Broken> {
        let number = self.next_write;
        self.next_write += 1;
        let (file, before) = (&mut self.files[at], self.disk.counts());
        let payload = payload(number);
        file.no_temporary = false;
        let result = write_sealed(&*self.disk, &file.path, KIND, FORMAT, file.owner, &payload);
        let bytes = payload.len();
        let path = file.path.display();
        notes.done(
            "writes",
            format_args!("{number} to {path}, {bytes} bytes: {result:?}"),
        );
        match result {
            Ok(()) => {
                file.is_now(Content::Written(number));
                return Ok(());
            }
            Err(_) if self.disk.is_stopped() => file.may_be(Content::Written(number)),
            Err(SealedError::NotDurable { .. }) => {
                file.may_be(Content::Written(number));
                file.seen = vec![Content::Written(number)];
            }
            Err(SealedError::Io { .. }) => {}
            Err(error) => return Err(Broken(format!("a write says: {error}"))),
        }
        self.expect_cause(before)
    }

    fn remove(&mut self, at: usize, notes: &mut Notes) -> Result<(), Broken> {
        let (file, before) = (&mut self.files[at], self.disk.counts());
        let result = remove_sealed(&*self.disk, &file.path);
        notes.done(
            "removals",
            format_args!("of {}: {result:?}", file.path.display()),
        );
        match result {
            Ok(()) => {
                file.is_now(Content::Absent);
                file.no_temporary = true;
                Ok(())
            }
            Err(SealedError::Io { .. }) => {
                file.may_be(Content::Absent);
                self.expect_cause(before)
            }
            Err(error) => Err(Broken(format!("a removal says: {error}"))),
        }
    }

    fn read(&mut self, at: usize, notes: &mut Notes) -> Result<(), Broken> {
        let (file, before) = (&mut self.files[at], self.disk.counts());
        let result = read_sealed(&*self.disk, &file.path, KIND, FORMAT, file.owner);
        let found =
            match &result {
                Ok(bytes) => file.seen.iter().copied().find(
                    |content| matches!(content, Content::Written(n) if payload(*n) == *bytes),
                ),
                Err(SealedError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    Some(Content::Absent)
                }
                Err(SealedError::Io { .. }) => {
                    notes.done("failed reads", format_args!("of {}", file.path.display()));
                    return self.expect_cause(before);
                }
                Err(_) => Some(Content::Damaged),
            };
        let path = file.path.display();
        notes.done("reads", format_args!("of {path}: {found:?}"));
        match found {
            Some(found) if file.seen.contains(&found) => {
                file.seen = vec![found];
                Ok(())
            }
            _ => {
                let result = result.map(|bytes| bytes.len());
                let seen = &file.seen;
                Err(Broken(format!(
                    "{path} reads as {result:?}, it may be {seen:?}"
                )))
            }
        }
    }

    /// A reader that asks for something else gets an error, never bytes.
    fn read_another(&mut self, at: usize, notes: &mut Notes) -> Result<(), Broken> {
        let file = &self.files[at];
        let (owner, kind, format) = *self.random.pick(&[
            (file.owner + 1, KIND, FORMAT),
            (file.owner, *b"another!", FORMAT),
            (file.owner, KIND, FORMAT + 1),
        ]);
        let path = file.path.display();
        notes.done("foreign reads", format_args!("of {path}"));
        match read_sealed(&*self.disk, &file.path, kind, format, owner) {
            Ok(_) => Err(Broken(format!("{path} was read as somebody else's"))),
            Err(_) => Ok(()),
        }
    }

    fn flip(&mut self, at: usize, notes: &mut Notes) -> Result<(), Broken> {
        let file = &mut self.files[at];
        if !matches!(file.certain(), Some(Content::Written(_))) {
            return Ok(());
        }
        let failed = |error| Broken(format!("{} should be there: {error}", file.path.display()));
        let bytes = self.disk.len_of(&file.path).map_err(failed)?;
        let offset = self.random.below(bytes);
        let bit = self.random.below(8) as u8;
        self.disk.flip(&file.path, offset, bit).map_err(failed)?;
        let path = file.path.display();
        notes.done(
            "flips",
            format_args!("of bit {bit} of byte {offset} of {path}"),
        );
        file.is_now(Content::Damaged);
        self.read(at, notes)
    }

    /// The next process: it finds what is there and reads everything.
    fn boot(&mut self, crash: bool, notes: &mut Notes) -> Result<(), Broken> {
        if crash {
            self.disk = self.disk.crash();
            notes.done("crashes", format_args!(""));
            for file in &mut self.files {
                file.seen = file.durable.clone();
            }
        } else {
            self.disk = self.disk.kill();
            notes.done("kills", format_args!(""));
        }
        self.check_names()?;
        for at in 0..self.files.len() {
            self.read(at, notes)?;
            let file = &mut self.files[at];
            if crash && file.seen.len() == 1 {
                file.durable = file.seen.clone();
            }
        }
        Ok(())
    }

    /// No names but those of the files and their temporary ones, and no file that was removed.
    fn check_names(&self) -> Result<(), Broken> {
        for directory in DIRECTORIES {
            let names = self.disk.names_in(directory.as_ref());
            let names = names.map_err(|error| Broken(format!("{directory} is gone: {error}")))?;
            for name in names {
                let path = PathBuf::from(directory).join(name);
                let known = self.files.iter().any(|file| {
                    let temporary = file.path.with_extension("tmp");
                    path == file.path || path == temporary && !file.no_temporary
                });
                if !known {
                    return Err(Broken(format!("{} should not be there", path.display())));
                }
            }
        }
        Ok(())
    }

    fn expect_cause(&self, before: DiskCounts) -> Result<(), Broken> {
        if self.disk.counts() == before && !self.disk.is_stopped() {
            return Err(Broken("something failed, and the disk did not".to_owned()));
        }
        Ok(())
    }
}

impl Workload for DiskNames {
    fn step(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let at = self.random.index(self.files.len());
        match self.random.below(100) {
            _ if self.disk.is_stopped() => {
                let crash = self.random.one_in(2);
                self.boot(crash, notes)
            }
            0..45 => self.write(at, notes),
            45..65 => self.read(at, notes),
            65..80 => self.remove(at, notes),
            80..83 => self.boot(true, notes),
            83..85 => self.boot(false, notes),
            85..91 => {
                self.disk.stop_after(self.random.below(12));
                Ok(())
            }
            91..94 => self.flip(at, notes),
            94..97 => {
                let blocks = self.random.below(BLOCKS_MAX);
                let limited = self.random.one_in(3);
                self.disk.set_capacity(limited.then_some(blocks * 4096));
                Ok(())
            }
            _ => self.read_another(at, notes),
        }
    }

    fn disk_counts(&self) -> DiskCounts {
        self.disk.counts()
    }
}

/// What the write of this number writes: mostly less than a sector, sometimes many.
fn payload(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let bytes_max = *random.pick(&[0, 100, 1_000, 5_000, 5_000, 40_000]);
    let bytes = random.within(0..=bytes_max) as usize;
    random.bytes(bytes)
}
