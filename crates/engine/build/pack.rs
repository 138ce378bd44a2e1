//! Compresses the modules and the tree into the archive that `src/distribution/format.rs` draws.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::Result;
use crate::checked::Files;
use crate::format::{Entry, INITDB_WASM, Index, Kind, MAGIC, PGLITE_WASM, Section};
use crate::tree::Tree;

/// Level 19 would make 5.9 MB of 6.9, and take 5.5 s instead of 0.7 (16 s if not optimized).
const ZSTD_LEVEL: i32 = 12;

/// Contents of one section, before compression.
struct Raw {
    contents: Vec<u8>,
    kept: bool,
}

pub(crate) fn pack(files: &Files, tree: &Tree) -> Result<Vec<u8>> {
    let mut raws = Vec::new();
    for (at, name) in [(PGLITE_WASM, "pglite.wasm"), (INITDB_WASM, "initdb.wasm")] {
        assert_eq!(
            at,
            raws.len(),
            "BUG: the modules are the first sections, in this order"
        );
        raws.push(Raw {
            contents: files.of_pglite(name)?.to_vec(),
            kept: false,
        });
    }
    let mut entries = entries_of_files(tree, &mut raws)?;
    entries.extend(directories(tree).into_iter().map(|path| Entry {
        path,
        kind: Kind::Directory,
    }));
    entries.sort_by(|a, b| a.path.cmp(&b.path));

    let mut sections = Vec::with_capacity(raws.len());
    for raw in &raws {
        let sha256 = Sha256::digest(&raw.contents).into();
        let len = size(raw.contents.len())?;
        sections.push(Section {
            packed_len: 0,
            len,
            kept: raw.kept,
            sha256,
        });
    }
    let mut index = Index {
        id: [0; 32],
        sections,
        entries,
    };
    // Taken before anything is compressed: the id is the same at every level of compression.
    index.id = Sha256::digest(index.encode()).into();

    let mut packed = Vec::new();
    for (raw, section) in raws.iter().zip(&mut index.sections) {
        let compressed = compress(&raw.contents)?;
        section.packed_len = size(compressed.len())?;
        packed.extend_from_slice(&compressed);
    }
    let compressed_index = compress(&index.encode())?;
    let mut archive = MAGIC.to_vec();
    archive.extend_from_slice(&size(compressed_index.len())?.to_le_bytes());
    archive.extend_from_slice(&compressed_index);
    archive.extend_from_slice(&packed);
    Ok(archive)
}

/// Appends the files of each group to one section.
fn entries_of_files(tree: &Tree, raws: &mut Vec<Raw>) -> Result<Vec<Entry>> {
    let mut section_of = BTreeMap::new();
    let mut entries = Vec::new();
    for (path, file) in tree {
        let is_library = path.ends_with(".so");
        let group = match path {
            // Compiled once and then found by hash in the engine's cache: each on its own.
            _ if is_library => path,
            // `pg_available_extensions` reads them all, and nothing else of the extensions.
            _ if path.ends_with(".control") => "*.control",
            _ => &file.group,
        };
        let section = *section_of.entry(group).or_insert_with(|| {
            raws.push(Raw {
                contents: Vec::new(),
                kept: !is_library,
            });
            raws.len() - 1
        });
        let contents = &mut raws[section].contents;
        let kind = Kind::File {
            section: size(section)?,
            start: size(contents.len())?,
            len: size(file.contents.len())?,
            executable: path.starts_with("/pglite/bin/"),
        };
        contents.extend_from_slice(&file.contents);
        entries.push(Entry {
            path: path.as_str().into(),
            kind,
        });
    }
    Ok(entries)
}

fn directories(tree: &Tree) -> BTreeSet<Box<str>> {
    let mut directories = BTreeSet::from(["/".into()]);
    for path in tree.keys() {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
        directories.extend(ends.map(|at| path[..at].into()));
    }
    directories
}

fn compress(contents: &[u8]) -> Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)
        .and_then(|mut compressor| compressor.include_checksum(true).map(|()| compressor))
        .map_err(|e| format!("zstd cannot start: {e}"))?;
    compressor
        .compress(contents)
        .map_err(|e| format!("zstd cannot compress: {e}"))
}

fn size(value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| format!("{value} bytes are too many for one section"))
}
