//! What a database's life costs on our server: creating, forking, committing, sleeping, waking; and
//! what many of them take. Each part has a data folder and servers of its own, and prints a table.

mod asleep;
mod awake;
mod burst;
mod commits;
mod create;
mod crowd;
mod disk;
mod fill;
mod known;
mod large;
mod pgbench;
mod pool;
mod server;
mod sessions;
mod table;
mod telemetry;
mod usage;
mod wake;
mod web;
mod websockets;

use crate::{
    Folder,
    args::beside_this_program,
    machine::Machine,
    session::{Error, Result},
};
use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// What every command's help ends with.
const OPTIONS: &str = "\
Options:
  --quick           A small run, to see that it works; its numbers mean little.
  --work DIR        Where data folders go, removed after each part [/var/tmp]; the disk there
                    is the one that is measured
  --tools DIR       The folder that `cargo xtask tools` prints (given by xtask)
  --dormouse FILE   The server's program (given by xtask)
  -h, --help        This text
";

/// The parts of `lifecycle`, for its help.
const PARTS_HELP: &str = "\
  commits   Durable commits per second of 1, 16 and 256 databases, against the disk's syncs
  create    Create and fork, against a sync and a native PostgreSQL
  wake      Request in to first row out of a sleeping database; 1,000 woken at once
  asleep    10,000 databases, each written, all asleep: memory, disk, restart
  known     1,000,000 databases that were only created: memory, restart
  awake     5,000 databases awake at once: memory and mappings of each
  large     A database of 2,048 MiB under a backend of 256 MiB, beside one of a quarter of that
  websockets  10,000 WebSockets that do nothing, their databases asleep: memory of each
  telemetry Queries with traces off, of a share and of all requests; 40 turns. With the variable
            DORMOUSE_BENCH_BEFORE another build of the server takes turns too
  web       Queries over HTTP of 1, 16 and 256 clients, of 1 and 1,000 databases, over connections
            that are kept and over new ones
";

