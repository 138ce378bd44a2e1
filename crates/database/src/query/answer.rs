//! An answer that is given away as it comes, so that a large one is never in memory as a whole.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use engine::{ClientIo, ClientIoError};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use wire::PgError;
use wire::pg::backend::kind;
use wire::pg::frames;

use super::no_copy;
use crate::session::{Canceller, Session};

/// Takes the answer to one statement.
pub trait Answer: Send + 'static {
    /// Waits until there is room for more of it. Meanwhile the statement stands still, and the database with it.
    ///
    /// # Errors
    /// Nobody wants it any more: the statement is cancelled, and ends with this error.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PgError>>;

    /// Takes one message of the backend. Errors come another way.
    ///
    /// # Errors
    /// It cannot be taken: the statement is cancelled, and ends with this error.
    fn take(&mut self, kind: u8, body: &[u8]) -> Result<(), PgError>;
}

/// An answer on its way, which the backend and whoever waits for it can reach.
struct Taking<A> {
    answer: Option<A>,
    /// Less than a message.
    rest: BytesMut,
    error: Option<PgError>,
    canceller: Canceller,
}

/// The backend's hold on it.
struct Taker<A>(Arc<Mutex<Taking<A>>>);

impl Session {
    /// Runs one statement with JSON parameters, and gives its answer away as it comes.
    ///
    /// # Errors
    ///
    /// What Postgres says; 22023 for a parameter that does not fit; 57P02 if the backend ended; what `answer` itself
    /// says, and the statement is cancelled then.
    pub async fn query_json_into<A: Answer>(
        &mut self,
        sql: &str,
        params: &[&RawValue],
        answer: A,
    ) -> Result<A, PgError> {
        let messages = self.with_params(sql, params).await?;
        self.answer(messages, answer).await
    }

    /// Runs messages that end in `Sync`, and gives the answer to `answer`.
    pub(super) async fn answer<A: Answer>(
        &mut self,
        messages: BytesMut,
        answer: A,
    ) -> Result<A, PgError> {
        let taking = Arc::new(Mutex::new(Taking {
            answer: Some(answer),
            rest: BytesMut::new(),
            error: None,
            canceller: self.canceller(),
        }));
        let taker = Box::new(Taker(Arc::clone(&taking)));
        let (output, ended) = match self.exchange(messages.freeze(), Some(taker)).await {
            Ok((output, _)) => (output, None),
            Err(ended) => (ended.output, Some(ended.error)),
        };
        let mut output = BytesMut::from(output);
        if ended.is_none() && !output.is_empty() {
            poll_fn(|context| taking.lock().poll_take(context, &mut output)).await;
        }
        let mut taking = taking.lock();
        match (ended, taking.error.take(), taking.answer.take()) {
            (None, None, Some(answer)) => Ok(answer),
            (Some(error), ..) | (None, Some(error), _) => Err(error),
            (None, None, None) => unreachable!("BUG: an answer was taken twice"),
        }
    }
}

impl<A: Answer> Taking<A> {
    /// Takes all of the output, once there is room.
    fn poll_take(&mut self, context: &mut Context<'_>, output: &mut BytesMut) -> Poll<()> {
        if self.error.is_none()
            && let Some(answer) = &mut self.answer
            && let Err(error) = ready!(answer.poll_ready(context))
        {
            self.fail(error);
        }
        let mut all = std::mem::take(&mut self.rest);
        all.unsplit(output.split());
        let mut taken = 0;
        for (kind, body) in frames(&all) {
            taken += 5 + body.len();
            if self.error.is_some() {
                continue;
            }
            let outcome = match kind {
                kind::ERROR_RESPONSE => {
                    self.error = Some(PgError::decode(body).unwrap_or_else(|error| error));
                    continue;
                }
                kind::COPY_IN_RESPONSE | kind::COPY_OUT_RESPONSE | kind::COPY_BOTH_RESPONSE => {
                    Err(no_copy())
                }
                _ => match &mut self.answer {
                    Some(answer) => answer.take(kind, body),
                    None => Ok(()),
                },
            };
            if let Err(error) = outcome {
                self.fail(error);
            }
        }
        self.rest = all.split_off(taken);
        Poll::Ready(())
    }

    /// Nothing more of it is wanted.
    fn fail(&mut self, error: PgError) {
        self.error = Some(error);
        self.canceller.cancel();
    }
}

impl<A: Answer> ClientIo for Taker<A> {
    fn poll_fill(
        &mut self,
        _context: &mut Context<'_>,
        _input: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        // `COPY` fails.
        Poll::Ready(Err(ClientIoError))
    }

    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), ClientIoError>> {
        self.0.lock().poll_take(context, output).map(Ok)
    }
}
