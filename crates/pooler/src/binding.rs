//! A binding: what `env.DB` of an application leads to.

use std::time::Duration;

use crate::credential::Credential;
use crate::options::PoolOptions;
use crate::origin::{Origin, Tls};

/// Bytes of a binding's name.
pub const NAME_BYTES_MAX: usize = 128;

/// Bytes of each of an origin's certificates, chains and keys in PEM: `pem_bytes_max`.
pub(crate) const PEM_BYTES_MAX: usize = 256 << 10;

/// Credentials that a binding may have.
pub const CREDENTIALS_MAX: usize = 100;

/// The longest time that an answer may come from the cache, in seconds, as Hyperdrive's.
pub const MAX_AGE_MAX: u32 = 3600;

/// Where a binding leads, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// 32 hexadecimal digits, never used again.
    pub id: String,
    /// For people; no other binding has it.
    pub name: String,
    /// Where it leads.
    pub target: BindingTarget,
    /// What its pool may use.
    pub limits: Limits,
    /// What may come from the cache.
    pub caching: Caching,
    /// Who may bind it; everybody if it is empty.
    pub allowed: Vec<Allowed>,
    /// With whom it is reached over PostgreSQL's protocol, deployments aside.
    pub credentials: Vec<Credential>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingTarget {
    /// An external Postgres, through a pool.
    Origin(Origin),
    /// A database of this program.
    Database(String),
    /// A database of this program for each application and environment, made when it is first bound.
    DatabasePerApp {
        /// What the production environment's begins as; the node's template if it is none.
        template: Option<String>,
    },
}

/// An application that may use a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// `owner/repository`, compared without regard to case.
    pub repository: String,
    /// One environment, or all of them.
    pub environment: Option<String>,
}

impl Allowed {
    fn is(&self, repository: &str, environment: &str) -> bool {
        let environment_is = self
            .environment
            .as_deref()
            .is_none_or(|own| own == environment);
        self.repository.eq_ignore_ascii_case(repository) && environment_is
    }
}

/// Limits of a binding, in the units that people write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections to the origin.
    pub connections_max: u32,
    /// Of them, those that sessions may keep between transactions.
    pub pinned_max: u32,
    /// Milliseconds in which a login must be done.
    pub connect_timeout_ms: u32,
    /// Milliseconds that a client waits for a connection.
    pub wait_ms_max: u32,
    /// Milliseconds after which a connection that nobody uses is closed.
    pub idle_ms: u32,
    /// Milliseconds that a statement may take; 0 for as long as it likes.
    pub statement_timeout_ms: u32,
}

impl Default for Limits {
    /// Hyperdrive's, where it tells them.
    fn default() -> Self {
        Self {
            connections_max: 20,
            pinned_max: 10,
            connect_timeout_ms: 15_000,
            wait_ms_max: 15_000,
            idle_ms: 600_000,
            statement_timeout_ms: 60_000,
        }
    }
}

/// What may come from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caching {
    /// Nothing may.
    pub is_disabled: bool,
    /// What makes an answer too old.
    pub mode: CachingMode,
    /// Seconds.
    pub max_age: u32,
    /// Seconds in which an older answer is given while it is asked anew.
    pub stale_while_revalidate: u32,
    /// Whether writes made elsewhere are heard of, by logical replication.
    pub replication: bool,
}

/// What makes an answer of the cache too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CachingMode {
    /// A write through the binding to what it was made of, and time.
    #[default]
    Fresh,
    /// Time alone, as with Hyperdrive.
    Ttl,
}

impl CachingMode {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Ttl => "ttl",
        }
    }

    /// By its name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Fresh, Self::Ttl]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

impl Default for Caching {
    fn default() -> Self {
        Self {
            is_disabled: false,
            mode: CachingMode::Fresh,
            max_age: 60,
            stale_while_revalidate: 15,
            replication: false,
        }
    }
}

/// A field of a binding that cannot be as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidField {
    /// By its name in the document.
    pub field: &'static str,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

