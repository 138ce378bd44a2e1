//! `dormouse serve`.

use database::Databases;
use server::{HttpTls, Listeners, Reload, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::config::Loaded;
use super::failure::Failure;
use super::logs;
use super::telemetry::Telemetry;

/// Added to the number of a signal that ends the process at once, as shells do.
const EXIT_BY_SIGNAL: i32 = 128;

/// Serves until a signal says stop.
pub(crate) fn run(loaded: Loaded) -> Result<(), Failure> {
    let runtime = super::runtime()?;
    let telemetry = Telemetry::start(loaded.config.telemetry(), runtime.handle())?;
    let traces = telemetry.as_ref().map(Telemetry::layer);
    logs::init(&loaded.log_filter(), loaded.config.log_format(), traces)?;
    raise_file_limit();
    runtime.block_on(async {
        let served = serve(loaded, telemetry.as_ref()).await;
        if let Some(telemetry) = telemetry {
            telemetry.stop().await;
        }
        served
    })
}

async fn serve(loaded: Loaded, telemetry: Option<&Telemetry>) -> Result<(), Failure> {
    let config = loaded.config;
    let stop = stop_signals()?;
    let options = config.server_options()?;
    reload_on_signal(Reload::of(&options))?;
    // Addresses first: a mistake there should not wait for the compiler.
    let listeners = Listeners::bind(&options)
        .await
        .map_err(|error| Failure::unavailable(error.to_string()))?;
    let databases = tokio::select! {
        opened = Databases::open(config.database_options()) => {
            opened.map_err(|error| Failure::unavailable(error.to_string()))?
        }
        never = listeners.answer_while_starting() => match never {},
        () = stopped(stop.clone()) => return Ok(()),
    };
    let scheme = match options.http.tls {
        HttpTls::Off => "http",
        HttpTls::Require => "https",
    };
    super::print(&format!(
        "PostgreSQL: postgres://postgres@{}/postgres\nHTTP:       {scheme}://{}\n",
        listeners.pgwire_address(),
        listeners.http_address(),
    ));
    let server = Server::new(listeners, databases.clone(), options);
    if let Some(telemetry) = telemetry {
        telemetry.send_metrics(server.meter());
    }
    server.run(stopped(stop)).await;
    databases
        .close()
        .await
        .map_err(|error| Failure::unavailable(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

/// Every connection is an open file, and the usual limit is 1,024 of them; the system lets us go
/// up to the hard limit.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "the limit on open files stays as it is");
    }
}

/// Becomes true with the first SIGTERM or SIGINT. The second ends the process, whatever it does.
fn stop_signals() -> Result<watch::Receiver<bool>, Failure> {
    let failed = |error| Failure::unavailable(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping; a second signal stops at once");
        stop.send_replace(true);
        let signal = next(&mut terminate, &mut interrupt).await;
        // What was not flushed is as after a crash.
        std::process::exit(EXIT_BY_SIGNAL + signal.as_raw_value());
    });
    Ok(stopping)
}

/// Reads certificates, the administrator's password and tokens again with every SIGHUP, and opens the audit file anew. Without any of them that
/// signal ends the process, as it does others.
fn reload_on_signal(reload: Reload) -> Result<(), Failure> {
    if reload.is_empty() {
        return Ok(());
    }
    let failed = |error| Failure::unavailable(format!("cannot wait for signals: {error}"));
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(
                "SIGHUP: reading certificates, the administrator's password and tokens again"
            );
            reload.now().await;
        }
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate(),
        _ = interrupt.recv() => SignalKind::interrupt(),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error would mean that nobody waits for signals any more.
    let _ = stop.wait_for(|stop| *stop).await;
}
