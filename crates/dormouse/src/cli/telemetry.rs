//! Traces and metrics, sent to a collector by OTLP.

mod client;
mod metrics;
mod resource;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider};
use server::Meter;
use tokio::runtime::Handle;
use tracing::Metadata;
use tracing::subscriber::Interest;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::config::TelemetrySection;
use super::failure::Failure;
use client::Client;
use resource::Attributes;

/// How long a stop waits for what is still to be sent.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// How long one request to the collector may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);

/// What is sent, while it is.
pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
    client: Arc<Client>,
    attributes: Attributes,
    endpoint: String,
    metrics_interval: Duration,
}

impl Telemetry {
    /// Begins to send to the configured collector, if there is one. That need not be there: what it does not
    /// take in time is dropped.
    pub(crate) fn start(
        config: &TelemetrySection,
        runtime: &Handle,
    ) -> Result<Option<Self>, Failure> {
        let endpoint = config.otlp_endpoint.trim_end_matches('/');
        if endpoint.is_empty() {
            return Ok(None);
        }
        let refused = |error: String| {
            Failure::Usage(format!("telemetry.otlp_endpoint \"{endpoint}\": {error}"))
        };
        let client = Client::new(endpoint, &config.otlp_headers.0, EXPORT_MAX, runtime)?;
        let client = Arc::new(client);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(client.clone())
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_MAX)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let attributes = Attributes::new(config)?;
        let provider = SdkTracerProvider::builder()
            // What is not to be recorded has no span, or turned out not to be wanted and has a parent that says so.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(attributes.resource())
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build();
        Ok(Some(Self {
            provider,
            client,
            attributes,
            endpoint: endpoint.to_owned(),
            metrics_interval: Duration::from_millis(config.metrics_interval_ms),
        }))
    }

    /// What makes our spans the collector's.
    pub(crate) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let scope = InstrumentationScope::builder("dormouse")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer_with_scope(scope))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        layer.with_filter(Recorded).boxed()
    }

    /// Sends metrics from now on.
    pub(crate) fn send_metrics(&self, meter: Meter) {
        if self.metrics_interval.is_zero() {
            return;
        }
        let url = format!("{}/v1/metrics", self.endpoint);
        let sending = metrics::send(
            meter,
            Arc::clone(&self.client),
            url,
            self.attributes.clone(),
            self.metrics_interval,
        );
        // It ends with the process.
        drop(tokio::spawn(sending));
    }

    /// Sends what is left, but does not wait long for a collector that is away.
    pub(crate) async fn stop(self) {
        let provider = self.provider;
        let stopping =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SHUTDOWN_MAX));
        if let Ok(Err(error)) = stopping.await {
            tracing::debug!(%error, "traces were not all sent");
        }
    }
}

/// Lets through spans of ours, below one that the server wants to be recorded.
struct Recorded;

impl Recorded {
    fn is_ours(metadata: &Metadata<'_>) -> bool {
        metadata.target() == database::TRACE && metadata.is_span()
    }
}

impl<S> Filter<S> for Recorded
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Self::is_ours(metadata)
            && (context.lookup_current().is_some() || server::ROOTS.contains(&metadata.name()))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match Self::is_ours(metadata) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}
