//! What tells one query from another.

use sha2::{Digest, Sha256};

use super::says_now;

/// A query with everything that its answer depends on beside the database: who asks, under which settings, the
/// statement and its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryKey {
    statement: [u8; 32],
    values: [u8; 32],
    says_now: bool,
}

impl QueryKey {
    /// `who` says all that decides what who asks may see, the role first; `settings` are all that the session begins with, in the order in which they are given, and `params` the values
    /// as they were sent, `None` for NULL; of values in JSON, their text.
    pub fn new<'a>(
        who: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
        sql: &str,
        params: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Self {
        let mut statement = Sha256::new();
        add(&mut statement, who);
        add(&mut statement, sql);
        for (name, value) in settings {
            add(&mut statement, name);
            add(&mut statement, value);
        }
        let mut values = Sha256::new();
        let mut may_say_now = false;
        for param in params {
            values.update([u8::from(param.is_some())]);
            let param = param.unwrap_or_default();
            add(&mut values, param);
            may_say_now |= says_now(param);
        }
        Self {
            statement: statement.finalize().into(),
            values: values.finalize().into(),
            says_now: may_say_now,
        }
    }

    /// Of the role, the settings and the statement.
    pub(crate) fn statement(&self) -> [u8; 32] {
        self.statement
    }

    /// Whether a parameter would mean the time of now, if it were read as a date or a time.
    pub(crate) fn says_now(&self) -> bool {
        self.says_now
    }

    /// All of it as bytes, to be hashed with what else an answer depends on.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.statement);
        bytes[32..].copy_from_slice(&self.values);
        bytes
    }
}

/// Adds a text in such a way that no two lists of texts give the same.
fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_runs_into_another() {
        let key =
            |settings: &[(&'static str, &'static str)], sql, params: &[Option<&'static str>]| {
                QueryKey::new("r", settings.iter().copied(), sql, params.iter().copied())
            };
        let all = [
            key(&[], "ab", &[]),
            key(&[], "a", &[Some("b")]),
            key(&[], "a", &[None]),
            key(&[], "a", &[Some("")]),
            key(&[("a", "b")], "a", &[None]),
            key(&[("ab", "")], "a", &[None]),
            key(&[], "a", &[Some("b"), None]),
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[..at] {
                assert_ne!(one.to_bytes(), other.to_bytes());
            }
        }
        assert!(key(&[], "a", &[Some("NOW")]).says_now());
        assert!(!key(&[], "a now", &[Some("no")]).says_now());
    }
}
