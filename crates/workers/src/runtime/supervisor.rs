//! Who starts backends: on trial, and to serve.

use super::{
    Log, Program, Running, RuntimeOptions,
    process::{Process, StartFailure},
    spawner::Spawner,
};
use crate::{
    Refusal,
    config::{self, RuntimeConfig},
    manifest::PLATFORM_NAMES,
    modules::Backend,
};
use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt as _, net::UnixListener},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Who starts backends.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) options: RuntimeOptions,
    spawner: Spawner,
}

impl Supervisor {
    /// A supervisor, with its folder for sockets made.
    ///
    /// # Errors
    /// What does not let itself be made.
    pub fn new(options: RuntimeOptions) -> io::Result<Arc<Self>> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&options.sockets)?;
        let spawner = Spawner::new()?;
        Ok(Arc::new(Self { options, spawner }))
    }

    /// Boots a program on a socket of its own and ends it again; what serves is not touched. Gives what the runtime
    /// has to say of it: warnings.
    ///
    /// # Errors
    /// 400 with the runtime's own words if it does not start, or has nothing that answers requests; 500 if there is
    /// no runtime.
    pub async fn trial(&self, program: &Program) -> Result<Vec<String>, Refusal> {
        let log = self.new_log();
        let checked = config::with_check(&program.backend);
        let private = self.socket("trial-");
        let private = private.map_err(|error| internal(&error))?;
        let socket = private.descriptor().map_err(|error| internal(&error))?;
        let started = self.start(program, &checked, socket, log).await;
        let mut process = started.map_err(refusal)?;
        process.kill().await;
        Ok(process.words())
    }

    /// Starts a program that was tried, and keeps it running.
    ///
    /// # Errors
    /// As [`Supervisor::trial`].
    pub async fn run(self: &Arc<Self>, program: Program) -> Result<Running, Refusal> {
        self.run_on(program, None).await
    }

    /// The same, and what it writes goes on in a log that there is.
    pub(crate) async fn run_on(
        self: &Arc<Self>,
        program: Program,
        log: Option<Arc<Log>>,
    ) -> Result<Running, Refusal> {
        let log = log.unwrap_or_else(|| self.new_log());
        Running::start(Arc::clone(self), program, log).await
    }

    /// An empty log of a deployment.
    pub(crate) fn new_log(&self) -> Arc<Log> {
        Arc::new(Log::new(self.options.log))
    }

    /// The shortest and the longest pause between two starts of what does not start.
    pub(crate) fn pauses(&self) -> (Duration, Duration) {
        (self.options.restart_min, self.options.restart_max)
    }

    /// A socket of its own for a program.
    pub(super) fn socket(&self, prefix: &str) -> io::Result<Socket> {
        // Short: the path of a socket must be. Random: nobody else has it.
        let name = format!(
            "{prefix}{:016x}",
            getrandom::u64().map_err(io::Error::other)?
        );
        Socket::bind(self.options.sockets.join(name))
    }

    /// Starts a process for a program, with its own modules or others, on a socket.
    pub(super) async fn start(
        &self,
        program: &Program,
        backend: &Backend,
        socket: OwnedFd,
        log: Arc<Log>,
    ) -> Result<Process, StartFailure> {
        let config = self
            .config(program, backend)
            .map_err(|error| StartFailure::Ended(vec![error]))?;
        let version = program.version;
        Process::start(&self.spawner, &self.options, version, config, socket, log).await
    }

    fn config(&self, program: &Program, backend: &Backend) -> Result<Vec<u8>, String> {
        for (name, address) in &program.databases {
            address.check().map_err(|part| {
                format!("the address of {name} has a {part} that the runtime cannot be given")
            })?;
        }
        let repository = program.app.repository.to_string();
        let platform = [
            program.app.repository.owner(),
            program.app.repository.name(),
            &repository,
            program.app.environment.as_str(),
        ];
        let mut values: Vec<(&str, &str)> = PLATFORM_NAMES.into_iter().zip(platform).collect();
        values.extend(program.values.iter());
        let network = &self.options.network;
        let deny = network
            .denied()
            .map_err(|error| format!("this machine's own addresses cannot be known: {error}"))?;
        let config = RuntimeConfig {
            backend,
            values,
            databases: &program.databases,
            allow: &network.allow,
            deny: &deny,
            heap_mib_max: self.options.heap_mib_max,
        };
        config::message(&config).map_err(|error| error.to_string())
    }
}

/// A listening socket of the file system; its name goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: PathBuf) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// One more descriptor of the same socket.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone().map(OwnedFd::from)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a socket's name stays");
        }
    }
}

/// What the person who deploys is told of a backend that does not start.
pub(super) fn refusal(failure: StartFailure) -> Refusal {
    match failure {
        StartFailure::Spawn { .. } => Refusal::with_status(500, format!("{failure}.")),
        StartFailure::Ended(ref lines) => {
            let first = failure.to_string();
            Refusal::bad(format!("The backend does not start: {first}")).detailed(lines.clone())
        }
        StartFailure::Slow { ref lines, .. } => {
            let said = lines.clone();
            Refusal::bad(format!(
                "The backend does not start: {failure}. Code at the top of a module must not run for long."
            ))
            .detailed(said)
        }
    }
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::with_status(500, format!("The backend cannot be run here: {error}."))
}
