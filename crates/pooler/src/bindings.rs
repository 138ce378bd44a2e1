//! All bindings of a node: kept in a file, each with its pool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::binding::{Binding, BindingTarget, InvalidField};
use crate::cache::{CacheFigures, CacheOptions, CacheSpace};
use crate::connect;
use crate::dialing::Dialing;
use crate::failure::Failure;
use crate::options::PoolOptions;
use crate::origin::Origin;
use crate::pool::{Pool, Standing};
use crate::record::Record;
use crate::replication::ReplicationStanding;
use crate::vault::{Vault, VaultError};

/// Why bindings are not changed.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    /// There is none with this id.
    #[error("there is no binding {0}")]
    Unknown(String),
    /// Another has the name.
    #[error("another binding is called {0:?}: choose another name, or change that one")]
    NameTaken(String),
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// They could not be kept.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Somebody still uses it.
    #[error("binding {id} is in use by {}: undeploy these first", users.join(", "))]
    InUse {
        /// The binding.
        id: String,
        /// Who uses it, for people.
        users: Vec<String>,
    },
    /// It is not any more as whoever changes it has seen it.
    #[error(
        "binding {0:?} was changed by somebody else meanwhile, and is as they left it: look at it, and try again"
    )]
    Changed(String),
    /// There are more than enough.
    #[error("there are {0} bindings already, as many as bindings_max allows")]
    TooMany(usize),
}

/// Bindings that a node may have.
pub const BINDINGS_MAX: usize = 10_000;

/// All bindings.
pub struct Bindings {
    vault: Vault,
    /// Whoever changes the file has it. What is read meanwhile waits for no disk.
    writing: Mutex<()>,
    /// Those that are not in the file, by id.
    lent: Mutex<BTreeSet<String>>,
    /// What the caches of all bindings share.
    space: Arc<CacheSpace>,
    /// What all pools have of limits that bindings do not tell.
    pool_options: PoolOptions,
    state: Mutex<State>,
    /// Who is about to use which binding, by id, for people. Locked after `state`, if that is.
    reserved: Arc<Mutex<Reserved>>,
}

type Reserved = BTreeMap<String, Vec<String>>;

/// A binding that stays: as long as this is there it is not deleted.
#[derive(Debug)]
pub struct Reservation {
    id: String,
    user: String,
    reserved: Arc<Mutex<Reserved>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.reserved.lock();
        let Some(users) = reserved.get_mut(&self.id) else {
            return;
        };
        if let Some(at) = users.iter().position(|user| *user == self.user) {
            users.swap_remove(at);
        }
        if users.is_empty() {
            reserved.remove(&self.id);
        }
    }
}

struct State {
    bindings: BTreeMap<String, Arc<Binding>>,
    pools: BTreeMap<String, Arc<Pool>>,
    /// Who uses which binding, by id.
    users: BTreeMap<String, Vec<String>>,
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bindings").finish_non_exhaustive()
    }
}

impl Bindings {
    /// Reads the file, which need not be there yet. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// If it cannot be read with this key.
    pub fn open(path: PathBuf, key: &[u8; 32]) -> Result<Self, BindingsError> {
        let vault = Vault::new(path, key)?;
        let mut bindings = BTreeMap::new();
        if let Some(content) = vault.read()? {
            let form = |reason: String| VaultError::Form {
                path: vault.path().to_owned(),
                reason,
            };
            let records: Vec<Record> =
                serde_json::from_slice(&content).map_err(|error| form(error.to_string()))?;
            for record in records {
                let id = record.id.clone();
                let binding = record
                    .into_binding()
                    .ok_or_else(|| form(format!("binding {id} leads nowhere")))?;
                bindings.insert(id, Arc::new(binding));
            }
        }
        Ok(Self {
            vault,
            writing: Mutex::new(()),
            lent: Mutex::default(),
            space: CacheSpace::new(CacheOptions::default()),
            pool_options: PoolOptions::default(),
            state: Mutex::new(State {
                bindings,
                pools: BTreeMap::new(),
                users: BTreeMap::new(),
            }),
            reserved: Arc::default(),
        })
    }

