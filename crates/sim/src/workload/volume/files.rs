//! What Postgres does with the contents of files, the log's apart.

use volume::{Ino, PAGE_BYTES};

use super::database::Database;
use super::names::{TIME, resolve};
use super::tree::{File, place};
use super::{VolumeWorkload, template};
use crate::disk::DiskCounts;
use crate::history::Notes;
use crate::workload::Broken;

/// Pages of the longest file, but for those that are written at once.
const PAGES_MAX: u64 = 24;
const PAGES_AT_ONCE: u64 = 200;
/// Of a file, these may have room beyond the limit.
const FIRST_PAGES: usize = 8;

impl VolumeWorkload {
    /// One random operation on names or contents.
    pub(super) fn change_file(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        match self.random.below(40) {
            0..6 => self.create_file(database, notes),
            6..8 => self.make_directory(database, notes),
            8 => self.remove_directory(database, notes),
            9..12 => self.unlink_some(database, notes),
            12..14 => self.rename_file(database, notes),
            14 => self.rename_directory(database, notes),
            15..17 => self.change_len(database, notes),
            17..19 => self.hold(database, notes),
            19..21 => self.write_held(database, notes),
            21..24 => self.sync_file(database, notes),
            24 => self.write_much(database, notes),
            _ => self.write_file(database, notes),
        }
    }

    fn change_len(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let Some(path) = self.some_file(database) else {
            return Ok(());
        };
        let pages = self.random.below(PAGES_MAX);
        let odd = match self.random.one_in(3) {
            true => self.random.below(PAGE_BYTES as u64),
            false => 0,
        };
        let len = pages * PAGE_BYTES as u64 + odd;
        notes.done("changes of length", format_args!("{path} to {len}"));
        let before = self.disk.counts();
        let ino = resolve(database.volume(), &path)?;
        let result = database.volume().set_len(ino, len, TIME);
        self.note_torn(database, before);
        match result {
            Ok(()) => {
                database.model.now.file_mut(&path).set_len(len);
                Ok(())
            }
            Err(error) => self.refused(database, before, &error),
        }
    }

    /// A file is opened, or closed.
    fn hold(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let held: Vec<Ino> = database.held.keys().copied().collect();
        if !held.is_empty() && self.random.one_in(2) {
            let ino = *self.random.pick(&held);
            notes.done("closings of files", format_args!("{ino:?}"));
            database.held.remove(&ino);
            let closed = database.volume().close_ref(ino);
            return closed.map_err(|error| Broken(format!("{ino:?} cannot be closed: {error}")));
        }
        let Some(path) = self.some_file(database) else {
            return Ok(());
        };
        let ino = resolve(database.volume(), &path)?;
        if database.held.contains_key(&ino) {
            return Ok(());
        }
        notes.done("openings of files", format_args!("{path}, {ino:?}"));
        let opened = database.volume().open_ref(ino);
        opened.map_err(|error| Broken(format!("{path} cannot be opened: {error}")))?;
        database.held.insert(ino, None);
        match self.random.one_in(2) {
            true => self.unlink(database, &path, notes),
            false => Ok(()),
        }
    }

    /// Writes to a file that has lost its name.
    fn write_held(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let held = database.held.iter();
        let mut nameless = held.filter_map(|(ino, file)| Some((*ino, file.clone()?)));
        let Some((ino, mut file)) = nameless.next_back() else {
            return Ok(());
        };
        let (offset, data) = self.some_data();
        notes.done("writes without a name", format_args!("{ino:?}"));
        self.write(database, ino, &mut file, offset, &data)?;
        database.held.insert(ino, Some(file));
        Ok(())
    }

    fn sync_file(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let Some(path) = self.some_file(database) else {
            return Ok(());
        };
        notes.done("syncs of files", format_args!("{path} of {}", database.id));
        let before = self.disk.counts();
        let ino = resolve(database.volume(), &path)?;
        if let Err(error) = database.volume().sync(ino) {
            return self.refused(database, before, &error);
        }
        database.synced = true;
        self.expect(database.volume().owed().version, || {
            format!("{path} was synced, and no version is owed")
        })
    }