/// A part, and what runs it: it gives the text of its section.
type Part = (&'static str, fn(&Run) -> Result<String>);

const PARTS: &[Part] = &[
    ("commits", commits::run),
    ("create", create::run),
    ("wake", wake::run),
    ("asleep", asleep::run),
    ("known", known::run),
    ("awake", awake::run),
    ("large", large::run),
    ("websockets", websockets::run),
    ("telemetry", telemetry::run),
    ("web", web::run),
];

/// A command: parts that are run by name, all of them without one.
pub(crate) struct Suite {
    name: &'static str,
    about: &'static str,
    /// What the number of a part counts.
    count: &'static str,
    parts: &'static [Part],
    parts_help: &'static str,
}

const SUITES: [Suite; 3] = [
    Suite {
        name: "lifecycle",
        about: "Measures what a database's life costs on this machine: create, commit, sleep, wake, fork.",
        count: "databases (for `large`: MiB)",
        parts: PARTS,
        parts_help: PARTS_HELP,
    },
    sessions::SUITE,
    pool::SUITE,
];

/// The command that a word names.
pub(crate) fn suite(word: &OsStr) -> Option<Suite> {
    SUITES.into_iter().find(|suite| word == suite.name)
}

/// What a part is run with.
struct Run {
    /// The server.
    program: PathBuf,
    /// What `cargo xtask tools` brought.
    tools: PathBuf,
    /// An empty folder on the disk that is measured, removed after the part.
    folder: PathBuf,
    quick: bool,
    /// How many, if somebody said.
    count: Option<usize>,
}

impl Run {
    /// `full`, or `quick` in a quick run, or what somebody said.
    fn count(&self, full: usize, quick: usize) -> usize {
        self.count.unwrap_or(if self.quick { quick } else { full })
    }

    /// `full`, or `quick` in a quick run.
    fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

struct Args {
    parts: Vec<(Part, Option<usize>)>,
    quick: bool,
    work: PathBuf,
    tools: PathBuf,
    program: PathBuf,
}

impl Args {
    /// Nothing if help is asked for.
    fn parse(suite: &Suite, words: impl IntoIterator<Item = OsString>) -> Result<Option<Self>> {
        let disk = Path::new("/var/tmp");
        let mut args = Self {
            parts: Vec::new(),
            quick: false,
            work: if disk.is_dir() {
                disk.to_owned()
            } else {
                env::temp_dir()
            },
            tools: env::var_os("DORMOUSE_TEST_TOOLS")
                .unwrap_or_default()
                .into(),
            program: beside_this_program("dormouse")?,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let name = word.to_string_lossy().into_owned();
            let mut value = || words.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "-h" | "--help" => return Ok(None),
                "--quick" => args.quick = true,
                "--work" => args.work = value()?.into(),
                "--tools" => args.tools = value()?.into(),
                "--dormouse" => args.program = value()?.into(),
                word if word.starts_with('-') => {
                    return Err(format!("unknown option '{word}'\n\n{}", suite.help()).into());
                }
                word => args.parts.push(suite.part(word)?),
            }
        }
        if args.parts.is_empty() {
            args.parts = suite.parts.iter().map(|part| (*part, None)).collect();
        }
        Ok(Some(args))
    }
}

impl Suite {
    fn help(&self) -> String {
        let Self {
            name,
            about,
            count,
            parts_help,
            ..
        } = self;
        format!(
            "{about}\n\n\
             Usage: cargo xtask bench {name} [PART[=COUNT]…] [OPTIONS]\n\n\
             Tables go to standard output as Markdown, progress to standard error. Without a PART, all are run.\n\
             COUNT is how many {count} to take instead of the number below.\n\n\
             Parts:\n{parts_help}\n{OPTIONS}"
        )
    }

    /// `PART` or `PART=COUNT`.
    fn part(&self, word: &str) -> Result<(Part, Option<usize>)> {
        let (name, count) = match word.split_once('=') {
            Some((name, count)) => {
                let count: usize = count
                    .parse()
                    .map_err(|error| format!("'{word}': {error}"))?;
                if count == 0 {
                    return Err(format!("'{word}': at least 1").into());
                }
                (name, Some(count))
            }
            None => (word, None),
        };
        self.parts
            .iter()
            .find(|(known, _)| *known == name)
            .map(|part| (*part, count))
            .ok_or_else(|| format!("there is no part '{name}'\n\n{}", self.help()).into())
    }

    /// The command with the words after it.
    pub(crate) fn main(&self, words: impl IntoIterator<Item = OsString>) -> ExitCode {
        let run = Args::parse(self, words).and_then(|args| match args {
            None => {
                print!("{}", self.help());
                Ok(())
            }
            Some(args) => run(self.name, &args),
        });
        match run {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }
}

fn run(suite: &str, args: &Args) -> Result<()> {
    usage::raise_file_limit()?;
    let mut machine = Machine::look(&args.work);
    let mut failed: Option<Error> = None;
    for ((name, part), count) in &args.parts {
        let folder = Folder::new(&args.work)?;
        machine.time_disk(&folder.0);
        eprintln!("{name}");
        let start = Instant::now();
        let section = part(&Run {
            program: args.program.clone(),
            tools: args.tools.clone(),
            folder: folder.0.clone(),
            quick: args.quick,
            count: *count,
        });
        match section {
            Ok(section) => println!(
                "{section}\n(`{suite} {name}`: {:.0} s)\n",
                start.elapsed().as_secs_f64()
            ),
            Err(error) => {
                println!("### {name}\n\nfailed: {error}\n");
                failed.get_or_insert(error);
            }
        }
    }
    print!("{}", machine.markdown());
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Args>> {
        let suite = suite("lifecycle".as_ref()).unwrap();
        Args::parse(&suite, words.iter().map(Into::into))
    }

    #[test]
    fn parts_and_counts() {
        let args = parse(&["wake", "known=5", "--quick"]).unwrap().unwrap();
        let parts: Vec<_> = args
            .parts
            .iter()
            .map(|((name, _), count)| (*name, *count))
            .collect();
        assert_eq!(parts, [("wake", None), ("known", Some(5))]);
        assert!(args.quick);
        assert_eq!(parse(&[]).unwrap().unwrap().parts.len(), PARTS.len());
        assert!(parse(&["--help"]).unwrap().is_none());
        for wrong in ["sleep", "known=0", "known=many", "--slow", "--work"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
