//! An image: the memory of a booted, idle backend, and what the host holds for it.
//!
//! A fork of an image continues where the backend stood, over files that are exactly those of the
//! moment. So an image belongs to one template, and is bound to one build of the engine: whoever
//! stores it stores [`Engine::fingerprint`](crate::Engine::fingerprint) with it. Images are made of
//! templates only; the memory of a backend that served a tenant is never shared.

use std::sync::Arc;

use crate::backend::Spares;
use crate::codec::{Reader, Writer};
use crate::error::EngineError;
use crate::hot::HotPages;
use crate::memory::{MemoryImage, nonzero_runs};
use crate::state::HostState;

/// A booted backend to fork from.
#[derive(Debug)]
pub struct Image {
    /// Drawn when the image was taken: what is saved as differences from it names it.
    pub(crate) id: ImageId,
    pub(crate) memory: Arc<MemoryImage>,
    pub(crate) state: HostState,
    pub(crate) hot: HotPages,
    pub(crate) spares: Spares,
}

/// Names one image among all.
pub(crate) type ImageId = [u8; 16];

/// Most bytes of memory that a stored image may claim.
pub(crate) const MEMORY_BYTES_MAX: u64 = 2 << 30;

impl Image {
    pub(crate) fn new(id: ImageId, memory: MemoryImage, state: HostState) -> Self {
        Self {
            id,
            hot: HotPages::new(memory.bytes().len()),
            memory: Arc::new(memory),
            state,
            spares: Spares::default(),
        }
    }

    /// How many spares there are; see [`Engine::stock`](crate::Engine::stock).
    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// The image as bytes, to be kept for a later process of the same build.
    pub fn encode(&self) -> Vec<u8> {
        let memory = self.memory.bytes();
        let mut writer = Writer::default();
        writer.bytes(&self.id);
        writer.u64(memory.len() as u64);
        self.state.write(&mut writer);
        let runs = nonzero_runs(memory);
        writer.u32(runs.len() as u32);
        for run in runs {
            writer.u64(run.start as u64);
            writer.bytes(&memory[run]);
        }
        writer.finish()
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
        let id = read_id(reader)?;
        let memory_bytes = reader.u64()?;
        if memory_bytes > MEMORY_BYTES_MAX {
            return Err("it claims too much memory".to_owned());
        }
        let state = HostState::read(reader)?;
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
        Ok(Self::new(id, memory, state))
    }
}

pub(crate) fn read_id(reader: &mut Reader<'_>) -> Result<ImageId, String> {
    let id = reader.bytes()?;
    id.try_into()
        .map_err(|_| "its id is not of 16 bytes".to_owned())
}
