//! The writer thread: when to write what.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::JournalError;
use super::error::Ended;
use super::shared::Shared;

/// How long a full disk is left alone before it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Entries are written at once when this many bytes of them wait.
pub(super) const WRITTEN_AT_BYTES: usize = 4 << 20;

/// The writer thread of a journal. Dropping it writes what was appended, closes the journal, and waits
/// for that; what a full disk leaves unwritten is lost, and whoever waits for it is told.
#[derive(Debug)]
pub struct JournalWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl JournalWriter {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, JournalError> {
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("dormouse-journal".to_owned())
            .spawn(move || run(&theirs))
            .map_err(|source| JournalError::io("start the writer of", &shared.directory, source))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.shared.state.lock().is_stopping = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its hook; closing tells whoever waits.
            let _ = thread.join();
        }
        self.shared.end(Ended::Closed);
    }
}

/// What the writer thread does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Write,
    Mark,
    Stop,
}

/// What is known of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// There are no spares, which is to be tried again at this time; what there is can be written.
    Short(Instant),
    /// The last group could not be written, which is to be tried again at this time.
    None(Instant),
}

impl Room {
    fn retry_at(self) -> Option<Instant> {
        match self {
            Self::Enough => None,
            Self::Short(at) | Self::None(at) => Some(at),
        }
    }
}

fn run(shared: &Shared) {
    let mut room = Room::Enough;
    loop {
        let next = wait(shared, room);
        if next == Next::Stop {
            break;
        }
        let now = Instant::now();
        let retry_at = room.retry_at().filter(|at| now < *at);
        let result = shared.step(next == Next::Mark, retry_at.is_none());
        let retry_at = retry_at.unwrap_or(now + RETRY_INTERVAL);
        room = match result {
            Ok(_) if shared.state.lock().shortage.is_none() => Room::Enough,
            Ok(_) => Room::Short(retry_at),
            Err(JournalError::Full { .. }) => Room::None(retry_at),
            // Whoever waits was told.
            Err(_) => return,
        };
    }
    loop {
        match shared.step(false, true) {
            Ok(true) => {}
            Ok(false) => break,
            // The end tells whoever waits.
            Err(_) => return,
        }
    }
    // Only for a better diagnosis: without the mark a damaged last group looks torn.
    let _ = shared.step(true, false);
}

/// Waits until there is something to do.
fn wait(shared: &Shared, room: Room) -> Next {
    let options = &shared.options;
    let mut state = shared.state.lock();
    // What is to be done when it has waited long enough.
    let mut armed: Option<(Next, Instant)> = None;
    loop {
        if state.is_stopping {
            return Next::Stop;
        }
        let due = if matches!(room, Room::None(_)) {
            if state.is_released {
                return Next::Write;
            }
            None
        } else {
            let is_due = state.writing.is_some()
                || state.is_urgent
                || state.pending.count >= options.unsynced_entries_max
                || state.pending.bytes.len() >= WRITTEN_AT_BYTES;
            if is_due {
                return Next::Write;
            }
            if state.pending.count > 0 || state.is_released {
                Some(Next::Write)
            } else {
                state.is_unmarked.then_some(Next::Mark)
            }
        };
        if armed.map(|(next, _)| next) != due {
            armed = due.map(|next| (next, Instant::now() + options.sync_interval));
        }
        let first = match (armed, room.retry_at()) {
            (Some((next, at)), Some(retry)) if at <= retry => Some((next, at)),
            (_, Some(retry)) => Some((Next::Write, retry)),
            (armed, None) => armed,
        };
        match first {
            None => shared.work.wait(&mut state),
            Some((next, at)) => {
                if shared.work.wait_until(&mut state, at).timed_out() {
                    return next;
                }
            }
        }
    }
}
