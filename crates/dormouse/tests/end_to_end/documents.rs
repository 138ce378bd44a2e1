//! What documents say of tests is so.

use std::collections::BTreeSet;
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

/// All functions of the sources, and all files of tests that are no Rust.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
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
            } else if let Some(name) = name.strip_suffix(".rs") {
                known.insert(name.to_owned());
                functions(&fs::read_to_string(&path).unwrap(), &mut known);
            } else if name.ends_with(".mjs") {
                known.insert(name);
            }
        }
    }
    known
}

fn functions(source: &str, known: &mut BTreeSet<String>) {
    for line in source.lines() {
        let Some((_, rest)) = line.split_once("fn ") else {
            continue;
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        known.insert(rest[..end].to_owned());
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
    let known = known();
    for document in ["SEMANTICS.md", "docs/acceptance.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut count = 0;
        for name in quoted(&text).filter(|name| is_test(name) || name.ends_with(".mjs")) {
            for part in name.split("::") {
                assert!(
                    known.contains(part),
                    "{document} names {name}, and there is no {part}"
                );
            }
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
