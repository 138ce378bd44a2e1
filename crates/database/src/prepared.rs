//! Prepared statements that a session has, and its present process has not yet: they are prepared there when
//! they are asked for.

use bytes::BytesMut;
use engine::PreparedStatement;
use wire::PgError;
use wire::pg::frontend::{self, Bind, Parse};
use wire::pg::{Frame, Target, frames, statement};

/// Words by which a query may mean prepared statements.
const WORDS: [&str; 5] = [
    "execute",
    "prepare",
    "deallocate",
    "discard",
    "pg_prepared_statements",
];

/// The statements that are not in the process.
#[derive(Debug, Default)]
pub(crate) struct Absent(Vec<PreparedStatement>);

impl Absent {
    pub(crate) fn add(&mut self, statements: Vec<PreparedStatement>) {
        self.0.extend(statements);
    }

    /// All of them, when the session leaves its process again.
    pub(crate) fn take(&mut self) -> Vec<PreparedStatement> {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that must be in the process before a message is.
    pub(crate) fn wanted(&mut self, frame: &Frame) -> Vec<PreparedStatement> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let body = frame.body();
        let name = match frame.kind() {
            frontend::kind::QUERY => {
                // A simple query ends the unnamed statement.
                self.0.retain(|statement| !statement.name.is_empty());
                return match frontend::decode_query(body) {
                    Ok(text) => self.for_text(text),
                    Err(_) => Vec::new(),
                };
            }
            frontend::kind::PARSE => match Parse::decode(body) {
                Ok(parse) if parse.statement.is_empty() => {
                    self.0.retain(|statement| !statement.name.is_empty());
                    return self.for_text(parse.sql);
                }
                Ok(parse) => {
                    let mut wanted = self.for_text(parse.sql);
                    wanted.extend(self.named(parse.statement));
                    return wanted;
                }
                Err(_) => return Vec::new(),
            },
            frontend::kind::BIND => Bind::decode_names(body).map(|(_, name)| name).ok(),
            // What is closed in a pipeline that has failed stays.
            frontend::kind::DESCRIBE | frontend::kind::CLOSE => match frontend::decode_target(body)
            {
                Ok((Target::Statement, name)) => Some(name),
                _ => None,
            },
            _ => None,
        };
        match name {
            Some(name) => self.named(name),
            None => Vec::new(),
        }
    }

