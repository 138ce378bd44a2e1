//! The result of a statement.

use std::sync::Arc;

use database::QueryResult;

use crate::from_text::{FromText, InvalidText};

pub use database::Column;

/// The result of a statement.
#[derive(Debug, Clone)]
pub struct Rows {
    command: String,
    row_count: Option<u64>,
    columns: Arc<[Column]>,
    rows: Vec<Row>,
}

/// One row of a result.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[Column]>,
    values: Vec<Option<String>>,
}

/// How a column is named: by its name, or by its number from 0.
pub trait ColumnName {
    /// The number of the column, from 0.
    fn find(&self, columns: &[Column]) -> Option<usize>;

    /// What to call it in an error.
    fn describe(&self) -> String;
}

/// A value is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// There is no such column.
    #[error("there is no column {column}; there are: {present}")]
    Column {
        /// What was asked for.
        column: String,
        /// The names that there are.
        present: String,
    },
    /// The column's value is not of the Rust type.
    #[error("column {column} (type oid {type_oid}) is not of type {wanted}: {reason}")]
    Type {
        /// The column's name.
        column: String,
        /// PostgreSQL's number of its type.
        type_oid: u32,
        /// The Rust type that was asked for.
        wanted: &'static str,
        /// Why not.
        reason: InvalidText,
    },
}

impl Rows {
    pub(crate) fn new(result: QueryResult) -> Self {
        let columns: Arc<[Column]> = result.columns.into();
        let row = |values| Row {
            columns: Arc::clone(&columns),
            values,
        };
        Self {
            command: result.command,
            row_count: result.row_count,
            rows: result.rows.into_iter().map(row).collect(),
            columns,
        }
    }

    /// The command: `SELECT`, `INSERT`, `CREATE TABLE`.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// How many rows were returned or changed, if the command counts them.
    pub fn row_count(&self) -> Option<u64> {
        self.row_count
    }

    /// The columns, known even if there is no row.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The first row.
    pub fn first(&self) -> Option<&Row> {
        self.rows.first()
    }
}

impl std::ops::Index<usize> for Rows {
    type Output = Row;

    fn index(&self, row: usize) -> &Row {
        &self.rows[row]
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = std::vec::IntoIter<Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

impl Row {
    /// The value of a column, named or counted from 0: `row.get::<i64>("n")`.
    pub fn get<T: FromText>(&self, column: impl ColumnName) -> Result<T, ValueError> {
        let index = self.find(&column)?;
        let value = match self.values.get(index).and_then(Option::as_deref) {
            Some(text) => T::from_text(text),
            None => T::from_null(),
        };
        value.map_err(|reason| ValueError::Type {
            column: self.columns[index].name.clone(),
            type_oid: self.columns[index].type_oid,
            wanted: std::any::type_name::<T>(),
            reason,
        })
    }

    /// The value as PostgreSQL wrote it; `None` is NULL.
    pub fn text(&self, column: impl ColumnName) -> Result<Option<&str>, ValueError> {
        let index = self.find(&column)?;
        Ok(self.values.get(index).and_then(Option::as_deref))
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn find(&self, column: &impl ColumnName) -> Result<usize, ValueError> {
        column
            .find(&self.columns)
            .ok_or_else(|| ValueError::Column {
                column: column.describe(),
                present: self
                    .columns
                    .iter()
                    .map(|column| &*column.name)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

impl ColumnName for &str {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        columns.iter().position(|column| column.name == *self)
    }

    fn describe(&self) -> String {
        format!("\"{self}\"")
    }
}

impl ColumnName for usize {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }

    fn describe(&self) -> String {
        format!("number {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let column = |name: &str, type_oid| Column {
            name: name.to_owned(),
            type_oid,
        };
        Rows::new(QueryResult {
            command: "SELECT".to_owned(),
            row_count: Some(1),
            columns: vec![column("id", 23), column("name", 25)],
            rows: vec![vec![Some("7".to_owned()), None]],
        })
    }

    #[test]
    fn values_by_name_and_number() {
        let rows = rows();
        let row = &rows[0];
        assert_eq!(row.get::<i64>("id"), Ok(7));
        assert_eq!(row.get::<i32>(0), Ok(7));
        assert_eq!(row.get::<Option<String>>("name"), Ok(None));
        assert_eq!(row.text("id"), Ok(Some("7")));
    }

    #[test]
    fn errors_name_the_column_and_the_type() {
        let rows = rows();
        let message = |error: ValueError| error.to_string();
        let error = message(rows[0].get::<bool>("id").unwrap_err());
        assert!(
            error.contains("column id") && error.contains("bool"),
            "{error}"
        );
        let error = message(rows[0].get::<String>("name").unwrap_err());
        assert!(error.contains("NULL"), "{error}");
        let error = message(rows[0].get::<i32>("ID").unwrap_err());
        assert!(error.contains("there are: id, name"), "{error}");
        let error = message(rows[0].get::<i32>(2).unwrap_err());
        assert!(error.contains("number 2"), "{error}");
    }
}
