//! The director: starts the server, lets keepers work, kills it by the schedule, starts it again.

mod moment;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval};

use crate::child::{Child, Launch};
use crate::directory::MEMBERS_MAX;
use crate::evidence;
use crate::failure::{Broken, Failure};
use crate::keeper::Keeper;
use crate::options::{Options, Until};
use crate::phase::Phase;
use crate::report::{Report, Summary};
use crate::schedule::Schedule;
use crate::shared::{Event, Shared};
use crate::stage::{Director, Up, stage};
use crate::window::Seen;

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
        let keepers_count = options.databases.div_ceil(MEMBERS_MAX).max(1) as u64;
        let (shared, events) = Shared::new(
            options.seed,
            options.durability,
            options.idle,
            keepers_count,
        );
        let shared = Arc::new(shared);
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
