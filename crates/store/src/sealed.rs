//! Sealed files: small files written whole, replaced atomically, and refused when anything is off.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "DORMOUSE"
//!      8      8  kind, chosen by the room that owns the format
//!     16      2  format version of the payload, u16
//!     18      8  owner, u64: the id of the database the file belongs to, 0 for none
//!     26      8  payload length in bytes, u64
//!     34      4  crc32c of the payload, u32
//!     38      4  crc32c of bytes 0..38, u32
//!     42      …  payload, to the end of the file
//! ```
//! All integers are little endian.
//!
//! Invariants
//! 1. At every instant, crash included, a path holds its old content whole or its new content whole.
//! 2. When `write_sealed` returns Ok, the new content is on the disk under that name.
//! 3. `read_sealed` returns the bytes that were given to `write_sealed`, or an error; it allocates no
//!    more than the file is long.
//! 4. One writer a path at a time: the temporary file has a fixed name, so that a crash leaves at
//!    most one behind and the next write takes it over. The caller serializes.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, OpenHow};

const MAGIC: [u8; 8] = *b"DORMOUSE";
const HEADER_BYTES: usize = 42;
/// The header's own checksum covers what stands before it.
const HEADER_CHECKED_BYTES: usize = HEADER_BYTES - 4;
/// Ending of the temporary file beside the one that is being replaced.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Why a sealed file could not be written or was refused.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The operating system refused; the file of that name is as it was before.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The new content has its name, but whether that survives a crash is not known.
    #[error(
        "{} was replaced, but its directory could not be synced: {source}; after a crash it may hold \
         the old content or the new: read it again before relying on either",
        path.display()
    )]
    NotDurable {
        /// The file that was replaced.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file does not begin with the magic bytes.
    #[error("{} is not a Dormouse file: check the path", path.display())]
    WrongMagic {
        /// The refused file.
        path: PathBuf,
    },
    /// The header does not match its checksum.
    #[error("the header of {} is damaged: restore the file from a copy", path.display())]
    HeaderDamaged {
        /// The refused file.
        path: PathBuf,
    },
    /// A whole file, but of another kind.
    #[error("{} is of kind {found}, not {expected}: check the path", path.display())]
    WrongKind {
        /// The refused file.
        path: PathBuf,
        /// The kind that was asked for.
        expected: String,
        /// The kind in the header.
        found: String,
    },
    /// A whole file, in a format this program does not know.
    #[error(
        "{} has format version {found}, this program reads {expected}: use the program that wrote it",
        path.display()
    )]
    WrongVersion {
        /// The refused file.
        path: PathBuf,
        /// The format version that was asked for.
        expected: u16,
        /// The format version in the header.
        found: u16,
    },
    /// A whole file of another database.
    #[error(
        "{} belongs to database {found:016x}, not {expected:016x}: put it back where it came from",
        path.display()
    )]
    WrongOwner {
        /// The refused file.
        path: PathBuf,
        /// The owner that was asked for.
        expected: u64,
        /// The owner in the header.
        found: u64,
    },
    /// The file ends too early.
    #[error(
        "{} is cut short, {found} of {expected} bytes: restore the file from a copy",
        path.display()
    )]
    Truncated {
        /// The refused file.
        path: PathBuf,
        /// Bytes the file should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The file goes on after its payload.
    #[error(
        "{} has {found} bytes where {expected} were written: restore the file from a copy",
        path.display()
    )]
    TrailingBytes {
        /// The refused file.
        path: PathBuf,
        /// Bytes the file should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The payload does not match its checksum.
    #[error("the payload of {} is damaged: restore the file from a copy", path.display())]
    PayloadDamaged {
        /// The refused file.
        path: PathBuf,
    },
}

/// Replaces the file at `path` atomically by a sealed one with this payload, durably.
/// `version` is the payload's format version; `owner` is a database's id, or 0.
///
/// # Errors
/// [`SealedError::Io`]: the old content is still there, trying again is safe.
/// [`SealedError::NotDurable`]: the new content is there, but not known to survive a crash.
pub fn write_sealed(
    disk: &dyn Disk,
    path: &Path,
    kind: [u8; 8],
    version: u16,
    owner: u64,
    payload: &[u8],
) -> Result<(), SealedError> {
    let temporary = temporary(path);
    let header = encode_header(kind, version, owner, payload);
    let written = write_file(disk, &temporary, &header, payload).and_then(|()| {
        disk.rename(&temporary, path)
            .map_err(|source| io_error("replace", path, source))
    });
    if let Err(error) = written {
        // The next write takes the leftover over; removing it now is only tidiness.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.sync_directory(parent(path))
        .map_err(|source| SealedError::NotDurable {
            path: path.to_owned(),
            source,
        })
}

/// Writes a sealed file that may be lost: of a cache, whose content can be made anew. Neither atomic nor
/// synced, so it waits for no disk; what a crash leaves of it, [`read_sealed`] refuses.
///
/// # Errors
/// [`SealedError::Io`]: the file is refused, if there is one.
pub fn write_sealed_cache(
    disk: &dyn Disk,
    path: &Path,
    kind: [u8; 8],
    version: u16,
    owner: u64,
    payload: &[u8],
) -> Result<(), SealedError> {
    // A new file: file systems make a write over an old one wait for the disk.
    match disk.remove(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", path, source));
        }
        _ => {}
    }
    let failed = |source| io_error("write", path, source);
    let header = encode_header(kind, version, owner, payload);
    let file = disk.open(path, OpenHow::Create).map_err(failed)?;
    file.write_all_at(payload, HEADER_BYTES as u64)
        .and_then(|()| file.write_all_at(&header, 0))
        .map_err(failed)
}

