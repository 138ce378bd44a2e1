//! The plan of a slow statement.

use std::fmt::{self, Write as _};

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
            Ok(lines) => Plan::Lines(shaped(&lines)),
            Err(error) => {
                if slot.backend.is_none() {
                    slot.lose(&self.database);
                }
                tracing::debug!(error = %error.for_log(), "a slow statement has no plan");
                Plan::None("PostgreSQL refused to make one")
            }
        }
    }
}

/// The lines of a plan without any value of the statement, and no more of them than fit.
fn shaped<S: AsRef<str>>(lines: &[S]) -> String {
    let mut text = String::new();
    for line in lines.iter().map(S::as_ref) {
        if !text.is_empty() {
            text.push('\n');
        }
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let _ = write!(text, "{:indent$}", "");
        let is_whole = add_shaped(&mut text, content);
        if text.len() > PLAN_BYTES_MAX {
            text.truncate(text.floor_char_boundary(PLAN_BYTES_MAX));
            text.push_str("...");
            return text;
        }
        // A string goes on in the next line, which nobody can tell from another one.
        if !is_whole {
            return text;
        }
    }
    text
}

/// Adds a line of a plan: whether all of what it says is in it.
fn add_shaped(text: &mut String, line: &str) -> bool {
    const COST: &str = "  (cost=";
    let is_plain = |text: &str| !text.contains([':', '\'', '"', '\\', '$']);
    if let Some(at) = line.find(COST)
        && is_plain(&line[..at])
    {
        // A node, with what it costs.
        text.push_str(line);
        return true;
    }
    let has_name = |name: &str| line.starts_with(name) && is_plain(line);
    if ["SubPlan ", "InitPlan ", "CTE "]
        .iter()
        .any(|name| has_name(name))
    {
        text.push_str(line);
        return true;
    }
    let shape = shape(line.as_bytes(), PLAN_BYTES_MAX);
    text.push_str(&shape);
    !shape.ends_with("...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_have_no_values() {
        let plan = [
            "Hash Join  (cost=0.00..35.50 rows=10 width=4)",
            "  Hash Cond: (a.id = (b.id + 4242))",
            "  ->  Index Only Scan using t_pkey on t a  (cost=0.15..8.17 rows=1 width=4)",
            "        Filter: ((n = 4242) AND (s <> 'x  (cost='::text) AND (e = E'4\\\\2'::text))",
            "  SubPlan 1",
            "    ->  Seq Scan on \"o: 4242\"  (cost=0.00..1.00 rows=1 width=4)",
            "        Filter: (s = 'two",
            "lines, 4242  (cost='::text)",
            "        Rows: 1",
        ];
        assert_eq!(
            shaped(&plan),
            "Hash Join  (cost=0.00..35.50 rows=10 width=4)\n  \
             Hash Cond: (a.id = (b.id + ?))\n  \
             ->  Index Only Scan using t_pkey on t a  (cost=0.15..8.17 rows=1 width=4)\n        \
             Filter: ((n = ?) AND (s <> ?::text) AND (e = ?::text))\n  \
             SubPlan 1\n    \
             -> Seq Scan on \"o: 4242\" (cost=? rows=? width=?)\n        \
             Filter: (s = ..."
        );
    }
}
