//! TLS: the certificate that we show, and how it is replaced while we run.

mod client;
mod identity;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub use client::{client_config, client_config_of_nobody};
use identity::{Contents, Fingerprint};
pub(crate) use identity::{Identity, POSTGRESQL};

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `tls.certificate`: our certificate, and those between it and the authority, in PEM.
    pub certificate: PathBuf,
    /// `tls.key`: its private key, in PEM.
    pub key: PathBuf,
    /// `tls.client_ca`: the authorities of clients' certificates, in PEM; without it clients need none.
    pub client_ca: Option<PathBuf>,
}

/// Whether PostgreSQL's protocol is spoken over TLS (`pgwire.tls`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// A wish for TLS is declined.
    Off,
    /// As the client wishes, if there is a certificate.
    #[default]
    Allow,
    /// Who comes without is sent away.
    Require,
}

/// Whether HTTP is spoken over TLS (`http.tls`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpTls {
    /// In clear.
    #[default]
    Off,
    /// Over TLS only.
    Require,
}

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("{setting} = \"{}\": {source}", .path.display())]
    Read {
        /// The setting's name.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One does not hold what it should.
    #[error("{setting} = \"{}\": {reason}", .path.display())]
    Content {
        /// The setting's name.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The authorities of the system cannot be had.
    #[error("TLS: the authorities of this system cannot be used: {0}")]
    Client(String),
}

/// A certificate with its key, as they are in their files.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<Identity>>,
    /// What was last found in the files, whether it could be used or not.
    seen: Mutex<Fingerprint>,
}

impl Tls {
    /// Reads the files. Blocks for the disk.
    ///
    /// # Errors
    /// [`TlsError`], which names the setting.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let identity = Identity::new(&files, &contents)?;
        Ok(Self {
            files,
            current: RwLock::new(Arc::new(identity)),
            seen: Mutex::new(contents.fingerprint()),
        })
    }

    /// What connections that begin now show.
    pub(crate) fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.current.read())
    }

    /// Reads the files again, if they have changed: connections that begin from now on are shown what
    /// is in them. If that cannot be used, the log says why, and the old ones stay. Blocks for the disk.
    pub fn reload(&self) {
        let mut seen = self.seen.lock();
        let contents = Contents::read(&self.files);
        let now = match &contents {
            Ok(contents) => contents.fingerprint(),
            Err(error) => Fingerprint::of_error(error),
        };
        if *seen == now {
            return;
        }
        *seen = now;
        match contents.and_then(|contents| Identity::new(&self.files, &contents)) {
            Ok(identity) => {
                *self.current.write() = Arc::new(identity);
                tracing::info!(certificate = %self.files.certificate.display(), "TLS: a new certificate");
            }
            Err(error) => {
                tracing::error!(%error, "TLS: the files have changed and cannot be used; the certificate from before stays");
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
