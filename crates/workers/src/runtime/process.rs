//! One process of workerd.

use super::{
    RuntimeOptions,
    log::{Level, Line, Log},
    memory,
    spawner::Spawner,
};
use command_fds::{CommandFdExt as _, FdMapping};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::pipe,
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

/// Descriptors of the child: the socket that it listens on, and the one that it says so on.
const SOCKET_FD: i32 = 3;
const CONTROL_FD: i32 = 4;

/// Bytes of the control channel's first message that are read.
const CONTROL_BYTES_MAX: u64 = 4_096;

/// Lines that are kept of a start, for whoever asks why there was none.
const START_LINES_MAX: usize = 100;

/// A process that does not listen.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartFailure {
    /// There is no such process to be had.
    #[error("workerd ({program}) did not start: {source}")]
    Spawn { program: String, source: io::Error },
    /// It ended, with these words of its own.
    #[error("{}", .0.first().map_or("the runtime ended without a word", String::as_str))]
    Ended(Vec<String>),
    /// It takes too long; what it said meanwhile.
    #[error("the backend did not start within workers.start_ms_max ({ms} ms)")]
    Slow { ms: u128, lines: Vec<String> },
}

/// A process that listens.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    readers: [JoinHandle<()>; 2],
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a process on a socket, and waits until it listens.
    pub(super) async fn start(
        spawner: &Spawner,
        options: &RuntimeOptions,
        version: u64,
        config: Vec<u8>,
        socket: OwnedFd,
        log: Arc<Log>,
    ) -> Result<Self, StartFailure> {
        let failed = |source| StartFailure::Spawn {
            program: options.workerd.display().to_string(),
            source,
        };
        let (control, told) = io::pipe().map_err(failed)?;
        let command = command(options, socket, told.into()).map_err(failed)?;
        let control = pipe::Receiver::from_owned_fd(control.into()).map_err(failed)?;
        let child = spawner.spawn(command).await.map_err(failed)?;
        let mut process = Self::reading(child, version, log);
        let listening = process.listening(config, control);
        match timeout(options.start_max, listening).await {
            Ok(Ok(())) => Ok(process),
            Ok(Err(error)) => {
                // Its last words come before its end is known.
                process.kill().await;
                tracing::debug!(%error, "a backend did not start");
                Err(StartFailure::Ended(process.words()))
            }
            Err(_) => {
                process.kill().await;
                Err(StartFailure::Slow {
                    ms: options.start_max.as_millis(),
                    lines: process.words(),
                })
            }
        }
    }

    fn reading(mut child: Child, version: u64, log: Arc<Log>) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let output = child.stdout.take();
        let errors = child.stderr.take();
        let sink = |errors| Sink {
            version,
            errors,
            log: Arc::clone(&log),
            said: Arc::clone(&said),
        };
        let readers = [
            tokio::spawn(read(output, sink(false))),
            tokio::spawn(read(errors, sink(true))),
        ];
        Self {
            child,
            readers,
            said,
        }
    }

    /// Gives the configuration and waits for the word that there is a socket that is listened on.
    async fn listening(&mut self, config: Vec<u8>, control: pipe::Receiver) -> io::Result<()> {
        if let Some(mut stdin) = self.child.stdin.take() {
            stdin.write_all(&config).await?;
            stdin.shutdown().await?;
        }
        let mut line = String::new();
        let mut control = BufReader::new(control.take(CONTROL_BYTES_MAX));
        control.read_line(&mut line).await?;
        if line.contains("\"listen\"") {
            return Ok(());
        }
        Err(io::Error::other("it ended"))
    }

    /// What the runtime itself has said, not the backend.
    pub(super) fn words(&self) -> Vec<String> {
        self.said.lock().clone()
    }

    /// Resident bytes, where they can be known.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        memory::resident_bytes(self.child.id()?)
    }

    /// The process's id, until its end is known.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the end of the process, and of what it wrote. Can be left and begun again.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        for reader in &mut self.readers {
            if !reader.is_finished() {
                // Who fails here has been cancelled, with the runtime that it ran on.
                drop(reader.await);
            }
        }
        Ok(status)
    }

    /// Asks it to finish its requests and end, and kills it if it has not within a time.
    pub(super) async fn retire(mut self, drain_max: std::time::Duration) -> Option<ExitStatus> {
        if let Some(pid) = self.pid()
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!(%error, "a backend could not be asked to end");
        }
        match timeout(drain_max, self.ended()).await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(_)) | Err(_) => {
                self.kill().await;
                None
            }
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "a backend had ended already");
        }
        if let Err(error) = self.ended().await {
            tracing::warn!(%error, "the end of a backend is not known");
        }
    }

    fn pid(&self) -> Option<Pid> {
        let id = self.child.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }
}

fn command(options: &RuntimeOptions, socket: OwnedFd, control: OwnedFd) -> io::Result<Command> {
    let mut line = options
        .launcher
        .iter()
        .map(OsStr::new)
        .chain([options.workerd.as_os_str()]);
    let program = line.next().unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(line)
        .args(["serve", "--binary", "-"])
        .arg(format!("--socket-fd={}={SOCKET_FD}", crate::config::SOCKET))
        .arg(format!("--control-fd={CONTROL_FD}"))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An interrupt from the terminal is the server's, which ends its backends in order.
        .process_group(0)
        .kill_on_drop(true);
    let mapping = |parent_fd, child_fd| FdMapping {
        parent_fd,
        child_fd,
    };
    let mappings = vec![mapping(socket, SOCKET_FD), mapping(control, CONTROL_FD)];
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok(command)
}

/// Where the lines of a process go.
#[derive(Debug)]
struct Sink {
    version: u64,
    /// Whether these are the lines of its standard error: the runtime's own words, where they are no JSON.
    errors: bool,
    log: Arc<Log>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn take(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.log.line(self.version, &line);
        let Line { level, text } = Line::read(&line);
        let own = level == Level::Runtime || (self.errors && !text.is_empty());
        let mut said = self.said.lock();
        if own && said.len() < START_LINES_MAX {
            said.push(text);
        }
    }
}

/// Passes lines on, cut where they are too long.
async fn read(from: Option<impl AsyncRead + Unpin>, sink: Sink) {
    let Some(from) = from else {
        return;
    };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        let (taken, complete) = match from.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let part = &bytes[..end.unwrap_or(bytes.len())];
                let room = sink.log.line_bytes_max().saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
                (end.map_or(bytes.len(), |end| end + 1), end.is_some())
            }
        };
        from.consume(taken);
        if complete {
            sink.take(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        sink.take(&line);
    }
}
