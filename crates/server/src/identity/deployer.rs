//! Who may deploy what: asked by the endpoints of deployments alone, in their own words.
//!
//! May: a token of the scope `deploy`, for its repositories; an `admin` of the node; a workflow of GitHub Actions, for the
//! repository that it runs in, if that is one of `workers.repositories`, and in production if it runs on one of
//! `workers.production_refs`. Where nobody is asked: everybody.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::request::Parts;
use workers::{Environment, Repository};

use super::claims::Refused;
use super::presented::{self, Presented, Unreadable};
use super::{Admitted, Gatekeeper, Workflow, jwt::NotLet, now, token};
use crate::http::caller::{Caller, Reach, Scope};

/// Repositories: `owner/repo`, or `owner/*` for all of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern {
    owner: String,
    /// None for all.
    name: Option<String>,
}

/// Who deploys.
#[derive(Debug, Clone)]
pub(crate) struct Deployer {
    /// For people: the token's name, or the workflow's repository.
    pub(crate) name: Arc<str>,
    /// For which repositories; none for all.
    only: Option<Vec<RepositoryPattern>>,
    /// Why what is in production is not for it, if that is so.
    not_production: Option<Arc<str>>,
}

/// Why nobody deploys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotDeployer {
    /// Nothing was shown.
    Missing,
    /// What was shown is wrong, or not enough: why, without what it was.
    Refused(&'static str),
    /// Whoever could say does not answer.
    Unavailable(&'static str),
}

impl RepositoryPattern {
    /// Reads `owner/repo` or `owner/*`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // In place of the star any name will do.
        let checked = match text.strip_suffix("/*") {
            Some(owner) => Repository::parse(&format!("{owner}/x")),
            None => Repository::parse(text),
        };
        let repository = checked
            .map_err(|_| format!("\"{text}\" is neither OWNER/REPOSITORY nor OWNER/* of GitHub"))?;
        Ok(Self {
            owner: repository.owner().to_owned(),
            name: (!text.ends_with("/*")).then(|| repository.name().to_owned()),
        })
    }

    /// Whether a repository is one of these.
    pub fn covers(&self, repository: &Repository) -> bool {
        let is_name = |name: &String| name == repository.name();
        self.owner == repository.owner() && self.name.as_ref().is_none_or(is_name)
    }
}

impl Deployer {
    pub(super) fn of_all(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            only: None,
            not_production: None,
        }
    }

    pub(super) fn of(name: &str, only: Vec<RepositoryPattern>) -> Self {
        Self {
            name: name.into(),
            only: Some(only),
            not_production: None,
        }
    }

    /// The same, which has nothing to do with production; why.
    pub(super) fn not_in_production(mut self, why: &str) -> Self {
        self.not_production = Some(why.into());
        self
    }

    /// Whether it may have to do with this environment of its repositories.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_in(&self, environment: &Environment) -> Result<(), &str> {
        match &self.not_production {
            Some(why) if environment.is_production() => Err(why),
            _ => Ok(()),
        }
    }

    /// Whether it may deploy this repository, and see what is deployed of it.
    pub(crate) fn may(&self, repository: &Repository) -> bool {
        match &self.only {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| pattern.covers(repository)),
        }
    }
}

impl Gatekeeper {
    /// Who deploys.
    ///
    /// # Errors
    /// Why nobody does.
    pub(crate) async fn deployer(&self, head: &Parts) -> Result<Deployer, NotDeployer> {
        let workflow = self.options.workflow.as_deref();
        if !self.asks() && workflow.is_none() {
            return Ok(Deployer::of_all(&Caller::anyone().name));
        }
        let presented = presented::read(&head.headers, self.options.token_bytes_max);
        match presented.map_err(|Unreadable(why)| NotDeployer::Refused(why))? {
            Presented::Nothing => Err(NotDeployer::Missing),
            Presented::Bearer(token) => self.deployer_of(&token, workflow).await,
            Presented::Password(password) => match self.password(password).await {
                Ok(Admitted::Caller(caller)) => of_caller(&caller),
                Ok(Admitted::Nobody | Admitted::Role(_)) => Err(NotDeployer::Refused(NOT_ENOUGH)),
                Err(_) => Err(NotDeployer::Refused("the password is wrong")),
            },
        }
    }

    async fn deployer_of(
        &self,
        token: &str,
        workflow: Option<&Workflow>,
    ) -> Result<Deployer, NotDeployer> {
        if token.starts_with(token::PREFIX)
            && let Some(tokens) = &self.options.tokens
        {
            let known = tokens.known(token, SystemTime::now()).await;
            let known = known.map_err(NotDeployer::Refused)?;
            return match known.deployer() {
                Some(deployer) => Ok(deployer),
                None => of_caller(&known.caller().ok_or(NotDeployer::Refused(DAMAGED))?),
            };
        }
        if let Some(workflow) = workflow
            && workflow.issues(token)
        {
            return workflow.deployer(token, now()).await.map_err(said);
        }
        match self.bearer(token).await {
            Ok(caller) => of_caller(&caller),
            Err(error) if error.status().is_server_error() => Err(NotDeployer::Unavailable(
                "who could say whose token it is does not answer",
            )),
            Err(_) => Err(NotDeployer::Refused(
                "the token is of no kind that may deploy here",
            )),
        }
    }
}

const NOT_ENOUGH: &str = "it has neither the scope deploy nor, for all databases, the scope admin";
const DAMAGED: &str = "the token's record in auth.tokens_file is damaged";

/// An administrator of the node may deploy everything.
fn of_caller(caller: &Caller) -> Result<Deployer, NotDeployer> {
    let is_node =
        caller.scope == Scope::Admin && caller.reach == Reach::All && caller.role.is_none();
    match is_node {
        true => Ok(Deployer::of_all(&caller.name)),
        false => Err(NotDeployer::Refused(NOT_ENOUGH)),
    }
}

fn said(not_let: NotLet) -> NotDeployer {
    match not_let {
        NotLet::Unavailable(why) => NotDeployer::Unavailable(why),
        NotLet::Refused(Refused::Invalid(why) | Refused::Insufficient(why)) => {
            NotDeployer::Refused(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_repositories() {
        let covers = |pattern: &str, repository: &str| {
            let repository = Repository::parse(repository).unwrap();
            RepositoryPattern::parse(pattern)
                .unwrap()
                .covers(&repository)
        };
        assert!(covers("Acme/*", "acme/shop") && covers(" acme/Shop ", "ACME/shop"));
        assert!(!covers("acme/*", "acmex/shop") && !covers("acme/shop", "acme/shop2"));
        for bad in [
            "", "*", "*/*", "acme", "acme/", "/*", "acme/**", "a/b/*", "acme/sh*",
        ] {
            assert!(RepositoryPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
