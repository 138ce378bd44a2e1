//! A statement without its values, for logs and traces.

use std::borrow::Cow;

use super::lexer::{Lexer, TokenKind};

/// What stands in the place of a value.
const VALUE: &str = "?";
/// What stands in the place of what was left out at the end.
const MORE: &str = "...";

/// A statement's text without the strings, the numbers and the comments in it, cut after `bytes_max` bytes or
/// a little less: nothing that is a value, a password for one, is left.
///
/// ```
/// let sql = b"alter role joe /* x */ password 'secret'";
/// assert_eq!(dormouse_wire::pg::shape(sql, 100), "alter role joe password ?");
/// ```
pub fn shape(sql: &[u8], bytes_max: usize) -> String {
    let mut out = String::with_capacity(sql.len().min(bytes_max));
    let mut lexer = Lexer::new(sql);
    let mut end = 0;
    loop {
        let token = match lexer.next() {
            Ok(Some(token)) => token,
            Ok(None) => return out,
            // Nobody knows what the rest is.
            Err(_) => return push(&mut out, true, MORE, usize::MAX).unwrap_or(out),
        };
        let spaced = token.start > end && !out.is_empty();
        end = token.start + token.raw.len();
        let text = match token.kind {
            TokenKind::String if token.raw.ends_with(b"\\'") => {
                // With standard_conforming_strings off the string would go on.
                return push(&mut out, true, MORE, usize::MAX).unwrap_or(out);
            }
            TokenKind::String
            | TokenKind::PrefixedString
            | TokenKind::DollarString
            | TokenKind::Number => VALUE.into(),
            _ => str::from_utf8(token.raw)
                .map_or_else(|_| String::from_utf8_lossy(token.raw), Cow::Borrowed),
        };
        if let Some(cut) = push(&mut out, spaced, &text, bytes_max) {
            return cut;
        }
    }
}

/// Appends a token; if there is no room for it, what it all comes to.
fn push(out: &mut String, spaced: bool, text: &str, bytes_max: usize) -> Option<String> {
    if out.len() + text.len() + 1 > bytes_max {
        out.push_str(MORE);
        return Some(std::mem::take(out));
    }
    if spaced {
        out.push(' ');
    }
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~');
    if text.bytes().all(is_plain) {
        out.push_str(text);
        return None;
    }
    // A control character could begin another line of the log.
    out.extend(text.chars().map(|character| match character.is_control() {
        true => ' ',
        false => character,
    }));
    None
}

/// The command that a text begins with, in capitals, if it is one word of at most 16 letters.
pub fn command(sql: &[u8]) -> Option<String> {
    const LETTERS_MAX: usize = 16;
    let token = Lexer::new(sql).next().ok()??;
    let is_word = token.kind == TokenKind::Word && token.raw.len() <= LETTERS_MAX;
    let word = is_word.then(|| str::from_utf8(token.raw).ok())??;
    let letters = word.bytes().all(|byte| byte.is_ascii_alphabetic());
    letters.then(|| word.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_left_out() {
        for (sql, expected) in [
            ("select 1", "select ?"),
            ("select  a.b ,'x''y', $$z$$, $1", "select a.b ,?, ?, $1"),
            ("-- secret\nselect\n\te'\\'s'", "select ?"),
            (
                "create user u password 'it is",
                "create user u password ...",
            ),
            (
                "alter role a password 'it\\' is' secret",
                "alter role a password ...",
            ),
            ("\"a\nb\"", "\"a b\""),
            ("", ""),
        ] {
            assert_eq!(shape(sql.as_bytes(), 1000).trim_end(), expected, "{sql}");
        }
        assert_eq!(shape(b"select abcdef", 10), "select...");
    }

    #[test]
    fn commands() {
        for (sql, expected) in [
            ("/* x */ select 1", Some("SELECT")),
            ("(select 1)", None),
            ("caf\u{e9} 1", None),
            ("", None),
        ] {
            assert_eq!(command(sql.as_bytes()).as_deref(), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_shape_within_the_limit(sql: Vec<u8>, bytes_max in 0_usize..200) {
            let shape = shape(&sql, bytes_max);
            // A byte that is no text takes three.
            prop_assert!(shape.len() <= bytes_max.max(3 * sql.len()) + MORE.len() + 1);
            prop_assert!(!shape.contains('\n'));
        }

        #[test]
        fn no_string_is_left(secret in "[a-z]{6,12}") {
            let sql = format!("alter role r valid until '1' password '{secret}' connection limit 3");
            prop_assert!(!shape(sql.as_bytes(), 1000).contains(&secret));
        }
    }
}
