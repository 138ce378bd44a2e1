//! The audit log: who did what to the directory of databases and to the tokens, as a line of JSON each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use database::{Change, Witness};
use parking_lot::Mutex;
use serde::Serialize;
use wire::{PgError, sqlstate};

use crate::timestamp::rfc3339;

/// Where lines go: to a file (`audit.file`), or to the log's target `audit`.
#[derive(Default)]
pub struct Audit(Option<Appended>);

struct Appended {
    path: PathBuf,
    file: Mutex<Appending>,
}

struct Appending {
    file: File,
    /// The last line was not written wholly.
    is_torn: bool,
}

/// The outcome of what is about to be done.
pub(crate) const BEGINS: &str = "begins";

/// What somebody does.
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
    /// [`BEGINS`] before it is done; then `ok`, or the SQLSTATE of the error.
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
            Ok(appending) => *appended.file.lock() = appending,
            Err(error) => {
                tracing::error!(file = %appended.path.display(), %error, "audit.file cannot be opened; the one from before stays");
            }
        }
    }

    /// Writes a line; when this is ready it is on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn record(self: &Arc<Self>, deed: Deed) -> Result<(), PgError> {
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || this.write(&deed)).await;
        written.map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?
    }

    /// The same on this thread. Of what only begins the log has nothing: there nothing is promised.
    fn write(&self, deed: &Deed) -> Result<(), PgError> {
        let line = Line {
            time: rfc3339(SystemTime::now()),
            deed,
        };
        let line = serde_json::to_string(&line)
            .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        let Some(appended) = &self.0 else {
            if deed.outcome != BEGINS {
                tracing::info!(target: "audit", "{line}");
            }
            return Ok(());
        };
        let mut file = appended.file.lock();
        let written = file.append(&line);
        drop(file);
        written.map_err(|error| {
            tracing::error!(%error, ?deed, "audit.file cannot be written");
            cannot_write(&error)
        })
    }
}

impl Appending {
    fn append(&mut self, line: &str) -> io::Result<()> {
        // What was written of a line that did not fit is no part of the next one.
        let before = if self.is_torn { "\n" } else { "" };
        let line = format!("{before}{line}\n");
        self.is_torn = true;
        // One call a line: with O_APPEND another process's lines do not come in between.
        self.file.write_all(line.as_bytes())?;
        self.is_torn = false;
        self.file.sync_data()
    }
}

impl Witness for Audit {
    fn write(&self, change: &Change, outcome: Option<&str>) -> Result<(), PgError> {
        Self::write(
            self,
            &Deed {
                who: change.doer.who.clone(),
                from: change.doer.from,
                action: change.action,
                object: Some(change.database.clone()),
                outcome: outcome.unwrap_or(BEGINS).to_owned(),
                detail: change.detail.clone(),
            },
        )
    }
}

fn cannot_write(error: &io::Error) -> PgError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => sqlstate::DISK_FULL,
        _ => sqlstate::IO_ERROR,
    };
    PgError::error(code, format!("audit.file cannot be written: {error}"))
        .hint("Make room for the audit log, or see to it that the file can be written.")
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.0.as_ref().map(|appended| &appended.path);
        formatter.debug_tuple("Audit").field(&path).finish()
    }
}

fn append(path: &Path) -> io::Result<Appending> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    Ok(Appending {
        file: options.open(path)?,
        is_torn: false,
    })
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
        audit.record(deed("ok")).await.unwrap();
        std::fs::rename(&path, folder.path().join("audit.1")).unwrap();
        audit.record(deed("42P04")).await.unwrap();
        audit.reopen();
        audit.record(deed("ok")).await.unwrap();
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

    #[tokio::test]
    async fn what_cannot_be_written_is_an_error() {
        let audit = Arc::new(Audit::open(Path::new("/dev/full")).unwrap());
        assert_eq!(audit.record(deed("ok")).await.unwrap_err().code(), "53100");
    }
}
