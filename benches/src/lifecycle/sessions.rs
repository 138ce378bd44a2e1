//! Many sessions of one database, beside a native PostgreSQL in the same run.

mod cancel;
mod crowded;
mod disconnect;
mod idle;
mod large;
mod peer;
mod speed;
mod timeouts;
mod turns;

use super::Suite;

/// The command `sessions`.
pub(super) const SUITE: Suite = Suite {
    name: "sessions",
    about: "Measures many sessions of one database, beside a native PostgreSQL 18 in the same run.",
    count: "rounds, connections or times",
    parts: &[
        ("speed", speed::run),
        ("crowded", crowded::run),
        ("idle", idle::run),
        ("cancel", cancel::run),
        ("timeouts", timeouts::run),
        ("disconnect", disconnect::run),
        ("large", large::run),
    ],
    parts_help: PARTS_HELP,
};

const PARTS_HELP: &str = "\
  speed       pgbench, 5 rounds: select-only with 1 and 8 clients, TPC-B, a connection for each
              transaction
  crowded     200 clients that run beside 800 idle ones, 3 rounds: throughput and latency
  idle        Memory of 1,000 idle connections, awake and asleep
  cancel      From a request to cancel to the error, 100 times
  timeouts    How late timeouts of 200 ms come, 50 times each
  disconnect  A client goes in mid-transaction: until another has its row, 50 times
  large       Throughput and memory of 1,000 MB in an answer, in COPY both ways, and unread
";
