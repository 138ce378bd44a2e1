//! What was found of queries, for the next time.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use volume::DatabaseId;

use super::{Dependencies, QueryKey};

/// A statement of a database, with role and settings.
type Place = (DatabaseId, [u8; 32]);

/// What was found of the statements that were asked last, in all databases.
#[derive(Debug)]
pub(crate) struct Known {
    found: Option<Mutex<LruCache<Place, Arc<Dependencies>>>>,
}

impl Known {
    /// With room for `queries_max`; 0: nothing is kept.
    pub(crate) fn new(queries_max: usize) -> Self {
        let room = NonZeroUsize::new(queries_max);
        Self {
            found: room.map(|room| Mutex::new(LruCache::new(room))),
        }
    }

    /// What was found under an epoch, if the catalog is as it was then.
    pub(crate) fn get(
        &self,
        id: DatabaseId,
        query: &QueryKey,
        epoch: u64,
        catalog: u64,
    ) -> Option<Arc<Dependencies>> {
        let mut found = self.found.as_ref()?.lock();
        let found = found.get(&(id, query.statement()))?;
        (found.epoch == epoch && found.catalog == catalog).then(|| Arc::clone(found))
    }

    pub(crate) fn insert(
        &self,
        id: DatabaseId,
        query: &QueryKey,
        dependencies: &Arc<Dependencies>,
    ) {
        if let Some(found) = &self.found {
            let place = (id, query.statement());
            found.lock().put(place, Arc::clone(dependencies));
        }
    }
}
