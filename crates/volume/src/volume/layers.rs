//! Sharing: what a volume is becomes a layer, over which it and its forks go on.

use std::sync::Arc;

use super::{Snapshot, State, Volume};
use crate::base::{Base, LAYERS_MAX};
use crate::error::{Result, VolumeError};
use crate::id::{BaseId, LayerId, Version};
use crate::page::PAGE_BYTES;
use crate::slots::{Slots, slot_count};
use crate::tree::Tree;

/// A layer that is to be written by the next flush.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) layer: LayerId,
    pub(super) version: Version,
    pub(super) snapshot: Arc<Snapshot>,
    /// Slots of its file that nothing refers to.
    pub(super) free: Vec<u32>,
}

impl Volume {
    /// The base of a fork that starts as this volume is now, durable when it returns: what the volume
    /// holds of its own becomes a layer, over which it goes on with no own pages. Nothing is copied. A
    /// volume that equals its base is shared by that.
    ///
    /// # Errors
    /// As [`Volume::flush`]; after an error the next flush finishes what was begun.
    pub fn share(&self) -> Result<BaseId> {
        self.finish_share()?;
        if self.state.read().pages.base.layer_count() >= LAYERS_MAX {
            self.merge_layers()?;
        }
        let base = {
            // A flush under way would give its slots free in the new file.
            let _held = self.slots_held.lock();
            let mut state = self.state.write();
            if !state.changed && state.tree.is_unchanged() && state.frozen.is_empty() {
                return Ok(state.pages.base.id());
            }
            state.freeze(self)?
        };
        self.flush()?;
        Ok(base)
    }

    /// Finishes what a failed share began: each takes an epoch, and no more than one may be left behind by
    /// a process that ends.
    fn finish_share(&self) -> Result<()> {
        if self.state.read().frozen.is_empty() {
            return Ok(());
        }
        self.flush().map(drop)
    }

    /// Copies the pages of all layers that it still refers to into its own file, and goes on over the
    /// template alone, durably when it returns: it needs its layers no more.
    ///
    /// # Errors
    /// [`VolumeError::NoSpace`], [`VolumeError::Io`], [`VolumeError::Corrupt`]: it is as before then.
    /// Otherwise as [`Volume::flush`].
    pub fn merge_layers(&self) -> Result<()> {
        self.finish_share()?;
        {
            let _held = self.slots_held.lock();
            let mut state = self.state.write();
            state.check_whole()?;
            if state.pages.base.layer_count() > 0 && state.frozen.is_empty() {
                state.merge(self)?;
            }
        }
        // Also if there was nothing to copy: what an earlier call merged may not be durable yet.
        self.flush().map(drop)
    }

    /// The base that it is over now.
    pub fn base(&self) -> Arc<Base> {
        Arc::clone(&self.state.read().pages.base)
    }
}

impl State {
    fn freeze(&mut self, volume: &Volume) -> Result<BaseId> {
        self.check_whole()?;
        if self.tree.is_unchanged() {
            return Ok(self.pages.base.id());
        }
        let exhausted = VolumeError::NoSpace {
            limit: "volume.epochs_max",
            max: u64::from(u32::MAX),
        };
        let next_epoch = self.epoch.checked_add(1).ok_or(exhausted)?;
        let layer = LayerId {
            origin: volume.id,
            epoch: self.epoch,
        };
        let own_depth = self.pages.own_depth();
        let snapshot = self.snapshot();
        let kept = self.tree.slots_at(own_depth);
        let base = Base::layer(
            &self.pages.base,
            layer,
            snapshot.tree.freeze(),
            snapshot.own.clone(),
            slot_count(&kept),
        );
        volume.volumes.keep_layer(layer, &base);
        let mut tree = Tree::new(base.tree().clone());
        tree.restore_next(self.tree.next());
        for orphan in &self.orphans {
            if let Some(node) = self.tree.share(*orphan) {
                tree.keep(*orphan, node);
            }
        }
        self.frozen.push(Frozen {
            layer,
            version: self.next_version(),
            snapshot: Arc::new(snapshot),
            free: self.pages.slots.unused(&kept),
        });
        self.tree = tree;
        self.pages.layered = self.tree.layered_pages(own_depth + 1);
        self.pages.base = Arc::clone(&base);
        self.pages.own = None;
        self.pages.slots = Slots::default();
        self.epoch = next_epoch;
        self.pages.own_path = volume.volumes.pages_path(volume.id, next_epoch);
        Ok(base.id())
    }

    /// The version that the next write of a manifest makes.
    pub(super) fn next_version(&self) -> Version {
        let last = self.frozen.last().map_or(self.version, |last| last.version);
        last.next()
    }

    fn merge(&mut self, volume: &Volume) -> Result<()> {
        let bottom = Arc::clone(self.pages.base.bottom());
        let base = Base::template(bottom);
        let (from, to) = (self.pages.own_depth(), base.depth() + 1);
        let mut tree = self.tree.rebase(base.tree().clone());
        let mut taken = Vec::new();
        let mut page = [0; PAGE_BYTES];
        let pages = &mut self.pages;
        let moved = tree.changed_files_mut().try_for_each(|contents| {
            contents.move_pages(&mut |reference| {
                if reference.depth() < to || reference.is_hole() {
                    return Ok(reference);
                }
                if reference.depth() == from {
                    return Ok(reference.at_depth(to));
                }
                pages.read(reference, &mut page)?;
                let new = pages.copy_in(reference, &page)?;
                taken.push(new.slot());
                Ok(new.at_depth(to))
            })
        });
        if let Err(error) = moved {
            taken.into_iter().for_each(|slot| pages.slots.release(slot));
            return Err(error);
        }
        self.tree = tree;
        self.pages.base = base;
        self.pages.layered = 0;
        self.changed = true;
        // The manifest on disk is over the layers until the next one replaces it; the file is the same.
        self.pages.own_path = volume.volumes.pages_path(volume.id, self.epoch);
        Ok(())
    }
}
