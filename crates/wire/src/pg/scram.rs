//! SCRAM-SHA-256 (RFC 5802 and 7677) as PostgreSQL speaks it, on both sides.
//!
//! A server keeps a [`Verifier`] of a password, in the form of `pg_authid`. An [`Exchange`] begins with
//! one, [answers](Exchange::challenge) the client's first message, and [judges](Challenge::judge) its
//! last. A [`Client`] knows the password, [proves](Client::prove) that, and [judges](Proof::judge) whether the server
//! knows the verifier. What holds in every file:
//!
//! 1. A role that does not exist goes the same way as one with another password, with
//!    [`Verifier::mock`].
//! 2. Secrets are compared in constant time, are wiped when they are dropped, and are in no `Debug`.
//! 3. Randomness is an argument.

mod client;
mod end_point;
mod exchange;
mod verifier;

pub use client::{Client, Distrust, Proof, ROUNDS_MAX};
pub use end_point::end_point;
pub use exchange::{Challenge, Channel, Exchange, Refused};
pub use verifier::{ITERATIONS, InvalidVerifier, SALT_BYTES, Verifier};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The mechanism's name.
pub const SHA_256: &str = "SCRAM-SHA-256";

/// The same, bound to the TLS connection that it runs in.
pub const SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Random bytes that a server adds to the client's, as many as PostgreSQL.
pub const NONCE_BYTES: usize = 18;

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("BUG: HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(left: &mut [u8; 32], right: &[u8; 32]) {
    for (left, right) in left.iter_mut().zip(right) {
        *left ^= right;
    }
}
