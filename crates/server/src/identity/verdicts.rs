//! What was found out of a secret is remembered for a while.

use std::collections::HashMap;

use parking_lot::Mutex;
use ring::hmac;
use zeroize::Zeroize as _;

/// What was found out of secrets, by a hash of each that is of no use to anybody else.
pub(super) struct Verdicts<T> {
    entries_max: usize,
    /// Of this process alone, so that what is kept says nothing of the secret.
    key: hmac::Key,
    known: Mutex<HashMap<Name, Known<T>>>,
}

/// Names a secret.
pub(super) type Name = [u8; 32];

struct Known<T> {
    verdict: T,
    /// Seconds since 1970 from which on it is forgotten.
    until: u64,
}

impl<T: Clone> Verdicts<T> {
    /// At most so many; past it some are forgotten. Nothing is remembered if the system gives no random bytes.
    pub(super) fn new(entries_max: usize) -> Self {
        let mut secret = [0; 32];
        let random = getrandom::fill(&mut secret);
        if let Err(error) = &random {
            tracing::warn!(%error, "the system gave no random bytes: no token is remembered");
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        secret.zeroize();
        Self {
            entries_max: if random.is_ok() { entries_max } else { 0 },
            key,
            known: Mutex::default(),
        }
    }

    /// The name of a secret, in parts. What is in which part counts.
    pub(super) fn name(&self, parts: &[&[u8]]) -> Name {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut name = [0; 32];
        name.copy_from_slice(context.sign().as_ref());
        name
    }

    pub(super) fn get(&self, name: &Name, now: u64) -> Option<T> {
        let known = self.known.lock();
        let found = known.get(name).filter(|known| now < known.until)?;
        Some(found.verdict.clone())
    }

    pub(super) fn keep(&self, name: Name, verdict: T, now: u64, until: u64) {
        if until <= now || self.entries_max == 0 {
            return;
        }
        let mut known = self.known.lock();
        if known.len() >= self.entries_max && !known.contains_key(&name) {
            make_room(&mut known, now, self.entries_max);
        }
        known.insert(name, Known { verdict, until });
    }
}

/// Forgets what is over, and if that is not enough some that are not: an eighth at once, so that a full
/// table is not searched for each new entry.
fn make_room<T>(known: &mut HashMap<Name, Known<T>>, now: u64, entries_max: usize) {
    known.retain(|_, known| now < known.until);
    let keep = entries_max - entries_max.div_ceil(8);
    let surplus: Vec<Name> = known
        .keys()
        .take(known.len().saturating_sub(keep))
        .copied()
        .collect();
    for name in surplus {
        known.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_end() {
        let verdicts = Verdicts::new(10);
        let name = verdicts.name(&[b"secret"]);
        verdicts.keep(name, 1, 100, 110);
        assert_eq!(verdicts.get(&name, 109), Some(1));
        assert_eq!(verdicts.get(&name, 110), None);
        assert_eq!(verdicts.get(&verdicts.name(&[b"sec", b"ret"]), 100), None);
    }

    #[test]
    fn there_are_never_more_than_allowed() {
        let verdicts = Verdicts::new(10);
        for number in 0..1_000_u64 {
            let name = verdicts.name(&[&number.to_be_bytes()]);
            verdicts.keep(name, number, 0, 1 + number % 7);
            assert!(verdicts.known.lock().len() <= 10);
            assert_eq!(verdicts.get(&name, 0), Some(number));
        }
    }
}
