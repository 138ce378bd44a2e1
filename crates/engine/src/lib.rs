//! PostgreSQL in wasm: module, linker, host calls, templates, backend, limits. The only room with
//! wasmtime and `unsafe`.
//!
//! [`Engine::open`] loads PGlite's Postgres, compiled once a machine. [`Engine::initdb`] fills an
//! empty volume; [`Engine::boot`] starts a [`Backend`] on one, [`Engine::fork`] continues an
//! [`Image`] of a template's backend, which takes a fraction of a boot. A backend takes and gives
//! bytes of the PostgreSQL protocol; it knows no sockets.

mod backend;
mod buffers;
mod cache;
mod codec;
mod delta;
pub mod distribution;
mod engine;
mod environment;
mod errno;
mod error;
mod files;
mod guest_hash;
mod heap;
mod host;
mod host_heap;
mod hot;
mod image;
mod initdb;
mod landmarks;
mod memory;
mod module;
mod pagemap;
mod processes;
mod read_watch;
mod rewrite;
mod saved;
mod settings;
mod state;
mod ticker;

pub use backend::{
    Backend, BackendLimits, Bond, Company, IdleLimits, Interrupter, PreparedStatement, Sequences,
    SessionIdentity, SessionRefused, SessionState, SharedMemory, User,
};
pub use cache::{Progress, Silent};
pub use engine::{Engine, EngineOptions};
pub use environment::{Environment, SystemEnvironment};
pub use error::{BackendError, EngineError};
pub use host::{ClientIo, ClientIoError};
pub use host_heap::trim_host_heap;
pub use image::Image;
pub use landmarks::GETPID as FIRST_PROCESS_ID;
pub use read_watch::ReadWatch;
pub use rewrite::RewriteError;
pub use settings::SettingSource;
