//! What a conversation has set: it is kept as text, so that it costs no session while nothing runs.

use std::collections::BTreeMap;

use wire::{PgError, sqlstate};

use super::request::Wishes;

/// What holds for the next request.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) role: Option<String>,
    pub(super) settings: BTreeMap<String, String>,
    statements: BTreeMap<String, String>,
}

impl State {
    /// Keeps what is wished, if all that is kept is no more bytes than this.
    ///
    /// # Errors
    /// 53400 if it is too much; nothing has changed then.
    pub(super) fn set(&mut self, wishes: Wishes, bytes_max: usize) -> Result<(), PgError> {
        let added: usize = wishes
            .settings
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len))
            .sum();
        let role = wishes.role.iter().flatten().map(String::len).sum::<usize>();
        self.admit(added + role, bytes_max)?;
        if let Some(role) = wishes.role {
            self.role = role;
        }
        for (name, value) in wishes.settings {
            match value {
                Some(value) => drop(self.settings.insert(name, value)),
                None => drop(self.settings.remove(&name)),
            }
        }
        Ok(())
    }

    /// Keeps a statement, in place of the one of this name.
    ///
    /// # Errors
    /// 53400 if it is too much.
    pub(super) fn prepare(
        &mut self,
        name: String,
        sql: String,
        bytes_max: usize,
    ) -> Result<(), PgError> {
        self.admit(name.len() + sql.len(), bytes_max)?;
        self.statements.insert(name, sql);
        Ok(())
    }

    /// Forgets a statement, if there is one of this name.
    pub(super) fn forget(&mut self, name: &str) {
        self.statements.remove(name);
    }

    /// The text of a statement.
    ///
    /// # Errors
    /// 26000 if there is none of this name.
    pub(super) fn statement(&self, name: &str) -> Result<String, PgError> {
        self.statements.get(name).cloned().ok_or_else(|| {
            PgError::error(
                sqlstate::INVALID_SQL_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }

    fn admit(&self, added: usize, bytes_max: usize) -> Result<(), PgError> {
        let maps = self.settings.iter().chain(&self.statements);
        let bytes: usize = maps.map(|(name, text)| name.len() + text.len()).sum();
        if bytes + added <= bytes_max {
            return Ok(());
        }
        Err(PgError::error(
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "settings and prepared statements exceed websocket.state_bytes_max, {bytes_max}"
            ),
        )
        .hint("Forget some, or raise websocket.state_bytes_max in Dormouse's configuration."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_kept_up_to_a_limit() {
        let mut state = State::default();
        let wishes = |json| serde_json::from_str(json).unwrap();
        state
            .set(wishes(r#"{"role":"r","settings":{"a":"1"}}"#), 16)
            .unwrap();
        state
            .set(wishes(r#"{"settings":{"a":null,"b":"2"}}"#), 16)
            .unwrap();
        assert_eq!(state.role.as_deref(), Some("r"));
        assert_eq!(state.settings.keys().collect::<Vec<_>>(), ["b"]);
        state.set(wishes(r#"{"role":null}"#), 16).unwrap();
        assert_eq!(state.role, None);
        state.prepare("p".into(), "select 1".into(), 16).unwrap();
        assert_eq!(state.statement("p").unwrap(), "select 1");
        let mut prepare = |max| state.prepare("q".into(), "select 12".into(), max);
        let error = prepare(16).unwrap_err();
        assert!(error.message().contains("websocket.state_bytes_max, 16"));
        prepare(32).unwrap();
        state.forget("p");
        assert_eq!(state.statement("p").unwrap_err().code(), "26000");
    }
}
