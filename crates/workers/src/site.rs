//! The static files of a deployment.

use crate::Archive;

/// Folders that may be a site, the first that is one is taken.
const ROOTS: [&str; 7] = [
    "frontend/dist",
    "frontend/build",
    "frontend/out",
    BESIDE_BACKEND,
    "dist",
    "build",
    "out",
];

/// The one that needs no `index.html` if there is a backend.
const BESIDE_BACKEND: &str = "dist/client";

/// A site's first page.
pub const INDEX: &str = "index.html";

/// The folder that is an archive's site, if there is one.
#[must_use]
pub fn root(archive: &Archive, with_backend: bool) -> Option<&'static str> {
    let is_site = |root: &&str| {
        archive.file(&format!("{root}/{INDEX}")).is_some()
            || (with_backend && *root == BESIDE_BACKEND && archive.has_folder(root))
    };
    ROOTS.into_iter().find(is_site)
}

/// The files of a site by their paths in it. What is a backend's is not served, though it be inside.
pub fn files<'a>(archive: &'a Archive, root: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let backend = move |path: &str| root == "dist" && path.starts_with("server/");
    archive.below(root).filter(move |(path, _)| !backend(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeployLimits;

    fn archive(paths: &[&str]) -> Archive {
        let files = paths.iter().map(|path| ((*path).to_owned(), vec![1]));
        Archive::from_files(files, DeployLimits::default()).unwrap()
    }

    #[test]
    fn the_first_folder_with_an_index() {
        let of = |paths: &[&str], with_backend| root(&archive(paths), with_backend);
        assert_eq!(
            of(&["frontend/out/index.html", "out/index.html"], false),
            Some("frontend/out")
        );
        assert_eq!(of(&["out/a.css", "x"], false), None);
        assert_eq!(of(&["dist/client/a.css", "x"], false), None);
        assert_eq!(of(&["dist/client/a.css", "x"], true), Some("dist/client"));
        assert_eq!(
            of(&["dist/client/a", "dist/index.html"], false),
            Some("dist")
        );
    }

    #[test]
    fn a_backends_source_is_not_served() {
        let archive = archive(&[
            "dist/index.html",
            "dist/server/index.js",
            "dist/a/b.js",
            "w7s.json",
        ]);
        let paths: Vec<_> = files(&archive, "dist").map(|(path, _)| path).collect();
        assert_eq!(paths, ["a/b.js", "index.html"]);
    }
}