    /// With this memory for the caches of all bindings.
    #[must_use]
    pub fn with_cache_space(mut self, space: Arc<CacheSpace>) -> Self {
        self.space = space;
        self
    }

    /// With these limits of each pool, where its binding tells no other.
    #[must_use]
    pub fn with_pool_options(mut self, options: PoolOptions) -> Self {
        self.pool_options = options;
        self
    }

    /// The memory for the caches of all bindings.
    pub fn cache_space(&self) -> &Arc<CacheSpace> {
        &self.space
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<Arc<Binding>> {
        self.state.lock().bindings.values().cloned().collect()
    }

    /// One of them, by its id or its name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn get(&self, id_or_name: &str) -> Result<Arc<Binding>, BindingsError> {
        self.state.lock().find(id_or_name)
    }

    /// One of them, by its id or its name, which stays as long as the reservation is there. `user` is who is about to use it,
    /// for people.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn reserve(
        &self,
        id_or_name: &str,
        user: String,
    ) -> Result<(Arc<Binding>, Reservation), BindingsError> {
        // Whoever deletes one looks for reservations while it has this.
        let state = self.state.lock();
        let binding = state.find(id_or_name)?;
        let id = binding.id.clone();
        let mut reserved = self.reserved.lock();
        reserved.entry(id.clone()).or_default().push(user.clone());
        let reservation = Reservation {
            id,
            user,
            reserved: Arc::clone(&self.reserved),
        };
        Ok((binding, reservation))
    }

    /// Adds one; its id and times are given to it here. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// If a field is wrong, the name is taken, or it cannot be kept.
    pub fn create(&self, binding: Binding) -> Result<Arc<Binding>, BindingsError> {
        self.add(binding, true)
    }

    /// Adds one that is never in the file, also when it changes: it is there until this process ends.
    ///
    /// # Errors
    ///
    /// As of [`create`](Self::create).
    pub fn lend(&self, binding: Binding) -> Result<Arc<Binding>, BindingsError> {
        self.add(binding, false)
    }

    fn add(&self, mut binding: Binding, is_kept: bool) -> Result<Arc<Binding>, BindingsError> {
        binding.check()?;
        let _writing = self.writing.lock();
        let mut changed = self.state.lock().bindings.clone();
        if changed.len() >= BINDINGS_MAX {
            return Err(BindingsError::TooMany(BINDINGS_MAX));
        }
        expect_free(&changed, &binding.name, None)?;
        binding.id = self.new_id()?;
        binding.created_ms = now_ms();
        binding.modified_ms = binding.created_ms;
        let binding = Arc::new(binding);
        changed.insert(binding.id.clone(), Arc::clone(&binding));
        match is_kept {
            true => self.keep(&changed)?,
            false => drop(self.lent.lock().insert(binding.id.clone())),
        }
        self.state.lock().bindings = changed;
        Ok(binding)
    }

    /// Changes one, if it is still as it was at `modified_ms` where that is told. What its pool has open is given up when it
    /// is free, and nobody gets the old place any more. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// As of [`create`](Self::create); if there is none, or somebody else has changed it.
    pub fn change(
        &self,
        id: &str,
        modified_ms: Option<u64>,
        change: impl FnOnce(&mut Binding) -> Result<(), InvalidField>,
    ) -> Result<Arc<Binding>, BindingsError> {
        let _writing = self.writing.lock();
        let mut changed = self.state.lock().bindings.clone();
        let old = changed.get(id).cloned();
        let old = old.ok_or_else(|| BindingsError::Unknown(id.to_owned()))?;
        if modified_ms.is_some_and(|told| told != old.modified_ms) {
            return Err(BindingsError::Changed(old.name.clone()));
        }
        let mut binding = Binding::clone(&old);
        change(&mut binding)?;
        binding.id = id.to_owned();
        binding.check()?;
        expect_free(&changed, &binding.name, Some(id))?;
        binding.modified_ms = now_ms().max(old.modified_ms + 1);
        let binding = Arc::new(binding);
        changed.insert(id.to_owned(), Arc::clone(&binding));
        self.keep(&changed)?;
        let mut state = self.state.lock();
        state.bindings = changed;
        match (&binding.target, state.pools.get(id)) {
            (BindingTarget::Origin(origin), Some(pool)) => {
                pool.set_name(&binding.name);
                if old.target != binding.target {
                    pool.turn_to(origin.clone());
                }
                if old.caching != binding.caching {
                    pool.set_caching(binding.caching);
                }
                if old.limits != binding.limits {
                    pool.adjust(binding.limits.pool_options(&self.pool_options));
                }
            }
            // It leads elsewhere: who is still there is told at the next transaction.
            (_, Some(_)) => {
                if let Some(pool) = state.pools.remove(id) {
                    pool.close();
                }
            }
            (_, None) => {}
        }
        Ok(binding)
    }

    /// Removes one that nobody uses. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// If there is none, or somebody uses it.
    pub fn delete(&self, id: &str) -> Result<(), BindingsError> {
        let _writing = self.writing.lock();
        let (binding, changed) = {
            let mut state = self.state.lock();
            let mut users = state.users.get(id).cloned().unwrap_or_default();
            users.extend(self.reserved.lock().get(id).into_iter().flatten().cloned());
            users.sort();
            users.dedup();
            if !users.is_empty() {
                let id = id.to_owned();
                return Err(BindingsError::InUse { id, users });
            }
            // From here on nobody begins to use it.
            let removed = state.bindings.remove(id);
            let removed = removed.ok_or_else(|| BindingsError::Unknown(id.to_owned()))?;
            (removed, state.bindings.clone())
        };
        let kept = self.keep(&changed);
        let mut state = self.state.lock();
        if let Err(error) = kept {
            state.bindings.insert(id.to_owned(), binding);
            return Err(error);
        }
        state.users.remove(id);
        self.lent.lock().remove(id);
        if let Some(pool) = state.pools.remove(id) {
            pool.close();
        }
        Ok(())
    }

    /// Says who uses a binding from now on, for people; as long as there is somebody it is not deleted.
    pub fn set_users(&self, id: &str, users: Vec<String>) {
        self.state.lock().users.insert(id.to_owned(), users);
    }

    /// Who uses it, for people.
    pub fn users(&self, id: &str) -> Vec<String> {
        self.state.lock().users.get(id).cloned().unwrap_or_default()
    }

    /// How its pool stands; none if nobody has used it.
    pub fn standing(&self, id: &str) -> Option<(Standing, CacheFigures)> {
        let state = self.state.lock();
        let pool = state.pools.get(id)?;
        Some((pool.standing(), pool.cache_figures()))
    }

    /// How its pool stands with what is written at the origin by others; none if nobody has used it.
    pub fn replication(&self, id: &str) -> Option<ReplicationStanding> {
        let pool = self.state.lock().pools.get(id).cloned()?;
        Some(pool.replication())
    }

    /// How all pools stand that somebody has used, by the ids of their bindings.
    pub fn standings(&self) -> Vec<(String, Standing, CacheFigures)> {
        let state = self.state.lock();
        let of =
            |(id, pool): (&String, &Arc<Pool>)| (id.clone(), pool.standing(), pool.cache_figures());
        state.pools.iter().map(of).collect()
    }

    /// The pool of a binding to an external Postgres.
    ///
    /// # Errors
    ///
    /// If there is no such binding.
    pub fn pool(&self, id: &str) -> Result<Option<Arc<Pool>>, BindingsError> {
        let mut state = self.state.lock();
        let binding = state
            .bindings
            .get(id)
            .ok_or_else(|| BindingsError::Unknown(id.to_owned()))?;
        let BindingTarget::Origin(origin) = &binding.target else {
            return Ok(None);
        };
        let options = binding.limits.pool_options(&self.pool_options);
        let origin = origin.clone();
        let (caching, space) = (binding.caching, Arc::clone(&self.space));
        let name = binding.name.clone();
        let pool = state.pools.entry(id.to_owned()).or_insert_with(|| {
            let pool = Pool::with_cache(origin, options, caching, space);
            pool.set_name(&name);
            pool
        });
        Ok(Some(Arc::clone(pool)))
    }

    /// Closes all pools.
    pub fn close(&self) {
        for pool in std::mem::take(&mut self.state.lock().pools).into_values() {
            pool.close();
        }
    }

    fn keep(&self, bindings: &BTreeMap<String, Arc<Binding>>) -> Result<(), BindingsError> {
        let records: Vec<Record> = {
            let lent = self.lent.lock();
            let kept = bindings.values().filter(|one| !lent.contains(&one.id));
            kept.map(|one| Record::from(&**one)).collect()
        };
        let content = serde_json::to_vec(&records).map_err(|error| VaultError::Form {
            path: self.vault.path().to_owned(),
            reason: error.to_string(),
        })?;
        Ok(self.vault.write(Zeroizing::new(content))?)
    }

    fn new_id(&self) -> Result<String, BindingsError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| VaultError::Io {
            path: self.vault.path().to_owned(),
            source: std::io::Error::other(error.to_string()),
        })?;
        Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

