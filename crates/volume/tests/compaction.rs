//! What compaction promises: contents stay, room is bounded, layers go only when no durable version needs
//! them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

extern crate store as dormouse_store;

#[path = "../../store/tests/memory/mod.rs"]
mod memory;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dormouse_volume::{
    Base, BaseId, DatabaseId, Ino, LAYERS_MAX, LAYERS_SLACK_BYTES, LayerId, Mtime, PAGE_BYTES,
    Template, Volume, VolumeError, Volumes,
};
use memory::{MemoryDisk, Random};
use proptest::prelude::*;
use store::{Disk, RealDisk};

const T: Mtime = Mtime {
    seconds: 0,
    nanos: 0,
};
const PAGE: u64 = PAGE_BYTES as u64;
const SLACK_PAGES: u64 = LAYERS_SLACK_BYTES / PAGE;
/// Files of a volume, and pages of each.
const FILES: usize = 3;
const PAGES: usize = 120;

/// The first byte of every page of every file; zero for a hole.
type Model = Vec<Vec<u8>>;

fn id(number: u64) -> DatabaseId {
    DatabaseId::new(number).unwrap()
}

fn volumes(disk: Arc<dyn Disk>, directory: &Path) -> Arc<Volumes> {
    Volumes::new(
        disk,
        directory,
        None,
        1,
        Box::new(|_| Err(VolumeError::NotFound)),
    )
}

fn name(file: usize) -> String {
    format!("/{file}")
}

/// As many pages from `first` on, each full of another byte.
fn write(volume: &Volume, model: &mut Model, file: usize, first: usize, pages: usize, byte: u8) {
    let ino = volume.resolve(&name(file)).unwrap();
    let pages = model[file].iter_mut().enumerate().skip(first).take(pages);
    for (page, shown) in pages {
        *shown = byte.wrapping_add(page as u8);
        volume
            .write(ino, page as u64 * PAGE, &[*shown; PAGE_BYTES], T)
            .unwrap();
    }
}

fn new(volumes: &Arc<Volumes>, number: u64) -> (Volume, Model) {
    let volume = Volume::create(volumes, id(number), &Base::template(Template::empty())).unwrap();
    let model = vec![vec![0; PAGES]; FILES];
    for file in 0..FILES {
        let ino = volume
            .create_file(Ino::ROOT, &name(file)[1..], 0o600, T)
            .unwrap();
        volume.set_len(ino, PAGES as u64 * PAGE, T).unwrap();
    }
    (volume, model)
}

fn shown(volume: &Volume) -> Model {
    let file = |file| {
        let ino = volume.resolve(&name(file)).unwrap();
        let mut page = [0; PAGE_BYTES];
        let first = |at: usize| {
            assert_eq!(
                volume.read(ino, at as u64 * PAGE, &mut page).unwrap(),
                PAGE_BYTES
            );
            assert!(page.iter().all(|byte| *byte == page[0]));
            page[0]
        };
        (0..PAGES).map(first).collect()
    };
    (0..FILES).map(file).collect()
}

/// The layers that a durable version needs, the topmost first.
fn chain(volume: &Volume) -> Vec<LayerId> {
    let mut layers = Vec::new();
    let mut at = Some(volume.base());
    while let Some(base) = at {
        if let BaseId::Layer(layer) = base.id() {
            layers.push(layer);
        }
        at = base.below().cloned();
    }
    layers
}

/// A node with its databases, as the room above counts and removes layers.
struct Node {
    volumes: Arc<Volumes>,
    /// Volume, what it shows, and what its durable version shows.
    databases: Vec<(Volume, Model, Model)>,
    known: HashSet<LayerId>,
    next: u64,
}

impl Node {
    fn new(directory: &Path) -> Self {
        let volumes = volumes(Arc::new(RealDisk), directory);
        let (volume, model) = new(&volumes, 1);
        volume.flush().unwrap();
        Self {
            databases: vec![(volume, model.clone(), model)],
            known: HashSet::new(),
            volumes,
            next: 2,
        }
    }

    /// How many databases and layers are directly over each layer.
    fn referents(&self) -> HashMap<LayerId, u64> {
        let mut counts = HashMap::new();
        let mut over = HashSet::new();
        for (volume, ..) in &self.databases {
            let chain = chain(volume);
            if let Some(top) = chain.first() {
                *counts.entry(*top).or_default() += 1;
            }
            over.extend(chain.windows(2).map(|pair| (pair[0], pair[1])));
        }
        for (_, below) in over {
            *counts.entry(below).or_default() += 1;
        }
        counts
    }

