//! `dormouse dev`: a server with its databases, and what is in a folder deployed to it, again whenever that changes.

mod local;
mod tunnel;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::args::{AccessArgs, DevArgs, ServeArgs};
use super::deploy::{self, Packed, Source};
use super::deployments::Wanted;
use super::failure::Failure;
use super::remote::Remote;
use super::serve::{self, With};
use local::LocalBindings;

/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_millis(300);

/// What a deployment is called that has no repository: the owner, and the commit.
const OWNER: &str = "dev";
const COMMIT: &str = "none";

/// Where databases are kept, in the folder.
const DATA: &str = ".dormouse";

/// Serves a folder until a signal says stop.
pub(crate) fn run(mut args: DevArgs) -> Result<(), Failure> {
    let folder = args.folder.canonicalize();
    let folder =
        folder.map_err(|error| Failure::Usage(format!("{}: {error}", args.folder.display())))?;
    args.source
        .repository
        .get_or_insert_with(|| format!("{OWNER}/{}", name_of(&folder)));
    args.source.branch.get_or_insert_with(|| "main".to_owned());
    args.source.commit.get_or_insert_with(|| COMMIT.to_owned());
    let source = Source::of(&folder, args.source)?;
    let is_direct = args.direct;
    let data = match args.data {
        Some(data) => data,
        None => beside_the_code(&folder)?,
    };
    let data = data
        .to_str()
        .ok_or_else(|| Failure::Usage(format!("{}: its name is not text", data.display())))?;
    let serve = ServeArgs {
        data: Some(data.to_owned()),
        pg: Some("127.0.0.1:0".to_owned()),
        http: Some(format!("127.0.0.1:{}", args.port)),
        log: Some(args.log),
        config: args.config,
    };
    let with = With {
        beside: Some(Box::new(move |address| {
            Box::pin(beside(address, folder, source))
        })),
        bindings: Box::new(move |managed, sockets| {
            let local = LocalBindings::of_environment(sockets.to_owned(), managed, is_direct)?;
            Ok(Arc::new(local))
        }),
    };
    serve::run_with(serve, with)
}

/// A folder for databases in the folder of the code, which git leaves out.
fn beside_the_code(folder: &Path) -> Result<PathBuf, Failure> {
    let data = folder.join(DATA);
    let ignored = data.join(".gitignore");
    let made = std::fs::create_dir_all(&data).and_then(|()| match ignored.exists() {
        true => Ok(()),
        false => std::fs::write(&ignored, "*\n"),
    });
    made.map_err(|error| Failure::unavailable(format!("{}: {error}", data.display())))?;
    Ok(data)
}

/// Deploys, and again whenever something has changed, and prints what is logged.
async fn beside(address: String, folder: PathBuf, source: Source) {
    let remote = match Remote::new(&address, &AccessArgs::default()) {
        Ok(remote) => remote,
        Err(failure) => {
            failure.report();
            return;
        }
    };
    let environment = source.environment.as_deref().unwrap_or("production");
    let wanted = Wanted::all(&source.repository, environment);
    let deploying = deploy_changes(&remote, &folder, &source);
    let logging = follow(&remote, &wanted);
    tokio::join!(deploying, logging);
}

async fn deploy_changes(remote: &Remote, folder: &Path, source: &Source) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut deployed, mut before) = (None, None);
    loop {
        ticks.tick().await;
        let now = match looked(folder).await {
            Ok(now) => now,
            Err(failure) => {
                failure.report();
                continue;
            }
        };
        // Whoever writes many files is waited for: it is packed when two looks were the same.
        if deployed == Some(now) || (deployed.is_some() && before != Some(now)) {
            before = Some(now);
            continue;
        }
        (deployed, before) = (Some(now), Some(now));
        let sent = match packed(folder).await {
            Ok(packed) => source.send(remote, packed).await,
            Err(failure) => Err(failure),
        };
        match sent.and_then(|answer| deploy::told(&answer)) {
            Ok(said) => super::print(&said),
            // What was there before serves on.
            Err(failure) => {
                failure.report();
            }
        }
    }
}

/// Prints what is logged, as soon as there is something that logs.
async fn follow(remote: &Remote, wanted: &Wanted) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // It ends when nothing is deployed: nothing is yet.
        if let Err(failure) = wanted.follow(remote, 0, false).await {
            tracing::debug!(error = failure.message(), "nothing is logged");
        }
    }
}

async fn looked(folder: &Path) -> Result<u64, Failure> {
    let folder = folder.to_owned();
    blocking(move || deploy::stamp(&folder)).await
}

async fn packed(folder: &Path) -> Result<Packed, Failure> {
    let folder = folder.to_owned();
    blocking(move || deploy::pack(&folder)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::unavailable(error.to_string()))?
}

/// A folder's name as that of a repository.
fn name_of(folder: &Path) -> String {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name: String = name
        .unwrap_or_default()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    match name.chars().any(|c| c.is_ascii_alphanumeric()) {
        true => name,
        false => "app".to_owned(),
    }
}
