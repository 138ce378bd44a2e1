//! `dormouse sql`.

use std::io::Read as _;

use serde_json::Value;
use wire::http::RowMode;

use super::args::SqlArgs;
use super::failure::Failure;
use super::table::Table;
use super::target::Target;

/// Oids of types whose values stand at the right of their column.
const NUMBERS: [u64; 8] = [20, 21, 23, 26, 700, 701, 790, 1700];

/// Runs one statement and prints its result.
pub(crate) async fn run(args: SqlArgs) -> Result<(), Failure> {
    let sql = statement(&args.sql)?;
    let params: Vec<Value> = args.params.iter().map(|text| param(text)).collect();
    let mode = if args.target.json {
        RowMode::Objects
    } else {
        RowMode::Arrays
    };
    let target = Target::open(&args.target).await?;
    let result = target.query(&args.name, &sql, &params, mode).await;
    target.close().await?;
    let document = result.map_err(|failure| failure.of(&sql).in_json(args.target.json))?;
    if args.target.json {
        super::print(&format!("{}\n", String::from_utf8_lossy(&document)));
        return Ok(());
    }
    let document: Value = serde_json::from_slice(&document)
        .map_err(|error| Failure::unavailable(format!("the result is not JSON: {error}")))?;
    super::print(&render(&document));
    Ok(())
}

fn statement(text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut sql = String::new();
    std::io::stdin()
        .read_to_string(&mut sql)
        .map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    Ok(sql)
}

/// Arrays and objects go as they are, for array and JSON parameters; all else is text.
fn param(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Array(_) | Value::Object(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// A result as psql would show it.
fn render(document: &Value) -> String {
    let none = Vec::new();
    let fields = document["fields"].as_array().unwrap_or(&none);
    if fields.is_empty() {
        let command = document["command"].as_str().unwrap_or_default();
        return match document["rowCount"].as_u64() {
            Some(count) => format!("{command} {count}\n"),
            None => format!("{command}\n"),
        };
    }
    let mut table = Table::default();
    for field in fields {
        let number = field["dataTypeID"]
            .as_u64()
            .is_some_and(|oid| NUMBERS.contains(&oid));
        table.column(field["name"].as_str().unwrap_or_default(), number);
    }
    for row in document["rows"].as_array().unwrap_or(&none) {
        table.row(
            row.as_array()
                .unwrap_or(&none)
                .iter()
                .map(|value| match value {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                }),
        );
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_look_like_psqls() {
        let document = json!({
            "fields": [{"name": "n", "dataTypeID": 23}, {"name": "t", "dataTypeID": 25}],
            "rows": [[1, "a"], [20, null]], "command": "SELECT", "rowCount": 2,
        });
        assert_eq!(
            render(&document),
            " n  | t \n----+---\n  1 | a\n 20 | \n(2 rows)\n"
        );
        let insert = json!({ "fields": [], "rows": [], "command": "INSERT", "rowCount": 3 });
        assert_eq!(render(&insert), "INSERT 3\n");
    }
}
