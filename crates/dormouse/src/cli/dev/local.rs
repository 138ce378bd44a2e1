//! Bindings that a variable of the environment leads to a Postgres of one's own, as Cloudflare's tools do it:
//! `CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_<BINDING>`.
//!
//! Each is lent to the server for as long as it runs, so that a backend has the pool and the cache that it has in
//! production; or, if that is wished, it gets the Postgres as it is.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use server::ManagedBindings;
use workers::bindings::{Answer, Purpose};
use workers::{App, BindingAddress, Bindings, PostgresBinding, Refusal};
use zeroize::Zeroizing;

use super::tunnel::{Local, Tunnel};
use crate::cli::failure::Failure;

/// What the variables begin with; the name of the binding follows.
const PREFIX: &str = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_";

/// What a binding of a variable is called, before the name that its backends have for it.
const LENT: &str = "local-";

/// Where variables lead.
#[derive(Debug)]
enum Ways {
    /// Through pools: bindings that were lent, by id.
    Pools(BTreeMap<String, String>),
    /// Straight there.
    Direct(BTreeMap<String, Local>),
}

/// Bindings of the environment, before others.
pub(super) struct LocalBindings {
    ways: Ways,
    managed: Arc<ManagedBindings>,
    sockets: PathBuf,
    /// The sockets that lead straight there, by the name of the binding.
    open: Mutex<HashMap<String, Tunnel>>,
}

impl std::fmt::Debug for LocalBindings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = match &self.ways {
            Ways::Pools(ids) => ids.keys().collect(),
            Ways::Direct(locals) => locals.keys().collect(),
        };
        formatter
            .debug_struct("LocalBindings")
            .field("names", &names)
            .finish_non_exhaustive()
    }
}

impl LocalBindings {
    /// Those of the environment, with sockets in a folder; `managed` has all that it does not name.
    pub(super) fn of_environment(
        sockets: PathBuf,
        managed: Arc<ManagedBindings>,
        is_direct: bool,
    ) -> Result<Self, Failure> {
        let (mut ids, mut locals) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in env::vars() {
            let Some(binding) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let text = Zeroizing::new(text);
            let wrong = |why: String| Failure::Usage(format!("{name}: {why}"));
            if is_direct {
                let local = Local::parse(&text).map_err(wrong)?;
                locals.insert(binding.to_owned(), local);
            } else {
                let lent = managed.lend(&format!("{LENT}{binding}"), &text);
                let id = lent.map_err(|error| wrong(error.to_string()))?;
                ids.insert(binding.to_owned(), id);
            }
        }
        Ok(Self {
            ways: match is_direct {
                true => Ways::Direct(locals),
                false => Ways::Pools(ids),
            },
            managed,
            sockets,
            open: Mutex::default(),
        })
    }

    /// Through the pool. Whoever starts the Postgres later is served then: that it is not there is said, and no more.
    async fn pooled(
        &self,
        binding: &PostgresBinding,
        id: &str,
        app: &App,
        purpose: Purpose,
    ) -> Result<BindingAddress, Refusal> {
        let lent = PostgresBinding {
            binding: binding.binding.clone(),
            id: id.to_owned(),
        };
        let (managed, name) = (Arc::clone(&self.managed), lent.binding.clone());
        let id = lent.id.clone();
        tokio::spawn(async move {
            if let Err(failure) = managed.try_origin(&id).await {
                let kind = failure.kind.name();
                eprintln!(
                    "warning: {PREFIX}{name}: {failure} ({kind}). Queries of {name} fail until it can be reached."
                );
            }
        });
        self.managed.address(&lent, app, purpose).await
    }

    fn tunnel(&self, name: &str, local: &Local) -> io::Result<BindingAddress> {
        let mut open = self.open.lock();
        if let Some(tunnel) = open.get(name) {
            return Ok(local.address(tunnel.path()));
        }
        let tunnel = Tunnel::to(self.sockets.join(format!("local-{}", open.len())), local)?;
        let address = local.address(tunnel.path());
        open.insert(name.to_owned(), tunnel);
        Ok(address)
    }

    async fn address_of(
        &self,
        binding: &PostgresBinding,
        app: &App,
        purpose: Purpose,
    ) -> Result<BindingAddress, Refusal> {
        let name = &binding.binding;
        match &self.ways {
            Ways::Pools(ids) if let Some(id) = ids.get(name) => {
                self.pooled(binding, id, app, purpose).await
            }
            Ways::Direct(locals) if let Some(local) = locals.get(name) => {
                self.tunnel(name, local).map_err(|error| {
                    let said = format!("The socket of {name} cannot be made: {error}.");
                    Refusal::with_status(500, said)
                })
            }
            _ => self.managed.address(binding, app, purpose).await,
        }
    }
}

impl Bindings for LocalBindings {
    fn id_of(&self, binding: &PostgresBinding) -> Result<String, Refusal> {
        let name = &binding.binding;
        let is_local = match &self.ways {
            Ways::Pools(ids) => ids.contains_key(name),
            Ways::Direct(locals) => locals.contains_key(name),
        };
        match is_local {
            // What it says is not looked at, and need not be there.
            true => Ok(binding.id.clone()),
            false => self.managed.id_of(binding),
        }
    }

    fn address<'a>(
        &'a self,
        binding: &'a PostgresBinding,
        app: &'a App,
        purpose: Purpose,
    ) -> Answer<'a, Result<BindingAddress, Refusal>> {
        Box::pin(self.address_of(binding, app, purpose))
    }

    fn abandoned<'a>(&'a self, addresses: Vec<BindingAddress>) -> Answer<'a, ()> {
        self.managed.abandoned(addresses)
    }

    fn bound(&self, app: &App, ids: &[String]) {
        self.managed.bound(app, ids);
    }

    fn undeployed(&self, app: &App) {
        self.managed.undeployed(app);
    }
}
