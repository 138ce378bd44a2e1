//! The local socket that deployed backends use.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::ManagedBindings;

/// As PostgreSQL's own, so that `psql -h FOLDER` finds it.
const NAME: &str = ".s.PGSQL.5432";

/// The longest path of a socket that every system takes, in bytes.
const PATH_BYTES_MAX: usize = 103;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The system takes none with a path as long.
    #[error(
        "the path of a socket is at most {PATH_BYTES_MAX} bytes long, and {path} is longer: set bindings.socket_directory to a \
         shorter one"
    )]
    Long {
        /// The socket.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// The socket, which goes with this.
#[derive(Debug)]
pub(crate) struct LocalListener {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // The next server takes one that stays away.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the bindings' socket stays");
        }
    }
}

impl ManagedBindings {
    /// Where it is.
    pub(super) fn socket_path(&self) -> PathBuf {
        self.options.socket_directory.join(NAME)
    }

    /// Listens, in a folder that nobody else may enter. One that an earlier server has left is taken away: only one server
    /// has the data directory.
    ///
    /// # Errors
    ///
    /// If the path is too long, or the file system says no.
    pub(crate) fn listen(&self) -> Result<LocalListener, SocketError> {
        let path = self.socket_path();
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(SocketError::Long { path });
        }
        match bind(&self.options.socket_directory, &path) {
            Ok(listener) => Ok(LocalListener { listener, path }),
            Err(source) => Err(SocketError::Io { path, source }),
        }
    }
}

fn bind(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made?;
    let mode = std::fs::metadata(directory)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "other users may enter its folder: chmod 700 it, or set bindings.socket_directory to another",
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}
