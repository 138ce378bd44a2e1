//! Static tokens: made, listed, revoked, and recognised.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use database::DatabaseName;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::claims::Refused;
use super::deployer::{Deployer, RepositoryPattern};
use super::token;
use super::token_file::{Contents, Record, Stamp, hexadecimal, lock};
use crate::http::caller::{Caller, Identity, Reach, Scope};
use crate::http::sizes::OwnSizes;
use crate::timestamp::rfc3339;

/// The most tokens of one file.
const TOKENS_MAX: usize = 10_000;

/// The scope of tokens that deploy, and do nothing else.
const DEPLOY: &str = "deploy";

/// The longest name of a token, in characters, and of a role, in bytes.
const NAME_CHARACTERS_MAX: usize = 100;
const ROLE_BYTES_MAX: usize = 63;

/// How long what was read of the file is believed.
const LOOK: Duration = Duration::from_secs(1);

/// The static tokens of a file (`auth.tokens_file`).
pub struct Tokens {
    path: PathBuf,
    current: RwLock<Arc<Contents>>,
    looked: Mutex<Looked>,
}

/// When the file was last looked at, and what it was then.
struct Looked {
    at: Instant,
    stamp: Option<Stamp>,
}

/// A token that is to be made.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewToken {
    /// What it is called, for people: unique in its file.
    pub name: String,
    /// `read`, `write`, `admin` or `deploy`.
    pub scope: String,
    /// The only database that it reaches; without it all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The role of its sessions, if it is not that of its scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// With the scope `deploy`: the only repository that it deploys, or `owner/*`; without it all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// How long it is accepted; without it until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
    /// The most bytes of the body of one of its requests, or of a message in a WebSocket, if the node and the database allow
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<NonZeroU64>,
    /// The same of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes_max: Option<NonZeroU64>,
}

/// What is said of a token: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenDocument {
    /// Names it, to revoke it.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// `read`, `write`, `admin` or `deploy`.
    pub scope: String,
    /// The only database that it reaches.
    pub database: Option<String>,
    /// The role of its sessions, if it is not that of its scope.
    pub role: Option<String>,
    /// With the scope `deploy`: the only repository that it deploys, or `owner/*`.
    #[serde(default)]
    pub repository: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC: from then on it is not accepted.
    pub expires_at: Option<String>,
    /// The most bytes of the body of one of its requests.
    #[serde(default)]
    pub body_bytes_max: Option<NonZeroU64>,
    /// The most bytes of a result.
    #[serde(default)]
    pub result_bytes_max: Option<NonZeroU64>,
}

/// A token has just been made: the only time that it is seen.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The secret.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub document: TokenDocument,
}

/// Tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("auth.tokens_file = \"{}\": {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is wrong with it.
        source: std::io::Error,
    },
    /// There cannot be such a token.
    #[error("{0}")]
    Invalid(String),
    /// There is one of this name.
    #[error("there is a token named \"{0}\" already: revoke it, or choose another name")]
    Taken(String),
    /// There is no such token.
    #[error("there is no token \"{0}\"")]
    Unknown(String),
    /// There are as many as there may be.
    #[error("there are {TOKENS_MAX} tokens, which is the most: revoke some")]
    Full,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a token: {0}")]
    Random(getrandom::Error),
}

