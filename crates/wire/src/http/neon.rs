//! What is Neon's own in SQL over HTTP: how values are written, what parameters mean, the form of errors.
//!
//! It is what `@neondatabase/serverless` sends and reads.

use serde_json::value::RawValue;

use super::array_type::{self, no_more_arrays};
use super::{encode_param, json};
use crate::pg::{ErrorField, PgError};

const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;
const BOX_ARRAY: u32 = 1020;

/// `bool`, `int2`, `int4`, `json`, `float4`, `float8` and `jsonb`: the types whose values are more than text.
const TYPED: [u32; 7] = [16, 21, 23, 114, 700, 701, 3802];

/// All fields of an error, in the names of node-postgres.
const ERROR_MEMBERS: [(ErrorField, &str); 16] = [
    (ErrorField::Code, "code"),
    (ErrorField::Detail, "detail"),
    (ErrorField::Hint, "hint"),
    (ErrorField::Position, "position"),
    (ErrorField::InternalPosition, "internalPosition"),
    (ErrorField::InternalQuery, "internalQuery"),
    (ErrorField::SeverityNonlocalized, "severity"),
    (ErrorField::Where, "where"),
    (ErrorField::Table, "table"),
    (ErrorField::Column, "column"),
    (ErrorField::Schema, "schema"),
    (ErrorField::DataType, "dataType"),
    (ErrorField::Constraint, "constraint"),
    (ErrorField::File, "file"),
    (ErrorField::Line, "line"),
    (ErrorField::Routine, "routine"),
];

/// The type that a column's values are written as.
pub(super) fn written_as(type_oid: u32, is_raw: bool) -> u32 {
    if is_raw {
        return TEXT;
    }
    if TYPED.contains(&type_oid) {
        return type_oid;
    }
    match array_type::element(type_oid, &no_more_arrays) {
        Some(element) if TYPED.contains(&element.type_oid) => type_oid,
        Some(_) if type_oid == BOX_ARRAY => type_oid,
        Some(_) => TEXT_ARRAY,
        None => TEXT,
    }
}

/// The text of the parameter `$number`, whatever its type; `None` for NULL.
///
/// A string is itself, numbers and booleans are as they are written, an array is PostgreSQL's, and an object its JSON
/// text.
///
/// # Errors
/// 22021 for what is no text, 54000 for an array of too many dimensions.
pub fn param(number: usize, param: &RawValue) -> Result<Option<Vec<u8>>, PgError> {
    let type_oid = match param.get().starts_with('[') {
        true => TEXT_ARRAY,
        false => TEXT,
    };
    encode_param(number, param, type_oid, &no_more_arrays)
}

/// The JSON form of an error: all members are there, and text or null. None is longer than in any other JSON form.
pub fn error_json(error: &PgError) -> Vec<u8> {
    let mut out = b"{\"message\":".to_vec();
    let message = error.get_for_json(ErrorField::Message);
    json::write_str(&mut out, &message.unwrap_or_default());
    for (field, name) in ERROR_MEMBERS {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        match error.get_for_json(field) {
            Some(text) => json::write_str(&mut out, &text),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::super::{ResultWriter, RowMode};
    use super::*;
    use crate::SizeLimit;
    use crate::pg::backend::{self, Field};
    use crate::pg::frames;
    use bytes::BytesMut;

    fn document(is_raw: bool, mode: RowMode) -> String {
        let types = [
            (23, "1"),
            (20, "2"),
            (16, "t"),
            (1184, "2024-01-15 10:00:00+00"),
        ];
        let types = [&types[..], &[(1007, "{1,2}"), (1185, "{\"2024-01-15\"}")]].concat();
        let fields = types
            .iter()
            .enumerate()
            .map(|(index, (type_oid, _))| Field {
                type_oid: *type_oid,
                ..Field::text(&format!("c{index}"))
            });
        let fields: Vec<Field> = fields.collect();
        let values: Vec<_> = types
            .iter()
            .map(|(_, text)| Some(text.as_bytes()))
            .collect();
        let mut messages = BytesMut::new();
        backend::row_description(&mut messages, &fields);
        backend::data_row(&mut messages, &values);
        let mut writer = ResultWriter::neon(mode, is_raw, SizeLimit::NONE);
        for (kind, body) in frames(&messages) {
            match kind {
                backend::kind::ROW_DESCRIPTION => writer.row_description(body).unwrap(),
                _ => writer.data_row(body, &no_more_arrays).unwrap(),
            }
        }
        let document = writer.command_complete(b"CREATE TABLE AS\0").unwrap();
        let document = String::from_utf8(document).unwrap();
        document.split_once("\"rows\":").unwrap().1.to_owned()
    }

    #[test]
    fn values() {
        assert_eq!(
            document(true, RowMode::Arrays),
            r#"[["1","2","t","2024-01-15 10:00:00+00","{1,2}","{\"2024-01-15\"}"]],"command":"CREATE","rowCount":null,"rowAsArray":true,"viaNeonFetch":true}"#
        );
        assert_eq!(
            document(false, RowMode::Objects),
            r#"[{"c0":1,"c1":"2","c2":true,"c3":"2024-01-15 10:00:00+00","c4":[1,2],"c5":["2024-01-15"]}],"command":"CREATE","rowCount":null,"rowAsArray":false,"viaNeonFetch":true}"#
        );
    }

    #[test]
    fn params() {
        for (json, expected) in [
            ("null", None),
            ("\"a\"", Some("a")),
            ("1.50", Some("1.50")),
            ("true", Some("true")),
            ("{\"a\": [1]}", Some("{\"a\": [1]}")),
            ("[1,null,[\"x\"]]", Some("{\"1\",NULL,{\"x\"}}")),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
            let text = param(1, &raw).unwrap();
            assert_eq!(text.as_deref(), expected.map(str::as_bytes), "{json}");
        }
    }

    #[test]
    fn errors() {
        let error = PgError::error("42601", "no \"x\"").position(3);
        let json: serde_json::Value = serde_json::from_slice(&error_json(&error)).unwrap();
        assert_eq!(json["message"], "no \"x\"");
        assert_eq!(json["position"], "3");
        assert_eq!(json["severity"], "ERROR");
        assert_eq!(json["constraint"], serde_json::Value::Null);
    }
}