fn invalid(field: &'static str, reason: impl Into<String>) -> InvalidField {
    let reason = reason.into();
    InvalidField { field, reason }
}

impl Binding {
    /// Whether it could work.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), InvalidField> {
        let name = self.name.trim();
        if name.is_empty() || name.len() != self.name.len() {
            return Err(invalid(
                "name",
                "must not be empty, nor begin or end with a space",
            ));
        }
        if name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            let reason =
                format!("must be at most {NAME_BYTES_MAX} bytes, without control characters");
            return Err(invalid("name", reason));
        }
        match &self.target {
            BindingTarget::Origin(origin) => {
                origin
                    .check()
                    .map_err(|error| invalid("origin", error.to_string()))?;
                check_pems(&origin.tls)?;
            }
            BindingTarget::Database(name) if name.is_empty() => {
                return Err(invalid("database", "must not be empty"));
            }
            BindingTarget::DatabasePerApp { template } if template.as_deref() == Some("") => {
                return Err(invalid("database.template", "must not be empty"));
            }
            BindingTarget::Database(_) | BindingTarget::DatabasePerApp { .. } => {}
        }
        if self.credentials.len() > CREDENTIALS_MAX {
            let reason = format!("must be at most {CREDENTIALS_MAX}: revoke one before");
            return Err(invalid("credentials", reason));
        }
        self.limits.check()?;
        self.caching.check()?;
        for allowed in &self.allowed {
            let parts = allowed.repository.split_once('/');
            let is_pair = parts.is_some_and(|(owner, repository)| {
                !owner.is_empty() && !repository.is_empty() && !repository.contains('/')
            });
            if !is_pair {
                return Err(invalid(
                    "allowed",
                    "must name repositories as owner/repository",
                ));
            }
            if allowed.environment.as_deref() == Some("") {
                return Err(invalid(
                    "allowed",
                    "must name an environment, or leave it out for all of them",
                ));
            }
        }
        Ok(())
    }

    /// Whether an application may bind it.
    pub fn allows(&self, repository: &str, environment: &str) -> bool {
        self.allowed.is_empty()
            || self
                .allowed
                .iter()
                .any(|allowed| allowed.is(repository, environment))
    }
}

/// Whether what an origin's TLS has in PEM is no longer than it may be.
fn check_pems(tls: &Tls) -> Result<(), InvalidField> {
    let identity = tls.identity.as_ref();
    let pems = [
        ("origin.sslrootcert", tls.authorities.as_deref()),
        ("origin.sslcert", identity.map(|own| &*own.chain)),
        ("origin.sslkey", identity.map(|own| own.key.reveal())),
    ];
    for (field, pem) in pems {
        let bytes = pem.map_or(0, str::len);
        if bytes > PEM_BYTES_MAX {
            let reason = format!(
                "has {bytes} bytes, and pem_bytes_max allows {PEM_BYTES_MAX}: give only what this origin needs"
            );
            return Err(invalid(field, reason));
        }
    }
    Ok(())
}

impl Limits {
    fn check(&self) -> Result<(), InvalidField> {
        let ranges = [
            ("connectionsMax", self.connections_max, 1, 10_000),
            ("pinnedMax", self.pinned_max, 0, 10_000),
            ("connectTimeoutMs", self.connect_timeout_ms, 100, 600_000),
            ("waitMsMax", self.wait_ms_max, 1, 3_600_000),
            ("idleMs", self.idle_ms, 1_000, 86_400_000),
            (
                "statementTimeoutMs",
                self.statement_timeout_ms,
                0,
                86_400_000,
            ),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let reason = format!("must be from {least} to {most}, and is {value}");
                return Err(invalid(field, reason));
            }
        }
        Ok(())
    }

    /// For a pool: what these do not tell is as all pools have it.
    pub fn pool_options(&self, all: &PoolOptions) -> PoolOptions {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        PoolOptions {
            connections_max: self.connections_max as usize,
            pinned_max: self.pinned_max as usize,
            connect_timeout: ms(self.connect_timeout_ms),
            wait_max: ms(self.wait_ms_max),
            idle: ms(self.idle_ms),
            statement_timeout: ms(self.statement_timeout_ms),
            ..all.clone()
        }
    }
}

