//! Tables for people, as psql's.

use unicode_width::UnicodeWidthStr;

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    name: String,
    right: bool,
}

impl Table {
    /// Adds a column; numbers stand at its right.
    pub(crate) fn column(&mut self, name: &str, right: bool) {
        let name = one_line(name);
        self.columns.push(Column { name, right });
    }

    /// Adds a row with one value a column.
    pub(crate) fn row(&mut self, values: impl IntoIterator<Item = String>) {
        let values = values.into_iter().map(|value| one_line(&value));
        self.rows.push(values.collect());
    }

    /// The table with the number of its rows, as psql prints it.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = self.widths();
        let mut out = String::new();
        let headers = self.columns.iter().zip(&widths).map(|(column, width)| {
            let free = width - column.name.width();
            let left = free / 2;
            format!(
                " {:left$}{}{:right$} ",
                "",
                column.name,
                "",
                right = free - left
            )
        });
        push_line(&mut out, headers, "|");
        push_line(
            &mut out,
            widths.iter().map(|width| "-".repeat(width + 2)),
            "+",
        );
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns).zip(&widths).enumerate();
            let cells = cells.map(|(index, ((value, column), width))| {
                let free = width - value.width();
                match (column.right, index + 1 == self.columns.len()) {
                    (true, true) => format!(" {:free$}{value}", ""),
                    (true, false) => format!(" {:free$}{value} ", ""),
                    (false, true) => format!(" {value}"),
                    (false, false) => format!(" {value}{:free$} ", ""),
                }
            });
            push_line(&mut out, cells, "|");
        }
        let count = self.rows.len();
        out.push_str(&format!(
            "({count} row{})\n",
            if count == 1 { "" } else { "s" }
        ));
        out
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |(index, column): (usize, &Column)| {
            let values = self.rows.iter().filter_map(|row| row.get(index));
            let values = values.map(|value| value.width()).max().unwrap_or(0);
            values.max(column.name.width())
        };
        self.columns.iter().enumerate().map(widest).collect()
    }
}

fn push_line(out: &mut String, cells: impl Iterator<Item = String>, separator: &str) {
    let line = cells.collect::<Vec<_>>().join(separator);
    out.push_str(
        line.strip_suffix(' ')
            .filter(|_| separator == "+")
            .unwrap_or(&line),
    );
    out.push('\n');
}

/// A value on one line, without what a terminal would obey.
fn one_line(value: &str) -> String {
    if !value.chars().any(char::is_control) {
        return value.to_owned();
    }
    value
        .chars()
        .flat_map(|character| {
            let escaped = character.is_control();
            let plain = (!escaped).then_some(character);
            let escape = escaped.then(|| character.escape_default());
            plain.into_iter().chain(escape.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_psqls() {
        let mut table = Table::default();
        table.column("id", true);
        table.column("name", false);
        table.column("n", true);
        table.row(["1", "日本", "10"].map(str::to_owned));
        table.row(["20", "two\nlines\x1b", ""].map(str::to_owned));
        let expected = concat!(
            " id |       name       | n  \n",
            "----+------------------+----\n",
            "  1 | 日本             | 10\n",
            " 20 | two\\nlines\\u{1b} |   \n",
            "(2 rows)\n",
        );
        assert_eq!(table.render(), expected);
    }
}
