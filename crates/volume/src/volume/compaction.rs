//! Compaction: what a volume still needs of layers that are mostly garbage is copied into its own file, and
//! the layers are left.
//!
//! A page of a layer is *used* while the volume refers to it. What is overwritten or removed stays in the
//! layer, which is never changed; so the volume leaves the topmost layers when that gives back more than it
//! costs to copy what is used of them. A layer that others stand on too goes only when the last of them has
//! left, so a fourth of it is counted as gain.
//!
//! Invariants
//! 1. When there is nothing to do, the layers that a volume alone stands on hold at most twice the pages
//!    that it uses of them, and [`LAYERS_SLACK_BYTES`]; those that it shares, at most eight times as many, and
//!    four times that. So copying is paid for: each copied page frees at least two.
//! 2. Copying a page changes where it is and nothing else: a crash keeps what a version has of it, and the
//!    next plan goes on from there.
//! 3. The lock is held for one step of [`STEP_PAGES`] writes at a time, and once to exchange the base; pages
//!    are read without it.
//! 4. A layer is left when the durable version is over what is below it, not before.

use std::sync::Arc;

use super::Volume;
use crate::base::{Base, LAYERS_MAX};
use crate::error::Result;
use crate::id::{BaseId, LayerId};
use crate::node::{Content, Ino};
use crate::page::{PAGE_BYTES, PageRef, TEMPLATE_DEPTH};
use crate::tree::Tree;

/// Bytes of garbage in layers that are not worth a compaction, the limit `volume.layers_slack_bytes`.
pub const LAYERS_SLACK_BYTES: u64 = 512 << 10;

/// Layers that compaction leaves a volume, so that sharing it need not merge.
const LAYERS_KEPT: usize = LAYERS_MAX - 4;

/// Pages that a step copies.
const STEP_PAGES: usize = 64;

/// Pages that a step looks at to find them.
const STEP_PAGES_SEEN: usize = 1 << 16;

/// One layer below a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerUse {
    /// Which one.
    pub layer: LayerId,
    /// Pages that are stored in it.
    pub pages: u64,
    /// Pages of it that the volume refers to.
    pub used: u64,
}

/// What one step of [`Volume::compact`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Pages that it copied.
    pub pages_copied: u64,
    /// The volume's durable version is over another base than before: see [`Volume::base`].
    pub rebased: bool,
    /// Whether to call again; else there is nothing to do until something is written or shared.
    pub more: bool,
}

/// How many of the lowest layers to stay on; `None` to leave none.
type Choose<'a> = dyn Fn(&[LayerUse]) -> Option<usize> + 'a;

/// A compaction under way. It ends with the base that it was made for.
#[derive(Debug)]
pub(super) struct Plan {
    base: Arc<Base>,
    kept: usize,
    /// Files that referred to pages of the layers to be left. No other ever will.
    files: Vec<Ino>,
    /// The file to go on with, and the page in it.
    at: usize,
    page: u32,
}

/// A page that is to be copied.
struct Wanted {
    ino: Ino,
    page: u32,
    reference: PageRef,
}

impl Volume {
    /// Does one step towards using little room in layers: a few milliseconds, in which others wait for less
    /// than one; the last step of a compaction flushes. `referents` tells how many databases and
    /// layers stand directly on a layer, this volume included. After a step that `rebased`, layers may be
    /// unused: whoever counts the referents removes them then.
    ///
    /// # Errors
    /// [`VolumeError::DiskFull`], [`VolumeError::Io`], [`VolumeError::Corrupt`], and those of
    /// [`Volume::flush`]. Nothing is lost; another call goes on.
    pub fn compact(&self, referents: &dyn Fn(LayerId) -> u64) -> Result<Compaction> {
        let mut plan = self.compaction.lock();
        self.compact_step(&mut plan, &|uses| {
            kept_for_space(uses, referents).or_else(|| kept_for_depth(uses, LAYERS_KEPT))
        })
    }

    /// The layers below it, the lowest first.
    pub fn layers(&self) -> Vec<LayerUse> {
        let state = self.state.read();
        let used = state.pages.layered.iter().rev();
        let mut at = Some(&state.pages.base);
        let mut layers = Vec::new();
        for used in used {
            let Some(base) = at else { break };
            if let BaseId::Layer(layer) = base.id() {
                layers.push(LayerUse {
                    layer,
                    pages: base.pages(),
                    used: *used,
                });
            }
            at = base.below();
        }
        layers.reverse();
        layers
    }

    /// Leaves all layers, and goes on over the template alone.
    ///
    /// # Errors
    /// As [`Volume::compact`].
    pub fn merge_layers(&self) -> Result<()> {
        self.compact_fully(&|uses| (!uses.is_empty()).then_some(0))
    }

    /// Makes room for one more layer.
    pub(super) fn leave_a_layer(&self) -> Result<()> {
        self.compact_fully(&|uses| kept_for_depth(uses, LAYERS_MAX - 1))
    }

