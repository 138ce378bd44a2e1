//! What an exchange of messages took, and what came of it: for figures, the log of slow queries, and traces.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;
use wire::pg::{Tally, command, frames, frontend, shape};

use super::Session;
use super::plan::Plan;
use crate::figures::Exchanged;
use crate::trace::TRACE;

/// How long a session has waited for a process, and what for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seating {
    /// For other sessions, or for another process to start.
    pub(super) wait: Duration,
    /// Whether it did wait.
    pub(super) waited: bool,
    /// For the database to wake.
    pub(super) wake: Duration,
}

/// What earlier exchanges took that ended no statement, such as one that only prepares: the next that does
/// counts it. The beginning of the session is one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carried {
    pub(super) seating: Seating,
    pub(super) elapsed: Duration,
}

/// An exchange that is under way.
#[derive(Debug)]
pub(crate) struct Measure {
    began: Instant,
    pub(crate) bytes_in: u64,
    pub(crate) tally: Tally,
    /// Bytes at the front of the last answer that are counted already.
    pub(crate) counted: usize,
    /// When the statements began and ended.
    ran: Option<(Instant, Instant)>,
    /// For the log and the trace; nothing where neither is wanted.
    messages: Option<Bytes>,
    /// Of the statement.
    span: Span,
    text: Option<String>,
    plan: Option<Plan>,
    pages_read: u64,
}

impl Measure {
    /// The statements begin to run.
    pub(super) fn runs(&mut self, session: &Session) -> Span {
        let now = Instant::now();
        self.ran = Some((now, now));
        if !session.is_traced {
            return Span::none();
        }
        let span = tracing::trace_span!(
            target: TRACE,
            "query",
            otel.name = tracing::field::Empty,
            db.system.name = "postgresql",
            db.namespace = tracing::field::Empty,
            db.operation.name = tracing::field::Empty,
            db.query.text = tracing::field::Empty,
            db.response.status_code = tracing::field::Empty,
            db.response.returned_rows = tracing::field::Empty,
            dormouse.pages.read = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        if !span.is_disabled() {
            let name = session.database.name();
            span.record("db.namespace", name.as_str());
            self.pages_read = session.pages_read();
            if let Some(operation) = self.messages.as_ref().and_then(operation) {
                span.record("db.operation.name", &*operation);
                span.record("otel.name", format!("{operation} {name}"));
            }
        }
        self.span = span.clone();
        span
    }

    /// They have run.
    pub(super) fn ran(&mut self) {
        if let Some((_, end)) = &mut self.ran {
            *end = Instant::now();
        }
    }
}

impl Session {
    /// An exchange begins.
    pub(super) fn measure(&self, messages: &Bytes) -> Measure {
        let observe = self.node.adjustable.observe();
        let wanted = !self.is_unasked && (observe.slow_query.is_some() || self.is_traced);
        Measure {
            began: Instant::now(),
            bytes_in: messages.len() as u64,
            tally: Tally::default(),
            counted: 0,
            ran: None,
            messages: wanted.then(|| messages.clone()),
            span: Span::none(),
            text: None,
            plan: None,
            pages_read: 0,
        }
    }

    /// Pages that were read from files for this database.
    fn pages_read(&self) -> u64 {
        let volume = self.database.volume_now();
        volume.map_or(0, |volume| volume.pages_read())
    }

    /// What has run is looked at while the session still has its process.
    pub(super) async fn look_at_statement(&mut self, measure: &mut Measure) {
        measure.ran();
        let Some(messages) = &measure.messages else {
            return;
        };
        let observe = self.node.adjustable.observe();
        let is_traced = !measure.span.is_disabled();
        let is_slow = observe
            .slow_query
            .is_some_and(|limit| self.elapsed(measure.began) >= limit);
        if is_traced {
            let read = self.pages_read().saturating_sub(measure.pages_read);
            measure.span.record("dormouse.pages.read", read);
        }
        if !(is_slow || is_traced && observe.query_text) {
            return;
        }
        let Some(sql) = self.statement_text(messages) else {
            return;
        };
        let text = shape(sql.as_bytes(), observe.query_bytes_max);
        if is_traced && observe.query_text {
            measure.span.record("db.query.text", &*text);
        }
        measure.text = Some(text);
        if is_slow && observe.slow_query_plan {
            measure.plan = Some(self.plan(&sql).await);
        }
    }

