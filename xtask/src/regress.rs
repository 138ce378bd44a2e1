//! PostgreSQL's own tests, run against a Dormouse database: what `pg_regress` does, for a server
//! that keeps its files to itself.
//!
//! Nothing of PostgreSQL's sources is in this repository: `--sources` says where they are. What
//! the last run found, and why, is in `docs/regression.md`.

mod compare;
mod options;
mod prepare;
mod program;
mod report;
mod schedule;
mod server;

use crate::{Context as _, Result, tools};
use options::Options;
use program::Client;
use report::{Ended, Outcome};
use server::Server;
use std::{ffi::OsString, fs, path::Path, time::Instant};

/// Runs the command; fails only if it could not run, not for differences that it finds.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let Some(options) = Options::parse(args)? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    let suite = options.suite();
    let schedule = fs::read_to_string(suite.schedule())
        .context(|| format!("reading {}", suite.schedule().display()))?;
    let names = schedule::choose(&schedule, &options.files, suite.always())?;

    let tools = tools::bring()?;
    for folder in ["results", "diffs"] {
        let folder = options.output.join(folder);
        // What an earlier run left would be taken for this one's.
        if folder.exists() {
            fs::remove_dir_all(&folder).context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).context(|| format!("creating {}", folder.display()))?;
    }
    let server = Server::given_or_started(&options)?;
    let client = Client::new(&tools, &server.address, &options);
    if !options.keep {
        prepare::database(&client, &options)?;
    }

    let mut outcomes = Vec::new();
    for name in &names {
        let outcome = one(name, &client, &options)?;
        println!("{outcome}");
        outcomes.push(outcome);
    }
    println!("\n{}", report::summary(&outcomes));
    println!("Differences: {}", options.output.join("diffs").display());
    Ok(())
}

/// Runs one file and compares what it printed.
fn one(name: &str, client: &Client<'_>, options: &Options) -> Result<Outcome> {
    let suite = options.suite();
    let result = options.output.join("results").join(format!("{name}.out"));
    let began = Instant::now();
    let printed = client.run(name, &suite.script(name))?;
    let took = began.elapsed();
    fs::write(&result, &printed.bytes).context(|| format!("writing {}", result.display()))?;

    let difference = compare::closest(&suite.expected(name), &result)?;
    if difference.lines > 0 {
        let place = options.output.join("diffs").join(format!("{name}.diff"));
        keep_difference(&difference, &result, &place)?;
    }
    let ended = if printed.ran_out_of_time {
        Ended::OutOfTime
    } else if lost_its_connection(&printed.bytes) {
        Ended::ConnectionLost
    } else {
        Ended::Itself
    };
    Ok(Outcome {
        name: name.to_owned(),
        lines: difference.lines,
        ended,
        took,
    })
}

fn keep_difference(difference: &compare::Difference, result: &Path, place: &Path) -> Result<()> {
    let text = compare::unified(&difference.expected, result)?;
    fs::write(place, text).context(|| format!("writing {}", place.display()))
}

/// Whether a client said that its server went away, in libpq's words.
fn lost_its_connection(printed: &[u8]) -> bool {
    String::from_utf8_lossy(printed).contains("server closed the connection unexpectedly")
}
