//! SQL over HTTP, and the directory of databases.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/databases` `{"name", "from"?}` | 201 and the database |
//! | `GET /v1/databases` | `{"databases": [...]}` |
//! | `GET /v1/databases/NAME` | the database |
//! | `DELETE /v1/databases/NAME` (`?force=true`) | 204 |
//! | `POST /v1/databases/NAME/query` `{"sql", "params"?, "rowMode"?}` | the result |
//! | `GET /v1/databases/NAME/figures`, `GET /v1/figures` | what was counted of databases |
//! | `GET /ping` | `{"ok":true}` |
//! | `GET /health` | how the server is |
//!
//! Every error is JSON, `{"error":{"code","message",...}}`, also those about HTTP itself: see
//! [`error`]. A request is served in its connection's task; [`work`] sees to it that what it began
//! comes to an end when the client leaves.

mod body;
mod database_document;
mod databases;
mod error;
mod figures;
mod health;
mod metrics;
mod query;
mod router;
mod work;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::{HeaderValue, Request, Response};
use database::Databases;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tracing::Instrument as _;
use wire::PgError;

use crate::accept::accept;
use crate::connections::Connections;
use crate::linger::linger;
use crate::metrics::{Counted, Labelled};
use crate::options::HttpOptions;
use crate::pgwire::Pgwire;
use crate::shutdown::Stopping;
use crate::telemetry::Telemetry;

pub use database_document::DatabaseDocument;
pub use figures::{
    BucketDocument, By, CountsDocument, FiguresDocument, FiguresPage, LatencyDocument,
};

/// What all connections share.
pub(crate) struct Http {
    databases: Databases,
    options: HttpOptions,
    pgwire: Arc<Pgwire>,
    connections: Arc<Connections>,
    stopping: Stopping,
    started: Instant,
    request_ids: RequestIds,
    telemetry: Telemetry,
    counted: Counted,
    labelled: Mutex<Labelled>,
}

/// What a request is called in logs: an extension of it.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Numbers that name a request in answers and logs.
struct RequestIds {
    /// Tells the requests of this start from those of others.
    start: u32,
    next: AtomicU64,
}

impl Http {
    pub(crate) fn new(
        databases: Databases,
        options: HttpOptions,
        pgwire: Arc<Pgwire>,
        telemetry: Telemetry,
        stopping: Stopping,
    ) -> Self {
        Self {
            databases,
            connections: Connections::new(options.connections_max),
            options,
            pgwire,
            stopping,
            started: Instant::now(),
            request_ids: RequestIds::new(),
            telemetry,
            counted: Counted::default(),
            labelled: Mutex::default(),
        }
    }

    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }

    pub(crate) fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.count()
    }

    /// The same of PostgreSQL's protocol.
    pub(crate) fn pgwire_connections(&self) -> usize {
        self.pgwire.sessions().count()
    }

    pub(crate) fn counted(&self) -> &Counted {
        &self.counted
    }

    pub(crate) fn labelled(&self) -> &Mutex<Labelled> {
        &self.labelled
    }

    /// Serves until the server stops, and all connections have ended.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let router = router::router(Arc::clone(&self));
        accept(
            listener,
            &self.stopping,
            "an HTTP connection",
            |stream, _| Arc::clone(&self).connection(stream, router.clone()),
        )
        .await;
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, router: axum::Router) {
        let Some(_place) = self.connections.enter() else {
            let answer = error::too_many_connections(self.options.connections_max);
            // It may be gone already; there is nobody else to tell.
            if stream.write_all(&answer).await.is_ok() && stream.shutdown().await.is_ok() {
                linger(&mut stream).await;
            }
            return;
        };
        // Without it the kernel may hold an answer back until the last one is acknowledged.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let router = TowerToHyperService::new(router);
        let service = service_fn(|request| Box::pin(self.request(&router, request)));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .serve_connection(TokioIo::new(stream), service);

        let mut draining = pin!(self.stopping.draining());
        let mut cancelling = pin!(self.stopping.cancelling());
        let mut open = true;
        let served = loop {
            tokio::select! {
                biased;
                served = poll_fn(|context| connection.poll_without_shutdown(context)) => {
                    break served;
                }
                () = &mut draining, if open => {
                    open = false;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
                // Dropping the connection cancels what it waits for.
                () = &mut cancelling => return,
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "HTTP connection ends");
        }
        // Of a body that was refused there may be more to come.
        let mut stream = connection.into_parts().io.into_inner();
        if stream.shutdown().await.is_ok() {
            linger(&mut stream).await;
        }
    }

    /// Names a request, has it answered, and logs it.
    async fn request(
        &self,
        router: &TowerToHyperService<axum::Router>,
        mut request: Request<Incoming>,
    ) -> Result<Response<axum::body::Body>, std::convert::Infallible> {
        let id = self.request_ids.next();
        let started = Instant::now();
        let logged = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        let path = request.uri().path();
        let traced = self
            .telemetry
            .request(request.method(), path, request.headers());
        request.extensions_mut().insert(RequestId(id.clone()));
        let answering = router.call(request).instrument(traced.span.clone());
        let mut response = answering.await?;
        traced.answered(&mut response);
        let status = response.status();
        let elapsed = started.elapsed();
        self.counted.answered(status, elapsed);
        let milliseconds = elapsed.as_secs_f64() * 1e3;
        if let Some((method, path)) = logged {
            let status = status.as_u16();
            tracing::debug!(request = id, %method, path, status, milliseconds, "HTTP request");
        }
        if status.is_server_error()
            && let Some(error) = response.extensions().get::<PgError>()
        {
            tracing::warn!(request = id, status = status.as_u16(), %error, "HTTP request failed");
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-request-id", id);
        }
        Ok(response)
    }
}

impl RequestIds {
    fn new() -> Self {
        let mut start = [0; 4];
        // Without random bytes the ids are only unique within one start.
        let _ = getrandom::fill(&mut start);
        Self {
            start: u32::from_ne_bytes(start),
            next: AtomicU64::new(1),
        }
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{number}", self.start)
    }
}
