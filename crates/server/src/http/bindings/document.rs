//! A binding as it is shown: without any secret.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use pooler::{
    Allowed, Binding, BindingTarget, Bindings, CacheFigures, CacheStatus, Caching, CachingMode,
    Credential, Host, Limits, Origin, ReplicationStanding, Standing, Target,
};
use serde::{Deserialize, Serialize};

use super::said;
use crate::http::error::ApiError;
use crate::timestamp::rfc3339;

/// A binding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindingDocument {
    /// 32 hexadecimal digits, for `w7s.json`.
    pub id: String,
    /// For people; it may stand for the id.
    pub name: String,
    /// The external Postgres that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginDocument>,
    /// The database of ours that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// It leads each application to a database of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_per_app: Option<PerAppDocument>,
    /// What its pool may use.
    pub limits: LimitsDocument,
    /// What may come from the cache.
    pub caching: CachingDocument,
    /// Who may bind it; everybody if it is empty.
    pub allowed: Vec<AllowedDocument>,
    /// With whom it is reached over PostgreSQL's protocol.
    pub credentials: Vec<CredentialDocument>,
    /// Applications that bind it.
    pub used_by: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub modified_at: String,
    /// How its pool stands, where somebody has used it since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolDocument>,
    /// Queries since the start by what the cache made of them, those that there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<BTreeMap<String, u64>>,
}

/// An external Postgres.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginDocument {
    /// `host:port`, in the order in which they are tried.
    pub hosts: Vec<String>,
    /// The database there.
    pub database: String,
    /// The role.
    pub user: String,
    /// As libpq's.
    pub sslmode: String,
    /// Whether authorities are named, which alone are believed.
    pub has_authorities: bool,
    /// Whether a certificate is shown to the server.
    pub has_client_certificate: bool,
    /// `any` or `read-write`.
    pub target_session_attrs: String,
}

/// A database for each application.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerAppDocument {
    /// What the production environment's begins as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// Limits, all of them in what is shown; those that are to change in what is sent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsDocument {
    /// Connections to the origin.
    pub connections_max: Option<u32>,
    /// Of them, those that sessions may keep between transactions.
    pub pinned_max: Option<u32>,
    /// For a login.
    pub connect_timeout_ms: Option<u32>,
    /// For a connection, while others have them all.
    pub wait_ms_max: Option<u32>,
    /// After which a connection that nobody uses is closed.
    pub idle_ms: Option<u32>,
    /// Of a statement; 0 for none.
    pub statement_timeout_ms: Option<u32>,
}

/// What may come from the cache; as [`LimitsDocument`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CachingDocument {
    /// Nothing may.
    pub disabled: Option<bool>,
    /// Seconds.
    pub max_age: Option<u32>,
    /// Seconds in which an older answer is given while it is asked anew.
    pub stale_while_revalidate: Option<u32>,
    /// What makes an answer too old: `fresh` for writes through the binding, and time; `ttl` for time alone.
    pub mode: Option<String>,
    /// Whether writes made elsewhere are heard of, by logical replication. With `fresh` alone.
    pub replication: Option<bool>,
}

/// Who may bind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedDocument {
    /// `owner/repository`.
    pub repository: String,
    /// One environment; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// A credential, without its password.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialDocument {
    /// The user name.
    pub user: String,
    /// For people.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
}

/// How a pool stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolDocument {
    /// Connections, those that are being made included.
    pub connections: usize,
    /// Of them, those that nobody has.
    pub idle: usize,
    /// Of them, those that sessions keep between transactions.
    pub pinned: usize,
    /// Clients that wait for one.
    pub waiting: usize,
    /// Connections that were made since the start.
    pub connected: u64,
    /// Those that could not be made.
    pub failed: u64,
    /// How often a client got a connection.
    pub given: u64,
    /// Of these, after a wait.
    pub waited: u64,
    /// Waits that ended with an error.
    pub refused: u64,
    /// Clients that left amid a transaction or a statement.
    pub abandoned: u64,
    /// How it stands with writes made elsewhere, where they are to be heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationDocument>,
}

/// How a pool stands with what others write at its origin.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationDocument {
    /// `idle`, `connecting`, `streaming` or `failed`.
    pub state: String,
    /// Why it failed, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happened, and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl BindingDocument {
    pub(super) fn of(binding: &Binding, all: &Bindings) -> Self {
        let (mut origin, mut database, mut database_per_app) = (None, None, None);
        let (standing, cache) = all.standing(&binding.id).unzip();
        match &binding.target {
            BindingTarget::Origin(target) => origin = Some(target.into()),
            BindingTarget::Database(name) => database = Some(name.clone()),
            BindingTarget::DatabasePerApp { template } => {
                let template = template.clone();
                database_per_app = Some(PerAppDocument { template });
            }
        }
        Self {
            id: binding.id.clone(),
            name: binding.name.clone(),
            origin,
            database,
            database_per_app,
            limits: (&binding.limits).into(),
            caching: (&binding.caching).into(),
            allowed: binding.allowed.iter().map(AllowedDocument::from).collect(),
            credentials: binding
                .credentials
                .iter()
                .map(CredentialDocument::from)
                .collect(),
            used_by: all.users(&binding.id),
            created_at: moment(binding.created_ms),
            modified_at: moment(binding.modified_ms),
            pool: standing.map(|standing| PoolDocument {
                replication: all.replication(&binding.id).and_then(replication),
                ..standing.into()
            }),
            queries: cache.as_ref().map(queries),
        }
    }
}

