//! `dormouse deploy`, and what is made of a folder for it.

mod git;
mod packed;

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::args::{DeployArgs, SourceArgs};
use super::failure::Failure;
use super::remote::Remote;

pub(crate) use packed::{Packed, pack, stamp};

/// Where a deployment comes from, and what goes with it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) repository: String,
    pub(crate) branch: String,
    pub(crate) commit: String,
    pub(crate) environment: Option<String>,
    vars: Map<String, Value>,
    secrets: Map<String, Value>,
}

/// The answer to a deployment.
#[derive(Debug, Deserialize)]
struct Answer {
    data: Deployed,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deployed {
    deployment: Deployment,
    url: Option<String>,
    new: bool,
    #[serde(default)]
    deployment_warnings: Vec<Warning>,
    #[serde(default)]
    custom_domains: Vec<String>,
    #[serde(default)]
    blocked_custom_domains: Vec<Blocked>,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    repository: String,
    environment: String,
    version: u64,
}

#[derive(Debug, Deserialize)]
struct Warning {
    message: String,
}

#[derive(Debug, Deserialize)]
struct Blocked {
    hostname: String,
    reason: String,
}

/// Deploys a folder.
pub(crate) async fn run(args: DeployArgs) -> Result<(), Failure> {
    let source = Source::of(&args.folder, args.source)?;
    let packed = pack(&args.folder)?;
    let remote = Remote::new(&args.target.server, &args.target.access)?;
    let answer = source.send(&remote, packed).await;
    let answer = answer.map_err(|failure| failure.in_json(args.target.json))?;
    match args.target.json {
        true => super::print(&format!("{}\n", String::from_utf8_lossy(&answer))),
        false => super::print(&told(&answer)?),
    }
    Ok(())
}

impl Source {
    /// What is said, or else what git says.
    pub(crate) fn of(folder: &Path, args: SourceArgs) -> Result<Self, Failure> {
        let repository = args.repository.or_else(|| git::repository(folder));
        let branch = args.branch.or_else(|| git::branch(folder));
        let commit = args.commit.or_else(|| git::commit(folder));
        let missing: Vec<&str> = [
            ("--repository OWNER/REPO", repository.is_none()),
            ("--branch NAME", branch.is_none()),
            ("--commit SHA", commit.is_none()),
        ]
        .into_iter()
        .filter_map(|(flag, is_missing)| is_missing.then_some(flag))
        .collect();
        let (Some(repository), Some(branch), Some(commit)) = (repository, branch, commit) else {
            return Err(Failure::Usage(format!(
                "git does not say it of {}: name it with {}",
                folder.display(),
                missing.join(" ")
            )));
        };
        Ok(Self {
            repository,
            branch,
            commit,
            environment: args.environment,
            vars: values(&args.vars, "--var")?,
            secrets: values(&args.secrets, "--secret")?,
        })
    }

    /// Sends it: the body of the answer.
    pub(crate) async fn send(&self, remote: &Remote, packed: Packed) -> Result<Vec<u8>, Failure> {
        let mut headers = vec![
            ("x-github-repository", self.repository.clone()),
            ("x-github-branch", self.branch.clone()),
            ("x-github-sha", self.commit.clone()),
        ];
        if let Some(environment) = &self.environment {
            headers.push(("x-w7s-environment", environment.clone()));
        }
        for (name, values) in [("x-w7s-vars", &self.vars), ("x-w7s-secrets", &self.secrets)] {
            if !values.is_empty() {
                let text = serde_json::json!(values).to_string();
                headers.push((name, BASE64_URL_SAFE_NO_PAD.encode(text)));
            }
        }
        remote.deploy(&headers, packed.zip).await
    }
}

/// What people are told of an answer. What is not as it should be goes to standard error.
pub(crate) fn told(answer: &[u8]) -> Result<String, Failure> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
        Failure::unavailable(format!(
            "the server does not answer as a Dormouse server: {error}"
        ))
    })?;
    let Deployed {
        deployment,
        url,
        new,
        deployment_warnings,
        custom_domains,
        blocked_custom_domains,
    } = answer.data;
    for warning in deployment_warnings {
        eprintln!("warning: {}", warning.message);
    }
    for blocked in blocked_custom_domains {
        eprintln!(
            "warning: {} does not lead to it: {}",
            blocked.hostname, blocked.reason
        );
    }
    let Deployment {
        repository,
        environment,
        version,
    } = deployment;
    let what = if new { "serves" } else { "serves already" };
    let mut said = format!("{repository} ({environment}), version {version}, {what}\n");
    for place in url.into_iter().chain(custom_domains) {
        said.push_str(&format!("  {place}\n"));
    }
    Ok(said)
}

/// `NAME=VALUE`, or `NAME` for the value of the variable of this name here.
fn values(texts: &[String], flag: &str) -> Result<Map<String, Value>, Failure> {
    let mut values = Map::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = std::env::var(text).map_err(|_| {
                    Failure::Usage(format!(
                        "{flag} {text}: there is no variable of this name, nor a value"
                    ))
                })?;
                (text.as_str(), value)
            }
        };
        if values.insert(name.to_owned(), value.into()).is_some() {
            return Err(Failure::Usage(format!("{flag} {name} is there twice")));
        }
    }
    Ok(values)
}
