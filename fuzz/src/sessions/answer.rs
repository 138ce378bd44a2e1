//! Answers as text, without what two servers may say differently.

use wire::PgError;
use wire::pg::Frame;
use wire::pg::backend::{self, kind};

/// Fields of errors that tell where in the server's source they come from.
const SOURCE: [u8; 3] = *b"FLR";

/// A message as text; equal ones are equal to the last byte, but for object ids of tables and where in the
/// server's source an error was raised.
pub fn text(frame: &Frame) -> String {
    let letter = char::from(frame.kind());
    let told = match frame.kind() {
        kind::ERROR_RESPONSE | kind::NOTICE_RESPONSE => error(frame.body()),
        kind::ROW_DESCRIPTION => description(frame.body()),
        _ => None,
    };
    match told {
        Some(told) => format!("{letter} {told}"),
        None => format!("{letter} {}", frame.body().escape_ascii()),
    }
}

fn error(body: &[u8]) -> Option<String> {
    let error = PgError::decode(body).ok()?;
    let fields = error.fields().filter(|(field, _)| !SOURCE.contains(field));
    let fields: Vec<_> = fields
        .map(|(field, text)| format!("{}={text}", char::from(field)))
        .collect();
    Some(fields.join(" "))
}

fn description(body: &[u8]) -> Option<String> {
    let fields = backend::decode_row_description(body).ok()?;
    let fields = fields.into_iter().map(|mut field| {
        field.table_oid = u32::from(field.table_oid != 0);
        format!("{field:?}")
    });
    Some(fields.collect::<Vec<_>>().join(", "))
}

/// Channel and payload of a notification.
pub fn notification(frame: &Frame) -> Option<String> {
    let payload = frame.body().get(4..)?;
    (frame.kind() == kind::NOTIFICATION_RESPONSE).then(|| payload.escape_ascii().to_string())
}

/// Name and value of a setting that the client is told of.
pub fn parameter(frame: &Frame) -> Option<(String, String)> {
    let is_one = frame.kind() == kind::PARAMETER_STATUS;
    let decoded = backend::decode_parameter_status(frame.body()).ok();
    let (name, value) = decoded.filter(|_| is_one)?;
    Some((
        name.escape_ascii().to_string(),
        value.escape_ascii().to_string(),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use wire::pg::ErrorField;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut bytes = BytesMut::new();
        write(&mut bytes);
        text(&Frame::split(&mut bytes, usize::MAX).unwrap().unwrap())
    }

    #[test]
    fn only_the_place_in_the_source_makes_no_difference() {
        let error = |message: &str, line: &str| {
            let error = PgError::error("42601", message).with(ErrorField::Line, line);
            written(|out| error.encode(out))
        };
        assert_eq!(error("a", "1"), error("a", "2"));
        assert_ne!(error("a", "1"), error("b", "1"));
        let row = |value: &[u8]| written(|out| backend::data_row(out, &[Some(value)]));
        assert_ne!(row(b"1"), row(b"2"));
        assert_ne!(row(b""), written(|out| backend::data_row(out, &[None])));
    }

    #[test]
    fn tables_have_other_object_ids() {
        let column = |table_oid, name: &str| {
            let mut field = backend::Field::text(name);
            field.table_oid = table_oid;
            written(|out| backend::row_description(out, &[field]))
        };
        assert_eq!(column(16_384, "n"), column(16_999, "n"));
        assert_ne!(column(16_384, "n"), column(0, "n"));
        assert_ne!(column(16_384, "n"), column(16_384, "m"));
    }
}
