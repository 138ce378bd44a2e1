//! Behaviours of `docs/acceptance.md` that are the pool's, each a test with its number; and what happens when something
//! breaks under those who use it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod breath;
mod copies;
mod crowd;
mod faults;
mod features;
#[path = "../harness/mod.rs"]
mod harness;
mod leaving;
mod limits;
mod names;
mod passing;
mod refused;
mod statements;
