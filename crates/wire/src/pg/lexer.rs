//! The tokens of PostgreSQL's SQL, as its `scan.l` cuts them with `standard_conforming_strings` on.
//!
//! Text is bytes in any encoding in which ASCII bytes mean ASCII. The lexer is coarser than
//! PostgreSQL's where nobody here looks: operators come as single symbols, numbers are not checked,
//! and strings continued on another line are two tokens.

use super::{ErrorField, PgError, sqlstate};

/// The tokens of a text, in order. After an error there is nothing more.
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

/// One token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// The byte at which it begins.
    pub start: usize,
    /// The token as written, quotes included.
    pub raw: &'a [u8],
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an unquoted identifier.
    Word,
    /// `"..."`
    QuotedIdentifier,
    /// `U&"..."`
    UnicodeIdentifier,
    /// `'...'`
    String,
    /// `E'...'`, `B'...'`, `X'...'`, `N'...'`, `U&'...'`
    PrefixedString,
    /// `$tag$...$tag$`
    DollarString,
    /// Something that begins with a digit.
    Number,
    /// `$1`
    Parameter,
    /// Any other byte.
    Symbol(u8),
}

impl<'a> Lexer<'a> {
    /// Of a text.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next token, `None` at the end.
    ///
    /// # Errors
    ///
    /// If a quoted token or a comment has no end.
    #[allow(clippy::should_implement_trait, reason = "an error is the end of it")]
    pub fn next(&mut self) -> Result<Option<Token<'a>>, PgError> {
        let token = self.skip_blanks().and_then(|()| self.token());
        if token.is_err() {
            self.at = self.text.len();
        }
        token
    }

    fn token(&mut self) -> Result<Option<Token<'a>>, PgError> {
        let start = self.at;
        let Some(&first) = self.text.get(start) else {
            return Ok(None);
        };
        let kind = match (first, self.peek(1), self.peek(2)) {
            (b'\'', ..) => {
                self.quoted(start, 1, b'\'', false, "quoted string")?;
                TokenKind::String
            }
            (b'"', ..) => {
                self.quoted(start, 1, b'"', false, "quoted identifier")?;
                TokenKind::QuotedIdentifier
            }
            (b'e' | b'E', Some(b'\''), _) => {
                self.quoted(start, 2, b'\'', true, "quoted string")?;
                TokenKind::PrefixedString
            }
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', Some(b'\''), _) => {
                self.quoted(start, 2, b'\'', false, "quoted string")?;
                TokenKind::PrefixedString
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                self.quoted(start, 3, b'\'', false, "quoted string")?;
                TokenKind::PrefixedString
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => {
                self.quoted(start, 3, b'"', false, "quoted identifier")?;
                TokenKind::UnicodeIdentifier
            }
            (b'$', Some(b'0'..=b'9'), _) => {
                self.at += 1;
                self.skip_while(|byte| byte.is_ascii_digit());
                TokenKind::Parameter
            }
            (b'$', ..) if self.dollar_quoted(start)? => TokenKind::DollarString,
            (b'0'..=b'9', ..) => {
                self.skip_while(|byte| {
                    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
                });
                TokenKind::Number
            }
            _ if is_word_start(first) => {
                self.skip_while(is_word);
                TokenKind::Word
            }
            _ => {
                self.at += 1;
                TokenKind::Symbol(first)
            }
        };
        Ok(Some(Token {
            kind,
            start,
            raw: &self.text[start..self.at],
        }))
    }

    /// Skips white space and comments. Comments of the form `/* */` nest.
    fn skip_blanks(&mut self) -> Result<(), PgError> {
        loop {
            self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c));
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
                (Some(b'/'), Some(b'*')) => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_comment(&mut self) -> Result<(), PgError> {
        let start = self.at;
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(self.unterminated("/* comment", start)),
            }
        }
    }

    /// Moves past a quoted token, whose quote is doubled to stand for itself.
    fn quoted(
        &mut self,
        start: usize,
        opening: usize,
        quote: u8,
        backslash: bool,
        what: &str,
    ) -> Result<(), PgError> {
        self.at = start + opening;
        loop {
            match self.peek(0) {
                None => return Err(self.unterminated(what, start)),
                Some(b'\\') if backslash => self.at = (self.at + 2).min(self.text.len()),
                Some(byte) if byte != quote => self.at += 1,
                Some(_) if self.peek(1) == Some(quote) => self.at += 2,
                Some(_) => {
                    self.at += 1;
                    return Ok(());
                }
            }
        }
    }

    /// Moves past `$tag$...$tag$`; false if the `$` begins no such string.
    fn dollar_quoted(&mut self, start: usize) -> Result<bool, PgError> {
        let rest = &self.text[start + 1..];
        let tag = rest
            .iter()
            .take_while(|byte| is_word(**byte) && **byte != b'$')
            .count();
        if rest.get(tag) != Some(&b'$') || (tag > 0 && !is_word_start(rest[0])) {
            return Ok(false);
        }
        let fence = &self.text[start..start + tag + 2];
        let mut at = start + fence.len();
        // A fence has no `$` within, so every `$` is the only possible beginning of its own match:
        // one pass, however hostile the text.
        while let Some(found) = self.text[at..].iter().position(|byte| *byte == b'$') {
            at += found;
            if self.text[at..].starts_with(fence) {
                self.at = at + fence.len();
                return Ok(true);
            }
            at += 1;
        }
        Err(self.unterminated("dollar-quoted string", start))
    }

    fn unterminated(&self, what: &str, start: usize) -> PgError {
        let near = String::from_utf8_lossy(&self.text[start..]);
        syntax_error(
            self.text,
            start,
            format!("unterminated {what} at or near \"{near}\""),
        )
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn skip_while(&mut self, holds: impl Fn(u8) -> bool) {
        self.at += self.text[self.at..]
            .iter()
            .take_while(|byte| holds(**byte))
            .count();
    }
}

