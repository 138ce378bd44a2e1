//! A folder as the archive of a deployment.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::cli::failure::Failure;

/// Folders that are no part of a deployment, wherever they are.
const ANYWHERE: [&str; 3] = [".git", "node_modules", ".dormouse"];

/// The same, from the root of a deployment.
const AT_ROOT: [&str; 2] = [".wrangler", "dist/.vite"];

/// The most files of a folder: who has named the wrong one is told before it is read.
const FILES_MAX: usize = 100_000;

/// A folder, packed.
pub(crate) struct Packed {
    pub(crate) zip: Vec<u8>,
}

/// Packs a folder.
pub(crate) fn pack(folder: &Path) -> Result<Packed, Failure> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::Usage(format!("{}: {error}", path.display()))
    };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for file in files(folder)? {
        let bytes = fs::read(&file.path).map_err(|error| failed(&file.path, &error))?;
        let written = zip
            .start_file(&*file.name, options)
            .map_err(io::Error::other)
            .and_then(|()| zip.write_all(&bytes));
        written.map_err(|error| failed(&file.path, &error))?;
    }
    let packed = zip.finish().map_err(|error| failed(folder, &error))?;
    Ok(Packed {
        zip: packed.into_inner(),
    })
}

/// Tells one state of a folder from another, without reading its files.
pub(crate) fn stamp(folder: &Path) -> Result<u64, Failure> {
    let mut hash = DefaultHasher::new();
    for file in files(folder)? {
        file.name.hash(&mut hash);
        file.metadata.len().hash(&mut hash);
        let modified = file.metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        modified.hash(&mut hash);
    }
    Ok(hash.finish())
}

struct Found {
    path: PathBuf,
    /// From the folder, with `/` between its parts.
    name: String,
    metadata: Metadata,
}

/// All files of a folder, in the order of their names. Links to files are followed, those to folders are not: they may lead
/// in a circle.
fn files(folder: &Path) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((path, prefix)) = open.pop() {
        let failed = |error: io::Error| Failure::Usage(format!("{}: {error}", path.display()));
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let last = entry.file_name();
            let last = last.to_str().ok_or_else(|| {
                Failure::Usage(format!("{}: its name is not text", entry.path().display()))
            })?;
            let name = format!("{prefix}{last}");
            if ANYWHERE.contains(&last) || AT_ROOT.contains(&&*name) {
                continue;
            }
            let is_link = entry.file_type().map_err(failed)?.is_symlink();
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // It was removed meanwhile, or is a link that leads nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if metadata.is_dir() {
                if !is_link {
                    open.push((entry.path(), format!("{name}/")));
                }
            } else if metadata.is_file() {
                found.push(Found {
                    path: entry.path(),
                    name,
                    metadata,
                });
            }
            if found.len() > FILES_MAX {
                return Err(Failure::Usage(format!(
                    "{} has more than {FILES_MAX} files: is it the right folder?",
                    folder.display()
                )));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
