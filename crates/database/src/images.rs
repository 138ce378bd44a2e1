//! Hibernation images: what a database's backend had in memory when it fell asleep.
//!
//! A folder with one file a database, `ID.image`: sealed, so that a damaged one is refused, and written
//! without waiting for the disk, since all of it can be made anew by booting. The payload: the length
//! of the particulars (u32), the particulars as JSON, and what [`engine::Engine::save`] gave.
//!
//! An image is used for exactly the state that it was taken of: the build of the engine, the database,
//! and the version of the volume, with nothing of the journal replayed over it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::{RealDisk, SealedError};
use volume::DatabaseId;

use crate::upkeep::Upkeep;

const KIND: [u8; 8] = *b"hibernat";
const FORMAT_VERSION: u16 = 1;
const ENDING: &str = "image";

/// What belongs to a saved backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Particulars {
    /// Of the engine.
    pub(crate) fingerprint: u64,
    /// Of the volume.
    pub(crate) version: u64,
    /// LSN after the last byte of WAL.
    pub(crate) wal_position: u64,
    /// The name that the catalog has.
    pub(crate) name: String,
    pub(crate) upkeep: Upkeep,
    /// Of the settings files that the backend started with.
    pub(crate) settings_hash: u64,
    /// The parameters that a new client is told.
    pub(crate) parameters: Vec<(String, String)>,
}

/// An image as it was read.
pub(crate) struct Hibernated {
    pub(crate) particulars: Particulars,
    payload: Vec<u8>,
    saved_at: usize,
}

impl Hibernated {
    /// What the engine saved.
    pub(crate) fn saved(&self) -> &[u8] {
        &self.payload[self.saved_at..]
    }
}

/// The images of a data directory.
pub(crate) struct Images {
    folder: PathBuf,
    bytes_max: u64,
    /// Bytes of all files; not known before the first image that is kept.
    bytes: Mutex<Option<u64>>,
}

