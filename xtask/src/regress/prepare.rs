//! A database for the tests, with what their scripts expect a server to find on its disk.

use super::{options::Options, program::Client};
use crate::{Context as _, Result};
use std::{fs, path::PathBuf};

/// Makes the database anew.
///
/// A server of PostgreSQL reads the test's data files from the sources and writes to a folder
/// `results`. A backend of ours sees nothing of this machine, but a superuser may write into the
/// database's own data directory: the files go there, as large objects that are then exported;
/// and a replication slot's folder is the one that SQL can give a name to.
pub(super) fn database(client: &Client<'_>, options: &Options) -> Result<()> {
    let suite = options.suite();
    let database = suite.database();
    client.psql(
        "postgres",
        &[
            format!("drop database if exists {database} with (force)"),
            format!("create database {database}"),
        ],
    )?;
    for path in data_files(&suite.folder().join("data"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let commands = [
            format!("\\lo_import '{}'", path.display()),
            format!(
                "select lo_export(oid, '/pglite/data/{name}'), lo_unlink(oid) \
                 from pg_largeobject_metadata"
            ),
        ];
        client.psql(database, &commands)?;
    }
    let slot = "select pg_create_physical_replication_slot('results')";
    client.psql(database, &[slot.to_owned()])?;
    Ok(())
}

/// None if there is no such folder: not every suite has one.
fn data_files(folder: &std::path::Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let reading = || format!("reading {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).context(reading)? {
        let path = entry.context(reading)?.path();
        if path.extension().is_some_and(|suffix| suffix == "data") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
