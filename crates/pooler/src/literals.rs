//! What strings of a text mean when the text is prepared. Pure.
//!
//! Postgres reads a string that stands for another type while it prepares a text: a date by `DateStyle` and `TimeZone`, and
//! `today` as the day on which that is. The statement keeps the value.

use wire::pg::{Lexer, Token, TokenKind};

/// Words for the clock in the input of dates and times. `allballs` is midnight whatever the time.
const CLOCK_WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Of the strings of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Literals {
    /// One may ask the clock where it is read as a date, or nobody can tell.
    pub(crate) ask_clock: bool,
    /// One has a digit, or what may be one: as a date, a time or money it may mean what the session's settings say.
    pub(crate) have_digits: bool,
    is_after_string: bool,
}

impl Literals {
    /// Of a text.
    pub(crate) fn of(sql: &[u8]) -> Self {
        let mut literals = Self::default();
        let mut lexer = Lexer::new(sql);
        loop {
            match lexer.next() {
                Ok(Some(token)) => literals.token(&token),
                Ok(None) => return literals,
                Err(_) => {
                    literals.unknown();
                    return literals;
                }
            }
        }
    }

    /// The next token.
    pub(crate) fn token(&mut self, token: &Token<'_>) {
        let is_string = matches!(
            token.kind,
            TokenKind::String | TokenKind::PrefixedString | TokenKind::DollarString
        );
        if is_string {
            let is_escaped = token.kind == TokenKind::PrefixedString && token.raw.contains(&b'\\');
            // Two strings may be one that goes on; escapes may spell anything.
            self.ask_clock |= self.is_after_string || is_escaped || has_clock_word(token.raw);
            self.have_digits |= is_escaped || token.raw.iter().any(u8::is_ascii_digit);
        }
        if token.kind == TokenKind::Word && token.raw.eq_ignore_ascii_case(b"uescape") {
            // It would choose another sign for escapes.
            self.unknown();
        }
        self.is_after_string = is_string;
    }

    /// Nobody can tell.
    pub(crate) fn unknown(&mut self) {
        self.ask_clock = true;
        self.have_digits = true;
    }
}

/// Whether one of the words for the clock is among the words of a value.
pub(crate) fn has_clock_word(value: &[u8]) -> bool {
    let words = value.split(|byte| !byte.is_ascii_alphabetic());
    let is_clock = |word: &[u8]| {
        let mut clocks = CLOCK_WORDS.iter();
        clocks.any(|clock| word.eq_ignore_ascii_case(clock.as_bytes()))
    };
    words.into_iter().any(is_clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strings_may_mean() {
        for (sql, ask_clock, have_digits) in [
            ("select 1, 'a', $1", false, false),
            ("select '2020-01-02'", false, true),
            ("select $$3$$", false, true),
            ("select E'a\\n'", true, true),
            ("select U&'d!0061' uescape '!'", true, true),
            ("select 'to'\n'day'", true, false),
            ("select '1", true, true),
        ] {
            let literals = Literals::of(sql.as_bytes());
            let found = (literals.ask_clock, literals.have_digits);
            assert_eq!(found, (ask_clock, have_digits), "{sql}");
        }
        assert!(has_clock_word(b"now") && !has_clock_word(b"nowhere"));
    }
}
