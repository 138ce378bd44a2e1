//! How what a file printed differs from what PostgreSQL's developers expect.
//!
//! The rules are those of `pg_regress`: a file may have alternatives, `NAME_0.out` to
//! `NAME_9.out`; it passes if it is equal to any, else the closest one is shown.

use crate::{Context as _, Failure, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The expected file that is closest, and how far it is.
pub(super) struct Difference {
    pub(super) expected: PathBuf,
    /// Lines that are in one file only, counted in both. 0: equal.
    pub(super) lines: usize,
}

pub(super) fn closest(expected: &Path, result: &Path) -> Result<Difference> {
    let mut best: Option<Difference> = None;
    for candidate in alternatives(expected) {
        if !candidate.exists() {
            continue;
        }
        let lines = differing(&diff(&[], &candidate, result)?);
        if best.as_ref().is_none_or(|best| lines < best.lines) {
            best = Some(Difference {
                expected: candidate,
                lines,
            });
        }
    }
    best.ok_or_else(|| Failure::new(format!("{} is not there", expected.display())))
}

/// The difference as people read it.
pub(super) fn unified(expected: &Path, result: &Path) -> Result<String> {
    diff(&["-U3"], expected, result)
}

/// `NAME.out`, then `NAME_0.out` to `NAME_9.out`.
fn alternatives(expected: &Path) -> impl Iterator<Item = PathBuf> {
    let stem = expected.with_extension("");
    let numbered = (0..=9).map(move |number| {
        let mut path = stem.clone().into_os_string();
        path.push(format!("_{number}.out"));
        PathBuf::from(path)
    });
    std::iter::once(expected.to_owned()).chain(numbered)
}

fn diff(options: &[&str], expected: &Path, result: &Path) -> Result<String> {
    let output = Command::new("diff")
        // Results have bytes that are no text, and are to be compared all the same.
        .arg("--text")
        .args(options)
        .args([expected, result])
        .output()
        .context(|| "running diff".into())?;
    // 1: there are differences.
    if output.status.code().is_some_and(|code| code <= 1) {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!("diff failed: {}", said.trim())))
    }
}

fn differing(diff: &str) -> usize {
    diff.lines()
        .filter(|line| line.starts_with(['<', '>']))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, process};

    #[test]
    fn the_closest_alternative_counts() {
        let folder = env::temp_dir().join(format!("dormouse-xtask-compare-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let expected = write("a.out", "1\n2\n3\n");
        write("a_2.out", "1\n2\n4\n");
        write("a_b.out", "1\n2\n5\n");
        let closest = |text: &str| {
            let found = closest(&expected, &write("result", text)).ok().unwrap();
            (found.expected.file_name().unwrap().to_owned(), found.lines)
        };
        assert_eq!(closest("1\n2\n3\n"), ("a.out".into(), 0));
        assert_eq!(closest("1\n2\n4\n"), ("a_2.out".into(), 0));
        assert_eq!(closest("1\n2\n4\n\0\n"), ("a_2.out".into(), 1));
        assert_eq!(closest("1\n2\n5\n"), ("a.out".into(), 2));
        fs::remove_dir_all(&folder).unwrap();
    }
}
