use super::*;
use crate::{Manifest, modules::Code};
use std::{
    fs,
    process::{Command, Stdio},
};

/// Turns bytes round, and minds the context.
#[derive(Debug)]
struct Backwards;

impl Vault for Backwards {
    fn seal(&self, context: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut sealed = format!("{context}:").into_bytes();
        sealed.extend(bytes.iter().rev());
        Ok(sealed)
    }

    fn open(&self, context: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let inside = sealed.strip_prefix(format!("{context}:").as_bytes());
        let inside = inside.ok_or_else(|| io::Error::other("sealed for another"))?;
        Ok(inside.iter().rev().copied().collect())
    }
}

fn open(root: &Path) -> Store {
    Store::open(root.join("deployments"), 2, Arc::new(Backwards)).unwrap()
}

fn app(text: &str) -> App {
    App {
        repository: Repository::parse(text).unwrap(),
        environment: Environment::of_branch("main").unwrap(),
    }
}

fn new(sha: &str) -> NewVersion {
    let module = |name: &str, code: &str| crate::modules::Module {
        name: name.to_owned(),
        code: Code::Script(code.to_owned()),
    };
    let value = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    NewVersion {
        source: Source {
            repository: "Owner/Shop".to_owned(),
            branch: "main".to_owned(),
            commit_sha: sha.to_owned(),
        },
        manifest: Manifest::default(),
        backend: Some(Backend {
            entrypoint: "worker/index.js".to_owned(),
            modules: vec![module("index.js", sha), module("lib/ä.js", "")],
            compatibility: crate::modules::Compatibility::default(),
        }),
        site: Some(BTreeMap::from([
            ("../../evil".to_owned(), b"e".to_vec()),
            ("index.html".to_owned(), b"<html>".to_vec()),
        ])),
        vars: value("A", "visible").into_iter().collect(),
        secrets: value("KEY", "hunter2").into_iter().collect(),
        domains: vec!["shop.example".to_owned()],
    }
}

#[test]
fn a_version_is_kept_and_made_current() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let app = app("owner/shop");
    assert!(store.current(&app).unwrap().is_none());
    let version = store.add(&app, new("one"), 7).unwrap();
    assert!(store.current(&app).unwrap().is_none(), "not yet");
    store.make_current(&app, version.number).unwrap();
    drop(store);

    let store = open(folder.path());
    assert_eq!(store.apps().unwrap(), std::slice::from_ref(&app));
    let current = store.current(&app).unwrap().unwrap();
    assert_eq!(current, version);
    assert_eq!((current.number, current.deployed_at_ms), (1, 7));
    assert_eq!(store.backend(&current).unwrap(), new("one").backend);
    let site = current.site.clone().unwrap();
    assert_eq!(
        store.read(&current, &site["index.html"]).unwrap(),
        b"<html>"
    );
    assert_eq!(store.read(&current, &site["../../evil"]).unwrap(), b"e");
    let (vars, secrets) = store.values(&current).unwrap();
    assert_eq!(vars.iter().next(), Some(("A", "visible")));
    assert_eq!(secrets.iter().next(), Some(("KEY", "hunter2")));
    let record = fs::read_to_string(store.record_path(&app, 1)).unwrap();
    assert!(!record.contains("hunter2") && !record.contains("visible"));
    assert!(!folder.path().join("evil").exists() && !folder.path().join("../evil").exists());
}

#[test]
fn history_rollback_and_what_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let app = app("owner/shop");
    let numbers = || {
        let history = store.history(&app).unwrap();
        history
            .iter()
            .map(|version| version.number)
            .collect::<Vec<_>>()
    };
    for sha in ["a", "b", "c"] {
        let version = store.add(&app, new(sha), 1).unwrap();
        store.make_current(&app, version.number).unwrap();
    }
    assert_eq!(numbers(), [3, 2, 1]);
    store.make_current(&app, 1).unwrap();
    assert_eq!(store.current(&app).unwrap().unwrap().source.commit_sha, "a");
    let version = store.add(&app, new("d"), 1).unwrap();
    assert_eq!(version.number, 4);
    store.make_current(&app, 4).unwrap();
    assert_eq!(numbers(), [4, 3, 2], "two beside the one that serves");
    assert!(!store.pack_path(&app, 1).exists());
    assert!(matches!(
        store.make_current(&app, 1),
        Err(StoreError::NoVersion { number: 1, .. })
    ));
    assert_eq!(store.current(&app).unwrap().unwrap().number, 4);
    store.delete(&app).unwrap();
    assert!(store.current(&app).unwrap().is_none());
    assert!(store.apps().unwrap().is_empty());
}

