//! What deployments ask of bindings.

use std::fmt::Write as _;

use database::{DatabaseName, Doer, Source};
use pooler::{Binding, BindingTarget};
use sha2::{Digest as _, Sha256};
use wire::{PgError, sqlstate};
use workers::bindings::{Answer, not_allowed, unknown};
use workers::{App, BindingAddress, PostgresBinding, Refusal};

use super::ManagedBindings;

/// Bytes of the readable part of an application's database; the rest is a dash and digits.
const READABLE_BYTES_MAX: usize = 40;

impl workers::Bindings for ManagedBindings {
    fn address<'a>(
        &'a self,
        wanted: &'a PostgresBinding,
        app: &'a App,
    ) -> Answer<'a, Result<BindingAddress, Refusal>> {
        Box::pin(self.address_of(wanted, app))
    }

    fn bound(&self, app: &App, ids: &[String]) {
        // An application names a binding by its id or its name.
        let ids = ids
            .iter()
            .filter_map(|id| Some(self.bindings.get(id).ok()?.id.clone()))
            .collect();
        self.applications
            .bind(app, ids, |id, users| self.bindings.set_users(id, users));
    }

    fn undeployed(&self, app: &App) {
        self.bound(app, &[]);
        self.applications.forget(app);
    }
}

impl ManagedBindings {
    async fn address_of(
        &self,
        wanted: &PostgresBinding,
        app: &App,
    ) -> Result<BindingAddress, Refusal> {
        let binding = self.bindings.get(&wanted.id).map_err(|_| unknown(wanted))?;
        let repository = app.repository.to_string();
        if !binding.allows(&repository, app.environment.as_str()) {
            return Err(not_allowed(wanted, app));
        }
        let (database, own) = match &binding.target {
            BindingTarget::Origin(origin) => (origin.database.clone(), None),
            BindingTarget::Database(name) => {
                let there = DatabaseName::parse(name).is_ok_and(|name| self.has_database(&name));
                if !there {
                    return Err(Refusal::bad(format!(
                        "bindings.hyperdrive: {} leads to the database \"{name}\", which does not exist.",
                        wanted.binding
                    )));
                }
                (name.clone(), None)
            }
            BindingTarget::DatabasePerApp { template } => {
                let made = self.own_database(&binding, template.as_deref(), app).await;
                let name = made.map_err(|error| not_made(wanted, &error))?;
                (name.to_string(), Some(name))
            }
        };
        let (user, password) = self
            .applications
            .credential(app, &binding.id, own)
            .map_err(|error| Refusal::with_status(500, format!("no random bytes: {error}")))?;
        // Only a name for drivers to show: the credential alone says where it leads.
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let database = match database.bytes().all(is_safe) {
            true => database,
            false => "binding".to_owned(),
        };
        Ok(BindingAddress {
            socket: self.socket_path(),
            user,
            password: password.reveal().to_owned(),
            database,
            scheme: "postgresql".to_owned(),
        })
    }

    /// The database of an application and its environment. Made if it is not there: the production environment's from the
    /// template, each other's as production's is at that moment.
    async fn own_database(
        &self,
        binding: &Binding,
        template: Option<&str>,
        app: &App,
    ) -> Result<DatabaseName, PgError> {
        let databases = self.databases.by(Doer {
            who: format!("deployment of {app}"),
            from: None,
        });
        let source = match template {
            Some(name) => Source::Database(named(name)?),
            None => Source::Template,
        };
        let of = |environment: Option<&str>| {
            named(&application_database(
                &binding.id,
                &app.repository.to_string(),
                environment,
            ))
        };
        let production = of(None)?;
        let make = async |name: &DatabaseName, source| match databases.create(name, source).await {
            Err(error) if error.code() == sqlstate::DUPLICATE_DATABASE => Ok(()),
            made => made.map(drop),
        };
        if !self.has_database(&production) {
            make(&production, source).await?;
        }
        if app.environment.is_production() {
            return Ok(production);
        }
        let own = of(Some(app.environment.as_str()))?;
        if !self.has_database(&own) {
            make(&own, Source::Database(production)).await?;
        }
        Ok(own)
    }
}

fn not_made(wanted: &PostgresBinding, error: &PgError) -> Refusal {
    Refusal::with_status(
        500,
        format!(
            "bindings.hyperdrive: the database of {} cannot be made: {}",
            wanted.binding,
            error.message()
        ),
    )
}

fn named(name: &str) -> Result<DatabaseName, PgError> {
    DatabaseName::parse(name).map_err(|rule| {
        PgError::error(
            sqlstate::INVALID_NAME,
            format!("\"{name}\" cannot be the name of a database: {rule}"),
        )
    })
}

/// The name of an application's database: what can be read of the repository and the environment, a dash, and 16 digits that
/// no other binding, repository and environment has.
fn application_database(binding: &str, repository: &str, environment: Option<&str>) -> String {
    let readable = match environment {
        Some(environment) => format!("{repository}-{environment}"),
        None => repository.to_owned(),
    };
    let readable =
        readable
            .bytes()
            .take(READABLE_BYTES_MAX)
            .map(|byte| match byte.is_ascii_alphanumeric() {
                true => char::from(byte.to_ascii_lowercase()),
                false => '-',
            });
    let readable: String = readable.collect();
    let readable = readable.trim_matches('-');
    let mut hash = Sha256::new();
    for part in [binding, repository, environment.unwrap_or("")] {
        // The length tells where a part ends.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut name = format!("app-{readable}-");
    for byte in hash.iter().take(8) {
        // Writing to a text does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_databases() {
        let id = "0123456789abcdef0123456789abcdef";
        let name = |repository, environment| application_database(id, repository, environment);
        let production = name("acme/shop", None);
        assert!(production.starts_with("app-acme-shop-"), "{production}");
        let long = format!("acme/{}", "x.".repeat(50));
        let others = [
            name("acme-shop/a", None),
            name("acme/shop-a", None),
            name("acme/shop", Some("a")),
            name(&long, Some("preview")),
            name(&long, Some("preview2")),
            application_database(&id.replace('0', "1"), "acme/shop", None),
        ];
        let mut all = others.to_vec();
        all.push(production);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 7);
        for name in all {
            assert!(DatabaseName::parse(&name).is_ok(), "{name}");
        }
    }
}
