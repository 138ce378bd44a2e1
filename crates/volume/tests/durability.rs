//! What a volume promises about its files: versions that stay whole, damage that is refused, forks that
//! are alone, limits that are told.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::{fs, io};

use dormouse_volume::{
    Base, DatabaseId, Ino, LAYERS_MAX, Mtime, PAGE_BYTES, Result, Template, TemplateId, Volume,
    VolumeError, Volumes,
};
use store::{Disk, DiskFile, OpenHow, RealDisk};

const T: Mtime = Mtime {
    seconds: 0,
    nanos: 0,
};

fn id(number: u64) -> DatabaseId {
    DatabaseId::new(number).unwrap()
}

fn open(directory: &Path, number: u64) -> Result<Volume> {
    Volume::open(&Volumes::plain(directory), id(number))
}

/// As another process would, that knows this template.
fn open_over(directory: &Path, number: u64, template: &Path) -> Result<Volume> {
    Volume::open(&with_template(directory, template), id(number))
}

fn with_template(directory: &Path, template: &Path) -> Arc<Volumes> {
    let template = template.to_owned();
    let find = Box::new(move |_| Template::open(&template));
    Volumes::new(Arc::new(store::RealDisk), directory, None, 1, find)
}

fn new(directory: &Path, number: u64) -> Volume {
    over(directory, number, Template::empty()).unwrap()
}

fn over(directory: &Path, number: u64, template: Arc<Template>) -> Result<Volume> {
    let volumes = Volumes::plain(directory);
    Volume::create(&volumes, id(number), &Base::template(template))
}

/// A fork, made as another process would that finds the parent's layer on the disk.
fn fork(parent: &Volume, volumes: &Arc<Volumes>, number: u64) -> Volume {
    let base = volumes.base(parent.share().unwrap()).unwrap();
    Volume::create(volumes, id(number), &base).unwrap()
}

fn exists(directory: &Path, number: u64) -> bool {
    Volume::exists(&Volumes::plain(directory), id(number)).unwrap()
}

fn remove(directory: &Path, number: u64, layers: &[u32]) {
    let volumes = Volumes::plain(directory);
    Volume::remove(&volumes, id(number), &|epoch| layers.contains(&epoch)).unwrap();
}

fn file(volume: &Volume, name: &str) -> Ino {
    volume.create_file(Ino::ROOT, name, 0o600, T).unwrap()
}

fn put(volume: &Volume, ino: Ino, page: u64, byte: u8) {
    let data = [byte; PAGE_BYTES];
    assert_eq!(
        volume
            .write(ino, page * PAGE_BYTES as u64, &data, T)
            .unwrap(),
        PAGE_BYTES
    );
}

/// The first byte of a page, after checking that the others equal it.
fn get(volume: &Volume, ino: Ino, page: u64) -> u8 {
    let mut data = [0; PAGE_BYTES];
    assert_eq!(
        volume
            .read(ino, page * PAGE_BYTES as u64, &mut data)
            .unwrap(),
        PAGE_BYTES
    );
    assert!(data.iter().all(|byte| *byte == data[0]));
    data[0]
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn nothing_is_written_before_it_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    file(&volume, "empty");
    assert!(volume.dirty());
    assert_eq!((names(dir.path()), exists(dir.path(), 1)), (vec![], false));
    assert_eq!(volume.flush().unwrap().get(), 1);
    assert_eq!(volume.flush().unwrap().get(), 1, "unchanged");
    assert_eq!(names(dir.path()), ["0000000000000001.manifest"]);
    assert!(matches!(
        over(dir.path(), 1, Template::empty()),
        Err(VolumeError::Exists)
    ));
    let ino = volume.lookup(Ino::ROOT, "empty").unwrap();
    put(&volume, ino, 0, 1);
    put(&volume, ino, 1, 0);
    assert_eq!(
        volume.own_bytes(),
        PAGE_BYTES as u64,
        "a page of zeros takes no room"
    );
    volume.flush().unwrap();
    assert_eq!(
        names(dir.path()),
        ["0000000000000001.0.pages", "0000000000000001.manifest"]
    );
    remove(dir.path(), 1, &[]);
    remove(dir.path(), 1, &[]);
    assert_eq!(names(dir.path()), [""; 0]);
    assert!(matches!(open(dir.path(), 1), Err(VolumeError::NotFound)));
}

