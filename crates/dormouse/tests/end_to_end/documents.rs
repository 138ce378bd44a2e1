//! What documents say of tests is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The behaviours of `docs/acceptance.md`.
const BEHAVIOURS: usize = 27;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The tests of the sources by name, each with the folders and the file that it is in, and files of tests that are no Rust.
#[derive(Default)]
struct Known {
    tests: BTreeMap<String, Vec<BTreeSet<String>>>,
    files: BTreeSet<String>,
}

impl Known {
    fn all() -> Self {
        let mut known = Self::default();
        let mut open = vec![
            root().join("crates"),
            root().join("clients"),
            root().join("xtask"),
        ];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    if !["target", "node_modules"].contains(&&*name) {
                        open.push(path);
                    }
                } else if name.ends_with(".rs") {
                    known.file(&path);
                } else if name.ends_with(".mjs") {
                    known.files.insert(name);
                }
            }
        }
        known
    }

    fn file(&mut self, path: &Path) {
        let within = path.strip_prefix(root()).unwrap().with_extension("");
        let mut places: BTreeSet<String> = within
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        // As modules in their own file are called.
        places.insert("tests".to_owned());
        let source = fs::read_to_string(path).unwrap();
        let mut is_test = false;
        for line in source.lines().map(str::trim) {
            if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ")
                && std::mem::take(&mut is_test)
            {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let of_name = self.tests.entry(rest[..end].to_owned()).or_default();
                of_name.push(places.clone());
            }
        }
    }

    /// Whether there is such a test, in modules that are called like this; or such a module, with tests in it.
    fn has(&self, name: &str) -> bool {
        if name.ends_with(".mjs") {
            return self.files.contains(name);
        }
        let is_in = |places: &BTreeSet<String>, modules: &str| {
            modules.split("::").all(|module| places.contains(module))
        };
        let (modules, last) = name.rsplit_once("::").unwrap();
        match self.tests.get(last) {
            Some(places) => places.iter().any(|places| is_in(places, modules)),
            None => self
                .tests
                .values()
                .flatten()
                .any(|places| is_in(places, name)),
        }
    }
}

/// What is between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A name as tests are called, with the modules that it is in.
fn is_test(text: &str) -> bool {
    let is_part = |part: &str| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !part.is_empty() && part.bytes().all(known)
    };
    text.contains("::") && text.split("::").all(is_part)
}

#[test]
fn every_test_that_is_named_is_there() {
    let known = Known::all();
    for document in ["SEMANTICS.md", "docs/acceptance.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut count = 0;
        for name in quoted(&text).filter(|name| is_test(name) || name.ends_with(".mjs")) {
            assert!(
                known.has(name),
                "{document} names {name}, and there is no such test"
            );
            count += 1;
        }
        assert!(count > 30, "{document} names {count} tests");
    }
}

/// The table has each behaviour once, in their order, and each names a test of it or says why there is none.
#[test]
fn every_behaviour_has_its_row() {
    let text = fs::read_to_string(root().join("docs/acceptance.md")).unwrap();
    let rows: Vec<(usize, &str)> = text
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
            Some((number.parse().ok()?, rest))
        })
        .collect();
    let numbers: Vec<_> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=BEHAVIOURS).collect::<Vec<_>>());
    for (number, rest) in rows {
        assert!(quoted(rest).any(is_test), "{number} names no test");
    }
}
