//! Messages that clients send: builders for our own, parsers for those of others.
//!
//! Names and SQL are bytes, not text: a client may have chosen another encoding than UTF-8, and
//! what PostgreSQL accepts is not refused on its way there.

use bytes::{BufMut, BytesMut};

use super::reader::{Reader, violation};
use super::writer::{try_message, try_put_count, try_put_cstr, try_put_value};
use super::{Format, PgError, Target};

/// The type bytes of these messages.
#[expect(
    missing_docs,
    reason = "each is named as in the protocol's documentation"
)]
pub mod kind {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// Also every other answer to an authentication request.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// `Parse`: SQL becomes a prepared statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub statement: &'a [u8],
    /// The SQL.
    pub sql: &'a [u8],
    /// Types of the first parameters; 0 where PostgreSQL shall find out.
    pub param_oids: Vec<u32>,
}

/// `Bind`: a statement and its parameters become a portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// The parameters.
    pub params: Vec<Param<'a>>,
    /// None: all text. One: for all columns. Else one for each column.
    pub result_formats: Vec<Format>,
}

/// A parameter of `Bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// How `value` is encoded.
    pub format: Format,
    /// The value; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// `Execute`: a portal runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// At most this many rows; 0 or less for all.
    pub rows_max: i32,
}

impl<'a> Param<'a> {
    /// A parameter in text form.
    pub fn text(value: Option<&'a [u8]>) -> Self {
        Self {
            format: Format::Text,
            value,
        }
    }

    /// A parameter in binary form.
    pub fn binary(value: Option<&'a [u8]>) -> Self {
        Self {
            format: Format::Binary,
            value,
        }
    }
}

/// Writes `Query`. Text with a zero byte is refused.
pub fn query(out: &mut BytesMut, sql: &[u8]) -> Result<(), PgError> {
    try_message(out, Some(kind::QUERY), |out| try_put_cstr(out, sql))
}

/// Reads `Query`: the SQL.
pub fn decode_query(body: &[u8]) -> Result<&[u8], PgError> {
    let mut reader = Reader::new(body);
    let sql = reader.cstr()?;
    reader.finish()?;
    Ok(sql)
}

impl<'a> Parse<'a> {
    /// Writes the message. Text with a zero byte is refused.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), PgError> {
        try_message(out, Some(kind::PARSE), |out| {
            try_put_cstr(out, self.statement)?;
            try_put_cstr(out, self.sql)?;
            try_put_count(out, self.param_oids.len(), "parameter types")?;
            for oid in &self.param_oids {
                out.put_u32(*oid);
            }
            Ok(())
        })
    }

    /// Reads the message.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let statement = reader.cstr()?;
        let sql = reader.cstr()?;
        let param_oids = (0..reader.count()?)
            .map(|_| reader.u32())
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self {
            statement,
            sql,
            param_oids,
        })
    }
}

impl<'a> Bind<'a> {
    /// Writes the message. Names with a zero byte are refused.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), PgError> {
        try_message(out, Some(kind::BIND), |out| {
            try_put_cstr(out, self.portal)?;
            try_put_cstr(out, self.statement)?;
            let all_text = self.params.iter().all(|param| param.format == Format::Text);
            let formats = if all_text { &[][..] } else { &self.params[..] };
            try_put_count(out, formats.len(), "parameter formats")?;
            for param in formats {
                out.put_i16(param.format.code());
            }
            try_put_count(out, self.params.len(), "parameters")?;
            for param in &self.params {
                try_put_value(out, param.value)?;
            }
            try_put_count(out, self.result_formats.len(), "result formats")?;
            for format in &self.result_formats {
                out.put_i16(format.code());
            }
            Ok(())
        })
    }

    /// Reads the message.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        let formats = formats(&mut reader)?;
        let count = reader.count()?;
        if formats.len() > 1 && formats.len() != count {
            return Err(violation(format!(
                "bind message has {} parameter formats but {count} parameters",
                formats.len()
            )));
        }
        let params = (0..count)
            .map(|index| {
                let format = formats.get(index).or_else(|| formats.first()).copied();
                Ok(Param {
                    format: format.unwrap_or(Format::Text),
                    value: reader.value()?,
                })
            })
            .collect::<Result<_, _>>()?;
        let result_formats = self::formats(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            portal,
            statement,
            params,
            result_formats,
        })
    }

    /// Reads only the names of the portal and the statement, which is all that routing needs.
    pub fn decode_names(body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), PgError> {
        let mut reader = Reader::new(body);
        Ok((reader.cstr()?, reader.cstr()?))
    }
}

impl<'a> Execute<'a> {
    /// Writes the message. A name with a zero byte is refused.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), PgError> {
        try_message(out, Some(kind::EXECUTE), |out| {
            try_put_cstr(out, self.portal)?;
            out.put_i32(self.rows_max);
            Ok(())
        })
    }

    /// Reads the message.
    pub fn decode(body: &'a [u8]) -> Result<Self, PgError> {
        let mut reader = Reader::new(body);
        let execute = Self {
            portal: reader.cstr()?,
            rows_max: reader.i32()?,
        };
        reader.finish()?;
        Ok(execute)
    }
}

