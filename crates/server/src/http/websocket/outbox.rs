//! Answers on their way to a client.
//!
//! 1. Answers are numbered from 1, and sent in that order.
//! 2. One is kept until the client has it, as the pong to a ping behind it says. So a client that was cut off can be
//!    sent again what it missed.
//! 3. What is kept has a limit. Past it whoever has more to say waits, and with it its statement.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use axum::extract::ws::Utf8Bytes;
use parking_lot::Mutex;

/// A ping follows after this part of the limit.
const PINGS_PER_LIMIT: usize = 4;

/// Answers that the client may not have yet.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Answers are kept until the client has them, not only until they are sent.
    keeps: bool,
}

#[derive(Default)]
struct State {
    /// From the number `first` on.
    answers: VecDeque<Utf8Bytes>,
    /// The answers before this many are with the client.
    received: u64,
    /// The answers before this many are sent.
    sent: u64,
    bytes: usize,
    /// The most bytes that are kept.
    bytes_max: usize,
    /// Sent since the last ping.
    bytes_sent: usize,
    ping: bool,
    /// Bytes of answers that were added without asking for room, since there was some.
    bytes_unasked: usize,
    /// Which socket may send.
    epoch: u64,
    sender: Option<Waker>,
    waiting: Vec<Waker>,
}

