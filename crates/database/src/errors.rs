//! Errors that clients were told, counted by their class.

use std::sync::atomic::{AtomicU64, Ordering};

/// The classes of PostgreSQL's SQLSTATEs.
const CLASSES: [&str; 43] = [
    "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23",
    "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42",
    "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
];
/// What a function may have made up.
const OTHER: &str = "other";

/// How many there were of each class.
#[derive(Debug)]
pub(crate) struct Errors([AtomicU64; CLASSES.len() + 1]);

impl Default for Errors {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Errors {
    /// Counts an error by its SQLSTATE.
    pub(crate) fn count(&self, code: &[u8]) {
        let class = code.get(..2).unwrap_or_default();
        let known = CLASSES.iter().position(|known| known.as_bytes() == class);
        self.0[known.unwrap_or(CLASSES.len())].fetch_add(1, Ordering::Relaxed);
    }

    /// Those classes of which there were any.
    pub(crate) fn get(&self) -> Vec<(&'static str, u64)> {
        let names = CLASSES.into_iter().chain([OTHER]);
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        names.zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_class() {
        let errors = Errors::default();
        for code in ["23505", "23503", "XX001", "Q1234", ""] {
            errors.count(code.as_bytes());
        }
        assert_eq!(errors.get(), [("23", 2), ("XX", 1), ("other", 2)]);
    }
}
