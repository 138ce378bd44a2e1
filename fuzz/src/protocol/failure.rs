//! What a run found.

use std::fmt;

/// Something that should not have happened.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What.
    pub what: String,
    /// In which story, and what was sent there; empty if in none.
    pub story: String,
}

impl Failure {
    /// One that belongs to no story.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            story: String::new(),
        }
    }

    /// One of a story.
    pub fn of(what: impl Into<String>, story: impl fmt::Display) -> Self {
        Self {
            what: what.into(),
            story: story.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.what)?;
        out.write_str(&self.story)
    }
}
