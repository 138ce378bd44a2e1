//! Messages that servers send: builders for our own, parsers for those of PostgreSQL.

use bytes::{BufMut, BytesMut};

use super::reader::{Reader, violation};
use super::writer::{message, put_cstr, try_put_value};
use super::{Format, PgError, TransactionStatus};

/// The type bytes of these messages.
#[expect(
    missing_docs,
    reason = "each is named as in the protocol's documentation"
)]
pub mod kind {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The table it comes from; 0 if from none.
    pub table_oid: u32,
    /// The number of the table's column; 0 if none.
    pub column: i16,
    /// Its type.
    pub type_oid: u32,
    /// Its type's size; negative if it varies.
    pub type_size: i16,
    /// Its type's modifier; -1 if none.
    pub type_modifier: i32,
    /// How its values are encoded.
    pub format: Format,
}

/// The values of a row.
#[derive(Clone)]
pub struct DataRow<'a> {
    values: Reader<'a>,
    left: usize,
}

/// What `CommandComplete` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTag<'a> {
    /// The command without numbers: `INSERT`, `CREATE TABLE`.
    pub command: &'a str,
    /// How many rows it was about, if it says.
    pub row_count: Option<u64>,
}

/// How a COPY goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyResponse {
    /// The format of the whole.
    pub format: Format,
    /// The format of each column.
    pub columns: Vec<Format>,
}

impl Field {
    /// A text column that no table has, for answers that are made here.
    pub fn text(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table_oid: 0,
            column: 0,
            type_oid: 25,
            type_size: -1,
            type_modifier: -1,
            format: Format::Text,
        }
    }
}

impl<'a> DataRow<'a> {
    /// Reads the body of `DataRow`. All of it is checked here, so that iterating cannot fail.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let left = reader.count()?;
        let row = Self {
            values: reader.clone(),
            left,
        };
        for _ in 0..left {
            reader.value()?;
        }
        reader.finish()?;
        Ok(row)
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(
            self.values
                .value()
                .expect("BUG: decode has read these values before"),
        )
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for DataRow<'_> {}

impl<'a> CommandTag<'a> {
    /// Reads the body of `CommandComplete`.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let tag = std::str::from_utf8(reader.cstr()?)
            .map_err(|_| violation("invalid string in message"))?;
        reader.finish()?;
        Ok(Self::of(tag))
    }

    /// Reads a tag: `INSERT 0 5` (the 0 was once an OID), `SELECT 5`, `CREATE TABLE`.
    pub fn of(tag: &'a str) -> Self {
        let mut command = tag;
        let mut row_count = None;
        while let Some((before, word)) = command.rsplit_once(' ') {
            let Ok(number) = word.parse() else { break };
            command = before;
            row_count = row_count.or(Some(number));
        }
        Self { command, row_count }
    }
}

/// Writes `AuthenticationOk`.
pub fn authentication_ok(out: &mut BytesMut) {
    message(out, kind::AUTHENTICATION, |out| out.put_i32(0));
}

/// Writes `ParameterStatus`.
pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, kind::PARAMETER_STATUS, |out| {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value.as_bytes());
    });
}

/// Reads `ParameterStatus`: name and value.
pub fn decode_parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), PgError> {
    let mut reader = Reader::new(body);
    let pair = (reader.cstr()?, reader.cstr()?);
    reader.finish()?;
    Ok(pair)
}

/// Writes `BackendKeyData`. The key has 4 bytes for clients before protocol 3.2, else up to 256.
pub fn backend_key_data(out: &mut BytesMut, pid: u32, key: &[u8]) {
    debug_assert!(
        (4..=256).contains(&key.len()),
        "BUG: cancel keys have 4 to 256 bytes"
    );
    message(out, kind::BACKEND_KEY_DATA, |out| {
        out.put_u32(pid);
        out.extend_from_slice(key);
    });
}