impl Tokens {
    /// Reads the file, which need not be there yet. Blocks for the disk.
    ///
    /// # Errors
    /// If what is there cannot be used.
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let failed = failed(path);
        let stamp = Stamp::of(path).map_err(&failed)?;
        let contents = Contents::read(path).map_err(&failed)?;
        Ok(Self {
            path: path.to_owned(),
            current: RwLock::new(Arc::new(contents)),
            looked: Mutex::new(Looked {
                at: Instant::now(),
                stamp,
            }),
        })
    }

    /// Makes a token. Blocks for the disk.
    ///
    /// # Errors
    /// [`TokensError`], which says what to do.
    pub fn create(&self, new: NewToken) -> Result<CreatedToken, TokensError> {
        check(&new)?;
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *random).map_err(TokensError::Random)?;
        let mut id = [0; 6];
        getrandom::fill(&mut id).map_err(TokensError::Random)?;
        let token = token::of_random(&random);
        let created = unix(SystemTime::now());
        let record = Record {
            id: hexadecimal(&id),
            name: new.name,
            scope: new.scope,
            database: new.database,
            role: new.role,
            repository: new.repository,
            sha256: hexadecimal(&token::hash(&token)),
            created,
            expires: new
                .expires_seconds
                .map(|seconds| created.saturating_add(seconds)),
            body_bytes_max: new.body_bytes_max,
            result_bytes_max: new.result_bytes_max,
        };
        let document = TokenDocument::from(&record);
        self.change(|contents| {
            if contents
                .tokens
                .iter()
                .any(|known| known.name == record.name)
            {
                return Err(TokensError::Taken(record.name.clone()));
            }
            if contents.tokens.len() >= TOKENS_MAX {
                return Err(TokensError::Full);
            }
            contents.tokens.push(record);
            Ok(())
        })?;
        Ok(CreatedToken {
            token: token.to_string(),
            document,
        })
    }

    /// All tokens, in the order they were made. Blocks for the disk.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn list(&self) -> Result<Vec<TokenDocument>, TokensError> {
        let contents = Contents::read(&self.path).map_err(failed(&self.path))?;
        Ok(contents.tokens.iter().map(TokenDocument::from).collect())
    }

    /// Revokes the token of this id or name. Blocks for the disk.
    ///
    /// # Errors
    /// [`TokensError::Unknown`] if there is none.
    pub fn revoke(&self, id: &str) -> Result<TokenDocument, TokensError> {
        self.change(|contents| {
            let tokens = &mut contents.tokens;
            let at = tokens.iter().position(|token| token.id == id);
            let at = at.or_else(|| tokens.iter().position(|token| token.name == id));
            let at = at.ok_or_else(|| TokensError::Unknown(id.to_owned()))?;
            Ok(TokenDocument::from(&tokens.remove(at)))
        })
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<T, TokensError>,
    ) -> Result<T, TokensError> {
        let failed = failed(&self.path);
        let locked = lock(&self.path).map_err(&failed)?;
        let mut contents = Contents::read(&self.path).map_err(&failed)?;
        let done = change(&mut contents)?;
        contents.write(&self.path, &locked).map_err(&failed)?;
        *self.current.write() = Arc::new(contents);
        Ok(done)
    }

    /// Reads the file again, if it has changed. If what is in it cannot be used, the log says why, and the tokens from before
    /// stay. Blocks for the disk.
    pub fn reload(&self) {
        let mut looked = self.looked.lock();
        looked.at = Instant::now();
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) if stamp == looked.stamp => return,
            Ok(stamp) => stamp,
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "the tokens from before stay");
                return;
            }
        };
        // Whoever writes now is seen the next time: the stamp is older than what is read.
        looked.stamp = stamp;
        match Contents::read(&self.path) {
            Ok(contents) => {
                tracing::info!(count = contents.tokens.len(), "there are other tokens");
                *self.current.write() = Arc::new(contents);
            }
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "the tokens from before stay");
            }
        }
    }

    /// What shows this token, or why it is not accepted.
    pub(super) async fn known(
        self: &Arc<Self>,
        token: &str,
        now: SystemTime,
    ) -> Result<Known, &'static str> {
        if !token::is_well_formed(token) {
            return Err("the token is damaged: it is not whole, or has been mistyped");
        }
        self.look().await;
        let contents = Arc::clone(&self.current.read());
        let record = contents
            .find(token)
            .ok_or("the token is unknown, or was revoked")?;
        if record.expires.is_some_and(|expires| unix(now) >= expires) {
            return Err("the token has expired");
        }
        Ok(Known(record.clone()))
    }

    /// Who shows this token, or why it is not accepted.
    pub(super) async fn caller(
        self: &Arc<Self>,
        token: &str,
        now: SystemTime,
    ) -> Result<Caller, Refused> {
        let known = self.known(token, now).await.map_err(Refused::Invalid)?;
        if known.0.scope == DEPLOY {
            let why = "the token has the scope deploy, and so is for deployments alone";
            return Err(Refused::Insufficient(why));
        }
        let damaged = "the token's record in auth.tokens_file is damaged";
        known.caller().ok_or(Refused::Invalid(damaged))
    }

    /// Reads the file again, if it was not looked at for a while.
    async fn look(self: &Arc<Self>) {
        let due = {
            let looked = self.looked.try_lock();
            // Somebody else looks.
            looked.is_some_and(|looked| looked.at.elapsed() >= LOOK)
        };
        if due {
            let this = Arc::clone(self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.reload()).await {
                tracing::error!(%error, "BUG: reading tokens panicked");
            }
        }
    }
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CreatedToken")
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokens")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl From<&Record> for TokenDocument {
    fn from(record: &Record) -> Self {
        let moment = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            scope: record.scope.clone(),
            database: record.database.clone(),
            role: record.role.clone(),
            repository: record.repository.clone(),
            created_at: moment(record.created),
            expires_at: record.expires.map(moment),
            body_bytes_max: record.body_bytes_max,
            result_bytes_max: record.result_bytes_max,
        }
    }
}