#[test]
fn every_attribute_survives() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let sub = volume
        .mkdir(
            Ino::ROOT,
            "sub",
            0o711,
            Mtime {
                seconds: -5,
                nanos: 6,
            },
        )
        .unwrap();
    let a = volume.create_file(sub, "a", 0o640, T).unwrap();
    volume
        .write(
            a,
            5,
            b"text",
            Mtime {
                seconds: 7,
                nanos: 8,
            },
        )
        .unwrap();
    volume.set_mode(a, 0o600).unwrap();
    let link = volume
        .symlink(
            Ino::ROOT,
            "link",
            "/sub",
            Mtime {
                seconds: 9,
                nanos: 0,
            },
        )
        .unwrap();
    volume
        .set_mtime(
            Ino::ROOT,
            Mtime {
                seconds: 10,
                nanos: 11,
            },
        )
        .unwrap();
    volume.flush().unwrap();
    let again = open(dir.path(), 1).unwrap();
    for ino in [Ino::ROOT, sub, a, link] {
        assert_eq!(again.node(ino).unwrap(), volume.node(ino).unwrap());
    }
    assert_eq!(again.resolve("/link/a").unwrap(), a);
    assert_eq!(again.readlink(link).unwrap(), "/sub");
    assert_eq!(again.node(a).unwrap().len, 9);
    let new = again.create_file(sub, "b", 0o640, T).unwrap();
    assert!(new > link, "numbers are not used again");
}

#[test]
fn an_unlinked_file_stays_while_open() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    put(&volume, ino, 0, 1);
    volume.open_ref(ino).unwrap();
    volume.open_ref(ino).unwrap();
    volume.unlink(Ino::ROOT, "a").unwrap();
    assert_eq!(volume.node(ino).unwrap().nlink, 0);
    volume.flush().unwrap();
    put(&volume, ino, 1, 2);
    assert_eq!((get(&volume, ino, 0), get(&volume, ino, 1)), (1, 2));

    let fork = fork(&volume, &Volumes::plain(dir.path()), 2);
    assert!(matches!(fork.node(ino), Err(VolumeError::NotFound)));
    assert!(matches!(
        open(dir.path(), 1).unwrap().node(ino),
        Err(VolumeError::NotFound)
    ));

    volume.close_ref(ino).unwrap();
    assert_eq!(volume.own_bytes(), 2 * PAGE_BYTES as u64);
    volume.close_ref(ino).unwrap();
    assert_eq!(volume.own_bytes(), 0);
    assert!(matches!(volume.node(ino), Err(VolumeError::NotFound)));
    assert!(matches!(
        volume.close_ref(ino),
        Err(VolumeError::Invalid(_))
    ));
}

#[test]
fn a_replaced_file_and_a_removed_directory_stay_while_open() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let (a, b) = (file(&volume, "a"), file(&volume, "b"));
    put(&volume, b, 0, 2);
    volume.open_ref(b).unwrap();
    volume.rename(Ino::ROOT, "a", Ino::ROOT, "b").unwrap();
    assert_eq!(
        (volume.lookup(Ino::ROOT, "b").unwrap(), get(&volume, b, 0)),
        (a, 2)
    );
    let sub = volume.mkdir(Ino::ROOT, "sub", 0o700, T).unwrap();
    volume.open_ref(sub).unwrap();
    volume.rmdir(Ino::ROOT, "sub").unwrap();
    assert_eq!(volume.list(sub).unwrap(), []);
    assert!(matches!(
        volume.create_file(sub, "x", 0, T),
        Err(VolumeError::NotFound)
    ));
    assert!(matches!(
        volume.rename(Ino::ROOT, "b", sub, "x"),
        Err(VolumeError::NotFound)
    ));
}

