//! A secret of the data directory.

use redb::{ReadableTable as _, TableDefinition};
use wire::PgError;

use super::Directory;

const SECRETS: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("secrets");
/// What the salts of roles that do not exist are made of.
const MOCK: &str = "mock";

impl Directory {
    /// The secret that mock authentications are made of: `new` if there was none yet.
    ///
    /// # Errors
    /// 58030 if the file cannot be read or written.
    pub(crate) fn mock_secret(&self, new: [u8; 32]) -> Result<[u8; 32], PgError> {
        self.write(move |transaction| {
            let mut secrets = transaction.open_table(SECRETS)?;
            let known = secrets.get(MOCK)?.map(|value| *value.value());
            if known.is_none() {
                secrets.insert(MOCK, &new)?;
            }
            Ok(Ok(known.unwrap_or(new)))
        })
    }
}
