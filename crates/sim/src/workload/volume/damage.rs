//! Flipped bits in files at rest.

use std::path::{Path, PathBuf};

use volume::{PAGE_BYTES, VolumeError};

use super::database::Database;
use super::process::load;
use super::{TEMPLATE, VOLUMES, VolumeWorkload};
use crate::history::Notes;
use crate::workload::Broken;

impl VolumeWorkload {
    /// A bit is flipped while one database is read, and flipped back.
    pub(super) fn damage(&mut self, notes: &mut Notes) -> Result<(), Broken> {
        let ids: Vec<u64> = self.databases.keys().copied().collect();
        let Some(id) = ids.get(self.random.index(ids.len())) else {
            return Ok(());
        };
        let Some(path) = self.some_file_of_the_disk(*id)? else {
            return Ok(());
        };
        let failed = |error| Broken(format!("{} should be there: {error}", path.display()));
        let len = self.disk.len_of(&path).map_err(failed)?;
        if len == 0 {
            return Ok(());
        }
        let (offset, bit) = (self.random.below(len), self.random.below(8) as u8);
        self.disk.flip(&path, offset, bit).map_err(failed)?;
        notes.done(
            "flips",
            format_args!("bit {bit} of byte {offset} of {}", path.display()),
        );
        let around = self.peek(&path, offset);
        let Some(mut database) = self.databases.remove(id) else {
            return Ok(());
        };
        let result = self.meet_damage(&mut database, &path, notes);
        self.databases.insert(*id, database);
        result?;
        // Unless what was damaged was free and is written again, or is gone.
        if around.is_some() && self.peek(&path, offset) == around {
            self.disk.flip(&path, offset, bit).map_err(failed)?;
        }
        Ok(())
    }

    /// Opens the volume if it is closed, and reads everything.
    fn meet_damage(
        &mut self,
        database: &mut Database,
        damaged: &Path,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        if database.open.is_none() {
            let Some(volumes) = self.volumes() else {
                return Ok(());
            };
            let before = self.disk.counts();
            match load(&volumes, database) {
                Ok(volume) => self.opened(database, volume, notes)?,
                Err(VolumeError::Corrupt { path, reason }) if path == damaged => {
                    notes.done("refused openings", format_args!("{reason}"));
                    return Ok(());
                }
                Err(error) => return self.refused(database, before, &error),
            }
        }
        self.check_all(database, Some(damaged))
    }

    /// A file of the database, if it has one, or any other.
    fn some_file_of_the_disk(&mut self, id: u64) -> Result<Option<PathBuf>, Broken> {
        let names = self.names_of_volumes()?;
        let mut paths: Vec<PathBuf> = names
            .iter()
            .map(|name| Path::new(VOLUMES).join(name))
            .collect();
        paths.push(Path::new(TEMPLATE).join("template.pages"));
        let prefix = format!("{VOLUMES}/{id:016x}.");
        if self.random.below(4) < 3 {
            paths.retain(|path| path.to_str().is_some_and(|path| path.starts_with(&prefix)));
        }
        let at = self.random.index(paths.len());
        Ok(paths.into_iter().nth(at))
    }

    /// The page of a file around a byte; `None` if the file is gone.
    fn peek(&self, path: &Path, offset: u64) -> Option<Vec<u8>> {
        let mut page = vec![0; PAGE_BYTES];
        let start = offset - offset % PAGE_BYTES as u64;
        let read = self.disk.peek(path, &mut page, start).ok()?;
        page.truncate(read);
        Some(page)
    }
}
