//! `CREATE DATABASE`, `DROP DATABASE` and `ALTER DATABASE ... RENAME`.
//!
//! To one PostgreSQL they would be about its own cluster. Here a database is a PostgreSQL of its
//! own, so they are read here and mean Dormouse's databases. Grammar, errors and positions follow
//! PostgreSQL's; the options' values are held against what every Dormouse database is.

use super::database_option::CreateOptions;
use super::database_parser::Parser;
use super::lexer::Lexer;
use super::{PgError, sqlstate};

/// A statement about a database as a whole.
///
/// Names are PostgreSQL identifiers as they were meant: folded, unquoted, cut to 63 bytes. They are
/// not yet [`DatabaseName`](crate::DatabaseName)s, so that dropping an impossible one can say that
/// it does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseStatement {
    /// `CREATE DATABASE name [WITH] [option ...]`
    Create {
        /// The new database.
        name: String,
        /// The database to fork it from, if it is not the default.
        template: Option<String>,
        /// The role that shall own it, if it is not the one who asks.
        owner: Option<String>,
    },
    /// `DROP DATABASE [IF EXISTS] name [[WITH] (FORCE)]`
    Drop {
        /// The database.
        name: String,
        /// Whether a missing one is only worth a notice.
        if_exists: bool,
        /// Whether its sessions are ended first.
        force: bool,
    },
    /// `ALTER DATABASE from RENAME TO to`
    Rename {
        /// The database.
        from: String,
        /// Its new name.
        to: String,
    },
}

/// The first words of such a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Create,
    Drop,
    Rename,
}

impl Command {
    pub(crate) fn cannot_run_in_transaction(self) -> PgError {
        let command = match self {
            Self::Create => "CREATE DATABASE",
            Self::Drop => "DROP DATABASE",
            Self::Rename => "ALTER DATABASE RENAME",
        };
        PgError::error(
            sqlstate::ACTIVE_SQL_TRANSACTION,
            format!("{command} cannot run inside a transaction block"),
        )
    }
}

impl DatabaseStatement {
    /// What PostgreSQL says of this statement while a transaction is open: whoever holds the
    /// session's state returns it.
    pub fn cannot_run_in_transaction(&self) -> PgError {
        let command = match self {
            Self::Create { .. } => Command::Create,
            Self::Drop { .. } => Command::Drop,
            Self::Rename { .. } => Command::Rename,
        };
        command.cannot_run_in_transaction()
    }

