//! The engine: one compiler, the compiled modules, and the ways to start a backend.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use volume::Volume;
use wasmtime::{Config, Linker};

use crate::backend::{Backend, BackendLimits, run_program};
use crate::cache::{CompileCache, Progress, Silent};
use crate::distribution::Distribution;
use crate::environment::{Environment, SystemEnvironment};
use crate::error::EngineError;
use crate::files::{Scratch, StandardStreams};
use crate::host::{self, Children, Host};
use crate::image::Image;
use crate::memory::HostMemories;
use crate::module::{LibraryModule, MainModule};
use crate::rewrite::Role;
use crate::ticker::{Call, Ticker};

/// Native stack that wasm may use, in bytes. Postgres' own limit (`max_stack_depth`) is met
/// first; this one is asked about at every check of it.
pub(crate) const WASM_STACK_BYTES: usize = 16 << 20;
/// Stack beyond that for the host functions, in bytes.
const HOST_STACK_BYTES: usize = 1 << 20;
/// Raised whenever images of earlier builds must not be used: the settings of a boot, or the
/// host's part of an image, changed.
const IMAGE_VERSION: u32 = 8;

/// How an engine is opened.
pub struct EngineOptions {
    /// Folder for compiled code; may be shared by processes and deleted at any time.
    pub cache_directory: PathBuf,
    /// Told about compiling.
    pub progress: Arc<dyn Progress>,
    /// Clock and randomness.
    pub environment: Arc<dyn Environment>,
}

impl EngineOptions {
    /// Options with the system's clock, saying nothing about progress.
    pub fn new(cache_directory: impl Into<PathBuf>) -> Self {
        Self {
            cache_directory: cache_directory.into(),
            progress: Arc::new(Silent),
            environment: Arc::new(SystemEnvironment::new()),
        }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EngineOptions")
            .field("cache_directory", &self.cache_directory)
            .finish_non_exhaustive()
    }
}

/// Starts backends. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<EngineInner>);

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// What the backends share.
pub(crate) struct EngineInner {
    wasm: wasmtime::Engine,
    ticker: Ticker,
    linker: Linker<Host>,
    cache: CompileCache,
    distribution: Distribution,
    environment: Arc<dyn Environment>,
    postgres: OnceLock<Arc<MainModule>>,
    libraries: Mutex<HashMap<String, Arc<OnceCell<Arc<LibraryModule>>>>>,
}

/// The settings that all modules are compiled with; part of what compiled code is bound to.
pub(crate) fn configuration() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_exceptions(true)
        .collector(wasmtime::Collector::DeferredReferenceCounting)
        // A longjmp makes one small object; the heap for them need not be 4 GiB.
        .gc_heap_reservation(1 << 20)
        .gc_heap_guard_size(1 << 16)
        .gc_heap_may_move(true)
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .memory_may_move(false)
        // Together with our own memory this would panic, and images are ours to map.
        .memory_init_cow(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(WASM_STACK_BYTES + HOST_STACK_BYTES)
        .compiler_inlining(wasmtime::Inlining::Yes)
        .with_host_memory(Arc::new(HostMemories));
    config
}

