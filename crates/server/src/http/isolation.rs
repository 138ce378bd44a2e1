//! How a transaction begins.

use serde::Deserialize;

/// The isolation level of a transaction, by SQL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Isolation {
    #[serde(alias = "read uncommitted")]
    ReadUncommitted,
    #[serde(alias = "read committed")]
    ReadCommitted,
    #[serde(alias = "repeatable read")]
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// The statement that begins it.
    pub(super) fn begin(level: Option<Self>, read_only: bool, deferrable: bool) -> String {
        let mut begin = "BEGIN".to_owned();
        if let Some(level) = level {
            begin.push_str(" ISOLATION LEVEL ");
            begin.push_str(match level {
                Self::ReadUncommitted => "READ UNCOMMITTED",
                Self::ReadCommitted => "READ COMMITTED",
                Self::RepeatableRead => "REPEATABLE READ",
                Self::Serializable => "SERIALIZABLE",
            });
        }
        if read_only {
            begin.push_str(" READ ONLY");
        }
        if deferrable {
            begin.push_str(" DEFERRABLE");
        }
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements() {
        assert_eq!(Isolation::begin(None, false, false), "BEGIN");
        assert_eq!(
            Isolation::begin(Some(Isolation::Serializable), true, true),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
        );
    }
}
