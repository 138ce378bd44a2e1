//! What a server still has to answer, in order, and for whom.
//!
//! Messages of the client and of the pool itself go to a server in one stream. Postgres answers them in order, and leaves
//! out what comes between an error and the next `Sync`: whoever keeps the same account knows of each answer whose it is, and
//! when the server is free.
//!
//! Not so of what was sent behind something that begins a `COPY`: a `Sync` is ignored if the server has read it as a part of
//! the data, and answered if the `COPY` has failed before, which cannot be told apart. So nothing is sent until it has begun,
//! and no `Sync` amid it.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::pg::TransactionStatus;
use wire::pg::backend::kind;

/// A statement's number in its pool.
pub(crate) type StatementId = u64;

/// A message that awaits its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Awaited {
    Parse {
        /// The statement of the pool that the server knows by name afterwards.
        named: Option<StatementId>,
        whose: Whose,
    },
    Bind,
    Describe,
    Close {
        /// The statement of the pool that the server knows no longer afterwards.
        named: Option<StatementId>,
        whose: Whose,
    },
    Execute,
    Query(Whose),
    FunctionCall,
    Sync(Whose),
    /// An answer of the pool's own, to be told when it is its turn.
    Told(Bytes),
    /// A message that the server was made to refuse, so that all that an error takes along goes with it: its error is not
    /// told, but the pool's own.
    Refused {
        answer: Bytes,
        /// By a simple query, of which there is a `ReadyForQuery` behind the error.
        by_query: bool,
    },
    /// The pool's `CopyFail`, before the server has said that it copies: what comes behind is no part of that `COPY`. Never
    /// the first, as there is no answer to it.
    CopyFail,
}

/// Who wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Client,
    /// Nobody but the pool.
    Pool,
}

/// What becomes of a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is the client's.
    Forward,
    /// It is the pool's.
    Swallow,
    /// It is the pool's, and an error.
    Failed,
    /// It is nobody's: this is told.
    Instead(Bytes),
    /// Nobody has asked for it: the account is wrong, or the server.
    Unexpected,
}

/// The account.
#[derive(Debug, Default)]
pub(crate) struct Account {
    awaited: VecDeque<Awaited>,
    /// Messages up to the next `Sync` are left out by the server.
    skips: bool,
    /// The server takes the data of a `COPY`.
    copies_in: bool,
    /// What was sent last may begin a `COPY` whose data the client sends, or another behind the one under way.
    may_copy: bool,
    /// Messages have been sent that no `Sync` has ended, or that the server leaves out until there is one.
    is_open: bool,
    status: Option<TransactionStatus>,
    /// Statements that the server has come to know by name.
    pub(crate) prepared: Vec<StatementId>,
    /// Statements that it knows no longer.
    pub(crate) closed: Vec<StatementId>,
    /// Statements that it was to know no longer, which it has left out.
    pub(crate) unclosed: Vec<StatementId>,
}

impl Account {
    /// Of a server that is idle.
    pub(crate) fn idle() -> Self {
        Self {
            status: Some(TransactionStatus::Idle),
            ..Self::default()
        }
    }

    /// Where the server's session stands, as far as it has been told.
    pub(crate) fn status(&self) -> TransactionStatus {
        self.status.unwrap_or(TransactionStatus::Idle)
    }

    /// Whether nothing is under way and no transaction is open.
    pub(crate) fn is_free(&self) -> bool {
        self.is_quiet() && self.status() == TransactionStatus::Idle
    }

