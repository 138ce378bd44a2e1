//! The versions of a volume: what is durable, what is not yet, and the flush between.

use std::path::Path;
use std::sync::Arc;

use store::Position;

use super::layers::Frozen;
use super::{Snapshot, Volume};
use crate::base::Base;
use crate::error::{Result, VolumeError};
use crate::id::{DatabaseId, Version};
use crate::manifest::{self, Header};
use crate::page::PAGE_BYTES;
use crate::slots::Pending;
use crate::template::Template;

/// What a flush is to write, and what it settles.
struct Plan {
    /// Layers that must be on disk before the manifest that is over them.
    frozen: Vec<Frozen>,
    snapshot: Snapshot,
    pending: Pending,
    version: Version,
    syncs_asked: u64,
}

/// Free slots that keep their room, beside a quarter of the live ones: the next writes take them
/// without asking the file system for room.
const FREE_SLOTS_KEPT: usize = 64;

/// Calls of the file system in one step of giving room back: each may take milliseconds.
const GIVE_BACK_RUNS: usize = 16;

/// The same within a flush, which others wait for.
const FLUSH_RUNS: usize = 4;

impl Volume {
    /// Makes everything written so far durable as one version, and returns its number. Writes that go
    /// on meanwhile belong to the next version. Without changes since the last flush it does nothing.
    ///
    /// # Errors
    /// [`VolumeError::FlushFailed`]: the version before is still the durable one, and the error says
    /// whether to try again or to open the volume anew. [`VolumeError::Broken`] after the latter.
    pub fn flush(&self) -> Result<Version> {
        let _held = self.slots_held.lock();
        let Some(plan) = self.begin_flush()? else {
            return Ok(self.version());
        };
        let written = self.write_versions(&plan);
        let Plan {
            frozen,
            snapshot,
            pending,
            version,
            syncs_asked,
        } = plan;
        let (applied, base) = (snapshot.applied, Arc::clone(&snapshot.base));
        // Before the lock is taken: the writer then need not copy nodes that are shared with it.
        drop(snapshot);
        self.end_flush(pending, version, syncs_asked, frozen.len(), &base, written)?;
        if let Some(journal) = self.volumes.journal()
            && applied > 0
        {
            journal.release(self.id.get(), Position::from_number(applied + 1));
        }
        self.owe_room(frozen);
        // The version is durable. What cannot be given back now is tried again, and told, by `give_back`.
        let _later = self.give_back_runs(FLUSH_RUNS);
        Ok(version)
    }

    /// Whether something would be lost if the process died now.
    pub fn dirty(&self) -> bool {
        self.state.read().is_dirty()
    }

    /// Whether it is exactly its template: made by [`create`](Self::create), and neither changed nor
    /// flushed since. Such a volume needs no files.
    pub fn is_pristine(&self) -> bool {
        let state = self.state.read();
        state.version == Version::default()
            && state.tree.is_unchanged()
            && state.pages.own_pages() == 0
    }

    /// Sets how many bytes of pages may be in no durable version; a write beyond waits for a version.
    pub fn set_dirty_bytes_max(&self, bytes_max: u64) {
        self.state.write().dirty_bytes_max = bytes_max;
    }

    /// Bytes of pages that the next flush has to make durable, at most.
    pub fn dirty_bytes(&self) -> u64 {
        self.state.read().pages.slots.taken() * PAGE_BYTES as u64
    }

    /// Bytes of the pages that this volume refers to and that are not its template's, those of the log
    /// included. Pages in layers count, though others may share them. The file of its own pages takes up
    /// to twice their room while a flush is under way.
    pub fn own_bytes(&self) -> u64 {
        self.state.read().pages.own_pages() * PAGE_BYTES as u64
    }

    /// The last durable version; zero before the first flush.
    pub fn version(&self) -> Version {
        self.state.read().version
    }

    /// The database whose state this is.
    pub fn id(&self) -> DatabaseId {
        self.id
    }

    /// The template at the bottom of its base.
    pub fn template(&self) -> Arc<Template> {
        Arc::clone(self.state.read().pages.base.bottom())
    }

