//! What the answer to a query depends on, found by Postgres itself.

mod catalog;
mod functions;
mod key;
mod known;
mod reason;
mod tree;
mod words;

pub(crate) use catalog::{found, look_up};
pub use key::QueryKey;
pub(crate) use known::Known;
pub use reason::Uncacheable;
pub(crate) use tree::{PRINT, Tree};
pub(crate) use words::says_now;

/// What an answer depends on beside the catalog, the role and the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Names of the files of the tables that are read.
    pub(crate) files: Box<[u32]>,
    /// There are parameters whose text may mean the time of now.
    pub(crate) has_times: bool,
}

/// What was found of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependencies {
    /// Of the tracker that was asked then.
    pub(crate) epoch: u64,
    /// The last commit that had changed the catalog; it is so for as long as that is the last.
    pub(crate) catalog: u64,
    /// What it reads, or why that does not tell what the answer is.
    pub(crate) found: Result<Tables, Uncacheable>,
}
