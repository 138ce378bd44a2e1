//! The databases of one keeper: their names, how they come and go, and what a kill left in doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::member::{Member, NO_DATABASE};
use crate::phase::Phase;
use crate::random::Random;
use crate::session::Session;
use crate::shared::{Busy, Event, Shared};
use crate::stage::{Audience, Up};
use crate::trouble::Trouble;
use crate::workload::CLIENTS;

/// The database from which others are made, renamed and dropped.
pub const HALL: &str = "hall";
/// Databases of one keeper at once.
pub const MEMBERS_MAX: usize = 2;
/// Names of one keeper: few, so that dropped ones come again.
const NAMES: usize = 4;
/// How long a database may stay in use after its session was closed.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// Between two attempts at a database in use.
const AGAIN: Duration = Duration::from_millis(5);
/// SQLSTATE of a database in use.
const IN_USE: &str = "55006";

/// A statement about a database that was sent and not answered.
#[derive(Debug)]
enum Doubt {
    /// Whether this one was made.
    Create { slot: usize, member: Member },
    /// Whether this one was dropped.
    Drop { slot: usize },
    /// Whether this one was renamed.
    Rename { from: usize, to: usize },
}

/// The databases of one keeper.
#[derive(Debug)]
pub struct Directory {
    keeper: u64,
    shared: Arc<Shared>,
    members: [Option<Member>; NAMES],
    doubt: Option<Doubt>,
    clients: u32,
    current: String,
}

impl Directory {
    /// None yet.
    pub fn new(keeper: u64, shared: Arc<Shared>) -> Self {
        Self {
            keeper,
            shared,
            members: Default::default(),
            doubt: None,
            // Numbers of its own, for any run that ends.
            clients: keeper as u32 * 1_000_000,
            current: HALL.to_owned(),
        }
    }

    /// The name of the database that was last worked on, for a message.
    pub fn current(&self) -> &str {
        &self.current
    }

    /// Where databases are.
    pub fn slots(&self) -> Vec<usize> {
        let slots = self.members.iter().zip(0..);
        slots
            .filter_map(|(member, slot)| member.as_ref().map(|_| slot))
            .collect()
    }

    /// The database at this place, to work on.
    pub fn enter(&mut self, slot: usize) -> Option<&mut Member> {
        self.current = self.name(slot);
        self.members.get_mut(slot)?.as_mut()
    }

    /// Finds out what came of the statement that the last kill left in doubt.
    ///
    /// # Errors
    /// [`Trouble::Broken`] if it is half done.
    pub async fn settle(&mut self, up: Up) -> Result<(), Trouble> {
        let done = match &self.doubt {
            None => return Ok(()),
            Some(Doubt::Create { slot, .. }) => {
                let name = self.name(*slot);
                self.exists(up, name).await?
            }
            Some(Doubt::Drop { slot }) => {
                let name = self.name(*slot);
                !self.exists(up, name).await?
            }
            Some(Doubt::Rename { from, to }) => {
                let (from, to) = (self.name(*from), self.name(*to));
                let old = self.exists(up, from.clone()).await?;
                let new = self.exists(up, to.clone()).await?;
                if old == new {
                    let both = if old { "both" } else { "neither" };
                    return Err(Trouble::Broken(format!(
                        "of {from} and {to}, its name before and after the renaming that the kill \
                         interrupted, {both} exist"
                    )));
                }
                new
            }
        };
        self.shared.counters.in_doubt.add();
        if done {
            self.shared.counters.in_doubt_done.add();
        }
        match self.doubt.take() {
            Some(Doubt::Create { slot, member }) if done => self.members[slot] = Some(member),
            Some(Doubt::Drop { slot }) if done => self.members[slot] = None,
            Some(Doubt::Rename { from, to }) if done => self.moved(from, to),
            _ => {}
        }
        for member in self.members.iter_mut().flatten() {
            member.leaving = Default::default();
        }
        Ok(())
    }

    /// Checks that names without a database lead nowhere.
    ///
    /// # Errors
    /// [`Trouble::Broken`] if one does not.
    pub async fn check_absent(&mut self, up: Up) -> Result<(), Trouble> {
        for slot in 0..NAMES {
            let name = self.name(slot);
            if self.members[slot].is_none() && self.exists(up, name).await? {
                return Err(Trouble::broken(
                    "it was dropped, or never made, and is there",
                ));
            }
        }
        Ok(())
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn create(&mut self, up: Up, random: &mut Random) -> Result<(), Trouble> {
        let Some(slot) = self.free(random) else {
            return Ok(());
        };
        let name = self.name(slot);
        let member = Member::new(name.clone(), self.new_clients(), &self.shared, up.epoch);
        self.doubt = Some(Doubt::Create { slot, member });
        self.in_hall(up, &format!("CREATE DATABASE {name}")).await?;
        self.shared.counters.created.add();
        self.born(slot);
        Ok(())
    }

    /// Forks one of its own databases, from the hall or from a session in that database: where the
    /// fork is.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn fork_own(
        &mut self,
        up: Up,
        parent: usize,
        audience: &Audience,
        random: &mut Random,
    ) -> Result<Option<usize>, Trouble> {
        let (Some(slot), clients) = (self.free(random), self.new_clients()) else {
            return Ok(None);
        };
        let name = self.name(slot);
        let shared = Arc::clone(&self.shared);
        let Some(member) = self.enter(parent) else {
            return Ok(None);
        };
        let session = if random.percent(50) {
            Some(member.open(up, &shared, audience).await?)
        } else {
            None
        };
        let model = member.model.lock().follow();
        let fork = Member::fork(name.clone(), clients, Arc::clone(&model), member.epoch);
        let sql = format!("CREATE DATABASE {name} TEMPLATE {}", member.name);
        let parent = Arc::clone(&member.model);
        self.doubt = Some(Doubt::Create { slot, member: fork });
        let answer = match &session {
            Some(session) => {
                shared.tell(Event::Began(Phase::Directory));
                session.run(&sql).await.map(|_answer| ())
            }
            None => self.in_hall(up, &sql).await,
        };
        parent.lock().unfollow(&model);
        answer?;
        shared.counters.forked.add();
        self.born(slot);
        if let Some(session) = session {
            session.close().await?;
        }
        Ok(Some(slot))
    }

