//! What HTTP answers before the databases are open, and while the server stops: that it is there, and not ready.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::stream::{HttpStream, Version};
use crate::accept::ACCEPT_PAUSE;
use crate::tls::{Identity, Tls};

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_millis(5_000);

/// How long one may take altogether: its requests, the answers, and the end.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(5_000);

/// Connections at once; others wait until the databases are open, or the server has stopped.
const CONNECTIONS_MAX: usize = 100;

/// Why nothing else is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReady {
    Starting,
    Draining,
}

/// Answers until it is dropped, and with it the connections that it has.
pub(crate) async fn answer(
    listener: &TcpListener,
    tls: Option<&Arc<Tls>>,
    why: NotReady,
) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    let tls = tls.map(|tls| tls.current());
                    drop(connections.spawn(begin(stream, peer, tls, why)));
                }
                // The listener of the server proper will say it again.
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an HTTP connection while not ready");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// Speaks as the server proper will: over TLS where that is required.
async fn begin(stream: TcpStream, peer: SocketAddr, tls: Option<Arc<Identity>>, why: NotReady) {
    let Some(identity) = tls else {
        return serve(stream, peer, why).await;
    };
    match timeout(HEADER_TIMEOUT, identity.http().accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, peer, why).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => {}
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, why: NotReady)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some((stream, version)) = HttpStream::detect(stream, HEADER_TIMEOUT).await else {
        return;
    };
    let answered = Arc::new(Notify::new());
    let telling = Arc::clone(&answered);
    let service = service_fn(move |request: Request<Incoming>| {
        // In HTTP/1 a header says that it is the only one.
        telling.notify_one();
        let mut response = why.respond(request.uri().path());
        if request.version() != hyper::Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let stream = TokioIo::new(stream);
    let served = async {
        match version {
            Version::Http1 => {
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(stream, service)
                    .await
            }
            Version::Http2 => {
                let builder = http2::Builder::new(TokioExecutor::new());
                let mut connection = pin!(builder.serve_connection(stream, service));
                tokio::select! {
                    served = &mut connection => return served,
                    () = answered.notified() => connection.as_mut().graceful_shutdown(),
                }
                connection.await
            }
        }
    };
    match timeout(ANSWER_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "HTTP connection ends"),
        // Others want its place.
        Err(_) => tracing::debug!(%peer, "an HTTP connection is left while not ready"),
    }
}

impl NotReady {
    fn reason(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
        }
    }

    fn error(self) -> PgError {
        let (message, hint) = match self {
            Self::Starting => (
                "the server is starting, and its databases are not open yet",
                "Try again in a second; GET /readiness says when it is ready.",
            ),
            Self::Draining => (
                "the server is shutting down: it takes nothing new, and waits for what still runs",
                "Ask another server, or this one when it has been started again.",
            ),
        };
        PgError::error(sqlstate::CANNOT_CONNECT_NOW, message).hint(hint)
    }

    fn respond(self, path: &str) -> Response<Body> {
        let json = [(header::CONTENT_TYPE, "application/json")];
        match path {
            "/ping" | "/liveness" => (json, "{\"ok\":true}").into_response(),
            "/readiness" => {
                let reason = self.reason();
                let document = format!("{{\"ready\":false,\"reason\":\"{reason}\"}}");
                (StatusCode::SERVICE_UNAVAILABLE, json, document).into_response()
            }
            _ => ApiError::from(self.error()).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A certificate of an authority that nobody knows, which these tests alone believe.
    fn tls(folder: &std::path::Path) -> Arc<Tls> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let files = crate::tls::TlsFiles {
            certificate: folder.join("certificate"),
            key: folder.join("key"),
            client_ca: None,
        };
        std::fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, "").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&files.key, own).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        Arc::new(Tls::load(files).unwrap())
    }

    #[tokio::test]
    async fn it_speaks_tls_where_the_server_will() {
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(folder.path());
        let config = crate::tls::client_config(Some(&folder.path().join("certificate"))).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asking = async {
            let client = TcpStream::connect(address).await.unwrap();
            let host = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let mut client = connector.connect(host, client).await.unwrap();
            let request = "GET /readiness HTTP/1.1\r\nhost: localhost\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            answer
        };
        let said = tokio::select! {
            said = asking => said,
            never = answer(&listener, Some(&tls), NotReady::Starting) => match never {},
        };
        assert_eq!(&said, b"HTTP/1.1 503");
        let asking = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET /ping HTTP/1.1\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            // It may be reset.
            let _ = client.read_to_end(&mut answer).await;
            answer
        };
        let said = tokio::select! {
            said = asking => said,
            never = answer(&listener, Some(&tls), NotReady::Starting) => match never {},
        };
        assert!(!said.starts_with(b"HTTP/"), "{said:?}");
    }

    #[tokio::test]
    async fn it_is_there_and_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asking = async {
            let mut answers = Vec::new();
            for path in ["/ping", "/readiness", "/v1/databases"] {
                let mut client = TcpStream::connect(address).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
                client.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                answers.push(answer);
            }
            answers
        };
        let answers = tokio::select! {
            answers = asking => answers,
            never = answer(&listener, None, NotReady::Starting) => match never {},
        };
        assert!(answers[0].starts_with("HTTP/1.1 200"), "{}", answers[0]);
        for late in &answers[1..] {
            assert!(late.starts_with("HTTP/1.1 503"), "{late}");
            assert!(late.contains("starting"), "{late}");
        }
    }
}
