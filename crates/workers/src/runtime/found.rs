//! Where workerd is.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// There is no workerd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWorkerd {
    /// None in the folders of the search path.
    #[error(
        "workerd is not installed: install the npm package 'workerd' and set workers.workerd to the program in it \
         (node_modules/@cloudflare/workerd-SYSTEM/bin/workerd)"
    )]
    NotFound,
    /// What is set is not there.
    #[error("workers.workerd is {}, which is no file", .0.display())]
    NotThere(PathBuf),
}

/// The program workerd: the one that is set, or else the first in the folders of `search_path` (`PATH`).
///
/// # Errors
/// If there is none.
pub fn find_workerd(set: Option<&Path>, search_path: Option<&OsStr>) -> Result<PathBuf, NoWorkerd> {
    if let Some(set) = set {
        let there = set.is_file().then(|| set.to_owned());
        return there.ok_or_else(|| NoWorkerd::NotThere(set.to_owned()));
    }
    let folders = search_path.map(env::split_paths).into_iter().flatten();
    folders
        .map(|folder| folder.join("workerd"))
        .find(|program| program.is_file())
        .ok_or(NoWorkerd::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_comes_before_the_search_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("workerd");
        let path = env::join_paths([Path::new("/nothing"), folder.path()]).unwrap();
        assert_eq!(find_workerd(None, Some(&path)), Err(NoWorkerd::NotFound));
        std::fs::write(&program, "").unwrap();
        assert_eq!(find_workerd(None, Some(&path)).as_ref(), Ok(&program));
        assert_eq!(find_workerd(Some(&program), None).as_ref(), Ok(&program));
        let nothing = Path::new("/nothing/workerd");
        let missing = find_workerd(Some(nothing), Some(&path));
        assert_eq!(missing, Err(NoWorkerd::NotThere(nothing.to_owned())));
        assert_eq!(find_workerd(None, None), Err(NoWorkerd::NotFound));
    }
}
