//! Sharing: what a volume is becomes a layer, over which it and its forks go on.

use std::sync::Arc;

use super::{Snapshot, State, Volume};
use crate::base::{Base, LAYERS_MAX};
use crate::error::{Result, VolumeError};
use crate::id::{BaseId, LayerId, Version};
use crate::slots::Slots;
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
        let base = loop {
            let frozen = {
                // A flush under way would give its slots free in the new file.
                let _held = self.slots_held.lock();
                let mut state = self.state.write();
                if !state.changed && state.tree.is_unchanged() && state.frozen.is_empty() {
                    return Ok(state.pages.base.id());
                }
                if state.pages.base.layer_count() < LAYERS_MAX {
                    Some(state.freeze(self)?)
                } else {
                    None
                }
            };
            match frozen {
                Some(base) => break base,
                None => self.leave_a_layer()?,
            }
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

    /// The base that its last durable version is over, or the one that it was made over if there is no
    /// version yet: what must be kept for it to be opened again.
    pub fn base(&self) -> Arc<Base> {
        Arc::clone(&self.state.read().durable_base)
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
        self.pages.cut_leftover()?;
        let own_depth = self.pages.own_depth();
        let snapshot = self.snapshot();
        let kept = self.tree.slots_at(own_depth);
        let base = Base::layer(
            &self.pages.base,
            layer,
            snapshot.tree.freeze(),
            snapshot.own.clone(),
            &kept,
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
        self.pages.layered = self.tree.pages_by_layer(base.layer_count());
        self.pages.base = Arc::clone(&base);
        self.pages.own = None;
        self.pages.slots = Slots::default();
        self.epoch = next_epoch;
        self.pages.own_path = volume.volumes.pages_path(volume.id, next_epoch);
        // Of an earlier time that got so far, and no further.
        self.pages.leftover = true;
        // A file of the template that is kept because it is open is a changed one from here on.
        self.count_room();
        Ok(base.id())
    }

    /// The version that the next write of a manifest makes.
    pub(super) fn next_version(&self) -> Version {
        let last = self.frozen.last().map_or(self.version, |last| last.version);
        last.next()
    }
}
