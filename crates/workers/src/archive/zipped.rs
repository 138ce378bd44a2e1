//! The zip format, by the crate `zip`.

use super::{Collected, path, unreadable};
use crate::Refusal;
use std::io::{Cursor, Read as _};
use zip::{ZipArchive, result::ZipError};

/// The part of a Unix mode that tells what a file is.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// Unpacks all files.
pub(super) fn read(bytes: &[u8], files: &mut Collected) -> Result<(), Refusal> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    if archive.has_duplicate_names() {
        return Err(unreadable("a name is in it twice"));
    }
    if archive.has_overlapping_entries().map_err(broken)? {
        return Err(unreadable("entries share their bytes"));
    }
    for index in 0..archive.len() {
        files.room_for_entry()?;
        read_one(&mut archive, index, files)?;
    }
    Ok(())
}

fn read_one(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    files: &mut Collected,
) -> Result<(), Refusal> {
    // As raw data first: an entry that is encrypted cannot be opened, but has a name to tell.
    let raw = archive.by_index_raw(index).map_err(broken)?;
    let name = raw.name().map_err(broken)?.into_owned();
    let path = path::checked(&name)?;
    let shown = path.escape_debug();
    if raw.encrypted() {
        return Err(unreadable(&format!("'{shown}' is encrypted")));
    }
    if raw.is_symlink() {
        return Err(unreadable(&format!("'{shown}' is a symbolic link")));
    }
    if raw.is_dir() {
        return Ok(());
    }
    let kind = raw.unix_mode().map_or(0, |mode| mode & KIND);
    if kind != 0 && kind != REGULAR {
        return Err(unreadable(&format!("'{shown}' is no regular file")));
    }
    drop(raw);

    let file = archive.by_index(index).map_err(broken)?;
    let room = files.room();
    let mut content = Vec::new();
    file.take(room.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|error| unreadable(&format!("'{shown}': {error}")))?;
    files.add(path, content)
}

fn broken(error: ZipError) -> Refusal {
    unreadable(error.to_string().trim_end_matches('.'))
}
