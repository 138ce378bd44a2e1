//! A result as a stream of lines, for who asks with `Accept: application/x-ndjson`.
//!
//! Rows leave as Postgres gives them, and Postgres waits for a client that is slow: a result of any size takes no more
//! memory than a few pieces of it. An error before the first row is the answer's status; one after it is the last
//! line.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use database::{ClientIo, ClientIoError};
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::PollSender;
use tracing::Instrument as _;
use wire::http::LineWriter;
use wire::{PgError, sqlstate};

use super::error::ApiError;
use super::router::App;
use super::run::{OUTCOME_MAX, not_ended, timed_out};
use super::tenant::Tenant;
use super::visit::{Rows, Statement, Visit, Wishes};
use super::work::CancelSlot;
use crate::insist::insist;
use crate::pgwire::shutting_down;

/// The media type.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Pieces of a result that are made and not taken yet.
const PIECES_MAX: usize = 4;

/// The largest message of Postgres: one row.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// What the session has for the client.
type Piece = Result<Bytes, PgError>;

/// Why a statement is given up, once it is.
#[derive(Clone, Default)]
struct GivenUp(Arc<Mutex<Option<PgError>>>);

impl GivenUp {
    fn set(&self, why: PgError) {
        *self.0.lock() = Some(why);
    }

    /// An error of the statement, as its client is told it.
    fn explain(&self, error: PgError) -> PgError {
        match &*self.0.lock() {
            Some(why) if error.code() == sqlstate::QUERY_CANCELED => why.clone(),
            _ => error,
        }
    }
}

/// A statement whose result is streamed.
pub(super) struct Streamed {
    pub(super) wishes: Wishes,
    pub(super) statement: Statement,
    pub(super) rows: Rows,
    pub(super) limit: Duration,
}

/// Whether a request wants lines.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut kinds = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(NDJSON))
}

/// Runs a statement: the answer, whose body comes as the result does.
pub(super) async fn stream(
    app: App,
    tenant: Tenant,
    streamed: Streamed,
) -> Result<Response, ApiError> {
    let mut writer = LineWriter::new(streamed.rows.mode(), MESSAGE_BYTES_MAX, tenant.sizes.stream);
    let (sender, mut pieces) = mpsc::channel::<Piece>(PIECES_MAX);
    let given_up = GivenUp::default();
    tokio::spawn(run(app, tenant, streamed, sender, given_up.clone()).in_current_span());
    let mut first = Vec::new();
    // Until there is a row, or the end, it can still fail as a whole.
    while let Some(piece) = pieces.recv().await {
        let pushed = piece.and_then(|piece| writer.push(&piece, &mut first));
        pushed.map_err(|error| given_up.explain(error))?;
        if first.iter().filter(|byte| **byte == b'\n').count() > 1 {
            break;
        }
    }
    let lines = Lines {
        pieces,
        writer,
        first: first.into(),
        is_over: false,
        given_up,
    };
    let kind = [(header::CONTENT_TYPE, NDJSON)];
    Ok((kind, Body::new(lines)).into_response())
}

/// Runs the statement for as long as somebody listens, its time lasts, and the server waits.
async fn run(
    app: App,
    tenant: Tenant,
    streamed: Streamed,
    sender: mpsc::Sender<Piece>,
    given_up: GivenUp,
) {
    let slot = CancelSlot::default();
    let limit = streamed.limit;
    let stops = app.stopping.cancelling();
    let mut work = Box::pin(answer(app, tenant, streamed, sender.clone(), slot.clone()));
    let why = tokio::select! {
        biased;
        last = &mut work => {
            // Nobody may listen any more.
            let _ = sender.send(last).await;
            return;
        }
        () = stops => shutting_down(),
        () = sleep(limit) => timed_out(limit),
        () = sender.closed() => PgError::error(sqlstate::QUERY_CANCELED, "nobody listens"),
    };
    given_up.set(why.clone());
    let Some(canceller) = slot.give_up() else {
        drop(work);
        let _ = sender.send(Err(why)).await;
        return;
    };
    let mut ending = pin!(insist(&canceller, work));
    match timeout(OUTCOME_MAX, &mut ending).await {
        // It may have come to its end all the same.
        Ok(last) => {
            let _ = sender.send(last).await;
        }
        Err(_) => {
            let why = not_ended(why);
            given_up.set(why.clone());
            // It goes on to its end, whether somebody reads that or not.
            let _ = tokio::join!(sender.send(Err(why)), ending);
        }
    }
}

