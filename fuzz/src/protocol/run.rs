//! A run: rounds of stories, on many connections at once, beside clients that behave well.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sim::Random;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::canary::{Canaries, Canary};
use super::failure::Failure;
use super::options::{Options, Until};
use super::play::{Outcome, Stage, play};
use super::story::{Plot, Story};
use super::summary::Summary;
use super::witness::{Trouble, Witness};
use crate::server::Server;

/// How long a statement waits for a process, and how long an idle session may keep one.
const WAIT_MS: u64 = 10_000;
const IDLE_HOLDER_MS: u64 = 1_000;
/// How long a database without work stays awake.
const IDLE_MS: u64 = 40;
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Between two looks of a well-behaved client.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Starts of the server that have logs of their own.
const STARTS_MAX: u64 = 7;

/// Runs.
///
/// # Errors
/// If the server does not start, or too much was wrong.
pub async fn run(options: &Options, mut tell: impl FnMut(&str)) -> Result<Summary, String> {
    let begun = Instant::now();
    let mut summary = Summary::default();
    let mut starts = 0;
    let mut scene = Scene::begin(options, starts).await?;
    let mut told = Instant::now();
    for round in options.first_round.. {
        let failures = scene.round(options, round, &mut summary).await;
        summary.rounds += 1;
        for failure in &failures {
            summary.failures += 1;
            let place = options
                .folder
                .join(format!("failure-{}.txt", summary.failures));
            let text = format!("seed {} round {round}: {failure}", options.seed);
            fs::write(&place, &text).map_err(|error| error.to_string())?;
            tell(&text);
        }
        if summary.failures >= options.failures_max {
            return Err(format!("{summary}"));
        }
        if !failures.is_empty() {
            starts += 1;
            if starts >= STARTS_MAX {
                return Err(format!("{starts} starts: {summary}"));
            }
            // What it is like now is no matter.
            let _ = scene.server.stop().await;
            scene = Scene::begin(options, starts).await?;
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            tell(&format!("round {round}: {summary}"));
        }
        let is_enough = match options.until {
            Until::Rounds(rounds) => summary.rounds >= rounds,
            Until::Elapsed(time) => begun.elapsed() >= time,
        };
        if is_enough || options.story.is_some() {
            break;
        }
    }
    scene.server.stop().await?;
    Ok(summary)
}

/// A server with its databases and their witnesses.
struct Scene {
    server: Server,
    stage: Arc<Stage>,
    plot: Plot,
    witnesses: Vec<Witness>,
    random: Random,
}

