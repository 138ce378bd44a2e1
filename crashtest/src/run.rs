//! The director: starts the server, lets keepers work, kills it by the schedule, starts it again.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Interval, interval, sleep_until};

use crate::child::{Child, Launch};
use crate::counters::Counters;
use crate::directory::{HALL, MEMBERS_MAX};
use crate::evidence;
use crate::failure::{Broken, Failure};
use crate::http;
use crate::keeper::Keeper;
use crate::options::{Options, Until};
use crate::phase::Phase;
use crate::report::{Report, Summary};
use crate::schedule::{Plan, Schedule};
use crate::shared::{Event, Shared};
use crate::stage::{Director, Up, stage};
use crate::window::Seen;

/// Longer than the checks after a restart may take.
const CHECKS_MAX: Duration = Duration::from_secs(600);
/// How long a phase is waited for before the kill comes anyway.
const PHASE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at how many databases are awake.
const LOOK: Duration = Duration::from_millis(3);

/// Runs the crash test. `tell` gets a line of progress a second; once `enough` is set, the run ends
/// with the kill that is under way.
///
/// # Errors
/// [`Failure::Broken`] is what the test is for.
pub async fn run(
    options: Options,
    enough: Arc<AtomicBool>,
    tell: impl FnMut(&str) + Send + 'static,
) -> Result<Summary, Failure> {
    let mut run = Run::new(options, Box::new(tell))?;
    let mut keepers = run.keepers.take().unwrap_or_default();
    while !run.is_over() && !enough.load(Ordering::Relaxed) {
        run.cycle().await?;
    }
    run.finish().await?;
    while let Some(ended) = keepers.join_next().await {
        ended.map_err(|error| Failure::Environment(format!("a keeper ended: {error}")))?;
    }
    while let Ok(event) = run.events.try_recv() {
        run.hear(event)?;
    }
    Ok(run.report.summary(&run.shared.counters))
}

struct Run {
    options: Options,
    launch: Launch,
    schedule: Schedule,
    director: Director,
    shared: Arc<Shared>,
    events: UnboundedReceiver<Event>,
    keepers: Option<JoinSet<()>>,
    keepers_count: u64,
    report: Report,
    tell: Box<dyn FnMut(&str) + Send>,
    ticks: Interval,
    /// Starts of the server, and those of them that answered.
    launched: u64,
    epochs: u64,
    has_hall: bool,
    last_phase: Option<Phase>,
    last_startup: Duration,
    /// This start of the server: when, and what has been heard of it.
    started: Instant,
    answered: bool,
    checked: u64,
}

impl Run {
    fn new(options: Options, tell: Box<dyn FnMut(&str) + Send>) -> Result<Self, Failure> {
        let environment = |error: std::io::Error| {
            Failure::Environment(format!("{}: {error}", options.folder.display()))
        };
        fs::create_dir_all(&options.folder).map_err(environment)?;
        if fs::read_dir(&options.folder).map_err(environment)?.count() > 0 {
            return Err(Failure::Environment(format!(
                "{} is not empty; the crash test must know all that is in it",
                options.folder.display()
            )));
        }
        let resolve = |path: &std::path::Path| {
            fs::canonicalize(path)
                .map_err(|error| Failure::Environment(format!("{}: {error}", path.display())))
        };
        let mut settings = vec![
            (
                "DORMOUSE_DATABASES__AUTO_CREATE".to_owned(),
                "false".to_owned(),
            ),
            (
                "DORMOUSE_DATABASES__IDLE_MS".to_owned(),
                options.idle.as_millis().to_string(),
            ),
        ];
        settings.extend(options.settings.iter().cloned());
        let launch = Launch {
            program: resolve(&options.dormouse)?,
            folder: resolve(&options.folder)?,
            settings,
        };
        let (sender, events) = unbounded_channel();
        let keepers_count = options.databases.div_ceil(MEMBERS_MAX).max(1) as u64;
        let shared = Arc::new(Shared {
            seed: options.seed,
            durability: options.durability,
            idle: options.idle,
            counters: Counters::default(),
            events: sender,
            busy: (0..keepers_count).map(|_| Mutex::new(None)).collect(),
        });
        let (director, audience) = stage();
        let mut keepers = JoinSet::new();
        for number in 0..keepers_count {
            keepers.spawn(Keeper::new(number, Arc::clone(&shared), audience.clone()).run());
        }
        Ok(Self {
            schedule: Schedule::new(options.seed),
            report: Report::new(options.seed),
            options,
            launch,
            director,
            shared,
            events,
            keepers: Some(keepers),
            keepers_count,
            tell,
            ticks: interval(Duration::from_secs(1)),
            launched: 0,
            epochs: 0,
            has_hall: false,
            last_phase: None,
            last_startup: Duration::from_millis(200),
            started: Instant::now(),
            answered: false,
            checked: 0,
        })
    }

