//! A value of PostgreSQL, in text form, becomes JSON.

use super::array_type::{Element, ElementOf, element};
use super::json;

/// JavaScript's `Number.MAX_SAFE_INTEGER`: up to it every integer is a double.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Every decimal of 15 significant digits survives a way through a double, if the double is normal.
const NUMERIC_DIGITS_MAX: usize = 15;

/// The smallest normal double is 2.2e-308: a fraction whose first digit comes later is a string.
const NUMERIC_LEADING_ZEROS_MAX: usize = 306;

/// PostgreSQL's `MAXDIM`.
const ARRAY_DEPTH_MAX: usize = 6;

/// Appends a value's JSON to `out`, by its type. No bytes make it fail.
///
/// | type | JSON |
/// |---|---|
/// | NULL | `null` |
/// | `bool` | `true`, `false` |
/// | `int2`, `int4`, `oid` | number |
/// | `int8` | number if within ±(2^53 - 1), else string |
/// | `float4`, `float8` | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
/// | `numeric` | number with its digits unchanged if a double gives the same decimal back: at most 15 significant digits, within ±(2^53 - 1), and not so near 0 that a double loses precision; else string |
/// | `json`, `jsonb` | the value itself, its text unchanged |
/// | `timestamp` | `"2024-01-15T10:00:00.123"` |
/// | `timestamptz` | `"2024-01-15T10:00:00.123+00:00"`: the offset always has minutes |
/// | arrays | array of the elements by this table, nested as they are; bounds are dropped |
/// | all others | string of PostgreSQL's text: `text`, `bytea` (`"\\x..."`), `date`, `time`, `interval`, `uuid`, `money`, ranges, composites, vectors, ... |
///
/// What is not in the form that its type has with PostgreSQL's default settings is a string of
/// PostgreSQL's text: times with another `DateStyle`, `infinity`, years BC or beyond 9999, which
/// ISO 8601 writes only by agreement. Text that is not UTF-8 gets U+FFFD.
pub fn write_json(
    out: &mut Vec<u8>,
    type_oid: u32,
    text: Option<&[u8]>,
    element_of: ElementOf<'_>,
) {
    let Some(text) = text else {
        out.extend_from_slice(b"null");
        return;
    };
    match type_oid {
        BOOL => match text {
            b"t" => out.extend_from_slice(b"true"),
            b"f" => out.extend_from_slice(b"false"),
            _ => json::write_bytes(out, text),
        },
        INT2 | INT4 | OID | FLOAT4 | FLOAT8 => write_number_if(out, text, json::is_number(text)),
        INT8 => write_number_if(out, text, is_safe_integer(text)),
        NUMERIC => write_number_if(out, text, is_double_decimal(text)),
        JSON | JSONB => match json::scan(text) {
            Some(value) => out.extend_from_slice(value.get().as_bytes()),
            None => json::write_bytes(out, text),
        },
        TIMESTAMP => write_timestamp(out, text, false),
        TIMESTAMPTZ => write_timestamp(out, text, true),
        TEXT | VARCHAR => json::write_bytes(out, text),
        _ => match element(type_oid, element_of) {
            Some(element) => write_array(out, text, element, element_of),
            None => json::write_bytes(out, text),
        },
    }
}

fn write_number_if(out: &mut Vec<u8>, text: &[u8], is_number: bool) {
    if is_number {
        out.extend_from_slice(text);
    } else {
        json::write_bytes(out, text);
    }
}

fn is_safe_integer(text: &[u8]) -> bool {
    json::is_number(text)
        && std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .is_some_and(|value| value.unsigned_abs() <= INTEGER_MAX)
}