    /// How long what ends now took, with what it carries.
    fn elapsed(&self, began: Instant) -> Duration {
        began.elapsed() + self.carried.elapsed
    }

    /// The first statement among messages, also if they only name it.
    fn statement_text(&self, messages: &Bytes) -> Option<String> {
        let text = |sql: &[u8]| String::from_utf8_lossy(sql).into_owned();
        frames(messages).find_map(|(kind, body)| match kind {
            frontend::kind::QUERY => frontend::decode_query(body).ok().map(text),
            frontend::kind::PARSE => frontend::Parse::decode(body)
                .ok()
                .map(|parse| text(parse.sql)),
            frontend::kind::BIND => {
                let end = body.iter().position(|byte| *byte == 0)? + 1;
                let name = body[end..].split(|byte| *byte == 0).next()?;
                let backend = self.slot.as_ref()?.backend.as_ref()?;
                backend.statement_sql(str::from_utf8(name).ok()?)
            }
            _ => None,
        })
    }

    /// An exchange has ended.
    pub(super) fn measured(&mut self, measure: &Measure, gate: Duration, wal_end: Option<u64>) {
        let own = measure.began.elapsed();
        let elapsed = own + self.carried.elapsed;
        let mut seating = self.seating;
        self.seating = Seating::default();
        let carried = self.carried.seating;
        seating.wait += carried.wait;
        seating.wake += carried.wake;
        seating.waited |= carried.waited;
        let nothing = Tally::default();
        let (tally, bytes_in) = match self.is_unasked {
            true => (&nothing, 0),
            false => (&measure.tally, measure.bytes_in),
        };
        let is_statement = tally.statements > 0;
        self.carried = match is_statement {
            true => Carried::default(),
            false => Carried { seating, elapsed },
        };
        self.database.figures.exchanged(&Exchanged {
            tally,
            bytes_in,
            elapsed,
            waited: (is_statement && seating.waited).then_some(seating.wait),
            wal_end,
            at: self.node.live.since.at(measure.began),
        });
        if let Some(code) = tally.code {
            self.node.counters.errors.count(&code);
        }
        self.tell_span(measure);
        let limit = self.node.adjustable.observe().slow_query;
        if is_statement && limit.is_some_and(|limit| elapsed >= limit) {
            self.log_slow(measure, elapsed, &seating, gate);
        }
    }

    fn tell_span(&self, measure: &Measure) {
        let span = &measure.span;
        if span.is_disabled() {
            return;
        }
        span.record("db.response.returned_rows", measure.tally.rows);
        if let Some(code) = &measure.tally.code {
            span.record(
                "db.response.status_code",
                str::from_utf8(code).unwrap_or_default(),
            );
            span.record("otel.status_code", "ERROR");
        }
    }

    fn log_slow(&self, measure: &Measure, elapsed: Duration, seating: &Seating, gate: Duration) {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let run = measure
            .ran
            .map_or(Duration::ZERO, |(begin, end)| end - begin);
        let sqlstate = measure.tally.code.as_ref();
        tracing::info!(
            target: "dormouse::slow_query",
            database = %self.database.name(),
            role = self.came_as,
            from = self.label,
            duration_ms = ms(elapsed),
            wait_ms = ms(seating.wait),
            wake_ms = ms(seating.wake),
            run_ms = ms(run),
            gate_ms = ms(gate),
            statements = measure.tally.statements,
            rows = measure.tally.rows,
            sqlstate = sqlstate.and_then(|code| str::from_utf8(code).ok()),
            query = measure.text,
            plan = measure.plan.as_ref().map(tracing::field::display),
            "slow query"
        );
    }
}

/// The command of the first statement that messages bring.
fn operation(messages: &Bytes) -> Option<String> {
    frames(messages).find_map(|(kind, body)| match kind {
        frontend::kind::QUERY => command(frontend::decode_query(body).ok()?),
        frontend::kind::PARSE => command(frontend::Parse::decode(body).ok()?.sql),
        _ => None,
    })
}
