//! The volumes of a data directory: what they share.
//!
//! In one directory, for each database that was ever flushed `ID.manifest` and, once it has own pages,
//! `ID.EPOCH.pages`; for each layer `ORIGIN.EPOCH.manifest` and `ORIGIN.EPOCH.pages`.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use store::{Disk, Journal, OpenHow, RealDisk};

use crate::base::{Base, LAYERS_MAX};
use crate::error::{Result, VolumeError};
use crate::id::{BaseId, DatabaseId, LayerId, TemplateId};
use crate::manifest::{self, Header, Malformed};
use crate::pages_file::PagesFile;
use crate::slots::slot_count;
use crate::template::Template;

/// Finds a template; the empty one is never asked for.
pub type FindTemplate = dyn Fn(TemplateId) -> Result<Arc<Template>> + Send + Sync;

/// What the volumes of a data directory share: disk, journal, generation, and the bases they have
/// in common.
pub struct Volumes {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    journal: Option<Journal>,
    generation: u64,
    templates: Box<FindTemplate>,
    layers: Mutex<HashMap<LayerId, Weak<Base>>>,
    /// `disk.reserve_bytes` while the disk has less left, else 0.
    reserve_bytes: AtomicU64,
    /// How often that began.
    shortages: AtomicU64,
    /// The reserve that writes look after themselves; 0 for none.
    watched_bytes: AtomicU64,
    /// Bytes written since the disk was looked at.
    written: AtomicU64,
    /// Whether the names in the directory are known to be durable.
    names_settled: Mutex<bool>,
}

/// Bytes that are written before the disk's free bytes are asked for again.
const LOOK_BYTES: u64 = 1 << 20;

/// That the disk of the data directory has less left than is reserved, since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortDisk {
    pub(crate) reserve_bytes: u64,
    shortage: u64,
}