/// Writes `Describe`. A name with a zero byte is refused.
pub fn describe(out: &mut BytesMut, target: Target, name: &[u8]) -> Result<(), PgError> {
    targeted(out, kind::DESCRIBE, target, name)
}

/// Writes `Close`. A name with a zero byte is refused.
pub fn close(out: &mut BytesMut, target: Target, name: &[u8]) -> Result<(), PgError> {
    targeted(out, kind::CLOSE, target, name)
}

/// Reads `Describe` or `Close`: what, and its name.
pub fn decode_target(body: &[u8]) -> Result<(Target, &[u8]), PgError> {
    let mut reader = Reader::new(body);
    let target = match reader.byte()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        other => return Err(violation(format!("invalid message subtype {other}"))),
    };
    let name = reader.cstr()?;
    reader.finish()?;
    Ok((target, name))
}

/// Writes `Sync`.
pub fn sync(out: &mut BytesMut) {
    super::writer::message(out, kind::SYNC, |_| {});
}

/// Writes `Flush`.
pub fn flush(out: &mut BytesMut) {
    super::writer::message(out, kind::FLUSH, |_| {});
}

/// Writes `Terminate`.
pub fn terminate(out: &mut BytesMut) {
    super::writer::message(out, kind::TERMINATE, |_| {});
}

/// Writes `CopyData`, which servers send too.
pub fn copy_data(out: &mut BytesMut, data: &[u8]) -> Result<(), PgError> {
    try_message(out, Some(kind::COPY_DATA), |out| {
        out.extend_from_slice(data);
        Ok(())
    })
}

/// Writes `CopyDone`, which servers send too.
pub fn copy_done(out: &mut BytesMut) {
    super::writer::message(out, kind::COPY_DONE, |_| {});
}

/// Writes `CopyFail`. A reason with a zero byte is refused.
pub fn copy_fail(out: &mut BytesMut, reason: &[u8]) -> Result<(), PgError> {
    try_message(out, Some(kind::COPY_FAIL), |out| try_put_cstr(out, reason))
}

fn targeted(out: &mut BytesMut, kind: u8, target: Target, name: &[u8]) -> Result<(), PgError> {
    try_message(out, Some(kind), |out| {
        out.put_u8(target.code());
        try_put_cstr(out, name)
    })
}

fn formats(reader: &mut Reader<'_>) -> Result<Vec<Format>, PgError> {
    (0..reader.count()?)
        .map(|_| Format::from_code(reader.i16()?))
        .collect()
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
        query(&mut out, b"SELECT 1").unwrap();
        sync(&mut out);
        describe(&mut out, Target::Portal, b"p").unwrap();
        copy_fail(&mut out, b"no").unwrap();
        assert_eq!(
            &out[..],
            b"Q\0\0\0\x0dSELECT 1\0S\0\0\0\x04D\0\0\0\x07Pp\0f\0\0\0\x07no\0"
        );
    }

    #[test]
    fn a_refused_message_leaves_nothing() {
        let mut out = BytesMut::from("before");
        assert_eq!(query(&mut out, b"a\0b").unwrap_err().code(), "22021");
        let params = vec![Param::text(None); 65_536];
        let bind = Bind {
            portal: b"",
            statement: b"",
            params,
            result_formats: Vec::new(),
        };
        assert_eq!(bind.encode(&mut out).unwrap_err().code(), "54000");
        assert_eq!(out, "before");
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        vec(1u8.., 0..9)
    }

    fn format() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::Text), Just(Format::Binary)]
    }

    proptest! {
        #[test]
        fn parsers_are_total(body in vec(any::<u8>(), 0..80)) {
            let _ = decode_query(&body);
            let _ = Parse::decode(&body);
            let _ = Bind::decode(&body);
            let _ = Bind::decode_names(&body);
            let _ = Execute::decode(&body);
            let _ = decode_target(&body);
        }

        #[test]
        fn parse_round_trip(statement in name(), sql in name(), param_oids in vec(any::<u32>(), 0..5)) {
            let message = Parse { statement: &statement, sql: &sql, param_oids };
            let mut out = BytesMut::new();
            message.encode(&mut out).unwrap();
            prop_assert_eq!(Parse::decode(&out[5..]).unwrap(), message);
        }

        #[test]
        fn bind_round_trip(portal in name(), statement in name(),
                           params in vec((format(), option::of(vec(any::<u8>(), 0..9))), 0..5),
                           result_formats in vec(format(), 0..4)) {
            let params: Vec<_> =
                params.iter().map(|(format, value)| Param { format: *format, value: value.as_deref() }).collect();
            let message = Bind { portal: &portal, statement: &statement, params, result_formats };
            let mut out = BytesMut::new();
            message.encode(&mut out).unwrap();
            prop_assert_eq!(Bind::decode_names(&out[5..]).unwrap(), (&portal[..], &statement[..]));
            prop_assert_eq!(Bind::decode(&out[5..]).unwrap(), message);
        }

        #[test]
        fn execute_round_trip(portal in name(), rows_max in any::<i32>()) {
            let message = Execute { portal: &portal, rows_max };
            let mut out = BytesMut::new();
            message.encode(&mut out).unwrap();
            prop_assert_eq!(Execute::decode(&out[5..]).unwrap(), message);
        }
    }
}
