//! The file of static tokens.
//!
//! It is written whole beside itself and renamed, under a lock that every writer takes, so that the command line and a running server may
//! both change it, and a crash leaves the old one or the new one. A server looks once a second, while tokens are shown to
//! it, whether there is a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::token;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The version of its form that is written, and the only one that is read.
const VERSION: u32 = 1;

/// All of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Contents {
    version: u32,
    pub(super) tokens: Vec<Record>,
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scope: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) repository: Option<String>,
    /// Of the token, in hexadecimal.
    pub(super) sha256: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// Seconds since 1970 from which on it is not accepted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) expires: Option<u64>,
    /// The most bytes of a body of its requests, and of a result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) body_bytes_max: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) result_bytes_max: Option<NonZeroU64>,
}

/// Tells one state of the file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Nobody else writes the file as long as this lives.
pub(super) struct Locked(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl Default for Contents {
    fn default() -> Self {
        Self {
            version: VERSION,
            tokens: Vec::new(),
        }
    }
}

impl Contents {
    /// Reads the file; one that is not there has no tokens.
    ///
    /// # Errors
    /// If it cannot be read, or is no such file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            )));
        }
        let contents: Self = serde_json::from_slice(&bytes)
            .map_err(|error| io::Error::other(format!("it is no file of tokens: {error}")))?;
        if contents.version != VERSION {
            return Err(io::Error::other(format!(
                "its version is {}, and this program knows {VERSION}",
                contents.version
            )));
        }
        Ok(contents)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// If it cannot be written. The old one is there then, or the new one.
    pub(super) fn write(&self, path: &Path, _: &Locked) -> io::Result<()> {
        let beside = beside(path, ".new");
        let mut bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        bytes.push(b'\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    /// The record of this token.
    pub(super) fn find(&self, token: &str) -> Option<&Record> {
        let sought = hexadecimal(&token::hash(token));
        // Every record is looked at: how long it takes says nothing of a hash, which would say nothing of a token.
        let mut found = None;
        for record in &self.tokens {
            if bool::from(record.sha256.as_bytes().ct_eq(sought.as_bytes())) {
                found = Some(record);
            }
        }
        found
    }
}

impl Stamp {
    /// Of the file as it is now; none if it is not there.
    ///
    /// # Errors
    /// If the system does not say.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self {
                inode: metadata.ino(),
                bytes: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Waits until nobody else writes the file.
///
/// # Errors
/// If the lock, a file beside it, cannot be made.
pub(super) fn lock(path: &Path) -> io::Result<Locked> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))?;
    file.lock()?;
    Ok(Locked(file))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, token: &str) -> Record {
        Record {
            id: id.to_owned(),
            name: id.to_owned(),
            scope: "read".to_owned(),
            database: None,
            role: None,
            repository: None,
            sha256: hexadecimal(&token::hash(token)),
            created: 1,
            expires: None,
            body_bytes_max: None,
            result_bytes_max: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert_eq!(Contents::read(&path).unwrap(), Contents::default());
        assert_eq!(Stamp::of(&path).unwrap(), None);
        let contents = Contents {
            tokens: vec![record("a", "one"), record("b", "two")],
            ..Contents::default()
        };
        contents.write(&path, &lock(&path).unwrap()).unwrap();
        let read = Contents::read(&path).unwrap();
        assert_eq!(read, contents);
        assert_eq!(read.find("two").unwrap().id, "b");
        assert!(read.find("three").is_none());
        let before = Stamp::of(&path).unwrap();
        contents.write(&path, &lock(&path).unwrap()).unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), before);
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        for text in ["", "[]", "{\"version\":2,\"tokens\":[]}"] {
            std::fs::write(&path, text).unwrap();
            assert!(Contents::read(&path).is_err(), "{text}");
        }
    }
}
