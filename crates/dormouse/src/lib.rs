//! A Postgres for every tenant, asleep until asked: the embeddable library.
//!
//! A data directory holds any number of databases. Each is a whole PostgreSQL, alone in its
//! instance, made when it is first asked for and asleep when nobody asks.
//!
//! ```no_run
//! # async fn run() -> Result<(), dormouse::Error> {
//! let dormouse = dormouse::Dormouse::open("./dormouse-data").await?;
//! let shop = dormouse.database("shop")?;
//! shop.query("create table if not exists fruit (name text, price numeric)", &[]).await?;
//! shop.query("insert into fruit values ($1, $2)", &[&"apple", &1.5]).await?;
//! for row in &shop.query("select name, price from fruit", &[]).await? {
//!     println!("{} costs {}", row.get::<String>("name")?, row.get::<f64>("price")?);
//! }
//! dormouse.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Dormouse`] opens the directory and is the list of its databases, [`Database`] is one of them,
//! [`Session`] several statements with one state: a transaction, settings, temporary tables.
//! Values travel as PostgreSQL's text: [`ToText`] makes it of parameters, [`FromText`] reads it.

mod cache;
mod dormouse;
mod error;
mod from_text;
mod handle;
mod rows;
mod session;
mod to_text;

pub use cache::default_cache_directory;
pub use database::{
    DatabaseId, DatabaseInfo, DatabaseName, Durability, Limits, Metrics, OpenError, Options,
    PgError, Progress, Settings, State, Timed,
};
pub use dormouse::Dormouse;
pub use error::Error;
pub use from_text::{FromText, InvalidText};
pub use handle::Database;
pub use rows::{Column, ColumnName, Row, Rows, ValueError};
pub use session::Session;
pub use to_text::ToText;
