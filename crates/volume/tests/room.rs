//! What a full volume refuses, and what it must not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;

use dormouse_volume::{
    BYTES_RESERVE, Base, DatabaseId, Ino, Mtime, PAGE_BYTES, Refusal, Template, TemplateId, Volume,
    VolumeError, Volumes,
};
use proptest::prelude::*;

const T: Mtime = Mtime {
    seconds: 0,
    nanos: 0,
};
const PAGE: u64 = PAGE_BYTES as u64;

fn id(number: u64) -> DatabaseId {
    DatabaseId::new(number).unwrap()
}

/// A volume as a template has it: the directories, a table of four pages, a segment of one.
fn template(beside: &Path) -> Arc<Template> {
    let scratch = Volume::scratch(beside).unwrap();
    for directory in ["base", "global", "pg_wal", "pg_xact", "pg_tblspc"] {
        scratch.mkdir(Ino::ROOT, directory, 0o700, T).unwrap();
    }
    let base = scratch.resolve("/base").unwrap();
    scratch.mkdir(base, "5", 0o700, T).unwrap();
    write(&scratch, make(&scratch, "/base/5/1259"), 0, 4).unwrap();
    write(
        &scratch,
        make(&scratch, "/pg_wal/000000010000000000000001"),
        0,
        1,
    )
    .unwrap();
    let directory = beside.join("template");
    scratch
        .save_as_template(&directory, TemplateId::from_bytes([9; 16]))
        .unwrap();
    Template::open(&directory).unwrap()
}

struct Full {
    directory: tempfile::TempDir,
    volumes: Arc<Volumes>,
    volume: Volume,
}

/// A volume with a table of 16 pages, which is as much as it may have.
fn full() -> Full {
    let directory = tempfile::tempdir().unwrap();
    let template = template(directory.path());
    let disk = Arc::new(store::RealDisk);
    let found = Arc::clone(&template);
    let find = Box::new(move |_| Ok(Arc::clone(&found)));
    let volumes = Volumes::new(disk, directory.path(), None, 1, find);
    let volume = Volume::create(&volumes, id(1), &Base::template(template)).unwrap();
    volume.set_bytes_max(16 * PAGE);
    let table = make(&volume, "/base/5/16384");
    write(&volume, table, 0, 4).unwrap();
    volume.set_len(table, 16 * PAGE, T).unwrap();
    assert_eq!(
        (volume.data_bytes(), volume.own_bytes()),
        (16 * PAGE, 4 * PAGE)
    );
    Full {
        directory,
        volumes,
        volume,
    }
}

fn make(volume: &Volume, path: &str) -> Ino {
    let (directory, name) = path.rsplit_once('/').unwrap();
    let directory = volume.resolve(&format!("{directory}/")).unwrap();
    volume.create_file(directory, name, 0o600, T).unwrap()
}

fn write(volume: &Volume, ino: Ino, page: u64, pages: usize) -> Result<usize, VolumeError> {
    volume.write(ino, page * PAGE, &vec![1; pages * PAGE_BYTES], T)
}

fn limit(result: Result<impl Sized, VolumeError>) -> &'static str {
    match result {
        Err(VolumeError::NoSpace { limit, .. }) => limit,
        Err(error) => panic!("{error}"),
        Ok(_) => "none",
    }
}

#[test]
fn a_full_volume_refuses_what_makes_data_files_longer() {
    let Full {
        directory: _directory,
        volume,
        ..
    } = full();
    let table = volume.resolve("/base/5/16384").unwrap();
    assert_eq!(volume.take_refusal(), None);
    assert_eq!(limit(write(&volume, table, 16, 1)), "volume.bytes_max");
    assert_eq!(
        limit(volume.set_len(table, 16 * PAGE + 1, T)),
        "volume.bytes_max"
    );
    let refusal = Refusal::Limit {
        limit: "volume.bytes_max",
        max: 16 * PAGE,
        used: 16 * PAGE,
    };
    assert_eq!(volume.take_refusal(), Some(refusal));
    assert_eq!(volume.take_refusal(), None);
    assert_eq!(volume.node(table).unwrap().len, 16 * PAGE);
    // A write that is partly within the file is refused whole: Postgres would take the rest for written.
    assert_eq!(limit(write(&volume, table, 15, 2)), "volume.bytes_max");
    volume.set_bytes_max(17 * PAGE);
    assert_eq!(limit(write(&volume, table, 15, 2)), "none");
}

