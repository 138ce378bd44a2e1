//! What all keepers share: the run's decisions, what they tell the director, and which database
//! each of them is busy with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::counters::Counters;
use crate::model::SharedModel;
use crate::phase::Phase;
use crate::random::Random;
use crate::window::Durability;

/// What a keeper tells the director.
#[derive(Debug)]
pub enum Event {
    /// A database answered.
    Answered {
        /// In this start of the server.
        epoch: u64,
        /// Then.
        at: Instant,
    },
    /// A keeper has done its checks after a restart.
    Checked {
        /// In this start of the server.
        epoch: u64,
    },
    /// Something begins that is worth a kill.
    Began(Phase),
    /// A promise is broken.
    Broken {
        /// In which database.
        database: String,
        /// How.
        what: String,
    },
}

/// What all keepers share.
#[derive(Debug)]
pub struct Shared {
    /// The run's seed.
    pub seed: u64,
    /// What the databases promise.
    pub durability: Durability,
    /// How long a database without a session stays awake.
    pub idle: Duration,
    /// What is counted.
    pub counters: Counters,
    events: UnboundedSender<Event>,
    /// What each keeper is busy with, by its number.
    pub busy: Vec<Mutex<Option<Busy>>>,
}

/// A database that its keeper is working in.
#[derive(Debug, Clone)]
pub struct Busy {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub model: SharedModel,
    /// The start of the server in which it is.
    pub epoch: u64,
    /// Its name is about to go.
    pub leaving: Leaving,
}

/// Whether a database's name is about to go, by a drop or a renaming.
#[derive(Debug, Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// It is.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// What so many keepers share, and where their events come out.
    pub fn new(
        seed: u64,
        durability: Durability,
        idle: Duration,
        keepers: u64,
    ) -> (Self, UnboundedReceiver<Event>) {
        let (events, heard) = unbounded_channel();
        let shared = Self {
            seed,
            durability,
            idle,
            counters: Counters::default(),
            events,
            busy: (0..keepers).map(|_| Mutex::new(None)).collect(),
        };
        (shared, heard)
    }

    /// Tells the director.
    pub fn tell(&self, event: Event) {
        // The director is gone only when the run has ended.
        let _unheard = self.events.send(event);
    }

    /// A database that another keeper is busy with in this start of the server.
    pub fn other_busy(&self, keeper: u64, epoch: u64, random: &mut Random) -> Option<Busy> {
        let others = self.busy.iter().zip(0..);
        let others: Vec<Busy> = others
            .filter(|(_, other)| *other != keeper)
            .filter_map(|(busy, _)| busy.lock().clone())
            .filter(|busy| busy.epoch == epoch && !busy.leaving.get())
            .collect();
        random.pick(&others).cloned()
    }
}
