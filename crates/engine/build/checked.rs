//! The files that are used, each checked against the SHA-256 that is committed for it.
//!
//! npm checks what it downloads; this also covers the folder in `DORMOUSE_ARTEFACTS` and a cache
//! that was damaged since.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Result;
use crate::fetch::{Folder, OVERRIDE, Source};

/// `files.sha256`: lines of `HASH  NAME`, as `sha256sum` writes and checks them.
pub(crate) struct List {
    hash_of: BTreeMap<String, String>,
}

/// Contents by name, all of them checked.
pub(crate) struct Files {
    contents_of: BTreeMap<String, Vec<u8>>,
}

impl List {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let mut hash_of = BTreeMap::new();
        for line in text.lines() {
            let (hash, name) = line
                .split_once("  ")
                .filter(|(hash, _)| hash.len() == 64)
                .ok_or_else(|| format!("{}: not `HASH  NAME`: {line}", path.display()))?;
            hash_of.insert(name.to_owned(), hash.to_owned());
        }
        Ok(Self { hash_of })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.hash_of.keys().map(String::as_str)
    }

    /// Reads every listed file, and refuses all if one is missing or differs.
    pub(crate) fn load(&self, folder: &Folder) -> Result<Files> {
        let mut contents_of = BTreeMap::new();
        for (name, expected) in &self.hash_of {
            let path = folder.path.join(name);
            let contents = fs::read(&path)
                .map_err(|e| format!("cannot read {}: {e}\n{}", path.display(), remedy(folder)))?;
            let found = hex(&Sha256::digest(&contents));
            if found != *expected {
                return Err(format!(
                    "{} is not the file that this version of Dormouse was made for.\n\
                     expected SHA-256 {expected} (crates/engine/artefacts/files.sha256)\n\
                     found    SHA-256 {found}\n{}",
                    path.display(),
                    remedy(folder)
                ));
            }
            contents_of.insert(name.clone(), contents);
        }
        Ok(Files { contents_of })
    }
}

impl Files {
    /// A file in `dist` of the package `@electric-sql/pglite`.
    pub(crate) fn of_pglite(&self, name: &str) -> Result<&[u8]> {
        self.contents_of
            .get(&format!("@electric-sql/pglite/dist/{name}"))
            .map(Vec::as_slice)
            .ok_or_else(|| format!("crates/engine/artefacts/files.sha256 does not list {name}"))
    }

    /// The archive of each extension, with its name.
    pub(crate) fn extensions(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.contents_of
            .iter()
            .filter(|(name, _)| name.ends_with(".tar.gz"))
            .map(|(name, contents)| (name.as_str(), contents.as_slice()))
    }
}

fn remedy(folder: &Folder) -> String {
    match folder.source {
        Source::Override => {
            format!(
                "Check the folder that {OVERRIDE} names, or unset it to let npm bring the files."
            )
        }
        Source::Npm => {
            let installed = folder.path.parent().unwrap_or(&folder.path);
            format!(
                "If the copy is damaged, `rm -rf {}` and build again.",
                installed.display()
            )
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
