//! One database of the directory.

use std::collections::BTreeMap;
use std::path::Path;

use volume::{DatabaseId, Ino, LayerId, Volume};

use super::model::Model;
use super::tree::File;

#[derive(Debug)]
pub(super) struct Database {
    pub(super) id: u64,
    pub(super) model: Model,
    /// The layers that it is over, the topmost first, as the directory has them.
    pub(super) chain: Vec<LayerId>,
    pub(super) open: Option<Volume>,
    /// It was opened by this process: what the model has of its log is what the journal has.
    pub(super) was_opened: bool,
    /// A write failed half way: a page may be unreadable, and a flush be refused.
    pub(super) torn: bool,
    /// A sync failed: it must be opened anew to be flushed.
    pub(super) broken: bool,
    /// The limit `volume.bytes_max`, if it was set.
    pub(super) bytes_max: Option<u64>,
    /// A file other than the log was synced since the last flush.
    pub(super) synced: bool,
    /// Files that are open; those without a name have their contents here.
    pub(super) held: BTreeMap<Ino, Option<File>>,
}

impl Database {
    pub(super) fn new(id: u64, model: Model, chain: Vec<LayerId>) -> Self {
        Self {
            id,
            model,
            chain,
            open: None,
            was_opened: false,
            torn: false,
            broken: false,
            bytes_max: None,
            synced: false,
            held: BTreeMap::new(),
        }
    }

    pub(super) fn database_id(&self) -> DatabaseId {
        DatabaseId::new(self.id).expect("BUG: ids begin with 1")
    }

    /// Its volume, which whoever asks knows to be open.
    pub(super) fn volume(&self) -> &Volume {
        self.open.as_ref().expect("BUG: the volume is not open")
    }

    /// The last entry of the journal that the volume names; 0 for none.
    pub(super) fn last_entry(&self) -> u64 {
        let last = self.volume().last_entry();
        last.map_or(0, store::Position::get)
    }

    /// Lets go of the volume; what was not flushed or synced is lost.
    pub(super) fn drop_volume(&mut self) {
        if self.open.take().is_some() {
            self.model.dropped();
        }
        self.forget_use();
    }

    /// The process has ended.
    pub(super) fn end(&mut self) {
        self.open = None;
        self.was_opened = false;
        self.model.ended();
        self.forget_use();
    }

    fn forget_use(&mut self) {
        (self.torn, self.broken, self.synced) = (false, false, false);
        self.bytes_max = None;
        self.held.clear();
    }

    /// Whether a file of the host is one of this database's pages files.
    pub(super) fn owns(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let prefix = format!("{:016x}.", self.id);
        name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".pages"))
    }
}
