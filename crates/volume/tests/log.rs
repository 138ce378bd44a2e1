//! What a volume and the journal promise together: what was synced of the WAL is there after a crash, over
//! the last version, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;

use dormouse_volume::{
    Base, DatabaseId, Ino, Mtime, PAGE_BYTES, Template, Volume, VolumeError, Volumes, carry_log,
};
use store::{Journal, JournalOptions, RealDisk};

const T: Mtime = Mtime {
    seconds: 0,
    nanos: 0,
};
const SEGMENT: &str = "000000010000000000000001";
const SEGMENT_BYTES: u64 = 1 << 20;
const JOURNAL_ID: u64 = 77;

/// A process: the journal opened, and the volumes over it. Dropping it is a crash.
struct Process {
    journal: Journal,
    volumes: Arc<Volumes>,
}

fn start(folder: &Path, generation: u64) -> Process {
    let options = JournalOptions {
        segment_bytes: 64 << 10,
        ..JournalOptions::default()
    };
    let disk = Arc::new(RealDisk);
    let path = folder.join("journal");
    let journal = Journal::open(disk.clone(), &path, JOURNAL_ID, generation, options).unwrap();
    let no_templates = Box::new(|_| panic!("none is asked for"));
    let volumes = Volumes::new(
        disk,
        folder,
        Some(journal.clone()),
        generation,
        no_templates,
    );
    Process { journal, volumes }
}

impl Process {
    fn create(&self, number: u64) -> Volume {
        let base = Base::template(Template::empty());
        Volume::create(&self.volumes, id(number), &base).unwrap()
    }

    fn open(&self, number: u64) -> Volume {
        Volume::open(&self.volumes, id(number)).unwrap()
    }

    fn sync(&self) {
        while self.journal.write_group().unwrap() {}
    }
}

fn id(number: u64) -> DatabaseId {
    DatabaseId::new(number).unwrap()
}

/// The log's directory and one segment, as Postgres makes them.
fn log(volume: &Volume) -> Ino {
    let directory = volume.mkdir(Ino::ROOT, "pg_wal", 0o700, T).unwrap();
    let temporary = volume
        .create_file(directory, "xlogtemp.1", 0o600, T)
        .unwrap();
    volume.set_len(temporary, SEGMENT_BYTES, T).unwrap();
    volume
        .rename(directory, "xlogtemp.1", directory, SEGMENT)
        .unwrap();
    temporary
}

/// Writes a page of the log that begins with `text`.
fn write(volume: &Volume, ino: Ino, page: u64, text: &[u8]) {
    let mut bytes = text.to_vec();
    bytes.resize(PAGE_BYTES, 0);
    volume
        .write(ino, page * PAGE_BYTES as u64, &bytes, T)
        .unwrap();
}

fn text(volume: &Volume, page: u64) -> String {
    let ino = volume.resolve(&format!("/pg_wal/{SEGMENT}")).unwrap();
    assert_eq!(volume.node(ino).unwrap().len, SEGMENT_BYTES);
    let mut bytes = [0; PAGE_BYTES];
    volume
        .read(ino, page * PAGE_BYTES as u64, &mut bytes)
        .unwrap();
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

#[test]
fn what_was_synced_is_there_and_the_rest_is_not() {
    let folder = tempfile::tempdir().unwrap();
    {
        let process = start(folder.path(), 1);
        let volume = process.create(1);
        let ino = log(&volume);
        write(&volume, ino, 0, b"in the version");
        volume.flush().unwrap();
        write(&volume, ino, 0, b"in the version, and synced");
        write(&volume, ino, 1, b"synced too");
        volume.sync(ino).unwrap();
        let owed = volume.owed();
        assert!(owed.entry.is_some() && !owed.version);
        process.sync();
        assert_eq!(volume.owed(), dormouse_volume::Owed::default());
        write(&volume, ino, 1, b"synced too, and not this");
        assert_eq!(volume.wal_end(), SEGMENT_BYTES + PAGE_BYTES as u64 + 24);
    }
    for generation in 2..4 {
        let process = start(folder.path(), generation);
        let volume = process.open(1);
        assert_eq!(text(&volume, 0), "in the version, and synced");
        assert_eq!(text(&volume, 1), "synced too");
        assert!(!volume.is_exactly(volume.version()));
    }
    let process = start(folder.path(), 4);
    process.open(1).flush().unwrap();
    assert!(process.journal.entries(1).unwrap().is_empty());
    assert_eq!(text(&process.open(1), 1), "synced too");
}

#[test]
fn what_was_replayed_does_not_go_to_the_journal_again() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    let ino = log(&volume);
    volume.flush().unwrap();
    write(&volume, ino, 0, b"once");
    volume.sync(ino).unwrap();
    process.sync();
    drop((volume, process));
    let process = start(folder.path(), 2);
    let volume = process.open(1);
    let ino = volume.resolve(&format!("/pg_wal/{SEGMENT}")).unwrap();
    volume.sync(ino).unwrap();
    assert_eq!(process.journal.entries(1).unwrap().len(), 1);
    write(&volume, ino, 0, b"once and more");
    volume.sync(ino).unwrap();
    let entries = process.journal.entries(1).unwrap();
    assert_eq!(entries.len(), 2);
    let (old, new) = (entries[0].payload.len(), entries[1].payload.len());
    // The page is not known to this process: it goes there whole, and nothing else.
    assert!(new < old + PAGE_BYTES, "{old} bytes, then {new}");
}

