//! Giving up what need not be kept while a backend is saved.

use std::ops::Range;
use std::sync::Arc;

use wasmtime::{TypedFunc, Val};

use super::saving::dead;
use super::{Backend, ended, enter};
use crate::buffers::Buffers;
use crate::delta::DeltaWriter;
use crate::error::BackendError;
use crate::image::Image;
use crate::memory::{HOST_PAGE_BYTES, discard, join};
use crate::pagemap::own_pages;

/// Bytes of difference up to which a buffer is kept: to place them costs less than to read the
/// block again.
const KEPT_BYTES_MAX: usize = 256;

impl Backend {
    /// Evicts the buffers whose blocks differ from those in the memory of `base`, if the data files
    /// have the same: after a `CHECKPOINT` all of them. Whoever needs one reads it again. Returns
    /// how many went.
    ///
    /// To be called before [`Engine::save`](crate::Engine::save), outside a transaction; inside one
    /// nothing is done.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended; it must be dropped then.
    pub async fn trim(&mut self, base: &Image) -> Result<usize, BackendError> {
        let foreign = self.foreign_buffers(base);
        if foreign.is_empty() || self.in_transaction().await? {
            return Ok(0);
        }
        let begin: TypedFunc<(), ()> = self.export("StartTransactionCommand")?;
        let evict: TypedFunc<(u32, u32), i32> = self.export("EvictUnpinnedBuffer")?;
        let commit: TypedFunc<(), ()> = self.export("CommitTransactionCommand")?;
        let guard = self.begin().await?;
        // Room for the answer whether the buffer had to be written.
        let global = self.calls.stack_pointer;
        let stack = global.get(&mut self.store);
        let flushed = (stack.i32().unwrap_or_default() as u32).wrapping_sub(16);
        global
            .set(&mut self.store, Val::I32(flushed as i32))
            .map_err(ended)?;
        enter(&mut self.store);
        begin.call_async(&mut self.store, ()).await.map_err(ended)?;
        let mut evicted = 0;
        for number in foreign {
            // Postgres counts buffers from 1.
            let gone = evict
                .call_async(&mut self.store, (number + 1, flushed))
                .await
                .map_err(ended)?;
            evicted += usize::from(gone != 0);
        }
        commit
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        global.set(&mut self.store, stack).map_err(ended)?;
        self.end(guard);
        Ok(evicted)
    }

    /// Gives the system back the memory of which nothing need be kept: free parts of the stack, the
    /// heap and the buffers, and what equals the memory of `base` again. For a backend that has
    /// nothing to do for a while; may be called between any two calls. Returns the bytes that went:
    /// none if this backend is not a fork of `base`.
    ///
    /// # Errors
    ///
    /// If the system does not tell which pages are this backend's own.
    pub fn release(&mut self, base: &Image) -> std::io::Result<usize> {
        let stack_pointer = self.stack_pointer();
        let host = self.store.data();
        let forked = matches!(&host.mapped, Some(image) if Arc::ptr_eq(image, &base.memory));
        if !forked || self.is_broken() || host.process.is_some() {
            return Ok(0);
        }
        let (handle, module) = (host.guest().memory, Arc::clone(&host.module));
        let memory = handle.data(&self.store);
        let dead = dead(memory, stack_pointer, &module.description.symbols);
        let image = base.memory.bytes();
        let mut idle = Vec::new();
        let mut bytes = 0;
        for range in own_pages(memory)? {
            for start in range.step_by(HOST_PAGE_BYTES) {
                let page = start..start + HOST_PAGE_BYTES;
                if is_dead(&page, &dead) || image.get(page.clone()) == memory.get(page.clone()) {
                    bytes += page.len();
                    join(&mut idle, page);
                }
            }
        }
        discard(handle.data_mut(&mut self.store), &idle)?;
        Ok(bytes)
    }

    /// The clean buffers that would make a saved backend larger.
    fn foreign_buffers(&self, base: &Image) -> Vec<u32> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let differs = |block: Range<usize>| {
            let mut delta = DeltaWriter::default();
            delta.compare(memory, base.memory.bytes(), block);
            delta.finish().len() > KEPT_BYTES_MAX
        };
        Buffers::of(memory, &host.module.description.symbols)
            .clean()
            .filter(|(_, block)| differs(block.clone()))
            .map(|(number, _)| number)
            .collect()
    }
}

/// Whether one of `dead`, which are in order, covers the page.
fn is_dead(page: &Range<usize>, dead: &[Range<usize>]) -> bool {
    let next = dead.partition_point(|range| range.end < page.end);
    dead.get(next)
        .is_some_and(|range| range.start <= page.start)
}
