//! What HTTP answers before the databases are open: that it is there, and not ready.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::stream::HttpStream;
use crate::accept::ACCEPT_PAUSE;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_millis(5_000);

/// Connections at once; others wait until the databases are open.
const CONNECTIONS_MAX: usize = 100;

/// Answers until it is dropped, and with it the connections that it has.
pub(crate) async fn answer(listener: &TcpListener) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => drop(connections.spawn(serve(stream, peer))),
                // The listener of the server proper will say it again.
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an HTTP connection while starting");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(async |request: Request<Incoming>| {
        let mut response = respond(request.uri().path());
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        Ok::<_, Infallible>(response)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(HttpStream::new(stream)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "HTTP connection ends");
    }
}

fn respond(path: &str) -> Response<Body> {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match path {
        "/ping" | "/liveness" => (json, "{\"ok\":true}").into_response(),
        "/readiness" => {
            let document = "{\"ready\":false,\"reason\":\"starting\"}";
            (StatusCode::SERVICE_UNAVAILABLE, json, document).into_response()
        }
        _ => ApiError::from(
            PgError::error(
                sqlstate::CANNOT_CONNECT_NOW,
                "the server is starting, and its databases are not open yet",
            )
            .hint("Try again in a second; GET /readiness says when it is ready."),
        )
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
            never = answer(&listener) => match never {},
        };
        assert!(answers[0].starts_with("HTTP/1.1 200"), "{}", answers[0]);
        for late in &answers[1..] {
            assert!(late.starts_with("HTTP/1.1 503"), "{late}");
            assert!(late.contains("starting"), "{late}");
        }
    }
}
