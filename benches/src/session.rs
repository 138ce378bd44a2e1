//! What every peer is asked to do, however it is reached.

use crate::samples::Budget;
use serde_json::Value;
use std::time::Instant;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The parameters of one execution: JSON numbers and strings.
pub(crate) type Params = Vec<Value>;

/// One client in one database.
pub(crate) trait Session {
    /// Runs one statement without parameters again and again; microseconds of each.
    fn simple(&mut self, sql: &str, budget: Budget) -> Result<Vec<f64>>;

    /// Runs one statement with parameters again and again, prepared before if the peer can;
    /// microseconds of each. There are at least as many parameter rows as the budget's runs.
    fn prepared(&mut self, sql: &str, params: &[Params], budget: Budget) -> Result<Vec<f64>>;

    /// One transaction that runs a prepared statement once for each row; microseconds in all.
    fn transaction(&mut self, sql: &str, rows: &[Params]) -> Result<f64>;

    /// Runs one statement; microseconds.
    fn execute(&mut self, sql: &str) -> Result<f64> {
        let once = Budget {
            warmup: 0,
            iterations: 1,
            limit_ms: u64::MAX,
        };
        Ok(self.simple(sql, once)?.iter().sum())
    }
}

/// Said by a peer that cannot do a thing at all, as opposed to one that failed.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) &'static str);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unsupported {}

/// Microseconds since then.
pub(crate) fn us(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}
