//! The audit log: who did what to the directory of databases and to the tokens, as a line of JSON each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;

use crate::http::error::ApiError;
use crate::timestamp::rfc3339;

/// Where lines go: to a file (`audit.file`), or to the log's target `audit`.
#[derive(Default)]
pub struct Audit(Option<Appended>);

struct Appended {
    path: PathBuf,
    file: Mutex<File>,
}

/// What somebody did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Deed {
    /// Who: the caller's name.
    pub(crate) who: String,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<SocketAddr>,
    /// What: `database.create`, `token.revoke`, …
    pub(crate) action: &'static str,
    /// To which database or token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<String>,
    /// `ok`, or the SQLSTATE of the error.
    pub(crate) outcome: String,
    /// What else there is to say; no secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    deed: &'a Deed,
}

impl Deed {
    /// How something ended.
    pub(crate) fn outcome<T>(done: &Result<T, ApiError>) -> String {
        match done {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.code().to_owned(),
        }
    }
}

impl Audit {
    /// Into a file, at its end. Blocks for the disk.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Some(Appended {
            path: path.to_owned(),
            file: Mutex::new(append(path)?),
        })))
    }

    /// Whether it goes to a file.
    pub fn is_file(&self) -> bool {
        self.0.is_some()
    }

    /// Opens the file again: whoever rotates it has renamed the old one. Blocks for the disk.
    pub fn reopen(&self) {
        let Some(appended) = &self.0 else { return };
        match append(&appended.path) {
            Ok(file) => *appended.file.lock() = file,
            Err(error) => {
                tracing::error!(file = %appended.path.display(), %error, "audit.file cannot be opened; the one from before stays");
            }
        }
    }

    /// Writes a line; when this is ready it is on the disk. What cannot be written is in the log.
    pub(crate) async fn record(self: &Arc<Self>, deed: Deed) {
        let line = Line {
            time: rfc3339(SystemTime::now()),
            deed: &deed,
        };
        let Ok(mut line) = serde_json::to_string(&line) else {
            tracing::error!(?deed, "BUG: a line of the audit is no JSON");
            return;
        };
        if self.0.is_none() {
            tracing::info!(target: "audit", "{line}");
            return;
        }
        line.push('\n');
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || this.write(&line)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::error!(%error, ?deed, "audit.file cannot be written");
        }
    }

    fn write(&self, line: &str) -> io::Result<()> {
        let Some(appended) = &self.0 else {
            return Ok(());
        };
        let mut file = appended.file.lock();
        // One call a line: with O_APPEND another process's lines do not come in between.
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.0.as_ref().map(|appended| &appended.path);
        formatter.debug_tuple("Audit").field(&path).finish()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(outcome: &str) -> Deed {
        Deed {
            who: "ci\n".to_owned(),
            from: None,
            action: "database.create",
            object: Some("shop".to_owned()),
            outcome: outcome.to_owned(),
            detail: None,
        }
    }

    #[tokio::test]
    async fn a_line_each_in_a_file_that_can_be_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let audit = Arc::new(Audit::open(&path).unwrap());
        audit.record(deed("ok")).await;
        std::fs::rename(&path, folder.path().join("audit.1")).unwrap();
        audit.record(deed("42P04")).await;
        audit.reopen();
        audit.record(deed("ok")).await;
        let lines = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
            text.lines().map(parse).collect::<Vec<_>>()
        };
        let old = lines("audit.1");
        assert_eq!(old.len(), 2);
        assert_eq!(old[0]["who"], "ci\n");
        assert_eq!(old[1]["outcome"], "42P04");
        assert_eq!(lines("audit").len(), 1);
    }
}