    fn is_over(&self) -> bool {
        match self.options.until {
            Until::Kills(kills) => self.report.kills() >= kills,
            Until::Elapsed(time) => self.report.elapsed() >= time,
        }
    }

    /// One start of the server, and its end.
    async fn cycle(&mut self) -> Result<(), Failure> {
        let plan = self
            .schedule
            .plan(self.report.kills() + 1, self.last_startup);
        let mut child = self.launch()?;
        let patience = (plan.phase == Phase::Startup).then_some(plan.delay);
        let Some(up) = self.until_ready(&mut child, patience, true).await? else {
            child.kill().await.map_err(|what| self.broken(what))?;
            return self.ended(Phase::Startup).await;
        };
        self.director.up(up);
        let phase = self.until_moment(&mut child, up, plan).await?;
        // From here on a connection may break.
        let now = Instant::now();
        self.director.down();
        if phase == Phase::Stop {
            let stopped = child.stop_or_kill(plan.delay).await;
            if let Some(status) = stopped.map_err(|what| self.broken(what))? {
                if !status.success() {
                    return Err(self.broken(format!("the stop failed: {status}; {}", child.told())));
                }
                self.director.ended(Seen::Live);
                self.report.stopped();
                return Ok(());
            }
        } else {
            child.kill().await.map_err(|what| self.broken(what))?;
        }
        self.director.ended(Seen::Killed(now));
        self.ended(phase).await
    }

    /// After a kill.
    async fn ended(&mut self, phase: Phase) -> Result<(), Failure> {
        self.report.killed(phase);
        self.last_phase = Some(phase);
        if self.options.evidence {
            let (data, copy) = (self.launch.data(), self.launch.folder.join("evidence"));
            let kept = tokio::task::spawn_blocking(move || evidence::keep(&data, &copy)).await;
            let kept = kept.map_err(std::io::Error::other).and_then(|kept| kept);
            return kept.map_err(|error| Failure::Environment(format!("the evidence: {error}")));
        }
        Ok(())
    }

    /// After the last kill: everything is checked, the server stops in order, and everything is
    /// checked again.
    async fn finish(&mut self) -> Result<(), Failure> {
        for _ in 0..2 {
            let mut child = self.launch()?;
            let Some(up) = self.until_ready(&mut child, None, false).await? else {
                return Err(self.broken("the server did not start".to_owned()));
            };
            let up = Up {
                check_all: true,
                ..up
            };
            self.director.up(up);
            self.until_checked(&mut child).await?;
            self.director.down();
            child.stop().await.map_err(|what| self.broken(what))?;
            self.director.ended(Seen::Live);
        }
        self.director.over();
        Ok(())
    }

    fn launch(&mut self) -> Result<Child, Failure> {
        let child = self.launch.start(self.launched).map_err(|error| {
            Failure::Environment(format!("{}: {error}", self.launch.program.display()))
        })?;
        self.launched += 1;
        self.started = child.started();
        (self.answered, self.checked) = (false, 0);
        Ok(child)
    }

    /// Waits until the server listens; `None` if it does not within `patience`.
    async fn until_ready(
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
    async fn until_moment(
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

    async fn until_checked(&mut self, child: &mut Child) -> Result<(), Failure> {
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

    fn hear(&mut self, event: Event) -> Result<Event, Failure> {
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

    fn broken(&self, what: String) -> Failure {
        Failure::Broken(Box::new(self.plain(what)))
    }

    fn plain(&self, what: String) -> Broken {
        Broken {
            seed: self.options.seed,
            kills: self.report.kills(),
            phase: self.last_phase,
            database: None,
            what,
            folder: self.launch.folder.clone(),
        }
    }
}
