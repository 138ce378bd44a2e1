//! Reads the tokens of statements about databases, as PostgreSQL's grammar does.

use super::database_option::{Value, unsupported};
use super::lexer::{Lexer, Token, TokenKind, syntax_error};
use super::{ErrorField, PgError, sqlstate};

/// PostgreSQL's `NAMEDATALEN - 1`.
const NAME_BYTES_MAX: usize = 63;

/// The tokens of one statement, with one token of foresight.
pub(crate) struct Parser<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    token: Option<Token<'a>>,
}

impl<'a> Parser<'a> {
    /// Stands at the first token that is no `;`.
    pub(crate) fn new(text: &'a [u8]) -> Result<Self, PgError> {
        let mut parser = Self {
            text,
            lexer: Lexer::new(text),
            token: None,
        };
        parser.advance()?;
        while parser.accept_symbol(b';')? {}
        Ok(parser)
    }

    pub(crate) fn text(&self) -> &'a [u8] {
        self.text
    }

    pub(crate) fn advance(&mut self) -> Result<(), PgError> {
        self.token = self.lexer.next()?;
        Ok(())
    }

    pub(crate) fn at_end(&self) -> bool {
        self.token
            .is_none_or(|token| token.kind == TokenKind::Symbol(b';'))
    }

    pub(crate) fn position(&self) -> usize {
        self.token.map_or(self.text.len(), |token| token.start)
    }

    pub(crate) fn accept(&mut self, word: &str) -> Result<bool, PgError> {
        let found = self.token.is_some_and(|token| token.is_word(word));
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(crate) fn accept_symbol(&mut self, symbol: u8) -> Result<bool, PgError> {
        let found = self
            .token
            .is_some_and(|token| token.kind == TokenKind::Symbol(symbol));
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(crate) fn expect(&mut self, word: &str) -> Result<(), PgError> {
        if self.accept(word)? {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn expect_symbol(&mut self, symbol: u8) -> Result<(), PgError> {
        if self.accept_symbol(symbol)? {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// `IF EXISTS`, unless `if` is the database's name.
    pub(crate) fn accept_if_exists(&mut self) -> Result<bool, PgError> {
        let Some(first) = self.token.filter(|token| token.is_word("if")) else {
            return Ok(false);
        };
        let mut ahead = Lexer::new(&self.text[first.start + first.raw.len()..]);
        if !ahead.next()?.is_some_and(|token| token.is_word("exists")) {
            return Ok(false);
        }
        self.advance()?;
        self.advance()?;
        Ok(true)
    }

    /// `[[WITH] (FORCE [, FORCE ...])]`
    pub(crate) fn force(&mut self) -> Result<bool, PgError> {
        let with = self.accept("with")?;
        if !with && self.at_end() {
            return Ok(false);
        }
        self.expect_symbol(b'(')?;
        loop {
            self.expect("force")?;
            if !self.accept_symbol(b',')? {
                break;
            }
        }
        self.expect_symbol(b')')?;
        Ok(true)
    }

    /// A name: an identifier that is no reserved word.
    pub(crate) fn name(&mut self) -> Result<String, PgError> {
        let Some(token) = self.token else {
            return Err(self.unexpected());
        };
        let name = match token.kind {
            TokenKind::Word => {
                let word = token.raw.to_ascii_lowercase();
                if is_listed(RESERVED, &word) || is_listed(RESERVED_AS_NAME, &word) {
                    return Err(self.unexpected());
                }
                word
            }
            TokenKind::QuotedIdentifier => self.quoted_identifier(&token)?,
            TokenKind::UnicodeIdentifier => return Err(self.unicode_identifier(&token)),
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        identifier(name)
    }

    /// The name of an option. `CONNECTION LIMIT` is the only one of two words.
    pub(crate) fn option_name(&mut self) -> Result<String, PgError> {
        let Some(token) = self.token else {
            return Err(self.unexpected());
        };
        let name = match token.kind {
            TokenKind::Word if token.is_word("connection") => {
                self.advance()?;
                self.expect("limit")?;
                return Ok("connection_limit".to_owned());
            }
            TokenKind::Word => {
                let word = token.raw.to_ascii_lowercase();
                if is_listed(RESERVED, &word)
                    || is_listed(RESERVED_AS_NAME, &word)
                    || word == b"with"
                {
                    return Err(self.unexpected());
                }
                word
            }
            TokenKind::QuotedIdentifier => self.quoted_identifier(&token)?,
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        identifier(name)
    }

    pub(crate) fn value(&mut self) -> Result<Value, PgError> {
        let minus = self.accept_symbol(b'-')?;
        let signed = minus || self.accept_symbol(b'+')?;
        let Some(token) = self.token else {
            return Err(self.unexpected());
        };
        let text = match token.kind {
            TokenKind::Number => {
                self.advance()?;
                let sign = if minus { "-" } else { "" };
                let digits = String::from_utf8_lossy(token.raw);
                return Ok(Value::Number(format!("{sign}{digits}")));
            }
            _ if signed => return Err(self.unexpected()),
            TokenKind::Word => {
                let word = token.raw.to_ascii_lowercase();
                if word == b"default" {
                    self.advance()?;
                    return Ok(Value::Default);
                }
                if is_listed(RESERVED, &word) && !is_listed("true false on", &word) {
                    return Err(self.unexpected());
                }
                word
            }
            TokenKind::QuotedIdentifier => self.quoted_identifier(&token)?,
            TokenKind::UnicodeIdentifier => return Err(self.unicode_identifier(&token)),
            TokenKind::String => token.unquoted(),
            TokenKind::DollarString => token.between_dollars().to_vec(),
            TokenKind::PrefixedString => {
                return Err(unsupported(
                    "strings with a prefix are not supported in statements about databases",
                ));
            }
            _ => return Err(self.unexpected()),
        };
        let is_identifier = matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdentifier);
        self.advance()?;
        let text = if is_identifier {
            identifier(text)?
        } else {
            utf8(text)?
        };
        Ok(Value::Text(text))
    }

    fn quoted_identifier(&self, token: &Token<'_>) -> Result<Vec<u8>, PgError> {
        let name = token.unquoted();
        if name.is_empty() {
            let message = "zero-length delimited identifier at or near \"\"\"\"";
            return Err(syntax_error(self.text, token.start, message));
        }
        Ok(name)
    }

    fn unicode_identifier(&self, token: &Token<'_>) -> PgError {
        let error = syntax_error(
            self.text,
            token.start,
            "U&\"...\" identifiers are not supported in statements about databases",
        );
        error.with(ErrorField::Code, sqlstate::FEATURE_NOT_SUPPORTED)
    }

    pub(crate) fn unexpected(&self) -> PgError {
        let message = match self.token {
            Some(token) => {
                format!(
                    "syntax error at or near \"{}\"",
                    String::from_utf8_lossy(token.raw)
                )
            }
            None => "syntax error at end of input".to_owned(),
        };
        syntax_error(self.text, self.position(), message)
    }
}

fn identifier(bytes: Vec<u8>) -> Result<String, PgError> {
    let mut name = utf8(bytes)?;
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    Ok(name)
}

fn utf8(bytes: Vec<u8>) -> Result<String, PgError> {
    String::from_utf8(bytes).map_err(|_| {
        PgError::error(
            sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
            "statements about databases must be encoded in UTF8",
        )
    })
}

fn is_listed(words: &str, word: &[u8]) -> bool {
    words.split(' ').any(|listed| listed.as_bytes() == word)
}

/// PostgreSQL 18's reserved words (`pg_get_keywords`, category R).
const RESERVED: &str = "all analyse analyze and any array as asc asymmetric both case cast check \
    collate column constraint create current_catalog current_date current_role current_time \
    current_timestamp current_user default deferrable desc distinct do else end except false fetch \
    for foreign from grant group having in initially intersect into lateral leading limit localtime \
    localtimestamp not null offset on only or order placing primary references returning select \
    session_user some symmetric system_user table then to trailing true union unique user using \
    variadic when where window with";

/// Those that only functions and types can be named (category T).
const RESERVED_AS_NAME: &str = "authorization binary collation concurrently cross current_schema \
    freeze full ilike inner is isnull join left like natural notnull outer overlaps right similar \
    tablesample verbose";