#[test]
fn a_database_without_a_version_is_its_base_and_its_log() {
    let folder = tempfile::tempdir().unwrap();
    {
        let process = start(folder.path(), 1);
        for number in [1, 2] {
            let volume = process.create(number);
            let ino = log(&volume);
            write(&volume, ino, 0, format!("database {number}").as_bytes());
            volume.sync(ino).unwrap();
        }
        process.sync();
    }
    let process = start(folder.path(), 2);
    assert_eq!(text(&process.create(1), 0), "database 1");
    assert_eq!(text(&process.create(2), 0), "database 2");
    Volume::remove(&process.volumes, id(1), &|_| false).unwrap();
    assert!(
        process.create(1).is_pristine(),
        "a removed database's log is gone"
    );
}

#[test]
fn a_fork_has_the_log_of_its_parent_up_to_then() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let parent = process.create(1);
    let ino = log(&parent);
    write(&parent, ino, 0, b"both");
    parent.sync(ino).unwrap();
    let base = process.volumes.base(parent.share().unwrap()).unwrap();
    let child = Volume::create(&process.volumes, id(2), &base).unwrap();
    write(&parent, ino, 0, b"both, parent");
    parent.sync(ino).unwrap();
    write(&child, ino, 0, b"both, child");
    child.sync(ino).unwrap();
    process.sync();
    drop((parent, child, base, process));
    let process = start(folder.path(), 2);
    assert_eq!(text(&process.open(1), 0), "both, parent");
    let layer = process.open(1).base().id();
    let base = process.volumes.base(layer).unwrap();
    let child = Volume::create(&process.volumes, id(2), &base).unwrap();
    assert_eq!(text(&child, 0), "both, child");
}

#[test]
fn another_file_that_is_synced_asks_for_a_version() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    let ino = volume
        .create_file(Ino::ROOT, "postgresql.auto.conf", 0o600, T)
        .unwrap();
    volume.sync(ino).unwrap();
    assert!(volume.owed().version);
    volume.flush().unwrap();
    assert!(!volume.owed().version);
    volume.sync(ino).unwrap();
    volume.flush().unwrap();
    assert!(
        !volume.owed().version,
        "what is durable already is not asked for for ever"
    );
}

#[test]
fn a_relaxed_volume_owes_no_wait() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    volume.set_relaxed(true);
    let ino = log(&volume);
    write(&volume, ino, 0, b"x");
    volume.sync(ino).unwrap();
    assert_eq!(volume.owed(), dormouse_volume::Owed::default());
    assert!(volume.last_entry().is_some());
    process.sync();
    drop((volume, process));
    assert_eq!(text(&start(folder.path(), 2).create(1), 0), "x");
}

#[test]
fn what_a_version_has_is_released_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    let wal = log(&volume);
    write(&volume, wal, 0, b"synced");
    volume.sync(wal).unwrap();
    process.sync();
    volume.flush().unwrap();
    // What is released is not recorded as long as the segment is needed for others.
    drop((volume, process));

    let process = start(folder.path(), 2);
    assert_eq!(process.journal.owners(), [1]);
    let volume = process.open(1);
    assert_eq!(process.journal.owners(), [0_u64; 0]);
    drop(volume);
}

