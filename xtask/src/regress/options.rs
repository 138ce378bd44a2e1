//! What the command line says, and which suite it means.

use crate::{Failure, Result, root};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// What `cargo xtask regress --help` prints.
pub(super) const HELP: &str = "\
Run PostgreSQL's own regression tests against a Dormouse database.

Usage: cargo xtask regress --sources DIR [OPTIONS] [FILES...]

FILES are names of tests without `.sql`; without any, the whole schedule is run, one file after
the other. `test_setup` comes first in any case. Differences are not a failure of the command.

Options:
  --sources DIR              PostgreSQL's sources, of the version that `select version()` says
  --server HOST:PORT         a running server; without it a release build is made and started
  --dormouse PROGRAM         start this program and build nothing
  --output DIR               results, differences and the server's log
                             (default: target/regress in the checkout)
  --limit-s N                seconds after which a file is ended (default: 300)
  --keep                     use the database as it is: not made anew, no files brought into it
  --isolation                src/test/isolation instead of src/test/regress
  --isolationtester PROGRAM  the program that runs its specifications
";

/// Settings of one run.
pub(super) struct Options {
    pub(super) sources: PathBuf,
    pub(super) server: Option<String>,
    pub(super) dormouse: Option<PathBuf>,
    pub(super) output: PathBuf,
    pub(super) limit: Duration,
    pub(super) keep: bool,
    pub(super) isolationtester: Option<PathBuf>,
    pub(super) files: Vec<String>,
    isolation: bool,
}

impl Options {
    /// `None` if help is asked for.
    pub(super) fn parse(args: &[OsString]) -> Result<Option<Self>> {
        let mut sources = None;
        let mut options = Self {
            sources: PathBuf::new(),
            server: None,
            dormouse: None,
            output: root().join("target/regress"),
            limit: Duration::from_secs(300),
            keep: false,
            isolationtester: None,
            files: Vec::new(),
            isolation: false,
        };
        let mut args = args.iter().map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| Failure::new(format!("'{arg}' needs a value")))
            };
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--sources" => sources = Some(absolute(&value()?)?),
                "--server" => options.server = Some(value()?),
                "--dormouse" => options.dormouse = Some(absolute(&value()?)?),
                "--output" => options.output = absolute(&value()?)?,
                "--limit-s" => options.limit = seconds(&value()?)?,
                "--keep" => options.keep = true,
                "--isolation" => options.isolation = true,
                "--isolationtester" => options.isolationtester = Some(absolute(&value()?)?),
                flag if flag.starts_with('-') => {
                    return Err(Failure::new(format!(
                        "there is no option '{flag}'\n\n{HELP}"
                    )));
                }
                _ => options.files.push(arg),
            }
        }
        options.sources = sources.ok_or_else(|| {
            Failure::new(format!("--sources says where PostgreSQL's are\n\n{HELP}"))
        })?;
        if options.isolation != options.isolationtester.is_some() {
            return Err(Failure::new(
                "--isolation and --isolationtester need each other",
            ));
        }
        Ok(Some(options))
    }

    pub(super) fn suite(&self) -> Suite<'_> {
        Suite {
            sources: &self.sources,
            isolation: self.isolation,
        }
    }
}

/// The files of one of PostgreSQL's suites.
#[derive(Clone, Copy)]
pub(super) struct Suite<'a> {
    sources: &'a Path,
    isolation: bool,
}

impl Suite<'_> {
    pub(super) fn folder(self) -> PathBuf {
        self.sources
            .join(self.pick("src/test/regress", "src/test/isolation"))
    }

    pub(super) fn schedule(self) -> PathBuf {
        self.folder()
            .join(self.pick("parallel_schedule", "isolation_schedule"))
    }

    pub(super) fn script(self, name: &str) -> PathBuf {
        let (folder, suffix) = (self.pick("sql", "specs"), self.pick("sql", "spec"));
        self.folder().join(folder).join(format!("{name}.{suffix}"))
    }

    pub(super) fn expected(self, name: &str) -> PathBuf {
        self.folder().join("expected").join(format!("{name}.out"))
    }

    /// The database, by the name that expected output has.
    pub(super) fn database(self) -> &'static str {
        self.pick("regression", "isolation_regression")
    }

    /// What has to run before any other file.
    pub(super) fn always(self) -> Option<&'static str> {
        (!self.isolation).then_some("test_setup")
    }

    fn pick(self, regress: &'static str, isolation: &'static str) -> &'static str {
        if self.isolation { isolation } else { regress }
    }
}

fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::new(format!("{path}: {error}")))
}

fn seconds(text: &str) -> Result<Duration> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|error| Failure::new(format!("--limit-s {text}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Options::parse(&args)
    }

    fn refused(line: &str) -> String {
        parse(line)
            .err()
            .map(|failure| failure.to_string())
            .unwrap()
    }

    #[test]
    fn files_and_options_in_any_order() {
        let options = parse("copy --sources /s --limit-s 7 join")
            .ok()
            .unwrap()
            .unwrap();
        assert_eq!(options.files, ["copy", "join"]);
        assert_eq!(options.limit, Duration::from_secs(7));
        let suite = options.suite();
        assert_eq!(
            suite.script("copy"),
            Path::new("/s/src/test/regress/sql/copy.sql")
        );
        assert_eq!(suite.always(), Some("test_setup"));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        assert!(refused("copy").contains("--sources"));
        assert!(refused("--sources").contains("needs a value"));
        assert!(refused("--sources /s --limit-s soon").contains("soon"));
        assert!(refused("--sources /s --isolation").contains("need each other"));
        assert!(refused("--sources /s --nope").contains("--nope"));
    }
}