/// What a socket is to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Answer(Utf8Bytes),
    /// A ping; its pong says that so many answers were received.
    Ping(u64),
    /// Another socket has taken its place.
    Replaced,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize, keeps: bool) -> Self {
        let state = State {
            bytes_max,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            keeps,
        }
    }

    /// From now on so many bytes are the most.
    pub(super) fn hold_at_most(&self, bytes_max: usize) {
        let mut state = self.state.lock();
        let grows = bytes_max > state.bytes_max;
        state.bytes_max = bytes_max;
        drop(state);
        if grows {
            self.wake();
        }
    }

    /// Waits until there is room.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.bytes < state.bytes_max {
            return Poll::Ready(());
        }
        if !state
            .waiting
            .iter()
            .any(|waker| waker.will_wake(context.waker()))
        {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Adds an answer, whether there is room or not.
    pub(super) fn push(&self, answer: Vec<u8>) {
        let text = String::from_utf8(answer).unwrap_or_else(|error| {
            // What writes JSON writes UTF-8.
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        let mut state = self.state.lock();
        state.bytes += text.len();
        state.answers.push_back(text.into());
        wake(&mut state.sender);
    }

    /// Adds an answer to what the client did wrong: whether it reads its answers, so that it may go on doing so.
    #[must_use]
    pub(super) fn push_unasked(&self, answer: Vec<u8>) -> bool {
        let mut state = self.state.lock();
        if state.bytes < state.bytes_max {
            state.bytes_unasked = 0;
        }
        state.bytes_unasked += answer.len();
        let is_fine = state.bytes_unasked <= state.bytes_max;
        drop(state);
        self.push(answer);
        is_fine
    }

    /// Wakes whoever waits for room, to look at something else.
    pub(super) fn wake(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A socket begins to send, in place of the one before: its number.
    pub(super) fn attach(&self) -> u64 {
        let mut state = self.state.lock();
        state.epoch += 1;
        wake(&mut state.sender);
        state.epoch
    }

    /// Whether a socket is the one that sends.
    pub(super) fn is_attached(&self, epoch: u64) -> bool {
        self.state.lock().epoch == epoch
    }

    /// Waits until another socket has taken the place of this one, which sends nothing any more.
    pub(super) async fn replaced(&self, epoch: u64) {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if state.epoch != epoch {
                return Poll::Ready(());
            }
            state.sender = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Sends again what comes after the first `received` answers: how many there are, or nothing if some of them are
    /// gone or never were.
    pub(super) fn rewind(&self, received: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let end = state.received + state.answers.len() as u64;
        if received < state.received || received > state.sent {
            return None;
        }
        self.forget(&mut state, received);
        state.sent = received;
        state.bytes_sent = 0;
        Some(end - received)
    }

    /// The client has so many answers.
    pub(super) fn received(&self, count: u64) {
        let mut state = self.state.lock();
        if count > state.received && count <= state.sent {
            self.forget(&mut state, count);
        }
    }

    /// Asks for a ping.
    pub(super) fn want_ping(&self) {
        let mut state = self.state.lock();
        state.ping = true;
        wake(&mut state.sender);
    }

    /// What a socket is to send next.
    pub(super) async fn next(&self, epoch: u64) -> Next {
        poll_fn(|context| self.poll_next(context, epoch)).await
    }

    fn poll_next(&self, context: &mut Context<'_>, epoch: u64) -> Poll<Next> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Poll::Ready(Next::Replaced);
        }
        if state.ping || state.bytes_sent > state.bytes_max / PINGS_PER_LIMIT {
            state.ping = false;
            state.bytes_sent = 0;
            return Poll::Ready(Next::Ping(state.sent));
        }
        let index = (state.sent - state.received) as usize;
        let Some(answer) = state.answers.get(index).cloned() else {
            state.sender = Some(context.waker().clone());
            return Poll::Pending;
        };
        state.sent += 1;
        state.bytes_sent += answer.len();
        if !self.keeps {
            let sent = state.sent;
            self.forget(&mut state, sent);
            state.bytes_sent = 0;
        }
        Poll::Ready(Next::Answer(answer))
    }

    fn forget(&self, state: &mut State, received: u64) {
        for _ in state.received..received {
            let answer = state.answers.pop_front();
            state.bytes -= answer.map_or(0, |answer| answer.len());
        }
        state.received = received;
        if state.answers.is_empty() {
            // An idle client costs no queue.
            state.answers = VecDeque::new();
        }
        if state.bytes < state.bytes_max {
            std::mem::take(&mut state.waiting)
                .into_iter()
                .for_each(Waker::wake);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(outbox: &Outbox, epoch: u64) -> Option<Next> {
        match outbox.poll_next(&mut Context::from_waker(Waker::noop()), epoch) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        }
    }

    fn has_room(outbox: &Outbox) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        outbox.poll_room(&mut context).is_ready()
    }

    fn answer(text: &'static str) -> Option<Next> {
        Some(Next::Answer(text.into()))
    }

    #[test]
    fn answers_are_kept_until_they_are_received() {
        let outbox = Outbox::new(8, true);
        let epoch = outbox.attach();
        for text in ["one", "two", "six"] {
            assert!(has_room(&outbox));
            outbox.push(text.as_bytes().to_vec());
        }
        assert!(!has_room(&outbox));
        assert_eq!(next(&outbox, epoch), answer("one"));
        assert_eq!(next(&outbox, epoch), Some(Next::Ping(1)));
        assert_eq!(next(&outbox, epoch), answer("two"));
        outbox.received(1);
        assert!(has_room(&outbox));
        // A client that was cut off has the first alone.
        let again = outbox.attach();
        assert_eq!(next(&outbox, epoch), Some(Next::Replaced));
        assert_eq!(outbox.rewind(0), None);
        assert_eq!(outbox.rewind(3), None);
        assert_eq!(outbox.rewind(1), Some(2));
        assert_eq!(next(&outbox, again), answer("two"));
        assert_eq!(next(&outbox, again), Some(Next::Ping(2)));
        assert_eq!(next(&outbox, again), answer("six"));
        outbox.received(7);
        outbox.received(3);
        assert_eq!(outbox.state.lock().bytes, 0);
    }

    #[test]
    fn who_reads_nothing_may_not_go_on() {
        let outbox = Outbox::new(8, true);
        let epoch = outbox.attach();
        for _ in 0..2 {
            assert!(outbox.push_unasked(b"four".to_vec()));
        }
        assert!(outbox.push_unasked(b"four".to_vec()));
        assert!(!outbox.push_unasked(b"four".to_vec()));
        while let Some(next) = next(&outbox, epoch) {
            if let Next::Ping(count) = next {
                outbox.received(count);
            }
        }
        outbox.received(4);
        assert!(outbox.push_unasked(b"four".to_vec()));
    }

    #[test]
    fn nothing_is_kept_where_nobody_comes_back() {
        let outbox = Outbox::new(8, false);
        let epoch = outbox.attach();
        outbox.push(b"a long answer".to_vec());
        assert!(!has_room(&outbox));
        assert_eq!(next(&outbox, epoch), answer("a long answer"));
        assert_eq!(next(&outbox, epoch), None);
        assert!(has_room(&outbox));
        outbox.want_ping();
        assert_eq!(next(&outbox, epoch), Some(Next::Ping(1)));
    }
}
