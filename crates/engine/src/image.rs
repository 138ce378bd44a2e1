//! An image: the memory of a booted, idle backend, and what the host holds for it.
//!
//! A fork of an image continues where the backend stood, over files that are exactly those of the
//! moment. So an image belongs to one template, and is bound to one build of the engine: whoever
//! stores it stores [`Engine::fingerprint`](crate::Engine::fingerprint) with it. Images are made of
//! templates only; the memory of a backend that served a tenant is never shared.

use crate::codec::{Reader, Writer};
use crate::error::EngineError;
use crate::files::SavedFile;
use crate::host::{SavedLibraries, SavedLibrary};
use crate::memory::{MemoryImage, nonzero_runs};

/// A booted backend to fork from.
#[derive(Debug)]
pub struct Image {
    pub(crate) memory: MemoryImage,
    /// Values of the main module's mutable globals, in the order of its description.
    pub(crate) globals: Vec<u32>,
    pub(crate) libraries: SavedLibraries,
    pub(crate) directory: String,
    pub(crate) files: Vec<SavedFile>,
}

/// Most bytes of memory that a stored image may claim.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

impl Image {
    /// The image as bytes, to be kept for a later process of the same build.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let memory = self.memory.read()?;
        let mut writer = Writer::default();
        writer.u64(memory.len() as u64);
        words(&mut writer, &self.globals);
        writer.u32(self.libraries.table_slots);
        pairs(&mut writer, &self.libraries.main_slots);
        writer.u32(self.libraries.libraries.len() as u32);
        for library in &self.libraries.libraries {
            writer.bytes(library.path.as_bytes());
            words(&mut writer, &library.handles);
            writer.u32(library.memory_base);
            writer.u32(library.table_base);
            pairs(&mut writer, &library.symbols);
            pairs(&mut writer, &library.slots);
            words(&mut writer, &library.got);
            words(&mut writer, &library.globals);
        }
        writer.bytes(self.directory.as_bytes());
        writer.u32(self.files.len() as u32);
        for file in &self.files {
            words(&mut writer, &file.descriptors);
            writer.bytes(file.path.as_bytes());
            writer.u32(file.flags as u32);
            writer.u64(file.offset);
            writer.u32(u32::from(file.pipe));
        }
        let runs = nonzero_runs(&memory);
        writer.u32(runs.len() as u32);
        for run in runs {
            writer.u64(run.start as u64);
            writer.bytes(&memory[run]);
        }
        Ok(writer.finish())
    }

    /// The image of [`encode`](Self::encode)'s bytes.
    ///
    /// # Errors
    ///
    /// [`EngineError::Image`] if the bytes are not those of an image.
    pub fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        Self::read(&mut Reader::new(bytes)).map_err(EngineError::Image)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, String> {
        let memory_bytes = reader.u64()?;
        if memory_bytes > MEMORY_BYTES_MAX {
            return Err("it claims too much memory".to_owned());
        }
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
                symbols: read_pairs(reader)?,
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
        let mut memory = Vec::new();
        for _ in 0..reader.u32()? {
            let offset = reader.u64()?;
            let bytes = reader.bytes()?;
            if offset
                .checked_add(bytes.len() as u64)
                .is_none_or(|end| end > memory_bytes)
            {
                return Err("a run lies outside the memory".to_owned());
            }
            memory.push((offset, bytes));
        }
        let memory = MemoryImage::of_runs(memory_bytes as usize, &memory)
            .map_err(|error| error.to_string())?;
        let libraries = SavedLibraries {
            table_slots,
            main_slots,
            libraries,
        };
        Ok(Self {
            memory,
            globals,
            libraries,
            directory,
            files,
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
