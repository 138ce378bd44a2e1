//! What the director waits for, and what it hears meanwhile.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::Run;
use crate::child::Child;
use crate::directory::HALL;
use crate::failure::{Broken, Failure};
use crate::http;
use crate::phase::Phase;
use crate::schedule::Plan;
use crate::shared::Event;
use crate::stage::Up;

/// Longer than the checks after a restart may take.
const CHECKS_MAX: Duration = Duration::from_secs(600);
/// How long a phase is waited for before the kill comes anyway.
const PHASE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at how many databases are awake.
const LOOK: Duration = Duration::from_millis(3);

impl Run {
    /// Waits until the server listens; `None` if it does not within `patience`.
    pub(super) async fn until_ready(
        &mut self,
        child: &mut Child,
        patience: Option<Duration>,
        work: bool,
    ) -> Result<Option<Up>, Failure> {
        let addresses = match patience {
            Some(patience) => match tokio::time::timeout(patience, child.ready()).await {
                Ok(addresses) => addresses,
                Err(_) => return Ok(None),
            },
            None => child.ready().await,
        };
        let (pg, http) = addresses.map_err(|what| self.broken(what))?;
        self.last_startup = child.started().elapsed();
        self.report.started();
        if !self.has_hall {
            let made = http::create_database(http, HALL).await;
            made.map_err(|what| self.broken(what))?;
            self.has_hall = true;
        }
        let epoch = self.epochs;
        self.epochs += 1;
        let check_all = epoch.is_multiple_of(self.options.check_all_every.max(1));
        Ok(Some(Up {
            epoch,
            pg,
            http,
            check_all,
            work,
        }))
    }

    /// Waits for the moment of the kill: the phase that it hits.
    pub(super) async fn until_moment(
        &mut self,
        child: &mut Child,
        up: Up,
        plan: Plan,
    ) -> Result<Phase, Failure> {
        if plan.phase.is_after_checks() {
            self.until_checked(child).await?;
        }
        let phase_ends = Instant::now() + PHASE_MAX;
        let hit = match plan.phase {
            Phase::Load | Phase::Stop | Phase::Recovery => true,
            // It was faster than it was to be.
            Phase::Startup => return Ok(Phase::Recovery),
            Phase::FirstWake => {
                let first = |event: &Event| matches!(event, Event::Answered { .. });
                self.until_event(child, phase_ends, first).await?
            }
            Phase::Bulk | Phase::Directory => {
                let began =
                    |event: &Event| matches!(event, Event::Began(phase) if *phase == plan.phase);
                self.until_event(child, phase_ends, began).await?
            }
            Phase::Hibernating | Phase::Asleep => {
                self.director.hush();
                let asleep = plan.phase == Phase::Asleep;
                self.until_drowsy(child, up, phase_ends, asleep).await?
            }
        };
        if !hit {
            return Ok(Phase::Load);
        }
        self.pause(child, plan.delay).await?;
        Ok(plan.phase)
    }

    pub(super) async fn until_checked(&mut self, child: &mut Child) -> Result<(), Failure> {
        let deadline = Instant::now() + CHECKS_MAX;
        while self.checked < self.keepers_count {
            if self.next(child, deadline).await?.is_none() {
                return Err(self.broken(format!(
                    "the checks of {} of {} clients did not end within {} s; {}",
                    self.keepers_count - self.checked,
                    self.keepers_count,
                    CHECKS_MAX.as_secs(),
                    child.told()
                )));
            }
        }
        Ok(())
    }

    /// Waits until some databases, or all, have gone to sleep.
    async fn until_drowsy(
        &mut self,
        child: &mut Child,
        up: Up,
        deadline: Instant,
        all: bool,
    ) -> Result<bool, Failure> {
        let mut most = 0;
        while Instant::now() < deadline {
            let awake = http::awake(up.http).await;
            let awake = awake.map_err(|what| self.broken(what))?;
            most = most.max(awake);
            if awake == 0 || (!all && awake < most) {
                return Ok(true);
            }
            self.pause(child, LOOK).await?;
        }
        Ok(false)
    }

    async fn until_event(
        &mut self,
        child: &mut Child,
        deadline: Instant,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<bool, Failure> {
        while let Some(event) = self.next(child, deadline).await? {
            if is_it(&event) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn pause(&mut self, child: &mut Child, time: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + time;
        while self.next(child, deadline).await?.is_some() {}
        Ok(())
    }

    /// The next event; `None` at the deadline. The server must not end meanwhile.
    async fn next(
        &mut self,
        child: &mut Child,
        deadline: Instant,
    ) -> Result<Option<Event>, Failure> {
        loop {
            tokio::select! {
                biased;
                died = child.died() => return Err(self.broken(died)),
                () = sleep_until(deadline.into()) => return Ok(None),
                Some(event) = self.events.recv() => return self.hear(event).map(Some),
                _ = self.ticks.tick() => {
                    let line = self.report.progress(&self.shared.counters);
                    (self.tell)(&line);
                }
            }
        }
    }

    pub(super) fn hear(&mut self, event: Event) -> Result<Event, Failure> {
        let current = self.epochs.checked_sub(1);
        match &event {
            Event::Broken { database, what } => {
                return Err(Failure::Broken(Box::new(Broken {
                    database: Some(database.clone()),
                    ..self.plain(what.clone())
                })));
            }
            Event::Answered { epoch, at } if Some(*epoch) == current && !self.answered => {
                self.answered = true;
                self.report.answered(at.duration_since(self.started));
            }
            Event::Checked { epoch } if Some(*epoch) == current => self.checked += 1,
            _ => {}
        }
        Ok(event)
    }
}
