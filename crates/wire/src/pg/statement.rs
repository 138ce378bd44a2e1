//! How many statements a text has, and which names it mentions.

use std::ops::Range;

use super::lexer::{Lexer, Token, TokenKind, contains_ignore_case};
use super::{DatabaseStatement, PgError};

/// Cuts a text into its statements: ranges of bytes from each one's first token to its last,
/// without `;`. Empty statements are none.
///
/// As psql does, a `;` within parentheses (`CREATE RULE`) or within `BEGIN ATOMIC ... END` of a
/// `CREATE FUNCTION` does not end a statement.
pub fn split(text: &[u8]) -> Result<Vec<Range<usize>>, PgError> {
    let mut lexer = Lexer::new(text);
    let mut statements = Vec::new();
    let mut open: Option<Open> = None;
    while let Some(token) = lexer.next()? {
        let inside = open
            .as_ref()
            .is_some_and(|open| open.parens > 0 || open.blocks > 0);
        if token.kind == TokenKind::Symbol(b';') && !inside {
            statements.extend(open.take().map(|open| open.range));
            continue;
        }
        open.get_or_insert_with(|| Open::new(token.start))
            .push(&token);
    }
    statements.extend(open.map(|open| open.range));
    Ok(statements)
}

/// The statement about a database that a text is, if it is one.
///
/// Almost no text contains the word: those are passed by without being cut into tokens. A database
/// statement among several is an error, as in PostgreSQL: together they would be one transaction.
/// A database statement is found by its first two words, which nothing but white space and comments
/// precede, so no setting of the session can hide one.
pub fn database_statement(text: &[u8]) -> Result<Option<DatabaseStatement>, PgError> {
    if !contains_ignore_case(text, b"database") {
        return Ok(None);
    }
    let statements = match split(text) {
        Ok(statements) => statements,
        Err(error) => {
            // Of other statements PostgreSQL will say itself what is wrong.
            return DatabaseStatement::command(text).map_or(Ok(None), |_| Err(error));
        }
    };
    if let [only] = &statements[..] {
        return DatabaseStatement::parse(text, only.start);
    }
    for statement in statements {
        if let Some(command) = DatabaseStatement::command(&text[statement]) {
            return Err(command.cannot_run_in_transaction());
        }
    }
    Ok(None)
}

/// How many parameters a statement has: the greatest number of `$1`, `$2`, ..., at most `u16::MAX`.
pub fn parameters(text: &[u8]) -> usize {
    let mut lexer = Lexer::new(text);
    let mut most = 0;
    while let Ok(Some(token)) = lexer.next() {
        if token.kind == TokenKind::Parameter {
            let number = str::from_utf8(&token.raw[1..]).ok();
            let number = number.and_then(|digits| digits.parse::<u16>().ok());
            most = most.max(number.unwrap_or(0));
        }
    }
    most.into()
}

