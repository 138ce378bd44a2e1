//! `postgresql://user:password@host/database?application_name=x`.

use std::fmt;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::pg::{PgError, sqlstate, startup};

/// Who wants which database, as a connection string says it. The host is of no interest here.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// The role.
    pub user: String,
    /// Its password; empty if there is none.
    pub password: Zeroizing<String>,
    /// The database; the role's name if none is named.
    pub database: String,
    /// Settings to begin with: those of `options`, then `application_name`. Other parameters are about how to reach
    /// the server (`sslmode`, `channel_binding`), and are left out.
    pub settings: Vec<(String, String)>,
}

impl ConnectionString {
    /// Reads it.
    ///
    /// # Errors
    /// 22023 if it is none, without a word of what is in it; 42601 for `options` that are none.
    pub fn parse(text: &str) -> Result<Self, PgError> {
        let rest = ["postgresql://", "postgres://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or_else(|| invalid("it does not begin with postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (identity, _host) = authority
            .rsplit_once('@')
            .ok_or_else(|| invalid("it names no user"))?;
        let (user, password) = identity.split_once(':').unwrap_or((identity, ""));
        let user = decode(user)?;
        if user.is_empty() {
            return Err(invalid("it names no user"));
        }
        let database = decode(path)?;
        Ok(Self {
            password: Zeroizing::new(decode(password)?),
            database: match database.is_empty() {
                true => user.clone(),
                false => database,
            },
            user,
            settings: settings(query)?,
        })
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectionString")
            .field("user", &self.user)
            .field("database", &self.database)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn settings(query: &str) -> Result<Vec<(String, String)>, PgError> {
    let mut settings = Vec::new();
    let mut program = None;
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // In a query, and nowhere else, a plus sign is a space.
        let value = || decode(&value.replace('+', " "));
        match name {
            "options" => settings = startup::settings_of_options(&value()?)?,
            "application_name" => program = Some(value()?),
            _ => {}
        }
    }
    settings.extend(program.map(|program| ("application_name".to_owned(), program)));
    Ok(settings)
}

fn decode(text: &str) -> Result<String, PgError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| invalid("it is not UTF-8"))
}

fn invalid(why: &str) -> PgError {
    PgError::error(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("the connection string cannot be used: {why}"),
    )
    .hint("It is of the form postgresql://user:password@host/database.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings() {
        let parse = |text| ConnectionString::parse(text).unwrap();
        let all = parse(
            "postgresql://a%40b:p%3Aw:x@h.example:5432/my%20db?sslmode=require&application_name=pkg%3Anpm+x&options=-c%20work_mem%3D2MB",
        );
        assert_eq!(all.user, "a@b");
        assert_eq!(*all.password, "p:w:x");
        assert_eq!(all.database, "my db");
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            all.settings,
            [
                setting("work_mem", "2MB"),
                setting("application_name", "pkg:npm x")
            ]
        );
        let little = parse("postgres://ann@h");
        assert_eq!((&*little.database, &**little.password), ("ann", ""));
        assert!(little.settings.is_empty());
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "http://a@b/c",
            "postgres://",
            "postgres://h/d",
            "postgres://:p@h/d",
        ] {
            let error = ConnectionString::parse(text).unwrap_err();
            assert_eq!(error.code(), "22023", "{text}");
        }
        let error = ConnectionString::parse("postgres://secret%ff:secret@h/d").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = ConnectionString::parse("postgres://a:b@h/d?options=-x").unwrap_err();
        assert_eq!(error.code(), "42601");
    }

    #[test]
    fn debug_shows_no_password() {
        let string = ConnectionString::parse("postgres://a:secret@h/d").unwrap();
        assert!(!format!("{string:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(postgres://)?[a%4:@/?&=+o-]{0,40}") {
            let _ = ConnectionString::parse(&text);
        }
    }
}