impl State {
    fn find(&self, id_or_name: &str) -> Result<Arc<Binding>, BindingsError> {
        let by_name = || self.bindings.values().find(|one| one.name == id_or_name);
        let found = self.bindings.get(id_or_name).or_else(by_name);
        found
            .cloned()
            .ok_or_else(|| BindingsError::Unknown(id_or_name.to_owned()))
    }
}

fn expect_free(
    bindings: &BTreeMap<String, Arc<Binding>>,
    name: &str,
    but: Option<&str>,
) -> Result<(), BindingsError> {
    let mut others = bindings.values().filter(|one| Some(&*one.id) != but);
    match others.any(|one| one.name == name) {
        true => Err(BindingsError::NameTaken(name.to_owned())),
        false => Ok(()),
    }
}

/// Connects once, and asks nothing: what a configuration is worth, before it is kept.
///
/// # Errors
///
/// Why the origin does not let us in.
pub async fn check(origin: &Origin, within: Duration) -> Result<Checked, Failure> {
    let mut link = connect::connect(origin, &Dialing::default(), within, &[]).await?;
    let asking = connect::query(&mut link, ";");
    match tokio::time::timeout(within, asking).await {
        Ok(asked) => asked?,
        Err(_) => return Err(Failure::silent(within)),
    };
    let server_version = link.parameters.get("server_version").cloned();
    Ok(Checked {
        server_version: server_version.unwrap_or_default(),
    })
}

