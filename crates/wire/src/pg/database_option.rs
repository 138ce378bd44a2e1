//! The options of `CREATE DATABASE`, held against what every Dormouse database is.
//!
//! What asks for just that is accepted, so that scripts for other servers run; what asks for
//! anything else is an error rather than a promise nobody keeps.

use super::database_parser::Parser;
use super::lexer::syntax_error;
use super::{PgError, sqlstate};

/// What `CREATE DATABASE` was told, and which options it has met.
#[derive(Default)]
pub(crate) struct CreateOptions {
    pub(crate) template: Option<String>,
    pub(crate) owner: Option<String>,
    met: Vec<String>,
}

/// The value of an option.
pub(crate) enum Value {
    Default,
    Text(String),
    Number(String),
}

impl CreateOptions {
    pub(crate) fn read(&mut self, parser: &mut Parser<'_>) -> Result<(), PgError> {
        let at = parser.position();
        let option = parser.option_name()?;
        parser.accept_symbol(b'=')?;
        let value = parser.value()?;
        if self.met.contains(&option) {
            return Err(syntax_error(
                parser.text(),
                at,
                "conflicting or redundant options",
            ));
        }
        match &*option {
            "owner" => self.owner = value.text(),
            "template" => self.template = value.text(),
            "encoding" => encoding(&value)?,
            "locale" | "lc_collate" | "lc_ctype" | "builtin_locale" => locale(&value)?,
            "locale_provider" => locale_provider(&value)?,
            "icu_locale" | "icu_rules" => {
                value.only_default("databases here are not collated by ICU")?;
            }
            "collation_version" => {
                if !value.is_one_of(&["1"]) {
                    return Err(unsupported("the collation version of databases here is 1"));
                }
            }
            "tablespace" => {
                if !value.is_one_of(&["pg_default"]) {
                    return Err(unsupported(
                        "databases here have no tablespace but pg_default",
                    ));
                }
            }
            "allow_connections" => {
                if !value.boolean("allow_connections", true)? {
                    return Err(unsupported("databases here always allow connections"));
                }
            }
            // Every database can be forked: true is the case, and false is not worth an error.
            "is_template" => drop(value.boolean("is_template", false)?),
            "connection_limit" => connection_limit(&value)?,
            "strategy" => strategy(&value)?,
            "oid" => value.only_default("the OID of a database cannot be chosen here")?,
            // PostgreSQL has ignored it since 8.0.
            "location" => {}
            _ => {
                let message = format!("option \"{option}\" not recognized");
                return Err(syntax_error(parser.text(), at, message));
            }
        }
        self.met.push(option);
        Ok(())
    }
}

impl Value {
    fn text(self) -> Option<String> {
        match self {
            Self::Default => None,
            Self::Text(text) | Self::Number(text) => Some(text),
        }
    }

    fn as_str(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Text(text) | Self::Number(text) => Some(text),
        }
    }

    /// Whether it is DEFAULT, or one of these in any case.
    fn is_one_of(&self, accepted: &[&str]) -> bool {
        self.as_str().is_none_or(|text| {
            accepted
                .iter()
                .any(|other| text.eq_ignore_ascii_case(other))
        })
    }

    fn only_default(&self, why_not: &str) -> Result<(), PgError> {
        if self.as_str().is_none() {
            Ok(())
        } else {
            Err(unsupported(why_not))
        }
    }

    fn boolean(&self, option: &str, default: bool) -> Result<bool, PgError> {
        let Some(text) = self.as_str() else {
            return Ok(default);
        };
        match &*text.to_ascii_lowercase() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(PgError::error(
                sqlstate::SYNTAX_ERROR,
                format!("{option} requires a Boolean value"),
            )),
        }
    }
}

/// PostgreSQL compares the letters and digits of an encoding's name only.
fn encoding(value: &Value) -> Result<(), PgError> {
    let fits = match value {
        Value::Default => true,
        Value::Number(number) => number == "6" || number == "-1",
        Value::Text(name) => {
            let letters = name.chars().filter(char::is_ascii_alphanumeric);
            let name: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
            name == "utf8" || name == "unicode"
        }
    };
    if fits {
        Ok(())
    } else {
        Err(unsupported("databases here are encoded in UTF8"))
    }
}

fn locale(value: &Value) -> Result<(), PgError> {
    if value.is_one_of(&["C.UTF-8", "C.UTF8", "C", "POSIX"]) {
        return Ok(());
    }
    Err(unsupported("the locale of databases here is C.UTF-8")
        .hint("Use COLLATE in columns and queries where another order is wanted."))
}

fn locale_provider(value: &Value) -> Result<(), PgError> {
    if value.is_one_of(&["builtin", "libc"]) {
        Ok(())
    } else if value.is_one_of(&["icu"]) {
        Err(unsupported("databases here are not collated by ICU"))
    } else {
        Err(PgError::error(
            sqlstate::INVALID_OBJECT_DEFINITION,
            format!(
                "unrecognized locale provider: {}",
                value.as_str().unwrap_or_default()
            ),
        ))
    }
}

fn connection_limit(value: &Value) -> Result<(), PgError> {
    match value {
        Value::Default => Ok(()),
        Value::Number(number) => match number.parse::<i32>() {
            Ok(-1) => Ok(()),
            Ok(limit) if limit < -1 => Err(PgError::error(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("invalid connection limit: {limit}"),
            )),
            // A limit that nobody enforces is worse than none.
            _ => Err(
                unsupported("a database has no connection limit of its own here")
                    .hint("The limits on sessions are set in Dormouse's configuration."),
            ),
        },
        Value::Text(_) => Err(PgError::error(
            sqlstate::SYNTAX_ERROR,
            "connection_limit requires an integer value",
        )),
    }
}

/// Both of PostgreSQL's strategies are accepted: they are ways to copy, and here nothing is copied.
fn strategy(value: &Value) -> Result<(), PgError> {
    if value.is_one_of(&["wal_log", "file_copy"]) {
        return Ok(());
    }
    let strategy = value.as_str().unwrap_or_default();
    Err(PgError::error(
        sqlstate::INVALID_PARAMETER_VALUE,
        format!("invalid create database strategy \"{strategy}\""),
    )
    .hint("Valid strategies are \"wal_log\" and \"file_copy\"."))
}

pub(crate) fn unsupported(message: &str) -> PgError {
    PgError::error(sqlstate::FEATURE_NOT_SUPPORTED, message)
}