    fn compact_fully(&self, choose: &Choose<'_>) -> Result<()> {
        let mut plan = self.compaction.lock();
        *plan = None;
        while self.compact_step(&mut plan, choose)?.more {}
        Ok(())
    }

    fn compact_step(&self, plan: &mut Option<Plan>, choose: &Choose<'_>) -> Result<Compaction> {
        let (base, durable, frozen) = {
            let state = self.state.read();
            let base = Arc::clone(&state.pages.base);
            (base, state.durable_base.id(), !state.frozen.is_empty())
        };
        // What an earlier flush could not write comes first.
        if frozen || base.id() != durable && self.dirty() {
            self.flush()?;
        }
        plan.take_if(|plan| !Arc::ptr_eq(&plan.base, &base));
        let current = match plan {
            Some(plan) => plan,
            None => match self.plan(choose)? {
                Some(new) => plan.insert(new),
                None => {
                    let rebased = self.base().id() != durable;
                    return Ok(Compaction {
                        rebased,
                        ..Compaction::default()
                    });
                }
            },
        };
        let pages_copied = self.copy_pages(current)?;
        if current.at == current.files.len() {
            let left = self.leave(current);
            *plan = None;
            left?;
        }
        Ok(Compaction {
            pages_copied,
            rebased: self.base().id() != durable,
            more: true,
        })
    }

    fn plan(&self, choose: &Choose<'_>) -> Result<Option<Plan>> {
        let Some(kept) = choose(&self.layers()) else {
            return Ok(None);
        };
        let (tree, base) = {
            let state = self.state.read();
            state.check_whole()?;
            (state.tree.clone(), Arc::clone(&state.pages.base))
        };
        // Shared anew since it was chosen: more layers, of which none was looked at.
        let kept = kept.min(base.layer_count());
        let left = depths_left(&base, kept);
        let files = tree.changed_files();
        let files = files.filter(|(_, file)| file.table().iter().any(|(_, page)| left(page)));
        let mut files: Vec<Ino> = files.map(|(ino, _)| ino).collect();
        files.sort_unstable();
        Ok(Some(Plan {
            base,
            kept,
            files,
            at: 0,
            page: 0,
        }))
    }

    /// Copies the next pages; how many.
    fn copy_pages(&self, plan: &mut Plan) -> Result<u64> {
        let wanted = self.next_pages(plan);
        let mut pages = vec![0; wanted.len() * PAGE_BYTES];
        for (wanted, page) in wanted.iter().zip(pages.chunks_mut(PAGE_BYTES)) {
            plan.base.read(wanted.reference, page)?;
        }
        let mut state = self.state.write();
        state.check_whole()?;
        if !Arc::ptr_eq(&state.pages.base, &plan.base) {
            return Ok(0);
        }
        let mut copied = 0;
        for (wanted, page) in wanted.iter().zip(pages.chunks(PAGE_BYTES)) {
            // Overwritten or removed meanwhile: no longer used.
            let file = state.tree.get(wanted.ino).and_then(|node| node.contents());
            if !file.is_ok_and(|file| file.table().get(wanted.page) == wanted.reference) {
                continue;
            }
            let super::State { tree, pages, .. } = &mut *state;
            if let Content::File(contents) = &mut tree.get_mut(wanted.ino)?.content {
                contents.put(wanted.page, pages.copy_in(wanted.reference, page)?);
                copied += 1;
            }
        }
        if copied > 0 {
            state.changed = true;
        }
        Ok(copied)
    }

    /// Up to [`STEP_PAGES`] pages from where the plan is, which is moved on.
    fn next_pages(&self, plan: &mut Plan) -> Vec<Wanted> {
        let left = depths_left(&plan.base, plan.kept);
        let state = self.state.read();
        let (mut wanted, mut seen) = (Vec::new(), 0);
        while let Some(ino) = plan.files.get(plan.at).copied() {
            // Removed since the plan was made: it refers to nothing.
            if let Ok(contents) = state.tree.get(ino).and_then(|node| node.contents()) {
                for (page, reference) in contents.table().iter_from(plan.page) {
                    if wanted.len() == STEP_PAGES || seen == STEP_PAGES_SEEN {
                        plan.page = page;
                        return wanted;
                    }
                    seen += 1;
                    if left(reference) {
                        wanted.push(Wanted {
                            ino,
                            page,
                            reference,
                        });
                    }
                }
            }
            (plan.at, plan.page) = (plan.at + 1, 0);
        }
        wanted
    }

