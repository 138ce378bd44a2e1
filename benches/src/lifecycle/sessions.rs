//! Many sessions of one database, beside a native PostgreSQL in the same run.

mod cancel;
mod crowded;
mod disconnect;
mod idle;
mod peer;
mod pgbench;
mod speed;
mod timeouts;
mod turns;

use super::Suite;

/// The command `sessions`.
pub(super) const SUITE: Suite = Suite {
    name: "sessions",
    help: HELP,
    parts: &[
        ("speed", speed::run),
        ("crowded", crowded::run),
        ("idle", idle::run),
        ("cancel", cancel::run),
        ("timeouts", timeouts::run),
        ("disconnect", disconnect::run),
    ],
};

const HELP: &str = "\
Measures many sessions of one database, beside a native PostgreSQL 18 in the same run.

Usage: cargo xtask bench sessions [PART[=COUNT]…] [OPTIONS]

Tables go to standard output as Markdown, progress to standard error. Without a PART, all are run.
COUNT is how many rounds, connections or times to take instead of the number below.

Parts:
  speed       pgbench, 5 rounds: select-only with 1 and 8 clients, TPC-B, a connection for each
              transaction
  crowded     200 clients that run beside 800 idle ones, 3 rounds: throughput and latency
  idle        Memory of 1,000 idle connections, awake and asleep
  cancel      From a request to cancel to the error, 100 times
  timeouts    How late timeouts of 200 ms come, 50 times each
  disconnect  A client goes in mid-transaction: until another has its row, 50 times

Options:
  --quick           A small run, to see that it works; its numbers mean little.
  --work DIR        Where data folders go, removed after each part [/var/tmp]; the disk there
                    is the one that is measured
  --tools DIR       The folder that `cargo xtask tools` prints (given by xtask)
  --dormouse FILE   The server's program (given by xtask)
  -h, --help        This text
";
