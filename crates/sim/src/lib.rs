//! A deterministic world: a disk with faults, workloads on it, and a checker for each promise.
//!
//! A *history* is a workload, a seed and a number of steps. Everything in it follows from these: which
//! calls are made, which of them fail, when the power fails and what that leaves. So a history that
//! ends with a broken promise can be run again, step by step.

#![forbid(unsafe_code)]

mod disk;
mod history;
mod random;
mod workload;

pub use disk::{DiskCounts, Fault, Faults, FaultyDisk, NameSurvival};
pub use history::{Failure, History, Summary};
pub use random::Random;
pub use workload::WorkloadKind;
