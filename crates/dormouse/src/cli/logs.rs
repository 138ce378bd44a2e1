//! The log: lines on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::config::LogFormat;
use super::failure::Failure;

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs from now on what the filter lets through. `traces` gets the spans.
pub(super) fn init(filter: &str, format: LogFormat, traces: Option<Boxed>) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::Usage(format!("the log filter \"{filter}\": {error}")))?;
    // Spans are for traces alone: on every line they would be long, and cost where nobody wants them.
    let filter = filter.and(filter_fn(|metadata| metadata.target() != database::TRACE));
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
    Ok(())
}