/// Reads `BackendKeyData`: process id and key.
pub fn decode_backend_key_data(body: &[u8]) -> Result<(u32, &[u8]), PgError> {
    let mut reader = Reader::new(body);
    let pid = reader.u32()?;
    let key = reader.rest();
    if !(4..=256).contains(&key.len()) {
        return Err(violation("invalid length of cancel key"));
    }
    Ok((pid, key))
}

/// Writes `NegotiateProtocolVersion`: the minor version that is spoken, and what is not known.
pub fn negotiate_protocol_version(out: &mut BytesMut, minor: u16, unknown_options: &[String]) {
    message(out, kind::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u16(3);
        out.put_u16(minor);
        out.put_u32(unknown_options.len() as u32);
        for option in unknown_options {
            put_cstr(out, option.as_bytes());
        }
    });
}

/// Writes `ReadyForQuery`.
pub fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    message(out, kind::READY_FOR_QUERY, |out| out.put_u8(status.code()));
}

/// Reads `ReadyForQuery`.
pub fn decode_ready_for_query(body: &[u8]) -> Result<TransactionStatus, PgError> {
    match body {
        b"I" => Ok(TransactionStatus::Idle),
        b"T" => Ok(TransactionStatus::InTransaction),
        b"E" => Ok(TransactionStatus::Failed),
        _ => Err(violation("invalid transaction status in ReadyForQuery")),
    }
}

/// Writes `CommandComplete`.
pub fn command_complete(out: &mut BytesMut, tag: &str) {
    message(out, kind::COMMAND_COMPLETE, |out| {
        put_cstr(out, tag.as_bytes())
    });
}

/// Writes `EmptyQueryResponse`.
pub fn empty_query_response(out: &mut BytesMut) {
    message(out, kind::EMPTY_QUERY_RESPONSE, |_| {});
}

/// Writes `ParseComplete`.
pub fn parse_complete(out: &mut BytesMut) {
    message(out, kind::PARSE_COMPLETE, |_| {});
}

/// Writes `BindComplete`.
pub fn bind_complete(out: &mut BytesMut) {
    message(out, kind::BIND_COMPLETE, |_| {});
}

/// Writes `CloseComplete`.
pub fn close_complete(out: &mut BytesMut) {
    message(out, kind::CLOSE_COMPLETE, |_| {});
}

/// Writes `NoData`.
pub fn no_data(out: &mut BytesMut) {
    message(out, kind::NO_DATA, |_| {});
}

/// Writes `ParameterDescription`.
pub fn parameter_description(out: &mut BytesMut, oids: &[u32]) {
    message(out, kind::PARAMETER_DESCRIPTION, |out| {
        out.put_u16(count(oids.len()));
        for oid in oids {
            out.put_u32(*oid);
        }
    });
}

/// Reads `ParameterDescription`: the types of a statement's parameters.
pub fn decode_parameter_description(body: &[u8]) -> Result<Vec<u32>, PgError> {
    let mut reader = Reader::new(body);
    let oids = (0..reader.count()?)
        .map(|_| reader.u32())
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(oids)
}

/// Writes `RowDescription`.
pub fn row_description(out: &mut BytesMut, fields: &[Field]) {
    message(out, kind::ROW_DESCRIPTION, |out| {
        out.put_u16(count(fields.len()));
        for field in fields {
            put_cstr(out, field.name.as_bytes());
            out.put_u32(field.table_oid);
            out.put_i16(field.column);
            out.put_u32(field.type_oid);
            out.put_i16(field.type_size);
            out.put_i32(field.type_modifier);
            out.put_i16(field.format.code());
        }
    });
}

/// Reads `RowDescription`. A name that is not UTF-8 gets replacement characters.
pub fn decode_row_description(body: &[u8]) -> Result<Vec<Field>, PgError> {
    let mut reader = Reader::new(body);
    let fields = (0..reader.count()?)
        .map(|_| {
            Ok(Field {
                name: String::from_utf8_lossy(reader.cstr()?).into_owned(),
                table_oid: reader.u32()?,
                column: reader.i16()?,
                type_oid: reader.u32()?,
                type_size: reader.i16()?,
                type_modifier: reader.i32()?,
                format: Format::from_code(reader.i16()?)?,
            })
        })
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(fields)
}

