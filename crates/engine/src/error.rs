//! What can go wrong in the engine, and what the caller can do about it.

use std::path::PathBuf;

use crate::rewrite::RewriteError;

/// Why the engine could not be opened, or a template made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused: a bug here, or a machine it does not support.
    #[error("the wasm engine failed: {0:#}")]
    Wasm(wasmtime::Error),
    /// A module is not of the shape this engine was built for.
    #[error("the module {name} cannot be prepared: {source}")]
    Rewrite {
        /// File name of the module.
        name: String,
        /// What is unexpected about it.
        source: RewriteError,
    },
    /// A file of the cache could not be used; the cache may be deleted at any time.
    #[error("the compile cache {} failed: {source}; set another folder, or make room", .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `initdb` did not make a database.
    #[error("initdb ended with status {status}: {output}")]
    Initdb {
        /// Its exit status.
        status: i32,
        /// What it printed.
        output: String,
    },
    /// A volume failed underneath.
    #[error(transparent)]
    Volume(#[from] volume::VolumeError),
    /// A backend failed to start.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An image cannot be used with this engine; make it anew.
    #[error("the image cannot be used: {0}")]
    Image(String),
}

/// Why a backend ended. Whatever the variant, it is gone: drop it and start another from the
/// same volume.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Postgres ended itself, after a FATAL error: the client has been told why.
    #[error("the backend exited with status {0}")]
    Exited(i32),
    /// wasm trapped, or a host function failed.
    #[error("the backend crashed: {0}")]
    Crashed(String),
    /// It ignored an interrupt and was stopped.
    #[error("the backend did not react to an interrupt in time and was stopped")]
    Unresponsive,
    /// It could not start.
    #[error("the backend did not start: {0}")]
    Start(String),
}
