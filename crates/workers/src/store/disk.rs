//! Files that are there whole or not at all.

use super::StoreError;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// How the name of a file ends that is being written.
const UNFINISHED: &str = ".unfinished";

pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// Writes a file: beside its place, synced, renamed, and the name synced too. Its owner alone may read it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(UNFINISHED);
    let beside = Path::new(&beside);
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    at(beside, written)?;
    at(path, fs::rename(beside, path))?;
    sync_folder_of(path)
}

/// The bytes of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => at(path, read).map(Some),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => {
            at(path, removed)?;
            sync_folder_of(path)
        }
    }
}

/// Removes a folder with all in it, if it is there.
pub(super) fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => {
            at(path, removed)?;
            sync_folder_of(path)
        }
    }
}

/// Makes a folder and those above it, for their owner alone.
pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    at(path, made)?;
    // The names of those above may be new too.
    path.ancestors().take(4).try_for_each(sync_folder_of)
}

/// The names in a folder that are text; none if there is no such folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => at(folder, entries)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = at(folder, entry)?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}

fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) else {
        return Ok(());
    };
    at(
        folder,
        File::open(folder).and_then(|folder| folder.sync_all()),
    )
}

fn at<T>(path: &Path, done: io::Result<T>) -> Result<T, StoreError> {
    done.map_err(|source| StoreError::Disk {
        path: path.to_owned(),
        source,
    })
}
