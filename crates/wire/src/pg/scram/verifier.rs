//! What a server keeps of a password.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{SHA_256, hmac, xor};

/// Rounds of a verifier that is made here, as PostgreSQL's `scram_iterations`.
pub const ITERATIONS: u32 = 4096;

/// Bytes of a salt, as PostgreSQL's.
pub const SALT_BYTES: usize = 16;

/// What a server keeps of a password: enough to check it, not enough to log in with it.
#[derive(Clone)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Zeroizing<[u8; 32]>,
    pub(super) server_key: Zeroizing<[u8; 32]>,
}

/// A text is no SCRAM-SHA-256 verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not of the form SCRAM-SHA-256$iterations:salt$storedkey:serverkey")]
pub struct InvalidVerifier;

impl Verifier {
    /// Of a password. It is normalized with SASLprep, or, as in PostgreSQL, taken as it is where that
    /// does not allow it.
    pub fn of_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        let (client_key, server_key) = client_keys(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: Zeroizing::new(Sha256::digest(*client_key).into()),
            server_key,
        }
    }

    /// Whether it is of this password. It takes as long as all its rounds.
    pub fn is_of(&self, password: &str) -> bool {
        let other = Self::of_password(password, &self.salt, self.iterations);
        other.stored_key.ct_eq(&*self.stored_key).into()
    }

    /// How often a password is hashed.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Of a password that nobody knows, for a role that does not exist or has none. The same names
    /// give the same salt for as long as the secret is the same, as if there were such a role.
    pub fn mock(secret: &[u8], database: &str, role: &str) -> Self {
        // A zero byte is in no name.
        let part = |what: &str| {
            hmac(
                secret,
                &[what.as_bytes(), database.as_bytes(), b"\0", role.as_bytes()],
            )
        };
        Self {
            iterations: ITERATIONS,
            salt: part("salt\0")[..SALT_BYTES].to_vec(),
            stored_key: Zeroizing::new(part("stored key\0")),
            server_key: Zeroizing::new(part("server key\0")),
        }
    }

    /// Reads the form of `pg_authid.rolpassword`.
    pub fn parse(text: &str) -> Result<Self, InvalidVerifier> {
        let parts = || {
            let rest = text.strip_prefix(SHA_256)?.strip_prefix('$')?;
            let (salting, keys) = rest.split_once('$')?;
            let (iterations, salt) = salting.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let iterations = iterations.parse().ok().filter(|count| *count > 0)?;
            let key = |text: &str| Some(Zeroizing::new(BASE64.decode(text).ok()?.try_into().ok()?));
            Some(Self {
                iterations,
                salt: BASE64.decode(salt).ok()?,
                stored_key: key(stored_key)?,
                server_key: key(server_key)?,
            })
        };
        parts().ok_or(InvalidVerifier)
    }

    /// The form of `pg_authid.rolpassword`. It is a secret too: with it a password can be guessed at
    /// leisure, and a server be impersonated.
    pub fn to_text(&self) -> Zeroizing<String> {
        let encode = |bytes: &[u8]| BASE64.encode(bytes);
        Zeroizing::new(format!(
            "{SHA_256}${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&*self.stored_key),
            encode(&*self.server_key)
        ))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Verifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// The client's key and the server's, of a password.
pub(super) fn client_keys(
    password: &str,
    salt: &[u8],
    iterations: u32,
) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
    let prepared = match stringprep::saslprep(password) {
        Ok(prepared) => Zeroizing::new(prepared.into_owned()),
        Err(_) => Zeroizing::new(password.to_owned()),
    };
    let salted = Zeroizing::new(salted_password(prepared.as_bytes(), salt, iterations));
    (
        Zeroizing::new(hmac(&*salted, &[b"Client Key"])),
        Zeroizing::new(hmac(&*salted, &[b"Server Key"])),
    )
}

/// `Hi` of RFC 5802, which is PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    // The key is worked in once for all rounds.
    let keyed =
        Hmac::<Sha256>::new_from_slice(password).expect("BUG: HMAC takes keys of any length");
    let round = |input: &[&[u8]]| -> [u8; 32] {
        let mut mac = keyed.clone();
        input.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut last = Zeroizing::new(round(&[salt, &1u32.to_be_bytes()]));
    let mut sum = *last;
    for _ in 1..iterations {
        *last = round(&[&*last]);
        xor(&mut sum, &last);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by PostgreSQL 18 itself: `\password`, and RFC 7677's example password.
    const OF_PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn of_the_password_of_rfc_7677() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of_password("pencil", &salt, 4096);
        assert_eq!(*verifier.to_text(), OF_PENCIL);
        let read = Verifier::parse(OF_PENCIL).unwrap();
        assert!(read.is_of("pencil"));
        assert!(!read.is_of("Pencil"));
        assert_eq!(*read.to_text(), OF_PENCIL);
    }

    #[test]
    fn passwords_are_normalized() {
        let text = |password| Verifier::of_password(password, b"salt", 2).to_text();
        // A soft hyphen counts for nothing; the roman numeral nine is two letters.
        assert_eq!(text("I\u{ad}X"), text("IX"));
        assert_eq!(text("\u{2168}"), text("IX"));
        // What is not allowed is taken as it is.
        assert_ne!(text("\u{7}"), text(""));
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let md5 = "md5d41d8cd98f00b204e9800998ecf8427e";
        let short = "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA";
        let none = OF_PENCIL.replace("4096", "0");
        for text in ["", md5, short, &none, &OF_PENCIL[..90]] {
            assert_eq!(Verifier::parse(text).err(), Some(InvalidVerifier), "{text}");
        }
    }

    #[test]
    fn mocks_are_stable_and_of_one_role() {
        let text = |secret: &[u8], database, role| Verifier::mock(secret, database, role).to_text();
        assert_eq!(text(b"s", "shop", "ann"), text(b"s", "shop", "ann"));
        assert_ne!(text(b"s", "shop", "ann"), text(b"t", "shop", "ann"));
        assert_ne!(text(b"s", "shop", "ann"), text(b"s", "sho", "pann"));
        let salt = Verifier::mock(b"s", "shop", "ann").salt;
        assert_eq!(salt.len(), SALT_BYTES);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Verifier::parse(OF_PENCIL).unwrap());
        assert_eq!(shown, "Verifier { iterations: 4096, .. }");
    }
}