    /// Removes the layers that nothing is over.
    fn settle(&mut self) {
        let counts = self.referents();
        self.known.extend(counts.keys());
        let unused: Vec<_> = self
            .known
            .iter()
            .filter(|layer| !counts.contains_key(layer))
            .copied()
            .collect();
        for layer in unused {
            self.volumes.remove_layer(layer).unwrap();
            self.known.remove(&layer);
        }
    }

    fn fork(&mut self, at: usize) {
        let (volume, model, durable) = &mut self.databases[at];
        let base = self.volumes.base(volume.share().unwrap()).unwrap();
        durable.clone_from(model);
        let fork = Volume::create(&self.volumes, id(self.next), &base).unwrap();
        fork.flush().unwrap();
        let model = model.clone();
        self.databases.push((fork, model.clone(), model));
        self.next += 1;
        self.settle();
    }

    fn drop(&mut self, at: usize) {
        if self.databases.len() == 1 {
            return;
        }
        let (volume, ..) = self.databases.swap_remove(at);
        let number = volume.id();
        drop(volume);
        let counts = self.referents();
        let is_layer = |epoch| {
            counts.contains_key(&LayerId {
                origin: number,
                epoch,
            })
        };
        Volume::remove(&self.volumes, number, &is_layer).unwrap();
        self.settle();
    }

    /// At most so many steps; whether there is more to do.
    fn compact(&mut self, at: usize, steps: usize) -> bool {
        let mut more = true;
        for _ in 0..steps {
            let counts = self.referents();
            let (volume, model, durable) = &mut self.databases[at];
            let before = volume.version();
            let done = volume
                .compact(&|layer| counts.get(&layer).copied().unwrap())
                .unwrap();
            more = done.more;
            if volume.version() > before {
                durable.clone_from(model);
            }
            if done.rebased {
                self.settle();
            }
            if !more {
                break;
            }
        }
        more
    }

    fn reopen(&mut self, at: usize) {
        let (volume, model, durable) = &mut self.databases[at];
        *volume = Volume::open(&self.volumes, volume.id()).unwrap();
        model.clone_from(durable);
    }

    fn check(&self) {
        for (volume, model, _) in &self.databases {
            assert_eq!(&shown(volume), model);
        }
    }

    /// The bound, once compaction has nothing to do.
    fn check_bound(&mut self) {
        for at in 0..self.databases.len() {
            while self.compact(at, 1) {}
        }
        // Who left a layer may have left another alone on it.
        for at in 0..self.databases.len() {
            while self.compact(at, 1) {}
        }
        let counts = self.referents();
        for (volume, ..) in &self.databases {
            let layers = volume.layers();
            assert!(layers.len() < LAYERS_MAX);
            let sum = |part: &[dormouse_volume::LayerUse]| {
                let sums = part.iter().map(|layer| (layer.pages, layer.used));
                sums.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
            };
            let (pages, used) = sum(&layers);
            assert!(pages <= 8 * used + 4 * SLACK_PAGES, "shared: {layers:?}");
            let own = layers
                .iter()
                .rev()
                .take_while(|layer| counts[&layer.layer] == 1)
                .count();
            let (pages, used) = sum(&layers[layers.len() - own..]);
            assert!(pages <= 2 * used + SLACK_PAGES, "alone: {layers:?}");
        }
    }
}

/// Bytes that the pages files in a directory take on the disk.
fn stored(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let pages = files.filter(|file| file.path().extension().is_some_and(|end| end == "pages"));
    pages
        .map(|file| file.metadata().unwrap().blocks() * 512)
        .sum()
}

