//! What Postgres does with the names of files and directories.

use volume::{Ino, Mtime, Volume, VolumeError};

use super::VolumeWorkload;
use super::database::Database;
use super::tree::{File, Node, place};
use crate::history::Notes;
use crate::workload::Broken;

pub(super) const TIME: Mtime = Mtime {
    seconds: 0,
    nanos: 0,
};
const FILES_MAX: usize = 12;
const DIRECTORIES_MAX: usize = 7;
/// Directories of the template stay where they are.
const TOP: [&str; 3] = ["/base", "/global", "/pg_xact"];

impl VolumeWorkload {
    /// A directory of the volume, by chance.
    fn some_directory(&mut self, database: &Database) -> String {
        let paths = database.model.now.paths(true);
        self.random.pick(&paths).clone()
    }

    pub(super) fn some_file(&mut self, database: &Database) -> Option<String> {
        let paths = database.model.now.paths(false);
        let at = self.random.index(paths.len());
        paths.into_iter().nth(at)
    }

    pub(super) fn create_file(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        if database.model.now.paths(false).len() >= FILES_MAX {
            return self.unlink_some(database, notes);
        }
        let directory = self.some_directory(database);
        let name = self.random.within(16384..=16391).to_string();
        let path = format!("{directory}/{name}");
        notes.done("files made", format_args!("{path} of {}", database.id));
        let before = self.disk.counts();
        let made = resolve(database.volume(), &directory)?;
        let made = database.volume().create_file(made, &name, 0o600, TIME);
        match (made, database.model.now.nodes.contains_key(&path)) {
            (Ok(_), false) => {
                let file = Node::File(File::default());
                database.model.now.nodes.insert(path, file);
                Ok(())
            }
            (Err(VolumeError::Exists), true) => Ok(()),
            (Ok(_), true) => Err(Broken(format!("{path} was made a second time"))),
            (Err(error), _) => self.refused(database, before, &error),
        }
    }

    pub(super) fn make_directory(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        if database.model.now.paths(true).len() >= DIRECTORIES_MAX {
            return self.remove_directory(database, notes);
        }
        let directory = self.some_directory(database);
        let name = format!("d{}", self.random.below(4));
        let path = format!("{directory}/{name}");
        notes.done("directories made", format_args!("{path}"));
        let before = self.disk.counts();
        let made = resolve(database.volume(), &directory)?;
        let made = database.volume().mkdir(made, &name, 0o700, TIME);
        match (made, database.model.now.nodes.contains_key(&path)) {
            (Ok(_), false) => {
                database.model.now.nodes.insert(path, Node::Directory);
                Ok(())
            }
            (Err(VolumeError::Exists), true) => Ok(()),
            (Ok(_), true) => Err(Broken(format!("{path} was made a second time"))),
            (Err(error), _) => self.refused(database, before, &error),
        }
    }

    pub(super) fn remove_directory(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let path = self.some_directory(database);
        if TOP.contains(&&*path) {
            return Ok(());
        }
        notes.done("directories removed", format_args!("{path}"));
        let before = self.disk.counts();
        let (directory, name) = place(&path);
        let directory = resolve(database.volume(), directory)?;
        let removed = database.volume().rmdir(directory, name);
        match (removed, database.model.now.is_empty_directory(&path)) {
            (Ok(()), true) => {
                database.model.now.nodes.remove(&path);
                Ok(())
            }
            (Err(VolumeError::NotEmpty), false) => Ok(()),
            (Ok(()), false) => Err(Broken(format!("{path} was not empty and is removed"))),
            (Err(error), _) => self.refused(database, before, &error),
        }
    }

    pub(super) fn unlink_some(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        match self.some_file(database) {
            Some(path) => self.unlink(database, &path, notes),
            None => Ok(()),
        }
    }

    pub(super) fn unlink(
        &mut self,
        database: &mut Database,
        path: &str,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        notes.done("files removed", format_args!("{path} of {}", database.id));
        let before = self.disk.counts();
        let (directory, name) = place(path);
        let directory = resolve(database.volume(), directory)?;
        let ino = resolve(database.volume(), path)?;
        match database.volume().unlink(directory, name) {
            Ok(()) => {
                lost_its_name(database, ino, path);
                Ok(())
            }
            Err(error) => self.refused(database, before, &error),
        }
    }

    pub(super) fn rename_file(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let Some(from) = self.some_file(database) else {
            return Ok(());
        };
        let to = match self.random.one_in(2) {
            true => self.some_file(database).unwrap_or_else(|| from.clone()),
            false => {
                let directory = self.some_directory(database);
                format!("{directory}/{}", self.random.within(16384..=16391))
            }
        };
        if matches!(database.model.now.nodes.get(&to), Some(Node::Directory)) {
            return Ok(());
        }
        let replaced = match database.model.now.file(&to) {
            Some(_) if from != to => Some(resolve(database.volume(), &to)?),
            _ => None,
        };
        if !self.rename(database, &from, &to, notes)? {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            lost_its_name(database, replaced, &to);
        }
        database.model.now.rename(&from, &to);
        Ok(())
    }

    pub(super) fn rename_directory(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let from = self.some_directory(database);
        let above = self.some_directory(database);
        let to = format!("{above}/d{}", self.random.below(4));
        let is_within = format!("{to}/").starts_with(&format!("{from}/"));
        if TOP.contains(&&*from) || is_within || database.model.now.nodes.contains_key(&to) {
            return Ok(());
        }
        if self.rename(database, &from, &to, notes)? {
            database.model.now.rename(&from, &to);
        }
        Ok(())
    }

    /// Moves a name in the volume alone. False if that was refused.
    pub(super) fn rename(
        &mut self,
        database: &mut Database,
        from: &str,
        to: &str,
        notes: &mut Notes,
    ) -> Result<bool, Broken> {
        notes.done("renames", format_args!("{from} to {to} of {}", database.id));
        let before = self.disk.counts();
        let (from_directory, from_name) = place(from);
        let (to_directory, to_name) = place(to);
        let volume = database.volume();
        let from_directory = resolve(volume, from_directory)?;
        let to_directory = resolve(volume, to_directory)?;
        match volume.rename(from_directory, from_name, to_directory, to_name) {
            Ok(()) => Ok(true),
            Err(error) => self.refused(database, before, &error).map(|()| false),
        }
    }
}

/// The node at a path that the model has.
pub(super) fn resolve(volume: &Volume, path: &str) -> Result<Ino, Broken> {
    let found = volume.resolve(path);
    found.map_err(|error| Broken(format!("{path} should be there: {error}")))
}

fn lost_its_name(database: &mut Database, ino: Ino, path: &str) {
    let node = database.model.now.nodes.remove(path);
    if let (Some(held), Some(Node::File(file))) = (database.held.get_mut(&ino), node) {
        *held = Some(file);
    }
}