impl Images {
    /// The images in `folder`, which is made if it is not there.
    pub(crate) fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            bytes_max,
            bytes: Mutex::new(None),
        })
    }

    /// Whether any are kept.
    pub(crate) fn are_kept(&self) -> bool {
        self.bytes_max > 0
    }

    /// Keeps the image of a database, instead of the one that it had. Blocks.
    pub(crate) fn keep(
        &self,
        id: DatabaseId,
        particulars: &Particulars,
        saved: &[u8],
    ) -> Result<(), String> {
        let particulars = serde_json::to_vec(particulars).map_err(|error| error.to_string())?;
        let mut payload = Vec::with_capacity(4 + particulars.len() + saved.len());
        payload.extend_from_slice(&(particulars.len() as u32).to_le_bytes());
        payload.extend_from_slice(&particulars);
        payload.extend_from_slice(saved);
        let path = self.path(id);
        let before = fs::metadata(&path).map_or(0, |file| file.len());
        store::write_sealed_cache(&RealDisk, &path, KIND, FORMAT_VERSION, id.get(), &payload)
            .map_err(|error| error.to_string())?;
        let mut bytes = self.bytes.lock();
        let now = bytes.map(|bytes| bytes.saturating_sub(before) + payload.len() as u64);
        *bytes = now;
        if now.is_none_or(|now| now > self.bytes_max) {
            *bytes = Some(self.make_room().map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// The image of a database if there is one of exactly this state. Blocks for a read.
    pub(crate) fn find(
        &self,
        id: DatabaseId,
        fingerprint: u64,
        version: u64,
    ) -> Option<Hibernated> {
        let path = self.path(id);
        let payload = match store::read_sealed(&RealDisk, &path, KIND, FORMAT_VERSION, id.get()) {
            Ok(payload) => payload,
            Err(SealedError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "a hibernation image is thrown away; the database boots");
                self.remove(id);
                return None;
            }
        };
        let found = parse(payload, fingerprint, version);
        if found.is_none() {
            self.remove(id);
        }
        found
    }

    /// Removes the image of a database, if there is one.
    pub(crate) fn remove(&self, id: DatabaseId) {
        let path = self.path(id);
        let bytes = fs::metadata(&path).map_or(0, |file| file.len());
        match fs::remove_file(&path) {
            Ok(()) => {
                let mut all = self.bytes.lock();
                *all = all.map(|all| all.saturating_sub(bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%id, %error, "a hibernation image cannot be removed"),
        }
    }

    fn path(&self, id: DatabaseId) -> PathBuf {
        self.folder.join(format!("{id}.{ENDING}"))
    }

    /// Counts, and removes the oldest images until nine tenths of the limit are left: the bytes then.
    fn make_room(&self) -> io::Result<u64> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            match entry.metadata() {
                Ok(file) => files.push((file.modified()?, file.len(), path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        if bytes > self.bytes_max {
            files.sort_unstable();
            for (_, file_bytes, path) in &files {
                if bytes <= self.bytes_max / 10 * 9 {
                    break;
                }
                remove_file(path)?;
                bytes -= file_bytes;
            }
        }
        Ok(bytes)
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The image in a file's payload, if it is of this build and version.
fn parse(payload: Vec<u8>, fingerprint: u64, version: u64) -> Option<Hibernated> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let particulars: Particulars = serde_json::from_slice(rest.get(..len)?).ok()?;
    let fits = particulars.fingerprint == fingerprint && particulars.version == version;
    fits.then_some(Hibernated {
        particulars,
        saved_at: 4 + len,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn particulars(version: u64) -> Particulars {
        Particulars {
            fingerprint: 3,
            version,
            wal_position: 11,
            name: "x".to_owned(),
            upkeep: Upkeep::default(),
            settings_hash: 12,
            parameters: vec![("a".to_owned(), "b".to_owned())],
        }
    }

    fn id(number: u64) -> DatabaseId {
        DatabaseId::new(number).unwrap()
    }

    #[test]
    fn an_image_is_found_for_its_state_alone() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path().join("images"), 1 << 20).unwrap();
        let found = |id, fingerprint, at| images.find(id, fingerprint, at).is_some();
        images.keep(id(1), &particulars(5), b"saved").unwrap();
        let image = images.find(id(1), 3, 5).unwrap();
        assert_eq!(image.saved(), b"saved");
        assert_eq!(image.particulars, particulars(5));
        assert!(!found(id(2), 3, 5));
        // One that does not fit is thrown away.
        assert!(!found(id(1), 3, 6));
        assert!(!found(id(1), 3, 5));
        images.keep(id(1), &particulars(6), b"saved").unwrap();
        assert!(!found(id(1), 4, 6));
        images.keep(id(1), &particulars(6), b"saved").unwrap();
        let path = images.path(id(1));
        fs::copy(&path, images.path(id(2))).unwrap();
        assert!(!found(id(2), 3, 6), "the image of another database");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(!found(id(1), 3, 6), "a flipped bit");
    }

    /// A thousand bytes that cannot be compressed.
    fn noise(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        };
        (0..1_000).map(|_| next()).collect()
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path().to_owned(), 10_000).unwrap();
        let start = SystemTime::now() - Duration::from_secs(1_000);
        for n in 1..=20 {
            images.keep(id(n), &particulars(1), &noise(n)).unwrap();
            let file = fs::File::options()
                .write(true)
                .open(images.path(id(n)))
                .unwrap();
            file.set_modified(start + Duration::from_secs(n)).unwrap();
        }
        let there: Vec<u64> = (1..=20).filter(|n| images.path(id(*n)).exists()).collect();
        let bytes: u64 = there
            .iter()
            .map(|n| fs::metadata(images.path(id(*n))).unwrap().len())
            .sum();
        assert!(bytes <= 10_000 && bytes > 7_000, "{bytes}");
        // The last ones, without a gap.
        assert!(there.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!(there.last(), Some(&20));
    }
}
