//! The JSON document of a statement's result, written as the backend's messages come in.

use super::array_type::ElementOf;
use super::row::{RowWriter, write_fields};
use super::{json, neon};
use crate::SizeLimit;
use crate::pg::PgError;
use crate::pg::backend::CommandTag;

/// What comes before the fields, and before the rows.
const FIELDS: &[u8] = b"\"fields\":";
const ROWS: &[u8] = b",\"rows\":[";

/// What a row becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowMode {
    /// `{"id":1,"name":"a"}`. Of columns with the same name the last one counts.
    Objects,
    /// `[1,"a"]`.
    Arrays,
}

/// Whose document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Own,
    Neon { is_raw: bool },
}

/// Writes the document of one result:
///
/// ```json
/// {"fields":[{"name":"id","dataTypeID":23,"tableID":0,"columnID":0,"dataTypeSize":4,
///             "dataTypeModifier":-1,"format":"text"}],
///  "rows":[{"id":1}],
///  "command":"SELECT","rowCount":1}
/// ```
///
/// The members are in the order in which PostgreSQL tells them, so that nothing written is changed
/// later. `rowCount` is `null` for commands that count no rows, `command` too for an empty query.
pub struct ResultWriter {
    out: Vec<u8>,
    mode: RowMode,
    style: Style,
    /// What each document begins with.
    head: Box<[u8]>,
    writer: RowWriter,
    limit: SizeLimit,
    /// Bytes that count against the limit and are not in the document: of parts, and of other documents before.
    given: usize,
    /// What all of it is, as an error calls it.
    what: &'static str,
    /// What one part may be, where there are several.
    part: SizeLimit,
    /// Rows in the document so far.
    rows: u64,
}

impl ResultWriter {
    /// Begins a document, which may not grow beyond the limit.
    pub fn new(mode: RowMode, limit: SizeLimit) -> Self {
        Self::styled(mode, Style::Own, limit)
    }

    /// Begins a document as Neon's SQL over HTTP has it, which may not grow beyond the limit: `command`
    /// is one word, and `rowAsArray` and `viaNeonFetch` follow. With `is_raw` values are PostgreSQL's text.
    pub fn neon(mode: RowMode, is_raw: bool, limit: SizeLimit) -> Self {
        Self::styled(mode, Style::Neon { is_raw }, limit)
    }

    /// Begins a row of documents, each with these members before the others: `"id":1`. [`take_part`](Self::take_part)
    /// ends one and begins the next. None may grow beyond `part`, nor all together beyond the limit.
    pub fn in_parts(mode: RowMode, members: &str, limit: SizeLimit, part: SizeLimit) -> Self {
        Self {
            head: format!("{{{members},").into_bytes().into(),
            part,
            ..Self::styled(mode, Style::Own, limit)
        }
    }

    /// The same after so many bytes of something else, which count against the same limit.
    #[must_use]
    pub fn after(self, given: usize) -> Self {
        Self {
            given,
            what: "what the statements give together",
            ..self
        }
    }

    /// The bytes of the document so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// The document so far, which says that there is more: `{...,"rows":[...],"more":true}`. The next one begins
    /// with rows.
    pub fn take_part(&mut self) -> Vec<u8> {
        let next = [&*self.head, b"\"rows\":["].concat();
        let mut part = std::mem::replace(&mut self.out, next);
        part.extend_from_slice(b"],\"more\":true}");
        self.given = self.given.saturating_add(part.len());
        self.rows = 0;
        part
    }

    fn styled(mode: RowMode, style: Style, limit: SizeLimit) -> Self {
        Self {
            out: Vec::new(),
            mode,
            style,
            head: Box::from(*b"{"),
            writer: RowWriter::new(mode),
            limit,
            given: 0,
            what: "the result",
            part: SizeLimit::NONE,
            rows: 0,
        }
    }

    /// Takes the body of `RowDescription`.
    pub fn row_description(&mut self, body: &[u8]) -> Result<(), PgError> {
        self.begin();
        self.writer.describe(&mut self.out, body)?;
        if let Style::Neon { is_raw } = self.style {
            self.writer.retype(|oid| neon::written_as(oid, is_raw));
        }
        self.out.extend_from_slice(ROWS);
        self.check_limit()
    }