/// A token that is accepted.
pub(super) struct Known(Record);

impl Known {
    /// Who asks databases with it.
    pub(super) fn caller(&self) -> Option<Caller> {
        of_record(&self.0)
    }

    /// Who deploys with it, if it has the scope for that.
    pub(super) fn deployer(&self) -> Option<Deployer> {
        let record = &self.0;
        if record.scope != DEPLOY {
            return None;
        }
        Some(match &record.repository {
            None => Deployer::of_all(&record.name.as_str().into()),
            // One that cannot be read covers nothing.
            Some(pattern) => Deployer::of(
                &record.name,
                RepositoryPattern::parse(pattern).into_iter().collect(),
            ),
        })
    }
}

fn of_record(record: &Record) -> Option<Caller> {
    Some(Caller {
        name: record.name.as_str().into(),
        identity: Identity::of("token", &[&record.id]),
        scope: Scope::parse(&record.scope)?,
        reach: match &record.database {
            Some(name) => Reach::One(DatabaseName::parse(name).ok()?),
            None => Reach::All,
        },
        role: record.role.as_deref().map(Into::into),
        claims: None,
        sizes: OwnSizes {
            body: record.body_bytes_max.map(Into::into),
            result: record.result_bytes_max.map(Into::into),
        },
    })
}

