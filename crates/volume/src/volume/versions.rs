//! The versions of a volume: what is durable, what is not yet, and the flush between.

use std::sync::Arc;

use super::{Snapshot, Volume, manifest_path};
use crate::error::{Result, VolumeError};
use crate::id::{DatabaseId, Version};
use crate::manifest;
use crate::page::PAGE_BYTES;
use crate::slots::Pending;
use crate::template::Template;

impl Volume {
    /// Makes everything written so far durable as one version, and returns its number. Writes that go
    /// on meanwhile belong to the next version. Without changes since the last flush it does nothing.
    ///
    /// # Errors
    /// [`VolumeError::FlushFailed`]: the version before is still the durable one, and the error says
    /// whether to try again or to open the volume anew. [`VolumeError::Broken`] after the latter.
    pub fn flush(&self) -> Result<Version> {
        let _held = self.slots_held.lock();
        let Some((snapshot, pending, version)) = self.begin_flush()? else {
            return Ok(self.version());
        };
        let written = self.write_version(&snapshot, version);
        // Before the lock is taken: the writer then need not copy nodes that are shared with it.
        drop(snapshot);
        self.end_flush(pending, version, written)
    }

    /// Whether something would be lost if the process died now.
    pub fn dirty(&self) -> bool {
        self.state.read().is_dirty()
    }

    /// Whether it is exactly its template: made by [`create`](Self::create), and neither changed nor
    /// flushed since. Such a volume needs no files.
    pub fn is_pristine(&self) -> bool {
        let state = self.state.read();
        state.version == Version::default() && !state.changed && state.pages.own_bytes() == 0
    }

    /// Bytes of pages that the next flush has to make durable, at most.
    pub fn dirty_bytes(&self) -> u64 {
        self.state.read().pages.slots.taken() * PAGE_BYTES as u64
    }

    /// Bytes of the pages that are this volume's own, not its template's; what
    /// `volume.bytes_max` limits. The pages file can be up to twice as long.
    pub fn own_bytes(&self) -> u64 {
        self.state.read().pages.own_bytes()
    }

    /// The last durable version; zero before the first flush.
    pub fn version(&self) -> Version {
        self.state.read().version
    }

    /// Sets the limit `volume.bytes_max`; what the volume holds already stays.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.state.write().pages.bytes_max = bytes_max;
    }

    /// The database whose state this is.
    pub fn id(&self) -> DatabaseId {
        self.id
    }

    /// The template it was made from.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
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
    fn begin_flush(&self) -> Result<Option<(Snapshot, Pending, Version)>> {
        let mut state = self.state.write();
        state.check_whole()?;
        if !state.is_dirty() {
            return Ok(None);
        }
        let pending = state.pages.slots.begin_flush();
        state.changed = false;
        Ok(Some((state.snapshot(), pending, state.version.next())))
    }

    /// Acts, without the lock and in this order: pages, then the manifest that refers to them.
    fn write_version(&self, snapshot: &Snapshot, version: Version) -> Result<(), WriteFailed> {
        if let Some(own) = &snapshot.own {
            // After a failed sync the kernel may count pages as clean that never reached the disk:
            // trying again would succeed and be a lie.
            own.sync().map_err(|error| WriteFailed {
                error,
                must_reopen: true,
            })?;
        }
        let path = manifest_path(&self.directory, self.id);
        let payload = manifest::encode(self.template.id(), version, &snapshot.tree);
        let (kind, format) = (manifest::VOLUME_KIND, manifest::FORMAT);
        store::write_sealed(
            &store::RealDisk,
            &path,
            kind,
            format,
            self.id.get(),
            &payload,
        )
        .map_err(|error| {
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
        written: Result<(), WriteFailed>,
    ) -> Result<Version> {
        let mut state = self.state.write();
        match written {
            Ok(()) => {
                state.pages.slots.flush_done(pending);
                state.version = version;
                Ok(version)
            }
            Err(WriteFailed { error, must_reopen }) => {
                state.pages.slots.flush_failed(pending);
                state.changed = true;
                if must_reopen {
                    state.broken = Some("a sync failed");
                }
                let (kept, source) = (state.version, Box::new(error));
                Err(VolumeError::FlushFailed {
                    kept,
                    must_reopen,
                    source,
                })
            }
        }
    }
}

/// Why a version could not be written.
struct WriteFailed {
    error: VolumeError,
    must_reopen: bool,
}
