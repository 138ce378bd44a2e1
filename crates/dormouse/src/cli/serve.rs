//! `dormouse serve`.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use database::Databases;
use server::{HttpTls, Listeners, ManagedBindings, Reload, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use workers::Bindings;

use super::apps::{self, Sockets};
use super::args::ServeArgs;
use super::config::{self, Loaded};
use super::failure::Failure;
use super::logs::{self, LogFilter};
use super::reloader::Reloader;
use super::telemetry::Telemetry;

/// Added to the number of a signal that ends the process at once, as shells do.
const EXIT_BY_SIGNAL: i32 = 128;

/// What goes on beside a server in its process, once that can be asked, at this address.
pub(crate) type Beside = Box<dyn FnOnce(String) -> BoxFuture + Send>;
type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What comes before the bindings that there are, with sockets in this folder.
pub(crate) type BindingsBefore =
    Box<dyn FnOnce(Arc<ManagedBindings>, &Path) -> Result<Arc<dyn Bindings>, Failure> + Send>;

/// What a server has besides what it is configured to have.
pub(crate) struct With {
    /// Dropped when the server stops.
    pub(crate) beside: Option<Beside>,
    pub(crate) bindings: BindingsBefore,
}

impl Default for With {
    fn default() -> Self {
        Self {
            beside: None,
            bindings: Box::new(|bindings, _| Ok(bindings as _)),
        }
    }
}

/// Serves until a signal says stop.
pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    run_with(args, With::default())
}

/// The same with what else there is.
pub(crate) fn run_with(args: ServeArgs, with: With) -> Result<(), Failure> {
    let loaded = config::load(&args)?;
    let runtime = super::runtime()?;
    let telemetry = Telemetry::start(loaded.config.telemetry(), runtime.handle())?;
    let traces = telemetry.as_ref().map(Telemetry::layer);
    let log = logs::init(&loaded.log_filter(), loaded.config.log_format(), traces)?;
    raise_file_limit();
    runtime.block_on(async {
        let served = serve((args, loaded), log, telemetry.as_ref(), with).await;
        if let Some(telemetry) = telemetry {
            telemetry.stop().await;
        }
        served
    })
}

async fn serve(
    given: (ServeArgs, Loaded),
    log: LogFilter,
    telemetry: Option<&Telemetry>,
    with: With,
) -> Result<(), Failure> {
    let config = &given.1.config;
    let stop = stop_signals()?;
    // One that comes before we serve waits until then; without this it would end the process.
    let hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let options = config.server_options()?;
    let files = Reload::of(&options);
    // Addresses first: a mistake there should not wait for the compiler.
    let listeners = Listeners::bind(&options)
        .await
        .map_err(|error| Failure::unavailable(error.to_string()))?;
    let with_audit = database::Options {
        witness: Some(options.audit.clone()),
        ..config.database_options()
    };
    let databases = tokio::select! {
        opened = Databases::open(with_audit) => {
            opened.map_err(|error| Failure::unavailable(error.to_string()))?
        }
        never = listeners.answer_while_starting() => match never {},
        () = stopped(stop.clone()) => return Ok(()),
    };
    let scheme = match options.http.tls {
        HttpTls::Off => "http",
        HttpTls::Require => "https",
    };
    let address = format!("{scheme}://{}", listeners.http_address());
    super::print(&format!(
        "PostgreSQL: postgres://postgres@{}/postgres\nHTTP:       {address}\n",
        listeners.pgwire_address(),
    ));
    let key = config.node_key()?;
    let sockets = Sockets::below(config.data())?;
    let bindings = apps::bindings(config, &key, &databases, &sockets)?;
    let known = (with.bindings)(Arc::clone(&bindings), sockets.path())?;
    let apps = apps::open(config, &key, known, &sockets)?;
    let server = Server::new(listeners, databases.clone(), Some(bindings), options)
        .map_err(|error| Failure::unavailable(error.to_string()))?;
    server.serves(Arc::clone(&apps));
    if let Some(telemetry) = telemetry {
        telemetry.send_metrics(server.meter());
    }
    let reloader = Reloader::new(given, log, files, databases.clone(), server.adjuster());
    let reloader = Arc::new(reloader);
    // As long as it is there, HTTP asks it too.
    let configuration: Weak<Reloader> = Arc::downgrade(&reloader);
    server.reloads_by(configuration);
    let reloading = tokio::spawn(reloader.on(hangup));
    let beside = with.beside.map(|beside| tokio::spawn(beside(address)));
    server.run(stopped(stop)).await;
    reloading.abort();
    if let Some(beside) = beside {
        beside.abort();
    }
    apps.stop().await;
    drop(sockets);
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
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
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

fn no_signals(error: std::io::Error) -> Failure {
    Failure::unavailable(format!("cannot wait for signals: {error}"))
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