/// Reads the payload of the sealed file at `path`, which must be of this kind, format version and owner.
///
/// # Errors
/// One variant of [`SealedError`] for each thing that can be wrong; never wrong bytes.
/// A missing file is [`SealedError::Io`] with [`io::ErrorKind::NotFound`].
pub fn read_sealed(
    disk: &dyn Disk,
    path: &Path,
    kind: [u8; 8],
    version: u16,
    owner: u64,
) -> Result<Vec<u8>, SealedError> {
    let failed = |source| io_error("read", path, source);
    let file = disk.open(path, OpenHow::Read).map_err(failed)?;
    let file_bytes = file.len().map_err(failed)?;

    if file_bytes < HEADER_BYTES as u64 {
        let expected = HEADER_BYTES as u64;
        return Err(SealedError::Truncated {
            path: path.into(),
            expected,
            found: file_bytes,
        });
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let header = decode_header(path, &header, kind, version, owner)?;

    let expected = header.payload_bytes.saturating_add(HEADER_BYTES as u64);
    if file_bytes < expected {
        return Err(SealedError::Truncated {
            path: path.into(),
            expected,
            found: file_bytes,
        });
    }
    if file_bytes > expected {
        return Err(SealedError::TrailingBytes {
            path: path.into(),
            expected,
            found: file_bytes,
        });
    }
    let mut payload = vec![0; header.payload_bytes as usize];
    file.read_exact_at(&mut payload, HEADER_BYTES as u64)
        .map_err(failed)?;
    if crc32c::crc32c(&payload) != header.payload_crc {
        return Err(SealedError::PayloadDamaged { path: path.into() });
    }
    Ok(payload)
}

/// Removes the sealed file at `path` durably, and what a crashed write left beside it. None being there
/// is fine.
///
/// # Errors
/// [`SealedError::Io`]: the file may still be there, or be there again after a crash; call again.
pub fn remove_sealed(disk: &dyn Disk, path: &Path) -> Result<(), SealedError> {
    for path in [&temporary(path), path] {
        match disk.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", path, source));
            }
            _ => {}
        }
    }
    let directory = parent(path);
    disk.sync_directory(directory)
        .map_err(|source| io_error("sync", directory, source))
}

/// What the reader still needs of a header that was found in order.
struct Header {
    payload_bytes: u64,
    payload_crc: u32,
}