/// Whether an identifier of the text, quoted or not, is this name, which is given in lower case.
/// True as well if it contains the name and cannot be read to its end.
pub fn mentions(text: &[u8], name: &str) -> bool {
    if !contains_ignore_case(text, name.as_bytes()) {
        return false;
    }
    let mut lexer = Lexer::new(text);
    loop {
        match lexer.next() {
            Ok(Some(token)) if token.is_identifier(name.as_bytes()) => return true,
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Whether a statement ends the transaction that it is in: `COMMIT`, `ROLLBACK`, `AND CHAIN` or not, and `PREPARE
/// TRANSACTION`; not `ROLLBACK TO SAVEPOINT`. Of a text with several it tells of the first.
pub fn ends_transaction(text: &[u8]) -> bool {
    let mut lexer = Lexer::new(text);
    // What cannot be read Postgres refuses.
    let mut next = || lexer.next().ok().flatten();
    let mut first = next();
    while first
        .as_ref()
        .is_some_and(|token| token.kind == TokenKind::Symbol(b';'))
    {
        first = next();
    }
    let Some(first) = first else {
        return false;
    };
    if ["commit", "end", "abort"]
        .iter()
        .any(|word| first.is_word(word))
    {
        return true;
    }
    if first.is_word("prepare") {
        return next().is_some_and(|token| token.is_word("transaction"));
    }
    if !first.is_word("rollback") {
        return false;
    }
    let mut second = next();
    if second
        .as_ref()
        .is_some_and(|token| token.is_word("work") || token.is_word("transaction"))
    {
        second = next();
    }
    !second.is_some_and(|token| token.is_word("to"))
}

/// A statement whose end is not found yet.
struct Open {
    range: Range<usize>,
    parens: usize,
    /// How deep in `BEGIN ... END` and, within, `CASE ... END`.
    blocks: usize,
    head: Head,
}

/// How far the first words look like `CREATE [OR REPLACE] {FUNCTION | PROCEDURE}`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Start,
    Create,
    CreateOr,
    Routine,
    Other,
}

impl Open {
    fn new(start: usize) -> Self {
        Self {
            range: start..start,
            parens: 0,
            blocks: 0,
            head: Head::Start,
        }
    }

    fn push(&mut self, token: &Token<'_>) {
        self.range.end = token.start + token.raw.len();
        match token.kind {
            TokenKind::Symbol(b'(') => self.parens += 1,
            TokenKind::Symbol(b')') => self.parens = self.parens.saturating_sub(1),
            _ => {}
        }
        let is = |word| token.is_word(word);
        self.head = match self.head {
            Head::Start if is("create") => Head::Create,
            Head::Create if is("or") => Head::CreateOr,
            Head::CreateOr if is("replace") => Head::Create,
            Head::Create if is("function") || is("procedure") => Head::Routine,
            Head::Routine => Head::Routine,
            _ => Head::Other,
        };
        if self.head == Head::Routine && self.parens == 0 {
            if is("begin") || (is("case") && self.blocks > 0) {
                self.blocks += 1;
            } else if is("end") {
                self.blocks = self.blocks.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits() {
        let table: [(&str, &[&str]); 13] = [
            ("", &[]),
            (" ; ;-- a;\n", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1 ; ", &["SELECT 1"]),
            (
                "/* x; */ SELECT ';', \";\", $$;$$ -- ;",
                &["SELECT ';', \";\", $$;$$"],
            ),
            ("a;b;;c", &["a", "b", "c"]),
            (
                "CREATE RULE r AS ON a TO b DO (c; d); e",
                &["CREATE RULE r AS ON a TO b DO (c; d)", "e"],
            ),
            ("begin; a; end", &["begin", "a", "end"]),
            (
                "create or replace function f(begin int) begin atomic select case a when b then c end; end; x",
                &[
                    "create or replace function f(begin int) begin atomic select case a when b then c end; end",
                    "x",
                ],
            ),
            (
                "create procedure p() as 'x'; y",
                &["create procedure p() as 'x'", "y"],
            ),
            (
                "create table function (a int); begin; b",
                &["create table function (a int)", "begin", "b"],
            ),
            (") ; a", &[")", "a"]),
            ("é; ü", &["é", "ü"]),
        ];
        for (text, expected) in table {
            let ranges = split(text.as_bytes()).unwrap();
            let got: Vec<_> = ranges.into_iter().map(|range| &text[range]).collect();
            assert_eq!(got, expected, "{text}");
        }
        assert!(split(b"a; 'b").is_err());
    }

    #[test]
    fn ends_of_transactions() {
        for text in [
            "commit",
            " /* x */ ; COMMIT AND CHAIN",
            "end",
            "end work",
            "abort transaction",
            "rollback",
            "-- x\nRollback Work and chain",
            "rollback transaction",
            "commit prepared 'x'",
            "rollback prepared 'x'",
            "prepare transaction 'x'",
        ] {
            assert!(ends_transaction(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            ";",
            "select 'commit'",
            "rollback to x",
            "rollback work to savepoint x",
            "ROLLBACK TRANSACTION TO x",
            "prepare x as select 1",
            "\"commit\"",
            "committed",
            "'",
        ] {
            assert!(!ends_transaction(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn mentioned_names() {
        let table = [
            ("SELECT datname FROM pg_database", true),
            ("SELECT * FROM pg_catalog.PG_DATABASE d", true),
            ("SELECT * FROM \"pg_database\"", true),
            ("SELECT * FROM \"PG_DATABASE\"", false),
            ("SELECT 'pg_database'", false),
            ("SELECT 1 -- pg_database", false),
            ("SELECT pg_database_size('x')", false),
            ("SELECT 'x' FROM t", false),
            ("SELECT 'pg_database", true),
        ];
        for (text, expected) in table {
            assert_eq!(mentions(text.as_bytes(), "pg_database"), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn everything_is_total(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = split(&text);
            let _ = mentions(&text, "a");
            let _ = database_statement(&text);
        }

        #[test]
        fn database_statements_are_total(
            text in r#"(CREATE|DROP|alter) DATABASE ([a-z]{1,3}|[;='"(),0-9]|\$\$| |owner|with|force|rename to|if exists|é){0,12}"#,
        ) {
            let _ = database_statement(text.as_bytes());
        }
    }
}
