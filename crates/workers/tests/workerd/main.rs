//! The real workerd: what is deployed runs in it, what does not start is told in its words, and it is kept alive.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod behaviour;
mod deploying;
mod drivers;
mod harness;
mod keeping;
mod trial;
