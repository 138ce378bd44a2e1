//! What the cache knows of its origin's catalog, and when it asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::analysis::{self, Analysis, Outcome};
use super::catalog::{self, Catalog};
use super::inquiry;
use super::refresh::NO_CLIENT;
use super::status::CacheStatus;
use super::{CATALOG_AGE_MIN, Cache, Depends, Oid, Question, Stamp, Writes};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::server::Server;
use crate::settings::Settings;

impl Cache {
    /// For a question about the catalog that is sent now; nothing if it is in doubt.
    pub(crate) fn catalog_stamp(&self) -> Option<Stamp> {
        self.ledger.lock().catalog_stamp()
    }

    /// Whether what the origin has told of its catalog then still holds.
    pub(crate) fn is_catalog_of(&self, stamp: Stamp, asked: Instant) -> bool {
        asked.elapsed() < self.catalog_age_max() && self.ledger.lock().is_catalog_right(stamp)
    }

    fn catalog_age_max(&self) -> Duration {
        let max_age = Duration::from_secs(self.caching.read().max_age.into());
        max_age.max(CATALOG_AGE_MIN)
    }

    fn known_catalog(&self) -> Option<Arc<Catalog>> {
        let catalog = self.catalog.read().clone()?;
        self.is_catalog_of(catalog.stamp, catalog.read)
            .then_some(catalog)
    }

    /// On what an answer depends: asked of the origin on a connection that is idle and the session's own.
    ///
    /// # Errors
    ///
    /// If the origin does not answer.
    pub(crate) async fn tables(
        &self,
        server: &mut Server,
        question: &Question,
    ) -> Result<Result<Depends, CacheStatus>, Failure> {
        if let Some(known) = self.known_tables(question) {
            return Ok(known);
        }
        for _ in 0..2 {
            let Some(catalog) = self.catalog(server).await? else {
                break;
            };
            let outcome = analysis::analyse(server, &catalog, &question.facts.reading).await?;
            let verdict = match outcome {
                Outcome::Depends(depends) => Ok(depends),
                Outcome::Not(status) => Err(status),
                Outcome::CatalogIsOld => {
                    self.catalog.write().take();
                    continue;
                }
            };
            let analysis = Analysis {
                verdict: verdict.clone(),
                stamp: catalog.stamp,
                made: catalog.read,
            };
            self.analyses.lock().put(question.shape, Arc::new(analysis));
            return Ok(verdict);
        }
        // Somebody changes the catalog at this moment, or another reads it.
        Ok(Err(CacheStatus::Miss))
    }

    /// As [`tables`](Self::tables), if it is known.
    pub(crate) fn known_tables(&self, question: &Question) -> Option<Result<Depends, CacheStatus>> {
        let known = self.analyses.lock().get(&question.shape).cloned()?;
        self.is_catalog_of(known.stamp, known.made)
            .then(|| known.verdict.clone())
    }

    /// Whether an answer was found to depend on what the program is called, however long ago. Where it is kept is decided
    /// by what is right then: who looks in the wrong place finds nothing.
    pub(super) fn may_depend_on_name(&self, question: &Question) -> bool {
        let known = self.analyses.lock().get(&question.shape).cloned();
        known.is_some_and(|known| matches!(&known.verdict, Ok(depends) if depends.on_name))
    }

    /// What the origin did not tell is not asked again soon.
    pub(crate) fn give_up(&self, question: &Question) {
        if let Some(stamp) = self.catalog_stamp() {
            let analysis = Analysis {
                verdict: Err(CacheStatus::Uncacheable),
                stamp,
                made: Instant::now(),
            };
            self.analyses.lock().put(question.shape, Arc::new(analysis));
        }
    }

    /// The catalog as it is now; nothing while somebody changes it, or another reads it.
    async fn catalog(&self, server: &mut Server) -> Result<Option<Arc<Catalog>>, Failure> {
        if let Some(known) = self.known_catalog() {
            return Ok(Some(known));
        }
        match self.reads_catalog.try_lock() {
            Ok(_alone) => self.read_catalog(server).await,
            Err(_) => Ok(None),
        }
    }

    /// Asks what the catalog says before what is known of it is too old, if nobody does.
    fn renew(self: &Arc<Self>, catalog: &Catalog) {
        let max = self.catalog_age_max();
        if catalog.read.elapsed() < max / 2 || !self.is_on() {
            return;
        }
        let Ok(alone) = Arc::clone(&self.reads_catalog).try_lock_owned() else {
            return;
        };
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let _alone = alone;
            let Some(mut lease) = cache.spare_lease(Instant::now() + max / 2).await else {
                return;
            };
            let mut asked = lease.become_of(NO_CLIENT, &mut Settings::default()).await;
            if asked.is_ok() {
                asked = cache.read_catalog(&mut lease).await.map(drop);
            }
            match asked {
                Ok(()) => lease.give_back(),
                Err(failure) => tracing::debug!(%failure, "the catalog could not be read"),
            }
        });
    }

    async fn read_catalog(&self, server: &mut Server) -> Result<Option<Arc<Catalog>>, Failure> {
        let Some(stamp) = self.catalog_stamp() else {
            return Ok(None);
        };
        let read = Instant::now();
        let known = self.builtin.read().clone();
        let builtin = match known {
            Some(known) => known,
            None => {
                let rows = server.ask(inquiry::BUILTIN).await?;
                Arc::new(catalog::functions_of(&rows, true).unwrap_or_default())
            }
        };
        let mut answers = Vec::new();
        for sql in inquiry::QUESTIONS {
            answers.push(server.ask(sql).await?);
        }
        let catalog = Catalog::of(answers, Arc::clone(&builtin), stamp, read).map(Arc::new);
        if self.ledger.lock().is_catalog_right(stamp) {
            *self.builtin.write() = Some(builtin);
        }
        self.catalog.write().clone_from(&catalog);
        Ok(catalog)
    }

    /// What changes with rows of these tables, which others have written: what triggers and foreign keys have written
    /// is told as well, so only parts and wholes are looked for.
    pub(crate) fn written(&self, tables: &BTreeSet<Oid>) -> Writes {
        match self.known_catalog() {
            Some(catalog) => catalog.written(tables),
            None => Writes::any_table(),
        }
    }

    /// A commit of others was heard of, that need not show yet.
    pub(crate) fn begins(&self, writes: &Writes) {
        if writes.everything && self.is_on() {
            super::add(&self.counters.dropped_all, 1);
        }
        self.ledger.lock().begin(writes);
    }

    /// It shows.
    pub(crate) fn ends(&self, writes: &Writes) {
        self.ledger.lock().end(writes);
    }

    /// What a text writes; `is_known` if it calls nothing but Postgres' own.
    pub(crate) fn writes(
        self: &Arc<Self>,
        facts: &Facts,
        is_known: bool,
        temporary: &BTreeSet<String>,
    ) -> Writes {
        let writing = &facts.reading.writes;
        if let Some(catalog) = self.known_catalog() {
            self.renew(&catalog);
            return catalog.writes(facts, temporary);
        }
        let is_reading = is_known && !writing.everything && writing.tables.is_empty();
        match (is_reading, facts.reading.relations.is_empty()) {
            (true, true) => Writes::default(),
            // A view or a policy may call what writes.
            (true, false) => Writes::any_table(),
            (false, _) => Writes::unknown(),
        }
    }
}