    /// Takes the body of `DataRow`.
    pub fn data_row(&mut self, body: &[u8], element_of: ElementOf<'_>) -> Result<(), PgError> {
        if self.rows > 0 {
            self.out.push(b',');
        }
        self.rows += 1;
        let (limit, given, part, what) = (self.limit, self.given, self.part, self.what);
        let check = |out: &[u8]| {
            part.check("a row of the result", out.len(), FEWER)?;
            limit.check(what, given.saturating_add(out.len()), FEWER)
        };
        self.writer.row(&mut self.out, body, element_of, check)
    }

    /// Takes the body of `CommandComplete` and ends the document.
    pub fn command_complete(self, body: &[u8]) -> Result<Vec<u8>, PgError> {
        let tag = CommandTag::decode(body)?;
        self.end(Some(tag))
    }

    /// Ends the document of an empty query, for which PostgreSQL sends `EmptyQueryResponse`.
    pub fn empty_query(self) -> Result<Vec<u8>, PgError> {
        self.end(None)
    }

    fn end(mut self, tag: Option<CommandTag<'_>>) -> Result<Vec<u8>, PgError> {
        if self.out.is_empty() {
            self.begin();
            write_fields(&mut self.out, &[]);
            self.out.extend_from_slice(ROWS);
        }
        self.out.extend_from_slice(b"],");
        let command = tag.map(|tag| self.style.command(tag.command));
        write_end(&mut self.out, command, tag.and_then(|tag| tag.row_count));
        if self.style != Style::Own {
            let tail = format!(
                ",\"rowAsArray\":{},\"viaNeonFetch\":true",
                self.mode == RowMode::Arrays
            );
            self.out.extend_from_slice(tail.as_bytes());
        }
        self.out.push(b'}');
        self.check_limit()?;
        Ok(self.out)
    }

    fn begin(&mut self) {
        self.out.extend_from_slice(&self.head);
        self.out.extend_from_slice(FIELDS);
    }

    fn check_limit(&self) -> Result<(), PgError> {
        let bytes = self.out.len();
        self.part.check("a row of the result", bytes, FEWER)?;
        let given = self.given.saturating_add(bytes);
        self.limit.check(self.what, given, FEWER)
    }
}

impl Style {
    fn command(self, command: &str) -> &str {
        match self {
            Self::Own => command,
            Self::Neon { .. } => command.split(' ').next().unwrap_or(command),
        }
    }
}

/// Writes the members `command` and `rowCount`.
pub(super) fn write_end(out: &mut Vec<u8>, command: Option<&str>, row_count: Option<u64>) {
    out.extend_from_slice(b"\"command\":");
    match command {
        Some(command) => json::write_str(out, command),
        None => out.extend_from_slice(b"null"),
    }
    let row_count = row_count.map_or_else(|| "null".to_owned(), |count| count.to_string());
    out.extend_from_slice(b",\"rowCount\":");
    out.extend_from_slice(row_count.as_bytes());
}

/// What to do about a result that is too large.
pub(super) const FEWER: &str = "Ask for fewer rows";

#[cfg(test)]
mod tests {
    use super::super::array_type::no_more_arrays;
    use super::*;
    use crate::pg::backend::{self, Field};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn body(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out[5..].to_vec()
    }

    fn limit(bytes: usize) -> SizeLimit {
        SizeLimit {
            bytes,
            name: "some.limit",
            remedy: "raise it",
        }
    }

    fn document(mode: RowMode, max: usize) -> Result<String, PgError> {
        let mut id = Field::text("id");
        (id.type_oid, id.type_size, id.table_oid, id.column) = (23, 4, 16_384, 1);
        let fields = [Field::text("a\""), id, Field::text("a\"")];
        let mut writer = ResultWriter::new(mode, limit(max));
        writer.row_description(&body(|out| backend::row_description(out, &fields)))?;
        for row in [
            [Some(&b"x"[..]), Some(b"1"), Some(b"y")],
            [None, None, None],
        ] {
            writer.data_row(&body(|out| backend::data_row(out, &row)), &no_more_arrays)?;
        }
        writer
            .command_complete(&body(|out| backend::command_complete(out, "SELECT 2")))
            .map(|json| String::from_utf8(json).unwrap())
    }

