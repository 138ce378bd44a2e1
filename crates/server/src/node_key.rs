//! The node's own key: what must not be readable on the disk, or in a copy of it, is sealed with keys that come of it.
//!
//! For each purpose there is another key, by HKDF (RFC 5869), so that what is sealed for one opens for no other, and a key
//! that becomes known tells nothing of the others.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use crate::secret_file;

/// The file in the data directory.
const FILE: &str = "node.key";

/// Bytes of the key, and of each that comes of it.
const BYTES: usize = 32;

/// Tells our keys from others' that are made of the same bytes.
const SALT: &[u8] = b"dormouse node key 1";

/// The node's own key.
pub struct NodeKey(Prk);

/// There is no key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct NodeKeyError {
    /// The file that it is, or was to be, in.
    path: PathBuf,
    source: io::Error,
}

impl NodeKey {
    /// The key in the data directory, which is made if it is not there. Blocks for the disk.
    ///
    /// # Errors
    /// If it cannot be read or made.
    pub fn of_data(data: &Path) -> Result<Self, NodeKeyError> {
        let path = data.join(FILE);
        let read = match secret_file::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
            read => read,
        };
        read.and_then(|bytes| Self::of_bytes(&bytes))
            .map_err(|source| NodeKeyError { path, source })
    }

    /// The key in a file that somebody else has made: 32 bytes, or 64 hexadecimal digits. Blocks for the disk.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn of_file(path: &Path) -> Result<Self, NodeKeyError> {
        let read = secret_file::read(path);
        read.and_then(|bytes| Self::of_bytes(&bytes))
            .map_err(|source| NodeKeyError {
                path: path.to_owned(),
                source,
            })
    }

    fn of_bytes(bytes: &[u8]) -> io::Result<Self> {
        let decoded = decoded(bytes);
        let key = match &decoded {
            Some(decoded) => &decoded[..],
            None => bytes,
        };
        if key.len() != BYTES {
            return Err(io::Error::other(
                "a node's key is 32 bytes, or 64 hexadecimal digits, as of `openssl rand -hex 32`",
            ));
        }
        Ok(Self(Salt::new(HKDF_SHA256, SALT).extract(key)))
    }

    /// The key for a purpose.
    pub fn for_purpose(&self, purpose: &str) -> Zeroizing<[u8; BYTES]> {
        let mut key = Zeroizing::new([0; BYTES]);
        let info = [purpose.as_bytes()];
        let expanded = self.0.expand(&info, HKDF_SHA256);
        expanded
            .and_then(|expanded| expanded.fill(&mut *key))
            .expect("BUG: 32 bytes are what HKDF with SHA-256 gives");
        key
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

/// Makes a key: beside its place, synced, then named, so that after a crash it is there whole or not at all.
fn make(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; BYTES]);
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let beside = path.with_extension("key.new");
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
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    Ok(bytes)
}

/// The bytes of 64 hexadecimal digits, if these are some.
fn decoded(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.trim_ascii();
    if digits.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
    for pair in digits.chunks(2) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(pair[0])?, digit(pair[1])?);
        bytes.push((high << 4 | low) as u8);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = NodeKey::of_data(folder.path()).unwrap();
        let again = NodeKey::of_data(folder.path()).unwrap();
        assert_eq!(first.for_purpose("a"), again.for_purpose("a"));
        assert_ne!(first.for_purpose("a"), first.for_purpose("b"));
        let path = folder.path().join(FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 32);
        let other = tempfile::tempdir().unwrap();
        let other = NodeKey::of_data(other.path()).unwrap();
        assert_ne!(first.for_purpose("a"), other.for_purpose("a"));
        std::fs::write(&path, [0; 31]).unwrap();
        let error = NodeKey::of_data(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("node.key: a node's key is 32 bytes"),
            "{error}"
        );
    }

    #[test]
    fn one_that_others_have_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        NodeKey::of_file(&path).unwrap_err();
        std::fs::write(&path, [0xab; 32]).unwrap();
        let bytes = NodeKey::of_file(&path).unwrap();
        std::fs::write(&path, format!("{}\n", "aB".repeat(32))).unwrap();
        let digits = NodeKey::of_file(&path).unwrap();
        assert_eq!(bytes.for_purpose("a"), digits.for_purpose("a"));
        for bad in ["", "ab", &"x".repeat(64)] {
            std::fs::write(&path, bad).unwrap();
            NodeKey::of_file(&path).unwrap_err();
        }
    }
}
