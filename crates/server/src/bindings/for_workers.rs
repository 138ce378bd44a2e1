//! What deployments ask of bindings.

use database::DatabaseName;
use pooler::{Binding, BindingTarget, Reservation};
use wire::PgError;
use workers::bindings::{Answer, Grant, Purpose, not_allowed, unknown};
use workers::{App, BindingAddress, PostgresBinding, Refusal};

use super::ManagedBindings;
use super::applications::Granted;
use super::own_database::Making;

/// What an address holds: it ends with the last who has the address.
struct Held {
    _credential: Granted,
    _binding: Reservation,
    /// By which its databases were made, if they were.
    making: Option<Making>,
}

impl workers::Bindings for ManagedBindings {
    fn id_of(&self, wanted: &PostgresBinding) -> Result<String, Refusal> {
        let binding = self.bindings.get(&wanted.id);
        let binding = binding.map_err(|_| unknown(wanted))?;
        Ok(binding.id.clone())
    }

    fn address<'a>(
        &'a self,
        wanted: &'a PostgresBinding,
        app: &'a App,
        purpose: Purpose,
    ) -> Answer<'a, Result<BindingAddress, Refusal>> {
        Box::pin(self.address_of(wanted, app, purpose))
    }

    fn abandoned<'a>(&'a self, addresses: Vec<BindingAddress>) -> Answer<'a, ()> {
        Box::pin(async move {
            for address in &addresses {
                let held = address.grant.held::<Held>();
                if let Some(making) = held.and_then(|held| held.making.as_ref()) {
                    self.unmake(making).await;
                }
            }
        })
    }

    fn bound(&self, app: &App, ids: &[String]) {
        let bound = |id: &String| {
            let binding = self.bindings.get(id).ok()?;
            // A version of before may be kept by a name that means by now what the application never gets.
            let is_bound = binding.id == *id || is_allowed(&binding, app);
            is_bound.then(|| binding.id.clone())
        };
        let ids = ids.iter().filter_map(bound).collect();
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
        purpose: Purpose,
    ) -> Result<BindingAddress, Refusal> {
        let reserved = self.bindings.reserve(&wanted.id, app.to_string());
        let (binding, reserved) = reserved.map_err(|_| unknown(wanted))?;
        // What a name means may have changed since it was asked.
        let is_by_name = binding.id != wanted.id;
        let is_asked = purpose == Purpose::Deployment || is_by_name;
        if is_asked && !is_allowed(&binding, app) {
            return Err(not_allowed(wanted, app));
        }
        let mut making = None;
        let (database, own) = match &binding.target {
            BindingTarget::Origin(origin) => (origin.database.clone(), None),
            BindingTarget::Database(name) => {
                let parsed = DatabaseName::parse(name).ok();
                if let Some(name) = &parsed {
                    self.own_databases.uses(name).await;
                }
                if !parsed.is_some_and(|name| self.has_database(&name)) {
                    return Err(Refusal::bad(format!(
                        "bindings.hyperdrive: {} leads to the database \"{name}\", which does not exist.",
                        wanted.binding
                    )));
                }
                (name.clone(), None)
            }
            BindingTarget::DatabasePerApp { template } => {
                let now = making.insert(self.own_databases.making(app));
                let template = template.as_deref();
                let made = self.own_database(&binding, template, app, now).await;
                if made.is_err() {
                    self.unmake(now).await;
                }
                let name = made.map_err(|error| not_made(wanted, &error))?;
                (name.to_string(), Some(name))
            }
        };
        let credential = self
            .applications
            .grant(app, &binding.id, own)
            .map_err(|error| Refusal::with_status(500, format!("no random bytes: {error}")))?;
        // Only a name for drivers to show: the credential alone says where it leads.
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let database = match database.bytes().all(is_safe) {
            true => database,
            false => "binding".to_owned(),
        };
        Ok(BindingAddress {
            socket: self.socket_path(),
            user: credential.user.clone(),
            password: credential.password.reveal().to_owned(),
            database,
            scheme: "postgresql".to_owned(),
            grant: Grant::new(Held {
                _credential: credential,
                _binding: reserved,
                making,
            }),
        })
    }
}

fn is_allowed(binding: &Binding, app: &App) -> bool {
    binding.allows(&app.repository.to_string(), app.environment.as_str())
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
