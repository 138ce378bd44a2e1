//! Backends that continue an image, with or without what a saved one had of its own.
//!
//! In two steps: first an instance over the image's memory, with the image's libraries linked,
//! that has no volume; it is the same for everybody, so spares of it are made in advance. Then what
//! belongs to one database: its files, its differences from the image, random numbers.

use std::sync::Arc;

use parking_lot::Mutex;
use volume::Volume;
use wasmtime::Val;

use super::instance::{files, host, instantiate};
use super::{Backend, BackendLimits, start_error};
use crate::delta;
use crate::engine::EngineInner;
use crate::error::BackendError;
use crate::files::{Scratch, StandardStreams};
use crate::host::SavedLibraries;
use crate::image::Image;
use crate::memory::{Access, populate};
use crate::saved;
use crate::state::HostState;

/// Bytes of a page of wasm, the unit in which a memory grows.
const WASM_PAGE_BYTES: usize = 65_536;

/// Backends of one image that have no volume yet.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Backend>>);

impl Spares {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn take(&self) -> Option<Backend> {
        self.0.lock().pop()
    }

    /// Drops those above `count`: how many are left.
    fn shrink(&self, count: usize) -> usize {
        let mut spares = self.0.lock();
        let kept = spares.len().min(count);
        let dropped = spares.split_off(kept);
        drop(spares);
        drop(dropped);
        kept
    }
}

impl Backend {
    /// Continues an image over a volume that equals its template.
    pub(crate) async fn fork(
        engine: &Arc<EngineInner>,
        image: &Image,
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Self, BackendError> {
        Self::go_on(engine, image, volume, limits, false).await
    }

    /// Continues an image over a volume that has gone on since: not to run before it shares the memory of
    /// those who run on that.
    pub(super) async fn follow(
        engine: &Arc<EngineInner>,
        image: &Image,
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Self, BackendError> {
        Self::go_on(engine, image, volume, limits, true).await
    }

    async fn go_on(
        engine: &Arc<EngineInner>,
        image: &Image,
        volume: Arc<Volume>,
        limits: BackendLimits,
        files_may_be_gone: bool,
    ) -> Result<Self, BackendError> {
        let mut backend = Self::take(engine, image, &image.state).await?;
        backend.give(engine, &image.state, volume, limits, files_may_be_gone)?;
        backend.restore(&image.state).await?;
        Ok(backend)
    }

    /// Continues a saved backend over a volume that equals the one it was saved on.
    pub(crate) async fn resume(
        engine: &Arc<EngineInner>,
        base: &Image,
        saved: &[u8],
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Self, BackendError> {
        let bad = |reason: String| BackendError::Start(format!("its saved state: {reason}"));
        let saved = saved::decode(saved).map_err(bad)?;
        if saved.image != base.id {
            return Err(bad("it belongs to another image".to_owned()));
        }
        let bytes = saved.memory_bytes.max(base.memory.bytes().len());
        let runs = delta::runs(&saved.delta, bytes).map_err(bad)?;
        let mut backend = Self::take(engine, base, &saved.state).await?;
        backend.give(engine, &saved.state, volume, limits, false)?;
        let memory = backend.store.data().guest().memory;
        let missing = bytes.saturating_sub(memory.data_size(&backend.store));
        memory
            .grow(&mut backend.store, missing.div_ceil(WASM_PAGE_BYTES) as u64)
            .map_err(start_error)?;
        let memory = memory.data_mut(&mut backend.store);
        for (start, run) in runs {
            memory[start..start + run.len()].copy_from_slice(run);
        }
        backend.restore(&saved.state).await?;
        Ok(backend)
    }

    /// Makes or drops spares until there are `count`.
    pub(crate) async fn stock(
        engine: &Arc<EngineInner>,
        image: &Image,
        count: usize,
    ) -> Result<(), BackendError> {
        while image.spares.shrink(count) < count {
            let mut spare = Self::bare(engine, image, &image.state.libraries).await?;
            let memory = spare.store.data().guest().memory;
            let memory = memory.data_mut(&mut spare.store);
            populate(memory, image.memory.runs(), Access::Read);
            populate(memory, &image.hot.ranges(), Access::Write);
            image.spares.0.lock().push(spare);
        }
        Ok(())
    }

    /// A spare, or else one made now, to which `state` can be given.
    async fn take(
        engine: &Arc<EngineInner>,
        image: &Image,
        state: &HostState,
    ) -> Result<Self, BackendError> {
        if !state.libraries.continues(&image.state.libraries) {
            return Self::bare(engine, image, &SavedLibraries::default()).await;
        }
        match image.spares.take() {
            Some(spare) => Ok(spare),
            None => Self::bare(engine, image, &image.state.libraries).await,
        }
    }

    /// An instance over the memory of an image, with these libraries. It must not run before it
    /// has a volume.
    async fn bare(
        engine: &Arc<EngineInner>,
        image: &Image,
        libraries: &SavedLibraries,
    ) -> Result<Self, BackendError> {
        let files = files(engine, None, Arc::new(Scratch::new()), StandardStreams::Log);
        let limits = BackendLimits::default();
        let mut host = host(engine, engine.postgres(), files, limits, None);
        host.mapped = Some(Arc::clone(&image.memory));
        let mut store = instantiate(engine, host).await.map_err(start_error)?;
        let memory = store.data().guest().memory;
        let bytes = image.memory.bytes().len();
        let missing = bytes.saturating_sub(memory.data_size(&store));
        memory
            .grow(&mut store, missing.div_ceil(WASM_PAGE_BYTES) as u64)
            .map_err(start_error)?;
        image
            .memory
            .map_over(&mut store, &memory)
            .map_err(|error| BackendError::Start(error.to_string()))?;
        crate::host::restore(&mut store, libraries)
            .await
            .map_err(start_error)?;
        Self::new(store).map_err(start_error)
    }

    /// Gives a bare backend its volume, with the files of `state` open, and its limits.
    fn give(
        &mut self,
        engine: &EngineInner,
        state: &HostState,
        volume: Arc<Volume>,
        limits: BackendLimits,
        files_may_be_gone: bool,
    ) -> Result<(), BackendError> {
        let scratch = Arc::new(Scratch::new());
        let mut files = files(engine, Some(volume), scratch, StandardStreams::Log);
        files
            .restore(&state.directory, &state.files, files_may_be_gone)
            .map_err(|errno| BackendError::Start(format!("its files: errno {}", errno.0)))?;
        let host = self.store.data_mut();
        host.files = files;
        host.memory_bytes_max = limits.memory_bytes_max;
        host.umask = state.umask;
        // Its signal is early at worst, which Postgres bears; one that never came it would not.
        host.timer.fired = state.timer_armed;
        Ok(())
    }

    /// The memory is in place: everything else that `state` has is put back.
    async fn restore(&mut self, state: &HostState) -> Result<(), BackendError> {
        let guest = self.store.data().guest();
        let module = Arc::clone(&self.store.data().module);
        for (name, value) in module
            .description
            .mutable_globals
            .iter()
            .zip(&state.globals)
        {
            let global = guest.instance.get_global(&mut self.store, name);
            let global = global.ok_or_else(|| BackendError::Start(format!("no {name}")))?;
            global
                .set(&mut self.store, Val::I32(*value as i32))
                .map_err(start_error)?;
        }
        crate::host::restore(&mut self.store, &state.libraries)
            .await
            .map_err(start_error)?;
        self.reseed().await
    }
}
