//! Traces: which requests are recorded, and how they belong to those of others.
//!
//! A span here is the root of what is recorded in this process. It is made only for what is to be recorded: the
//! caller's decision counts, and without one, a share of all requests. Everything below makes spans only under
//! such a one, so what is not recorded costs next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response};
use bytes::Bytes;
use database::{Session, TRACE};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use wire::pg::{frames, frontend};
use wire::{TraceContext, trace_state};

/// Names of spans that may be roots: a subscriber takes the others only below one of these.
pub const ROOTS: [&str; 3] = ["request", "batch", "connect"];

/// Fields of a request: what it took to find out who asks, and until the body was here, in milliseconds.
const LOGIN: &str = "dormouse.login.ms";
const BODY: &str = "dormouse.body.ms";

/// Messages of a batch in which a comment with a context is looked for.
const MESSAGES_LOOKED_AT: usize = 16;

/// Whether and how much is recorded.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Option<Arc<Sampling>>);

#[derive(Debug)]
struct Sampling {
    /// Below it a random number means yes.
    threshold: AtomicU64,
    random: AtomicU64,
}

impl Telemetry {
    /// Records this share of the requests of which no caller has decided, from 0 to 1. A subscriber that makes
    /// something of the spans must be there.
    pub fn on(sample_ratio: f64) -> Self {
        let mut seed = [0; 8];
        // Without random bytes other requests are recorded, but as many.
        let _ = getrandom::fill(&mut seed);
        Self(Some(Arc::new(Sampling {
            threshold: AtomicU64::new(threshold(sample_ratio)),
            random: AtomicU64::new(u64::from_ne_bytes(seed)),
        })))
    }

    /// Records this share from now on, if anything is recorded.
    pub(crate) fn set_sample_ratio(&self, sample_ratio: f64) {
        if let Some(sampling) = &self.0 {
            let threshold = threshold(sample_ratio);
            sampling.threshold.store(threshold, Ordering::Relaxed);
        }
    }

    /// The span of an HTTP request to this route, which is none if there is no such thing here. What the caller has decided counts
    /// only if it is known who that is.
    pub(crate) fn request(&self, head: &Parts, route: Option<&str>, is_known: bool) -> Traced {
        self.begin(head, route).decide(head, is_known)
    }

    /// The beginning of a request of which it is not known yet who makes it.
    pub(crate) fn begin(&self, head: &Parts, route: Option<&str>) -> Begun {
        let Some(sampling) = &self.0 else {
            return Begun::default();
        };
        let parent = text(head, "traceparent").and_then(TraceContext::parse);
        let by_chance = sampling.wants(None);
        // Whether a wish of the caller counts is not known yet: the span begins, and may be dropped.
        let may_be_wanted = parent.map_or(by_chance, |parent| parent.sampled);
        if !may_be_wanted {
            return Begun {
                unrecorded: sampling.unrecorded(parent),
                ..Begun::default()
            };
        }
        let method = method(&head.method);
        let span = tracing::trace_span!(
            target: TRACE,
            parent: None,
            "request",
            otel.name = format!("{method} {}", route.unwrap_or("elsewhere")),
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
            http.request.method = method,
            http.route = route,
            url.path = head.uri.path(),
            http.response.status_code = tracing::field::Empty,
            dormouse.login.ms = tracing::field::Empty,
            dormouse.body.ms = tracing::field::Empty,
        );
        let unrecorded = sampling.unrecorded(parent);
        // What its caller wishes counts from the decision on: until then, which may never come, it is not recorded.
        adopt(&span, unrecorded, None);
        Begun {
            span,
            since: Instant::now(),
            parent,
            by_chance,
            unrecorded,
        }
    }

    /// The span of a statement over HTTP whose request is not recorded, if a comment in it says that it is to
    /// be.
    pub(crate) fn statement(&self, sql: &str, session: &Session) -> Span {
        if self.0.is_none() || !Span::current().is_disabled() {
            return Span::none();
        }
        match TraceContext::in_comment(sql.as_bytes()) {
            Some(parent) if parent.sampled => batch(Some(parent), session),
            _ => Span::none(),
        }
    }

    /// The span of messages over PostgreSQL's protocol.
    pub(crate) fn batch(&self, messages: &Bytes, session: &Session) -> Span {
        let Some(sampling) = &self.0 else {
            return Span::none();
        };
        sampling.begin(in_messages(messages), session)
    }