#[test]
fn a_template_file_that_is_unlinked_while_open_is_gone_in_the_next_version() {
    let dir = tempfile::tempdir().unwrap();
    let (template, directory) = template(dir.path());
    let volume = over(dir.path(), 1, template).unwrap();
    let ino = volume.lookup(Ino::ROOT, "a").unwrap();
    volume.open_ref(ino).unwrap();
    volume.unlink(Ino::ROOT, "a").unwrap();
    assert_eq!(get(&volume, ino, 0), 1);
    volume.flush().unwrap();
    volume.close_ref(ino).unwrap();
    assert!(matches!(volume.node(ino), Err(VolumeError::NotFound)));
    let again = open_over(dir.path(), 1, &directory).unwrap();
    assert!(matches!(again.node(ino), Err(VolumeError::NotFound)));
    assert_eq!(again.list(Ino::ROOT).unwrap().len(), 1);
}

/// A template with a file `a` of one page and a file `b` of three bytes.
fn template(beside: &Path) -> (Arc<Template>, std::path::PathBuf) {
    let scratch = Volume::scratch(beside).unwrap();
    put(&scratch, file(&scratch, "a"), 0, 1);
    scratch.write(file(&scratch, "b"), 0, b"bbb", T).unwrap();
    let directory = beside.join("template");
    scratch
        .save_as_template(&directory, TemplateId::from_bytes([9; 16]))
        .unwrap();
    (Template::open(&directory).unwrap(), directory)
}

#[test]
fn volumes_of_a_template_share_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (template, directory) = template(dir.path());
    assert_eq!(
        (template.node_count(), template.bytes()),
        (3, 2 * PAGE_BYTES as u64)
    );
    let one = over(dir.path(), 1, Arc::clone(&template)).unwrap();
    let two = fork(&one, &with_template(dir.path(), &directory), 2);
    assert!(
        !exists(dir.path(), 1),
        "a fork of an unchanged volume is a record"
    );
    let ino = one.resolve("/a").unwrap();
    put(&one, ino, 0, 7);
    let b = one.resolve("/b").unwrap();
    one.write(b, 1, b"x", T).unwrap();
    assert_eq!((get(&one, ino, 0), get(&two, ino, 0)), (7, 1));
    let mut text = [0; 9];
    assert_eq!(one.read(b, 0, &mut text).unwrap(), 3);
    assert_eq!(&text[..3], b"bxb");
    assert_eq!(
        (one.own_bytes(), two.own_bytes()),
        (2 * PAGE_BYTES as u64, 0)
    );
    two.flush().unwrap();
    assert_eq!(
        get(&open_over(dir.path(), 2, &directory).unwrap(), ino, 0),
        1
    );
    assert!(
        matches!(open(dir.path(), 2), Err(VolumeError::NotFound)),
        "no such template"
    );
    let other = Volumes::new(
        Arc::new(store::RealDisk),
        dir.path(),
        None,
        1,
        Box::new(|_| Ok(Template::empty())),
    );
    assert!(matches!(
        Volume::open(&other, id(2)),
        Err(VolumeError::Invalid(_))
    ));
    let again = one.save_as_template(&directory, TemplateId::from_bytes([8; 16]));
    assert!(matches!(again, Err(VolumeError::Exists)));
}

#[test]
fn a_fork_and_its_parent_go_their_own_ways() {
    let dir = tempfile::tempdir().unwrap();
    let parent = new(dir.path(), 1);
    let ino = file(&parent, "a");
    for page in 0..20 {
        put(&parent, ino, page, 1);
    }
    parent.flush().unwrap();
    put(&parent, ino, 3, 2);
    let fork = fork(&parent, &Volumes::plain(dir.path()), 2);
    assert_eq!(
        names(dir.path()),
        [
            "0000000000000001.0.manifest",
            "0000000000000001.0.pages",
            "0000000000000001.manifest"
        ],
        "nothing is copied"
    );
    assert_eq!(
        parent.own_bytes(),
        20 * PAGE_BYTES as u64,
        "shared pages count"
    );
    put(&parent, ino, 3, 3);
    put(&fork, ino, 4, 4);
    assert_eq!([get(&parent, ino, 3), get(&fork, ino, 3)], [3, 2]);
    assert_eq!([get(&parent, ino, 4), get(&fork, ino, 4)], [1, 4]);
    assert_eq!(fork.own_bytes(), 20 * PAGE_BYTES as u64);
    fork.flush().unwrap();
    parent.flush().unwrap();
    assert_eq!(get(&open(dir.path(), 1).unwrap(), ino, 3), 3);
    drop(parent);
    remove(dir.path(), 1, &[0]);
    let fork = open(dir.path(), 2).unwrap();
    assert_eq!(
        [get(&fork, ino, 0), get(&fork, ino, 3), get(&fork, ino, 4)],
        [1, 2, 4]
    );
}

