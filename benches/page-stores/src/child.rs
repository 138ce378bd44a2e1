//! A turn in a process of its own, seen from outside.

use crate::{
    figures::{self, Figures},
    stores::{Candidate, Result},
    turns::Turn,
};
use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{self, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// How long a turn may say nothing: far more than any needs.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// The word on the command line before a turn.
pub(crate) const TURN: &str = "turn";

/// A running turn.
pub(crate) struct Child {
    name: String,
    process: process::Child,
    lines: Receiver<String>,
}

impl Child {
    /// Starts a turn of a store on a directory.
    pub(crate) fn turn(
        turn: Turn,
        candidate: Candidate,
        directory: &Path,
        number: u64,
        quick: bool,
    ) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args([TURN, &turn.to_string(), candidate.name()])
            .arg(directory)
            .arg(number.to_string())
            .args(quick.then_some("--quick"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().ok_or("the turn has no output")?;
        let (say, lines) = mpsc::channel();
        // It ends with the process, whose output it reads, or when nobody listens.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        let name = format!("{turn} of {}", candidate.name());
        Ok(Self {
            name,
            process,
            lines,
        })
    }

    /// The next line it says.
    pub(crate) fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                self.process.kill()?;
                self.process.wait()?;
                Err(format!("{}: silent for {SILENCE_MAX:?}", self.name).into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.failure()?.into()),
        }
    }

    /// Waits for its end, and takes what it found out.
    pub(crate) fn figures(mut self) -> Result<Figures> {
        let line = self.line()?;
        if self.process.wait()?.success() {
            figures::from_line(&line)
        } else {
            Err(self.failure()?.into())
        }
    }

    /// Kills it, and returns what it had said and nobody had read.
    pub(crate) fn kill(mut self) -> Result<Vec<String>> {
        self.process.kill()?;
        self.process.wait()?;
        // The pipe is closed now, so this ends.
        Ok(self.lines.iter().collect())
    }

    fn failure(&mut self) -> Result<String> {
        let status = self.process.wait()?;
        let mut said = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let said = said.lines().next().unwrap_or_default();
        Ok(format!("{}: {status}: {said}", self.name))
    }
}
