//! The task that keeps a deployment running.

use super::{
    Log, Program, RuntimeOptions, Standing, Supervisor,
    door::{Door, Entrance},
    process::{Process, StartFailure},
    running::Order,
    supervisor::refusal,
};
use crate::Refusal;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// What became of a time of serving.
enum Event {
    Ended(String),
    Ordered(Option<Order>),
    TooLarge(u64),
}

/// What a deployment is kept running with.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) program: Program,
    pub(super) door: Door,
    pub(super) entrance: Entrance,
    pub(super) log: Arc<Log>,
    pub(super) standing: Arc<Mutex<Standing>>,
    /// Old processes that finish their requests.
    pub(super) retiring: JoinSet<()>,
}

impl Keeper {
    /// Serves until it is told to end.
    pub(super) async fn keep(mut self, mut process: Process, mut orders: mpsc::Receiver<Order>) {
        let mut pause = self.options().restart_min;
        let mut since = Instant::now();
        loop {
            match self.serve(&mut process, &mut orders).await {
                Event::Ordered(Some(Order::Swap(program, reply))) => {
                    let done = self.swap(&mut process, *program).await;
                    if done.is_ok() {
                        since = Instant::now();
                    }
                    // Nobody waits any more: it is done all the same.
                    drop(reply.send(done));
                    continue;
                }
                Event::Ordered(Some(Order::Restart(id, why))) => {
                    if process.id() != Some(id) {
                        continue;
                    }
                    process.kill().await;
                    self.crashed(&why);
                }
                Event::Ordered(_) => {
                    self.entrance.close();
                    self.door.released(self.options().drain_max).await;
                    let Self {
                        supervisor,
                        program,
                        log,
                        ..
                    } = &self;
                    end(process, supervisor, program.version, log).await;
                    break;
                }
                Event::Ended(how) => self.crashed(&format!("the backend ended ({how})")),
                Event::TooLarge(bytes) => {
                    process.kill().await;
                    self.crashed(&format!(
                        "the backend was killed: {bytes} bytes resident, and the limit memory_bytes_max is {}; \
                         let it keep less, or raise workers.memory_bytes_max",
                        self.options().memory_bytes_max
                    ));
                }
            }
            if since.elapsed() > self.options().restart_max {
                pause = self.options().restart_min;
            }
            match self.again(&mut orders, &mut pause).await {
                Some(next) => process = next,
                None => break,
            }
            since = Instant::now();
        }
        while self.retiring.join_next().await.is_some() {}
    }

    /// Until something happens to the process.
    async fn serve(&self, process: &mut Process, orders: &mut mpsc::Receiver<Order>) -> Event {
        let mut check = interval(self.options().memory_check.max(Duration::from_millis(1)));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = process.ended() => {
                    return Event::Ended(ended.map_or_else(|error| error.to_string(), |how| how.to_string()));
                }
                order = orders.recv() => return Event::Ordered(order),
                _ = check.tick() => {
                    let bytes = process.resident_bytes();
                    self.standing.lock().resident_bytes = bytes;
                    if let Some(bytes) = bytes.filter(|bytes| *bytes > self.options().memory_bytes_max) {
                        return Event::TooLarge(bytes);
                    }
                }
            }
        }
    }

    /// Starts the program again after pauses that grow, until it listens; `None` if it shall not.
    async fn again(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
        pause: &mut Duration,
    ) -> Option<Process> {
        loop {
            let ordered = tokio::select! {
                () = sleep(*pause) => None,
                order = orders.recv() => Some(order),
            };
            *pause = (*pause * 2).min(self.options().restart_max);
            let (started, reply) = match ordered {
                None => (self.boot(&self.program, &self.door).await, None),
                // It has ended, and is being started.
                Some(Some(Order::Restart(..))) => continue,
                Some(Some(Order::Swap(program, reply))) => {
                    let exchanged = self.exchange(*program).await;
                    (exchanged.map(|(process, ..)| process), Some(reply))
                }
                Some(_) => return None,
            };
            match (started, reply) {
                (Ok(process), reply) => {
                    if let Some(reply) = reply {
                        // Nobody waits any more: it is done all the same.
                        drop(reply.send(Ok(())));
                    }
                    return Some(process);
                }
                (Err(failure), Some(reply)) => drop(reply.send(Err(refusal(failure)))),
                (Err(failure), None) => self.crashed(&failure.to_string()),
            }
        }
    }

    /// Exchanges the program and its process; the old one ends beside the new one.
    async fn swap(&mut self, process: &mut Process, program: Program) -> Result<(), Refusal> {
        let version = self.program.version;
        let (new, mut door, before) = self.exchange(program).await.map_err(refusal)?;
        let old = std::mem::replace(process, new);
        // What it was given is good until it has ended.
        let databases = before.databases;
        // Those that have finished are forgotten here.
        while self.retiring.try_join_next().is_some() {}
        let (supervisor, log) = (Arc::clone(&self.supervisor), Arc::clone(&self.log));
        self.retiring.spawn(async move {
            door.released(supervisor.options.drain_max).await;
            end(old, &supervisor, version, &log).await;
            drop(databases);
        });
        Ok(())
    }

    /// Starts another program; only if that listens it is the one of this deployment. Gives its process, and the door
    /// and the program of the one before.
    async fn exchange(
        &mut self,
        program: Program,
    ) -> Result<(Process, Door, Program), StartFailure> {
        let socket = self.supervisor.socket("").map_err(no_socket)?;
        let (door, lease) = Door::new(socket);
        let process = self.boot(&program, &door).await?;
        let before = std::mem::replace(&mut self.program, program);
        self.entrance.lead_to(lease);
        Ok((process, std::mem::replace(&mut self.door, door), before))
    }

    /// Starts a program on a socket.
    pub(super) async fn boot(
        &self,
        program: &Program,
        door: &Door,
    ) -> Result<Process, StartFailure> {
        let version = program.version;
        let socket = door.socket.descriptor().map_err(no_socket)?;
        let log = Arc::clone(&self.log);
        let started = self
            .supervisor
            .start(program, &program.backend, socket, log);
        let process = started.await?;
        self.log.say(version, format!("version {version} serves"));
        let mut standing = self.standing.lock();
        standing.version = version;
        standing.process = process.id();
        drop(standing);
        Ok(process)
    }

    fn crashed(&self, what: &str) {
        let version = self.program.version;
        tracing::warn!(app = %self.program.app, version, "{what}");
        self.log.say(version, what);
        let mut standing = self.standing.lock();
        standing.process = None;
        standing.resident_bytes = None;
        standing.crashes += 1;
    }

    fn options(&self) -> &RuntimeOptions {
        &self.supervisor.options
    }
}

/// Lets a process finish its requests.
async fn end(process: Process, supervisor: &Supervisor, version: u64, log: &Log) {
    let drain_max = supervisor.options.drain_max;
    if process.retire(drain_max).await.is_none() {
        let ms = drain_max.as_millis();
        let text = format!("a process did not end within drain_ms_max ({ms} ms) and was killed");
        log.say(version, text);
    }
}

fn no_socket(source: std::io::Error) -> StartFailure {
    let program = "its socket".to_owned();
    StartFailure::Spawn { program, source }
}
