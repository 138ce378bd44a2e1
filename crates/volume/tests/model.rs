//! A volume driven beside a model, a map from path to bytes: after any operations both show the same,
//! and after a crash the volume shows what the model was at the last flush.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dormouse_volume::{
    Base, DatabaseId, Ino, Mtime, NodeKind, PAGE_BYTES, Template, TemplateId, Volume, VolumeError,
    Volumes,
};
use proptest::prelude::*;

/// Directories map to `None`, files to their bytes. The root is not in it.
type Model = BTreeMap<String, Option<Vec<u8>>>;

/// Paths the operations choose from: few, so that they meet.
const PATHS: [&str; 9] = [
    "/a", "/b", "/c", "/d", "/d/a", "/d/b", "/d/e", "/d/e/a", "/t",
];

#[derive(Clone, Debug)]
enum Operation {
    CreateFile(usize),
    MakeDirectory(usize),
    Write {
        path: usize,
        offset: usize,
        len: usize,
        byte: u8,
    },
    Read {
        path: usize,
        offset: usize,
        len: usize,
    },
    SetLen {
        path: usize,
        len: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Remove(usize),
    Flush,
    /// The process dies, and the database is opened again.
    Crash,
    /// The parent is written to, and the test goes on with the fork.
    Fork,
    /// The volume becomes a template, and the test goes on with a new volume made from it.
    Template,
}

fn operation() -> impl Strategy<Value = Operation> {
    let path = || 0..PATHS.len();
    // Around the edges of pages, and anywhere.
    let at = || {
        prop_oneof![
            (0..6usize).prop_map(|page| page * PAGE_BYTES),
            0..6 * PAGE_BYTES,
            (1..6usize).prop_map(|page| page * PAGE_BYTES - 1),
        ]
    };
    let len = || {
        prop_oneof![
            Just(PAGE_BYTES),
            Just(3 * PAGE_BYTES),
            0..2 * PAGE_BYTES,
            0..100usize
        ]
    };
    prop_oneof![
        3 => path().prop_map(Operation::CreateFile),
        2 => path().prop_map(Operation::MakeDirectory),
        12 => (path(), at(), len(), 0..4u8)
            .prop_map(|(path, offset, len, byte)| Operation::Write { path, offset, len, byte }),
        4 => (path(), at(), len()).prop_map(|(path, offset, len)| Operation::Read { path, offset, len }),
        3 => (path(), at()).prop_map(|(path, len)| Operation::SetLen { path, len }),
        2 => (path(), path()).prop_map(|(from, to)| Operation::Rename { from, to }),
        2 => path().prop_map(Operation::Remove),
        3 => Just(Operation::Flush),
        2 => Just(Operation::Crash),
        1 => Just(Operation::Fork),
        1 => Just(Operation::Template),
    ]
}

/// A volume, its model, and what is needed to open it again.
struct Pair {
    directory: tempfile::TempDir,
    volume: Volume,
    model: Model,
    /// The model as of the last flush, if there was one.
    flushed: Option<Model>,
    templates: Vec<Arc<Template>>,
    next_id: u64,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::plain(directory.path());
        let volume = Volume::create(&volumes, id(1), &Base::template(Template::empty())).unwrap();
        let (model, flushed) = (Model::new(), None);
        Self {
            directory,
            volume,
            model,
            flushed,
            templates: Vec::new(),
            next_id: 2,
        }
    }