fn encode_header(kind: [u8; 8], version: u16, owner: u64, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&kind);
    header[16..18].copy_from_slice(&version.to_le_bytes());
    header[18..26].copy_from_slice(&owner.to_le_bytes());
    header[26..34].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[34..38].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&header[..HEADER_CHECKED_BYTES]);
    header[HEADER_CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn decode_header(
    path: &Path,
    header: &[u8; HEADER_BYTES],
    kind: [u8; 8],
    version: u16,
    owner: u64,
) -> Result<Header, SealedError> {
    let path = || path.to_owned();
    let found_kind: [u8; 8] = field(header, 8);
    let found_version = u16::from_le_bytes(field(header, 16));
    let found_owner = u64::from_le_bytes(field(header, 18));
    if field::<8>(header, 0) != MAGIC {
        return Err(SealedError::WrongMagic { path: path() });
    }
    // Before the fields: a flipped bit in one of them is damage, not somebody else's file.
    if u32::from_le_bytes(field(header, 38)) != crc32c::crc32c(&header[..HEADER_CHECKED_BYTES]) {
        return Err(SealedError::HeaderDamaged { path: path() });
    }
    if found_kind != kind {
        let (expected, found) = (kind.escape_ascii(), found_kind.escape_ascii());
        let (expected, found) = (expected.to_string(), found.to_string());
        return Err(SealedError::WrongKind {
            path: path(),
            expected,
            found,
        });
    }
    if found_version != version {
        let (expected, found) = (version, found_version);
        return Err(SealedError::WrongVersion {
            path: path(),
            expected,
            found,
        });
    }
    if found_owner != owner {
        let (expected, found) = (owner, found_owner);
        return Err(SealedError::WrongOwner {
            path: path(),
            expected,
            found,
        });
    }
    Ok(Header {
        payload_bytes: u64::from_le_bytes(field(header, 26)),
        payload_crc: u32::from_le_bytes(field(header, 34)),
    })
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    header[at..at + N]
        .try_into()
        .expect("BUG: a header field has its own width")
}

fn write_file(
    disk: &dyn Disk,
    path: &Path,
    header: &[u8],
    payload: &[u8],
) -> Result<(), SealedError> {
    let failed = |source| io_error("write", path, source);
    let file = disk.open(path, OpenHow::Create).map_err(failed)?;
    file.write_all_at(header, 0).map_err(failed)?;
    file.write_all_at(payload, header.len() as u64)
        .map_err(failed)?;
    file.sync_data().map_err(failed)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

/// The directory of `path`; of a bare name, the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> SealedError {
    SealedError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use std::fs;

    const KIND: [u8; 8] = *b"sandwich";

    /// A directory with one sealed file in it, and that file's path.
    fn sealed(payload: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_sealed(&RealDisk, &path, KIND, 3, 7, payload).unwrap();
        (dir, path)
    }

    #[test]
    fn a_cache_file_is_replaced_and_refused_when_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for payload in [&b"first, and longer"[..], b"second"] {
            write_sealed_cache(&RealDisk, &path, KIND, 1, 7, payload).unwrap();
            let read = read_sealed(&RealDisk, &path, KIND, 1, 7).unwrap();
            assert_eq!(read, payload);
        }
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(read_sealed(&RealDisk, &path, KIND, 1, 7).is_err());
            let mut zeroed = bytes.clone();
            zeroed[cut..].fill(0);
            fs::write(&path, &zeroed).unwrap();
            assert!(read_sealed(&RealDisk, &path, KIND, 1, 7).is_err());
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for payload in [&b""[..], b"x", &[0xA5; 100_000]] {
            let (dir, path) = sealed(payload);
            assert_eq!(read_sealed(&RealDisk, &path, KIND, 3, 7).unwrap(), payload);
            write_sealed(&RealDisk, &path, KIND, 3, 7, b"replaced").unwrap();
            assert_eq!(
                read_sealed(&RealDisk, &path, KIND, 3, 7).unwrap(),
                b"replaced"
            );
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                1,
                "no temporary file stays"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (_dir, path) = sealed(b"eleven bytes");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                let error = read_sealed(&RealDisk, &path, KIND, 3, 7).unwrap_err();
                let expected = match at {
                    0..8 => matches!(error, SealedError::WrongMagic { .. }),
                    8..42 => matches!(error, SealedError::HeaderDamaged { .. }),
                    _ => matches!(error, SealedError::PayloadDamaged { .. }),
                };
                assert!(expected, "byte {at}: {error}");
            }
        }
    }

    #[test]
    fn every_truncation_and_any_trailing_byte_is_refused() {
        let (_dir, path) = sealed(b"eleven bytes");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read_sealed(&RealDisk, &path, KIND, 3, 7).unwrap_err();
            assert!(
                matches!(error, SealedError::Truncated { .. }),
                "{length}: {error}"
            );
        }
        fs::write(&path, [&whole[..], b"!"].concat()).unwrap();
        let error = read_sealed(&RealDisk, &path, KIND, 3, 7).unwrap_err();
        assert!(matches!(
            error,
            SealedError::TrailingBytes {
                expected: 54,
                found: 55,
                ..
            }
        ));
    }

    #[test]
    fn another_kind_version_or_owner_is_refused_by_name() {
        let (_dir, path) = sealed(b"payload");
        let error = read_sealed(&RealDisk, &path, *b"omelette", 3, 7).unwrap_err();
        assert!(matches!(&error, SealedError::WrongKind { found, .. } if found == "sandwich"));
        let error = read_sealed(&RealDisk, &path, KIND, 4, 7).unwrap_err();
        assert!(matches!(
            error,
            SealedError::WrongVersion {
                expected: 4,
                found: 3,
                ..
            }
        ));
        let error = read_sealed(&RealDisk, &path, KIND, 3, 8).unwrap_err();
        assert!(matches!(
            error,
            SealedError::WrongOwner {
                expected: 8,
                found: 7,
                ..
            }
        ));
        assert!(error.to_string().contains(&path.display().to_string()));
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let (dir, path) = sealed(b"old");
        fs::create_dir(dir.path().join("file.tmp")).unwrap();
        let error = write_sealed(&RealDisk, &path, KIND, 3, 7, b"new").unwrap_err();
        assert!(matches!(error, SealedError::Io { .. }));
        assert_eq!(read_sealed(&RealDisk, &path, KIND, 3, 7).unwrap(), b"old");
    }

    #[test]
    fn removing_leaves_nothing() {
        let (dir, path) = sealed(b"payload");
        fs::write(dir.path().join("file.tmp"), "left by a crash").unwrap();
        remove_sealed(&RealDisk, &path).unwrap();
        remove_sealed(&RealDisk, &path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_file_says_so() {
        let error = read_sealed(&RealDisk, Path::new("/nonexistent/file"), KIND, 3, 7).unwrap_err();
        let SealedError::Io { source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }
}
