//! Answers as they are kept: nobody reads them without the node's secret, nor puts another one in their place.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use wire::{PgError, sqlstate};

/// Closes and opens the answer to one request.
pub(super) struct Seal {
    key: LessSafeKey,
    /// What the answer is to: another's does not open.
    of: Vec<u8>,
}

impl Seal {
    pub(super) fn new(key: &[u8; 32], of: &[u8]) -> Result<Self, PgError> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| failed())?;
        Ok(Self {
            key: LessSafeKey::new(key),
            of: of.to_owned(),
        })
    }

    /// A number that is used once, and the encrypted answer.
    pub(super) fn close(&self, answer: &[u8]) -> Result<Vec<u8>, PgError> {
        let mut number = [0; NONCE_LEN];
        getrandom::fill(&mut number)
            .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        let nonce = Nonce::assume_unique_for_key(number);
        let mut sealed = answer.to_owned();
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(&self.of), &mut sealed)
            .map_err(|_| failed())?;
        Ok([&number[..], &sealed].concat())
    }

    /// # Errors
    /// XX001 if it is not what was closed for this request.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, PgError> {
        let (number, sealed) = sealed.split_first_chunk().ok_or_else(damaged)?;
        let nonce = Nonce::assume_unique_for_key(*number);
        let mut answer = sealed.to_owned();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(&self.of), &mut answer);
        let length = opened.map_err(|_| damaged())?.len();
        answer.truncate(length);
        Ok(answer)
    }
}

fn failed() -> PgError {
    PgError::error(sqlstate::INTERNAL_ERROR, "an answer could not be encrypted")
}

fn damaged() -> PgError {
    PgError::error(
        sqlstate::DATA_CORRUPTED,
        "the answer that is kept for this Idempotency-Key is damaged",
    )
    .detail("It is not the one that this server has written. The request was done before.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_opens_for_the_same_request_only() {
        let seal = |key, of: &[u8]| Seal::new(&[key; 32], of).unwrap();
        let one = seal(1, b"one");
        let sealed = one.close(b"{\"answer\":1}").unwrap();
        assert_eq!(one.open(&sealed).unwrap(), b"{\"answer\":1}");
        assert_ne!(one.close(b"{\"answer\":1}").unwrap(), sealed);
        assert!(!sealed.windows(6).any(|part| part == b"answer"));
        assert_eq!(seal(1, b"two").open(&sealed).unwrap_err().code(), "XX001");
        assert_eq!(seal(2, b"one").open(&sealed).unwrap_err().code(), "XX001");
        for end in 0..sealed.len() {
            assert!(one.open(&sealed[..end]).is_err(), "{end}");
        }
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(one.open(&other).is_err(), "{at}");
        }
        assert_eq!(one.open(&one.close(b"").unwrap()).unwrap(), b"");
    }
}