    /// The span of a statement that came in a WebSocket, where it is a request by itself.
    pub(crate) fn message(&self, sql: &str, session: &Session) -> Span {
        let Some(sampling) = &self.0 else {
            return Span::none();
        };
        let parent = TraceContext::in_comment(sql.as_bytes());
        sampling.begin(parent, session)
    }

    /// The span of a session's beginning over PostgreSQL's protocol.
    pub(crate) fn connect(&self, database: &str, label: &str) -> Span {
        let wanted = self.0.as_ref().is_some_and(|sampling| sampling.wants(None));
        if !wanted {
            return Span::none();
        }
        tracing::trace_span!(
            target: TRACE,
            parent: None,
            "connect",
            otel.name = format!("connect {database}"),
            otel.kind = "server",
            db.system.name = "postgresql",
            db.namespace = database,
            dormouse.session = label,
        )
    }
}

/// The part of all random numbers that means yes.
fn threshold(sample_ratio: f64) -> u64 {
    (sample_ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

fn batch(parent: Option<TraceContext>, session: &Session) -> Span {
    let database = session.database();
    let span = tracing::trace_span!(
        target: TRACE,
        parent: None,
        "batch",
        otel.kind = "server",
        db.system.name = "postgresql",
        db.namespace = database.as_str(),
        dormouse.session = session.label(),
    );
    adopt(&span, parent, None);
    span
}

impl Sampling {
    /// Whether to record: as the caller has decided, or else by chance.
    fn wants(&self, parent: Option<&TraceContext>) -> bool {
        match parent {
            Some(parent) => parent.sampled,
            None => {
                let threshold = self.threshold.load(Ordering::Relaxed);
                threshold > 0 && self.random() <= threshold
            }
        }
    }

    /// What stands for a request that is not recorded, for whoever hears of its caller's trace.
    fn unrecorded(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        parent.map(|parent| TraceContext {
            span_id: self.random().max(1),
            sampled: false,
            ..parent
        })
    }

    /// The span of what a session is asked, if it is to be recorded.
    fn begin(&self, parent: Option<TraceContext>, session: &Session) -> Span {
        match self.wants(parent.as_ref()) {
            true => batch(parent, session),
            false => Span::none(),
        }
    }

    /// SplitMix64: enough for chance, and one addition that threads share.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(STEP, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A request's span from its beginning, which may turn out not to be wanted.
pub(crate) struct Begun {
    span: Span,
    since: Instant,
    parent: Option<TraceContext>,
    /// It is wanted where no caller decides.
    by_chance: bool,
    /// What stands for it in the answer if it is not wanted.
    unrecorded: Option<TraceContext>,
}

impl Default for Begun {
    fn default() -> Self {
        Self {
            span: Span::none(),
            since: Instant::now(),
            parent: None,
            by_chance: false,
            unrecorded: None,
        }
    }
}

impl Begun {
    /// It was found out who asks.
    pub(crate) fn admitted(&self) {
        lasted(&self.span, LOGIN, self.since);
    }

    /// The body is here, which was waited for since then.
    pub(crate) fn body_read(&self, since: Instant) {
        lasted(&self.span, BODY, since);
    }

    /// The request is recorded, or not. What its caller has decided counts only if it is known who that is.
    pub(crate) fn decide(self, head: &Parts, is_known: bool) -> Traced {
        let decided = self.parent.filter(|parent| is_known || !parent.sampled);
        let wanted = decided.map_or(self.by_chance, |parent| parent.sampled);
        if wanted {
            let state = text(head, "tracestate").and_then(trace_state);
            adopt(&self.span, self.parent, state);
            return Traced {
                span: self.span,
                unrecorded: None,
            };
        }
        // Its parent is not recorded, and so it is not either.
        Traced {
            span: Span::none(),
            unrecorded: self.unrecorded,
        }
    }
}

/// A request's span, or what stands for it in the answer.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) span: Span,
    unrecorded: Option<TraceContext>,
}

impl Default for Traced {
    fn default() -> Self {
        Self {
            span: Span::none(),
            unrecorded: None,
        }
    }
}

impl Traced {
    /// The request's place in its trace, for whoever is asked on its behalf; none if the caller's own stands for it.
    pub(crate) fn context(&self) -> Option<HeaderValue> {
        let context = match self.span.is_disabled() {
            true => self.unrecorded,
            false => own(&self.span),
        };
        HeaderValue::try_from(context?.to_string()).ok()
    }

    /// The request was answered: the answer tells its place in the trace.
    pub(crate) fn answered<B>(&self, response: &mut Response<B>) {
        let status = response.status();
        let context = if self.span.is_disabled() {
            self.unrecorded
        } else {
            self.span
                .record("http.response.status_code", status.as_u16());
            if status.is_server_error() {
                self.span.record("otel.status_code", "ERROR");
            }
            own(&self.span)
        };
        let value = context.and_then(|context| HeaderValue::try_from(context.to_string()).ok());
        if let Some(value) = value {
            let headers = response.headers_mut();
            headers.insert("traceresponse", value.clone());
            headers.insert("traceparent", value);
        }
    }
}

/// It was found out who asks, of the request that is being answered.
pub(crate) fn admitted(since: Instant) {
    lasted(&Span::current(), LOGIN, since);
}

/// The body of the request that is being answered is here.
pub(crate) fn body_read(since: Instant) {
    lasted(&Span::current(), BODY, since);
}

/// Milliseconds that something of a request took.
fn lasted(span: &Span, field: &'static str, since: Instant) {
    if !span.is_disabled() {
        span.record(field, since.elapsed().as_micros() as f64 / 1e3);
    }
}

fn text<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok()
}

/// A method by its name, of which there are few.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        _ => "_OTHER",
    }
}