impl Token<'_> {
    /// Whether this is the keyword, which is given in lower case.
    pub(crate) fn is_word(&self, lower: &str) -> bool {
        self.kind == TokenKind::Word && self.raw.eq_ignore_ascii_case(lower.as_bytes())
    }

    /// Whether this identifier means the name: folded if unquoted, unescaped if quoted.
    pub(crate) fn is_identifier(&self, name: &[u8]) -> bool {
        match self.kind {
            TokenKind::Word => {
                self.raw.len() == name.len()
                    && self
                        .raw
                        .iter()
                        .map(u8::to_ascii_lowercase)
                        .eq(name.iter().copied())
            }
            TokenKind::QuotedIdentifier => self.unquoted() == name,
            _ => false,
        }
    }

    /// What is between the quotes, doubled quotes being one. Only for tokens quoted by one byte.
    pub(crate) fn unquoted(&self) -> Vec<u8> {
        let quote = self.raw[0];
        let mut inner = self.raw[1..self.raw.len() - 1].iter();
        let mut text = Vec::with_capacity(inner.len());
        while let Some(byte) = inner.next() {
            text.push(*byte);
            if *byte == quote {
                inner.next();
            }
        }
        text
    }

    /// What is between the two fences of a dollar-quoted string.
    pub(crate) fn between_dollars(&self) -> &[u8] {
        let tag = self.raw[1..]
            .iter()
            .take_while(|byte| **byte != b'$')
            .count();
        &self.raw[tag + 2..self.raw.len() - tag - 2]
    }
}

/// A syntax error at a byte of the text. PostgreSQL counts characters, from 1.
pub(crate) fn syntax_error(text: &[u8], byte: usize, message: impl Into<String>) -> PgError {
    let character = text[..byte]
        .iter()
        .filter(|byte| **byte & 0xc0 != 0x80)
        .count()
        + 1;
    PgError::error(sqlstate::SYNTAX_ERROR, message)
        .with(ErrorField::Position, character.to_string())
}

