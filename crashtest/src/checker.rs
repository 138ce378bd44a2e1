//! What is checked in a database: its rows, its catalog, and Postgres' own files.

mod amcheck;
mod catalog;
mod rows;

use crate::session::Session;
use crate::state::State;
use crate::trouble::Trouble;

/// SQLSTATE of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// How many transactions the database shows: 0 before it is set up.
///
/// # Errors
/// [`Trouble`]
pub async fn number(session: &Session) -> Result<u64, Trouble> {
    match session.run("SELECT n FROM version").await {
        Ok(answer) => match answer.rows.as_slice() {
            [row] => cell(row, 0),
            rows => Err(Trouble::Broken(format!("the version has rows {rows:?}"))),
        },
        Err(error) if error.is(UNDEFINED_TABLE) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The value of the setting that the workload alters: 0 for its default.
///
/// # Errors
/// [`Trouble`]
pub async fn setting(session: &Session) -> Result<u64, Trouble> {
    let sql = "SELECT setting, applied, error FROM pg_file_settings \
               WHERE name = 'deadlock_timeout' AND sourcefile LIKE '%postgresql.auto.conf'";
    let answer = session.run(sql).await?;
    let Some(row) = answer.rows.last() else {
        return Ok(0);
    };
    let value: u64 = cell(row, 0)?;
    value
        .checked_sub(SETTING_BASE)
        .ok_or_else(|| Trouble::Broken(format!("the setting altered by ALTER SYSTEM is {row:?}")))
}

/// The setting's values are 1, 2, ... above this: milliseconds of `deadlock_timeout`, which means
/// nothing where there is one session.
pub const SETTING_BASE: u64 = 10_000;

/// Checks the whole database against its content. `seed` is the run's.
///
/// # Errors
/// [`Trouble::Broken`]: the first difference.
pub async fn check(session: &Session, name: &str, state: &State, seed: u64) -> Result<(), Trouble> {
    let answer = session.run("SELECT current_database()").await?;
    let shown: String = answer
        .rows
        .first()
        .map_or_else(|| Ok(String::new()), |row| cell(row, 0))?;
    if shown != name {
        return Err(Trouble::Broken(format!("it calls itself {shown:?}")));
    }
    catalog::check(session, state).await?;
    if state.is_set_up() {
        rows::check(session, state, seed).await?;
    }
    amcheck::check(session).await
}

/// A value of a row.
fn cell<T: std::str::FromStr>(row: &[Option<String>], column: usize) -> Result<T, Trouble> {
    let value = row.get(column).and_then(Option::as_deref);
    value
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| Trouble::Broken(format!("column {column} of {row:?} is not as expected")))
}
