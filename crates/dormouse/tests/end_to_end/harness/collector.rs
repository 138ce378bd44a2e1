//! A receiver of OTLP over HTTP, which decodes by OpenTelemetry's own definitions.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// Receives on a port of its own until the test ends.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    resources: Vec<BTreeMap<String, String>>,
    metrics: Vec<ExportMetricsServiceRequest>,
    heads: Vec<String>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, received }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of a trace that came so far.
    pub(crate) fn trace(&self, trace_id: &str) -> Vec<Span> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let spans = received.spans.iter();
        spans
            .filter(|span| hex(&span.trace_id) == trace_id)
            .cloned()
            .collect()
    }

    /// All spans that came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.spans.clone()
    }

    /// Who sent them.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.resources.first().cloned().unwrap_or_default()
    }

    /// The heads of all requests.
    pub(crate) fn heads(&self) -> Vec<String> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.heads.clone()
    }

    /// Names of metrics that came so far.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = received
            .metrics
            .iter()
            .flat_map(|one| &one.resource_metrics);
        let scopes = resources.flat_map(|resource| &resource.scope_metrics);
        let metrics = scopes.flat_map(|scope| &scope.metrics);
        metrics.map(|metric| metric.name.clone()).collect()
    }
}

fn serve(stream: TcpStream, received: &Mutex<Received>) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = request(&mut stream) {
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        if head.starts_with("POST /v1/traces ") {
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            for resource in request.resource_spans {
                let of = resource.resource.unwrap_or_default();
                received.resources.push(attributes(&of.attributes));
                let spans = resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans);
                received.spans.extend(spans);
            }
        } else if head.starts_with("POST /v1/metrics ") {
            let request = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
            received.metrics.push(request);
        }
        received.heads.push(head);
        drop(received);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        if stream.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    loop {
        let begin = head.len();
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[begin..].trim().is_empty() {
            break;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1)?;
    let length = length.lines().next()?.trim().parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    if lower.contains("content-encoding: gzip") {
        let mut whole = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut whole).ok()?;
        body = whole;
    }
    Some((head, body))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attributes as text.
pub(crate) fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| {
        let value = one.value.as_ref().and_then(|value| value.value.as_ref());
        match value {
            Some(any_value::Value::StringValue(text)) => text.clone(),
            Some(any_value::Value::IntValue(number)) => number.to_string(),
            Some(any_value::Value::BoolValue(yes)) => yes.to_string(),
            Some(any_value::Value::DoubleValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        }
    };
    all.iter().map(|one| (one.key.clone(), text(one))).collect()
}
