//! `dormouse apps`, `rollback`, `undeploy` and `logs`: what is deployed.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::args::{AppArgs, AppsArgs, LogsArgs, RollbackArgs};
use super::failure::Failure;
use super::remote::{Remote, encoded};
use super::table::Table;

/// How often it is asked for what has been logged since.
const AGAIN: Duration = Duration::from_millis(500);

/// The most entries of one answer.
const ENTRIES_MAX: u64 = 500;

#[derive(Deserialize)]
struct Apps {
    deployments: Vec<App>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    repository: String,
    environment: String,
    version: u64,
    commit_sha: String,
    deployed_at: String,
    url: Option<String>,
    hosts: Vec<String>,
    backend: Option<Backend>,
}

#[derive(Deserialize)]
struct Backend {
    running: bool,
}

#[derive(Deserialize)]
struct RolledBack {
    deployment: Deployment,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Deployment {
    repository: String,
    environment: String,
    version: u64,
}

#[derive(Deserialize)]
struct Logs {
    logs: Log,
}

#[derive(Deserialize)]
struct Log {
    last: u64,
    records: Vec<Value>,
}

/// What is wanted of a log.
pub(crate) struct Wanted {
    pub(crate) repository: String,
    pub(crate) environment: String,
    level: Option<String>,
    kind: Option<String>,
    hours: u64,
}

/// Lists what is deployed.
pub(crate) async fn list(args: AppsArgs) -> Result<(), Failure> {
    let remote = Remote::new(&args.target.server, &args.target.access)?;
    let answer = remote.data(Method::GET, "/api/v1/deployments", None).await;
    let answer = answer.map_err(|failure| failure.in_json(args.target.json))?;
    if args.target.json {
        super::print(&format!("{answer}\n"));
        return Ok(());
    }
    let apps: Apps = read(answer)?;
    let mut table = Table::default();
    for (name, right) in [
        ("repository", false),
        ("environment", false),
        ("version", true),
        ("commit", false),
        ("deployed", false),
        ("backend", false),
        ("where", false),
    ] {
        table.column(name, right);
    }
    for app in apps.deployments {
        let backend = match app.backend {
            None => "none",
            Some(Backend { running: true }) => "runs",
            Some(Backend { running: false }) => "sleeps",
        };
        let places: Vec<String> = app.url.into_iter().chain(app.hosts).collect();
        table.row([
            app.repository,
            app.environment,
            app.version.to_string(),
            app.commit_sha.chars().take(12).collect(),
            app.deployed_at,
            backend.to_owned(),
            places.join(" "),
        ]);
    }
    super::print(&table.render());
    Ok(())
}

/// Lets another version serve.
pub(crate) async fn roll_back(args: RollbackArgs) -> Result<(), Failure> {
    let remote = Remote::new(&args.app.target.server, &args.app.target.access)?;
    let path = format!("{}/rollback{}", place(&args.app)?, environment(&args.app));
    let body = args.version.map(|version| json!({ "version": version }));
    let answer = remote.data(Method::POST, &path, body).await;
    let answer = answer.map_err(|failure| failure.in_json(args.app.target.json))?;
    if args.app.target.json {
        super::print(&format!("{answer}\n"));
        return Ok(());
    }
    let RolledBack { deployment, url } = read(answer)?;
    let Deployment {
        repository,
        environment,
        version,
    } = deployment;
    let mut said = format!("{repository} ({environment}), version {version}, serves\n");
    said.extend(url.map(|url| format!("  {url}\n")));
    super::print(&said);
    Ok(())
}

/// Takes an app away.
pub(crate) async fn undeploy(args: AppArgs) -> Result<(), Failure> {
    let remote = Remote::new(&args.target.server, &args.target.access)?;
    let path = format!("{}{}", place(&args)?, environment(&args));
    let answer = remote.data(Method::DELETE, &path, None).await;
    let answer = answer.map_err(|failure| failure.in_json(args.target.json))?;
    super::print(&match args.target.json {
        true => format!("{answer}\n"),
        false => format!("{} ({}) is gone\n", args.repository, args.environment),
    });
    Ok(())
}

/// Prints what an app has logged.
pub(crate) async fn logs(args: LogsArgs) -> Result<(), Failure> {
    let remote = Remote::new(&args.app.target.server, &args.app.target.access)?;
    let json = args.app.target.json;
    let wanted = Wanted {
        repository: args.app.repository,
        environment: args.app.environment,
        level: args.level,
        kind: args.kind,
        hours: args.hours,
    };
    let query = format!("&limit={}", args.limit);
    let asked = wanted.ask(&remote, &query).await;
    let log = asked.map_err(|failure| failure.in_json(json))?;
    print(&log, json);
    if args.follow {
        wanted.follow(&remote, log.last, json).await?;
    }
    Ok(())
}

impl Wanted {
    /// All of an app's log.
    pub(crate) fn all(repository: &str, environment: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            environment: environment.to_owned(),
            level: None,
            kind: None,
            hours: 1,
        }
    }

    /// Prints what comes after the entry of this number, for ever.
    pub(crate) async fn follow(
        &self,
        remote: &Remote,
        mut last: u64,
        json: bool,
    ) -> Result<(), Failure> {
        let mut ticks = interval(AGAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let log = self
                .ask(remote, &format!("&limit={ENTRIES_MAX}&after={last}"))
                .await?;
            print(&log, json);
            // A backend that was started anew counts anew.
            last = match log
                .records
                .last()
                .and_then(|record| record["number"].as_u64())
            {
                Some(number) if log.records.len() as u64 == ENTRIES_MAX => number,
                _ => log.last,
            };
        }
    }

    async fn ask(&self, remote: &Remote, more: &str) -> Result<Log, Failure> {
        let mut path = format!(
            "/api/v1/logs/{}?environment={}&hours={}{more}",
            in_path(&self.repository)?,
            encoded(&self.environment),
            self.hours
        );
        for (name, value) in [("level", &self.level), ("kind", &self.kind)] {
            path.extend(
                value
                    .as_ref()
                    .map(|value| format!("&{name}={}", encoded(value))),
            );
        }
        let Logs { logs } = read(remote.data(Method::GET, &path, None).await?)?;
        Ok(logs)
    }
}

fn print(log: &Log, json: bool) {
    for record in &log.records {
        let text = |name: &str| record[name].as_str().unwrap_or_default();
        let line = match json {
            true => record.to_string(),
            false => {
                let level = match text("kind") {
                    "console" => text("level"),
                    kind => kind,
                };
                format!("{} {level:<9} {}", text("timestamp"), text("text"))
            }
        };
        super::print(&format!("{line}\n"));
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::unavailable(format!(
            "the server does not answer as a Dormouse server: {error}"
        ))
    })
}

fn place(app: &AppArgs) -> Result<String, Failure> {
    Ok(format!("/api/v1/deployments/{}", in_path(&app.repository)?))
}

fn environment(app: &AppArgs) -> String {
    format!("?environment={}", encoded(&app.environment))
}

/// `owner/repo` as parts of a path.
fn in_path(repository: &str) -> Result<String, Failure> {
    let named = repository
        .split_once('/')
        .filter(|(owner, name)| !owner.is_empty() && !name.is_empty() && !name.contains('/'));
    let (owner, name) = named
        .ok_or_else(|| Failure::Usage(format!("\"{repository}\" is not in OWNER/REPO form")))?;
    Ok(format!("{}/{}", encoded(owner), encoded(name)))
}