#[test]
fn a_full_volume_takes_what_ends_its_being_full() {
    let Full {
        directory: _directory,
        volumes,
        volume,
    } = full();
    let table = volume.resolve("/base/5/16384").unwrap();
    // A checkpoint: pages that were promised, pages of the template, pages again.
    for _ in 0..2 {
        write(&volume, table, 0, 16).unwrap();
        write(&volume, volume.resolve("/base/5/1259").unwrap(), 0, 4).unwrap();
        volume.flush().unwrap();
    }
    assert_eq!(volume.data_bytes(), 20 * PAGE);
    // The log, commits, maps, what a start writes.
    for path in [
        "/pg_wal/000000010000000000000002",
        "/pg_wal/xlogtemp.7",
        "/pg_xact/0000",
        "/base/5/16384_vm",
        "/base/5/16384_fsm.1",
        "/base/5/pg_internal.init.7",
        "/global/pg_control",
        "/postmaster.pid",
    ] {
        let ino = make(&volume, path);
        write(&volume, ino, 0, 3).unwrap();
        volume.set_len(ino, 9 * PAGE, T).unwrap();
    }
    // TRUNCATE, for ever: new files with their first pages, while others go.
    let base = volume.resolve("/base/5").unwrap();
    volume.set_bytes_max(0);
    for number in 17000..17200 {
        write(&volume, make(&volume, &format!("/base/5/{number}")), 0, 1).unwrap();
        volume.unlink(base, &number.to_string()).unwrap();
    }
    // Rows of the catalogs.
    let index = make(&volume, "/base/5/16390");
    write(&volume, index, 0, 1).unwrap();
    assert_eq!(limit(write(&volume, index, 1, 8)), "volume.bytes_max");
    let catalog = volume.resolve("/base/5/1259").unwrap();
    let pages = BYTES_RESERVE / PAGE - 1;
    write(&volume, catalog, 4, pages as usize).unwrap();
    assert_eq!(
        limit(write(&volume, catalog, 4 + pages, 1)),
        "volume.bytes_max"
    );
    let temporary = make(&volume, "/base/5/t3_16500");
    assert_eq!(limit(write(&volume, temporary, 0, 1)), "volume.bytes_max");
    // A version, a fork, and opening it again do not ask.
    volume.flush().unwrap();
    let before = (volume.data_bytes(), volume.wal_bytes());
    drop(volume);
    let volume = Volume::open(&volumes, id(1)).unwrap();
    assert_eq!((volume.data_bytes(), volume.wal_bytes()), before);
    volume.share().unwrap();
    assert_eq!((volume.data_bytes(), volume.wal_bytes()), before);
    volume.merge_layers().unwrap();
    assert_eq!((volume.data_bytes(), volume.wal_bytes()), before);
    // And then there is room again.
    let table = volume.resolve("/base/5/16384").unwrap();
    volume.set_len(table, 0, T).unwrap();
    volume.unlink(base, "16384").unwrap();
    assert_eq!(volume.data_bytes(), before.0 - 16 * PAGE);
}

#[test]
fn what_is_no_data_file_does_not_grow_without_end_either() {
    let Full {
        directory: _directory,
        volume,
        ..
    } = full();
    let margin = usize::try_from(dormouse_volume::BYTES_MARGIN / PAGE).unwrap();
    for path in ["/base/5/16384_fsm", "/pg_xact/x", "/x"] {
        let file = make(&volume, path);
        let grown =
            write(&volume, file, 0, margin).and_then(|_| write(&volume, file, margin as u64, 1));
        assert_eq!(limit(grown), "volume.bytes_max", "{path}");
        volume.set_len(file, 0, T).unwrap();
    }
    let log = make(&volume, "/pg_wal/x");
    assert_eq!(limit(volume.set_len(log, 64 << 20, T)), "none");
    assert_eq!(
        limit(volume.set_len(log, (64 << 20) + 1, T)),
        "volume.bytes_max"
    );
}

#[test]
fn recovery_is_refused_nothing() {
    let Full {
        directory: _directory,
        volume,
        ..
    } = full();
    let table = volume.resolve("/base/5/16384").unwrap();
    volume.set_recovering(true);
    write(&volume, table, 16, 4).unwrap();
    volume.set_recovering(false);
    write(&volume, table, 16, 4).unwrap();
    assert_eq!(limit(write(&volume, table, 20, 1)), "volume.bytes_max");
}

