//! A JSON parameter becomes the text of a parameter of `Bind`.

use serde_json::value::RawValue;

use super::array_type::{Element, ElementOf, element};
use crate::pg::{PgError, sqlstate};

/// PostgreSQL's `MAXDIM`.
const ARRAY_DEPTH_MAX: usize = 6;

/// The text of the statement's parameter `$number`, or `None` for NULL.
///
/// | JSON | parameter |
/// |---|---|
/// | `null` | NULL, whatever the type; JSON's own null is `'null'::jsonb` in SQL |
/// | any other, for `json` and `jsonb` | its JSON text: a string is a JSON string |
/// | string | itself: PostgreSQL reads it by the type, `bytea` as `\x...` |
/// | number | its digits as written, `9007199254740993` and `0.10` included |
/// | `true`, `false` | `true`, `false` |
/// | array, for an array type | PostgreSQL's array, elements by this table, nested arrays as dimensions |
/// | array or object, for a type that has such values nowhere | error `22023` |
/// | other array or object | its JSON text, which is how `vector` is written, and JSON in a `text` |
///
/// The parameter is raw because a parsed number has lost digits.
pub fn encode_param(
    number: usize,
    param: &RawValue,
    type_oid: u32,
    element_of: ElementOf<'_>,
) -> Result<Option<Vec<u8>>, PgError> {
    let encoder = Encoder { number, element_of };
    encoder.encode(param, type_oid)
}

struct Encoder<'a> {
    number: usize,
    element_of: ElementOf<'a>,
}

impl Encoder<'_> {
    fn encode(&self, param: &RawValue, type_oid: u32) -> Result<Option<Vec<u8>>, PgError> {
        let text = param.get();
        if text == "null" {
            return Ok(None);
        }
        if is_json(type_oid) {
            return Ok(Some(text.as_bytes().to_vec()));
        }
        let encoded = match text.as_bytes().first() {
            Some(b'"') => self.string(text)?,
            Some(b'[') => {
                if let Some(element) = element(type_oid, self.element_of) {
                    let mut literal = Vec::with_capacity(text.len());
                    self.array(&mut literal, param, element, ARRAY_DEPTH_MAX)?;
                    literal
                } else {
                    self.structured(text, type_oid, "an array")?
                }
            }
            Some(b'{') => self.structured(text, type_oid, "an object")?,
            _ => text.as_bytes().to_vec(),
        };
        Ok(Some(encoded))
    }

    fn string(&self, text: &str) -> Result<Vec<u8>, PgError> {
        let number = self.number;
        let string: String = serde_json::from_str(text).map_err(|_| {
            PgError::error(
                sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
                format!("parameter ${number} has half of a surrogate pair, which is no character"),
            )
        })?;
        if string.contains('\0') {
            return Err(PgError::error(
                sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
                format!("parameter ${number} contains the character U+0000"),
            )
            .detail("PostgreSQL's text cannot hold this character; bytea can."));
        }
        Ok(string.into_bytes())
    }

    /// An array or an object where the type is no array.
    fn structured(&self, text: &str, type_oid: u32, what: &str) -> Result<Vec<u8>, PgError> {
        let Some(expected) = scalar(type_oid) else {
            return Ok(text.as_bytes().to_vec());
        };
        let number = self.number;
        Err(PgError::error(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("parameter ${number} is {what}, but its type is {expected}"),
        ))
    }

    /// Writes PostgreSQL's text of an array.
    fn array(
        &self,
        literal: &mut Vec<u8>,
        array: &RawValue,
        element: Element,
        depth_left: usize,
    ) -> Result<(), PgError> {
        let depth_left = depth_left.checked_sub(1).ok_or_else(|| {
            let number = self.number;
            PgError::error(
                sqlstate::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "parameter ${number} exceeds PostgreSQL's maximum of {ARRAY_DEPTH_MAX} array \
                     dimensions"
                ),
            )
        })?;
        let items: Vec<&RawValue> = serde_json::from_str(array.get())
            .expect("BUG: a raw value that begins with [ is a JSON array");
        literal.push(b'{');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                literal.push(element.delimiter);
            }
            // To an array of JSON a nested array is a value, not a dimension.
            if item.get().starts_with('[') && !is_json(element.type_oid) {
                self.array(literal, item, element, depth_left)?;
                continue;
            }
            match self.encode(item, element.type_oid)? {
                Some(text) => quote(literal, &text),
                None => literal.extend_from_slice(b"NULL"),
            }
        }
        literal.push(b'}');
        Ok(())
    }
}

/// Writes an element. Quotes are always right, so what would need none is not worth finding out.
fn quote(literal: &mut Vec<u8>, text: &[u8]) {
    literal.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            literal.push(b'\\');
        }
        literal.push(*byte);
    }
    literal.push(b'"');
}

