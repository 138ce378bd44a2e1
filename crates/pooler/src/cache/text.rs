//! A text as the cache sees it: without comments, but with what they ask for. Pure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wire::pg::{Lexer, TokenKind};

use crate::facts::Facts;
use crate::literals::Literals;

/// With which comments begin that are meant for the cache.
const PREFIXES: [&str; 2] = ["dormouse:", "w7s:"];

/// A text.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) facts: Arc<Facts>,
    /// Without comments: what an answer is found by.
    pub(crate) content: Bytes,
    pub(crate) control: Control,
    /// A string in it may ask the clock where it is read as a date, or nobody can tell.
    pub(crate) asks_clock: bool,
    /// A string has a backslash: it means what `standard_conforming_strings` says.
    pub(crate) has_backslash: bool,
}

/// What a comment asks for: `/* dormouse: nocache */`, `/* dormouse: ttl=5 swr=30 */`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Control {
    pub(crate) is_off: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) stale: Option<Duration>,
}

impl Text {
    /// Reads a text; its facts may be known from one of the same shape.
    pub(crate) fn of(sql: &[u8], facts: Arc<Facts>) -> Self {
        let mut text = Self {
            facts,
            content: Bytes::new(),
            control: Control::default(),
            asks_clock: false,
            has_backslash: false,
        };
        let mut literals = Literals::default();
        let mut content = Vec::with_capacity(sql.len());
        let mut lexer = Lexer::new(sql);
        let mut end = 0;
        loop {
            let token = match lexer.next() {
                Ok(Some(token)) => token,
                Ok(None) => break,
                Err(_) => {
                    literals.unknown();
                    break;
                }
            };
            text.gap(sql.get(end..token.start).unwrap_or_default(), &mut content);
            content.extend_from_slice(token.raw);
            end = token.start + token.raw.len();
            literals.token(&token);
            text.has_backslash |= token.kind == TokenKind::String && token.raw.contains(&b'\\');
        }
        text.asks_clock = literals.ask_clock;
        text.gap(sql.get(end..).unwrap_or_default(), &mut content);
        while content
            .last()
            .is_some_and(|last| last.is_ascii_whitespace() || *last == b';')
        {
            content.pop();
        }
        let begin = content.iter().position(|byte| !byte.is_ascii_whitespace());
        content.drain(..begin.unwrap_or(0));
        text.content = content.into();
        text
    }

    /// What is between two tokens: white space and comments.
    fn gap(&mut self, gap: &[u8], content: &mut Vec<u8>) {
        let is_plain = !gap.iter().any(|byte| matches!(byte, b'-' | b'/'));
        if is_plain {
            content.extend_from_slice(gap);
            return;
        }
        self.control.read(gap);
        // A line's end may part what belongs together, which a space does not.
        let is_line = gap.contains(&b'\n') || gap.contains(&b'\r');
        content.push(if is_line { b'\n' } else { b' ' });
    }
}

impl Control {
    fn read(&mut self, comment: &[u8]) {
        let comment = String::from_utf8_lossy(comment);
        let asks = |prefix: &&str| comment.split_once(*prefix);
        let Some((_, rest)) = PREFIXES.iter().find_map(asks) else {
            return;
        };
        let rest = rest.split("*/").next().unwrap_or_default();
        let rest = rest.lines().next().unwrap_or_default();
        for word in rest.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None if word.eq_ignore_ascii_case("nocache") => self.is_off = true,
                Some(("ttl", seconds)) => self.max_age = seconds_of(seconds).or(self.max_age),
                Some(("swr", seconds)) => self.stale = seconds_of(seconds).or(self.stale),
                _ => {}
            }
        }
    }
}

fn seconds_of(text: &str) -> Option<Duration> {
    let seconds: u32 = text.parse().ok()?;
    Some(Duration::from_secs(
        seconds.min(crate::binding::MAX_AGE_MAX).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(sql: &str) -> Text {
        Text::of(sql.as_bytes(), Arc::new(Facts::default()))
    }

    fn content(sql: &str) -> String {
        String::from_utf8(text(sql).content.to_vec()).unwrap()
    }

    #[test]
    fn comments_do_not_count() {
        for sql in [
            "/* a */ select 1 from t",
            "select 1/* b /* c */ */from t;",
            "select 1 -- now()\nfrom t",
            "select 1 from t -- x",
        ] {
            let one = content(sql).replace('\n', " ");
            assert_eq!(one, "select 1 from t", "{sql}");
        }
        assert_ne!(content("select '/* a */'"), content("select '/* b */'"));
        assert_ne!(content("select 1 - -1"), content("select 1 1"));
    }

    #[test]
    fn comments_that_ask() {
        let seconds = |n| Some(Duration::from_secs(n));
        let both = text("select 1 /* dormouse: ttl=5 swr=30 */").control;
        assert_eq!((both.max_age, both.stale), (seconds(5), seconds(30)));
        assert!(text("/* w7s: nocache */ select 1").control.is_off);
        assert!(text("select 1 -- dormouse: nocache").control.is_off);
        assert_eq!(
            text("select 1 /* dormouse: ttl=9999 */").control.max_age,
            seconds(3600)
        );
        for none in [
            "select '/* dormouse: nocache */'",
            "/* nocache */ select 1",
            "/* dormouse: ttl=-1 */ select 1",
        ] {
            assert_eq!(text(none).control, Control::default(), "{none}");
        }
    }

    #[test]
    fn the_clock() {
        for sql in [
            "select 'now'",
            "select ' NOW '",
            "select $$today$$",
            "select '[yesterday,)'",
            "select e'n\\157w'",
            "select 'n'\n'ow'",
            "select U&'!006eow' uescape '!'",
            "select n'tomorrow 10:00'",
            "select 'unended",
        ] {
            assert!(text(sql).asks_clock, "{sql}");
        }
        for sql in [
            "select now",
            "select 'known'",
            "select 'allballs'",
            "select 1 -- 'now'",
            "select e'a'",
        ] {
            assert!(!text(sql).asks_clock, "{sql}");
        }
        assert!(text("select 'a\\b'").has_backslash);
    }

    proptest! {
        #[test]
        fn what_is_left_means_the_same(sql in "[a-z'/*\\- \n;$1]{0,30}") {
            // Left out comments neither join nor part tokens.
            let shape = |sql: &[u8]| wire::pg::shape(sql, usize::MAX).trim_end_matches([';', ' ']).trim_start_matches(' ').to_owned();
            let text = text(&sql);
            if !text.asks_clock {
                prop_assert_eq!(shape(&text.content), shape(sql.as_bytes()));
            }
        }
    }
}
