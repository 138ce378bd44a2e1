//! `dormouse sql`.

use std::borrow::Cow;
use std::io::Read as _;

use serde::Deserialize;
use serde_json::value::RawValue;
use wire::http::RowMode;

use super::args::SqlArgs;
use super::failure::Failure;
use super::table::Table;
use super::target::Target;

/// The oid of `bool`, whose values psql shortens.
const BOOL: u32 = 16;

/// Oids of types whose values stand at the right of their column: numbers, `oid`, `money`.
const NUMBERS: [u32; 8] = [20, 21, 23, 26, 700, 701, 790, 1700];

/// The document of a result, rows as arrays. Values stay text: a parsed number may lose digits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow)]
    fields: Vec<Field<'a>>,
    #[serde(borrow)]
    rows: Vec<Vec<&'a RawValue>>,
    command: Option<String>,
    row_count: Option<u64>,
}

#[derive(Deserialize)]
struct Field<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "dataTypeID")]
    type_oid: u32,
}

/// Runs one statement and prints its result.
pub(crate) async fn run(args: SqlArgs) -> Result<(), Failure> {
    let sql = statement(args.sql)?;
    let params: Vec<Box<RawValue>> = args.params.iter().map(|text| param(text)).collect();
    let mode = if args.target.json {
        RowMode::Objects
    } else {
        RowMode::Arrays
    };
    let target = Target::open(&args.target).await?;
    let result = target.query(&args.name, &sql, &params, mode).await;
    let closed = target.close().await;
    let document = result.map_err(|failure| failure.of(&sql).in_json(args.target.json))?;
    closed?;
    if args.target.json {
        super::print(&format!("{}\n", String::from_utf8_lossy(&document)));
    } else {
        super::print(&render(&document)?);
    }
    Ok(())
}

fn statement(text: String) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text);
    }
    let mut sql = String::new();
    std::io::stdin()
        .read_to_string(&mut sql)
        .map_err(|error| Failure::Usage(format!("cannot read SQL from standard input: {error}")))?;
    Ok(sql)
}

/// A parameter as JSON: what is a JSON array or object is sent as such, so that it can become an
/// array, or a json value that is no string. PostgreSQL reads everything else as text.
fn param(text: &str) -> Box<RawValue> {
    if text.starts_with(['[', '{'])
        && let Ok(json) = RawValue::from_string(text.to_owned())
    {
        return json;
    }
    serde_json::value::to_raw_value(text).expect("BUG: a string is always JSON")
}

/// A result as psql would show it.
fn render(document: &[u8]) -> Result<String, Failure> {
    let document: Document<'_> = serde_json::from_slice(document)
        .map_err(|error| Failure::unavailable(format!("the answer is not a result: {error}")))?;
    if document.fields.is_empty() {
        let command = document.command.unwrap_or_default();
        return Ok(match document.row_count {
            Some(count) => format!("{command} {count}\n"),
            None => format!("{command}\n"),
        });
    }
    let mut table = Table::default();
    for field in &document.fields {
        table.column(&field.name, NUMBERS.contains(&field.type_oid));
    }
    for row in &document.rows {
        let values = row.iter().zip(&document.fields);
        table.row(values.map(|(value, field)| cell(value.get(), field.type_oid)));
    }
    Ok(table.render())
}

/// A value as psql shows it; arrays and json as JSON.
fn cell(value: &str, type_oid: u32) -> String {
    match value {
        "null" => String::new(),
        "true" if type_oid == BOOL => "t".to_owned(),
        "false" if type_oid == BOOL => "f".to_owned(),
        // Half of a surrogate pair, in a json value, is no text.
        text if text.starts_with('"') => {
            serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
        }
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_look_like_psqls() {
        let document = br#"{"fields":[{"name":"n","dataTypeID":1700},{"name":"b","dataTypeID":16},
            {"name":"\u00e4","dataTypeID":25}],"rows":[[1.50,true,"x"],
            ["9007199254740993",false,null]],"command":"SELECT","rowCount":2}"#;
        let expected = concat!(
            "        n         | b | ä \n",
            "------------------+---+---\n",
            "             1.50 | t | x\n",
            " 9007199254740993 | f | \n",
            "(2 rows)\n"
        );
        assert_eq!(render(document).unwrap(), expected);
    }

    #[test]
    fn commands_without_rows_are_their_tag() {
        let tag = |text: &str| render(text.as_bytes()).unwrap();
        let insert = r#"{"fields":[],"rows":[],"command":"INSERT","rowCount":5}"#;
        assert_eq!(tag(insert), "INSERT 5\n");
        let create = r#"{"fields":[],"rows":[],"command":"CREATE TABLE","rowCount":null}"#;
        assert_eq!(tag(create), "CREATE TABLE\n");
    }

    #[test]
    fn parameters_are_text_unless_they_are_structured() {
        let cases = [
            ("5", "\"5\""),
            ("{\"a\": 1.0}", "{\"a\": 1.0}"),
            ("{1,2}", "\"{1,2}\""),
            ("[1,2]", "[1,2]"),
            (" [1]", "\" [1]\""),
        ];
        for (text, json) in cases {
            assert_eq!(param(text).get(), json);
        }
    }
}
