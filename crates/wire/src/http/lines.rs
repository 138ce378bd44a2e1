//! A result as lines of JSON (NDJSON), written as the backend's messages come in.

use bytes::BytesMut;

use super::array_type::no_more_arrays;
use super::result::{RowMode, write_end};
use super::row::RowWriter;
use crate::pg::backend::{self, CommandTag};
use crate::pg::{Frame, PgError};

/// Writes a result line by line:
///
/// ```json
/// {"fields":[{"name":"id","dataTypeID":23}]}
/// {"id":1}
/// {"command":"SELECT","rowCount":1}
/// ```
///
/// The last line has `command`, or `error` if the statement failed on its way. A result whose last line is neither
/// has been cut.
pub struct LineWriter {
    writer: RowWriter,
    /// What has come, and is no whole message yet.
    rest: BytesMut,
    message_bytes_max: usize,
}

impl LineWriter {
    /// Begins a result. No message may be larger than `message_bytes_max`.
    pub fn new(mode: RowMode, message_bytes_max: usize) -> Self {
        Self {
            writer: RowWriter::new(mode),
            rest: BytesMut::new(),
            message_bytes_max,
        }
    }

    /// Takes bytes of the backend: the lines that they complete.
    ///
    /// # Errors
    /// What the backend says, or 08P01 for bytes that are no messages; the lines before it are in `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PgError> {
        self.rest.extend_from_slice(bytes);
        while let Some(frame) = Frame::split(&mut self.rest, self.message_bytes_max)? {
            let before = out.len();
            if let Err(error) = self.take(&frame, out) {
                out.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), PgError> {
        let body = frame.body();
        match frame.kind() {
            backend::kind::ROW_DESCRIPTION => {
                out.extend_from_slice(b"{\"fields\":");
                self.writer.describe(out, body)?;
                out.extend_from_slice(b"}\n");
            }
            backend::kind::DATA_ROW => {
                self.writer.row(out, body, &no_more_arrays, |_| Ok(()))?;
                out.push(b'\n');
            }
            backend::kind::COMMAND_COMPLETE => end(out, Some(CommandTag::decode(body)?)),
            backend::kind::EMPTY_QUERY_RESPONSE => end(out, None),
            backend::kind::ERROR_RESPONSE => return Err(PgError::decode(body)?),
            _ => {}
        }
        Ok(())
    }

    /// The line of an error.
    pub fn error(error: &PgError, out: &mut Vec<u8>) {
        out.extend_from_slice(&error.to_json());
        out.push(b'\n');
    }
}

fn end(out: &mut Vec<u8>, tag: Option<CommandTag<'_>>) {
    out.push(b'{');
    write_end(
        out,
        tag.map(|tag| tag.command),
        tag.and_then(|tag| tag.row_count),
    );
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::backend::Field;

    fn lines(bytes: &[u8], step: usize) -> (String, Option<String>) {
        let mut writer = LineWriter::new(RowMode::Objects, 1 << 20);
        let mut out = Vec::new();
        let mut failed = None;
        for piece in bytes.chunks(step) {
            if let Err(error) = writer.push(piece, &mut out) {
                failed = Some(error.code().to_owned());
                break;
            }
        }
        (String::from_utf8(out).unwrap(), failed)
    }

    #[test]
    fn pieces_of_any_size_give_the_same_lines() {
        let mut bytes = BytesMut::new();
        backend::row_description(&mut bytes, &[Field::text("a")]);
        backend::data_row(&mut bytes, &[Some(b"x\ny")]);
        backend::data_row(&mut bytes, &[None]);
        backend::command_complete(&mut bytes, "SELECT 2");
        let (whole, failed) = lines(&bytes, bytes.len());
        assert_eq!(failed, None);
        let expected = [
            "{\"a\":\"x\\ny\"}",
            "{\"a\":null}",
            "{\"command\":\"SELECT\",\"rowCount\":2}",
        ];
        assert_eq!(whole.lines().skip(1).collect::<Vec<_>>(), expected);
        for step in 1..bytes.len() {
            assert_eq!(lines(&bytes, step), (whole.clone(), None));
        }
        PgError::error("22012", "division by zero").encode(&mut bytes);
        assert_eq!(lines(&bytes, 7), (whole, Some("22012".to_owned())));
    }
}
