//! A keeper: the client of a few databases, of which it is in one at a time. It makes, forks,
//! renames and drops them, works in them, leaves them to sleep, and checks them after each restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::directory::{Directory, MEMBERS_MAX};
use crate::random::Random;
use crate::session::Session;
use crate::shared::{Busy, Event, Shared};
use crate::stage::{Audience, Up};
use crate::trouble::Trouble;
use crate::visit::Visit;

/// Most steps of work in one session.
const STEPS_MAX: u64 = 80;
/// How often, in a hundred, a database is checked after a restart.
const CHECKED_PERCENT: u64 = 25;
/// SQLSTATE of a statement that a stopping server cancels.
const CANCELLED: &str = "57014";

/// A client of a few databases.
#[derive(Debug)]
pub struct Keeper {
    number: u64,
    random: Random,
    directory: Directory,
    audience: Audience,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy)]
enum Episode {
    Visit,
    Idle,
    Create,
    ForkOwn,
    ForkOther,
    Rename,
    Drop,
}

/// While there may be one more database.
const GROWING: [(u64, Episode); 7] = [
    (40, Episode::Visit),
    (8, Episode::Idle),
    (12, Episode::Create),
    (15, Episode::ForkOwn),
    (15, Episode::ForkOther),
    (5, Episode::Rename),
    (3, Episode::Drop),
];

/// While there may not.
const FULL: [(u64, Episode); 4] = [
    (70, Episode::Visit),
    (10, Episode::Idle),
    (10, Episode::Rename),
    (12, Episode::Drop),
];

impl Keeper {
    /// The keeper of this number.
    pub fn new(number: u64, shared: Arc<Shared>, audience: Audience) -> Self {
        Self {
            number,
            random: Random::of(shared.seed, &[0x6B65_6570, number]),
            directory: Directory::new(number, Arc::clone(&shared)),
            audience,
            shared,
        }
    }

    /// Works with one server after another, until there is none any more, or a promise is broken.
    pub async fn run(mut self) {
        let mut epoch = None;
        while let Some(up) = self.audience.next(epoch).await {
            epoch = Some(up.epoch);
            let served = self.serve(up).await;
            self.set_busy(None);
            let stands = self.audience.is_up(up.epoch);
            let what = match served {
                Ok(()) => continue,
                Err(Trouble::Gone(_)) if !stands => continue,
                Err(error) if !stands && error.is(CANCELLED) => continue,
                Err(Trouble::Gone(why)) => format!("the server is up, but {why}"),
                Err(Trouble::Broken(what)) => what,
                Err(refused) => format!("refused without a reason: {refused}"),
            };
            let database = self.directory.current().to_owned();
            self.shared.tell(Event::Broken { database, what });
            return;
        }
    }

    async fn serve(&mut self, up: Up) -> Result<(), Trouble> {
        self.directory.settle(up).await?;
        self.directory.check_absent(up).await?;
        let mut sample = Random::of(self.shared.seed, &[0x7361_6D70, self.number, up.epoch]);
        for slot in self.directory.slots() {
            if up.check_all || sample.percent(CHECKED_PERCENT) {
                self.check(up, slot).await?;
            }
        }
        self.shared.tell(Event::Checked { epoch: up.epoch });
        if !up.work {
            self.audience.until_down(up.epoch).await;
        }
        while self.audience.is_up(up.epoch) {
            if self.audience.is_quiet() {
                self.wait(up, None).await;
            } else {
                self.episode(up).await?;
            }
        }
        Ok(())
    }

    async fn episode(&mut self, up: Up) -> Result<(), Trouble> {
        let slots = self.directory.slots();
        let Some(&slot) = self.random.pick(&slots) else {
            return self.directory.create(up, &mut self.random).await;
        };
        let choices: &[_] = if slots.len() < MEMBERS_MAX {
            &GROWING
        } else {
            &FULL
        };
        let (directory, random) = (&mut self.directory, &mut self.random);
        match random.weighted(choices).unwrap_or(Episode::Visit) {
            Episode::Visit => self.visit(up, slot).await,
            Episode::Idle => {
                let quiet = self.shared.idle.mul_f64(random.within(2, 25) as f64 / 10.0);
                self.wait(up, Some(quiet)).await;
                Ok(())
            }
            Episode::Create => directory.create(up, random).await,
            Episode::ForkOwn => {
                let forked = directory.fork_own(up, slot, &self.audience, random).await?;
                self.check_fork(up, forked).await
            }
            Episode::ForkOther => {
                let other = self.shared.other_busy(self.number, up.epoch, random);
                let forked = match other {
                    Some(parent) => directory.fork_other(up, parent, random).await?,
                    None => None,
                };
                self.check_fork(up, forked).await
            }
            Episode::Rename => directory.rename(up, slot, random).await,
            Episode::Drop => directory.drop_one(up, slot, &self.audience, random).await,
        }
    }

    /// Checks a new fork, half of the time.
    async fn check_fork(&mut self, up: Up, forked: Option<usize>) -> Result<(), Trouble> {
        match forked {
            Some(slot) if self.random.percent(50) => self.check(up, slot).await,
            _ => Ok(()),
        }
    }

    async fn check(&mut self, up: Up, slot: usize) -> Result<(), Trouble> {
        let Some(member) = self.directory.enter(slot) else {
            return Ok(());
        };
        let session = member.open(up, &self.shared, &self.audience).await?;
        member.check(&session, &self.shared).await?;
        session.close().await
    }

    /// Works in a database for a while.
    async fn visit(&mut self, up: Up, slot: usize) -> Result<(), Trouble> {
        let Some(member) = self.directory.enter(slot) else {
            return Ok(());
        };
        let session = member.open(up, &self.shared, &self.audience).await?;
        let busy = Busy {
            name: member.name.clone(),
            model: Arc::clone(&member.model),
            epoch: up.epoch,
            leaving: member.leaving.clone(),
        };
        self.set_busy(Some(busy));
        let steps = self.random.within(1, STEPS_MAX);
        self.work(&session, slot, steps, up).await?;
        self.set_busy(None);
        session.close().await
    }

    async fn work(
        &mut self,
        session: &Session,
        slot: usize,
        steps: u64,
        up: Up,
    ) -> Result<(), Trouble> {
        let Some(member) = self.directory.enter(slot) else {
            return Ok(());
        };
        let visit = Visit {
            session,
            member,
            shared: &self.shared,
        };
        for _ in 0..steps {
            if !self.audience.is_up(up.epoch) || self.audience.is_quiet() {
                break;
            }
            visit.step(&mut self.random).await?;
        }
        Ok(())
    }

    /// Waits for this long, or while clients shall be quiet; but not longer than the server is up.
    async fn wait(&mut self, up: Up, time: Option<Duration>) {
        let mut other = self.audience.clone();
        match time {
            // Elapsed or ended: either is what it waited for.
            Some(time) => {
                let _either = timeout(time, self.audience.until_down(up.epoch)).await;
            }
            None => tokio::select! {
                () = self.audience.until_down(up.epoch) => {}
                () = other.until_loud() => {}
            },
        }
    }

    fn set_busy(&self, busy: Option<Busy>) {
        if let Some(place) = self.shared.busy.get(self.number as usize) {
            *place.lock() = busy;
        }
    }
}
