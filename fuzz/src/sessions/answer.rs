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
