//! A result as lines of JSON (NDJSON), written as the backend's messages come in.

use bytes::BytesMut;

use super::array_type::no_more_arrays;
use super::result::{FEWER, RowMode, write_end};
use super::row::RowWriter;
use crate::SizeLimit;
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
    limit: SizeLimit,
    /// Bytes of the lines so far.
    given: usize,
}

impl LineWriter {
    /// Begins a result. No message may be larger than `message_bytes_max`, nor all lines together than the limit; the line
    /// of an error does not count.
    pub fn new(mode: RowMode, message_bytes_max: usize, limit: SizeLimit) -> Self {
        Self {
            writer: RowWriter::new(mode),
            rest: BytesMut::new(),
            message_bytes_max,
            limit,
            given: 0,
        }
    }

    /// Takes bytes of the backend: the lines that they complete.
    ///
    /// # Errors
    /// What the backend says, 08P01 for bytes that are no messages, or 54000 past the limit; the lines before it are in `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PgError> {
        self.rest.extend_from_slice(bytes);
        while let Some(frame) = Frame::split(&mut self.rest, self.message_bytes_max)? {
            let before = out.len();
            let taken = self.take(&frame, out).and_then(|()| {
                let given = self.given.saturating_add(out.len() - before);
                self.limit.check("the result", given, FEWER)?;
                self.given = given;
                Ok(())
            });
            if let Err(error) = taken {
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
                let before = out.len();
                let check = |out: &[u8]| {
                    let given = self.given.saturating_add(out.len() - before);
                    self.limit.check("the result", given, FEWER)
                };
                self.writer.row(out, body, &no_more_arrays, check)?;
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
        let mut writer = LineWriter::new(RowMode::Objects, 1 << 20, SizeLimit::NONE);
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

    #[test]
    fn all_lines_together_are_limited() {
        let mut bytes = BytesMut::new();
        backend::row_description(&mut bytes, &[Field::text("a")]);
        for _ in 0..10 {
            backend::data_row(&mut bytes, &[Some(b"x")]);
        }
        backend::command_complete(&mut bytes, "SELECT 10");
        let (whole, _) = lines(&bytes, bytes.len());
        let within = |max: usize| {
            let limit = SizeLimit {
                bytes: max,
                name: "some.limit",
                remedy: "raise it",
            };
            let mut writer = LineWriter::new(RowMode::Objects, 1 << 20, limit);
            let mut out = Vec::new();
            let mut all = bytes.chunks(7);
            let taken = all.try_for_each(|piece| writer.push(piece, &mut out));
            (String::from_utf8(out).unwrap(), taken)
        };
        assert_eq!(within(whole.len()), (whole.clone(), Ok(())));
        for max in 0..whole.len() {
            let (lines, taken) = within(max);
            let error = taken.unwrap_err();
            assert!(
                error
                    .message()
                    .contains(&format!("some.limit, {max} bytes")),
                "{error}"
            );
            // Whole lines, as many as there may be.
            assert!(
                whole.starts_with(&lines) && lines.len() <= max,
                "{max}: {lines}"
            );
            assert!(lines.is_empty() || lines.ends_with('\n'), "{lines}");
        }
    }
}
