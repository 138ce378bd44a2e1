//! How large something may be, and which limit says so.

use crate::pg::{PgError, sqlstate};

/// The most bytes of something, and which of several limits that is: an error names it, and says how to change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    /// The most bytes.
    pub bytes: usize,
    /// What the limit is called where it is set.
    pub name: &'static str,
    /// How to raise it, as a part of a sentence: `raise http.body_bytes_max in Dormouse's configuration`.
    pub remedy: &'static str,
}

impl SizeLimit {
    /// Nobody limits it.
    pub const NONE: Self = Self {
        bytes: usize::MAX,
        name: "what can be counted",
        remedy: "do it in parts",
    };

    /// The smaller one; of two that are the same, this.
    #[must_use]
    pub fn or_smaller(self, other: Self) -> Self {
        match other.bytes < self.bytes {
            true => other,
            false => self,
        }
    }

    /// # Errors
    /// 54000 if `what` has more bytes.
    pub fn check(&self, what: &str, bytes: usize, instead: &str) -> Result<(), PgError> {
        match bytes <= self.bytes {
            true => Ok(()),
            false => Err(self.exceeded(what, instead)),
        }
    }

    /// The error of `what` is larger; `instead` says what its sender can do without another limit.
    pub fn exceeded(&self, what: &str, instead: &str) -> PgError {
        let Self {
            bytes,
            name,
            remedy,
        } = self;
        PgError::error(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            format!("{what} exceeds {name}, {bytes} bytes"),
        )
        .hint(format!("{instead}, or {remedy}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_one_is_named() {
        let of = |bytes, name| SizeLimit {
            bytes,
            name,
            remedy: "raise it",
        };
        let found = SizeLimit::NONE
            .or_smaller(of(10, "a"))
            .or_smaller(of(9, "b"))
            .or_smaller(of(9, "c"));
        assert_eq!(found, of(9, "b"));
        assert!(found.check("this", 9, "Send less").is_ok());
        let error = found.check("this", 10, "Send less").unwrap_err();
        assert_eq!(error.code(), "54000");
        assert_eq!(error.message(), "this exceeds b, 9 bytes");
        let json = String::from_utf8(error.to_json()).unwrap();
        assert!(json.contains("Send less, or raise it."), "{json}");
    }
}
