//! Several statements with one state.

use crate::Error;
use crate::rows::Rows;
use crate::to_text::ToText;

/// One client inside a database: its transaction, its settings, its temporary tables. What is open
/// when it ends is rolled back.
pub struct Session {
    session: database::Session,
}

impl Session {
    pub(crate) fn new(session: database::Session) -> Self {
        Self { session }
    }

    /// Runs one statement. `$1` is the first of `params`.
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToText + Sync)],
    ) -> Result<Rows, Error> {
        let params: Vec<Option<String>> = params.iter().map(|param| param.to_text()).collect();
        let result = self.session.query(sql, &params).await?;
        Ok(Rows::new(result))
    }

    /// Ends the session, and waits until the database is free for the next one. Dropping it does
    /// the same in the background.
    pub async fn close(self) {
        self.session.close().await;
    }
}