    /// Many pages, as a table that is loaded or an index that is built.
    fn write_much(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let Some(path) = self.some_file(database) else {
            return Ok(());
        };
        let pages = self.random.within(20..=PAGES_AT_ONCE);
        notes.done("long writes", format_args!("{pages} pages of {path}"));
        let data = self.random.bytes(pages as usize * PAGE_BYTES);
        self.write_named(database, &path, 0, &data)
    }

    fn write_file(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let Some(path) = self.some_file(database) else {
            return Ok(());
        };
        let (offset, data) = self.some_data();
        let bytes = data.len();
        notes.done(
            "writes",
            format_args!("{bytes} bytes at {offset} of {path} of {}", database.id),
        );
        self.write_named(database, &path, offset, &data)
    }

    fn write_named(
        &mut self,
        database: &mut Database,
        path: &str,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Broken> {
        let ino = resolve(database.volume(), path)?;
        let Some(mut file) = database.model.now.file(path).cloned() else {
            return Ok(());
        };
        let before = file.page_count();
        self.write(database, ino, &mut file, offset, data)?;
        let grew =
            file.page_count() > before.max(FIRST_PAGES) && !file.is_zero(file.page_count() - 1);
        *database.model.now.file_mut(path) = file;
        match database.bytes_max {
            Some(max) if grew => self.check_limit(database, path, max),
            _ => Ok(()),
        }
    }

    /// Writes to the volume and, what was written, to `file`.
    fn write(
        &mut self,
        database: &mut Database,
        ino: Ino,
        file: &mut File,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Broken> {
        let before = self.disk.counts();
        let result = database.volume().write(ino, offset, data, TIME);
        self.note_torn(database, before);
        match result {
            Ok(written) => {
                file.write(offset, &data[..written]);
                Ok(())
            }
            Err(error) => self.refused(database, before, &error),
        }
    }

    /// Mostly whole pages, sometimes of zeros.
    fn some_data(&mut self) -> (u64, Vec<u8>) {
        let page = self.random.below(PAGES_MAX) * PAGE_BYTES as u64;
        if self.random.one_in(4) {
            let bytes = self.random.within(1..=3 * PAGE_BYTES as u64) as usize;
            let offset = page + self.random.below(PAGE_BYTES as u64);
            return (offset, self.random.bytes(bytes));
        }
        let bytes = self.random.within(1..=3) as usize * PAGE_BYTES;
        match self.random.one_in(8) {
            true => (page, vec![0; bytes]),
            false => (page, self.random.bytes(bytes)),
        }
    }

    /// After a write: if it failed half way, a page that was there may be lost.
    pub(super) fn note_torn(&self, database: &mut Database, before: DiskCounts) {
        let now = self.disk.counts();
        database.torn |= now.writes_failed > before.writes_failed || now.full > before.full;
    }

    /// The volume's limit is changed.
    pub(super) fn limit(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let limited = self.random.one_in(2);
        let max = match limited {
            true => self.random.below(300) * PAGE_BYTES as u64,
            false => volume::BYTES_MAX_DEFAULT,
        };
        notes.done("limits", format_args!("{max} bytes of {}", database.id));
        database.volume().set_bytes_max(max);
        database.bytes_max = limited.then_some(max);
        Ok(())
    }

    /// A file became longer. If it is one of a table, no limit was passed, counted in the way that
    /// counts least: without the log, and without holes.
    fn check_limit(&self, database: &Database, path: &str, max: u64) -> Result<(), Broken> {
        let number = place(path).1.parse::<u32>();
        if !path.starts_with("/base/") || number.is_ok_and(|number| number < 16384) {
            return Ok(());
        }
        let bytes = database.model.now.pages_beyond(&template::tree()) * PAGE_BYTES as u64;
        self.expect(bytes <= max, || {
            format!(
                "{path} of database {} became longer: {bytes} bytes, {max} are allowed",
                database.id
            )
        })
    }
}
