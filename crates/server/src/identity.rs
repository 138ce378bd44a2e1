//! Who makes a request over HTTP: from what it shows to a [`Caller`].
//!
//! [`Gatekeeper::admit`] reads the head of a request; [`Gatekeeper::confirm`] ends what needs the database's name, which is only known after
//! routing. What holds in every file:
//!
//! 1. No secret is in a log, an error, or a `Debug`, nor in anything that is kept: of tokens only hashes are. The one exception is a
//!    [`Pass`], in memory.
//! 2. Whatever cannot be decided is decided against whoever comes.
//! 3. What is remembered is bounded, and never longer than it is true.

mod claims;
mod deployer;
mod introspection;
mod jwk;
mod jws;
mod jwt;
mod keys;
mod pass;
mod passwords;
mod presented;
mod provider;
mod queue;
mod refs;
mod refusal;
mod token;
mod token_file;
mod tokens;
mod verdicts;
mod workflow;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use database::DatabaseName;

use crate::auth::{Administrator, Auth};
use crate::http::caller::{Caller, Identity, Reach, Scope};
use crate::http::error::ApiError;
use crate::http::sizes::OwnSizes;

pub use claims::{ClaimDatabase, ClaimOptions, subject_database};
pub use deployer::RepositoryPattern;
pub use introspection::{Introspection, IntrospectionOptions};
use jwt::NotLet;
pub use jwt::{Jwt, JwtOptions};
pub use keys::KeySource;
pub use refs::RefPattern;
pub use tokens::{CreatedToken, NewToken, TokenDocument, Tokens, TokensError};
pub use workflow::{Workflow, WorkflowOptions};

pub(crate) use deployer::{Deployer, NotDeployer};
pub(crate) use pass::{Checked, Pass, Stay};
pub(crate) use passwords::{Passwords, Wrong};
pub(crate) use presented::Password;

use pass::Rounds;
pub(crate) use passwords::ADMINISTRATOR;
use presented::{Presented, Unreadable};

/// Who is known, besides those with passwords (`auth`).
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// `auth.tokens_file`: static tokens.
    pub tokens: Option<Arc<Tokens>>,
    /// `auth.jwt`: signed tokens of an issuer.
    pub jwt: Option<Arc<Jwt>>,
    /// `auth.introspection`: opaque tokens of a provider.
    pub introspection: Option<Arc<Introspection>>,
    /// `workers.oidc`: workflows of GitHub Actions, which may deploy and nothing else.
    pub workflow: Option<Arc<Workflow>>,
    /// `auth.token_bytes_max`: the longest token that is looked at.
    pub token_bytes_max: usize,
    /// For passwords that come as they are.
    pub passwords: PasswordLimits,
}

/// What checking passwords may take that come as they are, over HTTP and in tunnels.
#[derive(Debug, Clone, Copy)]
pub struct PasswordLimits {
    /// `auth.scram_iterations_max`: the most rounds of a role's password that are done here.
    pub iterations_max: u32,
    /// `auth.password_queue_max`: passwords that wait for their turn to be hashed.
    pub queue_max: usize,
    /// `auth.password_wait_ms_max`: how long one waits.
    pub wait_max: Duration,
}

impl Default for PasswordLimits {
    fn default() -> Self {
        Self {
            iterations_max: 100_000,
            queue_max: 500,
            wait_max: Duration::from_millis(5_000),
        }
    }
}

/// Finds out who makes a request.
pub(crate) struct Gatekeeper {
    auth: Auth,
    options: IdentityOptions,
    passwords: Arc<Passwords>,
    rounds: Rounds,
}

/// What the head of a request says of who makes it.
pub(crate) enum Admitted {
    /// It is known who.
    Caller(Caller),
    /// Nothing was shown, though it is asked for: enough for what everybody may ask.
    Nobody,
    /// A role with its password, which its database must check.
    Role(Password),
}

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            tokens: None,
            jwt: None,
            introspection: None,
            workflow: None,
            token_bytes_max: 16_384,
            passwords: PasswordLimits::default(),
        }
    }
}

impl IdentityOptions {
    /// Whether any tokens are known.
    pub fn has_tokens(&self) -> bool {
        self.tokens.is_some() || self.jwt.is_some() || self.introspection.is_some()
    }
}

impl Gatekeeper {
    pub(crate) fn new(auth: Auth, options: IdentityOptions, passwords: Arc<Passwords>) -> Self {
        Self {
            auth,
            options,
            passwords,
            rounds: Rounds::default(),
        }
    }

    /// Whether anybody is asked who they are.
    pub(crate) fn asks(&self) -> bool {
        self.asks_for_passwords() || self.options.has_tokens()
    }

    fn asks_for_passwords(&self) -> bool {
        matches!(self.auth, Auth::Scram(_))
    }

