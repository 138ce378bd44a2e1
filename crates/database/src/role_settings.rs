//! Settings that a database and a role bring to each session: `ALTER DATABASE … SET`, `ALTER ROLE … SET`.

use engine::SettingSource;
use wire::PgError;

use crate::database::Database;
use crate::slot::Slot;

/// Those for a user, the weaker ones first. The process must be nobody's.
pub(crate) async fn of(
    slot: &mut Slot,
    database: &Database,
    user: u32,
) -> Result<Vec<(String, String, SettingSource)>, PgError> {
    if slot.is_without_role_settings() {
        return Ok(Vec::new());
    }
    slot.be_ours(database).await?;
    let sql = format!(
        "SELECT (s.setdatabase <> 0)::int + 2 * (s.setrole <> 0)::int, c.entry \
         FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) WITH ORDINALITY c (entry, place) \
         WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d \
         WHERE d.datname = pg_catalog.current_database())) \
         AND s.setrole IN (0, {user}) \
         ORDER BY 1, c.place"
    );
    let rows = slot.rows(&sql).await?;
    let setting = |row: Vec<Option<String>>| {
        let [Some(strength), Some(entry)] = row.as_slice() else {
            return None;
        };
        let source = match strength.as_str() {
            "0" => SettingSource::Global,
            "1" => SettingSource::Database,
            "2" => SettingSource::User,
            _ => SettingSource::DatabaseUser,
        };
        let (name, value) = entry.split_once('=')?;
        Some((name.to_owned(), value.to_owned(), source))
    };
    Ok(rows.into_iter().filter_map(setting).collect())
}