fn is_json(type_oid: u32) -> bool {
    matches!(type_oid, 114 | 3802)
}

/// The name of a type whose values are never written as JSON arrays or objects.
fn scalar(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        16 => "boolean",
        17 => "bytea",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        26 => "oid",
        700 => "real",
        701 => "double precision",
        790 => "money",
        1082 => "date",
        1083 => "time without time zone",
        1114 => "timestamp without time zone",
        1184 => "timestamp with time zone",
        1186 => "interval",
        1266 => "time with time zone",
        1700 => "numeric",
        2950 => "uuid",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::array_type::no_more_arrays;
    use super::super::value::write_json;
    use super::*;
    use proptest::prelude::*;

    fn encode(json: &str, type_oid: u32) -> Result<Option<String>, PgError> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        encode_param(3, &raw, type_oid, &no_more_arrays)
            .map(|text| text.map(|text| String::from_utf8(text).unwrap()))
    }

    #[test]
    fn params() {
        let table = [
            ("null", 23, None),
            ("null", 3802, None),
            ("\"a\\u00e9\\n\\\"\"", 25, Some("aé\n\"")),
            ("\"\\ud83d\\ude00\"", 25, Some("😀")),
            ("9007199254740993", 20, Some("9007199254740993")),
            ("1e400", 1700, Some("1e400")),
            ("0.10", 1700, Some("0.10")),
            ("7", 25, Some("7")),
            ("true", 16, Some("true")),
            ("false", 25, Some("false")),
            ("\"\\\\x00\"", 17, Some("\\x00")),
            ("{\"a\": 1}", 3802, Some("{\"a\": 1}")),
            ("\"a\"", 114, Some("\"a\"")),
            ("\"\\u0000\"", 114, Some("\"\\u0000\"")),
            ("[1, 2]", 3802, Some("[1, 2]")),
            ("5", 3802, Some("5")),
            ("{\"a\": 1}", 25, Some("{\"a\": 1}")),
            ("[1,2,3]", 99_999, Some("[1,2,3]")),
            ("[]", 1007, Some("{}")),
            ("[1, null, \"2\"]", 1007, Some("{\"1\",NULL,\"2\"}")),
            ("[[1,2],[3,4]]", 1007, Some("{{\"1\",\"2\"},{\"3\",\"4\"}}")),
            (
                "[\"a,b\", \"\", \"NULL\", \"q\\\"\\\\\"]",
                1009,
                Some(r#"{"a,b","","NULL","q\"\\"}"#),
            ),
            (
                "[{\"a\": \"x\"}, [1], null, \"s\"]",
                3807,
                Some(r#"{"{\"a\": \"x\"}","[1]",NULL,"\"s\""}"#),
            ),
            (
                "[\"(1,2),(3,4)\",\"(1,2),(3,4)\"]",
                1020,
                Some("{\"(1,2),(3,4)\";\"(1,2),(3,4)\"}"),
            ),
            ("\"{1,2}\"", 1007, Some("{1,2}")),
        ];
        for (json, type_oid, expected) in table {
            assert_eq!(
                encode(json, type_oid),
                Ok(expected.map(str::to_owned)),
                "{json}"
            );
        }
    }

    #[test]
    fn refused() {
        let table = [
            (
                "[1]",
                23,
                "22023",
                "parameter $3 is an array, but its type is integer",
            ),
            (
                "{}",
                1184,
                "22023",
                "parameter $3 is an object, but its type is timestamp with time zone",
            ),
            (
                "[{}]",
                1007,
                "22023",
                "parameter $3 is an object, but its type is integer",
            ),
            (
                "\"a\\u0000\"",
                25,
                "22021",
                "parameter $3 contains the character U+0000",
            ),
            (
                "[\"\\u0000\"]",
                1009,
                "22021",
                "parameter $3 contains the character U+0000",
            ),
            (
                "\"\\ud800\"",
                25,
                "22021",
                "parameter $3 has half of a surrogate pair, which is no character",
            ),
            (
                "[[[[[[[1]]]]]]]",
                1007,
                "54000",
                "parameter $3 exceeds PostgreSQL's maximum of 6 array dimensions",
            ),
        ];
        for (json, type_oid, code, message) in table {
            let error = encode(json, type_oid).unwrap_err();
            assert_eq!((error.code(), error.message()), (code, message));
        }
    }

    proptest! {
        #[test]
        fn arrays_of_text_round_trip(items in proptest::collection::vec(proptest::option::of("[^\0]{0,9}"), 0..5)) {
            let json = serde_json::to_string(&items).unwrap();
            let literal = encode(&json, 1009).unwrap().unwrap();
            let mut out = Vec::new();
            write_json(&mut out, 1009, Some(literal.as_bytes()), &no_more_arrays);
            let again: Vec<Option<String>> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(again, items);
        }
    }
}
