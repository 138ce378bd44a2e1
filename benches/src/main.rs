//! The comparison with PGlite and a native PostgreSQL: one command, one run, one machine.
//!
//! The machine is noisy, so peers take short turns: a round measures each of them once, in an order
//! that moves on each time, and what is reported is the median of the rounds. Ratios are taken
//! within a round, and to echoes timed just before, ahead of the median.

mod args;
mod driver;
mod echo;
mod hosts;
mod http;
#[cfg(target_os = "linux")]
mod lifecycle;
mod machine;
mod pgwire;
mod process;
mod report;
mod results;
mod samples;
mod session;
mod work;

use args::Args;
use echo::Echo;
use hosts::{Dormouse, Driven, Host, Native, Socket};
use machine::Machine;
use results::{Metric, Results};
use session::{Result, Session};
use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use work::Sizes;

fn main() -> ExitCode {
    if let Some(code) = suite() {
        return code;
    }
    let args = match Args::parse(env::args_os().skip(1)) {
        Ok(args) if args.help => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(args) => args,
        Err(error) => {
            eprintln!("compare: {error}");
            return ExitCode::FAILURE;
        }
    };
    match Folder::new(&args.work).and_then(|folder| compare(&args, &folder.0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one of the other commands, if the first word names one.
#[cfg(target_os = "linux")]
fn suite() -> Option<ExitCode> {
    lifecycle::suite(&env::args_os().nth(1)?).map(|suite| suite.main(env::args_os().skip(2)))
}

/// What a database's life costs is read from Linux' `/proc`.
#[cfg(not(target_os = "linux"))]
fn suite() -> Option<ExitCode> {
    let word = env::args_os().nth(1)?;
    ["lifecycle", "sessions", "pool"]
        .iter()
        .any(|suite| word == *suite)
        .then(|| {
            eprintln!("{}: runs on Linux alone", word.display());
            ExitCode::FAILURE
        })
}

/// The run's own folder, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> Result<Self> {
        let folder = fs::canonicalize(parent)
            .map_err(|error| format!("{}: {error}", parent.display()))?
            .join(format!("dormouse-bench-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("compare: {} is left behind: {error}", self.0.display());
        }
    }
}

fn compare(args: &Args, folder: &Path) -> Result<()> {
    let sizes = if args.quick {
        Sizes::quick()
    } else {
        Sizes::full(args.rounds)
    };
    let mut machine = Machine::look(folder);
    let mut results = Results::default();
    let mut hosts: Vec<Box<dyn Host>> = Vec::new();
    let all: [Result<Box<dyn Host>>; 6] = [
        Native::new(&args.tools, folder, true).map(boxed),
        Native::new(&args.tools, folder, false).map(boxed),
        Ok(boxed(Driven::pglite(&args.tools))),
        Ok(boxed(Socket::new(&args.tools))),
        Ok(boxed(Driven::inprocess(
            &args.tools,
            args.inprocess.clone(),
        ))),
        Ok(boxed(Dormouse::new(args.dormouse.clone()))),
    ];
    for host in all {
        match host {
            Ok(host) if !args.wants(host.name()) => {}
            Ok(host) => match host.check() {
                Ok(()) => hosts.push(host),
                Err(error) => results.missing(host.name(), &error),
            },
            Err(error) => results.missing("native", &error),
        }
    }
    let mut echo = Echo::start(&args::beside_this_program("tcp-echo")?)?;

    starts(&mut hosts, folder, &sizes, &mut results);
    creates(&mut hosts, &sizes, &mut results);
    statements(&mut hosts, &mut echo, &sizes, &mut results, || {
        machine.time_disk(folder)
    });
    for host in &mut hosts {
        if let Err(error) = host.stop() {
            results.note(host.name(), "stop", &error);
        }
    }

    let command: Vec<String> = env::args().skip(1).collect();
    let command = format!("cargo xtask bench {}", own_options(&command).join(" "));
    print!(
        "{}",
        report::markdown(&machine, command.trim(), &sizes, &results)
    );
    if let Some(file) = &args.json {
        let json = report::json(&machine, command.trim(), &results);
        fs::write(file, format!("{json:#}\n"))
            .map_err(|error| format!("writing {}: {error}", file.display()))?;
    }
    Ok(())
}

fn boxed(host: impl Host + 'static) -> Box<dyn Host> {
    Box::new(host)
}

/// The options that a person gave: without those that xtask adds.
fn own_options(words: &[String]) -> Vec<&str> {
    let mut own = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if ["--tools", "--dormouse", "--inprocess"].contains(&word.as_str()) {
            words.next();
        } else {
            own.push(word.as_str());
        }
    }
    own
}

/// Starts each host on no data and then on what that left, several times; leaves it running.
fn starts(hosts: &mut Vec<Box<dyn Host>>, folder: &Path, sizes: &Sizes, results: &mut Results) {
    for round in 0..sizes.starts {
        eprintln!("start, round {} of {}", round + 1, sizes.starts);
        let last = round + 1 == sizes.starts;
        hosts.retain_mut(|host| {
            let home = folder.join(host.name());
            let data = home.join(format!("data{round}"));
            let started = fs::create_dir_all(&home)
                .map_err(Into::into)
                .and_then(|()| {
                    if round == 0 {
                        // The first start of all may compile, or read cold files: not a figure.
                        host.start(&home.join("first"))?;
                        host.stop()?;
                    }
                    let cold = host.start(&data)?;
                    host.stop()?;
                    let warm = host.start(&data)?;
                    let memory = host.memory();
                    if !last {
                        host.stop()?;
                    }
                    Ok((cold, warm, memory))
                });
            match started {
                Ok((cold, warm, memory)) => {
                    results.version(host.name(), warm.version);
                    for way in host.ways() {
                        results.add(Metric::StartCold, way, vec![cold.ready_us]);
                        results.add(Metric::StartWarm, way, vec![warm.ready_us]);
                        if let Some(open) = warm.open_us {
                            results.add(Metric::Open, way, vec![open]);
                        }
                        match &memory {
                            Ok(memory) => results.memory_of_process(way, *memory),
                            Err(error) => results.note(way, "memory", error),
                        }
                    }
                    true
                }
                Err(error) => {
                    results.missing(host.name(), &error);
                    false
                }
            }
        });
    }
}

/// Creates databases by turns, until a host has had its time; what is then awake is weighed.
fn creates(hosts: &mut [Box<dyn Host>], sizes: &Sizes, results: &mut Results) {
    eprintln!("create");
    let mut before = vec![None; hosts.len()];
    let mut count = vec![0; hosts.len()];
    let mut spent = vec![Duration::ZERO; hosts.len()];
    let mut failed = HashSet::new();
    for round in 0..sizes.creates {
        for (index, host) in hosts.iter_mut().enumerate() {
            for (nth, way) in host.ways().iter().enumerate() {
                if failed.contains(way) || spent[index] > sizes.create_time {
                    continue;
                }
                let start = Instant::now();
                match host.create(way, &format!("created_{nth}_{round}")) {
                    Ok(created) => {
                        results.sample(Metric::Create, way, created.create_us);
                        results.sample(Metric::CreateFirst, way, created.first_us);
                        // The first one also pays for what all share: weigh from there.
                        if before[index].is_none() {
                            before[index] = host.memory().ok();
                        } else {
                            count[index] += 1;
                        }
                    }
                    Err(error) => {
                        failed.insert(*way);
                        results.note(way, "create a database", &error);
                    }
                }
                spent[index] += start.elapsed();
            }
        }
    }
    for (index, host) in hosts.iter_mut().enumerate() {
        if let (Some(before), Ok(after)) = (before[index], host.memory())
            && count[index] > 0
        {
            let each = after.each(before, count[index]);
            for way in host.ways() {
                results.memory_of_one_more(way, each);
            }
        }
        if let Err(error) = host.release() {
            results.note(host.name(), "let go of databases", &error);
        }
    }
}

/// One way to one host's database, while statements are measured.
struct Client {
    way: &'static str,
    session: Box<dyn Session>,
    native: bool,
    failed: HashSet<Metric>,
}

/// Everything that is measured inside a database.
fn statements(
    hosts: &mut [Box<dyn Host>],
    echo: &mut Echo,
    sizes: &Sizes,
    results: &mut Results,
    mut each_round: impl FnMut(),
) {
    let mut clients: Vec<Client> = Vec::new();
    for host in hosts.iter_mut() {
        let mut filled = HashSet::new();
        for way in host.ways() {
            eprintln!("load {way}");
            let fill = filled.insert(host.database(way));
            let session = host.session(way).and_then(|mut session| {
                if fill {
                    for statement in work::load(sizes) {
                        session.execute(&statement)?;
                    }
                }
                Ok(session)
            });
            match session {
                Ok(session) => clients.push(Client {
                    way,
                    session,
                    native: host.name().starts_with("native"),
                    failed: HashSet::new(),
                }),
                Err(error) => results.note(way, "load", &error),
            }
        }
    }

    let mut keys = work::Keys::new();
    for round in 0..sizes.rounds {
        eprintln!("statements, round {} of {}", round + 1, sizes.rounds);
        each_round();
        for metric in Metric::STATEMENTS {
            let budget = sizes.statement;
            let params = work::params(metric, &mut keys, budget.runs());
            each(&mut clients, metric, results, |client, results| {
                let sql = work::sql(metric);
                // The unit, at the same moment as what is counted in it.
                results.add_echo(metric, client.way, echo.ping(sizes.echo)?);
                if metric == Metric::Simple {
                    client.session.simple(sql, budget)
                } else {
                    client.session.prepared(sql, &params, budget)
                }
            });
        }
    }
    for round in 0..sizes.large_rounds {
        eprintln!("larger work, round {} of {}", round + 1, sizes.large_rounds);
        let rows = work::rows(sizes.inserts);
        each(&mut clients, Metric::Inserts, results, |client, _| {
            client.session.execute("truncate ledger")?;
            let time = client
                .session
                .transaction(work::sql(Metric::Inserts), &rows)?;
            Ok(vec![time])
        });
        each(&mut clients, Metric::Aggregate, results, |client, _| {
            Ok(vec![client.session.execute(work::sql(Metric::Aggregate))?])
        });
        each(
            &mut clients,
            Metric::AggregateParallel,
            results,
            |client, _| {
                // The others cannot have parallel plans.
                if !client.native {
                    return Ok(Vec::new());
                }
                client
                    .session
                    .execute("set max_parallel_workers_per_gather = 2")?;
                let time = client
                    .session
                    .execute(work::sql(Metric::AggregateParallel))?;
                client
                    .session
                    .execute("reset max_parallel_workers_per_gather")?;
                Ok(vec![time])
            },
        );
    }
}

/// Lets each client do the same in turn, beginning with another one each time.
fn each(
    clients: &mut [Client],
    metric: Metric,
    results: &mut Results,
    mut measure: impl FnMut(&mut Client, &mut Results) -> Result<Vec<f64>>,
) {
    if clients.is_empty() {
        return;
    }
    clients.rotate_left(1);
    for client in clients.iter_mut() {
        if client.failed.contains(&metric) {
            continue;
        }
        match measure(client, results) {
            Ok(samples) => results.add(metric, client.way, samples),
            Err(error) => {
                client.failed.insert(metric);
                results.note(client.way, metric.title(), &error);
            }
        }
    }
}
