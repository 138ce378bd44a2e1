//! What a journal must hold.
//!
//! A position alone says whose entry it is and what is in it, so that also one that was released long
//! ago can be checked when it is met again.

use std::collections::{BTreeMap, BTreeSet};

use store::Entry;

use crate::random::Random;
use crate::workload::Broken;

/// Databases that append.
const OWNERS: u64 = 5;

/// Positions that one opening gave and the journal keeps.
#[derive(Debug, Clone, Copy)]
struct Opening {
    first: u64,
    last: u64,
    generation: u64,
}

#[derive(Debug)]
pub(crate) struct Model {
    seed: u64,
    /// Of each owner the positions that are not released.
    live: BTreeMap<u64, BTreeSet<u64>>,
    /// Of each owner the position before which all is released.
    released: BTreeMap<u64, u64>,
    /// Oldest first; the last one may have positions that are not durable.
    openings: Vec<Opening>,
    /// Everything up to here is durable.
    durable: u64,
    /// The last position that was given, be it lost since.
    given: u64,
    /// Where the durable groups begin that have entries, ascending.
    groups: Vec<u64>,
    /// A mark follows the last one.
    marked: bool,
    /// The journal is open but could not write yet, so nothing is decided: what it has goes to the first
    /// position, what it found to the second, and the next opening may find something else.
    undecided: Option<(u64, u64)>,
    /// What is live and was not found by this opening.
    absent: BTreeSet<u64>,
    /// What some opening did not find since one decided: the next may find it or not.
    uncertain: BTreeSet<u64>,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            live: BTreeMap::new(),
            released: BTreeMap::new(),
            openings: Vec::new(),
            durable: 0,
            given: 0,
            groups: Vec::new(),
            marked: true,
            undecided: None,
            absent: BTreeSet::new(),
            uncertain: BTreeSet::new(),
        }
    }

    pub(crate) fn owner_of(&self, position: u64) -> u64 {
        // Ids of databases are random numbers.
        Random::new(self.seed ^ self.random_of(position).below(OWNERS)).bits()
    }

    pub(crate) fn payload_of(&self, position: u64) -> Vec<u8> {
        let mut random = self.random_of(position);
        random.bits();
        let bytes_max = *random.pick(&[0, 60, 60, 300, 300, 300, 3_000, 9_000, 40_000]);
        let bytes = random.within(0..=bytes_max) as usize;
        random.bytes(bytes)
    }

    fn random_of(&self, position: u64) -> Random {
        Random::new(Random::new(self.seed ^ position).bits())
    }

    /// The positions that the owner still needs, as far as they are there.
    pub(crate) fn live(&self, owner: u64) -> impl Iterator<Item = u64> {
        let live = self.live.get(&owner).into_iter().flatten().copied();
        live.filter(|position| !self.absent.contains(position))
    }

    /// Who needs something, ascending.
    pub(crate) fn owners(&self) -> Vec<u64> {
        let owners = self.live.keys().copied();
        owners
            .filter(|&owner| self.live(owner).next().is_some())
            .collect()
    }

    pub(crate) fn last_appended(&self) -> u64 {
        self.openings.last().map_or(0, |opening| opening.last)
    }

    /// The first position of the current opening.
    pub(crate) fn first(&self) -> u64 {
        self.openings.last().map_or(0, |opening| opening.first)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn append(&mut self, position: u64) {
        if let Some(opening) = self.openings.last_mut() {
            opening.last = position;
        }
        self.given = position;
        let owner = self.owner_of(position);
        self.live.entry(owner).or_default().insert(position);
    }

    pub(crate) fn release(&mut self, owner: u64, before: u64) {
        let known = self.released.entry(owner).or_default();
        // A position that was not given must not be kept beyond the process.
        *known = before.min(self.given + 1).max(*known);
        let live = self.live.entry(owner).or_default();
        *live = live.split_off(&before);
    }

    /// Before which position each owner has released everything.
    pub(crate) fn released(&self) -> impl Iterator<Item = (u64, u64)> {
        self.released
            .iter()
            .map(|(&owner, &before)| (owner, before))
    }

    /// A group up to this position is durable.
    pub(crate) fn group_is_durable(&mut self, last: u64) {
        self.groups.push(self.durable + 1);
        self.marked = false;
        self.durable = last;
    }

    /// A group without new entries is durable.
    pub(crate) fn mark_is_durable(&mut self) {
        // The first one of an opening may be the last one that was found.
        self.marked = self.undecided.is_none();
    }

    /// What the owner's entries are while the journal is open.
    pub(crate) fn check(&self, owner: u64, entries: &[Entry]) -> Result<(), Broken> {
        for entry in entries {
            self.check_entry(owner, entry)?;
        }
        let found: Vec<u64> = entries.iter().map(|entry| entry.position.get()).collect();
        let live: Vec<u64> = self.live(owner).collect();
        if found != live {
            let what = format!("owner {owner:x} has the entries {found:?}, not {live:?}");
            return Err(Broken(what));
        }
        Ok(())
    }

    fn check_entry(&self, owner: u64, entry: &Entry) -> Result<(), Broken> {
        let position = entry.position.get();
        let openings = &mut self.openings.iter();
        let Some(opening) = openings.find(|o| (o.first..=o.last).contains(&position)) else {
            return Err(Broken(format!(
                "entry {position} was never there, or was lost"
            )));
        };
        if self.owner_of(position) != owner {
            return Err(Broken(format!(
                "entry {position} is not of owner {owner:x}"
            )));
        }
        if entry.payload != self.payload_of(position) {
            return Err(Broken(format!("entry {position} has other bytes")));
        }
        if entry.generation != opening.generation {
            let (found, expected) = (entry.generation, opening.generation);
            let what = format!("entry {position} has generation {found}, not {expected}");
            return Err(Broken(what));
        }
        Ok(())
    }

    /// The journal was opened and has these entries; the next one gets the position `next`, under
    /// `generation`. `decided`: it has written a group already. `damaged`: a bit was flipped, so the last group may be missing.
    pub(crate) fn open(
        &mut self,
        found: &BTreeMap<u64, Vec<Entry>>,
        next: u64,
        generation: u64,
        decided: bool,
        damaged: bool,
    ) -> Result<(), Broken> {
        let mut positions = BTreeSet::new();
        for (&owner, entries) in found {
            for entry in entries {
                self.check_entry(owner, entry)?;
                positions.insert(entry.position.get());
            }
            if !entries.is_sorted_by_key(|entry| entry.position) {
                return Err(Broken(format!(
                    "entries of owner {owner:x} are out of order"
                )));
            }
        }
        let live = self.live.values().flatten().copied();
        self.absent = live.filter(|at| !positions.contains(at)).collect();
        let missing = self.absent.first().copied();
        let last = positions.last().copied().unwrap_or(0);
        self.check_absent(last, damaged)?;
        if next <= self.given {
            return Err(Broken(format!("position {next} is given a second time")));
        }
        self.openings.push(Opening {
            first: next,
            last: next - 1,
            generation,
        });
        if damaged {
            // If the last group is gone, the one before is the last now.
            self.groups.retain(|&first| first <= last);
            self.marked = false;
        }
        let kept = missing
            .map_or(self.durable, |missing| missing - 1)
            .max(last);
        self.undecided = Some((kept, last));
        self.uncertain.extend(&self.absent);
        if decided {
            self.decide();
        }
        Ok(())
    }

    fn check_absent(&self, last: u64, damaged: bool) -> Result<(), Broken> {
        let durable = match (damaged && !self.marked, self.groups.last()) {
            (true, Some(last_group)) => self.durable.min(last_group - 1),
            _ => self.durable,
        };
        let Some(&missing) = self.absent.difference(&self.uncertain).next() else {
            return Ok(());
        };
        if missing <= durable {
            let what = format!("entry {missing} is lost, all to {durable} is durable");
            return Err(Broken(what));
        }
        if missing < last {
            let what = format!("entry {last} is there and {missing} is not");
            return Err(Broken(what));
        }
        Ok(())
    }

    /// All that was found is durable.
    pub(crate) fn found_is_durable(&mut self) {
        if let Some((_, last)) = self.undecided
            && last > self.durable
        {
            self.groups.push(self.durable + 1);
            self.marked = false;
            self.durable = last;
        }
    }

    /// A group of this opening is durable: all that it found is durable, the rest is lost.
    pub(crate) fn decide(&mut self) {
        let Some((kept, _)) = self.undecided else {
            return;
        };
        self.found_is_durable();
        self.undecided = None;
        self.uncertain.clear();
        let absent = std::mem::take(&mut self.absent);
        let current = self.openings.pop();
        self.openings.retain(|opening| opening.first <= kept);
        if let Some(opening) = self.openings.last_mut() {
            opening.last = opening.last.min(kept);
        }
        let first = current.map_or(0, |current| current.first);
        for live in self.live.values_mut() {
            live.retain(|&at| (at <= kept && !absent.contains(&at)) || at >= first);
        }
        self.groups.retain(|&group| group <= kept || group >= first);
        self.openings.extend(current);
    }
}
