//! What Postgres does with its log: records go into pages that are written again and again, in segments
//! that are made, recycled and removed.

use volume::{PAGE_BYTES, VolumeError};

use super::VolumeWorkload;
use super::database::Database;
use super::names::{TIME, resolve};
use super::tree::{File, LOG, LogWrite, Node, SEGMENT_BYTES, place, segment_path};
use crate::disk::DiskCounts;
use crate::history::Notes;
use crate::workload::Broken;

/// Segments before the current one that are kept.
const SEGMENTS_KEPT: usize = 3;

impl VolumeWorkload {
    /// Records are written, and mostly synced. Whatever fails ends the backend, as in Postgres.
    pub(super) fn append_log(
        &mut self,
        database: &mut Database,
        notes: &mut Notes,
    ) -> Result<(), Broken> {
        let bytes = *self
            .random
            .pick(&[0, 90, 90, 700, 700, 3_000, 9_000, 40_000, 500_000]);
        let bytes = self.random.within(bytes / 2..=bytes) as usize;
        let data = self.random.bytes(bytes);
        let mut rest = &data[..];
        loop {
            let (_, used) = database.model.now.log_end;
            // A segment that is full is synced before the next one is begun, and so before it is recycled.
            if used == SEGMENT_BYTES
                && !(self.sync_log(database, notes)? && self.next_segment(database, notes)?)
            {
                return self.end_backend(database, notes);
            }
            let (segment, used) = database.model.now.log_end;
            let (piece, after) = rest.split_at(rest.len().min((SEGMENT_BYTES - used) as usize));
            if !self.write_log(database, (segment, used), piece, notes)? {
                return self.end_backend(database, notes);
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        if self.random.below(8) < 6 && !self.sync_log(database, notes)? {
            return self.end_backend(database, notes);
        }
        if self.random.one_in(4) {
            self.remove_segment(database, notes)?;
        }
        Ok(())
    }

    fn end_backend(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        notes.done(
            "backends ended",
            format_args!("of database {}", database.id),
        );
        database.drop_volume();
        Ok(())
    }

    /// Writes whole pages from the one on in which the log ends. False if that was refused.
    fn write_log(
        &mut self,
        database: &mut Database,
        (segment, used): (u64, u64),
        records: &[u8],
        notes: &mut Notes,
    ) -> Result<bool, Broken> {
        let path = segment_path(segment);
        let within = used % PAGE_BYTES as u64;
        let offset = (used - within).min(SEGMENT_BYTES - PAGE_BYTES as u64);
        let within = (used - offset) as usize;
        let Some(file) = database.model.now.file(&path) else {
            return Err(Broken(format!("{path} is not there")));
        };
        let mut data = file.page((offset / PAGE_BYTES as u64) as usize)[..within].to_vec();
        data.extend(records);
        data.resize(data.len().next_multiple_of(PAGE_BYTES).max(PAGE_BYTES), 0);
        let bytes = records.len();
        notes.done(
            "records",
            format_args!("{bytes} bytes at {used} of {path} of {}", database.id),
        );
        let before = self.disk.counts();
        let ino = resolve(database.volume(), &path)?;
        let written = match database.volume().write(ino, offset, &data, TIME) {
            Ok(written) => written,
            Err(error) => return self.refuse_log(database, before, &error),
        };
        self.note_torn(database, before);
        database
            .model
            .now
            .file_mut(&path)
            .write(offset, &data[..written]);
        database.model.now.log_end = (segment, used + bytes as u64);
        database.model.wrote_log(LogWrite {
            segment,
            offset,
            bytes: data[..written].to_vec(),
        });
        database.model.last_entry_is(database.last_entry());
        Ok(written == data.len())
    }

    fn sync_log(&mut self, database: &mut Database, notes: &mut Notes) -> Result<bool, Broken> {
        let path = match self.random.one_in(8) {
            true => LOG.to_owned(),
            false => segment_path(database.model.now.log_end.0),
        };
        let before = self.disk.counts();
        let ino = resolve(database.volume(), &path)?;
        let result = database.volume().sync(ino);
        database.model.last_entry_is(database.last_entry());
        let last = database.last_entry();
        notes.done(
            "syncs of the log",
            format_args!("of {}, entry {last}: {result:?}", database.id),
        );
        if let Err(error) = result {
            return self.refuse_log(database, before, &error);
        }
        let owed = database.volume().owed();
        if owed.entry.is_none() {
            // A reply would leave now.
            database.model.acknowledge(last);
        }
        self.expect(owed.version || !database.synced, || {
            "a file was synced, nothing was flushed, and no version is owed".to_owned()
        })?;
        Ok(true)
    }

    fn refuse_log(
        &mut self,
        database: &mut Database,
        before: DiskCounts,
        error: &VolumeError,
    ) -> Result<bool, Broken> {
        self.note_torn(database, before);
        self.refused(database, before, error).map(|()| false)
    }

    /// The log goes on in another file: one that is there already, an old one, or a new one. False if
    /// that was refused.
    fn next_segment(&mut self, database: &mut Database, notes: &mut Notes) -> Result<bool, Broken> {
        let (segment, _) = database.model.now.log_end;
        let next = segment_path(segment + 1);
        if database.model.now.file(&next).is_none() {
            let oldest = database.model.now.segments().first().copied();
            let old = oldest.filter(|oldest| *oldest < segment && self.random.one_in(2));
            let from = match old {
                Some(old) => segment_path(old),
                None => match self.new_segment(database)? {
                    Some(path) => path,
                    None => return Ok(false),
                },
            };
            if !self.rename(database, &from, &next, notes)? {
                return Ok(false);
            }
            database.model.now.rename(&from, &next);
        }
        database.model.now.log_end = (segment + 1, 0);
        Ok(true)
    }

    /// A file of zeros under another name.
    fn new_segment(&mut self, database: &mut Database) -> Result<Option<String>, Broken> {
        let path = format!("{LOG}/xlogtemp.1");
        let before = self.disk.counts();
        let (directory, name) = place(&path);
        let directory = resolve(database.volume(), directory)?;
        if database.model.now.nodes.remove(&path).is_some() {
            let removed = database.volume().unlink(directory, name);
            removed.map_err(|error| Broken(format!("{path} cannot be removed: {error}")))?;
        }
        let zeros = self.random.one_in(2);
        let made = database
            .volume()
            .create_file(directory, name, 0o600, TIME)
            .and_then(|ino| match zeros {
                true => {
                    let zeros = vec![0; SEGMENT_BYTES as usize];
                    database.volume().write(ino, 0, &zeros, TIME).map(drop)
                }
                false => database.volume().set_len(ino, SEGMENT_BYTES, TIME),
            });
        if let Err(error) = made {
            return self.refuse_log(database, before, &error).map(|_| None);
        }
        let mut file = File::default();
        file.set_len(SEGMENT_BYTES);
        let nodes = &mut database.model.now.nodes;
        nodes.insert(path.clone(), Node::File(file));
        Ok(Some(path))
    }

    /// The oldest segment is removed, or becomes one of the next.
    fn remove_segment(&mut self, database: &mut Database, notes: &mut Notes) -> Result<(), Broken> {
        let segments = database.model.now.segments();
        let (current, _) = database.model.now.log_end;
        let old = segments
            .iter()
            .filter(|segment| **segment < current)
            .count();
        let (Some(first), true) = (segments.first(), old > SEGMENTS_KEPT) else {
            return Ok(());
        };
        let path = segment_path(*first);
        let newest = segments.last().copied().unwrap_or(current);
        if newest == current && self.random.one_in(2) {
            let to = segment_path(current + 1);
            if self.rename(database, &path, &to, notes)? {
                database.model.now.rename(&path, &to);
            }
            return Ok(());
        }
        notes.done(
            "segments removed",
            format_args!("{path} of {}", database.id),
        );
        let before = self.disk.counts();
        let (directory, name) = place(&path);
        let directory = resolve(database.volume(), directory)?;
        match database.volume().unlink(directory, name) {
            Ok(()) => {
                database.model.now.nodes.remove(&path);
                Ok(())
            }
            Err(error) => self.refused(database, before, &error),
        }
    }
}