#[derive(Clone, Debug)]
enum Operation {
    Write(usize, usize, usize, usize, u8),
    Cut(usize, usize, usize),
    Fork(usize),
    Drop(usize),
    Compact(usize, usize),
    Flush(usize),
    Reopen(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let at = || 0..64usize;
    prop_oneof![
        8 => (at(), 0..FILES, 0..PAGES, 1..PAGES, any::<u8>()).prop_map(|(at, f, p, n, b)| O::Write(at, f, p, n, b)),
        1 => (at(), 0..FILES, 0..PAGES).prop_map(|(at, f, p)| O::Cut(at, f, p)),
        4 => at().prop_map(O::Fork),
        3 => at().prop_map(O::Drop),
        4 => (at(), 1..6usize).prop_map(|(at, steps)| O::Compact(at, steps)),
        2 => at().prop_map(O::Flush),
        2 => at().prop_map(O::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn room_is_bounded_and_contents_stay(operations in prop::collection::vec(operation(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::new(directory.path());
        for (at, operation) in operations.iter().enumerate() {
            let count = node.databases.len();
            match *operation {
                Operation::Write(at, file, first, pages, byte) => {
                    let (volume, model, _) = &mut node.databases[at % count];
                    write(volume, model, file, first, pages, byte);
                }
                Operation::Cut(at, file, page) => {
                    let (volume, model, _) = &mut node.databases[at % count];
                    let ino = volume.resolve(&name(file)).unwrap();
                    volume.set_len(ino, page as u64 * PAGE, T).unwrap();
                    volume.set_len(ino, PAGES as u64 * PAGE, T).unwrap();
                    model[file][page..].fill(0);
                }
                Operation::Fork(at) => node.fork(at % count),
                Operation::Drop(at) => node.drop(at % count),
                Operation::Compact(at, steps) => {
                    node.compact(at % count, steps);
                }
                Operation::Flush(at) => {
                    let (volume, model, durable) = &mut node.databases[at % count];
                    volume.flush().unwrap();
                    durable.clone_from(model);
                }
                Operation::Reopen(at) => node.reopen(at % count),
            }
            if at % 8 == 7 {
                node.check();
            }
        }
        node.check();
        node.check_bound();
        node.check();
        for at in 0..node.databases.len() {
            node.reopen(at);
        }
        node.check();
        node.check_bound();
        // One that is alone in the end: its files on the disk, as the documents say.
        while node.databases.len() > 1 {
            node.drop(0);
        }
        node.check_bound();
        let (volume, ..) = &node.databases[0];
        volume.set_mode(Ino::ROOT, 0o711).unwrap();
        volume.flush().unwrap();
        let most = 2 * volume.own_bytes() + LAYERS_SLACK_BYTES + (1 << 20);
        let stored = stored(directory.path());
        prop_assert!(stored <= most, "{stored} bytes stored, at most {most} expected");
    }
}

/// A volume that is over two layers, of which it uses little; all of it durable.
fn layered(volumes: &Arc<Volumes>) -> (Volume, Model) {
    let (volume, mut model) = new(volumes, 1);
    for round in 1..=2 {
        write(&volume, &mut model, 0, 0, PAGES, round);
        write(&volume, &mut model, 1, 0, PAGES, round);
        write(&volume, &mut model, 2, 0, 20, round);
        volume.share().unwrap();
    }
    write(&volume, &mut model, 0, 0, PAGES, 77);
    write(&volume, &mut model, 1, 30, PAGES, 77);
    volume.flush().unwrap();
    (volume, model)
}

/// Stops the machine after each change of the disk in the course of a compaction.
#[test]
fn a_power_failure_at_any_moment_of_a_compaction_changes_nothing() {
    let directory = Path::new("/volumes");
    let disk = MemoryDisk::default();
    let (volume, model) = layered(&volumes(Arc::new(disk.clone()), directory));
    drop(volume);
    let mut stop = 0;
    loop {
        let disk = disk.copy();
        let node = volumes(Arc::new(disk.clone()), directory);
        let volume = Volume::open(&node, id(1)).unwrap();
        assert_eq!(volume.layers().len(), 2);
        disk.stop_in(stop);
        let mut rebased = false;
        let failed = loop {
            match volume.compact(&|_| 1) {
                Ok(done) => rebased |= done.rebased,
                Err(_) => break true,
            }
            if rebased && sweep(&node, &volume).is_err() {
                break true;
            }
            if rebased {
                break false;
            }
        };
        assert!(
            !failed || disk.has_stopped(),
            "only the machine makes it fail"
        );
        let base = volume.base().id();
        for seed in 0..8 {
            let after = disk.crash(&mut Random(stop * 8 + seed));
            let node = volumes(Arc::new(after), directory);
            let volume = Volume::open(&node, id(1)).unwrap();
            assert_eq!(
                shown(&volume),
                model,
                "stopped after {stop} changes, seed {seed}"
            );
            if rebased {
                assert_eq!(volume.base().id(), base, "what was told is durable");
            }
            // Another goes on where this one stopped.
            while volume.compact(&|_| 1).unwrap().more {}
            assert_eq!(volume.layers(), []);
            assert_eq!(shown(&volume), model);
        }
        if !failed {
            break;
        }
        stop += 1;
    }
    assert!(
        stop > 50,
        "{stop} changes: pages, manifest, rename were all stopped at"
    );
}

/// Removes the layers of database 1 that its durable version does not need.
fn sweep(node: &Volumes, volume: &Volume) -> Result<(), VolumeError> {
    let needed = chain(volume);
    let layers = (0..2).map(|epoch| LayerId {
        origin: id(1),
        epoch,
    });
    for layer in layers.filter(|layer| !needed.contains(layer)) {
        node.remove_layer(layer)?;
    }
    Ok(())
}

/// The flush at the end of a compaction fails: the layers are still needed, whatever memory says.
#[test]
fn layers_stay_until_a_version_without_them_is_durable() {
    let directory = Path::new("/volumes");
    let disk = MemoryDisk::default();
    let node = volumes(Arc::new(disk.clone()), directory);
    let (volume, model) = layered(&node);
    disk.fail_next_sync();
    let error = loop {
        match volume.compact(&|_| 1) {
            Ok(done) => assert!(done.more && !done.rebased),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, VolumeError::FlushFailed { .. }), "{error}");
    assert_eq!(chain(&volume).len(), 2);
    sweep(&node, &volume).unwrap();
    drop(volume);
    let again = Volume::open(&node, id(1)).unwrap();
    assert_eq!(shown(&again), model);
    while again.compact(&|_| 1).unwrap().more {}
    sweep(&node, &again).unwrap();
    assert_eq!(shown(&Volume::open(&node, id(1)).unwrap()), model);
    let layers = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.ends_with("0000000000000001.1.manifest"));
    assert_eq!(layers.count(), 0);
}

#[test]
fn a_full_disk_stops_a_compaction_and_nothing_else() {
    let directory = Path::new("/volumes");
    let disk = MemoryDisk::default();
    let node = volumes(Arc::new(disk.clone()), directory);
    let (volume, mut model) = layered(&node);
    disk.set_capacity(Some(disk.used()));
    let error = volume.compact(&|_| 1).unwrap_err();
    assert!(matches!(error, VolumeError::DiskFull { .. }), "{error}");
    assert_eq!(volume.take_refusal(), None, "no statement was refused");
    assert_eq!(shown(&volume), model);
    disk.set_capacity(None);
    while volume.compact(&|_| 1).unwrap().more {
        write(&volume, &mut model, 1, 0, 7, 3);
    }
    assert_eq!((volume.layers().len(), shown(&volume)), (0, model));
}

#[test]
fn compaction_goes_on_beside_writes_flushes_and_shares() {
    let directory = tempfile::tempdir().unwrap();
    let node = volumes(Arc::new(RealDisk), directory.path());
    let (volume, mut model) = new(&node, 1);
    write(&volume, &mut model, 0, 0, PAGES, 1);
    write(&volume, &mut model, 1, 0, PAGES, 1);
    let stop = AtomicBool::new(false);
    let merged = std::thread::scope(|scope| {
        let compacting = scope.spawn(|| {
            let mut merged = 0;
            while !stop.load(Ordering::Relaxed) {
                merged += u32::from(volume.compact(&|_| 1).unwrap().rebased);
            }
            merged
        });
        let stop_at_end = StopAtEnd(&stop);
        for round in 0..60u8 {
            let first = usize::from(round) % 50;
            write(&volume, &mut model, 0, first, 60, round);
            write(&volume, &mut model, 2, 0, 40, round);
            match round % 3 {
                0 => drop(volume.share().unwrap()),
                1 => drop(volume.flush().unwrap()),
                _ => {}
            }
            assert_eq!(shown(&volume), model, "round {round}");
        }
        drop(stop_at_end);
        compacting.join().unwrap()
    });
    assert!(merged > 0, "it was never done");
    volume.flush().unwrap();
    drop(volume);
    assert_eq!(shown(&Volume::open(&node, id(1)).unwrap()), model);
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
