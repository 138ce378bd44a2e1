//! The databases of one keeper: their names, how they come and go, and what a kill left in doubt.

mod change;

use std::sync::Arc;

use crate::member::{Member, NO_DATABASE};
use crate::random::Random;
use crate::session::Session;
use crate::shared::Shared;
use crate::stage::Up;
use crate::trouble::Trouble;
use crate::workload::CLIENTS;

/// The database from which others are made, renamed and dropped.
pub const HALL: &str = "hall";
/// Databases of one keeper at once.
pub const MEMBERS_MAX: usize = 2;
/// Names of one keeper: few, so that dropped ones come again.
const NAMES: usize = 4;
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
