//! Where a binding's Postgres is: asked of whoever has the bindings, who is above this room.

use crate::{App, Refusal, manifest::PostgresBinding};
use std::{any::Any, fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc};

/// What is answered later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What an address holds for as long as somebody has it: it ends with its last copy. What that is knows who gives it.
#[derive(Clone, Default)]
pub struct Grant(Option<Arc<dyn Any + Send + Sync>>);

impl Grant {
    /// Of what ends when it is dropped.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(held: T) -> Self {
        Self(Some(Arc::new(held)))
    }

    /// What is held, for who has given it.
    #[must_use]
    pub fn held<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

/// What leads to a binding's Postgres, for one version that runs or is tried.
#[derive(Clone)]
pub struct BindingAddress {
    /// A Unix socket that PostgreSQL's protocol is spoken on. Who may connect to it is whoever can open it.
    pub socket: PathBuf,
    /// Credentials of this deployment, not the origin's. The runtime puts them into a URL as they are, so letters,
    /// digits and `-._~` are all that they may have.
    pub user: String,
    /// As `user`.
    pub password: String,
    /// As `user`.
    pub database: String,
    /// `postgres` or `postgresql`.
    pub scheme: String,
    /// What makes the credentials good.
    pub grant: Grant,
}

impl BindingAddress {
    /// Whether the parts can stand in a URL and in an address.
    ///
    /// # Errors
    /// Which part cannot.
    pub fn check(&self) -> Result<(), &'static str> {
        let safe = |text: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !text.is_empty() && text.bytes().all(known)
        };
        if !self.socket.is_absolute() || self.socket.to_str().is_none() {
            return Err("socket");
        }
        let parts = [
            ("user", &self.user),
            ("password", &self.password),
            ("database", &self.database),
            ("scheme", &self.scheme),
        ];
        let unsafe_part = parts.into_iter().find(|(_, text)| !safe(text));
        unsafe_part.map_or(Ok(()), |(name, _)| Err(name))
    }
}

/// Without the password.
impl fmt::Debug for BindingAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindingAddress")
            .field("socket", &self.socket)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// For what an address is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A deployment, or a way back to an earlier version: whether the app may have the binding is asked now.
    Deployment,
    /// The version that serves starts again: it was asked when that was deployed, and counts for deployments only. But for
    /// one that was kept by a binding's name, which may mean another binding by now: that is asked again.
    Start,
}

/// Whoever has the bindings.
pub trait Bindings: fmt::Debug + Send + Sync {
    /// The id of a binding that is named by its id or its name: what a version keeps when it is deployed. A name may come
    /// to mean another binding, an id never.
    ///
    /// # Errors
    /// 400 for what nobody knows: see [`unknown`].
    fn id_of(&self, binding: &PostgresBinding) -> Result<String, Refusal>;

    /// What leads to the Postgres of a binding, for a version of an app. It may have to be made first. The credentials are
    /// good, and the binding stays, as long as somebody has the address's grant.
    ///
    /// # Errors
    /// 400 for an id that nobody knows, 403 for a deployment with one that this app may not have; both name the binding
    /// and the id: see [`unknown`] and [`not_allowed`].
    fn address<'a>(
        &'a self,
        binding: &'a PostgresBinding,
        app: &'a App,
        purpose: Purpose,
    ) -> Answer<'a, Result<BindingAddress, Refusal>>;

    /// What a deployment was given that came to nothing: what was made for it alone goes again.
    fn abandoned<'a>(&'a self, addresses: Vec<BindingAddress>) -> Answer<'a, ()>;

    /// The ids that the version which serves an app binds: told whenever that changes, with none when the app is gone,
    /// and for every app when the server starts.
    fn bound(&self, app: &App, ids: &[String]);

    /// An app is gone: credentials that it was given are worth nothing from now on.
    fn undeployed(&self, app: &App);
}

/// The refusal of an id that nobody knows.
#[must_use]
pub fn unknown(binding: &PostgresBinding) -> Refusal {
    let PostgresBinding { binding, id } = binding;
    Refusal::bad(format!(
        "bindings.hyperdrive: {binding} has the id '{}', which names no Postgres binding configuration.",
        id.escape_debug()
    ))
}

/// The refusal of an id that an app may not have.
#[must_use]
pub fn not_allowed(binding: &PostgresBinding, app: &App) -> Refusal {
    let PostgresBinding { binding, id } = binding;
    Refusal::forbidden(format!(
        "bindings.hyperdrive: {binding} has the id '{}', which {app} is not allowed to use.",
        id.escape_debug()
    ))
}
