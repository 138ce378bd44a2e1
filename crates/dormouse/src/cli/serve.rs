//! `dormouse serve`.

use database::{Databases, OpenError};
use server::{Listeners, Server};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::config::Config;
use super::failure::Failure;

/// Serves until SIGTERM or SIGINT. A second signal ends the program at once.
pub(crate) fn run(config: Config) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) => EnvFilter::try_new(filter),
        Err(_) => EnvFilter::try_new(&config.log),
    };
    let filter =
        filter.map_err(|error| Failure::Usage(format!("the log filter is wrong: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    super::runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let unavailable = |error: &dyn std::fmt::Display| Failure::unavailable(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| unavailable(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| unavailable(&error))?;
    let options = config.server_options();
    // Addresses first: a mistake there should not wait for the compiler.
    let listeners = Listeners::bind(&options)
        .await
        .map_err(|error| unavailable(&error))?;
    let opening = Databases::open(config.database_options());
    let databases = tokio::select! {
        opened = opening => opened.map_err(|error: OpenError| unavailable(&error))?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    super::print(&format!(
        "PostgreSQL: postgres://postgres@{}/postgres\nHTTP:       http://{}\n",
        listeners.pgwire_address(),
        listeners.http_address(),
    ));
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal stops at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // What was not flushed is as after a crash.
            std::process::exit(130);
        });
    };
    Server::new(listeners, databases.clone(), options)
        .run(stop)
        .await;
    databases
        .close()
        .await
        .map_err(|error| Failure::unavailable(error.to_string()))
}
