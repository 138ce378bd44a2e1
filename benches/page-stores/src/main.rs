//! Where a node keeps the pages of its databases: our own format measured beside redb, fjall and SQLite.
//!
//! The machine is noisy, so stores take turns: a round measures each of them once, in an order that
//! moves on each time. What is reported is the median of the rounds; ratios are taken within a round,
//! ahead of the median.

mod child;
mod crash;
mod figures;
mod folder;
mod itself;
mod page;
mod report;
mod results;
mod rot;
mod run;
mod sizes;
mod stores;
mod turns;

use sizes::Sizes;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};
use stores::{Candidate, Result};
use turns::Turn;

const HELP: &str = "\
Compares stores for the pages of many databases, and prints tables in Markdown.

page-stores [--quick] [--work FOLDER] [--only STORE,...]

  --quick         a tenth of the work: for a look
  --work FOLDER   where data goes, about 15 GiB; the system's temporary folder if not given
  --only STORES   of plain, own, redb-one, redb-each, fjall-one, fjall-each, sqlite-one, sqlite-each
";

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let done = match words.first() {
        Some(first) if first == child::TURN => turn(&words[1..]),
        _ => compare(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("page-stores: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This process is one turn.
fn turn(words: &[OsString]) -> Result<()> {
    let text = |at: usize| words.get(at).and_then(|word| word.to_str());
    let missing = "a turn needs: its name, a store, a directory, a number";
    let turn = Turn::named(text(0).ok_or(missing)?)?;
    let candidate = Candidate::named(text(1).ok_or(missing)?)?;
    let directory = Path::new(words.get(2).ok_or(missing)?);
    let number = text(3).ok_or(missing)?.parse()?;
    let quick = text(4) == Some("--quick");
    let sizes = if quick { Sizes::QUICK } else { Sizes::FULL };
    let figures = turn.take(candidate, directory, &sizes, number)?;
    println!("{}", figures::to_line(&figures));
    Ok(())
}

/// This process is the comparison.
fn compare(words: &[OsString]) -> Result<()> {
    let mut quick = false;
    let mut work = env::temp_dir();
    let mut candidates = Candidate::ALL.to_vec();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or("the option needs a value");
        match word.to_str() {
            Some("--quick") => quick = true,
            Some("--work") => work = PathBuf::from(value()?),
            Some("--only") => {
                let names = value()?.to_string_lossy().into_owned();
                candidates = names
                    .split(',')
                    .map(Candidate::named)
                    .collect::<Result<_>>()?;
            }
            Some("--help") => {
                print!("{HELP}");
                return Ok(());
            }
            _ => return Err(format!("what is {}? See --help", word.display()).into()),
        }
    }
    let results = run::run(&candidates, &work, quick)?;
    print!("{}", report::markdown(&candidates, &results));
    Ok(())
}