/// What was learned of an origin that let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// As it says itself.
    pub server_version: String,
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{Caching, Limits};

    fn binding(name: &str, url: &str) -> Binding {
        Binding {
            id: String::new(),
            name: name.to_owned(),
            target: BindingTarget::Origin(Origin::of_url(url).unwrap()),
            limits: Limits::default(),
            caching: Caching::default(),
            allowed: Vec::new(),
            credentials: Vec::new(),
            created_ms: 0,
            modified_ms: 0,
        }
    }

    #[tokio::test]
    async fn one_that_is_reserved_stays() {
        let folder = tempfile::tempdir().unwrap();
        let bindings = Bindings::open(folder.path().join("bindings"), &[3; 32]).unwrap();
        let made = bindings
            .create(binding("shop", "postgres://a:b@c/d"))
            .unwrap();
        let reserve = |user: &str| bindings.reserve("shop", user.to_owned()).unwrap().1;
        let (one, two, again) = (reserve("one"), reserve("two"), reserve("one"));
        let users = || match bindings.delete(&made.id) {
            Err(BindingsError::InUse { users, .. }) => users,
            other => panic!("{other:?}"),
        };
        assert_eq!(users(), ["one", "two"]);
        drop(one);
        assert_eq!(users(), ["one", "two"]);
        drop(again);
        assert_eq!(users(), ["two"]);
        drop(two);
        bindings.delete(&made.id).unwrap();
        assert!(bindings.reserve("shop", String::new()).is_err());
    }

    #[tokio::test]
    async fn they_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings");
        let open = || Bindings::open(path.clone(), &[3; 32]).unwrap();
        let bindings = open();
        let url = "postgres://ann:secret@db.example.com,/b/c?sslmode=verify-ca";
        assert!(Origin::of_url(url).is_err());
        let url = "postgres://ann:secret@db.example.com,%2Frun:7/shop?sslmode=verify-ca";
        let made = bindings.create(binding("shop", url)).unwrap();
        assert_eq!(made.id.len(), 32);
        assert_eq!(*open().get("shop").unwrap(), *made);
        assert_eq!(*open().get(&made.id).unwrap(), *made);
        let taken = bindings.create(binding("shop", url)).unwrap_err();
        assert!(matches!(taken, BindingsError::NameTaken(_)), "{taken}");

        let rename = |one: &mut Binding| {
            one.name = "store".to_owned();
            one.caching.replication = true;
            Ok(())
        };
        let changed = bindings.change(&made.id, None, rename).unwrap();
        assert_eq!(*open().get("store").unwrap(), *changed);
        assert!(open().get("shop").is_err());
        bindings.set_users(&made.id, vec!["acme/shop".to_owned()]);
        let error = bindings.delete(&made.id).unwrap_err();
        assert!(error.to_string().contains("acme/shop"), "{error}");
        bindings.set_users(&made.id, Vec::new());
        bindings.delete(&made.id).unwrap();
        assert!(open().list().is_empty());
    }

    #[test]
    fn what_is_lent_is_on_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings");
        let open = || Bindings::open(path.clone(), &[3; 32]).unwrap();
        let bindings = open();
        let lent = bindings.lend(binding("lent", "postgres://a@localhost/b"));
        let id = lent.unwrap().id.clone();
        assert!(bindings.pool(&id).unwrap().is_some());
        let taken = bindings.create(binding("lent", "postgres://a@localhost/b"));
        assert!(matches!(taken, Err(BindingsError::NameTaken(_))));
        let made = bindings.create(binding("made", "postgres://a@localhost/b"));
        let rename = |one: &mut Binding| {
            one.name = "other".to_owned();
            Ok(())
        };
        bindings.change(&id, None, rename).unwrap();
        assert_eq!(bindings.list().len(), 2);
        assert_eq!(open().list(), [made.unwrap()]);
        bindings.delete(&id).unwrap();
        assert!(bindings.get("other").is_err());
    }

    #[test]
    fn pools_have_what_all_have_and_what_is_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Bindings::open(folder.path().join("bindings"), &[3; 32]).unwrap();
        let bindings = opened.with_pool_options(PoolOptions {
            cancels_max: 3,
            connections_max: 7,
            ..PoolOptions::default()
        });
        let made = bindings.create(binding("a", "postgres://a@localhost/b"));
        let id = made.unwrap().id.clone();
        let pool = bindings.pool(&id).unwrap().unwrap();
        let told = || {
            let options = pool.options();
            (options.cancels_max, options.connections_max)
        };
        assert_eq!(told(), (3, 20));
        let wider = |one: &mut Binding| {
            one.limits.connections_max = 30;
            Ok(())
        };
        bindings.change(&id, None, wider).unwrap();
        assert_eq!(told(), (3, 30));
    }

    #[test]
    fn a_wrong_change_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings");
        let bindings = Bindings::open(path, &[3; 32]).unwrap();
        let made = bindings
            .create(binding("a", "postgres://a@localhost/b"))
            .unwrap();
        let wrong = |one: &mut Binding| {
            one.limits.connections_max = 0;
            Ok(())
        };
        assert!(bindings.change(&made.id, None, wrong).is_err());
        assert_eq!(*bindings.get("a").unwrap(), *made);
    }
}