    /// Whether nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.awaited.is_empty() && !self.is_open && !self.copies_in
    }

    /// Whether the server waits for the data of a `COPY`.
    pub(crate) fn copies_in(&self) -> bool {
        self.copies_in
    }

    /// What was sent just now may begin a `COPY`: until that is known nothing else may be sent.
    pub(crate) fn expects_copy(&mut self) {
        self.may_copy = true;
    }

    /// Whether what the client sends has to wait until the server has said whether it copies.
    pub(crate) fn holds(&self) -> bool {
        self.may_copy && !self.copies_in && !self.awaited.is_empty()
    }

    /// Whether an answer is outstanding that somebody waits for: not so between `Flush` and the next message.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// A message goes to the server, or would have: whether it awaits an answer.
    pub(crate) fn sent(&mut self, message: Awaited) -> bool {
        self.may_copy = false;
        match message {
            Awaited::Sync(_) => {
                self.skips = false;
                self.is_open = false;
            }
            Awaited::Query(_) | Awaited::FunctionCall | Awaited::Refused { by_query: true, .. } => {
                // After an error these, too, are left out up to the next `Sync`.
                if self.skips {
                    return false;
                }
                self.is_open = false;
            }
            _ => {
                self.is_open = true;
                if self.skips {
                    if let Awaited::Close { named, .. } = message {
                        self.unclosed.extend(named);
                    }
                    return false;
                }
            }
        }
        self.awaited.push_back(message);
        true
    }

    /// The client's `CopyDone` or `CopyFail` goes to the server, which ignores it where it does not copy.
    pub(crate) fn copy_ends(&mut self) {
        self.copies_in = false;
    }

    /// The pool's `CopyFail` goes to the server, for the `COPY` under way or one that is about to begin.
    pub(crate) fn copy_fails(&mut self) {
        if !std::mem::take(&mut self.copies_in) && !self.awaited.is_empty() {
            self.awaited.push_back(Awaited::CopyFail);
        }
    }

    /// Whether the server is about to learn of a statement.
    pub(crate) fn will_prepare(&self, id: StatementId) -> bool {
        let of_it = |message: &Awaited| matches!(message, Awaited::Parse { named, .. } if *named == Some(id));
        self.awaited.iter().any(of_it)
    }

    /// What it is about to learn is dropped by what is sent now: which statements these are.
    pub(crate) fn drops_prepared(&mut self) -> Vec<StatementId> {
        let named = |message: &mut Awaited| match message {
            Awaited::Parse { named, .. } => named.take(),
            _ => None,
        };
        self.awaited.iter_mut().filter_map(named).collect()
    }

    /// Messages that await their answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.awaited.len()
    }

    /// Whether nothing is under way but what the pool has asked itself, and no transaction is open.
    pub(crate) fn is_free_for_clients(&self) -> bool {
        let is_own = |message: &Awaited| *message == Awaited::Query(Whose::Pool);
        self.status() == TransactionStatus::Idle
            && !self.is_open
            && !self.copies_in
            && self.awaited.iter().all(is_own)
    }

    /// Whether the next answer is to a statement of the pool's own.
    pub(crate) fn is_at_own_query(&self) -> bool {
        self.awaited.front() == Some(&Awaited::Query(Whose::Pool))
    }

    /// Whether the next answer is to a message that ends by itself, without a `Sync`.
    pub(crate) fn is_at_query(&self) -> bool {
        matches!(
            self.awaited.front(),
            Some(
                Awaited::Query(_) | Awaited::FunctionCall | Awaited::Refused { by_query: true, .. }
            )
        )
    }

    /// Whether the next answer is to a `Bind`.
    pub(crate) fn is_at_bind(&self) -> bool {
        self.awaited.front() == Some(&Awaited::Bind)
    }

    /// Whether nothing is under way that runs something, and no transaction is open.
    pub(crate) fn has_begun_nothing(&self) -> bool {
        let prepares = |message: &Awaited| {
            matches!(
                message,
                Awaited::Parse { .. }
                    | Awaited::Told(_)
                    | Awaited::Close { .. }
                    | Awaited::Query(Whose::Pool)
            )
        };
        self.status() == TransactionStatus::Idle
            && !self.copies_in
            && !self.skips
            && self.awaited.iter().all(prepares)
    }

    /// The server has answered a `Bind` with an error, and what came with it is to be sent again: the messages that await
    /// their answer until the next `Sync`, that one included. From now on the server's answer to the `Sync` is the pool's.
    /// Nothing if the server has more than these. Where there is no `Sync` yet, the pool has to send one.
    pub(crate) fn takes_back(&mut self) -> Option<Vec<Awaited>> {
        let is_sync = |message: &Awaited| matches!(message, Awaited::Sync(_));
        let end = self.awaited.iter().position(is_sync);
        if self.awaited.front() != Some(&Awaited::Bind)
            || end.is_some_and(|end| end + 1 < self.awaited.len())
        {
            return None;
        }
        let taken = self.awaited.drain(..).collect();
        self.skips = false;
        self.is_open = false;
        self.awaited.push_back(Awaited::Sync(Whose::Pool));
        Some(taken)
    }

    /// Whether a `Describe` has not been answered yet.
    pub(crate) fn awaits_describe(&self) -> bool {
        self.awaited.contains(&Awaited::Describe)
    }

    /// Answers of the pool's own whose turn it is.
    pub(crate) fn told(&mut self) -> Option<Bytes> {
        match self.awaited.front() {
            Some(Awaited::Told(_)) => match self.next() {
                Some(Awaited::Told(answer)) => Some(answer),
                _ => None,
            },
            _ => None,
        }
    }

    /// What the server has answered.
    fn next(&mut self) -> Option<Awaited> {
        let next = self.awaited.pop_front();
        while self.awaited.front() == Some(&Awaited::CopyFail) {
            self.awaited.pop_front();
        }
        next
    }

    /// A message of the server has come; for `ReadyForQuery` with the status that it tells.
    pub(crate) fn received(&mut self, kind: u8, status: Option<TransactionStatus>) -> Fate {
        match kind {
            // They come at any time.
            kind::NOTICE_RESPONSE | kind::PARAMETER_STATUS => self.whose_now(),
            // Nobody but the client listens, whatever the server is about to answer.
            kind::NOTIFICATION_RESPONSE => Fate::Forward,
            kind::PARSE_COMPLETE => match self.next() {
                Some(Awaited::Parse { named, whose }) => {
                    self.prepared.extend(named);
                    fate(whose)
                }
                _ => Fate::Unexpected,
            },
            kind::BIND_COMPLETE => self.pop(|front| *front == Awaited::Bind),
            kind::CLOSE_COMPLETE => match self.next() {
                Some(Awaited::Close { named, whose }) => {
                    self.closed.extend(named);
                    fate(whose)
                }
                _ => Fate::Unexpected,
            },
            kind::ROW_DESCRIPTION | kind::NO_DATA
                if self.awaited.front() == Some(&Awaited::Describe) =>
            {
                self.pop(|_| true)
            }
            kind::COMMAND_COMPLETE | kind::EMPTY_QUERY_RESPONSE | kind::PORTAL_SUSPENDED
                if self.awaited.front() == Some(&Awaited::Execute) =>
            {
                self.copies_in = false;
                self.pop(|_| true)
            }
            kind::COPY_IN_RESPONSE => self.copy_begins(),
            kind::ERROR_RESPONSE => self.failed(),
            kind::READY_FOR_QUERY => self.ready(status),
            _ => match self.awaited.front() {
                Some(Awaited::Query(whose)) => fate(*whose),
                Some(Awaited::Execute | Awaited::Describe | Awaited::FunctionCall) => Fate::Forward,
                _ => Fate::Unexpected,
            },
        }
    }

    /// Who would hear of what happens now.
    fn whose_now(&self) -> Fate {
        match self.awaited.front() {
            Some(
                Awaited::Query(Whose::Pool)
                | Awaited::Parse {
                    whose: Whose::Pool, ..
                }
                | Awaited::Close {
                    whose: Whose::Pool, ..
                }
                | Awaited::Sync(Whose::Pool),
            ) => Fate::Swallow,
            _ => Fate::Forward,
        }
    }

    fn pop(&mut self, is_right: impl Fn(&Awaited) -> bool) -> Fate {
        match self.next() {
            Some(front) if is_right(&front) => Fate::Forward,
            _ => Fate::Unexpected,
        }
    }

    fn copy_begins(&mut self) -> Fate {
        let fate = match self.awaited.front() {
            Some(Awaited::Execute) => {
                self.may_copy = false;
                Fate::Forward
            }
            Some(Awaited::Query(whose)) => fate(*whose),
            _ => return Fate::Unexpected,
        };
        self.copies_in = match self.awaited.get(1) {
            None => true,
            Some(Awaited::CopyFail) => {
                self.awaited.remove(1);
                false
            }
            // It is read as a part of the data, or was: nobody knows how much of it.
            Some(_) => return Fate::Unexpected,
        };
        fate
    }

    fn failed(&mut self) -> Fate {
        self.copies_in = false;
        match self.awaited.front() {
            Some(Awaited::Query(whose)) => return failure(*whose),
            Some(Awaited::FunctionCall) => return Fate::Forward,
            Some(Awaited::Refused {
                answer,
                by_query: true,
            }) => return Fate::Instead(answer.clone()),
            _ => {}
        }
        let failed = match self.awaited.front() {
            Some(Awaited::Refused { answer, .. }) => Fate::Instead(answer.clone()),
            Some(
                Awaited::Parse { whose, .. } | Awaited::Close { whose, .. } | Awaited::Sync(whose),
            ) => failure(*whose),
            _ => Fate::Forward,
        };
        while let Some(front) = self.awaited.front() {
            if matches!(front, Awaited::Sync(_)) {
                return failed;
            }
            if let Some(Awaited::Close { named, .. }) = self.next() {
                self.unclosed.extend(named);
            }
        }
        self.skips = true;
        // A `Sync` is wanted, also where a simple query was left out that would have ended by itself.
        self.is_open = true;
        failed
    }

    fn ready(&mut self, status: Option<TransactionStatus>) -> Fate {
        self.status = status.or(self.status);
        self.copies_in = false;
        match self.next() {
            Some(Awaited::Query(whose) | Awaited::Sync(whose)) => fate(whose),
            Some(Awaited::FunctionCall | Awaited::Refused { by_query: true, .. }) => Fate::Forward,
            _ => Fate::Unexpected,
        }
    }
}

