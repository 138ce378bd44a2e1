//! tokio-postgres.

mod queries;
mod sessions;
mod values;

use dormouse_clients::new_database;
use tokio_postgres::{Client, NoTls};

/// A session of a database of this address.
async fn connect(address: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
    // It ends with its client; what it says when the server ends it is asked of the client.
    tokio::spawn(connection);
    client
}

async fn fresh() -> Client {
    connect(&new_database()).await
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", |state| state.code())
}
