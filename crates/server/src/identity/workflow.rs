//! Workflows of GitHub Actions, which say by a JWT of GitHub's in which repository they run.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use workers::Repository;

use super::claims::{self, ClaimOptions, Refused};
use super::deployer::{Deployer, RepositoryPattern};
use super::jws::Jws;
use super::jwt::{Jwt, JwtOptions, NotLet};
use super::keys::KeySource;
use super::refs::RefPattern;

/// The settings of [`JwtOptions`] in errors, and ours.
const SETTINGS: (&str, &str) = ("auth.jwt", "workers.oidc");

/// Which workflows may deploy (`workers.oidc`, `workers.repositories`).
#[derive(Debug, Clone)]
pub struct WorkflowOptions {
    /// `workers.oidc.issuer`: who issues their tokens.
    pub issuer: String,
    /// `workers.oidc.jwks`: where its keys are.
    pub keys: KeySource,
    /// `workers.oidc.audience`: for whom the tokens must be; one of these.
    pub audience: Vec<String>,
    /// `auth.provider_ca`.
    pub ca: Option<PathBuf>,
    /// `auth.provider_timeout_ms`.
    pub provider_timeout: Duration,
    /// `auth.jwt.refetch_ms_min`: the shortest time between two fetches of keys.
    pub refetch_min: Duration,
    /// `workers.repositories`: in which repositories they may run.
    pub repositories: Vec<RepositoryPattern>,
    /// `workers.production_refs`: on which branches and tags those run that have to do with production.
    pub production_refs: Vec<RefPattern>,
}

/// Knows workflows by their tokens.
#[derive(Debug)]
pub struct Workflow {
    jwt: Jwt,
    issuer: String,
    repositories: Vec<RepositoryPattern>,
    production_refs: Vec<RefPattern>,
}

impl Workflow {
    /// Checks the options, and reads files that they name. Blocks for the disk.
    ///
    /// # Errors
    /// What is wrong, with the setting's name.
    pub fn new(options: WorkflowOptions) -> Result<Self, String> {
        let jwt = Jwt::new(JwtOptions {
            issuer: options.issuer.clone(),
            keys: options.keys,
            ca: options.ca,
            audience: options.audience,
            algorithms: vec!["RS256".to_owned()],
            clock_skew: Duration::from_secs(60),
            cache_max: Duration::ZERO,
            cache_entries_max: 1,
            keys_max: Duration::from_secs(3_600),
            keys_stale_max: Duration::from_secs(3_600),
            refetch_min: options.refetch_min,
            provider_timeout: options.provider_timeout,
            claims: ClaimOptions::default(),
        });
        Ok(Self {
            jwt: jwt.map_err(|error| error.replace(SETTINGS.0, SETTINGS.1))?,
            issuer: options.issuer,
            repositories: options.repositories,
            production_refs: options.production_refs,
        })
    }

    /// Reads a file of keys again. Blocks for the disk.
    pub(crate) fn reload(&self) {
        self.jwt.reload();
    }

    /// Whether the keys are in a file.
    pub(crate) fn has_file(&self) -> bool {
        self.jwt.has_file()
    }

    /// Whether a token says that it is of this issuer. It may lie.
    pub(super) fn issues(&self, token: &str) -> bool {
        let claims = Jws::parse(token)
            .ok()
            .and_then(|jws| claims::parse(&jws.payload));
        let issuer = claims.as_ref().and_then(|claims| text(claims, "iss"));
        issuer == Some(&*self.issuer)
    }

    /// Who shows this token at this second since 1970.
    pub(super) async fn deployer(&self, token: &str, now: u64) -> Result<Deployer, NotLet> {
        let (claims, _) = self.jwt.claims(token, now).await?;
        let invalid = |why| NotLet::Refused(Refused::Invalid(why));
        let named = text(&claims, "repository").ok_or_else(|| {
            invalid("the token does not say in which repository its workflow runs")
        })?;
        let repository = Repository::parse(named)
            .map_err(|_| invalid("the token's repository is not in owner/repo form"))?;
        if !self
            .repositories
            .iter()
            .any(|pattern| pattern.covers(&repository))
        {
            return Err(invalid("workers.repositories does not name the repository"));
        }
        let only = RepositoryPattern::parse(&repository.to_string());
        let only = only.map_err(|_| invalid("the token's repository is not in owner/repo form"))?;
        let deployer = Deployer::of(&format!("a workflow of {repository}"), vec![only]);
        Ok(
            match not_production(&self.production_refs, text(&claims, "ref")) {
                Some(why) => deployer.not_in_production(&why),
                None => deployer,
            },
        )
    }
}

/// Why a workflow that runs on this branch or tag has nothing to do with production, if that is so.
fn not_production(production: &[RefPattern], name: Option<&str>) -> Option<String> {
    let is_one = |name| production.iter().any(|pattern| pattern.covers(name));
    if name.is_some_and(is_one) {
        return None;
    }
    let on = match name {
        Some(name) => format!("This workflow runs on '{}'", name.escape_debug()),
        None => "The token does not say on which branch its workflow runs".to_owned(),
    };
    let all: Vec<_> = production.iter().map(RefPattern::as_str).collect();
    let all = match all.is_empty() {
        true => "nothing".to_owned(),
        false => all.join(" and "),
    };
    Some(format!(
        "{on}, and production is for those that run on {all} (workers.production_refs)."
    ))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_is_for_some_branches() {
        let of = |patterns: &[&str], name| {
            let patterns = patterns.iter().map(|text| RefPattern::parse(text).unwrap());
            not_production(&patterns.collect::<Vec<_>>(), name)
        };
        let both = ["refs/heads/main", "refs/tags/*"];
        for good in ["refs/heads/main", "refs/tags/v1"] {
            assert_eq!(of(&both, Some(good)), None);
        }
        let why = of(&both, Some("refs/heads/x")).unwrap();
        assert!(
            why.contains("'refs/heads/x'") && why.contains("workers.production_refs"),
            "{why}"
        );
        assert!(of(&both, None).is_some() && of(&[], Some("refs/heads/main")).is_some());
    }
}
