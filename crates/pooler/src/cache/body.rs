//! Whether a trigger's body leaves all tables alone, as most do that only set `updated_at`. Pure.
//!
//! What is not known to be harmless is not: a body in PL/pgSQL without a word that begins a statement of SQL, and
//! which calls nothing but functions that leave tables alone.

use wire::pg::{Lexer, TokenKind};

/// With these a statement of PL/pgSQL may reach tables. `INTO` and `FROM` are there for what has no word of its own.
const REACHING: [&str; 44] = [
    "insert",
    "update",
    "delete",
    "merge",
    "truncate",
    "copy",
    "select",
    "values",
    "table",
    "with",
    "perform",
    "execute",
    "call",
    "do",
    "create",
    "alter",
    "drop",
    "grant",
    "revoke",
    "comment",
    "refresh",
    "notify",
    "listen",
    "unlisten",
    "lock",
    "set",
    "reset",
    "vacuum",
    "analyze",
    "cluster",
    "reindex",
    "security",
    "import",
    "reassign",
    "prepare",
    "deallocate",
    "discard",
    "open",
    "fetch",
    "move",
    "into",
    "from",
    "explain",
    "load",
];

/// Written like calls, and none.
const NO_CALLS: [&str; 22] = [
    "if", "elsif", "and", "or", "not", "in", "when", "then", "else", "case", "return", "coalesce",
    "nullif", "greatest", "least", "numeric", "varchar", "char", "while", "exit", "using", "any",
];

pub(crate) fn is_harmless(source: &str, is_reaching: impl Fn(&str) -> Option<bool>) -> bool {
    let mut lexer = Lexer::new(source.as_bytes());
    let mut called: Option<String> = None;
    loop {
        let token = match lexer.next() {
            Ok(Some(token)) => token,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let is_call = token.kind == TokenKind::Symbol(b'(');
        if let Some(name) = called.take()
            && is_call
            && !NO_CALLS.contains(&name.as_str())
            && is_reaching(&name).is_none()
        {
            // Nobody knows what it calls.
            return false;
        }
        match token.kind {
            TokenKind::Word => {
                let word = String::from_utf8_lossy(token.raw).to_ascii_lowercase();
                if REACHING.contains(&word.as_str()) {
                    return false;
                }
                called = Some(word);
            }
            TokenKind::QuotedIdentifier => {
                let name = String::from_utf8_lossy(token.raw);
                called = Some(name.trim_matches('"').to_owned());
            }
            TokenKind::UnicodeIdentifier => return false,
            _ => {}
        }
        // Called like a column, too.
        if called
            .as_deref()
            .is_some_and(|name| is_reaching(name) == Some(true))
        {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let harmless = |source| {
            is_harmless(source, |name| match name {
                "now" | "lower" => Some(false),
                "act" => Some(true),
                _ => None,
            })
        };
        assert!(harmless("begin new.updated_at := now(); return new; end"));
        assert!(harmless(
            "begin if (tg_op = 'INSERT') then new.name = lower(new.name); end if; return new; end"
        ));
        for source in [
            "begin insert into log values (1); return new; end",
            "begin perform f(); return new; end",
            "begin execute 'delete from t'; return new; end",
            "begin new.n := count_them(); return new; end",
            "begin new.n := new.act; return new; end",
            "begin new.n := \"lower x\"(1); return new; end",
            "declare n int; begin select 1 into n; return new; end",
            "begin new.n := (select max(n) from t); return new; end",
            "begin return 'unended; end",
        ] {
            assert!(!harmless(source), "{source}");
        }
    }
}