#[test]
fn a_segment_to_be_asks_for_no_version() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    log(&volume);
    let directory = volume.resolve("/pg_wal").unwrap();
    let next = volume
        .create_file(directory, "xlogtemp.1", 0o600, T)
        .unwrap();
    volume.set_len(next, SEGMENT_BYTES, T).unwrap();
    volume.sync(next).unwrap();
    assert!(!volume.owed().version);
    let history = volume
        .create_file(directory, "00000002.history", 0o600, T)
        .unwrap();
    volume.sync(history).unwrap();
    assert!(volume.owed().version);
}

#[test]
fn a_volume_that_was_given_up_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    let ino = log(&volume);
    write(&volume, ino, 0, b"kept");
    volume.flush().unwrap();
    write(&volume, ino, 0, b"given up");
    volume.retire();
    assert!(volume.is_broken());
    let refused = |result: Result<(), VolumeError>| matches!(result, Err(VolumeError::Broken(_)));
    assert!(refused(volume.flush().map(drop)));
    assert!(refused(volume.sync(ino)));
    assert!(refused(volume.share().map(drop)));
    assert!(refused(volume.give_back().map(drop)));
    assert!(refused(volume.write(ino, 0, b"x", T).map(drop)));
    process.sync();
    assert_eq!(process.journal.owners(), []);
    assert_eq!(text(&process.open(1), 0), "kept");
}

#[test]
fn the_journal_shrinks_past_a_database_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let _writer = process.journal.start().unwrap();
    let (stuck, other) = (process.create(1), process.create(2));
    let (in_stuck, in_other) = (log(&stuck), log(&other));
    stuck.flush().unwrap();
    for page in 0..3 {
        write(&stuck, in_stuck, page, format!("page {page}").as_bytes());
        stuck.sync(in_stuck).unwrap();
    }
    drop(stuck);
    let manifest = folder.path().join("0000000000000001.manifest");
    let good = std::fs::read(&manifest).unwrap();
    let mut bad = good.clone();
    bad[20] ^= 1;
    std::fs::write(&manifest, bad).unwrap();
    assert!(Volume::open(&process.volumes, id(1)).is_err());
    for round in 0..40_u64 {
        let noise: Vec<u8> = (0..PAGE_BYTES as u64)
            .map(|at| (at * round % 251) as u8 | 1)
            .collect();
        other
            .write(in_other, round % 128 * PAGE_BYTES as u64, &noise, T)
            .unwrap();
        other.sync(in_other).unwrap();
        let entry = other.last_entry().unwrap();
        process.journal.wait_durable(entry).unwrap();
    }
    other.flush().unwrap();
    assert_eq!(process.journal.oldest_owner(), Some(1));
    let refused = carry_log(&process.volumes, id(1), 10);
    assert!(matches!(
        refused,
        Err(VolumeError::NoSpace {
            limit: "journal.bytes_max",
            ..
        })
    ));
    assert!(carry_log(&process.volumes, id(1), 1 << 20).unwrap() > 10);
    assert_eq!(process.journal.oldest_owner(), None);
    std::fs::write(&manifest, good).unwrap();
    // Twice in the journal, and once: it comes to the same.
    let volume = process.open(1);
    assert_eq!(text(&volume, 2), "page 2");
    drop(volume);
    drop(process);
    let process = start(folder.path(), 2);
    let volume = process.open(1);
    for page in 0..3 {
        assert_eq!(text(&volume, page), format!("page {page}"));
    }
}

#[test]
fn a_removal_that_failed_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), 1);
    let volume = process.create(1);
    let file = volume.create_file(Ino::ROOT, "a", 0o600, T).unwrap();
    for round in 0..3 {
        volume.write(file, 0, &[round; PAGE_BYTES], T).unwrap();
        volume.share().unwrap();
    }
    volume.write(file, 0, &[9; PAGE_BYTES], T).unwrap();
    volume.flush().unwrap();
    drop(volume);
    let pages = folder.path().join("0000000000000001.3.pages");
    let aside = folder.path().join("aside");
    std::fs::rename(&pages, &aside).unwrap();
    std::fs::create_dir(&pages).unwrap();
    assert!(Volume::remove(&process.volumes, id(1), &|_| false).is_err());
    std::fs::remove_dir(&pages).unwrap();
    std::fs::rename(&aside, &pages).unwrap();
    Volume::remove(&process.volumes, id(1), &|_| false).unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["journal"]);
}