fn fate(whose: Whose) -> Fate {
    match whose {
        Whose::Client => Fate::Forward,
        Whose::Pool => Fate::Swallow,
    }
}

fn failure(whose: Whose) -> Fate {
    match whose {
        Whose::Client => Fate::Forward,
        Whose::Pool => Fate::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_the_clients_and_the_sync_before_it_is_not() {
        let mut account = Account::idle();
        assert!(account.has_begun_nothing());
        for message in [
            Awaited::Bind,
            Awaited::Describe,
            Awaited::Execute,
            Awaited::Sync(Whose::Client),
        ] {
            account.sent(message);
        }
        assert!(!account.has_begun_nothing());
        let taken = account.takes_back().unwrap();
        assert_eq!(taken.len(), 4);
        for message in taken {
            account.sent(message);
        }
        let idle = Some(TransactionStatus::Idle);
        assert_eq!(account.received(kind::READY_FOR_QUERY, idle), Fate::Swallow);
        assert_eq!(account.received(kind::BIND_COMPLETE, None), Fate::Forward);
        assert_eq!(account.received(kind::ROW_DESCRIPTION, None), Fate::Forward);
        assert_eq!(
            account.received(kind::COMMAND_COMPLETE, None),
            Fate::Forward
        );
        assert_eq!(account.received(kind::READY_FOR_QUERY, idle), Fate::Forward);
        assert!(account.is_free());
        // What came behind the `Sync` is under way already.
        for message in [Awaited::Bind, Awaited::Sync(Whose::Client), Awaited::Bind] {
            account.sent(message);
        }
        assert_eq!(account.takes_back(), None);
    }

    const CLIENT: Whose = Whose::Client;

    fn parse(named: Option<StatementId>, whose: Whose) -> Awaited {
        Awaited::Parse { named, whose }
    }

    fn idle(account: &mut Account) -> Fate {
        account.received(b'Z', Some(TransactionStatus::Idle))
    }

    #[test]
    fn a_simple_query() {
        let mut account = Account::idle();
        account.sent(Awaited::Query(CLIENT));
        assert!(!account.is_free());
        for kind in *b"TDDC" {
            assert_eq!(account.received(kind, None), Fate::Forward);
        }
        let status = Some(TransactionStatus::InTransaction);
        assert_eq!(account.received(b'Z', status), Fate::Forward);
        assert!(account.is_quiet() && !account.is_free());
    }

    #[test]
    fn what_the_client_listens_for_is_told_whatever_the_pool_asks() {
        for own in [
            Awaited::Query(Whose::Pool),
            parse(Some(7), Whose::Pool),
            Awaited::Sync(Whose::Pool),
        ] {
            let mut account = Account::idle();
            account.sent(own);
            assert_eq!(account.received(kind::NOTICE_RESPONSE, None), Fate::Swallow);
            let heard = account.received(kind::NOTIFICATION_RESPONSE, None);
            assert_eq!(heard, Fate::Forward);
        }
    }

    #[test]
    fn what_the_pool_puts_in_is_the_pools() {
        let mut account = Account::idle();
        account.sent(parse(Some(7), Whose::Pool));
        account.sent(Awaited::Bind);
        account.sent(Awaited::Execute);
        account.sent(Awaited::Sync(CLIENT));
        assert_eq!(account.received(b'1', None), Fate::Swallow);
        assert_eq!(account.prepared, [7]);
        assert_eq!(account.received(b'2', None), Fate::Forward);
        assert_eq!(account.received(b'D', None), Fate::Forward);
        assert_eq!(account.received(b'C', None), Fate::Forward);
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(account.is_free());
    }

    #[test]
    fn after_an_error_the_rest_is_left_out() {
        let mut account = Account::idle();
        for message in [parse(Some(1), CLIENT), Awaited::Bind, Awaited::Execute] {
            account.sent(message);
        }
        assert_eq!(account.received(b'E', None), Fate::Forward);
        // What still comes is left out as well.
        account.sent(parse(Some(2), CLIENT));
        account.sent(Awaited::Told(Bytes::new()));
        assert_eq!(account.told(), None);
        account.sent(Awaited::Sync(CLIENT));
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(account.is_free() && account.prepared.is_empty());
    }

    #[test]
    fn what_is_dropped_behind_is_not_known() {
        let mut account = Account::idle();
        account.sent(parse(Some(1), CLIENT));
        account.sent(Awaited::Query(CLIENT));
        assert_eq!(account.drops_prepared(), [1]);
        assert!(!account.will_prepare(1));
        account.sent(parse(Some(1), Whose::Pool));
        assert_eq!(account.received(b'1', None), Fate::Forward);
        assert!(account.prepared.is_empty());
        account.received(b'C', None);
        idle(&mut account);
        assert_eq!(account.received(b'1', None), Fate::Swallow);
        assert_eq!(account.prepared, [1]);
    }

    #[test]
    fn flush_without_sync_keeps_the_server() {
        let mut account = Account::idle();
        account.sent(parse(None, CLIENT));
        account.sent(Awaited::Describe);
        for kind in *b"1tn" {
            assert_eq!(account.received(kind, None), Fate::Forward);
        }
        assert!(!account.is_waiting() && !account.is_free());
        account.sent(Awaited::Sync(CLIENT));
        idle(&mut account);
        assert!(account.is_free());
    }

    #[test]
    fn own_answers_keep_their_place() {
        let mut account = Account::idle();
        account.sent(Awaited::Told(Bytes::from_static(b"a")));
        account.sent(Awaited::Bind);
        account.sent(Awaited::Told(Bytes::from_static(b"b")));
        assert_eq!(account.told().as_deref(), Some(&b"a"[..]));
        assert_eq!(account.told(), None);
        account.received(b'2', None);
        assert_eq!(account.told().as_deref(), Some(&b"b"[..]));
    }

    /// Sends what may begin a `COPY`.
    fn may_copy(account: &mut Account, message: Awaited) {
        account.sent(message);
        account.expects_copy();
    }

    #[test]
    fn nothing_is_sent_behind_a_copy_before_it_has_begun() {
        let mut account = Account::idle();
        may_copy(&mut account, Awaited::Execute);
        assert!(account.holds() && !account.copies_in());
        assert_eq!(account.received(b'G', None), Fate::Forward);
        assert!(!account.holds() && account.copies_in());
        account.copy_ends();
        // From here on it is as with anything else.
        assert!(!account.holds() && !account.is_quiet());
        account.sent(Awaited::Sync(CLIENT));
        assert_eq!(account.received(b'C', None), Fate::Forward);
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(account.is_free());
        // It does not begin.
        may_copy(&mut account, Awaited::Execute);
        assert_eq!(account.received(b'E', None), Fate::Forward);
        assert!(!account.holds() && !account.is_quiet());
        account.copy_ends();
        account.sent(Awaited::Sync(CLIENT));
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(account.is_free());
    }

    #[test]
    fn one_text_may_copy_more_than_once() {
        let mut account = Account::idle();
        may_copy(&mut account, Awaited::Query(CLIENT));
        for _ in 0..2 {
            assert!(account.holds());
            assert_eq!(account.received(b'G', None), Fate::Forward);
            assert!(!account.holds() && account.copies_in());
            account.copy_ends();
            assert!(account.holds());
            assert_eq!(account.received(b'C', None), Fate::Forward);
        }
        assert!(account.holds());
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(!account.holds() && account.is_free());
    }

    #[test]
    fn a_copy_that_is_given_up_before_it_has_begun() {
        for kinds in [&b"GE"[..], b"E"] {
            let mut account = Account::idle();
            may_copy(&mut account, Awaited::Execute);
            account.copy_fails();
            account.sent(Awaited::Sync(Whose::Pool));
            account.sent(Awaited::Query(Whose::Pool));
            for kind in kinds {
                assert_eq!(account.received(*kind, None), Fate::Forward);
            }
            assert!(!account.copies_in());
            assert_eq!(idle(&mut account), Fate::Swallow);
            assert_eq!(account.received(b'C', None), Fate::Swallow);
            assert_eq!(idle(&mut account), Fate::Swallow);
            assert!(account.is_free());
        }
    }

    #[test]
    fn a_copy_that_nobody_expected_is_noticed() {
        let mut account = Account::idle();
        account.sent(Awaited::Execute);
        account.sent(Awaited::Sync(CLIENT));
        assert_eq!(account.received(b'G', None), Fate::Unexpected);
    }

    #[test]
    fn a_server_that_leaves_out_is_not_free() {
        for behind in [Awaited::Query(CLIENT), Awaited::FunctionCall] {
            let mut account = Account::idle();
            account.sent(parse(None, CLIENT));
            account.sent(behind);
            assert_eq!(account.received(b'E', None), Fate::Forward);
            assert!(!account.is_free() && !account.is_free_for_clients());
            assert!(!account.has_begun_nothing());
            account.sent(Awaited::Sync(CLIENT));
            assert_eq!(idle(&mut account), Fate::Forward);
            assert!(account.is_free());
        }
    }

    fn refused(by_query: bool) -> Awaited {
        Awaited::Refused {
            answer: Bytes::from_static(b"no"),
            by_query,
        }
    }

    #[test]
    fn what_is_refused_fails_like_anything_else() {
        let told = Fate::Instead(Bytes::from_static(b"no"));
        let mut account = Account::idle();
        account.sent(Awaited::Bind);
        account.sent(Awaited::Execute);
        account.sent(refused(false));
        account.sent(Awaited::Sync(CLIENT));
        account.sent(refused(true));
        assert_eq!(account.received(b'2', None), Fate::Forward);
        assert_eq!(account.received(b'C', None), Fate::Forward);
        assert_eq!(account.received(b'E', None), told);
        assert_eq!(idle(&mut account), Fate::Forward);
        assert_eq!(account.received(b'E', None), told);
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(account.is_free());
        // Behind another error it is left out.
        account.sent(Awaited::Bind);
        account.sent(refused(false));
        account.sent(refused(true));
        account.sent(Awaited::Sync(CLIENT));
        assert_eq!(account.received(b'E', None), Fate::Forward);
        assert_eq!(idle(&mut account), Fate::Forward);
        assert!(account.is_free());
    }

    #[test]
    fn what_nobody_asked_for_is_noticed() {
        let mut account = Account::idle();
        assert_eq!(account.received(b'N', None), Fate::Forward);
        assert_eq!(account.received(b'D', None), Fate::Unexpected);
        assert_eq!(idle(&mut account), Fate::Unexpected);
        account.sent(Awaited::Query(CLIENT));
        assert_eq!(account.received(b'2', None), Fate::Unexpected);
    }

    #[test]
    fn errors_of_the_pools_own_are_no_clients() {
        let mut account = Account::idle();
        account.sent(Awaited::Query(Whose::Pool));
        account.sent(Awaited::Query(CLIENT));
        assert_eq!(account.received(b'E', None), Fate::Failed);
        assert_eq!(idle(&mut account), Fate::Swallow);
        assert_eq!(account.received(b'C', None), Fate::Forward);
    }
}
