//! What clients know of the server: which one is up, whether they shall be quiet, and how earlier
//! ones ended.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::window::Seen;

/// A server that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// Which start of the server this is, counted from 0.
    pub epoch: u64,
    /// Where it speaks PostgreSQL's protocol.
    pub pg: SocketAddr,
    /// Where it speaks HTTP.
    pub http: SocketAddr,
    /// Whether every database is checked, not only some.
    pub check_all: bool,
    /// Whether there is work after the checks.
    pub work: bool,
}

/// The server now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// None, or one that is being ended.
    Down,
    /// One that answers.
    Up(Up),
    /// There will be none any more.
    Over,
}

/// The director's side.
#[derive(Debug)]
pub struct Director {
    stage: watch::Sender<Stage>,
    quiet: watch::Sender<bool>,
    ends: Arc<Mutex<Vec<Seen>>>,
}

/// A client's side.
#[derive(Debug, Clone)]
pub struct Audience {
    stage: watch::Receiver<Stage>,
    quiet: watch::Receiver<bool>,
    ends: Arc<Mutex<Vec<Seen>>>,
}

/// No server yet.
pub fn stage() -> (Director, Audience) {
    let (stage, stage_seen) = watch::channel(Stage::Down);
    let (quiet, quiet_seen) = watch::channel(false);
    let ends = Arc::default();
    let audience = Audience {
        stage: stage_seen,
        quiet: quiet_seen,
        ends: Arc::clone(&ends),
    };
    let director = Director { stage, quiet, ends };
    (director, audience)
}

impl Director {
    /// A server answers.
    pub fn up(&self, up: Up) {
        self.quiet.send_replace(false);
        self.stage.send_replace(Stage::Up(up));
    }

    /// The server is about to be ended: from now on connections may break.
    pub fn down(&self) {
        self.stage.send_replace(Stage::Down);
    }

    /// How this start of the server ended. One that never answered has no end to tell.
    pub fn ended(&self, end: Seen) {
        self.ends.lock().push(end);
    }

    /// Clients leave their databases, and stay away.
    pub fn hush(&self) {
        self.quiet.send_replace(true);
    }

    /// Clients end.
    pub fn over(&self) {
        self.stage.send_replace(Stage::Over);
    }
}

impl Audience {
    /// The next server that answers, after that of `epoch`; `None` at the end.
    pub async fn next(&mut self, epoch: Option<u64>) -> Option<Up> {
        loop {
            match *self.stage.borrow_and_update() {
                Stage::Up(up) if Some(up.epoch) != epoch => return Some(up),
                Stage::Over => return None,
                _ => {}
            }
            self.stage.changed().await.ok()?;
        }
    }

    /// Whether the server of this epoch is still up.
    pub fn is_up(&self, epoch: u64) -> bool {
        matches!(*self.stage.borrow(), Stage::Up(up) if up.epoch == epoch)
    }

    /// Waits until the server of this epoch is ended.
    pub async fn until_down(&mut self, epoch: u64) {
        let other = |stage: &Stage| !matches!(stage, Stage::Up(up) if up.epoch == epoch);
        // It fails when the director is gone, which is an end, too.
        let _ended = self.stage.wait_for(other).await;
    }

    /// Whether clients shall stay away.
    pub fn is_quiet(&self) -> bool {
        *self.quiet.borrow()
    }

    /// Waits until clients may come again.
    pub async fn until_loud(&mut self) {
        // It fails when the director is gone; then there is no server either.
        let _ended = self.quiet.wait_for(|quiet| !quiet).await;
    }

    /// How the server of this epoch ended. [`Seen::Live`] while it is up.
    pub fn end_of(&self, epoch: u64) -> Seen {
        self.ends
            .lock()
            .get(epoch as usize)
            .copied()
            .unwrap_or(Seen::Live)
    }
}
