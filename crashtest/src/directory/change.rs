//! Databases come, are forked, get other names, and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Directory, Doubt, HALL};
use crate::member::{Member, NO_DATABASE};
use crate::phase::Phase;
use crate::random::Random;
use crate::session::Session;
use crate::shared::{Busy, Event};
use crate::stage::{Audience, Up};
use crate::trouble::Trouble;

/// How long a database may stay in use after its session was closed.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// Between two attempts at a database in use.
const AGAIN: Duration = Duration::from_millis(5);
/// SQLSTATE of a database in use.
const IN_USE: &str = "55006";

impl Directory {
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
}
