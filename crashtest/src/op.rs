//! The operations of the workload: what each is in SQL. What each does is in [`state`](crate::state).

use crate::payload::{checksum, payload};
use crate::state::{ACCOUNTS, BALANCE};

/// A change of a database within a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Makes the tables that are always there.
    SetUp,
    /// Moves money.
    Transfer {
        /// The account that loses.
        from: usize,
        /// The account that gains, another one.
        to: usize,
        /// How much.
        amount: i64,
    },
    /// Appends a row to the log.
    Append {
        /// Whose row.
        client: u32,
        /// Its number, one above the client's last.
        seq: u64,
    },
    /// Removes a client's rows below a number.
    TrimLog {
        /// Whose rows.
        client: u32,
        /// The first that stays.
        below: u64,
    },
    /// Adds many rows.
    Bulk {
        /// Whose rows.
        client: u32,
        /// The first of them, one above the client's last.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// Removes a client's bulk rows below a number.
    TrimBulk {
        /// Whose rows.
        client: u32,
        /// The first that stays.
        below: u64,
    },
    /// Removes every bulk row at once.
    TruncateBulk,
    /// Makes or drops the second index of `bulk`.
    BulkIndex(bool),
    /// Makes a table with one column beside its id.
    CreateTable {
        /// Its number.
        table: u32,
        /// The column.
        column: u32,
    },
    /// Drops a table.
    DropTable {
        /// Its number.
        table: u32,
    },
    /// Adds rows to a table.
    Fill {
        /// Its number.
        table: u32,
        /// The first id, one above the last.
        first: u64,
        /// The last id.
        last: u64,
    },
    /// Removes every row of a table at once.
    Truncate {
        /// Its number.
        table: u32,
    },
    /// Adds a column.
    AddColumn {
        /// The table's number.
        table: u32,
        /// The column's.
        column: u32,
        /// Whether its default makes Postgres write the table anew.
        rewrite: bool,
    },
    /// Makes a column a bigint, which writes the table anew.
    Widen {
        /// The table's number.
        table: u32,
        /// The column's.
        column: u32,
    },
    /// Drops a column, and its index.
    DropColumn {
        /// The table's number.
        table: u32,
        /// The column's.
        column: u32,
    },
    /// Makes an index on a column.
    CreateIndex {
        /// The table's number.
        table: u32,
        /// The column's.
        column: u32,
    },
    /// Drops the index on a column.
    DropIndex {
        /// The table's number.
        table: u32,
        /// The column's.
        column: u32,
    },
}

impl Op {
    /// Its statements. `seed` is the run's: payloads come from it.
    pub fn statements(&self, seed: u64) -> Vec<String> {
        match self {
            Self::SetUp => vec![
                "CREATE TABLE version (n bigint NOT NULL)".to_owned(),
                "INSERT INTO version VALUES (0)".to_owned(),
                "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)".to_owned(),
                format!(
                    "INSERT INTO accounts SELECT i, {BALANCE} FROM generate_series(0, {}) i",
                    ACCOUNTS - 1
                ),
                "CREATE TABLE log (client int, seq bigint, payload text NOT NULL, \
                 crc bigint NOT NULL, PRIMARY KEY (client, seq))"
                    .to_owned(),
                "CREATE TABLE bulk (client int, id bigint, note text NOT NULL, \
                 PRIMARY KEY (client, id))"
                    .to_owned(),
            ],
            Self::Transfer { from, to, amount } => vec![
                format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {from}"),
                format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {to}"),
            ],
            Self::Append { client, seq } => {
                let payload = payload(seed, *client, *seq);
                let crc = checksum(&payload);
                vec![format!(
                    "INSERT INTO log VALUES ({client}, {seq}, '{payload}', {crc})"
                )]
            }
            other => vec![other.statement()],
        }
    }

    /// The statement of those that have one, whatever the seed.
    fn statement(&self) -> String {
        match self {
            Self::SetUp | Self::Transfer { .. } | Self::Append { .. } => String::new(),
            Self::TrimLog { client, below } => {
                format!("DELETE FROM log WHERE client = {client} AND seq < {below}")
            }
            Self::Bulk {
                client,
                first,
                last,
            } => format!(
                "INSERT INTO bulk SELECT {client}, i, {} FROM generate_series({first}, {last}) i",
                bulk_note(&client.to_string(), "i")
            ),
            Self::TrimBulk { client, below } => {
                format!("DELETE FROM bulk WHERE client = {client} AND id < {below}")
            }
            Self::TruncateBulk => "TRUNCATE bulk".to_owned(),
            Self::BulkIndex(true) => "CREATE INDEX bulk_note ON bulk (note)".to_owned(),
            Self::BulkIndex(false) => "DROP INDEX bulk_note".to_owned(),
            Self::CreateTable { table, column } => format!(
                "CREATE TABLE t{table} (id int PRIMARY KEY, c{column} int DEFAULT {column})"
            ),
            Self::DropTable { table } => format!("DROP TABLE t{table}"),
            Self::Fill { table, first, last } => {
                format!("INSERT INTO t{table} (id) SELECT generate_series({first}, {last})")
            }
            Self::Truncate { table } => format!("TRUNCATE t{table}"),
            Self::AddColumn {
                table,
                column,
                rewrite,
            } => {
                let volatile = if *rewrite {
                    " + floor(random())::int"
                } else {
                    ""
                };
                format!("ALTER TABLE t{table} ADD COLUMN c{column} int DEFAULT {column}{volatile}")
            }
            Self::Widen { table, column } => {
                format!("ALTER TABLE t{table} ALTER COLUMN c{column} TYPE bigint")
            }
            Self::DropColumn { table, column } => {
                format!("ALTER TABLE t{table} DROP COLUMN c{column}")
            }
            Self::CreateIndex { table, column } => {
                format!("CREATE INDEX t{table}_c{column} ON t{table} (c{column})")
            }
            Self::DropIndex { table, column } => format!("DROP INDEX t{table}_c{column}"),
        }
    }
}

/// The expression for the note of a bulk row, by the expressions for its client and its id.
pub fn bulk_note(client: &str, id: &str) -> String {
    format!("repeat(md5({client}::text || ':' || {id}::text), 8)")
}
