//! Messages that are held until it is known what they ask, and whether a server is needed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use wire::PgError;
use wire::pg::frontend::{self, Bind, Execute, Parse, kind};
use wire::pg::{Frame, Target};

use super::Client;
use super::cached::Answer;
use crate::awaited::{Awaited, Whose};
use crate::cache::{Again, CacheStatus};
use crate::statements::Statement;

/// Messages that wait for their `Sync`.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) frames: Vec<Frame>,
    pub(super) statement: Option<Arc<Statement>>,
    /// The name that the statement gets, if it is prepared here.
    pub(super) name: Option<Bytes>,
    pub(super) portal: Bytes,
    /// What is behind the names in `Bind`.
    pub(super) bind: Bytes,
    pub(super) describes: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Keeps a message until `Sync`, if an answer may be found then.
    pub(super) fn hold(&mut self, frame: &Frame) -> bool {
        let last = self.cached.held.frames.last().map(Frame::kind);
        let held = match (frame.kind(), last) {
            (kind::PARSE, None) => self.hold_parse(frame),
            (kind::BIND, None | Some(kind::PARSE)) => self.hold_bind(frame),
            (kind::DESCRIBE, Some(kind::BIND)) => {
                let target = frontend::decode_target(frame.body());
                let is_portal =
                    matches!(target, Ok((Target::Portal, name)) if name == self.cached.held.portal);
                self.cached.held.describes |= is_portal;
                is_portal
            }
            (kind::EXECUTE, Some(kind::BIND | kind::DESCRIBE)) => {
                let execute = Execute::decode(frame.body());
                execute.is_ok_and(|execute| {
                    execute.rows_max <= 0 && execute.portal == self.cached.held.portal
                })
            }
            _ => false,
        };
        if held {
            self.cached.held.frames.push(frame.clone());
        }
        held
    }

    /// Of a statement that no server has taken yet.
    fn hold_parse(&mut self, frame: &Frame) -> bool {
        let Ok(parse) = Parse::decode(frame.body()) else {
            return false;
        };
        let statement = self.statement_of(&parse);
        if statement.is_valid()
            || self.statements.contains_key(parse.statement)
            || self.expect_room(&parse).is_err()
            || self.judge_statement(&statement).is_err()
        {
            return false;
        }
        self.cached.held.name = Some(Bytes::copy_from_slice(parse.statement));
        self.cached.held.statement = Some(statement);
        true
    }

    fn hold_bind(&mut self, frame: &Frame) -> bool {
        let Ok((portal, name)) = Bind::decode_names(frame.body()) else {
            return false;
        };
        let statement = match &self.cached.held.name {
            Some(own) if own == name => self.cached.held.statement.clone(),
            Some(_) => None,
            None => self.statement(name).ok(),
        };
        let Some(statement) = statement else {
            return false;
        };
        if self.keeps_dates(&statement) || self.judge_statement(&statement).is_err() {
            return false;
        }
        let names = portal.len() + name.len() + 2;
        // Shares the frame's bytes: 5 are its header.
        self.cached.held.bind = frame.bytes().slice(5 + names..);
        self.cached.held.portal = Bytes::copy_from_slice(portal);
        self.cached.held.statement = Some(statement);
        true
    }

    fn judge_statement(&self, statement: &Statement) -> Result<(), CacheStatus> {
        self.pool.cache.judge_text(&statement.facts, &self.settings)
    }

    /// Whether what is held is a query as a whole.
    pub(super) fn is_whole(&self) -> bool {
        let last = self.cached.held.frames.last().map(Frame::kind);
        last == Some(kind::EXECUTE)
    }

    /// Sends what is held the usual way, and the message behind it.
    pub(super) async fn release(&mut self, frame: &Frame) -> Result<Answer, PgError> {
        let held = std::mem::take(&mut self.cached.held);
        for frame in held.frames {
            if self.skips {
                // Up to the next `Sync`.
                break;
            }
            if self.lease.is_none() {
                if self.needs_no_server(&frame)? {
                    continue;
                }
                if !self.lease_for(&frame).await? {
                    return Ok(Answer::Left);
                }
                if self.lease.is_none() {
                    continue;
                }
            }
            self.deliver(frame).await?;
        }
        if self.skips {
            self.skip(frame);
            return Ok(Answer::Done);
        }
        Ok(Answer::Pass)
    }

    /// The question once more, for the cache.
    pub(super) fn again(&self, frame: &Frame) -> Option<Again> {
        let mut messages = BytesMut::new();
        let settings = self.settings.clone();
        let held = &self.cached.held;
        let Some(statement) = &held.statement else {
            messages.extend_from_slice(frame.bytes());
            return Some(Again {
                settings,
                messages: messages.freeze(),
                awaited: vec![Awaited::Query(Whose::Pool)],
            });
        };
        let whose = Whose::Pool;
        let mut awaited = vec![Awaited::Parse { named: None, whose }, Awaited::Bind];
        statement.parse(false, &mut messages).ok()?;
        super::messages::put(&mut messages, kind::BIND, &[b"\0\0", &held.bind]).ok()?;
        if held.describes {
            frontend::describe(&mut messages, Target::Portal, b"").ok()?;
            awaited.push(Awaited::Describe);
        }
        let execute = Execute {
            portal: b"",
            rows_max: 0,
        };
        execute.encode(&mut messages).ok()?;
        frontend::sync(&mut messages);
        awaited.extend([Awaited::Execute, Awaited::Sync(whose)]);
        Some(Again {
            settings,
            messages: messages.freeze(),
            awaited,
        })
    }
}
