//! Spans of what statements read from disk: a few for each, however much that is.

use std::time::{Duration, Instant};

use engine::ReadWatch;
use tracing::Span;
use volume::PAGE_BYTES;

use super::Session;
use crate::trace::TRACE;

/// Most spans of one exchange (`telemetry.fetches_max`); what is read after that is in the last one.
const FETCHES_MAX: usize = 16;

/// Reads that begin so soon after the one before are of the same span.
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The reads of one exchange.
#[derive(Debug)]
struct Fetches {
    /// Of the statements that read.
    statements: Span,
    begun: usize,
    current: Option<Fetch>,
}

/// Reads with no pause between them. Dropping it tells what they were.
#[derive(Debug)]
struct Fetch {
    span: Span,
    pages: u64,
    bytes: u64,
    /// How long they took in all.
    reading: Duration,
    /// When the last one began and ended.
    last: (Instant, Instant),
}

impl Session {
    /// What the statements of this span read is recorded, if they are.
    pub(super) fn watch_reads(&mut self, statements: &Span) {
        if statements.is_disabled() {
            return;
        }
        let watch = Fetches {
            statements: statements.clone(),
            begun: 0,
            current: None,
        };
        if let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) {
            backend.watch_reads(Some(Box::new(watch)));
        }
    }

    /// They have run.
    pub(super) fn leave_reads(&mut self) {
        if let Some(backend) = self.slot.as_mut().and_then(|slot| slot.backend.as_mut()) {
            backend.watch_reads(None);
        }
    }
}

impl ReadWatch for Fetches {
    fn begins(&mut self) {
        self.begins_at(Instant::now());
    }

    fn ended(&mut self, bytes: usize) {
        self.ended_at(bytes, Instant::now());
    }
}

impl Fetches {
    fn begins_at(&mut self, now: Instant) {
        let goes_on = |fetch: &Fetch| {
            self.begun >= FETCHES_MAX || now.duration_since(fetch.last.1) < PAUSE_MAX
        };
        match &mut self.current {
            Some(fetch) if goes_on(fetch) => fetch.last = (now, now),
            _ => {
                self.begun += 1;
                self.current = Some(Fetch::new(&self.statements, now));
            }
        }
    }

    fn ended_at(&mut self, bytes: usize, now: Instant) {
        if let Some(fetch) = &mut self.current {
            fetch.read(bytes, now);
        }
    }
}

impl Fetch {
    fn new(statements: &Span, now: Instant) -> Self {
        let span = tracing::trace_span!(
            target: TRACE,
            parent: statements,
            "fetch",
            dormouse.pages.read = tracing::field::Empty,
            dormouse.bytes.read = tracing::field::Empty,
            dormouse.read.ms = tracing::field::Empty,
        );
        Self {
            span,
            pages: 0,
            bytes: 0,
            reading: Duration::ZERO,
            last: (now, now),
        }
    }

    fn read(&mut self, bytes: usize, now: Instant) {
        self.pages += bytes.div_ceil(PAGE_BYTES) as u64;
        self.bytes += bytes as u64;
        self.reading += now.duration_since(self.last.0);
        self.last.1 = now;
        // A span ends when it was left for the last time, not when it is let go of.
        self.span.in_scope(|| {});
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.span.record("dormouse.pages.read", self.pages);
        self.span.record("dormouse.bytes.read", self.bytes);
        let ms = self.reading.as_secs_f64() * 1e3;
        self.span.record("dormouse.read.ms", ms);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use parking_lot::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Names of spans, and the numbers that were told of them.
    #[derive(Default)]
    struct Told {
        next: AtomicU64,
        begun: Arc<Mutex<Vec<&'static str>>>,
        numbers: Arc<Mutex<Vec<(u64, String, u64)>>>,
    }

    struct Numbers<'a>(u64, &'a Mutex<Vec<(u64, String, u64)>>);

    impl Visit for Numbers<'_> {
        fn record_u64(&mut self, field: &Field, value: u64) {
            self.1.lock().push((self.0, field.name().to_owned(), value));
        }

        fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
    }

    impl Subscriber for Told {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.begun.lock().push(span.metadata().name());
            Id::from_u64(self.next.fetch_add(1, Ordering::Relaxed) + 1)
        }

        fn record(&self, span: &Id, values: &Record<'_>) {
            values.record(&mut Numbers(span.into_u64(), &self.numbers));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// What is told of reads of so many bytes, each of which begins so long after the one before has ended.
    fn told(reads: &[(u64, usize)]) -> Vec<(u64, u64)> {
        let subscriber = Told::default();
        let (begun, numbers) = (
            Arc::clone(&subscriber.begun),
            Arc::clone(&subscriber.numbers),
        );
        tracing::subscriber::with_default(subscriber, || {
            let mut fetches = Fetches {
                statements: tracing::trace_span!(target: TRACE, "query"),
                begun: 0,
                current: None,
            };
            let mut now = Instant::now();
            for (pause, bytes) in reads {
                now += Duration::from_millis(*pause);
                fetches.begins_at(now);
                now += Duration::from_millis(2);
                fetches.ended_at(*bytes, now);
            }
        });
        let names = begun.lock().clone();
        assert_eq!(names[0], "query");
        assert!(names[1..].iter().all(|name| *name == "fetch"), "{names:?}");
        let numbers = numbers.lock();
        let of = |span: u64, field: &str| {
            let found = numbers
                .iter()
                .find(|(of, name, _)| *of == span && name == field);
            found.unwrap().2
        };
        (2..=names.len() as u64)
            .map(|span| {
                (
                    of(span, "dormouse.pages.read"),
                    of(span, "dormouse.bytes.read"),
                )
            })
            .collect()
    }

    #[test]
    fn reads_without_a_pause_are_one() {
        let page = PAGE_BYTES;
        assert_eq!(told(&[]), []);
        let all = [(0, page), (0, page), (5, 2 * page), (5, 100), (0, 0)];
        let page = page as u64;
        assert_eq!(told(&all), [(2, 2 * page), (2, 2 * page), (1, 100)]);
    }

    #[test]
    fn there_are_few_however_much_is_read() {
        let told = told(&[(5, PAGE_BYTES); 100]);
        assert_eq!(told.len(), FETCHES_MAX);
        assert!(told[..FETCHES_MAX - 1].iter().all(|fetch| fetch.0 == 1));
        assert_eq!(told[FETCHES_MAX - 1].0, 100 - (FETCHES_MAX as u64 - 1));
    }
}