/// Whether a double holds the decimal well enough to give it back.
fn is_double_decimal(text: &[u8]) -> bool {
    if !json::is_number(text) || text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return false;
    }
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let whole_length = unsigned
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(unsigned.len());
    let whole = std::str::from_utf8(&unsigned[..whole_length])
        .ok()
        .and_then(|whole| whole.parse::<u64>().ok());
    if whole.is_none_or(|whole| whole > INTEGER_MAX) {
        return false;
    }
    let digits = || unsigned.iter().filter(|byte| **byte != b'.');
    let leading_zeros = digits().take_while(|digit| **digit == b'0').count();
    let trailing_zeros = digits().rev().take_while(|digit| **digit == b'0').count();
    let count = digits().count();
    if leading_zeros == count {
        return true;
    }
    count - leading_zeros - trailing_zeros <= NUMERIC_DIGITS_MAX
        && leading_zeros <= NUMERIC_LEADING_ZEROS_MAX
}

/// Writes `2024-01-15 10:00:00[.fraction][offset]` with a `T`; anything else as it is.
fn write_timestamp(out: &mut Vec<u8>, text: &[u8], with_offset: bool) {
    let Some((date_and_time, offset)) = cut_timestamp(text).filter(|(_, offset)| {
        if with_offset {
            is_offset(offset)
        } else {
            offset.is_empty()
        }
    }) else {
        json::write_bytes(out, text);
        return;
    };
    out.push(b'"');
    out.extend_from_slice(&date_and_time[..10]);
    out.push(b'T');
    out.extend_from_slice(&date_and_time[11..]);
    out.extend_from_slice(offset);
    if offset.len() == 3 {
        out.extend_from_slice(b":00");
    }
    out.push(b'"');
}

/// Cuts after the fraction of a second.
fn cut_timestamp(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (seconds, rest) = text.split_at_checked(19)?;
    if !matches(seconds, b"dddd-dd-dd dd:dd:dd") {
        return None;
    }
    let fraction = match rest {
        [b'.', digits @ ..] => {
            1 + digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
        }
        _ => 0,
    };
    Some(text.split_at(seconds.len() + fraction))
}

/// Offsets of before standard time have seconds.
fn is_offset(text: &[u8]) -> bool {
    let Some((b'+' | b'-', time)) = text.split_first() else {
        return false;
    };
    [&b"dd"[..], b"dd:dd", b"dd:dd:dd"]
        .into_iter()
        .any(|shape| matches(time, shape))
}

/// Whether the text has a digit wherever the shape has `d`, and else the shape's bytes.
fn matches(text: &[u8], shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text.iter().zip(shape).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            _ => byte == shape,
        })
}

/// Writes an array; what is no array's text becomes a string, as for other types.
fn write_array(out: &mut Vec<u8>, text: &[u8], element: Element, element_of: ElementOf<'_>) {
    let start = out.len();
    let mut reader = ArrayReader {
        rest: skip_bounds(text),
        element,
        element_of,
    };
    let whole = reader.write(out, ARRAY_DEPTH_MAX).is_some() && reader.rest.is_empty();
    if !whole {
        out.truncate(start);
        json::write_bytes(out, text);
    }
}

/// Skips `[0:1][2:3]=`, which is there if an array does not begin at 1.
fn skip_bounds(text: &[u8]) -> &[u8] {
    if !text.starts_with(b"[") {
        return text;
    }
    match text.iter().position(|byte| *byte == b'=') {
        Some(end) => &text[end + 1..],
        None => text,
    }
}

/// Reads what PostgreSQL's `array_out` writes.
struct ArrayReader<'a> {
    rest: &'a [u8],
    element: Element,
    element_of: ElementOf<'a>,
}

impl<'a> ArrayReader<'a> {
    /// Reads from `{` to its `}`. `None` if the text is no array's.
    fn write(&mut self, out: &mut Vec<u8>, depth_left: usize) -> Option<()> {
        let depth_left = depth_left.checked_sub(1)?;
        self.take(b'{').then_some(())?;
        out.push(b'[');
        if !self.take(b'}') {
            loop {
                match self.rest.first()? {
                    b'{' => self.write(out, depth_left)?,
                    b'"' => {
                        let text = self.quoted()?;
                        self.write_element(out, Some(&text));
                    }
                    _ => {
                        let text = self.unquoted()?;
                        self.write_element(
                            out,
                            (!text.eq_ignore_ascii_case(b"NULL")).then_some(text),
                        );
                    }
                }
                if self.take(b'}') {
                    break;
                }
                self.take(self.element.delimiter).then_some(())?;
                out.push(b',');
            }
        }
        out.push(b']');
        Some(())
    }

