//! W3C Trace Context: which trace a request belongs to, and in SQL comments as sqlcommenter writes them.

use std::fmt;

/// Bytes at either end of a statement in which a comment with a context is looked for.
const COMMENT_BYTES_MAX: usize = 1024;
/// Bytes of a `tracestate`, as the specification asks to be passed on at least.
const STATE_BYTES_MAX: usize = 512;

/// The caller's place in a trace: the header `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: u128,
    /// The caller's span; not zero.
    pub span_id: u64,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`: `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`, and later versions as
    /// far as they begin so. `None` for anything else, which is to be taken as not given.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let hex = |range: std::ops::Range<usize>| {
            let digits = bytes.get(range)?;
            let digits = digits.iter().all(is_lower_hex).then_some(digits)?;
            u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let version = hex(0..2)?;
        let whole = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.get(55).is_none_or(|byte| *byte == b'-'),
        };
        let context = Self {
            trace_id: hex(3..35)?,
            span_id: hex(36..52)? as u64,
            sampled: hex(53..55)? & 1 == 1,
        };
        (dashes && whole && context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// Finds one in a comment of a statement, `/*traceparent='00-...'*/`, near its end or its beginning. What
    /// only looks like it, inside a string for one, would be found too: it changes nothing but the trace.
    pub fn in_comment(sql: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"traceparent='";
        let tail = &sql[sql.len().saturating_sub(COMMENT_BYTES_MAX)..];
        let head = &sql[..sql.len().min(COMMENT_BYTES_MAX)];
        [tail, head].into_iter().find_map(|part| {
            let at = part
                .windows(NAME.len())
                .rposition(|window| window == NAME)?;
            let value = part.get(at + NAME.len()..)?;
            let end = value.iter().position(|byte| *byte == b'\'')?;
            // sqlcommenter escapes as in an address; of these characters it escapes none.
            Self::parse(str::from_utf8(&value[..end]).ok()?)
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        let (trace, span) = (self.trace_id, self.span_id);
        write!(formatter, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

/// A `tracestate` that may be passed on: of plain characters, and not too long.
pub fn trace_state(text: &str) -> Option<&str> {
    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (plain && !text.is_empty() && text.len() <= STATE_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written() {
        let context = TraceContext::parse(PARENT).unwrap();
        assert_eq!(context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert!(context.sampled);
        assert_eq!(context.to_string(), PARENT);
        let later = format!("cc{}-what-comes", &PARENT[2..]);
        assert_eq!(TraceContext::parse(&later), Some(context));
        assert!(
            !TraceContext::parse(&PARENT.replace("-01", "-00"))
                .unwrap()
                .sampled
        );
    }

    #[test]
    fn what_is_none_is_not_given() {
        for wrong in [
            String::new(),
            PARENT.to_uppercase(),
            PARENT.replace("-01", "-1"),
            format!("{PARENT}-more"),
            format!("ff{}", &PARENT[2..]),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            PARENT.replacen('-', "_", 1),
        ] {
            assert_eq!(TraceContext::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn comments() {
        let context = TraceContext::parse(PARENT);
        let at_end = format!(
            "select {} /*action='a',traceparent='{PARENT}'*/",
            "1,".repeat(2000)
        );
        assert_eq!(TraceContext::in_comment(at_end.as_bytes()), context);
        let at_front = format!("/*traceparent='{PARENT}'*/ select {}", "1,".repeat(2000));
        assert_eq!(TraceContext::in_comment(at_front.as_bytes()), context);
        assert_eq!(
            TraceContext::in_comment(b"select 1 /*traceparent='x'*/"),
            None
        );
        assert_eq!(TraceContext::in_comment(b"/*traceparent='"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text: String, sql: Vec<u8>) {
            let _ = TraceContext::parse(&text);
            let _ = TraceContext::in_comment(&sql);
        }

        #[test]
        fn what_is_written_is_read(trace_id in 1_u128.., span_id in 1_u64.., sampled: bool) {
            let context = TraceContext { trace_id, span_id, sampled };
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
    }
}
