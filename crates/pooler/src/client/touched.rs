//! Settings that may have changed in a transaction, by their names.

use std::collections::BTreeSet;

use wire::{PgError, sqlstate};

use crate::settings::BYTES_MAX;

/// Names of settings; an empty one is for one that nobody knows.
#[derive(Debug, Default)]
pub(super) struct Touched {
    names: BTreeSet<String>,
    bytes: usize,
}

impl Touched {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// These as well.
    pub(super) fn extend(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let bytes = name.len();
            if self.names.insert(name) {
                self.bytes += bytes;
            }
        }
    }

    /// These as well; of too many it is forgotten which they are.
    pub(super) fn extend_or_forget(&mut self, names: &BTreeSet<String>) {
        if self.contains("") {
            return;
        }
        match self.has_room(names) {
            true => self.extend(names.iter().cloned()),
            false => {
                self.clear();
                self.extend([String::new()]);
            }
        }
    }

    fn has_room(&self, names: &BTreeSet<String>) -> bool {
        let new = names.iter().filter(|name| !self.contains(name));
        let new: usize = new.map(String::len).sum();
        new == 0 || self.bytes + new <= BYTES_MAX
    }

    /// # Errors
    ///
    /// 53400 if with these there would be too many.
    pub(super) fn expect_room(&self, names: &BTreeSet<String>) -> Result<(), PgError> {
        if self.has_room(names) {
            return Ok(());
        }
        Err(PgError::error(
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "the names of settings that one transaction of a binding's client sets may have {BYTES_MAX} bytes \
                 (session_settings_bytes_max)"
            ),
        )
        .hint("Commit before you set more, or use shorter names."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_nobody_knows_which_they_are() {
        let names = |letter: &str| BTreeSet::from([letter.repeat(BYTES_MAX / 2)]);
        let mut touched = Touched::default();
        for letter in ["a", "b", "a"] {
            assert!(touched.expect_room(&names(letter)).is_ok());
            touched.extend_or_forget(&names(letter));
        }
        assert_eq!(touched.iter().count(), 2);
        assert!(touched.expect_room(&names("c")).is_err());
        assert!(touched.expect_room(&BTreeSet::new()).is_ok());
        for letter in ["c", "d"] {
            touched.extend_or_forget(&names(letter));
            assert_eq!(touched.iter().collect::<Vec<_>>(), [""]);
        }
    }
}
