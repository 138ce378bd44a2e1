//! One socket: what comes and goes, who is still there, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tungstenite::error::{CapacityError, Error as ProtocolError};

use wire::SizeLimit;

use super::conversation::{Conversation, End, MALFORMED, Refusal};
use super::outbox::Next;
use super::registry::{Keys, Registry, Resumed};
use super::request::{Request, Resume};

/// The close code for a conversation that is not there any more.
const GONE: u16 = 4404;

/// The close code for a conversation that goes on elsewhere.
const REPLACED: u16 = 4409;

/// The longest reason in a close frame.
const REASON_BYTES_MAX: usize = 123;

/// How long a client is listened to after it was told the last word.
const LINGER_MAX: Duration = Duration::from_millis(1_000);

/// A socket and its conversation.
struct Socket {
    registry: Arc<Registry>,
    conversation: Arc<Conversation>,
    session: u64,
    /// The number of the socket in the conversation.
    epoch: u64,
    /// How large a message might be when the socket was opened, which is as much as it reads at once; not when its
    /// conversation began, which may have been in another socket.
    message_max: SizeLimit,
    /// How large it might be when that was looked up last.
    found: Mutex<SizeLimit>,
}

/// Why a socket is left.
enum Left {
    /// The client said goodbye.
    Closed,
    /// It is not there any more.
    Lost,
    Refused(Refusal),
    Resume(Resume),
    Replaced,
    /// The server stops, and everything is said.
    Stopped,
}

/// Serves a client that begins a conversation to its end, and waits for it if it was cut off.
pub(super) async fn serve(
    socket: WebSocket,
    registry: Arc<Registry>,
    conversation: Arc<Conversation>,
) {
    let epoch = conversation.outbox.attach();
    let message_max = conversation.visitor.tenant.sizes.message;
    match registry.add(&conversation) {
        Ok(keys) => {
            let own = Socket {
                registry,
                conversation,
                session: keys.session,
                epoch,
                message_max,
                found: Mutex::new(message_max),
            };
            own.serve(socket, keys).await;
        }
        // Dropping the socket closes it.
        Err(error) => tracing::error!(%error, "the system gave no random bytes for a secret"),
    }
}

impl Socket {
    async fn serve(mut self, socket: WebSocket, keys: Keys) {
        let (mut sink, mut stream) = socket.split();
        let hello = hello(&self.conversation, &keys);
        drop(keys);
        let mut left = match sink.send(hello).await {
            Ok(()) => self.talk(&mut sink, &mut stream, true).await,
            Err(_) => Left::Lost,
        };
        while let Left::Resume(resume) = left {
            left = match self.registry.resume(&resume, &self.conversation) {
                None => Left::Refused(Refusal {
                    code: GONE,
                    reason: "there is no such conversation, or not with these answers".to_owned(),
                }),
                Some(resumed) => {
                    let told = resumed_message(&resumed);
                    self.take_over(resumed);
                    match sink.send(told).await {
                        Ok(()) => self.talk(&mut sink, &mut stream, false).await,
                        Err(_) => Left::Lost,
                    }
                }
            };
        }
        let is_lost = matches!(left, Left::Lost);
        let is_replaced = matches!(left, Left::Replaced);
        if let Some(close) = close_frame(left) {
            let goodbye = async {
                if sink.send(Message::Close(Some(close))).await.is_ok() {
                    while matches!(stream.next().await, Some(Ok(_))) {}
                }
            };
            // Past the time it gets a reset.
            let _ = timeout(LINGER_MAX, goodbye).await;
        }
        drop((sink, stream));
        if is_lost {
            self.wait_for_client().await;
        }
        if !is_replaced && self.registry.remove(self.session, self.epoch) {
            self.conversation.end(End::Over);
        }
    }

    /// Leaves its own conversation, which nothing was said in, for another.
    fn take_over(&mut self, resumed: Resumed) {
        if self.registry.remove(self.session, self.epoch) {
            self.conversation.end(End::Over);
        }
        self.conversation = resumed.conversation;
        self.session = resumed.session;
        self.epoch = resumed.epoch;
    }

    async fn talk(
        &self,
        sink: &mut SplitSink<WebSocket, Message>,
        stream: &mut SplitStream<WebSocket>,
        may_resume: bool,
    ) -> Left {
        let is_heard = AtomicBool::new(true);
        tokio::select! {
            biased;
            left = self.listen(stream, &is_heard, may_resume) => left,
            left = self.speak(sink) => left,
            () = self.watch(&is_heard) => Left::Lost,
        }
    }