fn check(new: &NewToken) -> Result<(), TokensError> {
    let invalid = |message: String| Err(TokensError::Invalid(message));
    let characters = new.name.chars().count();
    if !(1..=NAME_CHARACTERS_MAX).contains(&characters) || new.name.chars().any(char::is_control) {
        return invalid(format!(
            "a token's name has 1 to {NAME_CHARACTERS_MAX} characters, none of them a control character"
        ));
    }
    if new.scope == DEPLOY {
        if new.database.is_some() || new.role.is_some() {
            return invalid("a token of the scope deploy has no database and no role".to_owned());
        }
        if new.body_bytes_max.is_some() || new.result_bytes_max.is_some() {
            return invalid(
                "a token of the scope deploy has no bodyBytesMax and no resultBytesMax: workers.archive_bytes_max \
                 limits a deployment"
                    .to_owned(),
            );
        }
    } else if Scope::parse(&new.scope).is_none() {
        return invalid(format!(
            "there is no scope \"{}\": there are read, write, admin and deploy",
            new.scope
        ));
    } else if new.repository.is_some() {
        return invalid("a repository is for tokens of the scope deploy alone".to_owned());
    }
    if let Some(pattern) = &new.repository {
        RepositoryPattern::parse(pattern).map_err(TokensError::Invalid)?;
    }
    if let Some(name) = &new.database
        && let Err(rule) = DatabaseName::parse(name)
    {
        return invalid(format!("\"{name}\" is no database: {rule}"));
    }
    if let Some(role) = &new.role
        && (role.is_empty() || role.len() > ROLE_BYTES_MAX || role.contains('\0'))
    {
        return invalid(format!("a role has a name of 1 to {ROLE_BYTES_MAX} bytes"));
    }
    // Some 30,000 years: as a date it would have more than four digits.
    if new
        .expires_seconds
        .is_some_and(|seconds| seconds == 0 || seconds > 100 * 366 * 86_400)
    {
        return invalid("a token expires after 1 second to 100 years".to_owned());
    }
    Ok(())
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> TokensError {
    let path = path.to_owned();
    move |source| TokensError::File {
        path: path.clone(),
        source,
    }
}

fn unix(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str) -> NewToken {
        NewToken {
            name: name.to_owned(),
            scope: "write".to_owned(),
            database: Some("shop".to_owned()),
            role: None,
            repository: None,
            expires_seconds: Some(60),
            body_bytes_max: NonZeroU64::new(1_000),
            result_bytes_max: None,
        }
    }

    #[tokio::test]
    async fn tokens_are_known_until_they_expire_or_are_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let tokens = Arc::new(Tokens::open(&path).unwrap());
        let created = tokens.create(new("ci")).unwrap();
        let now = SystemTime::now();
        let caller = tokens.caller(&created.token, now).await.unwrap();
        assert_eq!(&*caller.name, "ci");
        assert_eq!(caller.scope, Scope::Write);
        assert_eq!(
            caller.reach,
            Reach::One(DatabaseName::parse("shop").unwrap())
        );
        assert_eq!(
            (caller.sizes.body, caller.sizes.result),
            (Some(1_000), None)
        );
        let late = now + Duration::from_secs(61);
        assert!(tokens.caller(&created.token, late).await.is_err());
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(!kept.contains(&created.token), "{kept}");
        tokens.revoke(&created.document.id).unwrap();
        assert!(tokens.caller(&created.token, now).await.is_err());
        assert!(tokens.list().unwrap().is_empty());
    }

    #[test]
    fn a_token_that_deploys_has_no_limits_that_would_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&folder.path().join("tokens")).unwrap();
        let deploying = |body, result| NewToken {
            scope: DEPLOY.to_owned(),
            database: None,
            body_bytes_max: NonZeroU64::new(body),
            result_bytes_max: NonZeroU64::new(result),
            ..new("ci")
        };
        for (body, result) in [(1, 0), (0, 1)] {
            let refused = tokens.create(deploying(body, result)).err().unwrap();
            assert!(refused.to_string().contains("no bodyBytesMax"), "{refused}");
        }
        assert!(tokens.create(deploying(0, 0)).is_ok());
    }

    #[test]
    fn two_who_write_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let tokens = Tokens::open(path).unwrap();
                    for number in 0..5 {
                        tokens.create(new(&format!("{writer}-{number}"))).unwrap();
                    }
                });
            }
        });
        assert_eq!(Tokens::open(&path).unwrap().list().unwrap().len(), 20);
    }

    #[test]
    fn a_file_that_was_changed_is_read_again_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let server = Tokens::open(&path).unwrap();
        Tokens::open(&path).unwrap().create(new("a")).unwrap();
        server.reload();
        assert_eq!(server.current.read().tokens.len(), 1);
        std::fs::write(&path, "damaged").unwrap();
        server.reload();
        assert_eq!(server.current.read().tokens.len(), 1);
        std::fs::remove_file(&path).unwrap();
        server.reload();
        assert_eq!(server.current.read().tokens.len(), 0);
    }

    #[test]
    fn tokens_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&folder.path().join("tokens")).unwrap();
        tokens.create(new("a")).unwrap();
        let refused = |change: fn(&mut NewToken)| {
            let mut token = new("b");
            change(&mut token);
            tokens.create(token).unwrap_err().to_string()
        };
        assert!(refused(|token| token.name = "a".to_owned()).contains("already"));
        assert!(refused(|token| token.name = "\n".to_owned()).contains("name"));
        assert!(refused(|token| token.scope = "all".to_owned()).contains("scope"));
        assert!(refused(|token| token.database = Some("a b".to_owned())).contains("a b"));
        assert!(refused(|token| token.role = Some(String::new())).contains("role"));
        assert!(refused(|token| token.expires_seconds = Some(0)).contains("expires"));
        assert!(tokens.revoke("b").is_err());
    }
}
