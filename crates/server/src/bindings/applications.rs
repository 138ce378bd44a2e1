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
    digest: [u8; 32],
}

/// All of them.
#[derive(Default)]
pub(super) struct Applications(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    by_user: HashMap<String, Application>,
    /// Which bindings each application has bound, by their ids.
    bound: BTreeMap<String, Vec<String>>,
}

/// A credential that is good as long as this is there: as long as a version runs that it was given to.
pub(super) struct Granted {
    pub(super) user: String,
    pub(super) password: Secret,
    applications: Arc<Mutex<State>>,
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.applications.lock().by_user.remove(&self.user);
    }
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

    /// A new credential of an application for a binding, by its id.
    pub(super) fn grant(
        &self,
        app: &App,
        binding: &str,
        database: Option<DatabaseName>,
    ) -> Result<Granted, getrandom::Error> {
        let mut state = self.0.lock();
        let (user, password) = loop {
            let drawn = Credential::name_and_password(binding)?;
            // What another version has must not end with this one.
            if !state.by_user.contains_key(&drawn.0) {
                break drawn;
            }
        };
        let application = Application {
            label: app.to_string().into(),
            database,
            digest: Proof::of(password.reveal()),
        };
        state.by_user.insert(user.clone(), application);
        Ok(Granted {
            user,
            password,
            applications: Arc::clone(&self.0),
        })
    }

    /// An application is gone: its credentials are good no more, whoever still has them.
    pub(super) fn forget(&self, app: &App) {
        let app = app.to_string();
        let mut state = self.0.lock();
        state
            .by_user
            .retain(|_, application| *application.label != *app);
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
    fn each_version_has_its_own_and_loses_it() {
        let applications = Applications::default();
        let (shop, blog) = (app("acme/shop"), app("acme/blog"));
        let one = applications.grant(&shop, BINDING, None).unwrap();
        let two = applications.grant(&shop, BINDING, None).unwrap();
        let other = applications.grant(&blog, BINDING, None).unwrap();
        assert!(one.user != two.user && one.password.reveal() != two.password.reveal());
        let digest = applications.digest(&one.user);
        assert_eq!(digest, Some(Proof::of(one.password.reveal())));
        let user = one.user.clone();
        drop(one);
        assert!(applications.get(&user).is_none() && applications.get(&two.user).is_some());
        assert_eq!(applications.0.lock().by_user.len(), 2);
        applications.forget(&shop);
        assert!(applications.get(&two.user).is_none() && applications.get(&other.user).is_some());
        drop((two, other));
        assert!(applications.0.lock().by_user.is_empty());
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