impl Scene {
    async fn begin(options: &Options, start: u64) -> Result<Self, String> {
        let settings = [
            (
                "DORMOUSE_DATABASES__PROCESSES_MAX",
                options.processes_max.to_string(),
            ),
            ("DORMOUSE_DATABASES__IDLE_MS", IDLE_MS.to_string()),
            ("DORMOUSE_SESSIONS__WAIT_MS_MAX", WAIT_MS.to_string()),
            (
                "DORMOUSE_SESSIONS__IDLE_HOLDER_MS_MAX",
                IDLE_HOLDER_MS.to_string(),
            ),
            (
                "DORMOUSE_PGWIRE__MESSAGE_BYTES_MAX",
                MESSAGE_BYTES_MAX.to_string(),
            ),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let settings = settings
            .into_iter()
            .chain(options.settings.clone())
            .collect();
        fs::create_dir_all(&options.folder).map_err(|error| error.to_string())?;
        let server = Server::start(&options.dormouse, &options.folder, settings, start).await?;
        let stage = Arc::new(Stage {
            address: server.address,
            canaries: Canaries::default(),
            patience: options.patience,
        });
        // Unlike those of stories.
        let mut random = Random::new(!options.seed ^ start);
        let databases: Vec<_> = (0..options.databases).map(|n| format!("db{n}")).collect();
        let mut witnesses = Vec::new();
        for database in &databases {
            let witness = Witness::sit(&stage, database, Canary::draw(&mut random)).await;
            witnesses.push(witness.map_err(|trouble| format!("{database}: {trouble:?}"))?);
        }
        Ok(Self {
            server,
            stage,
            plot: Plot {
                databases,
                mixed_queries: options.mixed_queries,
            },
            witnesses,
            random,
        })
    }

    /// The stories of a round, and what was wrong.
    async fn round(
        &mut self,
        options: &Options,
        round: u64,
        summary: &mut Summary,
    ) -> Vec<Failure> {
        let (over, is_over) = watch::channel(false);
        let mut actors = JoinSet::new();
        for seeds in story_seeds(options, round) {
            let (stage, plot) = (Arc::clone(&self.stage), self.plot.clone());
            actors.spawn(async move { act(&seeds, &plot, &stage).await });
        }
        let mut lookers = JoinSet::new();
        for witness in self.witnesses.drain(..) {
            lookers.spawn(look(witness, is_over.clone()));
        }
        let mut failures = Vec::new();
        while let Some(acted) = actors.join_next().await {
            match acted {
                Ok((outcomes, failure)) => {
                    outcomes
                        .into_iter()
                        .for_each(|outcome| summary.add(outcome));
                    failures.extend(failure);
                }
                Err(error) => failures.push(Failure::new(format!("the fuzzer itself: {error}"))),
            }
        }
        // Nobody may listen any more.
        let _ = over.send(true);
        while let Some(looked) = lookers.join_next().await {
            match looked {
                Ok((witness, looks, outcome)) => {
                    summary.looks += looks;
                    match outcome {
                        Ok(()) => {}
                        Err(Trouble::Busy) => summary.busy += 1,
                        Err(Trouble::Wrong(what)) => {
                            failures.push(Failure::new(format!("a well-behaved client: {what}")));
                        }
                    }
                    self.witnesses.push(witness);
                }
                Err(error) => failures.push(Failure::new(format!("the fuzzer itself: {error}"))),
            }
        }
        if failures.is_empty() {
            failures.extend(self.afterwards(summary).await.err().map(Failure::new));
        }
        match self.server.check(options.memory_bytes_max) {
            Ok(bytes) => summary.memory_bytes = summary.memory_bytes.max(bytes),
            Err(what) => failures.push(Failure::new(what)),
        }
        failures
    }

    /// With nobody else there, everything must be right, and nobody in the way.
    async fn afterwards(&mut self, summary: &mut Summary) -> Result<(), String> {
        let wrong = |trouble| format!("a well-behaved client, afterwards: {trouble:?}");
        for witness in &mut self.witnesses {
            witness.check().await.map_err(wrong)?;
            summary.looks += 1;
        }
        for database in &self.plot.databases {
            let canary = Canary::draw(&mut self.random);
            Witness::visit(&self.stage, database, canary)
                .await
                .map_err(wrong)?;
            summary.looks += 1;
        }
        Ok(())
    }
}

/// The seeds of each connection's stories.
fn story_seeds(options: &Options, round: u64) -> Vec<Vec<u64>> {
    if let Some(story) = options.story {
        return vec![vec![story]];
    }
    let mut random = Random::new(options.seed);
    let mut random = Random::new(random.bits().wrapping_add(round));
    let connections = 0..options.connections;
    connections
        .map(|_| (0..options.stories).map(|_| random.bits()).collect())
        .collect()
}

async fn act(seeds: &[u64], plot: &Plot, stage: &Stage) -> (Vec<Outcome>, Option<Failure>) {
    let mut outcomes = Vec::new();
    for seed in seeds {
        let story = Story::of(*seed, plot);
        match play(&story, stage).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(what) => return (outcomes, Some(Failure::of(what, &story))),
        }
    }
    (outcomes, None)
}

async fn look(
    mut witness: Witness,
    mut is_over: watch::Receiver<bool>,
) -> (Witness, u64, Result<(), Trouble>) {
    let mut looks = 0;
    loop {
        if let Err(trouble) = witness.check().await {
            return (witness, looks, Err(trouble));
        }
        looks += 1;
        let over = is_over.wait_for(|is_over| *is_over);
        if tokio::time::timeout(LOOK_EVERY, over).await.is_ok() {
            return (witness, looks, Ok(()));
        }
    }
}
