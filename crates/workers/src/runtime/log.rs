//! What a backend writes: its `console`, its exceptions, and what the runtime says of it. A ring: the oldest goes.

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// How much is kept of a deployment's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Entries. Setting `log_entries_max`.
    pub entries_max: usize,
    /// Bytes of their text. Setting `log_bytes_max`.
    pub bytes_max: usize,
    /// Bytes of one entry; what is longer is cut. Setting `log_entry_bytes_max`.
    pub entry_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            entries_max: 10_000,
            bytes_max: 4 << 20,
            entry_bytes_max: 16 << 10,
        }
    }
}

/// How an entry came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// `console.debug`.
    Debug,
    /// `console.log`, and what has no other level.
    Log,
    /// `console.info`.
    Info,
    /// `console.warn`.
    Warn,
    /// `console.error`.
    Error,
    /// An exception that the backend did not catch.
    Exception,
    /// The runtime's own words: why it does not start, limits.
    Runtime,
    /// The supervisor's: starts, ends, limits.
    Supervisor,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its number; dense, from 1, for as long as the server runs.
    pub number: u64,
    /// When it was read, in milliseconds since 1970.
    pub at_ms: u64,
    /// The version that wrote it.
    pub version: u64,
    /// How it came to be.
    pub level: Level,
    /// The text.
    pub text: String,
}

/// The output of a deployment, across its versions.
#[derive(Debug)]
pub struct Log {
    options: LogOptions,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    last: u64,
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new(options: LogOptions) -> Self {
        Self {
            options,
            ring: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }

    /// At most `max` entries with numbers above `after`, the oldest first.
    #[must_use]
    pub fn after(&self, after: u64, max: usize) -> Vec<LogEntry> {
        let ring = self.ring.lock();
        let from = ring.entries.partition_point(|entry| entry.number <= after);
        ring.entries.iter().skip(from).take(max).cloned().collect()
    }

    /// The number of the last entry, as it changes.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// How long a line may be before it is cut.
    pub(super) fn line_bytes_max(&self) -> usize {
        // A line is JSON, in which a byte of text may take six.
        self.options.entry_bytes_max.saturating_mul(6).max(1_024)
    }

    /// Writes an entry of the supervisor's own.
    pub(crate) fn say(&self, version: u64, text: impl Into<String>) {
        self.push(version, Level::Supervisor, text.into());
    }

    /// Takes a line of the runtime's output.
    pub(super) fn line(&self, version: u64, line: &str) {
        let Line { level, text } = Line::read(line);
        self.push(version, level, text);
    }

    fn push(&self, version: u64, level: Level, mut text: String) {
        if text.len() > self.options.entry_bytes_max {
            let end = text.floor_char_boundary(self.options.entry_bytes_max);
            text.truncate(end);
            text.push_str(" (cut: log_entry_bytes_max)");
        }
        let at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let mut ring = self.ring.lock();
        ring.last += 1;
        ring.bytes += text.len();
        let number = ring.last;
        ring.entries.push_back(LogEntry {
            number,
            at_ms,
            version,
            level,
            text,
        });
        while ring.entries.len() > self.options.entries_max || ring.bytes > self.options.bytes_max {
            let Some(gone) = ring.entries.pop_front() else {
                break;
            };
            ring.bytes -= gone.text.len();
        }
        drop(ring);
        self.last.send_replace(number);
    }
}

/// A line of the runtime's output, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: String,
}

impl Line {
    /// Reads a line: JSON with `level` and `message`, and with `source` if it is the runtime's own; or plain text.
    pub(super) fn read(line: &str) -> Self {
        let parsed: Option<Value> = serde_json::from_str(line).ok();
        let field = |name| parsed.as_ref()?.get(name)?.as_str();
        let Some(message) = field("message") else {
            let text = line.to_owned();
            return Self {
                level: Level::Log,
                text,
            };
        };
        if field("source").is_some() {
            return Self::of_runtime(message);
        }
        let level = match field("level") {
            Some("debug") => Level::Debug,
            Some("info") => Level::Info,
            Some("warn") => Level::Warn,
            Some("error") => Level::Error,
            _ => Level::Log,
        };
        Self {
            level,
            text: message.to_owned(),
        }
    }

    fn of_runtime(message: &str) -> Self {
        if let Some(exception) = message.strip_prefix("Uncaught exception: ") {
            // Between the two stand a file and a line of the runtime's source.
            let text = ["remote.jsg.", "jsg."]
                .into_iter()
                .find_map(|mark| exception.split_once(mark))
                .map_or(exception, |(_, text)| text);
            return Self {
                level: Level::Exception,
                text: text.to_owned(),
            };
        }
        let own = message.strip_prefix("service backend: ").unwrap_or(message);
        Self {
            level: Level::Runtime,
            text: own.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let of = |line: &str| {
            let Line { level, text } = Line::read(line);
            (level, text)
        };
        assert_eq!(
            of(r#"{"timestamp":0,"level":"warn","message":"a\nb"}"#),
            (Level::Warn, "a\nb".to_owned())
        );
        assert_eq!(
            of(
                r#"{"timestamp":"1","level":"error","source":"x.rs:1","message":"Uncaught exception: a/b.h:14: failed: remote.jsg.Error: boom"}"#
            ),
            (Level::Exception, "Error: boom".to_owned())
        );
        assert_eq!(
            of(
                r#"{"timestamp":"1","level":"error","source":"x.rs:1","message":"service backend: No such compatibility flag: x"}"#
            ),
            (Level::Runtime, "No such compatibility flag: x".to_owned())
        );
        for plain in ["# Fatal error", "{}", "[1]", "{\"message\":1}", ""] {
            assert_eq!(of(plain), (Level::Log, plain.to_owned()));
        }
    }

    #[test]
    fn the_oldest_go_by_number_and_by_bytes() {
        let log = Log::new(LogOptions {
            entries_max: 3,
            bytes_max: 200,
            entry_bytes_max: 100,
        });
        for number in 1..=5 {
            log.line(7, &number.to_string());
        }
        let texts = |after, max| {
            let entries = log.after(after, max);
            entries.into_iter().map(|e| e.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(0, 9), ["3", "4", "5"]);
        assert_eq!(texts(4, 9), ["5"]);
        assert_eq!(texts(0, 1), ["3"]);
        log.line(7, &"ä".repeat(100));
        let last = texts(5, 9).remove(0);
        assert!(last.starts_with("ää") && last.ends_with("(cut: log_entry_bytes_max)"));
        log.line(7, &"x".repeat(99));
        assert_eq!(texts(0, 9).len(), 1, "bytes count too");
        assert_eq!(*log.follow().borrow(), 7);
    }
}