    const FIELDS: &str = r#"{"fields":[{"name":"a\"","dataTypeID":25,"tableID":0,"columnID":0,"dataTypeSize":-1,"dataTypeModifier":-1,"format":"text"},{"name":"id","dataTypeID":23,"tableID":16384,"columnID":1,"dataTypeSize":4,"dataTypeModifier":-1,"format":"text"},{"name":"a\"","dataTypeID":25,"tableID":0,"columnID":0,"dataTypeSize":-1,"dataTypeModifier":-1,"format":"text"}],"rows":["#;
    const END: &str = r#"],"command":"SELECT","rowCount":2}"#;

    #[test]
    fn documents() {
        let objects = format!(r#"{FIELDS}{{"id":1,"a\"":"y"}},{{"id":null,"a\"":null}}{END}"#);
        assert_eq!(document(RowMode::Objects, 1000).unwrap(), objects);
        let arrays = format!(r#"{FIELDS}["x",1,"y"],[null,null,null]{END}"#);
        assert_eq!(document(RowMode::Arrays, 1000).unwrap(), arrays);

        let create =
            ResultWriter::new(RowMode::Objects, limit(1000)).command_complete(b"CREATE TABLE\0");
        assert_eq!(
            create.unwrap(),
            br#"{"fields":[],"rows":[],"command":"CREATE TABLE","rowCount":null}"#
        );
        let empty = ResultWriter::new(RowMode::Objects, limit(1000)).empty_query();
        assert_eq!(
            empty.unwrap(),
            br#"{"fields":[],"rows":[],"command":null,"rowCount":null}"#
        );
    }

    #[test]
    fn the_limit_is_exact_and_named() {
        let length = document(RowMode::Objects, usize::MAX).unwrap().len();
        assert!(document(RowMode::Objects, length).is_ok());
        for max in [0, 10, length - 1] {
            let error = document(RowMode::Objects, max).unwrap_err();
            assert_eq!(error.code(), "54000");
            assert!(
                error
                    .message()
                    .contains(&format!("some.limit, {max} bytes"))
            );
        }
    }

    #[test]
    fn parts_count_together() {
        let row = body(|out| backend::data_row(out, &[Some(b"1234567890")]));
        let given = |max: usize| {
            let part = limit(60);
            let mut writer = ResultWriter::in_parts(RowMode::Arrays, "\"id\":1", limit(max), part);
            let mut bytes = 0;
            writer.writer.describe(
                &mut Vec::new(),
                &body(|out| {
                    backend::row_description(out, &[Field::text("a")]);
                }),
            )?;
            for _ in 0..3 {
                writer.data_row(&row, &no_more_arrays)?;
                bytes += writer.take_part().len();
            }
            let last = writer.command_complete(b"SELECT 3\0")?;
            Ok::<usize, PgError>(bytes + last.len())
        };
        let all = given(usize::MAX).unwrap();
        assert_eq!(given(all).unwrap(), all);
        for max in [all - 1, all / 2, 10] {
            let error = given(max).unwrap_err();
            assert!(
                error.message().contains(&format!("some.limit, {max}")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_came_before_counts_too() {
        let length = document(RowMode::Objects, usize::MAX).unwrap().len();
        let complete = |given: usize| {
            let writer = ResultWriter::new(RowMode::Objects, limit(length)).after(given);
            writer.command_complete(b"CREATE TABLE\0")
        };
        let own = complete(0).unwrap().len();
        assert!(complete(length - own).is_ok());
        let error = complete(length - own + 1).unwrap_err();
        let named = "what the statements give together exceeds some.limit";
        assert!(error.message().contains(named), "{error}");
    }

    proptest! {
        #[test]
        fn hostile_bodies(a in proptest::collection::vec(any::<u8>(), 0..40), b in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut writer = ResultWriter::new(RowMode::Objects, limit(1000));
            let _ = writer.row_description(&a);
            let _ = writer.data_row(&b, &no_more_arrays);
            let _ = writer.command_complete(&a);
        }
    }
}