#[test]
fn forks_of_forks_stay_right_however_deep() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::plain(dir.path());
    let mut volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    let depth = LAYERS_MAX as u64 + 5;
    for page in 0..depth {
        put(&volume, ino, page, 1);
    }
    for number in 2..depth {
        put(&volume, ino, number, number as u8);
        let next = fork(&volume, &volumes, number);
        put(&volume, ino, 0, 99);
        assert!(next.base().layer_count() <= LAYERS_MAX);
        volume = next;
    }
    volume.flush().unwrap();
    let again = open(dir.path(), depth - 1).unwrap();
    for number in 2..depth {
        assert_eq!(get(&again, ino, number), number as u8);
    }
    assert_eq!([get(&again, ino, 0), get(&again, ino, 1)], [1, 1]);
    again.merge_layers().unwrap();
    assert_eq!(again.base().layer_count(), 0);
    let again = open(dir.path(), depth - 1).unwrap();
    assert_eq!([get(&again, ino, 0), get(&again, ino, 5)], [1, 5]);
    assert_eq!(again.own_bytes(), depth * PAGE_BYTES as u64);
}

#[test]
fn overwriting_for_ever_does_not_grow_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    for round in 1..50 {
        for page in 0..4 {
            put(&volume, ino, page, round);
            put(&volume, ino, page, round + 1);
        }
        volume.flush().unwrap();
    }
    let bytes = fs::metadata(dir.path().join("0000000000000001.0.pages"))
        .unwrap()
        .len();
    assert_eq!(
        bytes,
        8 * PAGE_BYTES as u64,
        "one version and its successor"
    );
    assert_eq!(volume.own_bytes(), 4 * PAGE_BYTES as u64);
}

#[test]
fn every_byte_of_the_files_counts() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    put(&volume, ino, 0, 1);
    volume.flush().unwrap();
    drop(volume);

    let manifest = dir.path().join("0000000000000001.manifest");
    let whole = fs::read(&manifest).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&manifest, &bytes).unwrap();
        assert!(
            matches!(open(dir.path(), 1), Err(VolumeError::Corrupt { .. })),
            "byte {at}"
        );
        fs::write(&manifest, &whole[..at]).unwrap();
        assert!(
            matches!(open(dir.path(), 1), Err(VolumeError::Corrupt { .. })),
            "length {at}"
        );
    }
    // Another database's manifest under this one's name.
    fs::write(dir.path().join("0000000000000002.manifest"), &whole).unwrap();
    let error = open(dir.path(), 2).unwrap_err().to_string();
    assert!(
        error.contains("belongs to database 0000000000000001"),
        "{error}"
    );
    fs::write(&manifest, &whole).unwrap();

    let pages = dir.path().join("0000000000000001.0.pages");
    let whole = fs::read(&pages).unwrap();
    for at in [0, 1, 4095, PAGE_BYTES - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&pages, &bytes).unwrap();
        let volume = open(dir.path(), 1).unwrap();
        let error = volume.read(ino, 100, &mut [0; 10]).unwrap_err();
        assert!(matches!(error, VolumeError::Corrupt { .. }), "byte {at}");
        let copy = volume.save_as_template(&dir.path().join("t"), TemplateId::from_bytes([1; 16]));
        assert!(copy.is_err(), "damage is not copied");
    }
    fs::write(&pages, &whole[..PAGE_BYTES - 1]).unwrap();
    assert!(matches!(
        open(dir.path(), 1),
        Err(VolumeError::Corrupt { .. })
    ));
    fs::remove_file(&pages).unwrap();
    assert!(matches!(
        open(dir.path(), 1),
        Err(VolumeError::Corrupt { .. })
    ));
}

