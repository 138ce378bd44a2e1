//! Where time and randomness come from: an argument, so that a test can decide both.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// The world outside a guest, as far as it is not files or clients.
pub trait Environment: Send + Sync + fmt::Debug {
    /// Time since the Unix epoch.
    fn realtime(&self) -> Duration;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// Fills `bytes` with unpredictable values, fit for cryptography.
    fn random(&self, bytes: &mut [u8]);
}

/// The operating system's clock and random source.
#[derive(Debug)]
pub struct SystemEnvironment {
    started: Instant,
}

impl SystemEnvironment {
    /// A monotonic clock that begins now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemEnvironment {
    fn default() -> Self {
        Self::new()
    }
}

impl Environment for SystemEnvironment {
    fn realtime(&self) -> Duration {
        // A clock set before 1970 reads as 1970.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn random(&self, bytes: &mut [u8]) {
        // A system without a random source cannot keep its promises; nothing sensible is left.
        getrandom::fill(bytes).expect("BUG: the operating system has a random source");
    }
}
