//! The simulated disk.

mod content;
mod faults;
mod faulty;
mod file_calls;
mod inode;
mod name_calls;
mod names;
mod ranges;
mod state;
#[cfg(test)]
mod tests;

pub use faults::{DiskCounts, Fault, Faults};
pub use faulty::FaultyDisk;
pub use names::NameSurvival;