/// Whether the needle, in lower case ASCII, occurs anywhere, in any case. Skips like Boyer, Moore
/// and Horspool, as this runs over every query: most of a text is never looked at.
pub(crate) fn contains_ignore_case(text: &[u8], needle: &[u8]) -> bool {
    let Some((&last, init)) = needle.split_last() else {
        return true;
    };
    let longest = u8::try_from(needle.len()).unwrap_or(u8::MAX);
    let mut skips = [longest; 256];
    for (index, byte) in init.iter().enumerate() {
        let skip = u8::try_from(needle.len() - 1 - index).unwrap_or(u8::MAX);
        skips[usize::from(*byte)] = skip;
        skips[usize::from(byte.to_ascii_uppercase())] = skip;
    }
    let mut end = init.len();
    while let Some(&byte) = text.get(end) {
        if byte.to_ascii_lowercase() == last
            && text[end - init.len()..end].eq_ignore_ascii_case(init)
        {
            return true;
        }
        end += usize::from(skips[usize::from(byte)]);
    }
    false
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::TokenKind::*;
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Result<Vec<(TokenKind, &str)>, PgError> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut tokens = Vec::new();
        while let Some(token) = lexer.next()? {
            tokens.push((token.kind, std::str::from_utf8(token.raw).unwrap()));
        }
        Ok(tokens)
    }

    #[test]
    fn kinds() {
        let table: [(&str, &[(TokenKind, &str)]); 14] = [
            ("", &[]),
            (" -- a\n b", &[(Word, "b")]),
            ("/* a /* b */ c */d", &[(Word, "d")]),
            ("a$b é_1", &[(Word, "a$b"), (Word, "é_1")]),
            ("'it''s'", &[(String, "'it''s'")]),
            (r"'\'x", &[(String, r"'\'"), (Word, "x")]),
            (r"e'\'x'''", &[(PrefixedString, r"e'\'x'''")]),
            (
                "x'00' b'1' n'a'",
                &[
                    (PrefixedString, "x'00'"),
                    (PrefixedString, "b'1'"),
                    (PrefixedString, "n'a'"),
                ],
            ),
            ("\"a\"\"b;\"", &[(QuotedIdentifier, "\"a\"\"b;\"")]),
            (
                "U&\"a\" u&'b'",
                &[(UnicodeIdentifier, "U&\"a\""), (PrefixedString, "u&'b'")],
            ),
            (
                "$$a$b$$ $t$ $$ $t2$ $t$",
                &[(DollarString, "$$a$b$$"), (DollarString, "$t$ $$ $t2$ $t$")],
            ),
            (
                "$1 $ 2e5",
                &[(Parameter, "$1"), (Symbol(b'$'), "$"), (Number, "2e5")],
            ),
            (
                "a;-b",
                &[
                    (Word, "a"),
                    (Symbol(b';'), ";"),
                    (Symbol(b'-'), "-"),
                    (Word, "b"),
                ],
            ),
            ("xe'a'", &[(Word, "xe"), (String, "'a'")]),
        ];
        for (text, expected) in table {
            assert_eq!(tokens(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unterminated() {
        let table = [
            (
                "a /* b /* */",
                "unterminated /* comment at or near \"/* b /* */\"",
                3,
            ),
            ("é 'b", "unterminated quoted string at or near \"'b\"", 3),
            (
                r"E'b\",
                r#"unterminated quoted string at or near "E'b\""#,
                1,
            ),
            (
                "\"a\"\"",
                "unterminated quoted identifier at or near \"\"a\"\"\"",
                1,
            ),
            (
                "$a$ $b$",
                "unterminated dollar-quoted string at or near \"$a$ $b$\"",
                1,
            ),
        ];
        for (text, message, position) in table {
            let expected = PgError::error("42601", message).position(position);
            assert_eq!(tokens(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn values() {
        let token = |text: &'static str| Lexer::new(text.as_bytes()).next().unwrap().unwrap();
        assert_eq!(token("\"a\"\"\"\"b\"").unquoted(), b"a\"\"b");
        assert_eq!(token("''''").unquoted(), b"'");
        assert_eq!(token("$$a$$").between_dollars(), b"a");
        assert_eq!(token("$t$a$$b$t$").between_dollars(), b"a$$b");
    }

    proptest! {
        #[test]
        fn the_lexer_is_total(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut lexer = Lexer::new(&text);
            while let Ok(Some(token)) = lexer.next() {
                match token.kind {
                    String | QuotedIdentifier => drop(token.unquoted()),
                    DollarString => drop(token.between_dollars().to_vec()),
                    _ => {}
                }
            }
        }

        #[test]
        fn hostile_sql(text in r#"([$'"/*;aE\\ -]|\$\$|U&|--|é){0,40}"#) {
            let mut lexer = Lexer::new(text.as_bytes());
            let mut end = 0;
            while let Ok(Some(token)) = lexer.next() {
                prop_assert!(token.start >= end && !token.raw.is_empty());
                end = token.start + token.raw.len();
            }
        }

        #[test]
        fn contains_like_the_naive_way(text in "[abAB]{0,40}", needle in "[ab]{0,5}") {
            prop_assert_eq!(
                contains_ignore_case(text.as_bytes(), needle.as_bytes()),
                text.to_lowercase().contains(&needle)
            );
        }
    }
}