#[test]
fn the_log_is_counted_apart() {
    let Full {
        directory: _directory,
        volume,
        ..
    } = full();
    assert_eq!(volume.wal_bytes(), 0, "the template's does not count");
    let segment = volume.resolve("/pg_wal/000000010000000000000001").unwrap();
    write(&volume, segment, 0, 2).unwrap();
    let temporary = make(&volume, "/pg_wal/xlogtemp.9");
    volume.set_len(temporary, 128 * PAGE, T).unwrap();
    assert_eq!(
        volume.wal_bytes(),
        2 * PAGE,
        "room that is only kept is not stored"
    );
    let log = volume.resolve("/pg_wal").unwrap();
    let next = "000000010000000000000002";
    volume.rename(log, "xlogtemp.9", log, next).unwrap();
    write(&volume, temporary, 0, 3).unwrap();
    assert_eq!(
        (volume.wal_bytes(), volume.data_bytes()),
        (5 * PAGE, 16 * PAGE)
    );
    volume.open_ref(segment).unwrap();
    volume.unlink(log, "000000010000000000000001").unwrap();
    assert_eq!(volume.wal_bytes(), 5 * PAGE, "until it is closed");
    volume.close_ref(segment).unwrap();
    assert_eq!(
        (volume.wal_bytes(), volume.data_bytes()),
        (3 * PAGE, 16 * PAGE)
    );
}

#[test]
fn a_short_disk_stops_data_files_of_all_volumes() {
    let Full {
        directory: _directory,
        volumes,
        volume,
    } = full();
    volume.set_bytes_max(1 << 30);
    let table = volume.resolve("/base/5/16384").unwrap();
    for _ in 0..2 {
        volumes.set_refusing_growth(Some(777));
        let end = volume.node(table).unwrap().len / PAGE;
        assert_eq!(limit(write(&volume, table, end, 1)), "disk.reserve_bytes");
        let Some(Refusal::Limit {
            limit: name, max, ..
        }) = volume.take_refusal()
        else {
            panic!("it was refused");
        };
        assert_eq!((name, max), ("disk.reserve_bytes", 777));
        write(&volume, table, 0, end as usize).unwrap();
        // What a file gives back others may need.
        volume.set_len(table, (end - 1) * PAGE, T).unwrap();
        let index = make(&volume, &format!("/base/5/{}", 20000 + end));
        write(&volume, index, 0, 1).unwrap();
        assert_eq!(
            limit(write(&volume, table, end - 1, 1)),
            "disk.reserve_bytes"
        );
        volumes.set_refusing_growth(None);
        write(&volume, table, end - 1, 3).unwrap();
    }
    volumes.set_refusing_growth(Some(777));
    volume.set_bytes_max(0);
    let end = volume.node(table).unwrap().len / PAGE;
    assert_eq!(
        limit(write(&volume, table, end, 1)),
        "volume.bytes_max",
        "the lower one"
    );
}

const PATHS: [&str; 8] = [
    "/base/5/1259",
    "/base/5/16384",
    "/base/5/16385",
    "/pg_wal/000000010000000000000001",
    "/pg_wal/000000010000000000000002",
    "/pg_wal/xlogtemp.1",
    "/pg_xact/0000",
    "/x",
];

#[derive(Clone, Debug)]
enum Operation {
    Write(usize, u64, usize),
    Zeros(usize, u64, usize),
    SetLen(usize, u64),
    Rename(usize, usize),
    Remove(usize),
    Open(usize),
    Close,
    Share,
    Merge,
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let path = || 0..PATHS.len();
    prop_oneof![
        6 => (path(), 0..9u64, 1..4usize).prop_map(|(path, page, pages)| O::Write(path, page, pages)),
        3 => (path(), 0..9u64, 1..4usize).prop_map(|(path, page, pages)| O::Zeros(path, page, pages)),
        3 => (path(), 0..9 * PAGE).prop_map(|(path, len)| O::SetLen(path, len)),
        3 => (path(), path()).prop_map(|(from, to)| O::Rename(from, to)),
        3 => path().prop_map(O::Remove),
        2 => path().prop_map(O::Open),
        1 => Just(O::Close),
        1 => Just(O::Share),
        1 => Just(O::Merge),
        1 => Just(O::Reopen),
    ]
}