/// What is left of the answer when the statement has ended.
async fn answer(
    app: App,
    tenant: Tenant,
    streamed: Streamed,
    sender: mpsc::Sender<Piece>,
    slot: CancelSlot,
) -> Piece {
    let (wishes, statement) = (streamed.wishes, streamed.statement);
    let mut visit = Visit::open(&app, &tenant, wishes, &slot).await?;
    let io = Box::new(Outlet(PollSender::new(sender)));
    let done = visit.stream(&statement, io).await;
    visit.close().await;
    done
}

/// Where the session's output goes.
struct Outlet(PollSender<Piece>);

impl ClientIo for Outlet {
    fn poll_fill(
        &mut self,
        _: &mut Context<'_>,
        _: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        // There is no more input, which ends COPY FROM STDIN.
        Poll::Ready(Err(ClientIoError))
    }

    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        ready!(self.0.poll_reserve(context)).map_err(|_| ClientIoError)?;
        let sent = self.0.send_item(Ok(output.split().freeze()));
        Poll::Ready(sent.map_err(|_| ClientIoError))
    }
}

/// The body of an answer.
struct Lines {
    pieces: mpsc::Receiver<Piece>,
    writer: LineWriter,
    first: Bytes,
    is_over: bool,
    given_up: GivenUp,
}

impl Lines {
    /// No more is wanted: the statement ends now, and not when its client has read what there is.
    fn end(&mut self) {
        self.is_over = true;
        self.pieces.close();
        while self.pieces.try_recv().is_ok() {}
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        while !self.is_over {
            let Some(piece) = ready!(self.pieces.poll_recv(context)) else {
                self.is_over = true;
                break;
            };
            let mut out = Vec::new();
            let taken = piece.and_then(|bytes| self.writer.push(&bytes, &mut out));
            if let Err(error) = taken {
                LineWriter::error(&self.given_up.explain(error), &mut out);
                self.end();
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_its_limit_nobody_listens_any_more() {
        let limit = wire::SizeLimit {
            bytes: 100,
            name: "some.limit",
            remedy: "raise it",
        };
        let rows = || {
            let mut bytes = BytesMut::new();
            wire::pg::backend::row_description(&mut bytes, &[wire::pg::backend::Field::text("a")]);
            wire::pg::backend::data_row(&mut bytes, &[Some(&[b'x'; 200])]);
            Ok(bytes.freeze())
        };
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let mut lines = Box::pin(Lines {
            pieces,
            writer: LineWriter::new(Rows::Object.mode(), MESSAGE_BYTES_MAX, limit),
            first: Bytes::new(),
            is_over: false,
            given_up: GivenUp::default(),
        });
        for _ in 0..2 {
            sender.send(rows()).await.unwrap();
        }
        let mut next = || {
            let mut context = Context::from_waker(std::task::Waker::noop());
            let frame = hyper::body::Body::poll_frame(lines.as_mut(), &mut context);
            frame.map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
        };
        let Poll::Ready(Some(text)) = next() else {
            panic!("nothing came");
        };
        assert!(String::from_utf8_lossy(&text).contains("some.limit, 100"));
        // Its client has not read to the end yet.
        assert!(sender.is_closed());
        assert!(matches!(next(), Poll::Ready(None)));
    }

    #[test]
    fn who_wants_lines() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            is_wanted(&headers)
        };
        assert!(wants("application/x-ndjson"));
        assert!(wants("text/html, Application/X-NDJSON;q=0.9"));
        assert!(!wants("application/json, */*"));
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
