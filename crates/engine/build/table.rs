//! The file table of `pglite.data`, which only `pglite.js` knows.
//!
//! Emscripten's file packager ends the loader with one call:
//! `loadPackage({files:[{filename:"/a/b",start:0,end:204},...],remote_package_size:6248509})`.

use std::ops::Range;

use serde_json::Value;

/// One file: its absolute path and its place in `pglite.data`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) range: Range<usize>,
}

/// The table in the text of `pglite.js`, for a `pglite.data` of `data_len` bytes.
pub(crate) fn file_table(js: &str, data_len: usize) -> Result<Vec<Entry>, String> {
    parse(js, data_len).map_err(|reason| {
        format!(
            "the file table of pglite.data was not understood: {reason}.\n\
             It is the argument of loadPackage({{files:[...]}}) in @electric-sql/pglite/dist/pglite.js;\n\
             if a new version of PGlite packs its files differently, crates/engine/build/table.rs\n\
             must learn it."
        )
    })
}

fn parse(js: &str, data_len: usize) -> Result<Vec<Entry>, String> {
    let call = js
        .match_indices("loadPackage(")
        .map(|(at, name)| js[at + name.len()..].trim_start())
        .find(|argument| argument.starts_with('{'))
        .ok_or("pglite.js does not call loadPackage({...})")?;
    let json = json_of_literal(call).ok_or("the argument of loadPackage does not end")?;
    let metadata: Value =
        serde_json::from_str(&json).map_err(|e| format!("its argument is no plain data: {e}"))?;

    let stated = number(&metadata, "remote_package_size")?;
    if stated != data_len {
        return Err(format!(
            "it is for {stated} bytes, and pglite.data has {data_len}"
        ));
    }
    let files = metadata["files"]
        .as_array()
        .ok_or("it has no list `files`")?;
    files.iter().map(|file| entry(file, data_len)).collect()
}

fn entry(file: &Value, data_len: usize) -> Result<Entry, String> {
    let path = file["filename"]
        .as_str()
        .ok_or_else(|| format!("no filename in {file}"))?;
    let range = number(file, "start")?..number(file, "end")?;
    if !path.starts_with('/') || range.start > range.end || range.end > data_len {
        return Err(format!(
            "{file} is no absolute path with a place in {data_len} bytes"
        ));
    }
    Ok(Entry {
        path: path.to_owned(),
        range,
    })
}

fn number(object: &Value, key: &str) -> Result<usize, String> {
    object[key]
        .as_u64()
        .and_then(|value| usize::try_from(value).ok())
        .ok_or_else(|| format!("no number `{key}` in it"))
}

/// The object literal that `js` starts with, as JSON: its bare keys get quotes.
fn json_of_literal(js: &str) -> Option<String> {
    let mut json = String::new();
    let mut depth = 0_usize;
    let mut rest = js;
    while let Some(next) = rest.chars().next() {
        let token_len = match next {
            '"' => string_len(rest)?,
            c if is_of_identifier(c) => rest.find(|c| !is_of_identifier(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(token_len);
        rest = after;

        let is_bare_key = is_of_identifier(next) && rest.trim_start().starts_with(':');
        match token {
            "{" => depth += 1,
            "}" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        let quote = if is_bare_key { "\"" } else { "" };
        json.extend([quote, token, quote]);
        if depth == 0 {
            return Some(json);
        }
    }
    None
}

fn is_of_identifier(c: char) -> bool {
    c == '_' || c == '$' || c.is_ascii_alphanumeric()
}

/// The length of the string literal that `js` starts with, quotes included.
fn string_len(js: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in js.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Entry, file_table};

    #[test]
    fn finds_the_call_among_other_code() {
        let js = r#"function loadPackage(metadata){x({a:1})}
            loadPackage( { files : [{filename:"/a:{b\"",start:0,end:3},
            {"filename":"/c","end":7,"start":3,audio:0}], remote_package_size:7, _x:{$y:"}"} });run()"#;
        let entry = |path: &str, range| Entry {
            path: path.to_owned(),
            range,
        };
        assert_eq!(
            file_table(js, 7),
            Ok(vec![entry("/a:{b\"", 0..3), entry("/c", 3..7)])
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |js: &str| file_table(js, 4).unwrap_err();
        assert!(error("loadPackage(x)").contains("does not call loadPackage"));
        assert!(error("loadPackage({files:[").contains("does not end"));
        assert!(error("loadPackage({files:f()})").contains("no plain data"));
        assert!(error("loadPackage({files:[]})").contains("remote_package_size"));
        assert!(error("loadPackage({files:[],remote_package_size:5})").contains("5 bytes"));
        assert!(error("loadPackage({remote_package_size:4})").contains("`files`"));
        let beyond =
            r#"loadPackage({files:[{filename:"/a",start:2,end:5}],remote_package_size:4})"#;
        assert!(error(beyond).contains("no absolute path with a place"));
        assert!(error("loadPackage({files:[{}],remote_package_size:4})").contains("no filename"));
    }
}
