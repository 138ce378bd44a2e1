//! Databases of applications, each with its own: how they are called, made, and taken away again if nothing comes of the
//! deployment that they were made for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use database::{DatabaseId, DatabaseName, Databases, Doer, Source};
use parking_lot::Mutex;
use pooler::Binding;
use sha2::{Digest as _, Sha256};
use wire::{PgError, sqlstate};
use workers::App;

use super::ManagedBindings;

/// Bytes of the readable part of an application's database; the rest is a dash and digits.
const READABLE_BYTES_MAX: usize = 40;

/// Which databases were made by whom, as long as nobody else has asked for them.
#[derive(Default)]
pub(super) struct OwnDatabases {
    of: Mutex<HashMap<DatabaseName, Arc<Place>>>,
    makings: AtomicU64,
}

/// One database. Whoever makes or unmakes it holds this.
type Place = tokio::sync::Mutex<Option<Made>>;

/// By which making a database was made, and which of those of its name it is.
struct Made {
    by: u64,
    id: DatabaseId,
}

/// One time that an application's database was asked for, by which it may have been made.
pub(super) struct Making {
    number: u64,
    who: String,
    /// What it has made.
    made: Mutex<Vec<DatabaseName>>,
}

impl OwnDatabases {
    /// Somebody is about to ask for an application's database.
    pub(super) fn making(&self, app: &App) -> Making {
        Making {
            number: self.makings.fetch_add(1, Ordering::Relaxed),
            who: format!("deployment of {app}"),
            made: Mutex::default(),
        }
    }

    /// Somebody who has not made a database uses it: it stays.
    pub(super) async fn uses(&self, name: &DatabaseName) {
        let place = self.of.lock().get(name).map(Arc::clone);
        if let Some(place) = place {
            *place.lock().await = None;
            self.left(name, place);
        }
    }

    fn place(&self, name: &DatabaseName) -> Arc<Place> {
        Arc::clone(self.of.lock().entry(name.clone()).or_default())
    }

    /// Who had a place needs it no longer.
    fn left(&self, name: &DatabaseName, place: Arc<Place>) {
        let mut of = self.of.lock();
        drop(place);
        // Nobody gets at one while the map is locked.
        let is_idle = |place: &mut Arc<Place>| {
            Arc::get_mut(place).is_some_and(|place| place.get_mut().is_none())
        };
        if of.get_mut(name).is_some_and(is_idle) {
            of.remove(name);
        }
    }
}

impl Making {
    fn databases(&self, all: &Databases) -> Databases {
        all.by(Doer {
            who: self.who.clone(),
            from: None,
        })
    }
}

impl ManagedBindings {
    /// The database of an application and its environment. Made if it is not there: the production environment's from the
    /// template, each other's as production's is at that moment.
    pub(super) async fn own_database(
        &self,
        binding: &Binding,
        template: Option<&str>,
        app: &App,
        making: &Making,
    ) -> Result<DatabaseName, PgError> {
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
        self.make(&production, source, making).await?;
        if app.environment.is_production() {
            return Ok(production);
        }
        let own = of(Some(app.environment.as_str()))?;
        self.make(&own, Source::Database(production), making)
            .await?;
        Ok(own)
    }

    /// Makes a database, if it is not there.
    async fn make(
        &self,
        name: &DatabaseName,
        source: Source,
        making: &Making,
    ) -> Result<(), PgError> {
        let place = self.own_databases.place(name);
        let made = {
            let mut made = place.lock().await;
            // One that is there is somebody else's too from now on.
            *made = None;
            if self.has_database(name) {
                Ok(())
            } else {
                match making.databases(&self.databases).create(name, source).await {
                    Err(error) if error.code() == sqlstate::DUPLICATE_DATABASE => Ok(()),
                    Err(error) => Err(error),
                    Ok(database) => {
                        *made = Some(Made {
                            by: making.number,
                            id: database.id,
                        });
                        making.made.lock().push(name.clone());
                        Ok(())
                    }
                }
            }
        };
        self.own_databases.left(name, place);
        made
    }

    /// Takes away what was made at that time and what nobody else has asked for since.
    pub(super) async fn unmake(&self, making: &Making) {
        let names = std::mem::take(&mut *making.made.lock());
        let databases = making.databases(&self.databases);
        for name in names {
            let place = self.own_databases.place(&name);
            {
                let mut made = place.lock().await;
                if let Some(own) = made.take_if(|made| made.by == making.number)
                    // One that a session uses stays.
                    && let Err(error) = databases.delete_only(&name, own.id).await
                {
                    let who = &making.who;
                    tracing::warn!(%name, who, %error, "the database of a deployment that failed stays");
                }
            }
            self.own_databases.left(&name, place);
        }
    }
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