#[test]
fn a_failed_flush_leaves_the_old_version_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    put(&volume, ino, 0, 1);
    volume.flush().unwrap();
    put(&volume, ino, 0, 2);

    let in_the_way = dir.path().join("0000000000000001.manifest.tmp");
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..3 {
        let error = volume.flush().unwrap_err();
        let VolumeError::FlushFailed {
            kept,
            must_reopen: false,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(kept.get(), 1);
        assert!(volume.dirty() && volume.dirty_bytes() > 0);
        put(&volume, ino, 0, 3);
        assert_eq!(get(&open(dir.path(), 1).unwrap(), ino, 0), 1);
    }
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(volume.flush().unwrap().get(), 2);
    assert_eq!(get(&open(dir.path(), 1).unwrap(), ino, 0), 3);
}

#[test]
fn limits_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    volume.set_bytes_max(9 * PAGE_BYTES as u64);
    let base = volume.mkdir(Ino::ROOT, "base", 0o700, T).unwrap();
    let ino = volume.create_file(base, "20000", 0o600, T).unwrap();
    put(&volume, ino, 0, 1);
    let error = volume
        .write(ino, PAGE_BYTES as u64, &[1; 9 * PAGE_BYTES], T)
        .unwrap_err();
    assert!(matches!(
        error,
        VolumeError::NoSpace {
            limit: "volume.bytes_max",
            max: 73728
        }
    ));
    assert!(error.to_string().contains("volume.bytes_max = 73728"));

    volume.set_bytes_max(u64::MAX);
    let far = dormouse_volume::FILE_BYTES_MAX;
    for result in [
        volume.set_len(ino, far + 1, T).map(|()| 0),
        volume.write(ino, far, b"x", T),
        volume.write(ino, u64::MAX, b"x", T),
    ] {
        let Err(VolumeError::NoSpace { limit, .. }) = result else {
            panic!()
        };
        assert_eq!(limit, "volume.file_bytes_max");
    }
    volume.set_len(ino, far, T).unwrap();
    assert_eq!(volume.read(ino, far - 1, &mut [9; 2]).unwrap(), 1);
    assert_eq!(volume.read(ino, far, &mut [9; 2]).unwrap(), 0);
    assert_eq!(volume.read(ino, u64::MAX, &mut [9; 2]).unwrap(), 0);
}

/// One thread writes a counter into page 0, then into page 1. Every version, copied from the disk while
/// the next one is being written, shows the second page equal to the first or one step behind.
#[test]
fn versions_are_instants_while_writing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this thread leaves, the writer stops: a failure is not to hang.
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            let mut counter = 0u64;
            while !stop.load(Ordering::Relaxed) {
                counter += 1;
                for page in 0..2 {
                    let data: Vec<u8> = counter.to_le_bytes().repeat(PAGE_BYTES / 8);
                    volume
                        .write(ino, page * PAGE_BYTES as u64, &data, T)
                        .unwrap();
                }
            }
        });
        for round in 0..40 {
            volume.flush().unwrap();
            let copy = tempfile::tempdir().unwrap();
            for name in names(dir.path())
                .iter()
                .filter(|name| name.starts_with("0000"))
            {
                fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
            }
            let fork = fork(&volume, &Volumes::plain(dir.path()), 100 + round);
            for instant in [open(copy.path(), 1).unwrap(), fork] {
                let counters = [0, PAGE_BYTES as u64].map(|offset| {
                    let mut counter = [0; 8];
                    instant.read(ino, offset, &mut counter).unwrap();
                    u64::from_le_bytes(counter)
                });
                let behind = counters[0] - counters[1];
                assert!(behind <= 1, "round {round}: {counters:?}");
            }
        }
    });
}

