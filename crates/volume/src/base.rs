//! What a volume starts from: a template, or a layer over another base. Shared, and never changed.
//!
//! Invariants
//! 1. The pages files of a base have depths: the template's is 1, that of each layer one more. A page
//!    reference names its file by depth, so reading a page takes one step however many layers there are.
//! 2. The tree of a base holds the changes of all its layers in one.

use std::sync::Arc;

use crate::error::Result;
use crate::id::{BaseId, LayerId};
use crate::page::{DEPTH_MAX, PageRef, TEMPLATE_DEPTH};
use crate::pages_file::PagesFile;
use crate::slots::slot_count;
use crate::template::Template;
use crate::tree::TreeBase;

/// Layers that one volume may have below it, the limit `volume.layers_max`. Sharing a volume that has
/// so many merges them first.
pub const LAYERS_MAX: usize = 16;

const _: () = assert!(LAYERS_MAX + 2 <= DEPTH_MAX as usize);

/// What volumes are made from: a template, or the state of a volume when it was shared.
#[derive(Debug)]
pub struct Base {
    id: BaseId,
    template: Arc<Template>,
    /// The base below each layer, the template itself first; one less than depths.
    below: Option<Arc<Self>>,
    /// Slots of its pages file that pages may be in.
    slots: u32,
    /// Pages that are in it.
    pages: u64,
    /// The pages files of all layers, the first at depth 2.
    layers: Vec<Option<Arc<PagesFile>>>,
    tree: TreeBase,
}

impl Base {
    /// The template as a base.
    pub fn template(template: Arc<Template>) -> Arc<Self> {
        Arc::new(Self {
            id: BaseId::Template(template.id()),
            slots: template.page_count(),
            pages: u64::from(template.page_count()),
            tree: TreeBase::new(template.nodes()),
            below: None,
            layers: Vec::new(),
            template,
        })
    }

    /// A layer over `below`, with pages in the slots `used` of its file.
    pub(crate) fn layer(
        below: &Arc<Self>,
        id: LayerId,
        tree: TreeBase,
        file: Option<Arc<PagesFile>>,
        used: &[u32],
    ) -> Arc<Self> {
        let mut layers = below.layers.clone();
        layers.push(file);
        Arc::new(Self {
            id: BaseId::Layer(id),
            template: Arc::clone(&below.template),
            below: Some(Arc::clone(below)),
            slots: slot_count(used),
            pages: used.len() as u64,
            layers,
            tree,
        })
    }

    /// Its name.
    pub fn id(&self) -> BaseId {
        self.id
    }

    /// The template at the bottom.
    pub fn bottom(&self) -> &Arc<Template> {
        &self.template
    }

    /// The base that this layer is over; `None` for a template.
    pub fn below(&self) -> Option<&Arc<Self>> {
        self.below.as_ref()
    }

    /// The base that the `layers` lowest of its layers make.
    pub(crate) fn ancestor(self: &Arc<Self>, layers: usize) -> Arc<Self> {
        let mut at = self;
        while let Some(below) = at.below.as_ref().filter(|_| at.layer_count() > layers) {
            at = below;
        }
        Arc::clone(at)
    }

    /// Pages in the topmost pages file that it refers to.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// How many layers it has.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The depth of its topmost pages file.
    pub(crate) fn depth(&self) -> u8 {
        TEMPLATE_DEPTH + u8::try_from(self.layers.len()).expect("BUG: more layers than depths")
    }

    pub(crate) fn tree(&self) -> &TreeBase {
        &self.tree
    }

    /// Slots of the pages file at `depth`: no page is beyond.
    pub(crate) fn slots_at(&self, depth: u8) -> u32 {
        match &self.below {
            _ if depth == self.depth() => self.slots,
            Some(below) => below.slots_at(depth),
            None => 0,
        }
    }

    /// Reads a page of the template or of a layer. `page` is a page long.
    pub(crate) fn read(&self, reference: PageRef, page: &mut [u8]) -> Result<()> {
        let (slot, crc) = (reference.slot(), reference.crc());
        match reference.depth().checked_sub(TEMPLATE_DEPTH + 1) {
            None => self.template.read_page(slot, crc, page),
            Some(layer) => self
                .layers
                .get(usize::from(layer))
                .and_then(Option::as_ref)
                .expect("BUG: a page of a layer that has no pages")
                .read(slot, crc, page),
        }
    }
}