    /// Those of `PREPARE`, if any of the messages may mean them.
    pub(crate) fn wanted_sql(&mut self, messages: &[u8]) -> Vec<PreparedStatement> {
        if !self.0.iter().any(|statement| statement.by_sql) {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for (kind, body) in frames(messages) {
            let name = match kind {
                frontend::kind::BIND => Bind::decode_names(body).map(|(_, name)| name).ok(),
                // A name that is taken cannot be given again.
                frontend::kind::PARSE => Parse::decode(body).map(|parse| parse.statement).ok(),
                frontend::kind::DESCRIBE | frontend::kind::CLOSE => {
                    match frontend::decode_target(body) {
                        Ok((Target::Statement, name)) => Some(name),
                        _ => None,
                    }
                }
                _ => None,
            };
            let name = name.filter(|name| !name.is_empty());
            wanted.extend(name.map(|name| self.named(name)).unwrap_or_default());
        }
        let texts = frames(messages).filter_map(|(kind, body)| match kind {
            frontend::kind::QUERY => frontend::decode_query(body).ok(),
            frontend::kind::PARSE => Parse::decode(body).ok().map(|parse| parse.sql),
            _ => None,
        });
        for text in texts {
            wanted.extend(self.for_text(text));
        }
        let (by_sql, others) = wanted.into_iter().partition(|found| found.by_sql);
        self.0.extend::<Vec<_>>(others);
        by_sql
    }

    fn named(&mut self, name: &[u8]) -> Vec<PreparedStatement> {
        let is_it = |statement: &PreparedStatement| statement.name.as_bytes() == name;
        match self.0.iter().position(is_it) {
            Some(place) => vec![self.0.swap_remove(place)],
            None => Vec::new(),
        }
    }

    /// Those that a text may mean: all, if it asks what there is, or else those whose names stand in it.
    fn for_text(&mut self, text: &[u8]) -> Vec<PreparedStatement> {
        if !WORDS.iter().any(|word| statement::mentions(text, word)) {
            return Vec::new();
        }
        if ends_all(text) {
            self.0.clear();
            return Vec::new();
        }
        if statement::mentions(text, "pg_prepared_statements") {
            return self.take();
        }
        let lower = text.to_ascii_lowercase();
        let named = |statement: &mut PreparedStatement| {
            let name = statement.name.to_ascii_lowercase().replace('"', "\"\"");
            !name.is_empty()
                && lower
                    .windows(name.len())
                    .any(|part| part == name.as_bytes())
        };
        self.0.extract_if(.., named).collect()
    }
}

/// Whether a text is one statement, which ends all that are prepared.
fn ends_all(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let text = text.trim().trim_end_matches(';');
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    matches!(
        words.as_slice(),
        ["discard" | "deallocate", "all"] | ["deallocate", "prepare", "all"]
    )
}

/// The messages that prepare a statement before a simple query, with their end, or amid an extended one,
/// without; none if that cannot be.
pub(crate) fn prepare(
    messages: &mut BytesMut,
    prepared: &PreparedStatement,
    before_query: bool,
) -> Result<(), PgError> {
    if prepared.by_sql {
        // Only a simple query makes it what it was.
        return match before_query {
            true => frontend::query(messages, prepared.sql.as_bytes()),
            false => Ok(()),
        };
    }
    let parse = Parse {
        statement: prepared.name.as_bytes(),
        sql: prepared.sql.as_bytes(),
        param_oids: prepared.parameter_types.clone(),
    };
    parse.encode(messages)?;
    if before_query {
        frontend::sync(messages);
    }
    Ok(())
}

/// The messages that close statements, with their end.
pub(crate) fn close(
    messages: &mut BytesMut,
    statements: &[PreparedStatement],
) -> Result<(), PgError> {
    for prepared in statements {
        frontend::close(messages, Target::Statement, prepared.name.as_bytes())?;
    }
    frontend::sync(messages);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(name: &str) -> PreparedStatement {
        PreparedStatement {
            name: name.to_owned(),
            sql: format!("SELECT '{name}'"),
            parameter_types: Vec::new(),
            by_sql: false,
        }
    }

    fn absent() -> Absent {
        Absent(["", "a", "b"].map(statement).to_vec())
    }

    fn wanted(absent: &mut Absent, write: impl FnOnce(&mut BytesMut)) -> Vec<String> {
        let mut bytes = BytesMut::new();
        write(&mut bytes);
        let frame = Frame::split(&mut bytes, usize::MAX).unwrap().unwrap();
        let mut names: Vec<_> = absent
            .wanted(&frame)
            .into_iter()
            .map(|statement| statement.name)
            .collect();
        names.sort();
        names
    }

    fn query(text: &str) -> impl FnOnce(&mut BytesMut) {
        move |bytes| frontend::query(bytes, text.as_bytes()).unwrap()
    }

    fn bind(name: &'static [u8]) -> impl FnOnce(&mut BytesMut) {
        move |bytes| {
            let bind = Bind {
                portal: b"",
                statement: name,
                params: Vec::new(),
                result_formats: Vec::new(),
            };
            bind.encode(bytes).unwrap();
        }
    }

    #[test]
    fn a_bind_wants_its_statement_once() {
        let mut absent = absent();
        assert_eq!(wanted(&mut absent, bind(b"a")), ["a"]);
        assert!(wanted(&mut absent, bind(b"a")).is_empty());
        assert_eq!(wanted(&mut absent, bind(b"")), [""]);
        assert!(wanted(&mut absent, bind(b"c")).is_empty());
    }

    #[test]
    fn a_query_ends_the_unnamed_one_and_may_mean_all_others() {
        let mut absent = absent();
        assert!(wanted(&mut absent, query("SELECT 1")).is_empty());
        assert!(wanted(&mut absent, bind(b"")).is_empty());
        assert_eq!(wanted(&mut absent, query("EXECUTE a")), ["a"]);
        assert!(wanted(&mut absent, query("DEALLOCATE ALL")).is_empty());
        assert!(absent.is_empty());
        let mut absent = self::absent();
        let sql = "SELECT * FROM pg_prepared_statements";
        assert_eq!(wanted(&mut absent, query(sql)), ["a", "b"]);
    }

    #[test]
    fn what_is_closed_or_made_anew_must_be_there() {
        let mut absent = absent();
        let close = |bytes: &mut BytesMut| {
            frontend::close(bytes, Target::Statement, b"a").unwrap();
        };
        assert_eq!(wanted(&mut absent, close), ["a"]);
        assert!(wanted(&mut absent, bind(b"a")).is_empty());
        // It must be there for Postgres to say that it is.
        let parse = |bytes: &mut BytesMut| {
            let parse = Parse {
                statement: b"b",
                sql: b"SELECT 2",
                param_oids: Vec::new(),
            };
            parse.encode(bytes).unwrap();
        };
        assert_eq!(wanted(&mut absent, parse), ["b"]);
    }

    #[test]
    fn a_name_that_is_taken_is_there_before_messages_give_it_again() {
        let by_sql = PreparedStatement {
            by_sql: true,
            ..statement("a")
        };
        let mut absent = Absent(vec![by_sql, statement("b")]);
        let mut messages = BytesMut::new();
        for name in [&b"a"[..], b"b", b""] {
            let parse = Parse {
                statement: name,
                sql: b"SELECT 2",
                param_oids: Vec::new(),
            };
            parse.encode(&mut messages).unwrap();
        }
        let wanted = absent.wanted_sql(&messages);
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].name, "a");
    }
}
