//! The server that the tests ask: one that runs already, or a release build of one's own.

use super::options::Options;
use crate::{Context as _, Failure, Result, cargo, run, target_dir};
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A server; one that was started here is killed when this is dropped.
pub(super) struct Server {
    /// `HOST:PORT` of PostgreSQL's protocol.
    pub(super) address: String,
    child: Option<Child>,
}

impl Server {
    pub(super) fn given_or_started(options: &Options) -> Result<Self> {
        if let Some(address) = &options.server {
            return Ok(Self {
                address: address.clone(),
                child: None,
            });
        }
        let program = match &options.dormouse {
            Some(program) => program.clone(),
            None => build()?,
        };
        let data = options.output.join("data");
        if data.exists() && !options.keep {
            fs::remove_dir_all(&data).context(|| format!("removing {}", data.display()))?;
        }
        let log = options.output.join("server.log");
        let log = fs::File::create(&log).context(|| format!("creating {}", log.display()))?;
        let mut child = Command::new(&program)
            .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context(|| format!("starting {}", program.display()))?;
        let stdout = child.stdout.take();
        // From here on it is ended whatever happens.
        let mut server = Self {
            address: String::new(),
            child: Some(child),
        };
        server.address = stdout
            .and_then(|stdout| {
                BufReader::new(stdout)
                    .lines()
                    .map_while(|line| line.ok())
                    .next()
            })
            .as_deref()
            .and_then(address)
            .ok_or_else(|| Failure::new("the server did not start: see server.log"))?
            .to_owned();
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `HOST:PORT` in the first line that a server prints.
fn address(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("postgres://postgres@")?;
    rest.split('/').next()
}

fn build() -> Result<PathBuf> {
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "dormouse",
        "--bin",
        "dormouse",
    ]))?;
    let name = format!("dormouse{}", env::consts::EXE_SUFFIX);
    Ok(target_dir()?.join("release").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_in_the_first_line() {
        let line = "PostgreSQL: postgres://postgres@127.0.0.1:7432/postgres";
        assert_eq!(address(line), Some("127.0.0.1:7432"));
        assert_eq!(address("error: in use"), None);
    }
}
