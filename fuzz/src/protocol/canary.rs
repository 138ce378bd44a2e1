//! What a session has that no other may ever see.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use sim::Random;

const MARK: &[u8] = b"cnry";
const DIGITS: usize = 16;

/// A session's own token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Canary(String);

impl Canary {
    /// A new one.
    pub fn draw(random: &mut Random) -> Self {
        Self(format!("cnry{:016x}", random.bits()))
    }

    /// Its text: a word that SQL takes as a name, too.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The canaries of all sessions.
#[derive(Debug, Default)]
pub struct Canaries(Mutex<HashSet<Vec<u8>>>);

impl Canaries {
    /// From now on nobody else may see this one.
    pub fn add(&self, canary: &Canary) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(canary.0.clone().into_bytes());
    }

    /// A canary among these bytes that is not the session's own.
    pub fn foreign(&self, bytes: &[u8], own: &Canary) -> Option<String> {
        let places = bytes
            .windows(MARK.len() + DIGITS)
            .filter(|window| window.starts_with(MARK) && *window != own.0.as_bytes());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was damaged on its way is nobody's.
        let mut found = places.filter(|window| known.contains(*window));
        found
            .next()
            .map(|window| String::from_utf8_lossy(window).into_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn only_known_canaries_of_others_are_foreign() {
        let mut random = Random::new(1);
        let (own, other) = (Canary::draw(&mut random), Canary::draw(&mut random));
        let canaries = Canaries::default();
        canaries.add(&own);
        canaries.add(&other);
        let text = |canary: &Canary| format!("a {}b", canary.as_str()).into_bytes();
        assert_eq!(canaries.foreign(&text(&own), &own), None);
        assert_eq!(canaries.foreign(&text(&other), &own).unwrap(), other.0);
        assert_eq!(canaries.foreign(b"cnry0123456789abcdef", &own), None);
        assert_eq!(canaries.foreign(&text(&other)[..20], &own), None);
    }
}
