//! A static token: a random secret with a form that programs know.
//!
//! `dm_`, 43 digits of 62 for 256 random bits, and 6 for a checksum, so that a scanner of leaked secrets can tell a token
//! from other text without asking anybody: `dm_[0-9A-Za-z]{49}`.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What every token begins with.
pub(crate) const PREFIX: &str = "dm_";

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Digits of the secret, and of the checksum.
const SECRET_DIGITS: usize = 43;
const CHECKSUM_DIGITS: usize = 6;

/// The hash by which a token is kept. One round of SHA-256 is right for it, and no salt or slow hash is needed as for
/// passwords: nobody guesses 256 random bits, however fast each try is.
pub(super) type Hash = [u8; 32];

/// Makes a token of random bytes.
pub(super) fn of_random(random: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(
        PREFIX.len() + SECRET_DIGITS + CHECKSUM_DIGITS,
    ));
    text.push_str(PREFIX);
    push_digits(&mut text, random, SECRET_DIGITS);
    let checksum = crc32c::crc32c(text.as_bytes());
    push_digits(&mut text, &checksum.to_be_bytes(), CHECKSUM_DIGITS);
    text
}

/// Whether a text has the form of a token, with the checksum.
pub(super) fn is_well_formed(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(PREFIX) else {
        return false;
    };
    if digits.len() != SECRET_DIGITS + CHECKSUM_DIGITS
        || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return false;
    }
    let (covered, found) = text.split_at(PREFIX.len() + SECRET_DIGITS);
    let mut expected = String::new();
    let checksum = crc32c::crc32c(covered.as_bytes());
    push_digits(&mut expected, &checksum.to_be_bytes(), CHECKSUM_DIGITS);
    expected == found
}

pub(super) fn hash(token: &str) -> Hash {
    hash_bytes(token.as_bytes())
}

pub(super) fn hash_bytes(secret: &[u8]) -> Hash {
    Sha256::digest(secret).into()
}

/// Writes a big-endian number with so many digits of 62.
fn push_digits(text: &mut String, number: &[u8], count: usize) {
    let mut number = Zeroizing::new(number.to_vec());
    let mut digits = Zeroizing::new(vec![0_u8; count]);
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    text.extend(digits.iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_a_form_of_their_own() {
        for random in [[0; 32], [255; 32], std::array::from_fn(|at| at as u8)] {
            let token = of_random(&random);
            assert_eq!(token.len(), 52);
            assert!(is_well_formed(&token), "{}", *token);
            let mut other = token.to_string();
            let changed = if other.ends_with('0') { '1' } else { '0' };
            other.pop();
            other.push(changed);
            assert!(!is_well_formed(&other));
        }
        for bad in ["", "dm_", "dm_abc", "xx_0000", &"0".repeat(52)] {
            assert!(!is_well_formed(bad));
        }
    }

    #[test]
    fn different_bytes_are_different_tokens() {
        let mut largest = [255; 32];
        let first = of_random(&largest);
        largest[31] = 254;
        assert_ne!(*first, *of_random(&largest));
        // 2^256 - 1 needs all 43 digits.
        assert_ne!(first.as_bytes()[PREFIX.len()], b'0');
    }
}
