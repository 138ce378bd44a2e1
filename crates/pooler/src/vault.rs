//! A file that only who has the key can read, and that is replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// What the file begins with: its form and version.
const MAGIC: &[u8; 16] = b"dormouse-vault-1";

/// The longest file that is written, or read (`bindings_bytes_max`).
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A file and its key.
pub(crate) struct Vault {
    path: PathBuf,
    key: LessSafeKey,
}

/// Why a vault's content cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Another key, or the file was changed.
    #[error(
        "{path} cannot be opened with this node's key: it is another node's file, or was changed. \
         Restore the key that it was written with, or move the file away to begin without bindings"
    )]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// It is longer than it can be, or would be.
    #[error(
        "{path} has {bytes} bytes, and bindings_bytes_max allows {FILE_BYTES_MAX}: all bindings together, their certificates \
         included, must be shorter"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it is, or would be.
        bytes: u64,
    },
    /// The content is of a form that this program does not know.
    #[error("{path} is of a form that this program does not know: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Vault {
    /// A file, which need not be there yet, and 32 bytes that nobody else has.
    pub(crate) fn new(path: PathBuf, key: &[u8; 32]) -> Result<Self, VaultError> {
        match UnboundKey::new(&AES_256_GCM, key) {
            Ok(key) => Ok(Self {
                path,
                key: LessSafeKey::new(key),
            }),
            Err(_) => Err(VaultError::Sealed { path }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The content; nothing if there is no file.
    pub(crate) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let length = file.metadata().map_err(|error| self.io(error))?.len();
        self.expect_short(length)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| self.io(error))?;
        let sealed = || VaultError::Sealed {
            path: self.path.clone(),
        };
        let rest = bytes.strip_prefix(&MAGIC[..]).ok_or_else(sealed)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or_else(sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| sealed())?;
        let mut content = Zeroizing::new(rest.to_vec());
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(MAGIC), &mut content);
        let length = opened.map_err(|_| sealed())?.len();
        content.truncate(length);
        Ok(Some(content))
    }

    /// Replaces the content. After a crash the file has the old one or the new one.
    pub(crate) fn write(&self, mut content: Zeroizing<Vec<u8>>) -> Result<(), VaultError> {
        let around = MAGIC.len() + NONCE_LEN + AES_256_GCM.tag_len();
        self.expect_short((around + content.len()) as u64)?;
        let mut nonce = [0; NONCE_LEN];
        let failed = |reason: String| self.io(io::Error::other(reason));
        getrandom::fill(&mut nonce).map_err(|error| failed(error.to_string()))?;
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(MAGIC),
                &mut *content,
            )
            .map_err(|_| failed("it could not be sealed".to_owned()))?;
        self.replace(&[MAGIC, &nonce, &content])
            .map_err(|error| self.io(error))
    }

    fn expect_short(&self, bytes: u64) -> Result<(), VaultError> {
        match bytes <= FILE_BYTES_MAX {
            true => Ok(()),
            false => Err(VaultError::TooLong {
                path: self.path.clone(),
                bytes,
            }),
        }
    }

    fn replace(&self, parts: &[&[u8]]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        let folder = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    fn io(&self, source: io::Error) -> VaultError {
        VaultError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(folder: &Path, key: u8) -> Vault {
        Vault::new(folder.join("vault"), &[key; 32]).unwrap()
    }

    #[test]
    fn only_the_key_opens_it() {
        let folder = tempfile::tempdir().unwrap();
        let vault_of = |key| vault(folder.path(), key);
        assert!(vault_of(1).read().unwrap().is_none());
        let secret = b"password=hunter2".to_vec();
        vault_of(1).write(Zeroizing::new(secret.clone())).unwrap();
        assert_eq!(**vault_of(1).read().unwrap().unwrap(), secret);
        let error = vault_of(2).read().unwrap_err();
        assert!(matches!(error, VaultError::Sealed { .. }), "{error}");
        let path = folder.path().join("vault");
        let mut bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(vault_of(1).read().is_err());
        std::fs::write(&path, b"dorm").unwrap();
        assert!(vault_of(1).read().is_err());
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(folder.path(), 1);
        let content = |bytes: usize| Zeroizing::new(vec![b'x'; bytes]);
        let most = FILE_BYTES_MAX as usize - MAGIC.len() - NONCE_LEN - AES_256_GCM.tag_len();
        vault.write(content(most)).unwrap();
        let error = vault.write(content(most + 1)).unwrap_err();
        assert!(matches!(error, VaultError::TooLong { .. }), "{error}");
        assert!(error.to_string().contains("bindings_bytes_max"), "{error}");
        assert_eq!(vault.read().unwrap().unwrap().len(), most);
        let file = OpenOptions::new().write(true).open(vault.path()).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        let error = vault.read().unwrap_err();
        assert!(matches!(error, VaultError::TooLong { .. }), "{error}");
    }

    #[test]
    fn others_may_not_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(folder.path(), 1);
        vault.write(Zeroizing::new(Vec::new())).unwrap();
        let mode = std::fs::metadata(vault.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
