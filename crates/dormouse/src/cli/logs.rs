//! The log: lines on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::config::LogFormat;
use super::failure::Failure;

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// What is logged, which may change.
pub(super) struct LogFilter(reload::Handle<EnvFilter, Registry>);

/// Logs from now on what the filter lets through. `traces` gets the spans.
pub(super) fn init(
    wanted: &str,
    format: LogFormat,
    traces: Option<Boxed>,
) -> Result<LogFilter, Failure> {
    let (wanted, handle) = reload::Layer::new(filter(wanted)?);
    // Spans are for traces alone: on every line they would be long, and cost where nobody wants them. They are sorted
    // out first, so that they cost no look at what is wanted.
    let filter = filter_fn(|metadata| metadata.target() != database::TRACE).and(wanted);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines: Boxed = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    };
    let mut layers = vec![lines];
    layers.extend(traces);
    tracing_subscriber::registry().with(layers).init();
    Ok(LogFilter(handle))
}

/// Reads a filter.
pub(super) fn filter(wanted: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(wanted)
        .map_err(|error| Failure::Usage(format!("the log filter \"{wanted}\": {error}")))
}

impl LogFilter {
    /// Logs from now on what this lets through.
    pub(super) fn set(&self, filter: EnvFilter) -> Result<(), Failure> {
        let set = self.0.reload(filter);
        set.map_err(|error| Failure::unavailable(format!("the log filter cannot change: {error}")))
    }
}
