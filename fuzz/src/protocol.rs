//! Arbitrary frontend messages.

pub mod canary;
pub mod client;
pub mod damage;
pub mod failure;
pub mod judge;
pub mod message;
pub mod opening;
pub mod options;
pub mod pipeline;
pub mod play;
pub mod run;
pub mod sql;
pub mod story;
pub mod summary;
pub mod witness;
