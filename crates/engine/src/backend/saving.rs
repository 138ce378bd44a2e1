//! The memory and the state of a backend that waits, taken out of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use wasmtime::{AsContextMut, Val};

use super::Backend;
use super::exit::be_the_server;
use crate::buffers::Buffers;
use crate::error::EngineError;
use crate::image::Image;
use crate::memory::MemoryImage;
use crate::pagemap::own_pages;
use crate::processes::Process;
use crate::state::HostState;
use crate::{heap, saved};

/// Part of the guest's stack in memory that is surely stack: more than Postgres ever goes down by
/// default (`max_stack_depth`), half of what this build reserves.
const STACK_BYTES: usize = 4 << 20;

impl Backend {
    /// Takes the image of this backend, which must be idle, outside a transaction, and must never
    /// have served a client with data of its own.
    pub(crate) fn image(&mut self) -> Result<Image, EngineError> {
        let state = self.state()?;
        let host = self.store.data();
        let memory = MemoryImage::of(host.guest().memory.data(&self.store))
            .map_err(|error| EngineError::Image(error.to_string()))?;
        let mut id = [0; 16];
        host.environment.random(&mut id);
        Ok(Image::new(id, memory, state))
    }

    /// This backend as its differences from `base`; it must be as for [`image`](Self::image), but
    /// for the data.
    pub(crate) fn save(&mut self, base: &Image) -> Result<Vec<u8>, EngineError> {
        be_the_server(&mut self.store.as_context_mut())
            .map_err(|error| EngineError::Image(error.to_string()))?;
        let state = self.state()?;
        let stack_pointer = self.stack_pointer();
        let host = self.store.data();
        let forked = matches!(&host.mapped, Some(image) if Arc::ptr_eq(image, &base.memory));
        let memory = host.guest().memory.data(&self.store);
        let shared = host.process.as_ref().map_or(&[][..], Process::shared);
        let own = forked.then(|| own_pages(memory)).and_then(|own| match own {
            Ok(own) => {
                base.hot.saw(&own);
                Some(with(own, shared))
            }
            Err(error) => {
                tracing::debug!(%error, "a backend's own pages are unknown; all are compared");
                None
            }
        });
        let dead = dead(memory, stack_pointer, &host.module.description.symbols);
        Ok(saved::encode(base, own, memory, &dead, &state))
    }

    pub(super) fn stack_pointer(&mut self) -> usize {
        let value = self.calls.stack_pointer.get(&mut self.store);
        value.i32().unwrap_or_default() as u32 as usize
    }

    pub(super) fn state(&mut self) -> Result<HostState, EngineError> {
        let host = self.store.data();
        let idle = host.client.input.is_empty() && host.client.output.is_empty();
        if host.process.as_ref().is_some_and(|own| !own.is_alone()) {
            // The shared memory knows of other processes.
            return Err(EngineError::Image("its memory is shared".to_owned()));
        }
        if !idle || self.is_broken() {
            return Err(EngineError::Image("the backend is not idle".to_owned()));
        }
        let (directory, files) = host.files.save().map_err(|errno| {
            EngineError::Image(format!("an open file cannot be kept (errno {})", errno.0))
        })?;
        let umask = host.umask;
        let timer_armed = host.timer.fired || host.timer.deadline.is_some();
        let module = Arc::clone(&host.module);
        let guest = host.guest();
        let mut globals = Vec::new();
        for name in &module.description.mutable_globals {
            let global = guest.instance.get_global(&mut self.store, name);
            match global.map(|global| global.get(&mut self.store)) {
                Some(Val::I32(value)) => globals.push(value as u32),
                _ => return Err(EngineError::Image(format!("{name} is not an i32"))),
            }
        }
        Ok(HostState {
            globals,
            libraries: crate::host::save(&mut self.store).map_err(EngineError::Wasm)?,
            directory,
            files,
            umask,
            timer_armed,
        })
    }
}

/// Ranges in order, without overlaps: `own`, which are, and what was shared with other processes.
fn with(own: Vec<Range<usize>>, shared: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut all: Vec<_> = own
        .into_iter()
        .flat_map(|range| apart(range, shared))
        .collect();
    all.extend(shared.iter().cloned());
    all.sort_by_key(|range| range.start);
    all
}

/// The parts of a range that lie outside of others.
fn apart(range: Range<usize>, others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut parts = vec![range];
    for other in others {
        let cut = parts.into_iter().flat_map(|part| {
            let before = part.start..part.end.min(other.start);
            let after = part.start.max(other.end)..part.end;
            [before, after]
        });
        parts = cut.filter(|part| !part.is_empty()).collect();
    }
    parts
}

/// What is nobody's in the memory of a backend that waits for its next message, in order.
pub(super) fn dead(
    memory: &[u8],
    stack_pointer: usize,
    symbols: &HashMap<String, u32>,
) -> Vec<Range<usize>> {
    // Below the stack pointer everything is left over.
    let top = stack_pointer / 16 * 16;
    let stack = top.saturating_sub(STACK_BYTES)..top;
    let mut dead = vec![stack];
    dead.extend(heap::free(memory, symbols));
    dead.extend(Buffers::of(memory, symbols).empty());
    // The buffers lie in one block of the heap, between free ones.
    dead.sort_by_key(|range| range.start);
    dead
}