    async fn listen(
        &self,
        stream: &mut SplitStream<WebSocket>,
        is_heard: &AtomicBool,
        mut may_resume: bool,
    ) -> Left {
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return self.broken(error).await,
                None => return Left::Lost,
            };
            is_heard.store(true, Ordering::Relaxed);
            let text = match message {
                Message::Text(text) => text,
                Message::Pong(count) => {
                    if let Ok(count) = <[u8; 8]>::try_from(&count[..]) {
                        self.conversation.outbox.received(u64::from_be_bytes(count));
                    }
                    continue;
                }
                Message::Ping(_) => continue,
                Message::Close(_) => {
                    // Sends the answer to it.
                    let _ = timeout(LINGER_MAX, stream.next()).await;
                    return Left::Closed;
                }
                Message::Binary(_) => {
                    return Left::Refused(Refusal {
                        code: close_code::UNSUPPORTED,
                        reason: "messages are JSON text, and this one is binary".to_owned(),
                    });
                }
            };
            let max = self.message_max().await;
            if text.len() > max.bytes {
                return Left::Refused(too_large(text.len(), max));
            }
            let taken = match Request::parse(&text) {
                Ok(Request::Resume(resume)) if may_resume => return Left::Resume(resume),
                Ok(request) => {
                    let bytes = text.len() + request.bytes_beside();
                    self.conversation.take(request, bytes)
                }
                Err(reason) => Err(Refusal {
                    code: MALFORMED,
                    reason,
                }),
            };
            may_resume = false;
            if let Err(refusal) = taken {
                return Left::Refused(refusal);
            }
        }
    }

    async fn broken(&self, error: axum::Error) -> Left {
        let error = error.into_inner();
        let too_long = error.downcast_ref().and_then(|error| match error {
            ProtocolError::Capacity(CapacityError::MessageTooLong { size, .. }) => Some(size),
            _ => None,
        });
        let Some(size) = too_long else {
            tracing::debug!(%error, "a WebSocket breaks");
            return Left::Lost;
        };
        let size = *size;
        Left::Refused(too_large(size, self.message_max().await))
    }

    /// How large a message may be.
    async fn message_max(&self) -> SizeLimit {
        let visitor = &self.conversation.visitor;
        // Nothing is looked up for who asks too often: what was found last counts.
        let now = match visitor.asks_too_often() {
            true => None,
            // What cannot be looked up is said to whoever runs a statement.
            false => visitor.sizes().await.ok(),
        };
        let mut found = self.found.lock();
        if let Some(now) = now {
            *found = self.message_max.or_smaller(now.message);
        }
        found.or_smaller(visitor.message_max_of_node())
    }

    async fn speak(&self, sink: &mut SplitSink<WebSocket, Message>) -> Left {
        let conversation = &self.conversation;
        let mut stopped = std::pin::pin!(async {
            conversation.stopping.draining().await;
            conversation.end(End::Draining);
            conversation.rests().await;
        });
        let mut expelled = std::pin::pin!(conversation.expelled());
        let mut has_stopped = false;
        loop {
            let message = tokio::select! {
                biased;
                refusal = &mut expelled => return Left::Refused(refusal),
                next = conversation.outbox.next(self.epoch) => match next {
                    Next::Answer(text) => Message::Text(text),
                    Next::Ping(count) => Message::Ping(Bytes::copy_from_slice(&count.to_be_bytes())),
                    Next::Replaced => return Left::Replaced,
                },
                () = &mut stopped, if !has_stopped => {
                    has_stopped = true;
                    continue;
                }
                () = std::future::ready(()), if has_stopped => return Left::Stopped,
            };
            let sent = tokio::select! {
                biased;
                refusal = &mut expelled => return Left::Refused(refusal),
                sent = sink.send(message) => sent,
            };
            if sent.is_err() {
                return Left::Lost;
            }
        }
    }

    /// Returns when the client has said nothing from one ping to the next.
    async fn watch(&self, is_heard: &AtomicBool) {
        loop {
            sleep(self.conversation.ping).await;
            if !is_heard.swap(false, Ordering::Relaxed) {
                tracing::debug!("the client of a WebSocket answers no pings");
                return;
            }
            // Who does nothing is looked at no more often.
            self.conversation.look_at_client().await;
            self.conversation.outbox.want_ping();
        }
    }

    /// Gives a client that was cut off some time to come back.
    async fn wait_for_client(&self) {
        let conversation = &self.conversation;
        let wait = conversation.resume;
        if wait.is_zero() {
            return;
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = conversation.stopping.draining() => {}
            // It has come back.
            () = conversation.outbox.replaced(self.epoch) => {}
        }
    }
}

fn too_large(bytes: usize, max: SizeLimit) -> Refusal {
    let SizeLimit {
        bytes: max, name, ..
    } = max;
    Refusal {
        code: close_code::SIZE,
        reason: format!("a message of {bytes} bytes exceeds {name}, {max}"),
    }
}

fn hello(conversation: &Conversation, keys: &Keys) -> Message {
    let hello = json!({"hello": {
        "protocol": super::PROTOCOL,
        "session": format!("{:016x}", keys.session),
        "secret": keys.secret,
        "resumeMs": conversation.resume.as_millis() as u64,
        "pingMs": conversation.ping.as_millis() as u64,
    }});
    Message::Text(Utf8Bytes::from(hello.to_string()))
}

fn resumed_message(resumed: &Resumed) -> Message {
    // The times that it was begun with, not those that `hello` has told for the conversation that is left.
    let told = json!({"resumed": {
        "session": format!("{:016x}", resumed.session),
        "answers": resumed.answers,
        "resumeMs": resumed.conversation.resume.as_millis() as u64,
        "pingMs": resumed.conversation.ping.as_millis() as u64,
    }});
    Message::Text(Utf8Bytes::from(told.to_string()))
}

/// The last word, to who is still there.
fn close_frame(left: Left) -> Option<CloseFrame> {
    let (code, reason) = match left {
        Left::Closed | Left::Lost | Left::Resume(_) => return None,
        Left::Refused(refusal) => (refusal.code, refusal.reason),
        Left::Replaced => (REPLACED, "the conversation goes on elsewhere".to_owned()),
        Left::Stopped => (close_code::AWAY, "the server is shutting down".to_owned()),
    };
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    Some(CloseFrame {
        code,
        reason: reason[..end].into(),
    })
}
