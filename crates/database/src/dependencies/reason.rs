//! Why an answer cannot be known to be the same as before.

use std::fmt;

/// Why the answer to a query is never known to be the same as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uncacheable {
    /// It is not one `SELECT`, or it writes or locks rows.
    NotOneSelect,
    /// Postgres refuses it, or does not tell what it is.
    NotUnderstood,
    /// The session is in a transaction.
    InTransaction,
    /// It calls a function that is volatile, or stable and not known to depend on tables and settings alone.
    Function(String),
    /// It depends on what time it is.
    Time,
    /// It reads a relation that is not an ordinary table with a log: a system catalog, a foreign, temporary or
    /// unlogged table, a sequence.
    Relation(u32),
    /// It reads a column of the system, as `ctid` and `xmin` are.
    SystemColumn,
    /// It has a construct that is not known: the name of its node in Postgres' tree.
    Construct(String),
    /// It reads more than 1024 tables and partitions.
    TooManyTables,
    /// Settings of the server were changed, and hold in part until the database has slept.
    Settings,
}

impl fmt::Display for Uncacheable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOneSelect => formatter.write_str("it is not one SELECT that only reads"),
            Self::NotUnderstood => formatter.write_str("what it reads is not known"),
            Self::InTransaction => formatter.write_str("the session is in a transaction"),
            Self::Function(name) => write!(
                formatter,
                "it calls {name}, whose result may change without a change of tables"
            ),
            Self::Time => formatter.write_str("it depends on what time it is"),
            Self::Relation(oid) => write!(
                formatter,
                "it reads relation {oid}, which is not a table whose changes are all in the log"
            ),
            Self::SystemColumn => formatter.write_str("it reads a system column"),
            Self::Construct(name) => write!(formatter, "it has a construct of kind {name}"),
            Self::TooManyTables => formatter.write_str("it reads more than 1024 tables"),
            Self::Settings => formatter.write_str("settings of the server were changed"),
        }
    }
}
