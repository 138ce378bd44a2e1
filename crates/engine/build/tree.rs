//! The one file tree: the files of `pglite.data`, and of each extension's archive under `/pglite`.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;

use crate::Result;
use crate::checked::Files;
use crate::table::file_table;

const PREFIX: &str = "/pglite";

/// Files by absolute path.
pub(crate) type Tree = BTreeMap<String, File>;

pub(crate) struct File {
    pub(crate) contents: Vec<u8>,
    /// Files of the same group are likely to be read together.
    pub(crate) group: String,
}

pub(crate) fn build(files: &Files) -> Result<Tree> {
    let mut tree = Tree::new();
    add_data(&mut tree, files)?;
    for (archive, contents) in files.extensions() {
        add_extension(&mut tree, archive, contents)
            .map_err(|reason| format!("{archive}: {reason}"))?;
    }
    Ok(tree)
}

fn add_data(tree: &mut Tree, files: &Files) -> Result<()> {
    let data = files.of_pglite("pglite.data")?;
    let js = String::from_utf8_lossy(files.of_pglite("pglite.js")?);
    for entry in file_table(&js, data.len())? {
        // "/pglite/share/postgresql/timezone/Africa/Abidjan" belongs to ".../timezone".
        let directories = entry
            .path
            .rsplit_once('/')
            .map_or("", |(directories, _)| directories);
        let group = directories.split('/').take(5).collect::<Vec<_>>().join("/");
        let contents = data[entry.range].to_vec();
        add(tree, entry.path, File { contents, group })?;
    }
    Ok(())
}

fn add_extension(tree: &mut Tree, archive: &str, contents: &[u8]) -> Result<()> {
    let unreadable = |e: std::io::Error| format!("cannot be unpacked: {e}");
    let mut tar = tar::Archive::new(GzDecoder::new(contents));
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry
            .path()
            .map_err(unreadable)?
            .to_string_lossy()
            .into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Directory => continue,
            tar::EntryType::Regular => {}
            other => return Err(format!("{path} is neither file nor directory: {other:?}")),
        }
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).map_err(unreadable)?;
        let path = format!("{PREFIX}/{}", path.trim_start_matches("./"));
        add(
            tree,
            path,
            File {
                contents,
                group: archive.to_owned(),
            },
        )?;
    }
    Ok(())
}

fn add(tree: &mut Tree, path: String, file: File) -> Result<()> {
    if path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(format!("{path} is not a plain path"));
    }
    match tree.get(&path) {
        Some(other) if other.contents != file.contents => Err(format!(
            "{path} is also in {}, with other contents",
            other.group
        )),
        Some(_) => Ok(()),
        None => {
            tree.insert(path, file);
            Ok(())
        }
    }
}

/// The version that PostgreSQL was configured as.
pub(crate) fn postgres_version(tree: &Tree) -> Result<String> {
    let path = format!("{PREFIX}/lib/postgresql/pgxs/src/Makefile.global");
    let makefile = tree
        .get(&path)
        .ok_or_else(|| format!("pglite.data has no {path}"))?;
    String::from_utf8_lossy(&makefile.contents)
        .lines()
        .find_map(|line| line.strip_prefix("VERSION = "))
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| format!("{path} does not say `VERSION = ...`"))
}