fn replication(standing: ReplicationStanding) -> Option<ReplicationDocument> {
    let state = standing.name().to_owned();
    let failure = match standing {
        ReplicationStanding::Off => return None,
        ReplicationStanding::Failed(failure) => Some(failure),
        _ => None,
    };
    Some(ReplicationDocument {
        state,
        reason: failure
            .as_ref()
            .map(|failure| failure.reason.name().to_owned()),
        message: failure.map(|failure| failure.message),
    })
}

fn queries(cache: &CacheFigures) -> BTreeMap<String, u64> {
    let counts = CacheStatus::ALL
        .into_iter()
        .map(|status| (status.name().to_owned(), cache.with(status)));
    counts.filter(|(_, count)| *count > 0).collect()
}

pub(super) fn moment(ms: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_millis(ms))
}

impl From<&Origin> for OriginDocument {
    fn from(origin: &Origin) -> Self {
        Self {
            hosts: origin.hosts.iter().map(Host::to_string).collect(),
            database: origin.database.clone(),
            user: origin.user.clone(),
            sslmode: origin.tls.mode.name().to_owned(),
            has_authorities: origin.tls.authorities.is_some(),
            has_client_certificate: origin.tls.identity.is_some(),
            target_session_attrs: match origin.target {
                Target::Any => "any",
                Target::ReadWrite => "read-write",
            }
            .to_owned(),
        }
    }
}

impl From<&Limits> for LimitsDocument {
    fn from(limits: &Limits) -> Self {
        Self {
            connections_max: Some(limits.connections_max),
            pinned_max: Some(limits.pinned_max),
            connect_timeout_ms: Some(limits.connect_timeout_ms),
            wait_ms_max: Some(limits.wait_ms_max),
            idle_ms: Some(limits.idle_ms),
            statement_timeout_ms: Some(limits.statement_timeout_ms),
        }
    }
}

impl LimitsDocument {
    /// Those that are told become these.
    pub(super) fn apply(&self, limits: &mut Limits) {
        let set = |limit: &mut u32, told: Option<u32>| *limit = told.unwrap_or(*limit);
        set(&mut limits.connections_max, self.connections_max);
        set(&mut limits.pinned_max, self.pinned_max);
        set(&mut limits.connect_timeout_ms, self.connect_timeout_ms);
        set(&mut limits.wait_ms_max, self.wait_ms_max);
        set(&mut limits.idle_ms, self.idle_ms);
        set(&mut limits.statement_timeout_ms, self.statement_timeout_ms);
    }
}

impl From<&Caching> for CachingDocument {
    fn from(caching: &Caching) -> Self {
        Self {
            disabled: Some(caching.is_disabled),
            max_age: Some(caching.max_age),
            stale_while_revalidate: Some(caching.stale_while_revalidate),
            mode: Some(caching.mode.name().to_owned()),
            replication: Some(caching.replication),
        }
    }
}

impl CachingDocument {
    /// What is told becomes so.
    pub(super) fn apply(&self, caching: &mut Caching) -> Result<(), ApiError> {
        caching.is_disabled = self.disabled.unwrap_or(caching.is_disabled);
        caching.replication = self.replication.unwrap_or(caching.replication);
        caching.max_age = self.max_age.unwrap_or(caching.max_age);
        let stale = &mut caching.stale_while_revalidate;
        *stale = self.stale_while_revalidate.unwrap_or(*stale);
        if let Some(mode) = &self.mode {
            caching.mode = CachingMode::of_name(mode).ok_or_else(|| {
                said::invalid("caching.mode must be fresh or ttl")
                    .member("field", "caching.mode".into())
            })?;
        }
        Ok(())
    }
}

impl From<&Allowed> for AllowedDocument {
    fn from(allowed: &Allowed) -> Self {
        Self {
            repository: allowed.repository.clone(),
            environment: allowed.environment.clone(),
        }
    }
}

impl From<AllowedDocument> for Allowed {
    fn from(document: AllowedDocument) -> Self {
        Self {
            repository: document.repository,
            environment: document.environment,
        }
    }
}

impl From<&Credential> for CredentialDocument {
    fn from(credential: &Credential) -> Self {
        Self {
            user: credential.user.clone(),
            name: credential.name.clone(),
            created_at: moment(credential.created_ms),
        }
    }
}

impl From<Standing> for PoolDocument {
    fn from(standing: Standing) -> Self {
        let counts = standing.counts;
        Self {
            connections: standing.connections,
            idle: standing.idle,
            pinned: standing.pinned,
            waiting: standing.waiting,
            connected: counts.connected,
            failed: counts.failed,
            given: counts.given,
            waited: counts.waited,
            refused: counts.refused,
            abandoned: counts.abandoned,
            replication: None,
        }
    }
}