impl Engine {
    /// Loads Postgres, compiling it if this machine has not done so before. Blocks: seconds of
    /// processor time the first time, some milliseconds later.
    ///
    /// # Errors
    ///
    /// [`EngineError`], above all if the cache folder cannot be written.
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let wasm = wasmtime::Engine::new(&configuration()).map_err(EngineError::Wasm)?;
        let mut linker = Linker::new(&wasm);
        host::link(&mut linker).map_err(EngineError::Wasm)?;
        let inner = EngineInner {
            cache: CompileCache::open(&options.cache_directory, options.progress)?,
            distribution: Distribution::open(),
            environment: options.environment,
            postgres: OnceLock::new(),
            libraries: Mutex::default(),
            linker,
            // Without it nothing could be cancelled.
            ticker: Ticker::start(&wasm).map_err(|error| EngineError::Wasm(error.into()))?,
            wasm,
        };
        let postgres = inner.load_postgres()?;
        inner.postgres.get_or_init(|| Arc::new(postgres));
        Ok(Self(Arc::new(inner)))
    }

    /// The files and versions that this engine carries.
    pub fn distribution(&self) -> &Distribution {
        &self.0.distribution
    }

    /// Identifies what an image depends on: modules, wasmtime, this build's settings. An image
    /// stored under another fingerprint must be made anew.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        IMAGE_VERSION.hash(&mut hasher);
        crate::initdb::SETTINGS.hash(&mut hasher);
        self.0.distribution.id().as_bytes().hash(&mut hasher);
        self.0
            .wasm
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Makes a data directory in an empty volume, as `initdb` does.
    ///
    /// # Errors
    ///
    /// [`EngineError::Initdb`] with what it printed.
    pub async fn initdb(&self, volume: Arc<Volume>) -> Result<(), EngineError> {
        crate::initdb::run(&self.0, volume).await
    }

    /// Starts Postgres on a data directory, in the database that its catalog knows by that name,
    /// running crash recovery if the last backend on it was not shut down.
    ///
    /// # Errors
    ///
    /// [`BackendError`](crate::BackendError) if Postgres does not come up:
    /// [`Exited`](crate::BackendError::Exited) with status 1 after a FATAL error, as for a name that
    /// the catalog does not know. The log says which.
    pub async fn boot(
        &self,
        volume: Arc<Volume>,
        database: &str,
        limits: BackendLimits,
    ) -> Result<Backend, crate::BackendError> {
        Backend::boot(&self.0, volume, database, limits).await
    }

    /// Starts a backend from an image, on a volume whose files equal those of the image's
    /// template: the moment that the image was taken at.
    ///
    /// # Errors
    ///
    /// [`BackendError`](crate::BackendError) if it cannot be set up.
    pub async fn fork(
        &self,
        image: &Image,
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Backend, crate::BackendError> {
        Backend::fork(&self.0, image, volume, limits).await
    }

    /// Keeps `count` spares of an image: forks made in advance, which [`fork`](Self::fork) and
    /// [`resume`](Self::resume) take before they make one, and which answer sooner. Each is a
    /// mapping of the image and some 3 MiB of memory, 10 at most. None is made by itself: call this again after
    /// one was taken, from a task that nobody waits for. Spares above `count` are dropped.
    ///
    /// # Errors
    ///
    /// [`BackendError`](crate::BackendError) if one cannot be set up.
    pub async fn stock(&self, image: &Image, count: usize) -> Result<(), crate::BackendError> {
        Backend::stock(&self.0, image, count).await
    }

    /// A further process of a running database, which shares memory with its other backends. Only one of
    /// them runs at a time. The image must have been taken when nothing of Postgres' statistics was pending
    /// (`pg_stat_force_next_flush()`).
    ///
    /// # Errors
    ///
    /// [`BackendError`](crate::BackendError) if it cannot be set up.
    pub async fn join(
        &self,
        image: &Image,
        shared: &crate::SharedMemory,
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Backend, crate::BackendError> {
        Backend::join(&self.0, image, shared, volume, limits).await
    }

    /// Takes the image of a template's backend. The volume must not change between this and
    /// saving it as the template.
    ///
    /// # Errors
    ///
    /// [`EngineError::Image`] if the backend holds something that an image cannot.
    pub fn image(&self, backend: &mut Backend) -> Result<Image, EngineError> {
        backend.image()
    }

    /// An idle backend as its differences from `base`, the image of the template that its volume
    /// was made from: bytes to keep while the database sleeps. The backend is not disturbed.
    ///
    /// It must be outside a transaction, and what its sessions left behind be discarded; after a
    /// `CHECKPOINT` and [`Backend::trim`] they are a fraction as many. The bytes
    /// hold the tenant's data; they belong to this volume as it is now, to `base`, and to
    /// [`fingerprint`](Self::fingerprint), and carry no checksum.
    ///
    /// # Errors
    ///
    /// [`EngineError::Image`] if the backend is not idle, or holds something that cannot be kept,
    /// as an open file without a name. It works on; shut it down instead.
    pub fn save(&self, backend: &mut Backend, base: &Image) -> Result<Vec<u8>, EngineError> {
        backend.save(base)
    }

    /// Continues a saved backend, on a volume whose files are exactly those of that moment.
    ///
    /// # Errors
    ///
    /// [`BackendError::Start`](crate::BackendError::Start) if `saved` is not what
    /// [`save`](Self::save) wrote, or not of `base`, or does not fit the volume: boot instead.
    pub async fn resume(
        &self,
        base: &Image,
        saved: &[u8],
        volume: Arc<Volume>,
        limits: BackendLimits,
    ) -> Result<Backend, crate::BackendError> {
        Backend::resume(&self.0, base, saved, volume, limits).await
    }
}

impl EngineInner {
    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// To be held while a guest runs, or may run again after a wait.
    pub(crate) fn begin_call(&self) -> Call {
        self.ticker.begin()
    }

    pub(crate) fn linker(&self) -> &Linker<Host> {
        &self.linker
    }

    pub(crate) fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    pub(crate) fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    pub(crate) fn progress(&self) -> &dyn Progress {
        self.cache.progress()
    }

    pub(crate) fn postgres(&self) -> Arc<MainModule> {
        Arc::clone(
            self.postgres
                .get()
                .expect("BUG: loaded when the engine was opened"),
        )
    }

    fn load_postgres(&self) -> Result<MainModule, EngineError> {
        let hash = self.distribution.pglite_wasm_sha256();
        let (module, description) = self.cache.load(
            &self.wasm,
            "PostgreSQL",
            hash.as_bytes(),
            Role::Main,
            || self.distribution.pglite_wasm(),
        )?;
        MainModule::new(&self.linker, &module, description)
    }

    pub(crate) fn load_initdb(&self) -> Result<MainModule, EngineError> {
        let hash = self.distribution.initdb_wasm_sha256();
        let (module, description) =
            self.cache
                .load(&self.wasm, "initdb", hash.as_bytes(), Role::Main, || {
                    self.distribution.initdb_wasm()
                })?;
        MainModule::new(&self.linker, &module, description)
    }

    /// The compiled library at `path` of the distribution. The first call compiles it, or loads
    /// what is kept of it, on a thread for blocking work; others wait for that.
    pub(crate) async fn library(
        self: &Arc<Self>,
        path: &str,
    ) -> wasmtime::Result<Arc<LibraryModule>> {
        let cell = Arc::clone(self.libraries.lock().entry(path.to_owned()).or_default());
        let library = cell
            .get_or_try_init(|| async {
                let engine = Arc::clone(self);
                let path = path.to_owned();
                let load = move || engine.load_library(&path).map(Arc::new);
                tokio::task::spawn_blocking(load).await?
            })
            .await?;
        Ok(Arc::clone(library))
    }

    fn load_library(&self, path: &str) -> wasmtime::Result<LibraryModule> {
        let hash = self
            .distribution
            .library_sha256(path)
            .ok_or_else(|| wasmtime::format_err!("file not found"))?;
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let wasm = || {
            self.distribution
                .contents(path)
                .map(|bytes| bytes.to_vec())
                .unwrap_or_default()
        };
        let (module, description) =
            self.cache
                .load(&self.wasm, name, hash.as_bytes(), Role::Library, wasm)?;
        Ok(LibraryModule {
            module,
            description,
            links: Mutex::default(),
        })
    }

    /// Runs `postgres` for `initdb`, with input and output in memory: its exit status.
    pub(crate) async fn run_postgres(
        self: &Arc<Self>,
        volume: Arc<Volume>,
        scratch: Arc<Scratch>,
        arguments: &[String],
        input: Arc<Mutex<Vec<u8>>>,
        output: Arc<Mutex<Vec<u8>>>,
    ) -> Result<i32, EngineError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let streams = StandardStreams::Captured { input, output };
        run_program(
            self,
            self.postgres(),
            volume,
            scratch,
            streams,
            &arguments,
            None,
        )
        .await
    }

    /// Runs `initdb`: its exit status and what it printed.
    pub(crate) async fn run_initdb(
        self: &Arc<Self>,
        volume: Arc<Volume>,
        arguments: &[&str],
    ) -> Result<(i32, String), EngineError> {
        let module = Arc::new(self.load_initdb()?);
        let scratch = Arc::new(Scratch::new());
        let output = Arc::default();
        let streams = StandardStreams::Captured {
            input: Arc::default(),
            output: Arc::clone(&output),
        };
        let children = Children::new(Arc::clone(self), Arc::clone(&scratch));
        let status = run_program(
            self,
            module,
            volume,
            scratch,
            streams,
            arguments,
            Some(children),
        )
        .await?;
        let printed = String::from_utf8_lossy(&output.lock()).into_owned();
        Ok((status, printed))
    }
}
