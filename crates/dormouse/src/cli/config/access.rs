//! Who comes in: passwords, tokens, and what is written down of it.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use server::{
    Administrator, Audit, Auth, ClaimDatabase, ClaimOptions, Cors, CorsOptions, IdentityOptions,
    Introspection, IntrospectionOptions, Jwt, JwtOptions, KeySource, RequestLimitOptions, Tokens,
};
use zeroize::Zeroizing;

use super::{Config, ms};
use crate::cli::failure::Failure;

/// Variables for secrets. They are no settings: those are printed.
const ADMIN_PASSWORD: &str = "DORMOUSE_ADMIN_PASSWORD";
const INTROSPECTION_SECRET: &str = "DORMOUSE_INTROSPECTION_SECRET";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthSection {
    method: Method,
    admin_password_file: Option<PathBuf>,
    pub(super) timeout_ms: u64,
    tokens_file: Option<PathBuf>,
    token_bytes_max: usize,
    scram_iterations_max: u32,
    password_queue_max: usize,
    password_wait_ms_max: u64,
    cache_ms_max: u64,
    cache_entries_max: usize,
    provider_ca: Option<PathBuf>,
    provider_timeout_ms: u64,
    jwt: JwtSection,
    introspection: IntrospectionSection,
    claims: ClaimsSection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Trust,
    Scram,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtSection {
    issuer: Option<String>,
    jwks: Option<String>,
    secret_file: Option<PathBuf>,
    audience: Vec<String>,
    algorithms: Vec<String>,
    clock_skew_ms: u64,
    keys_ms_max: u64,
    keys_stale_ms_max: u64,
    refetch_ms_min: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntrospectionSection {
    url: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    audience: Vec<String>,
    concurrency_max: usize,
    queue_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimsSection {
    scope: Option<String>,
    read: Vec<String>,
    write: Vec<String>,
    admin: Vec<String>,
    role: Option<String>,
    roles: Vec<String>,
    database: DatabaseOf,
    database_claim: Option<String>,
    database_prefix: String,
    required: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DatabaseOf {
    Subject,
    Claim,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CorsSection {
    origins: Vec<String>,
    headers: Vec<String>,
    credentials: bool,
    max_age_s: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsSection {
    token_requests_per_second: u32,
    database_requests_per_second: u32,
    requests_burst: u32,
    token_concurrency_max: u32,
    database_concurrency_max: u32,
    token_body_bytes_max: usize,
    token_result_bytes_max: usize,
    database_body_bytes_max: usize,
    database_result_bytes_max: usize,
    entries_max: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsSection {
    pub(super) open: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditSection {
    file: Option<PathBuf>,
}

/// How providers of identities are asked.
pub(super) struct Asking {
    pub(super) ca: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) refetch_min: Duration,
}

impl AuthSection {
    pub(super) fn provider(&self) -> Asking {
        Asking {
            ca: self.provider_ca.clone(),
            timeout: Duration::from_millis(self.provider_timeout_ms),
            refetch_min: Duration::from_millis(self.jwt.refetch_ms_min),
        }
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

impl Default for AuthSection {
    fn default() -> Self {
        let claims = ClaimOptions::default();
        let passwords = server::PasswordLimits::default();
        Self {
            method: Method::Trust,
            admin_password_file: None,
            timeout_ms: ms(server::PgwireOptions::default().auth_timeout),
            tokens_file: None,
            token_bytes_max: IdentityOptions::default().token_bytes_max,
            scram_iterations_max: passwords.iterations_max,
            password_queue_max: passwords.queue_max,
            password_wait_ms_max: ms(passwords.wait_max),
            cache_ms_max: 60_000,
            cache_entries_max: 10_000,
            provider_ca: None,
            provider_timeout_ms: 5_000,
            jwt: JwtSection {
                issuer: None,
                jwks: None,
                secret_file: None,
                audience: Vec::new(),
                algorithms: texts(&["RS256", "PS256", "ES256", "EdDSA"]),
                clock_skew_ms: 60_000,
                keys_ms_max: 3_600_000,
                keys_stale_ms_max: 3_600_000,
                refetch_ms_min: 10_000,
            },
            introspection: IntrospectionSection {
                url: None,
                client_id: None,
                client_secret_file: None,
                audience: Vec::new(),
                concurrency_max: 32,
                queue_max: 1_000,
            },
            claims: ClaimsSection {
                scope: None,
                read: claims.read,
                write: claims.write,
                admin: claims.admin,
                role: None,
                roles: Vec::new(),
                database: DatabaseOf::Subject,
                database_claim: None,
                database_prefix: "user-".to_owned(),
                required: Vec::new(),
            },
        }
    }
}

impl Default for CorsSection {
    fn default() -> Self {
        let options = CorsOptions::default();
        Self {
            origins: options.origins,
            headers: options.headers,
            credentials: options.credentials,
            max_age_s: options.max_age.as_secs(),
        }
    }
}

impl CorsSection {
    /// `routed_by` is the header that names a database, if one does.
    pub(super) fn options(&self, routed_by: Option<&str>) -> Result<Option<Cors>, Failure> {
        let routed_by = routed_by.map(str::to_owned);
        Cors::new(&CorsOptions {
            origins: self.origins.clone(),
            headers: self.headers.iter().cloned().chain(routed_by).collect(),
            credentials: self.credentials,
            max_age: Duration::from_secs(self.max_age_s),
        })
        .map_err(Failure::Usage)
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        let options = RequestLimitOptions::default();
        Self {
            token_requests_per_second: options.token_requests_per_second,
            database_requests_per_second: options.database_requests_per_second,
            requests_burst: options.requests_burst,
            token_concurrency_max: options.token_concurrency_max,
            database_concurrency_max: options.database_concurrency_max,
            token_body_bytes_max: options.token_body_bytes_max,
            token_result_bytes_max: options.token_result_bytes_max,
            database_body_bytes_max: options.database_body_bytes_max,
            database_result_bytes_max: options.database_result_bytes_max,
            entries_max: options.entries_max,
        }
    }
}

impl Config {
    pub(super) fn auth(&self) -> Result<Auth, Failure> {
        if self.auth.method == Method::Trust {
            return Ok(Auth::Trust);
        }
        let given = env::var(ADMIN_PASSWORD).ok().map(Zeroizing::new);
        let administrator = match (given, &self.auth.admin_password_file) {
            (Some(secret), _) => Administrator::from_secret(&secret),
            (None, Some(path)) => Administrator::from_file(path),
            (None, None) => {
                return Err(Failure::Usage(format!(
                    "auth.method = \"scram\" needs the administrator's password: \
                     auth.admin_password_file, or the variable {ADMIN_PASSWORD}; `dormouse password` \
                     makes what belongs there"
                )));
            }
        };
        let administrator = administrator.map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Auth::Scram(Arc::new(administrator)))
    }

    /// Reads the files of tokens and keys.
    pub(super) fn identity(&self) -> Result<IdentityOptions, Failure> {
        let tokens = self.auth.tokens_file.as_deref().map(Tokens::open);
        let tokens = tokens
            .transpose()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(IdentityOptions {
            tokens: tokens.map(Arc::new),
            jwt: self.jwt()?.map(Arc::new),
            introspection: self.introspection()?.map(Arc::new),
            workflow: self.workflow()?,
            token_bytes_max: self.auth.token_bytes_max,
            passwords: server::PasswordLimits {
                iterations_max: self.auth.scram_iterations_max,
                queue_max: self.auth.password_queue_max,
                wait_max: Duration::from_millis(self.auth.password_wait_ms_max),
            },
        })
    }

    /// The file of static tokens.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn tokens(&self) -> Result<Tokens, Failure> {
        let Some(path) = &self.auth.tokens_file else {
            return Err(Failure::Usage(
                "auth.tokens_file is not set: set it in the configuration file, as the server has it, or \
                 DORMOUSE_AUTH__TOKENS_FILE; or name a server with --server"
                    .to_owned(),
            ));
        };
        Tokens::open(path).map_err(|error| Failure::unavailable(error.to_string()))
    }

    /// The issuer of tokens, and the beginning of the names of their subjects' databases.
    pub(crate) fn subjects(&self) -> (Option<&str>, &str) {
        let issuer = self.auth.jwt.issuer.as_deref();
        let issuer = issuer.or(self.auth.introspection.url.as_deref());
        (issuer, &self.auth.claims.database_prefix)
    }

    fn jwt(&self) -> Result<Option<Jwt>, Failure> {
        let section = &self.auth.jwt;
        let Some(issuer) = &section.issuer else {
            if section.jwks.is_some() || section.secret_file.is_some() {
                return Err(Failure::Usage(
                    "auth.jwt.jwks and auth.jwt.secret_file need auth.jwt.issuer".to_owned(),
                ));
            }
            return Ok(None);
        };
        let keys = match (&section.jwks, &section.secret_file) {
            (None, None) => KeySource::Discovery,
            (Some(jwks), None) if jwks.contains("://") => KeySource::Url(jwks.clone()),
            (Some(jwks), None) => KeySource::File(jwks.into()),
            (None, Some(path)) => KeySource::Secret(path.clone()),
            (Some(_), Some(_)) => {
                return Err(Failure::Usage(
                    "auth.jwt.jwks and auth.jwt.secret_file cannot both be set".to_owned(),
                ));
            }
        };
        let options = JwtOptions {
            issuer: issuer.clone(),
            keys,
            ca: self.auth.provider_ca.clone(),
            audience: section.audience.clone(),
            algorithms: section.algorithms.clone(),
            clock_skew: Duration::from_millis(section.clock_skew_ms),
            cache_max: Duration::from_millis(self.auth.cache_ms_max),
            cache_entries_max: self.auth.cache_entries_max,
            keys_max: Duration::from_millis(section.keys_ms_max),
            keys_stale_max: Duration::from_millis(section.keys_stale_ms_max),
            refetch_min: Duration::from_millis(section.refetch_ms_min),
            provider_timeout: Duration::from_millis(self.auth.provider_timeout_ms),
            claims: self.claims()?,
        };
        Jwt::new(options).map(Some).map_err(Failure::Usage)
    }

    fn introspection(&self) -> Result<Option<Introspection>, Failure> {
        let section = &self.auth.introspection;
        let Some(url) = &section.url else {
            return Ok(None);
        };
        let options = IntrospectionOptions {
            url: url.clone(),
            client_id: section.client_id.clone(),
            client_secret_file: section.client_secret_file.clone(),
            client_secret: env::var(INTROSPECTION_SECRET).ok().map(Zeroizing::new),
            audience: section.audience.clone(),
            concurrency_max: section.concurrency_max,
            queue_max: section.queue_max,
            ca: self.auth.provider_ca.clone(),
            timeout: Duration::from_millis(self.auth.provider_timeout_ms),
            cache_max: Duration::from_millis(self.auth.cache_ms_max),
            cache_entries_max: self.auth.cache_entries_max,
            claims: self.claims()?,
        };
        Introspection::new(options)
            .map(Some)
            .map_err(Failure::Usage)
    }

    fn claims(&self) -> Result<ClaimOptions, Failure> {
        let section = &self.auth.claims;
        let database = match (section.database, &section.database_claim) {
            (DatabaseOf::Subject, None) => ClaimDatabase::Subject {
                prefix: section.database_prefix.clone(),
            },
            (DatabaseOf::Claim, Some(claim)) => ClaimDatabase::Claim(claim.clone()),
            (DatabaseOf::All, None) => ClaimDatabase::All,
            _ => {
                return Err(Failure::Usage(
                    "auth.claims.database = \"claim\" and auth.claims.database_claim go together"
                        .to_owned(),
                ));
            }
        };
        Ok(ClaimOptions {
            scope: section.scope.clone(),
            read: section.read.clone(),
            write: section.write.clone(),
            admin: section.admin.clone(),
            role: section.role.clone(),
            roles: section.roles.clone(),
            database,
            required: section.required.clone(),
        })
    }

    pub(super) fn request_limits(&self) -> RequestLimitOptions {
        let section = &self.limits;
        RequestLimitOptions {
            token_requests_per_second: section.token_requests_per_second,
            database_requests_per_second: section.database_requests_per_second,
            requests_burst: section.requests_burst,
            token_concurrency_max: section.token_concurrency_max,
            database_concurrency_max: section.database_concurrency_max,
            token_body_bytes_max: section.token_body_bytes_max,
            token_result_bytes_max: section.token_result_bytes_max,
            database_body_bytes_max: section.database_body_bytes_max,
            database_result_bytes_max: section.database_result_bytes_max,
            entries_max: section.entries_max,
        }
    }

    pub(super) fn audit(&self) -> Result<Arc<Audit>, Failure> {
        let Some(path) = &self.audit.file else {
            return Ok(Arc::default());
        };
        let audit = Audit::open(path).map_err(|error| {
            Failure::unavailable(format!("audit.file = \"{}\": {error}", path.display()))
        })?;
        Ok(Arc::new(audit))
    }
}