/// Makes a span the child of a caller's.
fn adopt(span: &Span, parent: Option<TraceContext>, state: Option<&str>) {
    let Some(parent) = parent.filter(|_| !span.is_disabled()) else {
        return;
    };
    let state = state.and_then(|state| state.parse::<TraceState>().ok());
    let flags = match parent.sampled {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    let remote = SpanContext::new(
        parent.trace_id.into(),
        parent.span_id.into(),
        flags,
        true,
        state.unwrap_or_default(),
    );
    let adopted = span.set_parent(Context::new().with_remote_span_context(remote));
    if let Err(error) = adopted {
        tracing::debug!(?error, "a span has no parent");
    }
}

/// A span's own place in its trace.
fn own(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| TraceContext {
        trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(context.span_id().to_bytes()),
        sampled: context.is_sampled(),
    })
}

/// The context in a comment of the first statement that has one.
fn in_messages(messages: &Bytes) -> Option<TraceContext> {
    frames(messages)
        .take(MESSAGES_LOOKED_AT)
        .find_map(|(kind, body)| match kind {
            frontend::kind::QUERY | frontend::kind::PARSE => TraceContext::in_comment(body),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    #[test]
    fn a_share_is_recorded() {
        let Telemetry(Some(sampling)) = Telemetry::on(0.25) else {
            panic!("it is off");
        };
        let recorded = (0..10_000).filter(|_| sampling.wants(None)).count();
        assert!((2_000..3_000).contains(&recorded), "{recorded}");
        let parent = |sampled| TraceContext {
            trace_id: 1,
            span_id: 1,
            sampled,
        };
        assert!(sampling.wants(Some(&parent(true))));
        assert!(!sampling.wants(Some(&parent(false))));
    }

    #[test]
    fn none_and_all() {
        for (ratio, expected) in [(0.0, 0), (1.0, 1_000), (f64::NAN, 0)] {
            let Telemetry(Some(sampling)) = Telemetry::on(ratio) else {
                panic!("it is off");
            };
            let recorded = (0..1_000).filter(|_| sampling.wants(None)).count();
            assert_eq!(recorded, expected, "{ratio}");
        }
    }

    #[test]
    fn strangers_decide_nothing() {
        let head = Request::get("/")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let none = Telemetry::on(0.0);
        assert!(none.request(&head, None, true).unrecorded.is_none());
        let of_stranger = none.request(&head, None, false);
        assert_eq!(
            of_stranger.unrecorded.map(|context| context.sampled),
            Some(false)
        );
    }

    #[test]
    fn methods_are_few() {
        assert_eq!(method(&Method::POST), "POST");
        assert_eq!(method(&Method::from_bytes(b"X-1").unwrap()), "_OTHER");
    }

    #[test]
    fn an_unrecorded_request_is_passed_on() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let request = Request::get("/").header("traceparent", parent);
        let head = request.body(()).unwrap().into_parts().0;
        let answer = |telemetry: Telemetry| {
            let mut response = Response::new(());
            telemetry.request(&head, None, true).answered(&mut response);
            let value = response.headers().get("traceresponse").cloned();
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let told = answer(Telemetry::on(1.0)).unwrap();
        let told = TraceContext::parse(&told).unwrap();
        let parent = TraceContext::parse(parent).unwrap();
        assert_eq!((told.trace_id, told.sampled), (parent.trace_id, false));
        assert_ne!(told.span_id, parent.span_id);
        assert_eq!(answer(Telemetry::default()), None);
    }
}
