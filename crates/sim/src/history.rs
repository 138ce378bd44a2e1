//! A history: one workload, one seed, so many steps.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::disk::DiskCounts;
use crate::workload::{Broken, WorkloadKind};

/// What happens is decided by these three alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// What is done and checked.
    pub workload: WorkloadKind,
    /// Where all randomness comes from.
    pub seed: u64,
    /// How long it goes on.
    pub steps: u64,
}

/// What was done in one history or many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Histories that ended well.
    pub histories: u64,
    /// Their steps.
    pub steps: u64,
    /// What happened to their disks.
    pub disk: DiskCounts,
    /// How often each thing was done.
    pub done: BTreeMap<&'static str, u64>,
}

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In which history.
    pub history: History,
    /// In which of its steps, counted from 0.
    pub step: u64,
    /// Which promise, and how.
    pub what: String,
}

/// What a workload says of what it does: counted, and printed if somebody wants to follow.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    done: BTreeMap<&'static str, u64>,
    trace: bool,
    step: u64,
}

impl Notes {
    /// Something of this kind was done.
    pub(crate) fn done(&mut self, kind: &'static str, details: fmt::Arguments<'_>) {
        *self.done.entry(kind).or_default() += 1;
        if self.trace {
            println!("{:8} {kind}: {details}", self.step);
        }
    }
}

impl History {
    /// Runs it; with `trace` each step is printed.
    ///
    /// # Errors
    /// The first broken promise; a panic counts as one.
    pub fn run(self, trace: bool) -> Result<Summary, Failure> {
        let mut notes = Notes {
            trace,
            ..Notes::default()
        };
        let failure = |step, what| Failure {
            history: self,
            step,
            what,
        };
        let mut workload = guarded(|| Ok(self.workload.start(self.seed)))
            .map_err(|Broken(what)| failure(0, what))?;
        for step in 0..self.steps {
            notes.step = step;
            guarded(|| workload.step(&mut notes)).map_err(|Broken(what)| failure(step, what))?;
        }
        Ok(Summary {
            histories: 1,
            steps: self.steps,
            disk: workload.disk_counts(),
            done: notes.done,
        })
    }
}

/// A panic of the code under test is a broken promise, and must not hide the seed.
fn guarded<T>(step: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic
                .downcast::<&str>()
                .map_or_else(|_| "no message".to_owned(), |text| (*text).to_owned()),
        };
        Err(Broken(format!("panicked: {text}")))
    })
}

impl Summary {
    /// Adds what was done in others.
    pub fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.disk.add(other.disk);
        for (kind, count) in other.done {
            *self.done.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} histories, {} steps", self.histories, self.steps)?;
        writeln!(f, "disk: {}", self.disk)?;
        write!(f, "done:")?;
        for (at, (kind, count)) in self.done.iter().enumerate() {
            write!(f, "{} {count} {kind}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (workload, seed) = (self.history.workload, self.history.seed);
        let steps = self.step + 1;
        write!(
            f,
            "broken in step {} of {workload} with seed {seed}: {}\nrun it again: sim --workload \
             {workload} --seed {seed} --steps {steps} --trace",
            self.step, self.what,
        )
    }
}