impl Caching {
    /// Nothing comes from the cache.
    pub fn disabled() -> Self {
        Self {
            is_disabled: true,
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), InvalidField> {
        for (field, value) in [
            ("caching.maxAge", self.max_age),
            ("caching.staleWhileRevalidate", self.stale_while_revalidate),
        ] {
            if value > MAX_AGE_MAX {
                let reason = format!("must be at most {MAX_AGE_MAX} seconds, and is {value}");
                return Err(invalid(field, reason));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Identity, Secret};

    fn binding() -> Binding {
        Binding {
            id: "0".repeat(32),
            name: "shop".to_owned(),
            target: BindingTarget::Database("shop".to_owned()),
            limits: Limits::default(),
            caching: Caching::default(),
            allowed: Vec::new(),
            credentials: Vec::new(),
            created_ms: 0,
            modified_ms: 0,
        }
    }

    #[test]
    fn certificates_have_a_longest() {
        let long = |bytes: usize| "x".repeat(bytes);
        let field = |change: &dyn Fn(&mut Tls)| {
            let mut origin = Origin::of_url("postgres://a:b@c/d").unwrap();
            change(&mut origin.tls);
            let mut binding = binding();
            binding.target = BindingTarget::Origin(origin);
            binding.check().map_err(|error| error.field)
        };
        let identity = |chain: String, key: String| {
            let key = Secret::new(key);
            Some(Identity { chain, key })
        };
        let (most, more) = (long(PEM_BYTES_MAX), long(PEM_BYTES_MAX + 1));
        let with_root = |pem: &str| field(&|tls| tls.authorities = Some(pem.to_owned()));
        assert_eq!(with_root(&most), Ok(()));
        assert_eq!(with_root(&more), Err("origin.sslrootcert"));
        let with = |chain: &str, key: &str| {
            field(&|tls| tls.identity = identity(chain.to_owned(), key.to_owned()))
        };
        assert_eq!(with(&most, &most), Ok(()));
        assert_eq!(with(&more, &most), Err("origin.sslcert"));
        assert_eq!(with(&most, &more), Err("origin.sslkey"));
    }

    #[test]
    fn fields_have_ranges() {
        assert_eq!(binding().check(), Ok(()));
        let field = |change: fn(&mut Binding)| {
            let mut binding = binding();
            change(&mut binding);
            binding.check().unwrap_err().field
        };
        assert_eq!(field(|b| b.name.clear()), "name");
        assert_eq!(field(|b| b.name = " a".to_owned()), "name");
        assert_eq!(field(|b| b.limits.connections_max = 0), "connectionsMax");
        assert_eq!(field(|b| b.caching.max_age = 3601), "caching.maxAge");
        assert_eq!(
            field(|b| b.target = BindingTarget::Database(String::new())),
            "database"
        );
        let everything = || Allowed {
            repository: "a".to_owned(),
            environment: None,
        };
        let mut wrong = binding();
        wrong.allowed.push(everything());
        assert_eq!(wrong.check().unwrap_err().field, "allowed");
        wrong.allowed[0] = Allowed {
            repository: "a/b".to_owned(),
            environment: Some(String::new()),
        };
        assert_eq!(wrong.check().unwrap_err().field, "allowed");
    }

    #[test]
    fn who_may_bind_it() {
        let mut one = binding();
        assert!(one.allows("any/one", "production"));
        one.allowed.push(Allowed {
            repository: "Acme/shop".to_owned(),
            environment: Some("production".to_owned()),
        });
        assert!(one.allows("acme/Shop", "production"));
        assert!(!one.allows("acme/shop", "dev"));
        assert!(!one.allows("acme/other", "production"));
    }
}
