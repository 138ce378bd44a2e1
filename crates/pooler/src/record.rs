//! Bindings as they are kept in a file.

use serde::{Deserialize, Serialize};

use crate::binding::{Allowed, Binding, BindingTarget, Caching, CachingMode, Limits};
use crate::credential::Credential;
use crate::origin::{ChannelBinding, Host, Identity, Origin, Secret, Target, Tls, TlsMode};

/// What is kept of a binding, its secrets in clear: the file that it is in is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    origin: Option<OriginRecord>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    per_app: Option<PerAppRecord>,
    limits: [u32; 6],
    caching: (bool, u32, u32),
    #[serde(skip_serializing_if = "Option::is_none", default)]
    caching_mode: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    caching_replication: bool,
    allowed: Vec<(String, Option<String>)>,
    #[serde(default)]
    credentials: Vec<CredentialRecord>,
    created_ms: u64,
    modified_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PerAppRecord {
    template: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CredentialRecord {
    user: String,
    name: String,
    verifier: String,
    created_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OriginRecord {
    hosts: Vec<HostRecord>,
    database: String,
    user: String,
    password: String,
    sslmode: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    authorities: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    chain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    channel_binding: Option<String>,
    writes: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum HostRecord {
    Tcp(String, u16),
    Unix(String, u16),
}

impl From<&Binding> for Record {
    fn from(binding: &Binding) -> Self {
        let (mut origin, mut database, mut per_app) = (None, None, None);
        match &binding.target {
            BindingTarget::Origin(target) => origin = Some(target.into()),
            BindingTarget::Database(name) => database = Some(name.clone()),
            BindingTarget::DatabasePerApp { template } => {
                let template = template.clone();
                per_app = Some(PerAppRecord { template });
            }
        }
        let limits = &binding.limits;
        Self {
            id: binding.id.clone(),
            name: binding.name.clone(),
            origin,
            database,
            per_app,
            limits: [
                limits.connections_max,
                limits.pinned_max,
                limits.connect_timeout_ms,
                limits.wait_ms_max,
                limits.idle_ms,
                limits.statement_timeout_ms,
            ],
            caching: (
                binding.caching.is_disabled,
                binding.caching.max_age,
                binding.caching.stale_while_revalidate,
            ),
            caching_mode: match binding.caching.mode {
                CachingMode::Fresh => None,
                mode => Some(mode.name().to_owned()),
            },
            caching_replication: binding.caching.replication,
            allowed: binding
                .allowed
                .iter()
                .map(|allowed| (allowed.repository.clone(), allowed.environment.clone()))
                .collect(),
            credentials: binding
                .credentials
                .iter()
                .map(CredentialRecord::from)
                .collect(),
            created_ms: binding.created_ms,
            modified_ms: binding.modified_ms,
        }
    }
}

impl Record {
    /// The binding; nothing if a record of this form has none.
    pub(crate) fn into_binding(self) -> Option<Binding> {
        let target = match (self.origin, self.database, self.per_app) {
            (Some(origin), None, None) => BindingTarget::Origin(origin.into_origin()?),
            (None, Some(name), None) => BindingTarget::Database(name),
            (None, None, Some(PerAppRecord { template })) => {
                BindingTarget::DatabasePerApp { template }
            }
            _ => return None,
        };
        let [
            connections_max,
            pinned_max,
            connect_timeout_ms,
            wait_ms_max,
            idle_ms,
            statement_timeout_ms,
        ] = self.limits;
        let (is_disabled, max_age, stale_while_revalidate) = self.caching;
        let mode = match &self.caching_mode {
            Some(name) => CachingMode::of_name(name)?,
            None => CachingMode::Fresh,
        };
        Some(Binding {
            id: self.id,
            name: self.name,
            target,
            limits: Limits {
                connections_max,
                pinned_max,
                connect_timeout_ms,
                wait_ms_max,
                idle_ms,
                statement_timeout_ms,
            },
            caching: Caching {
                is_disabled,
                mode,
                max_age,
                stale_while_revalidate,
                replication: self.caching_replication,
            },
            allowed: self
                .allowed
                .into_iter()
                .map(|(repository, environment)| Allowed {
                    repository,
                    environment,
                })
                .collect(),
            credentials: self.credentials.into_iter().map(Credential::from).collect(),
            created_ms: self.created_ms,
            modified_ms: self.modified_ms,
        })
    }
}

impl From<&Credential> for CredentialRecord {
    fn from(credential: &Credential) -> Self {
        let Credential {
            user,
            name,
            verifier,
            created_ms,
        } = credential.clone();
        Self {
            user,
            name,
            verifier,
            created_ms,
        }
    }
}

impl From<CredentialRecord> for Credential {
    fn from(record: CredentialRecord) -> Self {
        Self {
            user: record.user,
            name: record.name,
            verifier: record.verifier,
            created_ms: record.created_ms,
        }
    }
}

impl From<&Origin> for OriginRecord {
    fn from(origin: &Origin) -> Self {
        let identity = origin.tls.identity.as_ref();
        Self {
            hosts: origin.hosts.iter().map(HostRecord::from).collect(),
            database: origin.database.clone(),
            user: origin.user.clone(),
            password: origin.password.reveal().to_owned(),
            sslmode: origin.tls.mode.name().to_owned(),
            authorities: origin.tls.authorities.clone(),
            chain: identity.map(|identity| identity.chain.clone()),
            key: identity.map(|identity| identity.key.reveal().to_owned()),
            channel_binding: match origin.tls.channel_binding {
                ChannelBinding::Prefer => None,
                other => Some(other.name().to_owned()),
            },
            writes: origin.target == Target::ReadWrite,
        }
    }
}

impl OriginRecord {
    fn into_origin(self) -> Option<Origin> {
        let identity = match (self.chain, self.key) {
            (Some(chain), Some(key)) => Some(Identity {
                chain,
                key: Secret::new(key),
            }),
            (None, None) => None,
            _ => return None,
        };
        Some(Origin {
            hosts: self.hosts.into_iter().map(Host::from).collect(),
            database: self.database,
            user: self.user,
            password: Secret::new(self.password),
            tls: Tls {
                mode: TlsMode::of_name(&self.sslmode)?,
                authorities: self.authorities,
                identity,
                channel_binding: match &self.channel_binding {
                    Some(name) => ChannelBinding::of_name(name)?,
                    None => ChannelBinding::Prefer,
                },
            },
            target: match self.writes {
                true => Target::ReadWrite,
                false => Target::Any,
            },
        })
    }
}

impl From<&Host> for HostRecord {
    fn from(host: &Host) -> Self {
        match host {
            Host::Tcp(name, port) => Self::Tcp(name.clone(), *port),
            Host::Unix(folder, port) => Self::Unix(folder.to_string_lossy().into_owned(), *port),
        }
    }
}

impl From<HostRecord> for Host {
    fn from(host: HostRecord) -> Self {
        match host {
            HostRecord::Tcp(name, port) => Self::Tcp(name, port),
            HostRecord::Unix(folder, port) => Self::Unix(folder.into(), port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_is_bound_to_is_kept() {
        for binding in ChannelBinding::ALL {
            let url = format!(
                "postgres://a:b@far.example/c?channel_binding={}",
                binding.name()
            );
            let origin = Origin::of_url(&url).unwrap();
            let kept = serde_json::to_string(&OriginRecord::from(&origin)).unwrap();
            let record: OriginRecord = serde_json::from_str(&kept).unwrap();
            assert_eq!(record.into_origin().unwrap(), origin);
        }
    }
}
