//! Who may come in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sha2::{Digest as _, Sha256};
use wire::pg::scram::{ITERATIONS, SALT_BYTES, SHA_256, Verifier};
use zeroize::Zeroizing;

use crate::secret_file;

/// Who may come in (`auth.method`).
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody who reaches the port, as whoever they say.
    #[default]
    Trust,
    /// Who proves to know a password, with SCRAM-SHA-256: the administrator's, or that of a role of
    /// the database.
    Scram(Arc<Administrator>),
}

/// The role `postgres` of every database, whose password the node keeps.
#[derive(Debug)]
pub struct Administrator {
    /// Where the password comes from, if from a file.
    file: Option<PathBuf>,
    verifier: RwLock<Verifier>,
    /// What was last found in the file, whether it could be used or not.
    seen: Mutex<[u8; 32]>,
}

/// The administrator's password cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdministratorError {
    /// The file cannot be read.
    #[error("auth.admin_password_file = \"{}\": {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is neither a verifier nor a password.
    #[error("the administrator's password: {0}; `dormouse password` makes what belongs there")]
    Content(&'static str),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a salt: {0}")]
    Random(getrandom::Error),
}

/// A verifier of a password, with a salt of its own.
///
/// # Errors
/// If the system gives no random bytes.
pub fn verifier_of(password: &str) -> Result<Verifier, getrandom::Error> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)?;
    Ok(Verifier::of_password(password, &salt, ITERATIONS))
}

impl Administrator {
    /// With the password, or the verifier of one, in a file. Blocks for the disk.
    ///
    /// # Errors
    /// [`AdministratorError`], which says what to do.
    pub fn from_file(path: &Path) -> Result<Self, AdministratorError> {
        let bytes = read(path)?;
        Ok(Self {
            file: Some(path.to_owned()),
            verifier: RwLock::new(parse(&bytes)?),
            seen: Mutex::new(Sha256::digest(&*bytes).into()),
        })
    }

    /// With this password, or the verifier of one.
    ///
    /// # Errors
    /// [`AdministratorError`], which says what to do.
    pub fn from_secret(secret: &str) -> Result<Self, AdministratorError> {
        Ok(Self {
            file: None,
            verifier: RwLock::new(parse(secret.as_bytes())?),
            seen: Mutex::default(),
        })
    }

    pub(crate) fn verifier(&self) -> Verifier {
        self.verifier.read().clone()
    }

    /// Reads the file again, if it has changed. If what is in it cannot be used, the log says why, and
    /// the password from before stays. Blocks for the disk.
    pub fn reload(&self) {
        let Some(path) = &self.file else {
            return;
        };
        let mut seen = self.seen.lock();
        let bytes = read(path);
        let now: [u8; 32] = match &bytes {
            Ok(bytes) => Sha256::digest(&**bytes).into(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        if *seen == now {
            return;
        }
        *seen = now;
        match bytes.and_then(|bytes| parse(&bytes)) {
            Ok(verifier) => {
                *self.verifier.write() = verifier;
                tracing::info!("the administrator has a new password");
            }
            Err(error) => {
                tracing::error!(%error, "the administrator's password from before stays");
            }
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, AdministratorError> {
    secret_file::read(path).map_err(|source| AdministratorError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads the first line.
fn parse(bytes: &[u8]) -> Result<Verifier, AdministratorError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| AdministratorError::Content("it is not text in UTF-8"))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(AdministratorError::Content("it is empty"));
    }
    if line.starts_with(SHA_256) {
        return Verifier::parse(line)
            .map_err(|_| AdministratorError::Content("a SCRAM-SHA-256 verifier is damaged"));
    }
    verifier_of(line).map_err(AdministratorError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_or_a_password() {
        let verifier = verifier_of("secret").unwrap().to_text();
        let of =
            |text: &str| Administrator::from_secret(text).map(|admin| admin.verifier().to_text());
        assert_eq!(of(&verifier).unwrap(), verifier);
        assert_ne!(of("secret").unwrap(), verifier);
        for bad in ["", "\nsecret", &verifier[..40]] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains("dormouse password"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        let first = verifier_of("one").unwrap().to_text();
        std::fs::write(&path, format!("{}\n", *first)).unwrap();
        let admin = Administrator::from_file(&path).unwrap();
        assert_eq!(admin.verifier().to_text(), first);
        std::fs::write(&path, "").unwrap();
        admin.reload();
        assert_eq!(admin.verifier().to_text(), first);
        let second = verifier_of("two").unwrap().to_text();
        std::fs::write(&path, &*second).unwrap();
        admin.reload();
        assert_eq!(admin.verifier().to_text(), second);
    }
}
