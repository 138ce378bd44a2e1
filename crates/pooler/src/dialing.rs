//! From a host's name to a socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::failure::{Failure, FailureKind};
use crate::origin::Host;
use crate::stream::Stream;

/// The addresses of a host, once they are known.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Who knows at which addresses a host is.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Those of a name, in the order in which they are to be tried. It is asked for each connection: a name that goes to
    /// another server is how many a fail-over works.
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Addresses<'a>;
}

/// The system's, by its files and name servers. It keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn addresses<'a>(&'a self, name: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(lookup_host((name, port)).await?.collect()) })
    }
}

/// When the kernel looks whether the other machine is still there: nobody else would notice, where a client waits for a
/// long statement and the network is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// `keepalive_ms`: a connection over which nothing comes for this long is looked after. Whole seconds.
    pub after: Duration,
    /// `keepalive_each_ms`: from one look to the next. Whole seconds.
    pub each: Duration,
    /// `keepalives_max`: after so many that nobody answers it is lost.
    pub max: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(30),
            each: Duration::from_secs(10),
            max: 3,
        }
    }
}

/// How the hosts of an origin are found and reached.
#[derive(Debug, Clone)]
pub struct Dialing {
    /// Who knows their addresses.
    pub resolver: Arc<dyn Resolver>,
    /// How connections over TCP are looked after.
    pub keepalive: Keepalive,
}

impl Default for Dialing {
    fn default() -> Self {
        Self {
            resolver: Arc::new(SystemResolver),
            keepalive: Keepalive::default(),
        }
    }
}

impl Dialing {
    /// A socket to a host, in clear: to the first of its addresses that lets us in.
    pub(crate) async fn open(&self, host: &Host) -> Result<Stream, Failure> {
        let Host::Tcp(name, port) = host else {
            return reach(host, None).await;
        };
        let addresses = self.resolver.addresses(name, *port).await;
        let addresses = addresses.map_err(|error| {
            let reason = format!("the host {name} cannot be looked up: {error}");
            Failure::new(FailureKind::Dns, reason)
        })?;
        let mut last = Failure::new(FailureKind::Dns, format!("the host {name} has no address"));
        for address in addresses {
            match reach(host, Some(address)).await {
                Ok(stream) => {
                    if let Stream::Tcp(tcp) = &stream {
                        let watched = self.watch(tcp);
                        watched.map_err(|error| failed(host, &error))?;
                    }
                    return Ok(stream);
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn watch(&self, stream: &TcpStream) -> io::Result<()> {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, self.keepalive.after)?;
        sockopt::set_tcp_keepintvl(stream, self.keepalive.each)?;
        sockopt::set_tcp_keepcnt(stream, self.keepalive.max)?;
        Ok(())
    }
}

/// A socket to a host, in clear, at this address of it if it has some. Nothing is looked up, and nobody looks after it.
pub(crate) async fn reach(host: &Host, address: Option<SocketAddr>) -> Result<Stream, Failure> {
    match (host, address) {
        (Host::Unix(folder, port), _) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(&path).await;
            let stream = stream.map_err(|error| {
                Failure::of_io(&error, &format!("connecting to {}", path.display()))
            })?;
            Ok(Stream::Unix(stream))
        }
        (Host::Tcp(..), Some(address)) => {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|error| failed(host, &error))?;
            stream
                .set_nodelay(true)
                .map_err(|error| failed(host, &error))?;
            Ok(Stream::Tcp(stream))
        }
        (Host::Tcp(name, _), None) => Err(Failure::new(
            FailureKind::Dns,
            format!("the host {name} has no address"),
        )),
    }
}

fn failed(host: &Host, error: &io::Error) -> Failure {
    Failure::of_io(error, &format!("connecting to {host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn who_is_cut_off_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = Host::Tcp("127.0.0.1".to_owned(), port);
        let keepalive = Keepalive {
            after: Duration::from_secs(7),
            each: Duration::from_secs(2),
            max: 5,
        };
        for keepalive in [Keepalive::default(), keepalive] {
            let dialing = Dialing {
                keepalive,
                ..Dialing::default()
            };
            let Stream::Tcp(stream) = dialing.open(&host).await.unwrap() else {
                panic!("a stream that is not TCP");
            };
            assert!(stream.nodelay().unwrap());
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            let told = Keepalive {
                after: sockopt::tcp_keepidle(&stream).unwrap(),
                each: sockopt::tcp_keepintvl(&stream).unwrap(),
                max: sockopt::tcp_keepcnt(&stream).unwrap(),
            };
            assert_eq!(told, keepalive);
        }
    }
}
