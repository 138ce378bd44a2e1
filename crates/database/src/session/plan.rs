//! The plan of a slow statement.

use std::fmt;

use wire::pg::{TransactionStatus, command, shape, statement};

use super::Session;

/// Bytes of a plan that are logged at most.
const PLAN_BYTES_MAX: usize = 8 << 10;

/// Statements that have a plan.
const PLANNED: [&str; 7] = [
    "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "WITH",
];

/// A plan, or why there is none.
#[derive(Debug)]
pub(super) enum Plan {
    Lines(String),
    None(&'static str),
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(lines) => formatter.write_str(lines),
            Self::None(reason) => write!(formatter, "none: {reason}"),
        }
    }
}

impl Session {
    /// Asks for the plan of a statement that has run, in this session and so by its rights and settings. It is
    /// planned again, not run again; the generic plan if it has parameters. Outside of transactions only, where
    /// an error harms nobody.
    pub(super) async fn plan(&mut self, sql: &str) -> Plan {
        if self.status != TransactionStatus::Idle || !self.at_rest || self.skipping {
            return Plan::None("the session is in a transaction");
        }
        let is_planned = command(sql.as_bytes()).is_some_and(|word| PLANNED.contains(&&*word));
        let statements = statement::split(sql.as_bytes()).unwrap_or_default();
        let only = match &statements[..] {
            [only] if is_planned => sql.get(only.clone()),
            _ => None,
        };
        let Some(sql) = only else {
            return Plan::None("it is no single statement that has one");
        };
        let Some(slot) = self.slot.as_mut() else {
            return Plan::None("the session has no process any more");
        };
        match slot.explain(sql).await {
            Ok(lines) => {
                let lines = lines.iter().map(|line| {
                    let indent = line.len() - line.trim_start().len();
                    format!("{:indent$}{}", "", without_strings(line.trim()))
                });
                let mut text = lines.collect::<Vec<_>>().join("\n");
                if text.len() > PLAN_BYTES_MAX {
                    text.truncate(text.floor_char_boundary(PLAN_BYTES_MAX));
                    text.push_str("...");
                }
                Plan::Lines(text)
            }
            Err(error) => {
                if slot.backend.is_none() {
                    slot.lose(&self.database);
                }
                tracing::debug!(%error, "a slow statement has no plan");
                Plan::None("PostgreSQL refused to make one")
            }
        }
    }
}

/// A line of a plan; one with a string in it without any value.
fn without_strings(line: &str) -> String {
    match line.contains('\'') {
        true => shape(line.as_bytes(), PLAN_BYTES_MAX),
        false => line.to_owned(),
    }
}