    /// Goes on over the layers that are kept, durably, once nothing refers to those above.
    fn leave(&self, plan: &Plan) -> Result<()> {
        let below = plan.base.ancestor(plan.kept);
        let (from, to) = (plan.base.depth() + 1, below.depth() + 1);
        let moved = |page: PageRef| match page.depth() == from {
            true => page.at_depth(to),
            false => page,
        };
        // Most of the work, done on what the tree was.
        let before = self.state.read().tree.clone();
        let after = before.rebase(below.tree(), &moved, None);
        let former = {
            let _held = self.slots_held.lock();
            let mut state = self.state.write();
            state.check_whole()?;
            let is_current = Arc::ptr_eq(&state.pages.base, &plan.base) && state.frozen.is_empty();
            let is_unused = state.pages.layered[plan.kept..]
                .iter()
                .all(|used| *used == 0);
            if !is_current || !is_unused {
                return Ok(());
            }
            let tree = state
                .tree
                .rebase(below.tree(), &moved, Some((&before, &after)));
            state.pages.base = below;
            state.pages.layered.truncate(plan.kept);
            state.changed = true;
            std::mem::replace(&mut state.tree, tree)
        };
        drop::<(Tree, Tree)>((former, before));
        self.flush().map(drop)
    }
}

/// Whether a page is in one of the layers above the `kept` lowest of a base.
fn depths_left(base: &Base, kept: usize) -> impl Fn(PageRef) -> bool + use<> {
    let top = usize::from(base.depth());
    let lowest = usize::from(TEMPLATE_DEPTH) + kept + 1;
    move |page| (lowest..=top).contains(&usize::from(page.depth()))
}

/// How many layers to keep so that most room is given back for what is copied.
fn kept_for_space(uses: &[LayerUse], referents: &dyn Fn(LayerId) -> u64) -> Option<usize> {
    let (mut gain, mut alone) = (0, true);
    let mut best = (LAYERS_SLACK_BYTES as i64 / PAGE_BYTES as i64, None);
    for (kept, layer) in uses.iter().enumerate().rev() {
        alone &= referents(layer.layer) <= 1;
        let freed = if alone { layer.pages } else { layer.pages / 4 };
        gain += freed as i64 - 2 * layer.used as i64;
        if gain > best.0 {
            best = (gain, Some(kept));
        }
    }
    best.1
}

/// How many layers to keep so that there are at most `max`. As layers are merged that are no larger than
/// what is merged into them, a page is copied no more often than the logarithm of all pages.
fn kept_for_depth(uses: &[LayerUse], max: usize) -> Option<usize> {
    let mut kept = uses.len().checked_sub(1).filter(|_| uses.len() > max)?;
    let mut merged = uses[kept].used;
    while kept > 0 && (kept > max || uses[kept - 1].used < merged) {
        kept -= 1;
        merged += uses[kept].used;
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DatabaseId;

    fn uses(layers: &[(u64, u64)]) -> Vec<LayerUse> {
        let origin = DatabaseId::new(1).unwrap();
        let layers = layers.iter().zip(0..);
        layers
            .map(|((pages, used), epoch)| LayerUse {
                layer: LayerId { origin, epoch },
                pages: *pages,
                used: *used,
            })
            .collect()
    }

    #[test]
    fn layers_are_left_when_that_frees_more_than_it_copies() {
        let alone = |_: LayerId| 1;
        let kept = |layers: &[(u64, u64)]| kept_for_space(&uses(layers), &alone);
        assert_eq!(kept(&[]), None);
        assert_eq!(kept(&[(1000, 1000)]), None);
        assert_eq!(kept(&[(1000, 468)]), None);
        assert_eq!(kept(&[(1000, 467)]), Some(0));
        assert_eq!(kept(&[(1000, 900), (1000, 0)]), Some(1));
        assert_eq!(kept(&[(1000, 0), (100, 100)]), Some(0));
        // The lower one is somebody else's too: only a fourth of it counts.
        let lower_shared = |layer: LayerId| 2 - u64::from(layer.epoch).min(1);
        let shared = |layers: &[(u64, u64)]| kept_for_space(&uses(layers), &lower_shared);
        assert_eq!(shared(&[(1000, 94), (10, 10)]), None);
        assert_eq!(shared(&[(1000, 80), (10, 10)]), Some(0));
        assert_eq!(shared(&[(1000, 300), (1000, 100)]), Some(1));
    }

    #[test]
    fn deep_stacks_lose_their_smallest() {
        let sized = |sizes: &[u64]| {
            let layers: Vec<_> = sizes.iter().map(|size| (*size, *size)).collect();
            uses(&layers)
        };
        assert_eq!(kept_for_depth(&sized(&[8, 4, 2]), 3), None);
        assert_eq!(kept_for_depth(&sized(&[8, 4, 2, 1]), 3), Some(3));
        assert_eq!(kept_for_depth(&sized(&[99, 40, 20, 3, 2]), 3), Some(3));
        assert_eq!(kept_for_depth(&sized(&[8, 1, 1, 1, 2]), 3), Some(1));
        assert_eq!(kept_for_depth(&sized(&[1, 1, 1, 9]), 3), Some(0));
    }
}
