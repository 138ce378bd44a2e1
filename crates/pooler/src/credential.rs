//! With whom a binding is reached over PostgreSQL's protocol: a user name and a password that are nobody's at the origin.

use wire::pg::scram::Verifier;
use zeroize::Zeroizing;

use crate::origin::Secret;

/// Digits behind the binding's id in a user name.
const DIGITS: usize = 8;

/// Digits of a binding's id.
const ID_DIGITS: usize = 32;

/// Rounds of hashing: a password of ours has 192 random bits, which no number of rounds makes harder to guess. Drivers
/// want some all the same.
const ITERATIONS: u32 = 4096;

/// A user name, and what is kept of its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The binding's id, a dash and eight digits: so it says whose it is. Letters, digits and dashes.
    pub user: String,
    /// For people.
    pub name: String,
    /// What a password is checked against, as PostgreSQL writes it.
    pub verifier: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// Without the verifier.
impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Credential")
            .field("user", &self.user)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// A new one of a binding, and its password, which is kept nowhere. Both are of letters, digits and dashes.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn draw(
        binding: &str,
        name: &str,
        now_ms: u64,
    ) -> Result<(Self, Secret), getrandom::Error> {
        let (user, password) = Self::name_and_password(binding)?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)?;
        let verifier = Verifier::of_password(password.reveal(), &salt, ITERATIONS);
        let credential = Self {
            user,
            name: name.to_owned(),
            verifier: verifier.to_text().to_string(),
            created_ms: now_ms,
        };
        Ok((credential, password))
    }

    /// A user name of a binding and a password, for who keeps them otherwise.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn name_and_password(binding: &str) -> Result<(String, Secret), getrandom::Error> {
        let (mut digits, mut password) = ([0; DIGITS / 2], Zeroizing::new([0; 24]));
        getrandom::fill(&mut digits)?;
        getrandom::fill(&mut *password)?;
        let user = format!("{binding}-{}", hex(&digits));
        Ok((user, Secret::new(hex(&*password))))
    }

    /// The binding's id in a user name that has the form of one of ours.
    pub fn binding_of(user: &str) -> Option<&str> {
        let (id, digits) = user.split_once('-')?;
        let is_hex = |text: &str, digits: usize| {
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            text.len() == digits && text.bytes().all(lower)
        };
        (is_hex(id, ID_DIGITS) && is_hex(digits, DIGITS)).then_some(id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_says_whose_it_is() {
        let id = "0123456789abcdef0123456789abcdef";
        let (credential, password) = Credential::draw(id, "ci", 5).unwrap();
        assert_eq!(Credential::binding_of(&credential.user), Some(id));
        assert!(
            Verifier::parse(&credential.verifier)
                .unwrap()
                .is_of(password.reveal())
        );
        assert!(!format!("{credential:?}").contains("SCRAM"));
        let (other, another) = Credential::draw(id, "ci", 5).unwrap();
        assert_ne!(other.user, credential.user);
        assert_ne!(another.reveal(), password.reveal());
        for user in [
            "postgres",
            id,
            "0123-01234567",
            &format!("{id}-0123456G"),
            "",
        ] {
            assert_eq!(Credential::binding_of(user), None, "{user}");
        }
    }
}