    /// Reads what a request shows. Where nobody is asked, everybody is [`Caller::anyone`].
    ///
    /// # Errors
    /// 401 if what it shows is wrong, 403 if it allows nothing here, 503 if whoever could say does not answer.
    pub(crate) async fn admit(&self, head: &Parts) -> Result<Admitted, ApiError> {
        if !self.asks() {
            return Ok(Admitted::Caller(Caller::anyone()));
        }
        let presented = presented::read(&head.headers, self.options.token_bytes_max);
        let presented = presented.map_err(|Unreadable(why)| refused(why))?;
        self.judge(presented).await
    }

    /// The same for a user and a password that are not in the header `Authorization`, as those in the connection string of
    /// Neon's driver.
    ///
    /// # Errors
    /// As of [`admit`](Self::admit).
    pub(crate) async fn admit_password(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Admitted, ApiError> {
        if !self.asks() {
            // Everybody is who they say.
            let role = (user != ADMINISTRATOR).then(|| user.into());
            let anyone = Caller::anyone();
            return Ok(Admitted::Caller(Caller { role, ..anyone }));
        }
        let presented = presented::of_password(user, password);
        let presented = presented::checked(presented, self.options.token_bytes_max);
        let presented = presented.map_err(|Unreadable(why)| refused(why))?;
        self.judge(presented).await
    }

    /// Who it is, once it is known which database is meant, if any is.
    ///
    /// # Errors
    /// 401 if nothing was shown, or the password is wrong; 403 if the role may not log in.
    pub(crate) async fn confirm(
        &self,
        admitted: Admitted,
        database: Option<&DatabaseName>,
    ) -> Result<Caller, ApiError> {
        let password = match admitted {
            Admitted::Caller(caller) => return Ok(caller),
            Admitted::Nobody => return Err(refusal::nothing_shown(self.asks_for_passwords())),
            Admitted::Role(password) => password,
        };
        let Some(database) = database else {
            return Err(wrong(
                &password.user,
                Wrong::Refused("a role is one database's, and none is named".into()),
            ));
        };
        self.check(database.as_str(), &password).await?;
        Ok(Caller {
            name: format!("the role {} of {database}", password.user.escape_debug()).into(),
            identity: Identity::of("role", &[database.as_str(), &password.user]),
            // What a role may do its privileges say.
            scope: Scope::Write,
            reach: Reach::One(database.clone()),
            role: Some(password.user.into()),
            claims: None,
            sizes: OwnSizes::default(),
        })
    }

    async fn judge(&self, presented: Presented) -> Result<Admitted, ApiError> {
        match presented {
            Presented::Nothing => Ok(Admitted::Nobody),
            Presented::Bearer(token) => self.bearer(&token).await.map(Admitted::Caller),
            Presented::Password(password) => self.password(password).await,
        }
    }

    async fn bearer(&self, token: &str) -> Result<Caller, ApiError> {
        let Self { options, .. } = self;
        let is_jwt = token.split('.').count() == 3;
        let caller = match (&options.tokens, &options.jwt, &options.introspection) {
            (Some(tokens), ..) if token.starts_with(token::PREFIX) => {
                let caller = tokens.caller(token, SystemTime::now()).await;
                caller.map_err(NotLet::Refused)
            }
            (_, Some(jwt), _) if is_jwt => jwt.caller(token, now()).await,
            (.., Some(introspection)) => introspection.caller(token, now()).await,
            _ => return Err(refused("the token is of no kind that this server knows")),
        };
        caller.map_err(|not_let| {
            tracing::info!(reason = ?not_let, "a token was not accepted");
            not_let.into()
        })
    }

    fn administrator(&self) -> Result<&Administrator, ApiError> {
        match &self.auth {
            Auth::Scram(administrator) => Ok(administrator),
            Auth::Trust => Err(refused(
                "no passwords are known here: auth.method is not scram",
            )),
        }
    }

    async fn check(&self, database: &str, shown: &Password) -> Result<(), ApiError> {
        let (user, password) = (&*shown.user, &shown.password);
        let administrator = self.administrator()?;
        let checked = self
            .passwords
            .check(administrator, database, user, password);
        checked.await.map(drop).map_err(|why| wrong(user, why))
    }

    async fn password(&self, password: Password) -> Result<Admitted, ApiError> {
        self.administrator()?;
        if password.user != ADMINISTRATOR {
            return Ok(Admitted::Role(password));
        }
        // It is the same in every database.
        self.check("", &password).await?;
        Ok(Admitted::Caller(Caller {
            name: "the administrator".into(),
            identity: Identity::of("administrator", &[]),
            ..Caller::anyone()
        }))
    }
}

fn refused(why: &'static str) -> ApiError {
    tracing::info!(reason = why, "a request's credentials were not accepted");
    refusal::invalid(why)
}

fn wrong(user: &str, why: Wrong) -> ApiError {
    match why {
        Wrong::Refused(reason) => {
            tracing::info!(user, %reason, "password authentication failed over HTTP");
            refusal::wrong_password(user)
        }
        Wrong::Role(error) => ApiError::new(axum::http::StatusCode::FORBIDDEN, error),
        Wrong::Failed(error) => error.into(),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