    /// As a process that starts now finds them.
    fn volumes(&self) -> Arc<Volumes> {
        let templates = self.templates.clone();
        let find = move |id| {
            let found = templates.iter().find(|template| template.id() == id);
            found.cloned().ok_or(VolumeError::NotFound)
        };
        let disk = Arc::new(store::RealDisk);
        Volumes::new(disk, self.directory.path(), None, 1, Box::new(find))
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn apply(&mut self, operation: &Operation) {
        let path = |at: &usize| PATHS[*at];
        match operation {
            Operation::CreateFile(at) => self.create(path(at), false),
            Operation::MakeDirectory(at) => self.create(path(at), true),
            Operation::Write {
                path: at,
                offset,
                len,
                byte,
            } => {
                self.write(path(at), *offset, &pattern(*byte, *len));
            }
            Operation::Read {
                path: at,
                offset,
                len,
            } => self.read(path(at), *offset, *len),
            Operation::SetLen { path: at, len } => self.set_len(path(at), *len),
            Operation::Rename { from, to } => self.rename(path(from), path(to)),
            Operation::Remove(at) => self.remove(path(at)),
            Operation::Flush => self.flush(),
            Operation::Crash => self.crash(),
            Operation::Fork => self.fork(),
            Operation::Template => self.template(),
        }
    }

    /// Whether a name could be made at `path`: its directory is there, and it is not.
    fn is_vacant(&self, path: &str) -> bool {
        !self.model.contains_key(path) && self.has_parent(path)
    }

    fn has_parent(&self, path: &str) -> bool {
        let parent = parent(path);
        parent.is_empty() || matches!(self.model.get(parent), Some(None))
    }

    fn create(&mut self, path: &str, directory: bool) {
        let result = self.at(path).and_then(|(at, name)| match directory {
            true => self.volume.mkdir(at, name, 0o700, now(1)),
            false => self.volume.create_file(at, name, 0o600, now(1)),
        });
        assert_eq!(result.is_ok(), self.is_vacant(path), "{path}: {result:?}");
        if result.is_ok() {
            self.model
                .insert(path.to_owned(), (!directory).then(Vec::new));
        }
    }

    fn write(&mut self, path: &str, offset: usize, data: &[u8]) {
        let result = self
            .volume
            .resolve(path)
            .and_then(|ino| self.volume.write(ino, offset as u64, data, now(2)));
        match self.model.get_mut(path) {
            Some(Some(bytes)) => {
                assert_eq!(result.unwrap(), data.len());
                if !data.is_empty() {
                    bytes.resize(bytes.len().max(offset + data.len()), 0);
                    bytes[offset..offset + data.len()].copy_from_slice(data);
                }
            }
            _ => assert!(result.is_err()),
        }
    }

    fn read(&self, path: &str, offset: usize, len: usize) {
        let Some(Some(bytes)) = self.model.get(path) else {
            return;
        };
        let ino = self.volume.resolve(path).unwrap();
        let mut buffer = vec![0xEE; len];
        let read = self.volume.read(ino, offset as u64, &mut buffer).unwrap();
        let end = bytes.len().min(offset + len);
        assert_eq!(&buffer[..read], bytes.get(offset..end).unwrap_or_default());
    }

    fn set_len(&mut self, path: &str, len: usize) {
        let result = self
            .volume
            .resolve(path)
            .and_then(|ino| self.volume.set_len(ino, len as u64, now(3)));
        match self.model.get_mut(path) {
            Some(Some(bytes)) => {
                result.unwrap();
                bytes.resize(len, 0);
            }
            _ => assert!(result.is_err()),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let result = self.at(from).and_then(|from| {
            let to = self.at(to)?;
            self.volume.rename(from.0, from.1, to.0, to.1)
        });
        let fits = match (self.model.get(from), self.model.get(to)) {
            (None, _) => false,
            _ if !self.has_parent(to) => false,
            _ if from == to => true,
            (Some(None), _) if to.starts_with(&format!("{from}/")) => false,
            (Some(_), None) => true,
            (Some(Some(_)), Some(Some(_))) => true,
            (Some(None), Some(None)) => self.below(to).is_empty(),
            _ => false,
        };
        assert_eq!(result.is_ok(), fits, "{from} to {to}: {result:?}");
        if fits && from != to {
            for path in self.below(from).into_iter().chain([from.to_owned()]) {
                let moved = self.model.remove(&path).unwrap();
                self.model.insert(path.replacen(from, to, 1), moved);
            }
        }
    }

    fn remove(&mut self, path: &str) {
        let is_directory = matches!(self.model.get(path), Some(None));
        let result = self.at(path).and_then(|(at, name)| match is_directory {
            true => self.volume.rmdir(at, name),
            false => self.volume.unlink(at, name),
        });
        let fits = self.model.contains_key(path) && self.below(path).is_empty();
        assert_eq!(result.is_ok(), fits, "{path}: {result:?}");
        if fits {
            self.model.remove(path);
        }
    }

    fn flush(&mut self) {
        let before = self.volume.version();
        let was_dirty = self.volume.dirty();
        let version = self.volume.flush().unwrap();
        assert_eq!(version.get(), before.get() + u64::from(was_dirty));
        assert!(!self.volume.dirty());
        assert_eq!(self.volume.dirty_bytes(), 0);
        self.flushed = Some(self.model.clone());
    }

    fn crash(&mut self) {
        let (volumes, id) = (self.volumes(), self.volume.id());
        match &self.flushed {
            Some(flushed) => {
                let version = self.volume.version();
                self.volume = Volume::open(&volumes, id).unwrap();
                assert_eq!(self.volume.version(), version);
                self.model = flushed.clone();
            }
            None => {
                assert!(matches!(
                    Volume::open(&volumes, id),
                    Err(VolumeError::NotFound)
                ));
                let base = volumes.base(self.volume.base().id()).unwrap();
                self.volume = Volume::create(&volumes, id, &base).unwrap();
                self.model = shown(&self.volume);
            }
        }
    }

    fn fork(&mut self) {
        let id = id(self.new_id());
        let volumes = self.volumes();
        let base = volumes.base(self.volume.share().unwrap()).unwrap();
        let fork = Volume::create(&volumes, id, &base).unwrap();
        // The parent overwrites all it has; then each shows its own.
        for (path, bytes) in &self.model {
            if let Some(bytes) = bytes {
                let ino = self.volume.resolve(path).unwrap();
                self.volume
                    .write(ino, 0, &vec![0x77; bytes.len() + 1], now(4))
                    .unwrap();
            }
        }
        let overwritten = self.model.iter().map(|(path, bytes)| {
            let bytes = bytes.as_ref().map(|bytes| vec![0x77; bytes.len() + 1]);
            (path.clone(), bytes)
        });
        assert_eq!(shown(&self.volume), overwritten.collect::<Model>());
        assert_eq!(shown(&fork), self.model);
        // A fork that was never flushed is nothing after a crash: flush, so that the next can be told.
        fork.flush().unwrap();
        self.flushed = Some(self.model.clone());
        self.volume = fork;
    }

    fn template(&mut self) {
        let number = self.new_id();
        let directory = self.directory.path().join(format!("template{number}"));
        let template_id = TemplateId::from_bytes([number as u8; 16]);
        self.volume
            .save_as_template(&directory, template_id)
            .unwrap();
        let template = Template::open(&directory).unwrap();
        self.templates.push(Arc::clone(&template));
        self.volume =
            Volume::create(&self.volumes(), id(number), &Base::template(template)).unwrap();
        self.flushed = None;
        assert_eq!(self.volume.own_bytes(), 0);
    }

    /// The paths below a directory, shortest last.
    fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.model
            .keys()
            .filter(|path| path.starts_with(&prefix))
            .rev()
            .cloned()
            .collect()
    }

    /// The directory and the name of a path.
    fn at<'a>(&self, path: &'a str) -> Result<(Ino, &'a str), VolumeError> {
        let parent = parent(path);
        Ok((
            self.volume.resolve(&format!("{parent}/"))?,
            &path[parent.len() + 1..],
        ))
    }
}

