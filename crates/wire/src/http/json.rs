//! Writing JSON text without a tree of values in between.

use serde_json::value::RawValue;

/// Writes a JSON string, quotes included.
pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("BUG: writing a string into memory cannot fail");
}

/// Writes a JSON string. Bytes that are not UTF-8 become U+FFFD: databases here are encoded in
/// UTF-8, so only a session that chose another `client_encoding` gets there, and one odd value
/// should not cost it the rest of its result.
pub(crate) fn write_bytes(out: &mut Vec<u8>, text: &[u8]) {
    write_str(out, &String::from_utf8_lossy(text));
}

/// Whether the text is a number in JSON's sense.
pub(crate) fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            unsigned => unsigned,
        };
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = &exponent[count..];
    }
    rest.is_empty()
}

/// The JSON value that a text is, without the white space around it; `None` if it is none. The
/// value is only scanned: neither its depth nor its numbers have a limit.
pub(crate) fn scan(text: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_json(text in "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?") {
            prop_assert_eq!(is_number(text.as_bytes()), scan(text.as_bytes()).is_some(), "{}", text);
        }
    }

    #[test]
    fn scanning_has_no_depth() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(scan(&deep).is_some());
        assert!(scan(b" {\"a\":\"\\ud800\",\"a\":1e999} ").is_some());
        assert!(scan(b"{\"a\":}").is_none());
        assert!(scan(b"\"\xff\"").is_none());
    }
}
