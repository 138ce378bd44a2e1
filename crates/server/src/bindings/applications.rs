//! Credentials of deployed applications, as long as they are deployed here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use database::DatabaseName;
use parking_lot::Mutex;
use pooler::{Credential, Secret};
use workers::App;

use super::guest::Proof;

/// A credential of an application for one binding.
#[derive(Clone)]
pub(super) struct Application {
    /// For people.
    pub(super) label: Arc<str>,
    /// Its own database, where the binding has one for each application.
    pub(super) database: Option<DatabaseName>,
    password: Secret,
    digest: [u8; 32],
}

/// All of them.
#[derive(Default)]
pub(super) struct Applications(Mutex<State>);

#[derive(Default)]
struct State {
    by_user: HashMap<String, Application>,
    /// By application and binding.
    users: BTreeMap<(String, String), String>,
    /// Which bindings each application has bound, by their ids.
    bound: BTreeMap<String, Vec<String>>,
}

impl Applications {
    pub(super) fn get(&self, user: &str) -> Option<Application> {
        self.0.lock().by_user.get(user).cloned()
    }

    pub(super) fn digest(&self, user: &str) -> Option<[u8; 32]> {
        let state = self.0.lock();
        state
            .by_user
            .get(user)
            .map(|application| application.digest)
    }

    /// The credential of an application for a binding, by its id: user and password. It is drawn when it is first asked for.
    pub(super) fn credential(
        &self,
        app: &App,
        binding: &str,
        database: Option<DatabaseName>,
    ) -> Result<(String, Secret), getrandom::Error> {
        let mut state = self.0.lock();
        let key = (app.to_string(), binding.to_owned());
        if let Some(user) = state.users.get(&key).cloned()
            && let Some(application) = state.by_user.get_mut(&user)
        {
            application.database = database;
            return Ok((user, application.password.clone()));
        }
        let (user, password) = Credential::name_and_password(binding)?;
        let application = Application {
            label: key.0.clone().into(),
            database,
            digest: Proof::of(password.reveal()),
            password: password.clone(),
        };
        state.by_user.insert(user.clone(), application);
        state.users.insert(key, user.clone());
        Ok((user, password))
    }

    /// An application is gone.
    pub(super) fn forget(&self, app: &App) {
        let app = app.to_string();
        let mut state = self.0.lock();
        let State { by_user, users, .. } = &mut *state;
        users.retain(|(owner, _), user| {
            let stays = *owner != app;
            if !stays {
                by_user.remove(user);
            }
            stays
        });
    }

    /// An application binds these from now on: `tell` hears who binds each binding that this is about, before anybody else
    /// binds something.
    pub(super) fn bind(&self, app: &App, ids: Vec<String>, tell: impl Fn(&str, Vec<String>)) {
        let mut state = self.0.lock();
        let app = app.to_string();
        let before = state.bound.remove(&app).unwrap_or_default();
        let mut touched = before;
        touched.extend(ids.iter().cloned());
        touched.sort_unstable();
        touched.dedup();
        if !ids.is_empty() {
            state.bound.insert(app, ids);
        }
        let users = |id: &String| {
            let binds = |(app, ids): (&String, &Vec<String>)| ids.contains(id).then(|| app.clone());
            state.bound.iter().filter_map(binds).collect()
        };
        touched.iter().for_each(|id| tell(id, users(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workers::{Environment, Repository};

    const BINDING: &str = "0123456789abcdef0123456789abcdef";

    fn app(repository: &str) -> App {
        App {
            repository: Repository::parse(repository).unwrap(),
            environment: Environment::of_branch("main").unwrap(),
        }
    }

    #[test]
    fn each_application_has_its_own_and_loses_it() {
        let applications = Applications::default();
        let (shop, blog) = (app("acme/shop"), app("acme/blog"));
        let (user, password) = applications.credential(&shop, BINDING, None).unwrap();
        let again = applications.credential(&shop, BINDING, None).unwrap();
        assert_eq!((&user, password.reveal()), (&again.0, again.1.reveal()));
        let (other, _) = applications.credential(&blog, BINDING, None).unwrap();
        assert_ne!(user, other);
        assert_eq!(
            applications.digest(&user),
            Some(Proof::of(password.reveal()))
        );
        applications.forget(&shop);
        assert!(applications.get(&user).is_none() && applications.get(&other).is_some());
        let (new, _) = applications.credential(&shop, BINDING, None).unwrap();
        assert_ne!(user, new);
    }

    #[test]
    fn who_binds_what() {
        let applications = Applications::default();
        let (shop, blog) = (app("acme/shop"), app("acme/blog"));
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let bind = |app: &App, names: &[&str]| {
            let told = Mutex::new(Vec::new());
            applications.bind(app, ids(names), |id, users| {
                told.lock().push((id.to_owned(), users));
            });
            told.into_inner()
        };
        let one = bind(&shop, &["a", "b"]);
        assert_eq!(one[0].1, [shop.to_string()]);
        let two = bind(&blog, &["b"]);
        assert_eq!(
            two,
            [("b".to_owned(), vec![blog.to_string(), shop.to_string()])]
        );
        let three = bind(&shop, &["a"]);
        assert_eq!(three[1], ("b".to_owned(), vec![blog.to_string()]));
        let none = bind(&shop, &[]);
        assert_eq!(none, [("a".to_owned(), Vec::new())]);
    }
}
