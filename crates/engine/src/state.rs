//! What the host holds for a backend beside its memory, as an image keeps it.

use crate::codec::{Reader, Writer};
use crate::files::SavedFile;
use crate::host::{SavedLibraries, SavedLibrary};

/// The state of an idle backend without its memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HostState {
    /// Values of the main module's mutable globals, in the order of its description.
    pub(crate) globals: Vec<u32>,
    pub(crate) libraries: SavedLibraries,
    pub(crate) directory: String,
    pub(crate) files: Vec<SavedFile>,
    pub(crate) umask: u32,
    /// Postgres believes that its timer runs: it arms it anew only after the next signal of it.
    pub(crate) timer_armed: bool,
}

impl HostState {
    pub(crate) fn write(&self, writer: &mut Writer) {
        words(writer, &self.globals);
        writer.u32(self.libraries.table_slots);
        pairs(writer, &self.libraries.main_slots);
        writer.u32(self.libraries.libraries.len() as u32);
        for library in &self.libraries.libraries {
            writer.bytes(library.path.as_bytes());
            words(writer, &library.handles);
            writer.u32(library.memory_base);
            writer.u32(library.table_base);
            pairs(writer, &library.slots);
            words(writer, &library.got);
            words(writer, &library.globals);
        }
        writer.bytes(self.directory.as_bytes());
        writer.u32(self.files.len() as u32);
        for file in &self.files {
            words(writer, &file.descriptors);
            writer.bytes(file.path.as_bytes());
            writer.u32(file.flags as u32);
            writer.u64(file.offset);
            writer.u32(u32::from(file.pipe));
        }
        writer.u32(self.umask);
        writer.u32(u32::from(self.timer_armed));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, String> {
        let globals = read_words(reader)?;
        let table_slots = reader.u32()?;
        let main_slots = read_pairs(reader)?;
        let mut libraries = Vec::new();
        for _ in 0..reader.u32()? {
            libraries.push(SavedLibrary {
                path: reader.string()?,
                handles: read_words(reader)?,
                memory_base: reader.u32()?,
                table_base: reader.u32()?,
                slots: read_pairs(reader)?,
                got: read_words(reader)?,
                globals: read_words(reader)?,
            });
        }
        let directory = reader.string()?;
        let mut files = Vec::new();
        for _ in 0..reader.u32()? {
            files.push(SavedFile {
                descriptors: read_words(reader)?,
                path: reader.string()?,
                flags: reader.u32()? as i32,
                offset: reader.u64()?,
                pipe: reader.u32()? != 0,
            });
        }
        Ok(Self {
            globals,
            libraries: SavedLibraries {
                table_slots,
                main_slots,
                libraries,
            },
            directory,
            files,
            umask: reader.u32()?,
            timer_armed: reader.u32()? != 0,
        })
    }
}

fn words(writer: &mut Writer, words: &[u32]) {
    writer.u32(words.len() as u32);
    for word in words {
        writer.u32(*word);
    }
}

fn read_words(reader: &mut Reader<'_>) -> Result<Vec<u32>, String> {
    let mut words = Vec::new();
    for _ in 0..reader.u32()? {
        words.push(reader.u32()?);
    }
    Ok(words)
}

fn pairs(writer: &mut Writer, pairs: &[(String, u32)]) {
    writer.u32(pairs.len() as u32);
    for (name, value) in pairs {
        writer.bytes(name.as_bytes());
        writer.u32(*value);
    }
}

fn read_pairs(reader: &mut Reader<'_>) -> Result<Vec<(String, u32)>, String> {
    let mut pairs = Vec::new();
    for _ in 0..reader.u32()? {
        let name = reader.string()?;
        pairs.push((name, reader.u32()?));
    }
    Ok(pairs)
}
