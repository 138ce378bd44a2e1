//! A copy of the data directory as a kill left it.

use std::fs;
use std::io;
use std::path::Path;

/// Replaces `copy` by a copy of `folder`.
///
/// # Errors
/// What the system says.
pub fn keep(folder: &Path, copy: &Path) -> io::Result<()> {
    match fs::remove_dir_all(copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    copy_all(folder, copy)
}

fn copy_all(folder: &Path, copy: &Path) -> io::Result<()> {
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let target = copy.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::write(from.join("deep/file"), "one").unwrap();
        keep(&from, &to).unwrap();
        fs::write(to.join("old"), "gone").unwrap();
        keep(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("deep/file")).unwrap(), b"one");
        assert!(!to.join("old").exists());
    }
}