impl fmt::Debug for Volumes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Volumes")
            .field("directory", &self.directory)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Volumes {
    /// The volumes in `directory`, which exists. Without a journal nothing but a flush is durable.
    /// `generation` is that of whoever may write them now: above that of every earlier writer.
    pub fn new(
        disk: Arc<dyn Disk>,
        directory: &Path,
        journal: Option<Journal>,
        generation: u64,
        templates: Box<FindTemplate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            disk,
            directory: directory.to_owned(),
            journal,
            generation,
            templates,
            layers: Mutex::default(),
            reserve_bytes: AtomicU64::new(0),
            shortages: AtomicU64::new(0),
            watched_bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            names_settled: Mutex::new(false),
        })
    }

    /// Volumes in a directory of the real disk, without journal and templates.
    pub fn plain(directory: &Path) -> Arc<Self> {
        let no_templates = Box::new(|_| Err(VolumeError::NotFound));
        Self::new(Arc::new(RealDisk), directory, None, 1, no_templates)
    }

    /// The journal, if there is one.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Whether data files may not grow, because the disk has fewer bytes left than are reserved for the
    /// journal, WAL and checkpoints: `Some` of the limit `disk.reserve_bytes`, above 0, which the errors
    /// name. What grows in spite of that is told at [`BYTES_RESERVE`](crate::BYTES_RESERVE).
    pub fn set_refusing_growth(&self, reserve_bytes: Option<u64>) {
        let reserve_bytes = reserve_bytes.unwrap_or_default();
        let before = self.reserve_bytes.swap(reserve_bytes, Ordering::AcqRel);
        if before == 0 && reserve_bytes > 0 {
            self.shortages.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Has writes see to it that data files grow no more once fewer than `reserve_bytes` are free: a
    /// statement can write a whole reserve before anybody else looks. Only
    /// [`set_refusing_growth`](Self::set_refusing_growth) with `None` ends that.
    pub fn watch_reserve(&self, reserve_bytes: u64) {
        self.watched_bytes.store(reserve_bytes, Ordering::Release);
    }

    /// Counts what is written, and looks at the disk every so often.
    pub(crate) fn wrote(&self, bytes: u64) {
        let reserve_bytes = self.watched_bytes.load(Ordering::Acquire);
        if reserve_bytes == 0 {
            return;
        }
        if self.written.fetch_add(bytes, Ordering::AcqRel) + bytes < LOOK_BYTES {
            return;
        }
        self.written.store(0, Ordering::Release);
        // Whoever set the watch asks too, and tells if it cannot be asked.
        let free = self.disk.free_bytes(&self.directory);
        if free.is_ok_and(|free| free < reserve_bytes) {
            self.set_refusing_growth(Some(reserve_bytes));
        }
    }

    pub(crate) fn short_disk(&self) -> Option<ShortDisk> {
        let reserve_bytes = self.reserve_bytes.load(Ordering::Acquire);
        (reserve_bytes > 0).then(|| ShortDisk {
            reserve_bytes,
            shortage: self.shortages.load(Ordering::Acquire),
        })
    }

    /// The base of that name. One that something in this process is based on is shared.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] if there is no such base, [`VolumeError::Corrupt`] if its files are
    /// not what was written.
    pub fn base(&self, id: BaseId) -> Result<Arc<Base>> {
        let layer = match id {
            BaseId::Template(TemplateId::EMPTY) => return Ok(Base::template(Template::empty())),
            BaseId::Template(id) => {
                let template = (self.templates)(id)?;
                if template.id() != id {
                    return Err(VolumeError::Invalid(
                        "another template was given than asked",
                    ));
                }
                return Ok(Base::template(template));
            }
            BaseId::Layer(layer) => layer,
        };
        if let Some(base) = self.layers.lock().get(&layer).and_then(Weak::upgrade) {
            return Ok(base);
        }
        let base = self.open_layer(layer)?;
        self.keep_layer(layer, &base);
        Ok(base)
    }

    /// Removes a layer's files durably; none being there is fine. Nothing may be based on it.
    ///
    /// # Errors
    /// [`VolumeError::Io`] if a file cannot be removed; call again to finish.
    pub fn remove_layer(&self, layer: LayerId) -> Result<()> {
        self.layers.lock().remove(&layer);
        // First, so that the sync of the directory that follows the other is one of both.
        self.remove_file(&self.pages_path(layer.origin, layer.epoch))?;
        store::remove_sealed(&*self.disk, &self.layer_path(layer)).map_err(VolumeError::from_write)
    }

    /// The base that a layer is over, read from its file.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], [`VolumeError::Corrupt`], [`VolumeError::Io`].
    pub fn base_of_layer(&self, layer: LayerId) -> Result<BaseId> {
        let path = self.layer_path(layer);
        Ok(self.read_manifest(&path, layer.origin)?.0.base)
    }

    pub(crate) fn keep_layer(&self, layer: LayerId, base: &Arc<Base>) {
        let mut layers = self.layers.lock();
        layers.retain(|_, base| base.strong_count() > 0);
        layers.insert(layer, Arc::downgrade(base));
    }

    fn open_layer(&self, layer: LayerId) -> Result<Arc<Base>> {
        let path = self.layer_path(layer);
        let (header, payload) = self.read_manifest(&path, layer.origin)?;
        let below = self.base(header.base)?;
        if below.layer_count() >= LAYERS_MAX {
            return Err(VolumeError::corrupt(&path, "too many layers below it"));
        }
        let manifest = manifest::decode(&payload, &below)
            .map_err(|Malformed(reason)| VolumeError::corrupt(&path, reason))?;
        let pages = match slot_count(&manifest.own_slots) {
            0 => None,
            slots => Some(Arc::new(PagesFile::open(
                &self.disk,
                &self.pages_path(layer.origin, layer.epoch),
                OpenHow::Read,
                slots,
            )?)),
        };
        Ok(Base::layer(
            &below,
            layer,
            manifest.tree.freeze(),
            pages,
            &manifest.own_slots,
        ))
    }

    /// A manifest's header and its whole payload.
    pub(crate) fn read_manifest(
        &self,
        path: &Path,
        owner: DatabaseId,
    ) -> Result<(Header, Vec<u8>)> {
        let (kind, format) = (manifest::VOLUME_KIND, manifest::FORMAT);
        let payload = store::read_sealed(&*self.disk, path, kind, format, owner.get())
            .map_err(|error| VolumeError::from_read(path, error))?;
        let header = manifest::header_of(&payload)
            .map_err(|Malformed(reason)| VolumeError::corrupt(path, reason))?;
        Ok((header, payload))
    }

    pub(crate) fn write_manifest(
        &self,
        path: &Path,
        owner: DatabaseId,
        payload: &[u8],
    ) -> Result<(), store::SealedError> {
        let (kind, format) = (manifest::VOLUME_KIND, manifest::FORMAT);
        store::write_sealed(&*self.disk, path, kind, format, owner.get(), payload).inspect_err(
            |error| {
                if matches!(error, store::SealedError::NotDurable { .. }) {
                    *self.names_settled.lock() = false;
                }
            },
        )
    }

    /// Makes the names in the directory durable, unless they are known to be. A manifest that is there may
    /// have been renamed by a process that ended before it had synced that, or failed to: who takes it for
    /// the durable version, and overwrites what only the one before refers to, must see to it first.
    pub(crate) fn settle_names(&self) -> Result<()> {
        let mut settled = self.names_settled.lock();
        if !*settled {
            let synced = self.disk.sync_directory(&self.directory);
            synced.map_err(|source| VolumeError::io("sync", &self.directory, source))?;
            *settled = true;
        }
        Ok(())
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn manifest_path(&self, id: DatabaseId) -> PathBuf {
        self.directory.join(format!("{id}.manifest"))
    }

    pub(crate) fn layer_path(&self, layer: LayerId) -> PathBuf {
        self.directory.join(format!("{layer}.manifest"))
    }

    pub(crate) fn pages_path(&self, id: DatabaseId, epoch: u32) -> PathBuf {
        self.directory.join(format!("{id}.{epoch:x}.pages"))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        match self.disk.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(VolumeError::io("remove", path, source))
            }
            _ => Ok(()),
        }
    }
}
