//! A supervisor of the workerd that `cargo xtask test` brings, and requests to what it runs.

use dormouse_workers::{
    App, Archive, DeployLimits, Environment, Repository, Values,
    modules::{self, Backend},
    runtime::{Lease, Level, Log, Program, Running, RuntimeOptions, Supervisor},
};
use std::{env, fs, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// How long anything here may take that does not take long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The runtime, or a word about why there is none.
pub(crate) fn workerd() -> Option<PathBuf> {
    let Some(clients) = env::var_os("DORMOUSE_TEST_CLIENTS") else {
        eprintln!("skipped: run it by `cargo xtask test`, which brings workerd");
        return None;
    };
    let packages = PathBuf::from(clients).join("node_modules/@cloudflare");
    let mut programs = fs::read_dir(packages)
        .unwrap()
        .map(|package| package.unwrap().path().join("bin/workerd"));
    programs.find(|program| program.is_file())
}

/// A supervisor whose sockets go away with it.
pub(crate) struct Stage {
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) folder: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Option<Self> {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut RuntimeOptions)) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut options = RuntimeOptions::new(workerd()?, folder.path().join("sockets"));
        options.launcher = vec![
            env!("CARGO_BIN_EXE_dormouse-workers-child").into(),
            "launch".into(),
        ];
        // The machine of a test may have much else to do.
        options.start_max = PATIENCE;
        change(&mut options);
        let supervisor = Supervisor::new(options).unwrap();
        Some(Self { supervisor, folder })
    }
}

/// Compiles a backend from its files.
pub(crate) fn backend(files: &[(&str, &str)]) -> Backend {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    let archive = Archive::from_files(files, DeployLimits::default()).unwrap();
    let entrypoint = modules::entrypoint(&archive).unwrap();
    modules::backend(&archive, entrypoint, DeployLimits::default()).unwrap()
}

/// A program of these files.
pub(crate) fn program(version: u64, files: &[(&str, &str)]) -> Program {
    Program {
        app: App {
            repository: Repository::parse("owner/shop").unwrap(),
            environment: Environment::of_branch("main").unwrap(),
        },
        version,
        backend: backend(files),
        values: Values::default(),
        databases: Vec::new(),
    }
}

/// A program of one file, the body of `fetch(request, env, ctx)`.
pub(crate) fn answering(version: u64, body: &str) -> Program {
    let text = format!("export default {{ async fetch(request, env, ctx) {{ {body} }} }};");
    program(version, &[("worker/index.js", &text)])
}

/// The status and the body of the answer to a GET.
pub(crate) async fn get(running: &Running, path: &str) -> std::io::Result<(u16, String)> {
    get_by(running.lease(), path).await
}

/// The same, with a lease that was taken before.
pub(crate) async fn get_by(lease: Lease, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(lease.path()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Ok((status, body))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Waits until the log has an entry of that level with that text in it; gives the entry's text.
pub(crate) async fn logged(log: &Log, level: Level, text: &str) -> String {
    let mut last = log.follow();
    let found = async {
        loop {
            last.borrow_and_update();
            let entries = log.after(0, usize::MAX);
            let fits = |entry: &&dormouse_workers::runtime::LogEntry| {
                entry.level == level && entry.text.contains(text)
            };
            if let Some(entry) = entries.iter().find(fits) {
                return entry.text.clone();
            }
            last.changed().await.unwrap();
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("no {level:?} '{text}' in {:#?}", log.after(0, usize::MAX)))
}