    /// The volume as of now, its slots frozen. They stay as long as the caller holds `slots_held`.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let mut state = self.state.write();
        state.check_whole()?;
        state.pages.slots.freeze();
        Ok(state.snapshot())
    }

    /// Plans a flush: what to write, under which number, and what will be free then. `None` if there
    /// is nothing to flush.
    fn begin_flush(&self) -> Result<Option<Plan>> {
        let mut state = self.state.write();
        state.check_whole()?;
        if !state.is_dirty() {
            // What is durable already meets every sync that was asked for.
            state.syncs_met = state.syncs_asked;
            return Ok(None);
        }
        let pending = state.pages.slots.begin_flush();
        state.changed = false;
        state.flushing = true;
        Ok(Some(Plan {
            frozen: state.frozen.clone(),
            snapshot: state.snapshot(),
            pending,
            version: state.next_version(),
            syncs_asked: state.syncs_asked,
        }))
    }

    /// Acts, without the lock and in this order: pages, then the manifest that refers to them; the
    /// layers first.
    fn write_versions(&self, plan: &Plan) -> Result<(), WriteFailed> {
        for frozen in &plan.frozen {
            let path = self.volumes.layer_path(frozen.layer);
            self.write_version(&path, &frozen.snapshot, frozen.version)?;
        }
        let path = self.volumes.manifest_path(self.id);
        self.write_version(&path, &plan.snapshot, plan.version)
    }

    fn write_version(
        &self,
        path: &Path,
        snapshot: &Snapshot,
        version: Version,
    ) -> Result<(), WriteFailed> {
        if let Some(own) = &snapshot.own {
            // After a failed sync the kernel may count pages as clean that never reached the disk:
            // trying again would succeed and be a lie.
            own.sync().map_err(|error| WriteFailed {
                error,
                must_reopen: true,
            })?;
        }
        let header = Header {
            base: snapshot.base.id(),
            generation: self.volumes.generation(),
            journal: self.volumes.journal().map_or(0, store::Journal::id),
            applied: snapshot.applied,
            version,
            lsn: snapshot.lsn,
            epoch: snapshot.epoch,
        };
        let payload = manifest::encode(&header, &snapshot.tree, snapshot.base.depth() + 1);
        let written = self.volumes.write_manifest(path, self.id, &payload);
        written.map_err(|error| {
            let must_reopen = matches!(error, store::SealedError::NotDurable { .. });
            WriteFailed {
                error: VolumeError::from_write(error),
                must_reopen,
            }
        })
    }

    fn end_flush(
        &self,
        pending: Pending,
        version: Version,
        syncs_asked: u64,
        frozen: usize,
        base: &Arc<Base>,
        written: Result<(), WriteFailed>,
    ) -> Result<()> {
        let mut state = self.state.write();
        state.flushing = false;
        match written {
            Ok(()) => {
                state.pages.slots.flush_done(pending);
                state.frozen.drain(..frozen);
                state.version = version;
                state.durable_base = Arc::clone(base);
                state.syncs_met = syncs_asked;
                Ok(())
            }
            Err(WriteFailed { error, must_reopen }) => {
                state.pages.slots.flush_failed(pending);
                state.changed = true;
                if must_reopen {
                    state.broken = Some("a sync failed");
                }
                let kept = state.version;
                let source = Box::new(error);
                Err(VolumeError::FlushFailed {
                    kept,
                    must_reopen,
                    source,
                })
            }
        }
    }

    /// Notes the slots of new layers that nothing refers to, whose room is to be given back.
    fn owe_room(&self, frozen: Vec<Frozen>) {
        let free = frozen.into_iter().filter_map(|frozen| {
            let own = frozen.snapshot.own.clone()?;
            let runs = frozen.free.chunk_by(|a, b| a + 1 == *b);
            Some((own, runs.map(<[u32]>::to_vec).collect()))
        });
        self.owed_room.lock().extend(free);
    }

    /// Gives the file system back some of the room of what no durable version refers to: free slots of
    /// new layers, and those of the own file beyond what the next writes are likely to take. The first
    /// time after opening, what a crash left too. One step, of [`GIVE_BACK_RUNS`] calls of the file
    /// system, during which no version is written: whether there is more. It can wait, but should be
    /// done before the volume is closed.
    ///
    /// # Errors
    /// [`VolumeError::Io`]; nothing is lost but room.
    pub fn give_back(&self) -> Result<bool> {
        let _held = self.slots_held.lock();
        self.state.read().check_kept()?;
        self.give_back_runs(GIVE_BACK_RUNS)
    }

    /// A step of [`give_back`](Self::give_back), for who holds `slots_held`.
    fn give_back_runs(&self, runs_max: usize) -> Result<bool> {
        let mut calls = 0;
        while calls < runs_max {
            let (own, run) = {
                let mut owed = self.owed_room.lock();
                let Some((own, runs)) = owed.last_mut() else {
                    break;
                };
                let own = Arc::clone(own);
                match runs.pop() {
                    Some(run) => (own, run),
                    None => {
                        owed.pop();
                        continue;
                    }
                }
            };
            if let Err(error) = own.punch(&run) {
                self.owed_room.lock().push((own, vec![run]));
                return Err(error);
            }
            calls += 1;
        }
        if calls == runs_max {
            return Ok(true);
        }
        let (own, kept, surplus) = {
            let mut state = self.state.write();
            if state.pages.leftover
                && let Some(next) = state.epoch.checked_add(1)
            {
                // Of a process that ended while it shared.
                let path = self.volumes.pages_path(self.id, next);
                self.volumes.remove_file(&path)?;
            }
            state.pages.cut_leftover()?;
            let Some(own) = state.pages.own.clone() else {
                return Ok(false);
            };
            let kept = FREE_SLOTS_KEPT.max(state.pages.slots.live() as usize / 4);
            (own, kept, state.pages.slots.surplus(kept, runs_max - calls))
        };
        // Without the lock, for it takes long. Only who holds `slots_held` exchanges the file.
        let punched = own.punch(&surplus);
        let mut state = self.state.write();
        state.pages.slots.punched(&surplus);
        punched?;
        Ok(state.pages.slots.has_surplus(kept))
    }
}

/// Why a version could not be written.
struct WriteFailed {
    error: VolumeError,
    must_reopen: bool,
}
