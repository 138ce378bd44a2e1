//! The name of a database.

use std::fmt;
use std::str::FromStr;

/// The name of a database: safe in a host name's path, a header, a file name and a log line.
///
/// Names are case-sensitive, as PostgreSQL's are once SQL's folding is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseName(Box<str>);

/// A text is not a [`DatabaseName`]. Its message is the rule, so that a user can pick another name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseName {
    /// Too short, too long, or made of other characters.
    #[error(
        "a database name has 1 to 63 characters, each an ASCII letter, a digit, or one of _ - . $, \
         and begins with a letter, a digit or _"
    )]
    Shape,
    /// PostgreSQL's own templates, which exist in every cluster.
    #[error("the database names template0 and template1 are reserved")]
    Reserved,
}

impl DatabaseName {
    /// The longest name, PostgreSQL's `NAMEDATALEN - 1`.
    pub const BYTES_MAX: usize = 63;

    /// Checks a text against the rule.
    pub fn parse(text: &str) -> Result<Self, InvalidDatabaseName> {
        let first = *text.as_bytes().first().ok_or(InvalidDatabaseName::Shape)?;
        let fits = text.len() <= Self::BYTES_MAX
            && (first.is_ascii_alphanumeric() || first == b'_')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte));
        if !fits {
            return Err(InvalidDatabaseName::Shape);
        }
        if text == "template0" || text == "template1" {
            return Err(InvalidDatabaseName::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseName {
    type Err = InvalidDatabaseName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl AsRef<str> for DatabaseName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(63);
        for name in [
            "a",
            "A",
            "_x",
            "7",
            "tenant-1.eu$",
            "postgres",
            "template2",
            &longest,
        ] {
            assert_eq!(
                DatabaseName::parse(name).map(|n| n.to_string()),
                Ok(name.to_owned())
            );
        }
        let too_long = "a".repeat(64);
        let shapes = [
            "",
            "-a",
            ".a",
            "..",
            "$",
            "a b",
            "a/b",
            "a\0",
            "é",
            "a\"b",
            too_long.as_str(),
        ];
        for name in shapes {
            assert_eq!(
                DatabaseName::parse(name),
                Err(InvalidDatabaseName::Shape),
                "{name:?}"
            );
        }
        for name in ["template0", "template1"] {
            assert_eq!(
                DatabaseName::parse(name),
                Err(InvalidDatabaseName::Reserved)
            );
        }
    }
}
