//! Taking the addresses to listen on.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, lookup_host};

use crate::auth::Auth;
use crate::http::{NotReady, answer_not_ready};
use crate::options::Options;
use crate::tls::{HttpTls, Tls, TlsMode};

/// Both listening sockets. Clients may connect from now on; they wait until the server runs.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) pgwire: TcpListener,
    pub(crate) http: TcpListener,
    pgwire_address: SocketAddr,
    http_address: SocketAddr,
    /// What HTTP is spoken over, if it is.
    pub(crate) http_tls: Option<Arc<Tls>>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is no address, or its host has none.
    #[error(
        "{setting} = \"{listen}\" is not an address to listen on ({source}): write host:port, such \
         as 127.0.0.1:{port}"
    )]
    Address {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        listen: String,
        /// An example of a port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Other machines could reach it.
    #[error(
        "{setting} = \"{listen}\": {address} can be reached by other machines, and {danger}, or \
         listen on a loopback address such as 127.0.0.1:{port}. Where all who can reach it are \
         trusted, set server.insecure_listen = true"
    )]
    Insecure {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        listen: String,
        /// An example of a port.
        port: u16,
        /// The address that is not a loopback one.
        address: SocketAddr,
        /// What could happen, and what to do.
        danger: &'static str,
    },
    /// The system refused.
    #[error("cannot listen on {address} ({setting}): {source}{}", advice(source))]
    Bind {
        /// The setting's name.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Listeners {
    /// Takes both addresses.
    pub async fn bind(options: &Options) -> Result<Self, ListenError> {
        let pgwire = danger_of_pgwire(options);
        let pgwire = bind("pgwire.listen", &options.pgwire.listen, 7432, pgwire).await?;
        let http = danger_of_http(options);
        let http = bind("http.listen", &options.http.listen, 7433, http).await?;
        Ok(Self {
            pgwire_address: pgwire.1,
            http_address: http.1,
            pgwire: pgwire.0,
            http: http.0,
            http_tls: match options.http.tls {
                HttpTls::Require => options.tls.clone(),
                HttpTls::Off => None,
            },
        })
    }

    /// Where PostgreSQL's protocol is spoken; the port is the real one.
    pub fn pgwire_address(&self) -> SocketAddr {
        self.pgwire_address
    }

    /// Answers HTTP requests until it is dropped: the server is there, and not ready. For the time
    /// in which its databases are opened.
    pub async fn answer_while_starting(&self) -> Infallible {
        answer_not_ready(&self.http, self.http_tls.as_ref(), NotReady::Starting).await
    }

    /// Where HTTP is spoken; the port is the real one.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }
}

/// What could happen if other machines reach the port, and what to do about it.
fn danger_of_pgwire(options: &Options) -> Option<&'static str> {
    let encrypted = options.tls.is_some() && options.pgwire.tls == TlsMode::Require;
    match options.auth {
        _ if options.insecure_listen => None,
        Auth::Trust => Some(
            "nobody is asked for a password: whoever reaches the port may read and change every \
             database. Ask for passwords (auth.method = \"scram\"; docs/authentication.md)",
        ),
        Auth::Scram(_) if !encrypted => Some(
            "what goes over the network could be read and changed on its way. Set pgwire.tls = \
             \"require\", with tls.certificate and tls.key (docs/authentication.md)",
        ),
        Auth::Scram(_) => None,
    }
}

/// The same over HTTP.
fn danger_of_http(options: &Options) -> Option<&'static str> {
    let asks = options.identity.has_tokens() || matches!(options.auth, Auth::Scram(_));
    if options.insecure_listen {
        return None;
    }
    if !asks {
        return Some(
            "nobody is asked who they are: whoever reaches the port may read and change every \
             database. Set auth.tokens_file, auth.jwt.issuer, auth.introspection.url or \
             auth.method = \"scram\" (docs/auth.md)",
        );
    }
    let encrypted = options.tls.is_some() && options.http.tls == HttpTls::Require;
    (!encrypted).then_some(
        "tokens could be read, and answers changed, on their way. Set http.tls = \"require\", with \
         tls.certificate and tls.key (docs/auth.md)",
    )
}

async fn bind(
    setting: &'static str,
    listen: &str,
    port: u16,
    danger: Option<&'static str>,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let unusable = |source| ListenError::Address {
        setting,
        listen: listen.to_owned(),
        port,
        source,
    };
    let mut addresses = lookup_host(listen).await.map_err(unusable)?;
    let address = addresses
        .next()
        .ok_or_else(|| unusable(io::Error::other("the host has no address")))?;
    if let Some(danger) = danger
        && !address.ip().is_loopback()
    {
        return Err(ListenError::Insecure {
            setting,
            listen: listen.to_owned(),
            port,
            address,
            danger,
        });
    }
    let refused = |source| ListenError::Bind {
        setting,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ". Another program, perhaps another Dormouse, listens there: stop it, or choose \
             another port"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pgwire: &str) -> Options {
        let mut options = Options::default();
        options.pgwire.listen = pgwire.to_owned();
        options.http.listen = "127.0.0.1:0".to_owned();
        options
    }

    #[tokio::test]
    async fn port_zero_becomes_a_real_one() {
        let listeners = Listeners::bind(&options("127.0.0.1:0")).await.unwrap();
        assert_ne!(listeners.pgwire_address().port(), 0);
        assert_ne!(listeners.pgwire_address(), listeners.http_address());
    }

    #[tokio::test]
    async fn addresses_of_others_need_consent() {
        let mut options = options("0.0.0.0:0");
        let error = Listeners::bind(&options).await.unwrap_err().to_string();
        assert!(error.contains("server.insecure_listen"), "{error}");
        let administrator = crate::Administrator::from_secret("secret").unwrap();
        options.auth = Auth::Scram(std::sync::Arc::new(administrator));
        let error = Listeners::bind(&options).await.unwrap_err().to_string();
        assert!(error.contains("pgwire.tls"), "{error}");
        options.insecure_listen = true;
        Listeners::bind(&options).await.unwrap();
    }

    #[tokio::test]
    async fn http_needs_tokens_and_tls_where_others_reach_it() {
        let mut options = options("127.0.0.1:0");
        options.http.listen = "0.0.0.0:0".to_owned();
        let error = Listeners::bind(&options).await.unwrap_err().to_string();
        assert!(error.contains("auth.tokens_file"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let tokens = crate::Tokens::open(&folder.path().join("tokens")).unwrap();
        options.identity.tokens = Some(std::sync::Arc::new(tokens));
        let error = Listeners::bind(&options).await.unwrap_err().to_string();
        assert!(error.contains("http.tls"), "{error}");
        options.insecure_listen = true;
        Listeners::bind(&options).await.unwrap();
    }

    #[tokio::test]
    async fn errors_name_the_setting() {
        let error = Listeners::bind(&options("nonsense")).await.unwrap_err();
        assert!(error.to_string().contains("pgwire.listen"), "{error}");
        let taken = Listeners::bind(&options("127.0.0.1:0")).await.unwrap();
        let again = options(&taken.pgwire_address().to_string());
        let error = Listeners::bind(&again).await.unwrap_err().to_string();
        assert!(error.contains("choose another port"), "{error}");
    }
}