/// A share while a flush is under way: the flush must not give slots of the old file free in the new one.
#[test]
fn sharing_and_flushing_at_once_keep_pages_apart() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "a");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for thread in 0..2u64 {
            let (volume, stop) = (&volume, &stop);
            scope.spawn(move || {
                let mut stopped = false;
                while !stopped {
                    // Once more after the end, so that all pages are there.
                    stopped = stop.load(Ordering::Relaxed);
                    for page in 0..30 {
                        put(volume, ino, thread * 30 + page, page as u8 + 1);
                    }
                    volume.flush().unwrap();
                }
            });
        }
        // Shares of what did not change since the last one do not count.
        let mut bases = HashSet::new();
        while bases.len() < 60 {
            bases.insert(volume.share().unwrap());
        }
    });
    volume.flush().unwrap();
    let again = open(dir.path(), 1).unwrap();
    for page in 0..60 {
        assert_eq!(get(&again, ino, page), (page % 30) as u8 + 1);
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_torn_volume_of_a_never_flushed_database_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let volume = new(dir.path(), 1);
    put(&volume, file(&volume, "a"), 0, 1);
    drop(volume);
    assert_eq!(names(dir.path()), ["0000000000000001.0.pages"]);
    let volume = new(dir.path(), 1);
    let ino = file(&volume, "b");
    put(&volume, ino, 0, 2);
    volume.flush().unwrap();
    assert_eq!(get(&open(dir.path(), 1).unwrap(), ino, 0), 2);
}

/// The real disk, which asks the volume how it is whenever a file gets its name.
#[derive(Debug, Default)]
struct Watched {
    volume: OnceLock<Weak<Volume>>,
    dirty: Mutex<Vec<bool>>,
}

impl Disk for Watched {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, how)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_directory(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(volume) = self.volume.get().and_then(Weak::upgrade) {
            let dirty = volume.dirty() && !volume.is_exactly(volume.version());
            self.dirty.lock().unwrap().push(dirty);
        }
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_directory(path)
    }
}

#[test]
fn what_a_flush_is_writing_is_not_durable_yet() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Watched::default());
    let find = Box::new(|_| panic!("none is asked for"));
    let volumes = Volumes::new(disk.clone(), folder.path(), None, 1, find);
    let base = Base::template(Template::empty());
    let volume = Arc::new(Volume::create(&volumes, id(1), &base).unwrap());
    disk.volume.set(Arc::downgrade(&volume)).unwrap();
    let ino = volume.create_file(Ino::ROOT, "f", 0o600, T).unwrap();
    for n in 0..3 {
        volume.write(ino, n, b"x", T).unwrap();
        volume.flush().unwrap();
        assert!(!volume.dirty() && volume.is_exactly(volume.version()));
    }
    assert_eq!(*disk.dirty.lock().unwrap(), [true; 3]);
}

#[test]
fn what_an_ended_process_had_not_flushed_takes_no_room_after_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = || {
        let file = fs::metadata(dir.path().join("0000000000000001.0.pages"));
        file.map_or(0, |file| file.len())
    };
    let volume = new(dir.path(), 1);
    put(&volume, file(&volume, "a"), 9, 1);
    drop(volume);
    assert_eq!(bytes(), PAGE_BYTES as u64);
    let volume = new(dir.path(), 1);
    file(&volume, "b");
    volume.flush().unwrap();
    assert_eq!(bytes(), 0);
    let ino = file(&volume, "c");
    put(&volume, ino, 0, 1);
    volume.flush().unwrap();
    for page in 0..300 {
        put(&volume, ino, page, 2);
    }
    drop(volume);
    assert_eq!(bytes(), 301 * PAGE_BYTES as u64);
    let volume = open(dir.path(), 1).unwrap();
    put(&volume, ino, 0, 3);
    volume.flush().unwrap();
    assert_eq!(bytes(), 2 * PAGE_BYTES as u64);
    assert_eq!(get(&volume, ino, 0), 3);
}