    /// Forks another keeper's database while that keeper works in it: where the fork is.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn fork_other(
        &mut self,
        up: Up,
        parent: Busy,
        random: &mut Random,
    ) -> Result<Option<usize>, Trouble> {
        let (Some(slot), clients) = (self.free(random), self.new_clients()) else {
            return Ok(None);
        };
        let name = self.name(slot);
        let model = parent.model.lock().follow();
        let fork = Member::fork(name.clone(), clients, Arc::clone(&model), parent.epoch);
        self.doubt = Some(Doubt::Create { slot, member: fork });
        let sql = format!("CREATE DATABASE {name} TEMPLATE {}", parent.name);
        let answer = self.in_hall(up, &sql).await;
        parent.model.lock().unfollow(&model);
        match answer {
            // Its keeper was faster.
            Err(error) if error.is(NO_DATABASE) && parent.leaving.get() => {
                self.doubt = None;
                return Ok(None);
            }
            answer => answer?,
        }
        self.shared.counters.forked.add();
        self.born(slot);
        Ok(Some(slot))
    }

    /// Gives a database another name.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn rename(
        &mut self,
        up: Up,
        from: usize,
        random: &mut Random,
    ) -> Result<(), Trouble> {
        let Some(to) = self.free(random) else {
            return Ok(());
        };
        let names = (self.name(from), self.name(to));
        let Some(member) = self.enter(from) else {
            return Ok(());
        };
        member.leaving.set();
        self.doubt = Some(Doubt::Rename { from, to });
        let sql = format!("ALTER DATABASE {} RENAME TO {}", names.0, names.1);
        self.when_left(up, &sql).await?;
        self.doubt = None;
        self.moved(from, to);
        self.shared.counters.renamed.add();
        Ok(())
    }

    /// Drops a database, sometimes with a session in it.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn drop_one(
        &mut self,
        up: Up,
        slot: usize,
        audience: &Audience,
        random: &mut Random,
    ) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let Some(member) = self.enter(slot) else {
            return Ok(());
        };
        let name = member.name.clone();
        let session = if random.percent(30) {
            Some(member.open(up, &shared, audience).await?)
        } else {
            None
        };
        member.leaving.set();
        self.doubt = Some(Doubt::Drop { slot });
        if session.is_some() {
            self.in_hall(up, &format!("DROP DATABASE {name} WITH (FORCE)"))
                .await?;
        } else {
            self.when_left(up, &format!("DROP DATABASE {name}")).await?;
        }
        self.doubt = None;
        self.members[slot] = None;
        self.shared.counters.dropped.add();
        if random.percent(50) && self.exists(up, name).await? {
            return Err(Trouble::broken("it was dropped just now, and is there"));
        }
        Ok(())
    }

    /// Runs a statement that needs the database free of sessions. One that was closed just now may
    /// still be there for a moment.
    async fn when_left(&mut self, up: Up, sql: &str) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            match self.in_hall(up, sql).await {
                Err(error) if error.is(IN_USE) && start.elapsed() < LEAVE_MAX => {
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// Runs a statement in the hall, where one keeper is at a time.
    async fn in_hall(&mut self, up: Up, sql: &str) -> Result<(), Trouble> {
        let session = Session::open(up.pg, HALL).await.map_err(|error| {
            if error.is(NO_DATABASE) {
                return Trouble::broken("the database \"hall\" was acknowledged, and is not there");
            }
            error
        })?;
        self.shared.tell(Event::Began(Phase::Directory));
        session.run(sql).await?;
        match session.close().await {
            // What was answered is acknowledged, however the session ends.
            Ok(()) | Err(Trouble::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn exists(&mut self, up: Up, name: String) -> Result<bool, Trouble> {
        let opened = Session::open(up.pg, &name).await;
        self.current = name;
        match opened {
            Ok(session) => session.close().await.map(|()| true),
            Err(error) if error.is(NO_DATABASE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn name(&self, slot: usize) -> String {
        format!("k{}_{slot}", self.keeper)
    }

    fn free(&self, random: &mut Random) -> Option<usize> {
        let slots = (0..NAMES).filter(|slot| self.members[*slot].is_none());
        random.pick(&slots.collect::<Vec<_>>()).copied()
    }

    fn new_clients(&mut self) -> [u32; CLIENTS] {
        [(); CLIENTS].map(|()| {
            self.clients += 1;
            self.clients
        })
    }

    /// The database that was asked for is there.
    fn born(&mut self, slot: usize) {
        if let Some(Doubt::Create { member, .. }) = self.doubt.take() {
            self.members[slot] = Some(member);
        }
    }

    fn moved(&mut self, from: usize, to: usize) {
        let name = self.name(to);
        if let Some(mut member) = self.members[from].take() {
            member.name = name;
            member.leaving = Default::default();
            self.members[to] = Some(member);
        }
    }
}
