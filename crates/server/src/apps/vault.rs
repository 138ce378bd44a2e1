//! Values of variables and secrets as they are kept: nobody reads them without the node's key.

use std::fmt;
use std::io;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use workers::store::Vault;

use crate::node_key::NodeKey;

/// What the key is for.
const PURPOSE: &str = "values of apps 1";

/// Seals values with a key that comes of the node's.
pub(super) struct SealedValues(LessSafeKey);

impl SealedValues {
    pub(super) fn new(key: &NodeKey) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &*key.for_purpose(PURPOSE)).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }
}

impl fmt::Debug for SealedValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SealedValues")
            .finish_non_exhaustive()
    }
}

impl Vault for SealedValues {
    fn seal(&self, context: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut number = [0; NONCE_LEN];
        getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
        let nonce = Nonce::assume_unique_for_key(number);
        let mut sealed = bytes.to_owned();
        self.0
            .seal_in_place_append_tag(nonce, Aad::from(context.as_bytes()), &mut sealed)
            .map_err(|_| io::Error::other("the values could not be sealed"))?;
        Ok([&number[..], &sealed].concat())
    }

    fn open(&self, context: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || {
            io::Error::other(
                "its values do not open with this node's key: they are another node's, or were changed. \
                 Restore the key that they were written with, or deploy again",
            )
        };
        let (number, sealed) = sealed.split_first_chunk().ok_or_else(damaged)?;
        let nonce = Nonce::assume_unique_for_key(*number);
        let mut bytes = sealed.to_owned();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut bytes);
        let length = opened.map_err(|_| damaged())?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(key: u8) -> SealedValues {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [key; 32]).unwrap();
        SealedValues::new(&NodeKey::of_file(&path).unwrap()).unwrap()
    }

    #[test]
    fn values_open_with_their_key_for_their_version_only() {
        let sealed = vault(1).seal("acme/shop/production/1", b"hunter2").unwrap();
        let open = |key, context| vault(key).open(context, &sealed);
        assert_eq!(open(1, "acme/shop/production/1").unwrap(), b"hunter2");
        assert!(open(1, "acme/shop/production/2").is_err());
        assert!(open(2, "acme/shop/production/1").is_err());
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        for end in 0..sealed.len() {
            assert!(
                vault(1)
                    .open("acme/shop/production/1", &sealed[..end])
                    .is_err()
            );
        }
    }
}
