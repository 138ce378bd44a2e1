//! Deployments of JavaScript and TypeScript backends.
//!
//! What somebody sends is an [`Archive`]; its [`Manifest`] says what it asks for. What holds in every file:
//!
//! 1. No name of an archive ever becomes a path of the disk.
//! 2. What is wrong with a deployment is a [`Refusal`], in words for the person who sent it, and leaves what serves
//!    as it is.
//! 3. The values of variables and secrets, and a binding's password, are in no log, no error and no `Debug`.
//! 4. This room knows addresses, not what is behind them.

mod archive;
pub mod bindings;
mod capnp;
mod config;
pub mod deployments;
pub mod domains;
mod draft;
mod limits;
mod manifest;
pub mod modules;
mod names;
mod network;
mod refusal;
pub mod routes;
pub mod runtime;
pub mod site;
pub mod store;

pub use archive::Archive;
pub use bindings::{BindingAddress, Bindings};
pub use draft::{Draft, Warning};
pub use limits::DeployLimits;
pub use manifest::{
    MANIFEST_FILE, Manifest, PLATFORM_NAMES, PostgresBinding, Routing, UnknownKeys, Values,
};
pub use names::{App, Environment, Repository};
pub use network::{AddressRange, NetworkRules};
pub use refusal::Refusal;