    /// The tag of its `CommandComplete`.
    pub fn command_tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE DATABASE",
            Self::Drop { .. } => "DROP DATABASE",
            Self::Rename { .. } => "ALTER DATABASE",
        }
    }

    /// Whether a statement begins like one of these.
    pub(crate) fn command(statement: &[u8]) -> Option<Command> {
        let mut lexer = Lexer::new(statement);
        // An error in the first words is none of ours; PostgreSQL will tell it.
        let mut word = || lexer.next().ok().flatten();
        let (verb, object) = (word()?, word()?);
        if !object.is_word("database") {
            return None;
        }
        if verb.is_word("create") {
            Some(Command::Create)
        } else if verb.is_word("drop") {
            Some(Command::Drop)
        } else if verb.is_word("alter") && word().is_some() {
            // The other forms of ALTER DATABASE are about settings within the database.
            word()
                .filter(|third| third.is_word("rename"))
                .map(|_| Command::Rename)
        } else {
            None
        }
    }

    /// Reads the text's only statement, which begins at this byte.
    pub(crate) fn parse(text: &[u8], start: usize) -> Result<Option<Self>, PgError> {
        let Some(command) = Self::command(&text[start..]) else {
            return Ok(None);
        };
        let mut parser = Parser::new(text)?;
        parser.advance()?;
        parser.advance()?;
        let statement = match command {
            Command::Create => {
                let name = parser.name()?;
                parser.accept("with")?;
                let mut options = CreateOptions::default();
                while !parser.at_end() {
                    options.read(&mut parser)?;
                }
                Self::Create {
                    name,
                    template: options.template,
                    owner: options.owner,
                }
            }
            Command::Drop => {
                let if_exists = parser.accept_if_exists()?;
                Self::Drop {
                    name: parser.name()?,
                    if_exists,
                    force: parser.force()?,
                }
            }
            Command::Rename => {
                let from = parser.name()?;
                parser.expect("rename")?;
                parser.expect("to")?;
                Self::Rename {
                    from,
                    to: parser.name()?,
                }
            }
        };
        if parser.at_end() {
            Ok(Some(statement))
        } else {
            Err(parser.unexpected())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::ErrorField;
    use crate::pg::statement::database_statement;

    fn create(
        name: &str,
        template: Option<&str>,
        owner: Option<&str>,
    ) -> Option<DatabaseStatement> {
        let [template, owner] = [template, owner].map(|name| name.map(str::to_owned));
        Some(DatabaseStatement::Create {
            name: name.to_owned(),
            template,
            owner,
        })
    }

    fn dropped(name: &str, if_exists: bool, force: bool) -> Option<DatabaseStatement> {
        Some(DatabaseStatement::Drop {
            name: name.to_owned(),
            if_exists,
            force,
        })
    }

    fn rename(from: &str, to: &str) -> Option<DatabaseStatement> {
        Some(DatabaseStatement::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        })
    }

    #[test]
    #[rustfmt::skip]
    fn recognised() {
        let long = format!("create database {}", "a".repeat(70));
        let table = [
            ("SELECT 1", None),
            ("SELECT 'database'; SELECT 2", None),
            ("SELECT 'CREATE DATABASE x'", None),
            ("COMMENT ON DATABASE x IS 'y'", None),
            ("ALTER DATABASE x SET work_mem = '1MB'", None),
            ("ALTER DATABASE x OWNER TO y", None),
            ("create databases x", None),
            ("select 'database", None),
            ("CREATE DATABASE x", create("x", None, None)),
            ("create database Foo;", create("foo", None, None)),
            (";;/* a */ Create -- b\n DataBase \"Foo\"\"Bar\" ; ;", create("Foo\"Bar", None, None)),
            ("CREATE DATABASE between", create("between", None, None)),
            ("CREATE DATABASE \"select\"", create("select", None, None)),
            ("CREATE DATABASE x WITH", create("x", None, None)),
            ("CREATE DATABASE x TEMPLATE y", create("x", Some("y"), None)),
            ("CREATE DATABASE x WITH OWNER = Ann TEMPLATE \"Y\"", create("x", Some("Y"), Some("ann"))),
            ("CREATE DATABASE x owner left template 'Y'", create("x", Some("Y"), Some("left"))),
            ("CREATE DATABASE x template $$Y$$ \"owner\" a", create("x", Some("Y"), Some("a"))),
            (
                "CREATE DATABASE x TEMPLATE default OWNER default ENCODING default LC_COLLATE default \
                 CONNECTION LIMIT default TABLESPACE default OID default ICU_LOCALE default",
                create("x", None, None),
            ),
            (
                "CREATE DATABASE x ENCODING 'UTF-8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' \
                 LC_COLLATE 'C' LC_CTYPE posix TABLESPACE pg_default ALLOW_CONNECTIONS true \
                 CONNECTION LIMIT = -1 IS_TEMPLATE on STRATEGY wal_log COLLATION_VERSION '1'",
                create("x", None, None),
            ),
            ("CREATE DATABASE x ENCODING = 'unicode'", create("x", None, None)),
            ("CREATE DATABASE x ENCODING 6 LOCALE \"C.utf8\"", create("x", None, None)),
            (&long, create(&"a".repeat(63), None, None)),
            ("DROP DATABASE x", dropped("x", false, false)),
            ("drop database if exists \"X\";", dropped("X", true, false)),
            ("drop database if", dropped("if", false, false)),
            ("drop database exists", dropped("exists", false, false)),
            ("DROP DATABASE x (FORCE)", dropped("x", false, true)),
            ("DROP DATABASE IF EXISTS x WITH (force, FORCE);", dropped("x", true, true)),
            ("ALTER DATABASE x RENAME TO \"Y\"", rename("x", "Y")),
        ];
        for (text, expected) in table {
            assert_eq!(
                database_statement(text.as_bytes()).as_ref(),
                Ok(&expected),
                "{text}"
            );
        }
    }

    /// Codes, texts and positions are those of PostgreSQL 15, but for `0A000` and ICU.
    #[test]
    #[rustfmt::skip]
    fn refused() {
        let table = [
            ("create database", "42601", "syntax error at end of input", "16"),
            ("create database;", "42601", "syntax error at or near \";\"", "16"),
            ("create database 'x'", "42601", "syntax error at or near \"'x'\"", "17"),
            ("create database $$x$$", "42601", "syntax error at or near \"$$x$$\"", "17"),
            ("create database \"\"", "42601", "zero-length delimited identifier at or near \"\"\"\"", "17"),
            ("create database \"é\" 'a'", "42601", "syntax error at or near \"'a'\"", "21"),
            ("create database select", "42601", "syntax error at or near \"select\"", "17"),
            ("create database left;", "42601", "syntax error at or near \"left\"", "17"),
            ("create database \"a8", "42601", "unterminated quoted identifier at or near \"\"a8\"", "17"),
            ("create database /* a8", "42601", "unterminated /* comment at or near \"/* a8\"", "17"),
            ("create database x encoding;", "42601", "syntax error at or near \";\"", "27"),
            ("create database x owner =;", "42601", "syntax error at or near \";\"", "26"),
            ("create database x foo 1;", "42601", "option \"foo\" not recognized", "19"),
            ("create database x \"limit\" a", "42601", "option \"limit\" not recognized", "19"),
            ("create database x limit a", "42601", "syntax error at or near \"limit\"", "19"),
            ("create database x with with", "42601", "syntax error at or near \"with\"", "24"),
            ("create database x = 5", "42601", "syntax error at or near \"=\"", "19"),
            ("create database x owner a owner b", "42601", "conflicting or redundant options", "27"),
            ("create database x owner select", "42601", "syntax error at or near \"select\"", "25"),
            ("create database x connection 3", "42601", "syntax error at or near \"3\"", "30"),
            ("create database x connection limit=-1 5", "42601", "syntax error at or near \"5\"", "39"),
            ("create database x connection limit 'a'", "42601", "connection_limit requires an integer value", ""),
            ("create database x connection limit -5", "22023", "invalid connection limit: -5", ""),
            ("create database x connection limit 5", "0A000", "a database has no connection limit of its own here", ""),
            ("create database x is_template 3", "42601", "is_template requires a Boolean value", ""),
            ("create database x allow_connections off", "0A000", "databases here always allow connections", ""),
            ("create database x strategy foo", "22023", "invalid create database strategy \"foo\"", ""),
            ("create database x locale_provider foo", "42P17", "unrecognized locale provider: foo", ""),
            ("create database x locale_provider icu", "0A000", "databases here are not collated by ICU", ""),
            ("create database x icu_locale 'en'", "0A000", "databases here are not collated by ICU", ""),
            ("create database x locale 'en_US.UTF-8'", "0A000", "the locale of databases here is C.UTF-8", ""),
            ("create database x encoding 'latin1'", "0A000", "databases here are encoded in UTF8", ""),
            ("create database x tablespace t", "0A000", "databases here have no tablespace but pg_default", ""),
            ("create database x oid 20000", "0A000", "the OID of a database cannot be chosen here", ""),
            ("create database U&\"x\"", "0A000", "U&\"...\" identifiers are not supported in statements about databases", "17"),
            ("create database x owner E'a'", "0A000", "strings with a prefix are not supported in statements about databases", ""),
            ("drop database a.b", "42601", "syntax error at or near \".\"", "16"),
            ("drop database if x", "42601", "syntax error at or near \"x\"", "18"),
            ("drop database if exists;", "42601", "syntax error at or near \";\"", "24"),
            ("drop database x force", "42601", "syntax error at or near \"force\"", "17"),
            ("drop database x with force", "42601", "syntax error at or near \"force\"", "22"),
            ("drop database x with ()", "42601", "syntax error at or near \")\"", "23"),
            ("drop database x (force", "42601", "syntax error at end of input", "23"),
            ("alter database x rename y", "42601", "syntax error at or near \"y\"", "25"),
            ("alter database x rename to y z", "42601", "syntax error at or near \"z\"", "30"),
            ("create database x; select 1", "25001", "CREATE DATABASE cannot run inside a transaction block", ""),
            ("select 1;; drop database x", "25001", "DROP DATABASE cannot run inside a transaction block", ""),
            ("begin; alter database x rename to y", "25001", "ALTER DATABASE RENAME cannot run inside a transaction block", ""),
        ];
        for (text, code, message, position) in table {
            let error = database_statement(text.as_bytes()).expect_err(text);
            assert_eq!((error.code(), error.message()), (code, message), "{text}");
            assert_eq!(
                error.get(ErrorField::Position).unwrap_or(""),
                position,
                "{text}"
            );
        }
        let error = database_statement(b"create database \xff").unwrap_err();
        assert_eq!(error.code(), "22021");
    }
}
