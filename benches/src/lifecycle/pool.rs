//! The pool behind bindings, beside PgBouncer, Odyssey and the origin itself in the same run.

mod connect;
mod figures;
mod hits;
mod other;
mod peers;
mod speed;
mod workers;

use super::Suite;

/// Connections to the origin, of each pool.
const CONNECTIONS: usize = 20;

/// The command `pool`.
pub(super) const SUITE: Suite = Suite {
    name: "pool",
    about: "Measures the pool behind bindings, beside PgBouncer and Odyssey in the same run, in front of a native PostgreSQL 18.",
    count: "rounds",
    parts: &[
        ("speed", speed::run),
        ("connect", connect::run),
        ("hits", hits::run),
        ("workers", workers::run),
    ],
    parts_help: PARTS_HELP,
};

const PARTS_HELP: &str = "\
  speed     pgbench, select-only, 3 rounds: simple, extended and prepared, with 1, 10, 50, 100 and
            1,000 clients
  connect   pgbench, select-only, a connection for each transaction, 3 rounds
  hits      A thousand different queries again and again, with the result cache too, 3 rounds
  workers   A deployed backend without the pool, with it, and with the cache, 3 rounds
";
