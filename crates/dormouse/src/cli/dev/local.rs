//! Bindings that a variable of the environment leads to a Postgres of one's own, as Cloudflare's tools do it:
//! `CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_<BINDING>`.
//!
//! A backend gets the string's user, password and database, and a socket that leads to its host as it is: no pool, no
//! cache, no TLS.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;
use workers::bindings::{Answer, Grant};
use workers::{App, BindingAddress, Bindings, PostgresBinding, Refusal};
use zeroize::Zeroizing;

use crate::cli::failure::Failure;

/// What the variables begin with; the name of the binding follows.
const PREFIX: &str = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_";

/// The port of a string that has none.
const PORT: u16 = 5432;

/// Where a string leads.
#[derive(Clone)]
struct Local {
    host: String,
    port: u16,
    user: String,
    password: Zeroizing<String>,
    database: String,
    scheme: String,
}

/// Bindings of the environment, before others.
pub(super) struct LocalBindings {
    locals: BTreeMap<String, Local>,
    others: Arc<dyn Bindings>,
    sockets: PathBuf,
    /// The sockets that lead there, by the name of the binding.
    open: Mutex<HashMap<String, Tunnel>>,
}

/// A socket that leads to a host, as long as it is there.
struct Tunnel {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl std::fmt::Debug for LocalBindings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LocalBindings")
            .field("names", &self.locals.keys())
            .finish_non_exhaustive()
    }
}

impl LocalBindings {
    /// Those of the environment, with sockets in a folder; `others` has all that it does not name.
    pub(super) fn of_environment(
        sockets: PathBuf,
        others: Arc<dyn Bindings>,
    ) -> Result<Self, Failure> {
        let mut locals = BTreeMap::new();
        for (name, text) in env::vars() {
            if let Some(binding) = name.strip_prefix(PREFIX) {
                let text = Zeroizing::new(text);
                let local =
                    Local::parse(&text).map_err(|why| Failure::Usage(format!("{name}: {why}")))?;
                locals.insert(binding.to_owned(), local);
            }
        }
        Ok(Self {
            locals,
            others,
            sockets,
            open: Mutex::default(),
        })
    }

    fn address(&self, name: &str, local: &Local) -> io::Result<BindingAddress> {
        let mut open = self.open.lock();
        let socket = match open.get(name) {
            Some(tunnel) => tunnel.path.clone(),
            None => {
                let tunnel = Tunnel::to(self.sockets.join(format!("local-{}", open.len())), local)?;
                let path = tunnel.path.clone();
                open.insert(name.to_owned(), tunnel);
                path
            }
        };
        Ok(BindingAddress {
            socket,
            user: local.user.clone(),
            password: local.password.to_string(),
            database: local.database.clone(),
            scheme: local.scheme.clone(),
            grant: Grant::default(),
        })
    }
}

impl Tunnel {
    fn to(path: PathBuf, local: &Local) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        let (host, port) = (local.host.clone(), local.port);
        let serving = tokio::spawn(async move {
            while let Ok((mut backend, _)) = listener.accept().await {
                let host = host.clone();
                tokio::spawn(async move {
                    let handing = async {
                        let mut postgres = TcpStream::connect((&*host, port)).await?;
                        copy_bidirectional(&mut backend, &mut postgres).await
                    };
                    if let Err(error) = handing.await {
                        tracing::warn!(host, port, %error, "a binding's Postgres cannot be reached");
                    }
                });
            }
        });
        Ok(Self { path, serving })
    }
}

impl Local {
    /// Reads a connection string. What is wrong with it is said without its password.
    fn parse(text: &str) -> Result<Self, String> {
        let url =
            Url::parse(text).map_err(|error| format!("it is no connection string: {error}"))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err("it must begin with postgres:// or postgresql://".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or("it names no host")?;
        let mode = url.query_pairs().find(|(name, _)| name == "sslmode");
        if let Some((_, mode)) = mode
            && !["disable", "allow", "prefer"].contains(&&*mode)
        {
            return Err(format!(
                "sslmode={mode} cannot be had here: this way leads to Postgres without TLS"
            ));
        }
        let part = |what: &str, text: &str| match text {
            "" => Err(format!("it names no {what}")),
            text if text.bytes().all(is_plain) => Ok(text.to_owned()),
            _ => Err(format!(
                "its {what} has characters that the runtime cannot be given: letters, digits and -._~ are all"
            )),
        };
        Ok(Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: url.port().unwrap_or(PORT),
            user: part("user", url.username())?,
            password: Zeroizing::new(part("password", url.password().unwrap_or_default())?),
            database: part("database", url.path().trim_start_matches('/'))?,
            scheme: url.scheme().to_owned(),
        })
    }
}

/// The runtime puts these into a URL as they are.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

impl Bindings for LocalBindings {
    fn address<'a>(
        &'a self,
        binding: &'a PostgresBinding,
        app: &'a App,
    ) -> Answer<'a, Result<BindingAddress, Refusal>> {
        let Some(local) = self.locals.get(&binding.binding) else {
            return self.others.address(binding, app);
        };
        let address = self.address(&binding.binding, local).map_err(|error| {
            let name = &binding.binding;
            Refusal::with_status(
                500,
                format!("The socket of {name} cannot be made: {error}."),
            )
        });
        Box::pin(std::future::ready(address))
    }

    fn abandoned<'a>(&'a self, addresses: Vec<BindingAddress>) -> Answer<'a, ()> {
        self.others.abandoned(addresses)
    }

    fn bound(&self, app: &App, ids: &[String]) {
        self.others.bound(app, ids);
    }

    fn undeployed(&self, app: &App) {
        self.others.undeployed(app);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_part_by_part() {
        let local = Local::parse("postgres://u:p-1@db.example:6000/app?sslmode=prefer").unwrap();
        assert_eq!((&*local.host, local.port), ("db.example", 6000));
        assert_eq!(
            (&*local.user, &**local.password, &*local.database),
            ("u", "p-1", "app")
        );
        assert_eq!(
            Local::parse("postgresql://u:p@[::1]/app").unwrap().port,
            5432
        );
        for (bad, why) in [
            ("nonsense", "no connection string"),
            ("mysql://u:p@h/d", "postgres://"),
            ("postgres://u:p@h", "no database"),
            ("postgres://u@h/d", "no password"),
            ("postgres://:p@h/d", "no user"),
            ("postgres://u:secret%40@h/d", "its password has characters"),
            ("postgres://u:p@h/d?sslmode=require", "without TLS"),
        ] {
            let error = Local::parse(bad).err().unwrap();
            assert!(
                error.contains(why) && !error.contains("secret"),
                "{bad}: {error}"
            );
        }
    }
}
