//! Database statements over the extended protocol: prepared, bound and described without the
//! backend, which must never see them.

use std::collections::HashMap;

use bytes::BytesMut;
use wire::PgError;
use wire::pg::frontend::{self, Bind, Execute, Parse};
use wire::pg::{DatabaseStatement, Frame, Target, backend, statement};

/// What to do with a frontend message.
pub(crate) enum Handling {
    /// It is the backend's.
    Backend,
    /// It is answered; the answer is in the output.
    Answered,
    /// A portal of ours is executed.
    Execute(DatabaseStatement),
    /// The session is to be told an error, and messages up to the next `Sync` are to be dropped.
    Refused(PgError),
}

/// Prepared database statements of one session, and the portals bound to them.
#[derive(Default)]
pub(crate) struct Statements {
    prepared: HashMap<Vec<u8>, DatabaseStatement>,
    portals: HashMap<Vec<u8>, DatabaseStatement>,
}

impl Statements {
    /// Whether `message` may concern a database statement: all others pass untouched.
    pub(crate) fn concerns(&self, message: &Frame) -> bool {
        match message.kind() {
            frontend::kind::PARSE => {
                !self.prepared.is_empty()
                    || Parse::decode(message.body()).is_ok_and(|parse| {
                        matches!(statement::database_statement(parse.sql), Ok(Some(_)))
                    })
            }
            frontend::kind::BIND
            | frontend::kind::DESCRIBE
            | frontend::kind::EXECUTE
            | frontend::kind::CLOSE => !self.prepared.is_empty() || !self.portals.is_empty(),
            _ => false,
        }
    }

    /// Answers a message into `output`, if it is about a database statement.
    pub(crate) fn handle(&mut self, message: &Frame, output: &mut BytesMut) -> Handling {
        self.try_handle(message, output)
            .unwrap_or_else(Handling::Refused)
    }

    fn try_handle(&mut self, message: &Frame, output: &mut BytesMut) -> Result<Handling, PgError> {
        let body = message.body();
        match message.kind() {
            frontend::kind::PARSE => {
                let parse = Parse::decode(body)?;
                match statement::database_statement(parse.sql)? {
                    Some(found) => {
                        self.prepared.insert(parse.statement.to_vec(), found);
                        backend::parse_complete(output);
                        return Ok(Handling::Answered);
                    }
                    // The name now means another statement.
                    None => drop(self.prepared.remove(parse.statement)),
                }
            }
            frontend::kind::BIND => {
                let (portal, name) = Bind::decode_names(body)?;
                match self.prepared.get(name).cloned() {
                    Some(found) => {
                        self.portals.insert(portal.to_vec(), found);
                        backend::bind_complete(output);
                        return Ok(Handling::Answered);
                    }
                    None => drop(self.portals.remove(portal)),
                }
            }
            frontend::kind::DESCRIBE => match frontend::decode_target(body)? {
                (Target::Statement, name) if self.prepared.contains_key(name) => {
                    backend::parameter_description(output, &[]);
                    backend::no_data(output);
                    return Ok(Handling::Answered);
                }
                (Target::Portal, name) if self.portals.contains_key(name) => {
                    backend::no_data(output);
                    return Ok(Handling::Answered);
                }
                _ => {}
            },
            frontend::kind::EXECUTE => {
                if let Some(found) = self.portals.get(Execute::decode(body)?.portal) {
                    return Ok(Handling::Execute(found.clone()));
                }
            }
            frontend::kind::CLOSE => {
                let (target, name) = frontend::decode_target(body)?;
                let removed = match target {
                    Target::Statement => self.prepared.remove(name),
                    Target::Portal => self.portals.remove(name),
                };
                if removed.is_some() {
                    backend::close_complete(output);
                    return Ok(Handling::Answered);
                }
            }
            _ => {}
        }
        Ok(Handling::Backend)
    }
}
