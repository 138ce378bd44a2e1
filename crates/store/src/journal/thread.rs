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

/// Whether the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// There are no spares; what there is can be written.
    Short,
    /// The last group could not be written.
    None,
}

fn run(shared: &Shared) {
    let mut room = Room::Enough;
    loop {
        let next = wait(shared, room);
        if next == Next::Stop {
            break;
        }
        room = match shared.step(next == Next::Mark) {
            Ok(_) if shared.state.lock().shortage.is_none() => Room::Enough,
            Ok(_) => Room::Short,
            Err(JournalError::Full { .. }) => Room::None,
            // Whoever waits was told.
            Err(_) => return,
        };
    }
    loop {
        match shared.step(false) {
            Ok(true) => {}
            Ok(false) => break,
            // The end tells whoever waits.
            Err(_) => return,
        }
    }
    // Only for a better diagnosis: without the mark a damaged last group looks torn.
    let _ = shared.step(true);
}

/// Waits until there is something to do.
fn wait(shared: &Shared, room: Room) -> Next {
    let options = &shared.options;
    let mut state = shared.state.lock();
    // What is to be done when, and what for.
    let mut armed: Option<(Next, Instant)> = None;
    let retry_at = (room != Room::Enough).then(|| Instant::now() + RETRY_INTERVAL);
    loop {
        if state.is_stopping {
            return Next::Stop;
        }
        let due = if room == Room::None {
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
        let first = match (armed, retry_at) {
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
