//! What a session has set, and how a server gets there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use wire::{PgError, sqlstate};

/// Settings of a session that are not the server's own, by their names in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings(Arc<BTreeMap<String, String>>);

/// They decide what others may be set: reset before them, and set after.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];

/// How long a statement may take.
const TIMEOUT: &str = "statement_timeout";

/// Bytes of their names and values (`session_settings_bytes_max`).
pub(crate) const BYTES_MAX: usize = 128 << 10;

impl Settings {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many bytes their names and values have.
    pub(crate) fn bytes(&self) -> usize {
        let each = |(name, value): (&String, &String)| name.len() + value.len();
        self.0.iter().map(each).sum()
    }

    /// Where they are in memory: those that share one are there once.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// # Errors
    ///
    /// 53400 if a session has set more than it may.
    pub(crate) fn expect_room(&self) -> Result<(), PgError> {
        let bytes = self.bytes();
        if bytes <= BYTES_MAX {
            return Ok(());
        }
        Err(PgError::fatal(
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "the settings of a session of a binding may have {BYTES_MAX} bytes, names and values together \
                 (session_settings_bytes_max): this session has set {bytes} or more"
            ),
        )
        .hint("Keep long values in a table, or set them by SET LOCAL for one transaction."))
    }

    /// Whether texts are in the encoding that servers begin with.
    pub(crate) fn is_utf8(&self) -> bool {
        self.get("client_encoding").is_none_or(|name| {
            name.eq_ignore_ascii_case("utf8") || name.eq_ignore_ascii_case("utf-8")
        })
    }

    /// Remembers a value, or that there is none.
    pub(crate) fn put(&mut self, name: &str, value: Option<String>) {
        let map = Arc::make_mut(&mut self.0);
        match value {
            Some(value) => map.insert(name.to_ascii_lowercase(), value),
            None => map.remove(name),
        };
    }

    /// Where two are alike but stand in memory twice, both are the one at the lower address from now on: sessions of many
    /// clients and servers come to share one, which is then told from others by its address alone.
    pub(crate) fn unite(&mut self, other: &mut Self) {
        unite(&mut self.0, &mut other.0);
    }

    /// SQL that makes a session with `self` one with `wanted`; nothing where they are alike.
    pub(crate) fn turn_into(&self, wanted: &Self) -> Option<String> {
        if Arc::ptr_eq(&self.0, &wanted.0) || self == wanted {
            return None;
        }
        let mut sql = String::new();
        let gone = |name: &str| self.get(name).is_some() && wanted.get(name) != self.get(name);
        for name in IDENTITY {
            if gone(name) {
                push_reset(&mut sql, name);
            }
        }
        let plain = |name: &&str| !IDENTITY.contains(name);
        for name in self.names().filter(plain) {
            if wanted.get(name).is_none() {
                push_reset(&mut sql, name);
            }
        }
        for name in wanted.names().filter(plain) {
            if self.get(name) != wanted.get(name) {
                push_set(&mut sql, name, wanted.get(name));
            }
        }
        // A new authorization takes the role with it.
        let is_other = wanted.get(IDENTITY[0]) != self.get(IDENTITY[0]);
        for name in IDENTITY {
            if wanted.get(name) != self.get(name) || is_other {
                push_set(&mut sql, name, wanted.get(name));
            }
        }
        Some(sql)
    }

    /// As [`ask`](Self::ask), where the session gives its statements less time than that takes.
    pub(crate) fn ask_without_timeout<'a>(names: impl Iterator<Item = &'a str>) -> String {
        let (timeout, others): (Vec<_>, Vec<_>) = names.partition(|name| *name == TIMEOUT);
        let mut sql = String::new();
        for _ in timeout {
            // Before it is another. What is in the way is not the default, and does no harm if it is.
            sql = format!("SELECT '{TIMEOUT}', pg_catalog.current_setting('{TIMEOUT}'), 'f';");
        }
        // Until the end of this message.
        sql.push_str("SET LOCAL statement_timeout = 0;");
        sql + &Self::ask(others)
    }

    /// SQL whose rows are the name, the value (as far as there may be so much of it), and whether it is the session's default, of each of these settings.
    pub(crate) fn ask<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
        let mut list = String::new();
        for name in names {
            if !list.is_empty() {
                list.push(',');
            }
            push_literal(&mut list, name);
        }
        format!(
            "SELECT n, pg_catalog.left(pg_catalog.current_setting(n, true), {}), COALESCE(\
             (SELECT s.setting IS NOT DISTINCT FROM s.reset_val FROM pg_catalog.pg_settings s \
             WHERE pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) n), \
             n OPERATOR(pg_catalog.=) 'role' AND pg_catalog.current_setting(n, true) OPERATOR(pg_catalog.=) 'none') \
             FROM pg_catalog.unnest(ARRAY[{list}]::pg_catalog.text[]) n",
            BYTES_MAX + 1
        )
    }
}

