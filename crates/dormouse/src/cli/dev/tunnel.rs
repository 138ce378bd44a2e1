//! The way to a Postgres as it is: no pool, no cache, no TLS.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;
use workers::BindingAddress;
use workers::bindings::Grant;
use zeroize::Zeroizing;

/// The port of a string that has none.
const PORT: u16 = 5432;

/// Where a connection string leads, and what a backend is told of it.
#[derive(Debug, Clone)]
pub(super) struct Local {
    host: String,
    port: u16,
    user: String,
    password: Zeroizing<String>,
    database: String,
    scheme: String,
}

/// A socket that leads to a host, as long as it is there.
#[derive(Debug)]
pub(super) struct Tunnel {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Tunnel {
    pub(super) fn to(path: PathBuf, local: &Local) -> io::Result<Self> {
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

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Local {
    /// Reads a connection string. What is wrong with it is said without its password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
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

    /// What a backend gets, whose socket is this.
    pub(super) fn address(&self, socket: &Path) -> BindingAddress {
        BindingAddress {
            socket: socket.to_owned(),
            user: self.user.clone(),
            password: self.password.to_string(),
            database: self.database.clone(),
            scheme: self.scheme.clone(),
            grant: Grant::default(),
        }
    }
}

/// The runtime puts these into a URL as they are.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
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
