//! What somebody deploys: files by path, unpacked from a zip within limits, in memory.
//!
//! Paths are names and nothing else: nothing here, and nothing in this room, makes a file of the disk by one.

mod path;
mod zipped;

use crate::{DeployLimits, Refusal, limits::too_large};
use std::{collections::BTreeMap, fmt};

/// Folders that mean something to the platform: one of them alone is no wrapping.
const PLATFORM_ROOTS: [&str; 8] = [
    "worker", "frontend", "backend", "dist", "build", "out", "db", ".github",
];

/// Files by path: relative, `/` between parts, no part empty, `.` or `..`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Archive {
    files: BTreeMap<String, Vec<u8>>,
}

impl Archive {
    /// Unpacks a zip. CPU work of up to a second: not for a thread that serves others.
    ///
    /// # Errors
    /// 400 for what is no zip or a broken one, for names that lead elsewhere or are there twice, links, encryption,
    /// and for a limit, by name.
    pub fn from_zip(bytes: &[u8], limits: DeployLimits) -> Result<Self, Refusal> {
        if bytes.is_empty() {
            return Err(Refusal::bad("Deploy archive is empty."));
        }
        if limits.archive_bytes().exceeded_by(bytes.len() as u64) {
            let what = format!("The archive has {} bytes", bytes.len());
            return Err(too_large(vec![limits.archive_bytes().sentence(&what)]));
        }
        let mut files = Collected::new(limits);
        zipped::read(bytes, &mut files)?;
        Ok(files.finish())
    }

    /// Takes files as they are, of a folder for instance, by the same rules.
    ///
    /// # Errors
    /// 400 as for a zip.
    pub fn from_files(
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
        limits: DeployLimits,
    ) -> Result<Self, Refusal> {
        let mut collected = Collected::new(limits);
        for (name, bytes) in files {
            let path = path::checked(&name)?;
            collected.room_for_entry()?;
            collected.add(path, bytes)?;
        }
        Ok(collected.finish())
    }

    /// The bytes of a file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// A file as text: `None` if there is none.
    ///
    /// # Errors
    /// 400 if it is not UTF-8.
    pub fn text(&self, path: &str) -> Result<Option<&str>, Refusal> {
        let Some(bytes) = self.file(path) else {
            return Ok(None);
        };
        let text = str::from_utf8(bytes)
            .map_err(|error| Refusal::bad(format!("{path} is not UTF-8 text: {error}.")))?;
        Ok(Some(text))
    }

    /// All files in the order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.files.iter();
        files.map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// The files below a folder, which is named without a slash at its end, with their paths from there.
    pub fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let prefix = format!("{folder}/");
        let from = self.files.range(prefix.clone()..);
        from.map_while(move |(path, bytes)| Some((path.strip_prefix(&prefix)?, bytes.as_slice())))
    }

    /// Whether a folder has files.
    #[must_use]
    pub fn has_folder(&self, folder: &str) -> bool {
        self.below(folder).next().is_some()
    }
}

/// The paths alone: the content may be much, and secret.
impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

/// Files so far, and what there still is room for.
#[derive(Debug)]
struct Collected {
    files: BTreeMap<String, Vec<u8>>,
    entries: u64,
    bytes: u64,
    limits: DeployLimits,
}

impl Collected {
    fn new(limits: DeployLimits) -> Self {
        Self {
            files: BTreeMap::new(),
            entries: 0,
            bytes: 0,
            limits,
        }
    }

    /// Counts one more entry.
    fn room_for_entry(&mut self) -> Result<(), Refusal> {
        self.entries += 1;
        let limit = self.limits.entries();
        if limit.exceeded_by(self.entries) {
            let what = format!("The archive has {} files and folders or more", self.entries);
            return Err(too_large(vec![limit.sentence(&what)]));
        }
        Ok(())
    }

    /// How many bytes the next file may have; one more is too many.
    fn room(&self) -> u64 {
        let left = self.limits.expanded_bytes_max.saturating_sub(self.bytes);
        left.min(self.limits.file_bytes_max)
    }

    /// Takes a file, of which `bytes` may be the beginning that there was room for and one byte.
    fn add(&mut self, path: String, bytes: Vec<u8>) -> Result<(), Refusal> {
        let size = bytes.len() as u64;
        let shown = path.escape_debug();
        if self.limits.file_bytes().exceeded_by(size) {
            let what = format!("{shown} is too large");
            return Err(too_large(vec![self.limits.file_bytes().sentence(&what)]));
        }
        self.bytes += size;
        if self.limits.expanded_bytes().exceeded_by(self.bytes) {
            let limit = self.limits.expanded_bytes();
            return Err(too_large(vec![
                limit.sentence("The archive expands too far"),
            ]));
        }
        if self.files.contains_key(&path) {
            return Err(unreadable(&format!("'{shown}' is in it twice")));
        }
        self.files.insert(path, bytes);
        Ok(())
    }

    fn finish(self) -> Archive {
        let files = match wrapping(&self.files) {
            None => self.files,
            Some(prefix) => {
                let inside = self.files.into_iter();
                let strip = |(path, bytes): (String, Vec<u8>)| (path[prefix..].to_owned(), bytes);
                inside.map(strip).collect()
            }
        };
        Archive { files }
    }
}

/// The bytes of the name, with its slash, of a folder that everything is in and that means nothing.
fn wrapping(files: &BTreeMap<String, Vec<u8>>) -> Option<usize> {
    let (first, _) = files.first_key_value()?;
    let (root, _) = first.split_once('/')?;
    let prefix = &first[..=root.len()];
    let wraps =
        !PLATFORM_ROOTS.contains(&root) && files.keys().all(|path| path.starts_with(prefix));
    wraps.then_some(prefix.len())
}

fn unreadable(why: &str) -> Refusal {
    Refusal::bad(format!("Unable to read deploy archive: {why}."))
}

#[cfg(test)]
mod tests;