#[test]
fn the_same_content_has_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let app = app("owner/shop");
    let mut other = new("a");
    other.secrets = Values::default();
    let digests = [new("a"), other, new("b")].map(|new| store.add(&app, new, 1).unwrap().digest);
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[test]
fn what_was_not_finished_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let app = app("owner/shop");
    store.add(&app, new("a"), 1).unwrap();
    let inside = store.folder(&app);
    fs::write(inside.join("2.pack"), "x").unwrap();
    fs::write(inside.join("2.json.unfinished"), "x").unwrap();
    drop(store);
    let store = open(folder.path());
    let mut names = disk::names(&inside).unwrap();
    names.sort();
    assert_eq!(names, ["1.json", "1.pack"]);
    assert_eq!(store.add(&app, new("b"), 1).unwrap().number, 2);
}

#[test]
fn damage_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (app, other) = (app("owner/shop"), app("owner/other"));
    let version = store.add(&app, new("a"), 1).unwrap();
    let pack = store.pack_path(&app, 1);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[0] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    assert!(matches!(
        store.backend(&version),
        Err(StoreError::Damaged { .. })
    ));
    fs::write(&pack, "").unwrap();
    assert!(matches!(
        store.backend(&version),
        Err(StoreError::Damaged { .. })
    ));
    store.add(&other, new("a"), 1).unwrap();
    fs::copy(store.record_path(&other, 1), store.record_path(&app, 1)).unwrap();
    assert!(matches!(
        store.version(&app, 1),
        Err(StoreError::Damaged { .. })
    ));
    fs::write(store.folder(&app).join(CURRENT), "x").unwrap();
    assert!(matches!(
        store.current(&app),
        Err(StoreError::Damaged { .. })
    ));
}

/// The other side of the test below: deploys for ever, and says so after each.
#[test]
#[ignore = "run by another test, to be killed"]
fn deploys_until_it_is_killed() {
    use io::Write as _;
    let root = std::env::var_os("DORMOUSE_STORE").unwrap();
    let store = open(Path::new(&root));
    let app = app("owner/shop");
    for round in 0_u64.. {
        let version = store.add(&app, new(&round.to_string()), round).unwrap();
        store.make_current(&app, version.number).unwrap();
        let mut output = io::stdout();
        writeln!(output, "\ndeployed {}", version.number).unwrap();
        output.flush().unwrap();
    }
}

/// Killed at any point, the version that serves is whole, and none that was told to serve is lost.
#[test]
fn a_kill_leaves_a_whole_version() {
    use io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let app = app("owner/shop");
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("store::tests::deploys_until_it_is_killed")
            .env("DORMOUSE_STORE", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = |line: String| {
            line.strip_prefix("deployed ")
                .map(|n| n.parse::<u64>().unwrap())
        };
        let mut last = 0;
        // Each round is killed after another number of deployments.
        for _ in 0..=round {
            let mut numbers = lines.by_ref().map(Result::unwrap).filter_map(told);
            last = numbers.next().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let rest = lines.map(Result::unwrap).filter_map(told);
        last = rest.last().unwrap_or(last);

        let store = open(folder.path());
        let current = store.current(&app).unwrap().unwrap();
        assert!(current.number >= last, "{} < {last}", current.number);
        let backend = store.backend(&current).unwrap().unwrap();
        let code = Code::Script(current.source.commit_sha.clone());
        assert_eq!(backend.modules[0].code, code);
        store.values(&current).unwrap();
        for version in store.history(&app).unwrap() {
            store.backend(&version).unwrap();
        }
    }
}

#[test]
fn a_file_is_read_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let app = app("owner/shop");
    let version = store.add(&app, new("one"), 7).unwrap();
    let file = version.site.as_ref().unwrap()["index.html"].clone();
    let opened = || store.open_file(&version, &file).unwrap();
    let all = |mut parts: Parts, most| {
        let mut read = Vec::new();
        while parts.left() > 0 {
            match parts.read(most) {
                Ok(part) => read.push(String::from_utf8(part).unwrap()),
                Err(error) => read.push(error.to_string()),
            }
        }
        read
    };
    assert_eq!(all(opened().parts(0..6), 4), ["<htm", "l>"]);
    assert_eq!(all(opened().parts(1..3), 4), ["ht"]);
    assert_eq!(all(opened().parts(4..99), 1), ["l", ">"]);
    assert!(all(opened().parts(6..6), 1).is_empty());
    // What was opened stays; of what was changed the last part does not come.
    let kept = opened();
    let pack = store.pack_path(&app, version.number);
    let mut bytes = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();
    assert_eq!(all(kept.parts(0..6), 9), ["<html>"]);
    bytes[usize::try_from(file.offset).unwrap()] = b'X';
    fs::write(&pack, &bytes).unwrap();
    assert_eq!(
        all(opened().parts(0..6), 4),
        ["Xhtm", "the file is not what was written"]
    );
    fs::write(&pack, &bytes[..bytes.len() - 1]).unwrap();
    let last = version
        .site
        .as_ref()
        .unwrap()
        .values()
        .max_by_key(|file| file.offset);
    assert!(store.open_file(&version, last.unwrap()).is_err());
}