fn parent(path: &str) -> &str {
    &path[..path.rfind('/').unwrap()]
}

fn id(number: u64) -> DatabaseId {
    DatabaseId::new(number).unwrap()
}

fn now(seconds: i64) -> Mtime {
    Mtime { seconds, nanos: 0 }
}

/// Bytes that differ from page to page; zeros for 0, so that holes are made too.
fn pattern(byte: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| byte.wrapping_mul((at / 1000 + 1) as u8))
        .collect()
}

/// All that a volume shows.
fn shown(volume: &Volume) -> Model {
    let mut model = Model::new();
    let mut to_visit = vec![(String::new(), Ino::ROOT)];
    while let Some((path, ino)) = to_visit.pop() {
        for entry in volume.list(ino).unwrap() {
            let path = format!("{path}/{}", entry.name);
            let content = match entry.kind {
                NodeKind::Directory => {
                    to_visit.push((path.clone(), entry.ino));
                    None
                }
                _ => {
                    let mut bytes = vec![0; volume.node(entry.ino).unwrap().len as usize];
                    assert_eq!(volume.read(entry.ino, 0, &mut bytes).unwrap(), bytes.len());
                    Some(bytes)
                }
            };
            model.insert(path, content);
        }
    }
    model
}

/// Own pages are counted right: no more than the files span, and none are lost.
fn check_room(pair: &Pair, path: &Path) {
    let spanned: usize = pair
        .model
        .values()
        .flatten()
        .map(|bytes| bytes.len().div_ceil(PAGE_BYTES))
        .sum();
    assert!(pair.volume.own_bytes() <= (spanned * PAGE_BYTES) as u64);
    // Its own pages and those of its layers.
    let files = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let on_disk: u64 = files
        .filter(|file| file.path().extension().is_some_and(|end| end == "pages"))
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(on_disk >= pair.volume.own_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_volume_is_what_the_model_says(operations in prop::collection::vec(operation(), 1..80)) {
        let mut pair = Pair::new();
        for operation in &operations {
            pair.apply(operation);
            prop_assert_eq!(&shown(&pair.volume), &pair.model, "after {:?}", operation);
            check_room(&pair, pair.directory.path());
        }
        pair.flush();
        pair.crash();
        prop_assert_eq!(shown(&pair.volume), pair.model);
    }
}