/// The counts as they should be: data files by their length, the log by what is not zeros. Only for
/// volumes without a template's files in them, and while nothing is open that has no name.
fn counted(volume: &Volume) -> (u64, u64) {
    let (mut data, mut log) = (0, 0);
    for path in PATHS {
        let Ok(ino) = volume.resolve(path) else {
            continue;
        };
        let mut bytes = vec![0; volume.node(ino).unwrap().len as usize];
        volume.read(ino, 0, &mut bytes).unwrap();
        let pages = bytes.chunks(PAGE_BYTES);
        if path.starts_with("/pg_wal") {
            let stored = pages.filter(|page| page.iter().any(|byte| *byte != 0));
            log += stored.count() as u64;
        } else {
            data += pages.count() as u64;
        }
    }
    (data * PAGE, log * PAGE)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_those_of_the_files(operations in prop::collection::vec(operation(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::plain(directory.path());
        let base = Base::template(Template::empty());
        let mut volume = Volume::create(&volumes, id(1), &base).unwrap();
        for directory in ["base", "pg_xact"] {
            volume.mkdir(Ino::ROOT, directory, 0o700, T).unwrap();
        }
        volume.mkdir(volume.resolve("/base").unwrap(), "5", 0o700, T).unwrap();
        let mut open = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            if at == 5 {
                volume.mkdir(Ino::ROOT, "pg_wal", 0o700, T).unwrap();
            }
            let of = |path: &str| {
                let (directory, name) = path.rsplit_once('/')?;
                let directory = volume.resolve(&format!("{directory}/")).ok()?;
                Some((directory, name.to_owned()))
            };
            let file = |path: usize| {
                let (directory, name) = of(PATHS[path])?;
                let found = volume.lookup(directory, &name);
                found.or_else(|_| volume.create_file(directory, &name, 0o600, T)).ok()
            };
            match *operation {
                Operation::Write(path, page, pages) => {
                    if let Some(ino) = file(path) {
                        write(&volume, ino, page, pages).unwrap();
                    }
                }
                Operation::Zeros(path, page, pages) => {
                    if let Some(ino) = file(path) {
                        volume.write(ino, page * PAGE, &vec![0; pages * PAGE_BYTES], T).unwrap();
                    }
                }
                Operation::SetLen(path, len) => {
                    if let Some(ino) = file(path) {
                        volume.set_len(ino, len, T).unwrap();
                    }
                }
                Operation::Rename(from, to) => {
                    if let (Some(_), Some(from), Some(to)) = (file(from), of(PATHS[from]), of(PATHS[to])) {
                        volume.rename(from.0, &from.1, to.0, &to.1).unwrap();
                    }
                }
                Operation::Remove(path) => {
                    if let (Some(_), Some((directory, name))) = (file(path), of(PATHS[path])) {
                        volume.unlink(directory, &name).unwrap();
                    }
                }
                Operation::Open(path) => {
                    if let Some(ino) = file(path) {
                        volume.open_ref(ino).unwrap();
                        open.push(ino);
                    }
                }
                Operation::Close => {
                    for ino in open.drain(..) {
                        volume.close_ref(ino).unwrap();
                    }
                }
                Operation::Share => {
                    volume.share().unwrap();
                }
                Operation::Merge => volume.merge_layers().unwrap(),
                Operation::Reopen => {
                    volume.flush().unwrap();
                    open.clear();
                    drop(volume);
                    volume = Volume::open(&volumes, id(1)).unwrap();
                }
            }
            if open.is_empty() {
                let found = (volume.data_bytes(), volume.wal_bytes());
                prop_assert_eq!(found, counted(&volume), "after {:?}", operation);
            }
        }
    }
}

#[test]
fn who_writes_faster_than_versions_are_written_waits_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let volumes = Volumes::plain(directory.path());
    let base = Base::template(Template::empty());
    let volume = Volume::create(&volumes, DatabaseId::new(1).unwrap(), &base).unwrap();
    let max = 64 * PAGE_BYTES as u64;
    volume.set_dirty_bytes_max(max);
    let ino = volume.create_file(Ino::ROOT, "f", 0o600, T).unwrap();
    let page = [7; PAGE_BYTES];
    for round in 0..10 {
        for n in 0..50 {
            let offset = n * PAGE_BYTES as u64;
            volume.write(ino, offset, &page, T).unwrap();
            assert!(volume.dirty_bytes() <= max + PAGE_BYTES as u64);
        }
        // Each page again, in no version and so in place; or else in a new one.
        volume.flush().unwrap();
        assert!(volume.version().get() > round);
    }
    for n in 0..1_000 {
        let offset = n * PAGE_BYTES as u64;
        volume.write(ino, offset, &page, T).unwrap();
        assert!(volume.dirty_bytes() <= max + PAGE_BYTES as u64);
    }
    assert!(volume.version().get() > 20);
}
