//! The order of things: rounds in which the stores take turns.

use crate::{
    child::Child,
    figures::Figures,
    folder::{Folder, disk_bytes, settle},
    itself,
    page::Random,
    results::Results,
    rot::Flips,
    sizes::Sizes,
    stores::{Candidate, Result},
    turns::Turn,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

const MIB: f64 = (1 << 20) as f64;

/// One run of the comparison, in a folder of its own.
struct Run {
    folder: Folder,
    candidates: Vec<Candidate>,
    quick: bool,
    sizes: Sizes,
    results: Results,
}

/// One part of a run.
type Part = fn(&mut Run) -> Result<()>;

/// Compares the stores; data goes below `work`.
pub(crate) fn run(candidates: &[Candidate], work: &Path, quick: bool) -> Result<Results> {
    itself::raise_descriptors()?;
    let begin = Instant::now();
    let sizes = if quick { Sizes::QUICK } else { Sizes::FULL };
    let mut run = Run {
        folder: Folder::new(&fs::canonicalize(work)?, "run")?,
        candidates: candidates.to_vec(),
        quick,
        sizes,
        results: Results::new(sizes, itself::machine()?),
    };
    let parts: [(&str, Part); 5] = [
        ("many databases", Run::many),
        ("overwriting", Run::hot),
        ("reading and writing", Run::steady),
        ("kills", Run::kills),
        ("flipped bits", Run::flips),
    ];
    for (name, part) in parts {
        let start = Instant::now();
        part(&mut run)?;
        eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    run.results.took = begin.elapsed();
    Ok(run.results)
}

impl Run {
    /// Takes a turn, and notes its figures; what fails is noted too, and `None`.
    fn turn(
        &mut self,
        turn: Turn,
        candidate: Candidate,
        directory: &Path,
        round: usize,
        prefix: &str,
    ) -> Result<Option<()>> {
        // Different in each round, and never that of what was there before.
        let number = 1_000_000 + round as u64;
        let child = Child::turn(turn, candidate, directory, number, self.quick)?;
        let done = child.figures();
        settle(self.folder.path())?;
        match done {
            Ok(figures) => {
                self.results.add(prefix, candidate, round, figures);
                Ok(Some(()))
            }
            Err(error) => {
                self.results.notes.push(error.to_string());
                Ok(None)
            }
        }
    }

    /// Calls `round` with 0, 1, … `most` times, or until time is up, and notes how often that was.
    fn rounds(
        &mut self,
        what: &'static str,
        most: usize,
        mut round: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        for number in 0..most {
            round(self, number)?;
            self.results.rounds.insert(what, number + 1);
            if start.elapsed() > self.sizes.rounds_limit {
                break;
            }
        }
        Ok(())
    }

    /// The stores in another order in each round.
    fn order(&self, round: usize) -> Vec<Candidate> {
        let mut order = self.candidates.clone();
        let length = order.len().max(1);
        order.rotate_left(round % length);
        order
    }

    fn directory(&self, word: &str, candidate: Candidate) -> Result<PathBuf> {
        let path = self.folder.path().join(word).join(candidate.name());
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn many(&mut self) -> Result<()> {
        self.rounds("many", self.sizes.many_rounds, |run, round| {
            for candidate in run.order(round) {
                let directory = run.directory("made", candidate)?;
                run.many_of(candidate, &directory, round)?;
                fs::remove_dir_all(directory)?;
            }
            Ok(())
        })
    }

    fn many_of(&mut self, candidate: Candidate, directory: &Path, round: usize) -> Result<()> {
        let mut disk = Figures::new();
        let mut weigh = |when: &str| -> Result<()> {
            let bytes = disk_bytes(directory)? as f64;
            disk.insert(format!("disk_{when}_mib"), bytes / MIB);
            Ok(())
        };
        for turn in [
            Turn::Make,
            Turn::Start,
            Turn::Touch,
            Turn::Remove,
            Turn::Tidy,
        ] {
            if self.turn(turn, candidate, directory, round, "")?.is_none() {
                return Ok(());
            }
            match turn {
                Turn::Make => weigh("made")?,
                Turn::Touch => weigh("before")?,
                Turn::Remove => weigh("removed")?,
                Turn::Tidy => weigh("tidied")?,
                _ => {}
            }
        }
        // Half of the databases are gone: half of the bytes should be.
        let half = disk["disk_before_mib"] / 2.0;
        for when in ["removed", "tidied"] {
            let given = disk["disk_before_mib"] - disk[&format!("disk_{when}_mib")];
            disk.insert(format!("given_back_{when}"), given / half);
        }
        self.results.add("", candidate, round, disk);
        Ok(())
    }

    fn hot(&mut self) -> Result<()> {
        self.rounds("overwriting", self.sizes.hot_rounds, |run, round| {
            for candidate in run.order(round) {
                let directory = run.directory("hot", candidate)?;
                run.turn(Turn::Hot, candidate, &directory, round, "")?;
                fs::remove_dir_all(directory)?;
                settle(run.folder.path())?;
            }
            Ok(())
        })
    }

    fn steady(&mut self) -> Result<()> {
        let mut bases = BTreeMap::new();
        for candidate in self.candidates.clone() {
            let large = self.directory("large", candidate)?;
            let many = self.directory("many", candidate)?;
            let filled = self.turn(Turn::FillLarge, candidate, &large, 0, "fill_")?;
            let made = self.turn(Turn::Make, candidate, &many, 0, "fill_")?;
            if filled.and(made).is_some() {
                bases.insert(candidate, (large, many));
            }
        }
        self.rounds("steady", self.sizes.steady_rounds, |run, round| {
            for (turn, prefix) in [(Turn::Large, "large_"), (Turn::Many, "many_")] {
                for candidate in run.order(round) {
                    let Some((large, many)) = bases.get(&candidate) else {
                        continue;
                    };
                    let directory = if turn == Turn::Large { large } else { many };
                    run.turn(turn, candidate, directory, round, prefix)?;
                }
            }
            for candidate in run.order(round) {
                if let Some((large, _)) = bases.get(&candidate) {
                    run.turn(Turn::Fork, candidate, large, round, "")?;
                }
            }
            Ok(())
        })?;
        fs::remove_dir_all(self.folder.path().join("large"))?;
        Ok(fs::remove_dir_all(self.folder.path().join("many"))?)
    }

    fn kills(&mut self) -> Result<()> {
        let mut random = Random::new(7);
        // What each has written: the folder, and the last batch in it.
        let mut states: BTreeMap<Candidate, (Folder, u64)> = BTreeMap::new();
        for round in 0..self.sizes.kills {
            for candidate in self.order(round) {
                let (folder, last) = match states.remove(&candidate) {
                    Some(state) => state,
                    None => (Folder::new(self.folder.path(), "kills")?, 0),
                };
                let kills = self.results.kills.entry(candidate).or_default();
                let now = kills.once_more(candidate, folder.path(), last, &mut random)?;
                // After a failure the store starts anew.
                if let Some(now) = now {
                    states.insert(candidate, (folder, now));
                }
            }
        }
        Ok(())
    }

    fn flips(&mut self) -> Result<()> {
        for candidate in self.candidates.clone() {
            let directory = self.directory("flips", candidate)?;
            if self
                .turn(Turn::RotFill, candidate, &directory, 0, "")?
                .is_some()
            {
                let flips = Flips::of(candidate, &directory, self.sizes.flips)?;
                self.results.flips.insert(candidate, flips);
            }
        }
        Ok(())
    }
}
