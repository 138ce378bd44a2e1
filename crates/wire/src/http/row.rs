//! Fields and rows as JSON, whatever document they are in.

use std::collections::HashMap;

use super::array_type::ElementOf;
use super::{RowMode, json, value};
use crate::pg::backend::{self, DataRow, Field};
use crate::pg::{Format, PgError, sqlstate};

/// Writes the rows of one result.
pub(super) struct RowWriter {
    mode: RowMode,
    columns: Vec<Column>,
}

/// What writing a value needs of its field.
struct Column {
    type_oid: u32,
    /// `"name":`, or nothing for a column that a later one of the same name hides.
    key: Option<Box<[u8]>>,
}

impl RowWriter {
    pub(super) fn new(mode: RowMode) -> Self {
        Self {
            mode,
            columns: Vec::new(),
        }
    }

    /// Takes the body of `RowDescription`, and writes the fields, an array.
    pub(super) fn describe(&mut self, out: &mut Vec<u8>, body: &[u8]) -> Result<(), PgError> {
        let fields = backend::decode_row_description(body)?;
        if fields.iter().any(|field| field.format == Format::Binary) {
            return Err(PgError::error(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "results with binary columns cannot be written as JSON",
            ));
        }
        self.columns = columns(&fields);
        write_fields(out, &fields);
        Ok(())
    }

    /// Has the columns' values written as those of other types.
    pub(super) fn retype(&mut self, written_as: impl Fn(u32) -> u32) {
        for column in &mut self.columns {
            column.type_oid = written_as(column.type_oid);
        }
    }

    /// Writes the body of `DataRow`; `check` is asked after each value whether there may be more.
    pub(super) fn row(
        &self,
        out: &mut Vec<u8>,
        body: &[u8],
        element_of: ElementOf<'_>,
        check: impl Fn(&[u8]) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        let row = DataRow::decode(body)?;
        if row.len() != self.columns.len() {
            return Err(PgError::error(
                sqlstate::PROTOCOL_VIOLATION,
                format!(
                    "a row has {} values, but {} columns",
                    row.len(),
                    self.columns.len()
                ),
            ));
        }
        let (open, close) = match self.mode {
            RowMode::Objects => (b'{', b'}'),
            RowMode::Arrays => (b'[', b']'),
        };
        out.push(open);
        let mut first = true;
        for (column, text) in self.columns.iter().zip(row) {
            let key = match (self.mode, &column.key) {
                (RowMode::Arrays, _) => &[],
                (RowMode::Objects, Some(key)) => &**key,
                (RowMode::Objects, None) => continue,
            };
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(key);
            value::write_json(out, column.type_oid, text, element_of);
            // Here too, so that one wide row overshoots by one value at most.
            check(out)?;
        }
        out.push(close);
        check(out)
    }
}

/// Writes the fields of a result, an array.
pub(super) fn write_fields(out: &mut Vec<u8>, fields: &[Field]) {
    out.push(b'[');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        json::write_str(out, &field.name);
        let rest = format!(
            ",\"dataTypeID\":{},\"tableID\":{},\"columnID\":{},\"dataTypeSize\":{},\
             \"dataTypeModifier\":{},\"format\":\"text\"}}",
            field.type_oid, field.table_oid, field.column, field.type_size, field.type_modifier
        );
        out.extend_from_slice(rest.as_bytes());
    }
    out.push(b']');
}

fn columns(fields: &[Field]) -> Vec<Column> {
    let last: HashMap<&str, usize> = fields
        .iter()
        .enumerate()
        .map(|(index, field)| (&*field.name, index))
        .collect();
    fields
        .iter()
        .enumerate()
        .map(|(index, field)| Column {
            type_oid: field.type_oid,
            key: (last[&*field.name] == index).then(|| {
                let mut key = Vec::new();
                json::write_str(&mut key, &field.name);
                key.push(b':');
                key.into()
            }),
        })
        .collect()
}
