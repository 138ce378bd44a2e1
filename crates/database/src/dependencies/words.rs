//! Words that mean another time tomorrow, where a date or a time is read from text.

const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Whether a text may have such a word where a date or a time is read from it: a value, also one of an array or a
/// range, or a statement, in which a constant can be put together from pieces and be written with escapes.
pub(crate) fn says_now(text: &str) -> bool {
    if text.contains(['\\']) || text.contains("--") {
        return true;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\'') {
        plain.push_str(before);
        // 'no' and 'w' in the next line are one constant.
        let next = after.trim_ascii_start();
        rest = match next.strip_prefix('\'') {
            Some(next) => next,
            None => {
                plain.push('\'');
                after
            }
        };
    }
    plain.push_str(rest);
    plain.retain(|letter| letter != '"');
    plain.make_ascii_lowercase();
    plain.contains("u&") || WORDS.iter().any(|word| plain.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written() {
        for text in [
            "SELECT 'now'::date",
            "Today",
            "{2020-01-01,YESTERDAY}",
            "[no\"w\",)",
            "{n\\ow}",
            "SELECT timestamp 'no'\n  'w'",
            "SELECT timestamp 'no' -- x\n  'w'",
            "SELECT date U&'!006eow' UESCAPE '!'",
        ] {
            assert!(says_now(text), "{text}");
        }
        for text in [
            "2020-01-01",
            "SELECT no, w FROM t WHERE d > '2020-01-01'",
            "SELECT '' || 'a'",
        ] {
            assert!(!says_now(text), "{text}");
        }
    }
}
