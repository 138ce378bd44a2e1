//! One HTTP connection: its requests, and how it ends.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Configured;
use super::error;
use super::site::Current;
use super::stream::{HttpStream, Version};
use super::under_way::{Requests, UnderWay};
use crate::tls::HttpTls;

/// Requests of one HTTP/2 connection at once: what browsers and proxies expect at least. No setting; the client is told.
const STREAMS_MAX: u32 = 100;

/// How long what is ready may take to be written where a stop closes a connection (`http.last_write_ms_max`).
const LAST_WRITE_MAX: Duration = Duration::from_millis(50);

/// Where a connection comes from, and how; in the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: std::net::SocketAddr,
    /// Whether it is in TLS that ends here.
    pub(crate) is_encrypted: bool,
}

fn of(address: std::net::SocketAddr, is_encrypted: bool) -> Peer {
    Peer {
        address,
        is_encrypted,
    }
}

impl Configured {
    /// Serves a connection to its end.
    pub(super) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: std::net::SocketAddr,
        current: Current,
    ) {
        let Some(_place) = self.connections.enter(self.options.connections_max) else {
            let answer = error::too_many_connections(self.options.connections_max);
            let mut stream = HttpStream::new(stream);
            // It may be gone already; there is nobody else to tell.
            if stream.write_all(&answer).await.is_ok() {
                let _ = stream.shutdown().await;
            }
            return;
        };
        // Without it the kernel may hold an answer back until the last one is acknowledged.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match (self.options.tls, &self.tls) {
            (HttpTls::Off, _) => self.detect(stream, of(peer, false), current).await,
            (HttpTls::Require, Some(tls)) => {
                let identity = tls.current();
                let accepting = identity.http().accept(stream);
                let accepting = timeout(self.options.header_timeout, accepting);
                let accepted = tokio::select! {
                    accepted = accepting => accepted,
                    () = self.stopping.draining() => return,
                };
                match accepted {
                    Ok(Ok(stream)) => self.detect(stream, of(peer, true), current).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "an HTTP connection's TLS handshake failed");
                    }
                    Err(_) => {}
                }
            }
            (HttpTls::Require, None) => {
                tracing::error!("BUG: http.tls is required without a certificate");
            }
        }
    }

    async fn detect<S>(self: &Arc<Self>, stream: S, peer: Peer, current: Current)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let detecting = HttpStream::detect(stream, self.options.header_timeout);
        let mut draining = pin!(self.stopping.draining());
        let detected = tokio::select! {
            detected = detecting => detected,
            () = &mut draining => None,
        };
        if let Some((stream, version)) = detected {
            Arc::clone(self)
                .serve_stream(stream, version, peer, current)
                .await;
        }
    }

    async fn serve_stream<S>(
        self: Arc<Self>,
        stream: S,
        version: Version,
        peer: Peer,
        current: Current,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let requests = Arc::new(Requests::default());
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let this = Arc::clone(&self);
            let router = current.router();
            let app = current.app();
            let under_way = UnderWay::new(&requests);
            async move {
                let answered = this.request(&router, request, &app.options).await;
                answered.map(|response| under_way.until_its_end(response))
            }
        });
        let builder = self.builder(version);
        let mut connection =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut draining = pin!(self.stopping.draining());
        let mut cancelling = pin!(self.stopping.cancelling());
        let mut idle = pin!(requests.end(self.options.header_timeout));
        let (mut open, mut waits) = (true, true);
        // What is cancelled by a stop is told so. A connection that goes on all the same is dropped with the listener.
        let served = loop {
            tokio::select! {
                biased;
                served = &mut connection => break served,
                () = &mut draining, if open => {
                    open = false;
                    connection.as_mut().graceful_shutdown();
                }
                // In HTTP/1 it is the time for the next head.
                () = &mut idle, if open && version == Version::Http2 => {
                    open = false;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut cancelling, if waits => {
                    waits = false;
                    if !requests.are_under_way() {
                        // Its client does not read what it was told, or has not said all that it wants. What is ready
                        // this moment is still written.
                        let Ok(served) = timeout(LAST_WRITE_MAX, &mut connection).await else {
                            return;
                        };
                        break served;
                    }
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "HTTP connection ends");
        }
    }

    fn builder(&self, version: Version) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(self.options.header_timeout);
        match version {
            Version::Http1 => builder.http1_only(),
            Version::Http2 => builder.http2_only(),
        }
    }
}