    fn write_element(&self, out: &mut Vec<u8>, text: Option<&[u8]>) {
        write_json(out, self.element.type_oid, text, self.element_of);
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.rest.strip_prefix(&[byte]) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn unquoted(&mut self) -> Option<&'a [u8]> {
        let ends = |byte: &u8| [self.element.delimiter, b'{', b'}', b'"', b'\\'].contains(byte);
        let end = self.rest.iter().position(ends)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!text.is_empty()).then_some(text)
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut bytes = self.rest.iter().skip(1);
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => text.push(*bytes.next()?),
                byte => text.push(*byte),
            }
        }
        self.rest = &self.rest[self.rest.len() - bytes.len()..];
        Some(text)
    }
}

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const VARCHAR: u32 = 1043;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const JSONB: u32 = 3802;

#[cfg(test)]
mod tests {
    use super::super::array_type::no_more_arrays;
    use super::*;
    use proptest::prelude::*;

    fn json(type_oid: u32, text: &[u8]) -> String {
        let mut out = Vec::new();
        write_json(&mut out, type_oid, Some(text), &no_more_arrays);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values() {
        let table = [
            (BOOL, "t", "true"),
            (BOOL, "f", "false"),
            (BOOL, "x", "\"x\""),
            (INT2, "-32768", "-32768"),
            (INT4, "2147483647", "2147483647"),
            (OID, "4294967295", "4294967295"),
            (INT4, "abc", "\"abc\""),
            (INT8, "9007199254740991", "9007199254740991"),
            (INT8, "-9007199254740991", "-9007199254740991"),
            (INT8, "9007199254740992", "\"9007199254740992\""),
            (INT8, "-9223372036854775808", "\"-9223372036854775808\""),
            (FLOAT8, "1e-300", "1e-300"),
            (FLOAT8, "1e+20", "1e+20"),
            (FLOAT4, "1.5000001e+10", "1.5000001e+10"),
            (FLOAT8, "-0", "-0"),
            (FLOAT8, "NaN", "\"NaN\""),
            (FLOAT8, "-Infinity", "\"-Infinity\""),
            (NUMERIC, "0.10", "0.10"),
            (NUMERIC, "-12.50", "-12.50"),
            (NUMERIC, "0.00", "0.00"),
            (NUMERIC, "123456789012345", "123456789012345"),
            (NUMERIC, "1234567890123.45", "1234567890123.45"),
            (NUMERIC, "12345678901234.56", "\"12345678901234.56\""),
            (NUMERIC, "1000000000000000", "1000000000000000"),
            (NUMERIC, "9007199254740991", "\"9007199254740991\""),
            (NUMERIC, "9000000000000000", "9000000000000000"),
            (NUMERIC, "10000000000000000", "\"10000000000000000\""),
            (
                NUMERIC,
                "100000000000000000000000000",
                "\"100000000000000000000000000\"",
            ),
            (NUMERIC, "0.00000000000000000001", "0.00000000000000000001"),
            (
                NUMERIC,
                "0.33333333333333333333",
                "\"0.33333333333333333333\"",
            ),
            (NUMERIC, "NaN", "\"NaN\""),
            (NUMERIC, "Infinity", "\"Infinity\""),
            (790, "$1.00", "\"$1.00\""),
            (TEXT, "a\"b\\\n\u{1}é", "\"a\\\"b\\\\\\n\\u0001é\""),
            (17, "\\x00ff", "\"\\\\x00ff\""),
            (
                JSON,
                " {\"a\":  1.0, \"a\":1e400} ",
                "{\"a\":  1.0, \"a\":1e400}",
            ),
            (JSONB, "[1, null]", "[1, null]"),
            (JSON, "{\"a\"", "\"{\\\"a\\\"\""),
            (
                TIMESTAMP,
                "2024-01-15 10:00:00.123",
                "\"2024-01-15T10:00:00.123\"",
            ),
            (TIMESTAMP, "2024-01-15 10:00:00", "\"2024-01-15T10:00:00\""),
            (TIMESTAMP, "infinity", "\"infinity\""),
            (
                TIMESTAMP,
                "0044-01-01 00:00:00 BC",
                "\"0044-01-01 00:00:00 BC\"",
            ),
            (
                TIMESTAMP,
                "12345-01-01 00:00:00",
                "\"12345-01-01 00:00:00\"",
            ),
            (
                TIMESTAMP,
                "2024-01-15 10:00:00+00",
                "\"2024-01-15 10:00:00+00\"",
            ),
            (
                TIMESTAMPTZ,
                "2024-01-15 10:00:00+00",
                "\"2024-01-15T10:00:00+00:00\"",
            ),
            (
                TIMESTAMPTZ,
                "2024-01-15 10:00:00.5-08",
                "\"2024-01-15T10:00:00.5-08:00\"",
            ),
            (
                TIMESTAMPTZ,
                "2024-01-15 10:00:00+05:30",
                "\"2024-01-15T10:00:00+05:30\"",
            ),
            (
                TIMESTAMPTZ,
                "1900-01-01 00:00:00-00:43:08",
                "\"1900-01-01T00:00:00-00:43:08\"",
            ),
            (
                TIMESTAMPTZ,
                "0001-01-01 00:00:00+00 BC",
                "\"0001-01-01 00:00:00+00 BC\"",
            ),
            (
                TIMESTAMPTZ,
                "11/21/2026 03:05:12.85 GMT",
                "\"11/21/2026 03:05:12.85 GMT\"",
            ),
            (TIMESTAMPTZ, "-infinity", "\"-infinity\""),
            (1082, "2024-01-15", "\"2024-01-15\""),
            (99_999, "[1,2,3]", "\"[1,2,3]\""),
            (22, "1 2 3", "\"1 2 3\""),
        ];
        for (type_oid, text, expected) in table {
            assert_eq!(json(type_oid, text.as_bytes()), expected);
        }
        let smallest = format!("0.{}1", "0".repeat(305));
        assert_eq!(json(NUMERIC, smallest.as_bytes()), smallest);
        let smaller = format!("0.{}1", "0".repeat(306));
        assert_eq!(json(NUMERIC, smaller.as_bytes()), format!("\"{smaller}\""));
        assert_eq!(json(TEXT, b"a\xffb"), "\"a\u{fffd}b\"");
        let mut out = Vec::new();
        write_json(&mut out, INT4, None, &no_more_arrays);
        assert_eq!(out, b"null");
    }

    #[test]
    fn arrays() {
        let table = [
            (1007, "{}", "[]"),
            (1007, "{1,NULL,3}", "[1,null,3]"),
            (1007, "{{1,2},{3,NULL}}", "[[1,2],[3,null]]"),
            (1007, "[0:1]={1,2}", "[1,2]"),
            (1007, "[-1:0][2:3]={{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (1016, "{9007199254740992,1}", "[\"9007199254740992\",1]"),
            (
                1009,
                r#"{"a,b","","NULL","n\"x\\y"," z",plain}"#,
                r#"["a,b","","NULL","n\"x\\y"," z","plain"]"#,
            ),
            (1009, r#"{"{","}"}"#, r#"["{","}"]"#),
            (1001, r#"{"\\x01"}"#, r#"["\\x01"]"#),
            (
                1020,
                "{(3,4),(1,2);(3,4),(1,2)}",
                r#"["(3,4),(1,2)","(3,4),(1,2)"]"#,
            ),
            (
                3807,
                r#"{"{\"a\": [1]}",null,"null"}"#,
                r#"[{"a": [1]},null,null]"#,
            ),
            (
                1185,
                r#"{"2024-01-15 10:00:00+00"}"#,
                r#"["2024-01-15T10:00:00+00:00"]"#,
            ),
            (1000, "{t,f}", "[true,false]"),
            (1009, "{{{{{{a}}}}}}", "[[[[[[\"a\"]]]]]]"),
            (1009, "{{{{{{{a}}}}}}}", "\"{{{{{{{a}}}}}}}\""),
            (1007, "{1,2", "\"{1,2\""),
            (1007, "{1,}", "\"{1,}\""),
            (1007, "{1}x", "\"{1}x\""),
            (1007, "[0:1]", "\"[0:1]\""),
            (1007, "", "\"\""),
        ];
        for (type_oid, text, expected) in table {
            assert_eq!(json(type_oid, text.as_bytes()), expected);
        }
    }

    #[test]
    fn arrays_of_types_that_are_not_built_in() {
        let element_of = |oid| {
            (oid == 16_400).then_some(Element {
                type_oid: 16_399,
                delimiter: b',',
            })
        };
        let mut out = Vec::new();
        write_json(&mut out, 16_400, Some(b"{sad,happy}"), &element_of);
        assert_eq!(out, b"[\"sad\",\"happy\"]");
    }

    /// `VALUES.md` is what users read: each of its rows must be so.
    #[test]
    fn the_document_is_right() {
        let types = [
            ("bool", BOOL),
            ("int2", INT2),
            ("int4", INT4),
            ("oid", OID),
            ("int8", INT8),
            ("float4", FLOAT4),
            ("float8", FLOAT8),
            ("numeric", NUMERIC),
            ("money", 790),
            ("text", TEXT),
            ("bytea", 17),
            ("json", JSON),
            ("jsonb", JSONB),
            ("date", 1082),
            ("time", 1083),
            ("timestamp", TIMESTAMP),
            ("timestamptz", TIMESTAMPTZ),
            ("interval", 1186),
            ("uuid", 2950),
            ("inet", 869),
            ("int4range", 3904),
            ("int4[]", 1007),
            ("int8[]", 1016),
            ("text[]", 1009),
            ("jsonb[]", 3807),
            ("box[]", 1020),
            ("vector", 99_999),
        ];
        let mut rows = 0;
        for line in include_str!("../../VALUES.md").lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, text, expected] = cells[..] else {
                continue;
            };
            let Some((_, type_oid)) = types.iter().find(|(known, _)| *known == name) else {
                assert!(["type", "---"].contains(&name), "{line}");
                continue;
            };
            let [text, expected] = [text, expected].map(|cell| cell.trim_matches('`'));
            assert_eq!(json(*type_oid, text.as_bytes()), expected, "{line}");
            rows += 1;
        }
        assert_eq!(rows, 40);
    }

    proptest! {
        #[test]
        fn every_value_is_valid_json(
            type_oid in proptest::sample::select(vec![
                BOOL, INT4, INT8, FLOAT8, NUMERIC, JSON, TIMESTAMP, TIMESTAMPTZ, TEXT,
                1000, 1007, 1009, 199, 1231, 1185, 1020, 4_000_000,
            ]),
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                r#"[{}",;\\0-9.:eE+ a-]{0,40}"#.prop_map(String::into_bytes),
                "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[.+0-9:-]{0,9}".prop_map(String::into_bytes),
            ],
        ) {
            let text = json(type_oid, &text);
            prop_assert!(json::scan(text.as_bytes()).is_some(), "{}", text);
        }

        #[test]
        fn a_numeric_that_is_a_number_survives_a_double(whole in 0u64..1 << 53, fraction in "[0-9]{0,17}") {
            let text = if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") };
            if is_double_decimal(text.as_bytes()) {
                let double: f64 = text.parse().unwrap();
                // Zeros at the end are no digits that a reader could lose.
                let digits = fraction.trim_end_matches('0');
                let again = format!("{double:.*}", digits.len());
                let text = format!("{whole}.{digits}");
                prop_assert_eq!(again, text.trim_end_matches('.'));
            }
        }
    }
}