/// Writes `DataRow` with values in text form.
pub fn data_row(out: &mut BytesMut, values: &[Option<&[u8]>]) {
    message(out, kind::DATA_ROW, |out| {
        out.put_u16(count(values.len()));
        for value in values {
            try_put_value(out, *value).expect("BUG: values of our own are shorter than 2 GiB");
        }
    });
}

impl CopyResponse {
    /// Reads the body of `CopyInResponse`, `CopyOutResponse` or `CopyBothResponse`.
    pub fn decode(body: &[u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let format = Format::from_code(i16::from(reader.byte()?))?;
        let columns = (0..reader.count()?)
            .map(|_| Format::from_code(reader.i16()?))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { format, columns })
    }
}

fn count(count: usize) -> u16 {
    u16::try_from(count).expect("BUG: answers of our own have fewer than 65,536 columns")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    #[test]
    fn bytes() {
        let mut out = BytesMut::new();
        authentication_ok(&mut out);
        parameter_status(&mut out, "a", "b");
        backend_key_data(&mut out, 1, &[9; 4]);
        negotiate_protocol_version(&mut out, 2, &["_pq_.x".to_owned()]);
        ready_for_query(&mut out, TransactionStatus::Failed);
        command_complete(&mut out, "A\0B");
        assert_eq!(
            &out[..],
            b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0K\0\0\0\x0c\0\0\0\x01\x09\x09\x09\x09\
              v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0Z\0\0\0\x05EC\0\0\0\x06A\0"
        );
    }

    #[test]
    fn tags() {
        let table = [
            ("INSERT 0 5", "INSERT", Some(5)),
            ("SELECT 0", "SELECT", Some(0)),
            ("COPY 18446744073709551615", "COPY", Some(u64::MAX)),
            ("CREATE TABLE", "CREATE TABLE", None),
            ("BEGIN", "BEGIN", None),
            ("", "", None),
            ("SELECT x", "SELECT x", None),
        ];
        for (tag, command, row_count) in table {
            assert_eq!(CommandTag::of(tag), CommandTag { command, row_count });
        }
    }

    proptest! {
        #[test]
        fn parsers_are_total(body in vec(any::<u8>(), 0..80)) {
            let _ = decode_row_description(&body);
            let _ = DataRow::decode(&body).map(Iterator::count);
            let _ = decode_parameter_description(&body);
            let _ = decode_parameter_status(&body);
            let _ = decode_backend_key_data(&body);
            let _ = decode_ready_for_query(&body);
            let _ = CommandTag::decode(&body);
            let _ = CopyResponse::decode(&body);
        }

        #[test]
        fn row_round_trip(values in vec(option::of(vec(any::<u8>(), 0..9)), 0..9)) {
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            let mut out = BytesMut::new();
            data_row(&mut out, &values);
            let row = DataRow::decode(&out[5..]).unwrap();
            prop_assert_eq!(row.len(), values.len());
            prop_assert_eq!(row.collect::<Vec<_>>(), values);
        }

        #[test]
        fn description_round_trip(columns in vec(("[^\0]{0,9}", any::<u32>(), any::<i16>(), any::<i32>()), 0..5)) {
            let fields: Vec<_> = columns.into_iter().map(|(name, oid, small, modifier)| Field {
                name, table_oid: oid, column: small, type_oid: oid, type_size: small,
                type_modifier: modifier, format: Format::Binary,
            }).collect();
            let mut out = BytesMut::new();
            row_description(&mut out, &fields);
            prop_assert_eq!(decode_row_description(&out[5..]).unwrap(), fields);
        }

        #[test]
        fn parameters_round_trip(oids in vec(any::<u32>(), 0..9)) {
            let mut out = BytesMut::new();
            parameter_description(&mut out, &oids);
            prop_assert_eq!(decode_parameter_description(&out[5..]).unwrap(), oids);
        }
    }
}