/// See [`Settings::unite`].
pub(crate) fn unite<T: PartialEq>(one: &mut Arc<T>, other: &mut Arc<T>) {
    if Arc::ptr_eq(one, other) || one != other {
        return;
    }
    match Arc::as_ptr(one) < Arc::as_ptr(other) {
        true => *other = Arc::clone(one),
        false => *one = Arc::clone(other),
    }
}

fn push_reset(sql: &mut String, name: &str) {
    sql.push_str("RESET ");
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            sql.push('.');
        }
        sql.push('"');
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
    sql.push(';');
}

fn push_set(sql: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else {
        return;
    };
    sql.push_str("SELECT pg_catalog.set_config(");
    push_literal(sql, name);
    sql.push(',');
    push_literal(sql, value);
    sql.push_str(",false);");
}

/// A string that is the same whatever the session's settings of strings and encodings say.
pub(crate) fn push_literal(sql: &mut String, text: &str) {
    sql.push_str("E'");
    for character in text.chars() {
        match character {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            ' '..='~' => sql.push(character),
            // Writing into a string cannot fail.
            _ => {
                let _ = write!(sql, "\\U{:08x}", u32::from(character));
            }
        }
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(of: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in of {
            settings.put(name, Some((*value).to_owned()));
        }
        settings
    }

    #[test]
    fn alike_needs_nothing() {
        let one = settings(&[("a", "1")]);
        assert_eq!(one.turn_into(&one.clone()), None);
        assert_eq!(one.turn_into(&settings(&[("a", "1")])), None);
    }

    #[test]
    fn those_that_are_alike_come_to_share_one() {
        let of = |value| settings(&[("a", value)]);
        let mut servers = [of("1"), of("1"), of("1")];
        let mut clients = [of("1"), of("1"), of("2")];
        for _ in 0..2 {
            for client in &mut clients {
                for server in &mut servers {
                    client.unite(server);
                }
            }
        }
        let [first, second, third] = &servers;
        assert!(Arc::ptr_eq(&first.0, &second.0) && Arc::ptr_eq(&second.0, &third.0));
        assert!(Arc::ptr_eq(&first.0, &clients[0].0) && Arc::ptr_eq(&first.0, &clients[1].0));
        assert_eq!(clients[2].get("a"), Some("2"));
    }

    #[test]
    fn who_it_is_comes_last() {
        let joe = settings(&[("role", "joe"), ("work_mem", "1MB"), ("app.user", "7")]);
        let ann = settings(&[("role", "ann"), ("work_mem", "2MB")]);
        let sql = joe.turn_into(&ann).unwrap();
        assert_eq!(
            sql,
            "RESET \"role\";RESET \"app\".\"user\";\
             SELECT pg_catalog.set_config(E'work_mem',E'2MB',false);\
             SELECT pg_catalog.set_config(E'role',E'ann',false);"
        );
    }

    #[test]
    fn an_authorization_takes_the_role_along() {
        let one = settings(&[("role", "r"), ("session_authorization", "a")]);
        let other = settings(&[("role", "r"), ("session_authorization", "b")]);
        let sql = one.turn_into(&other).unwrap();
        assert!(sql.ends_with("set_config(E'role',E'r',false);"), "{sql}");
    }

    #[test]
    fn texts_end_where_they_end() {
        let evil = settings(&[("a", "x'; drop table t; --\\'")]);
        let sql = Settings::default().turn_into(&evil).unwrap();
        let tree = pg_query::parse(&sql, 0).unwrap();
        assert_eq!(tree.protobuf.stmts.len(), 1);
        let accents = settings(&[("a", "é\n")]).0;
        let mut literal = String::new();
        push_literal(&mut literal, &accents["a"]);
        assert_eq!(literal, "E'\\U000000e9\\U0000000a'");
        let name = settings(&[("a\";drop table t;\"", "x")]);
        let sql = name.turn_into(&Settings::default()).unwrap();
        let tree = pg_query::parse(&sql, 0).unwrap();
        assert_eq!(tree.protobuf.stmts.len(), 1);
    }
}
