//! What a version is made of, read back.

use super::{
    Store, StoreError, context,
    record::{self, StoredFile, Version},
};
use crate::{Values, modules::Backend};
use std::{fs, os::unix::fs::FileExt as _};

impl Store {
    /// The backend of a version.
    ///
    /// # Errors
    /// If its bytes are not there, or not what they were.
    pub fn backend(&self, version: &Version) -> Result<Option<Backend>, StoreError> {
        let Some(stored) = &version.backend else {
            return Ok(None);
        };
        stored.load(|file| self.read(version, file)).map(Some)
    }

    /// The bytes of a file of a version.
    ///
    /// # Errors
    /// If they are not there, or not what they were.
    pub fn read(&self, version: &Version, file: &StoredFile) -> Result<Vec<u8>, StoreError> {
        let path = self.pack_path(&version.app, version.number);
        let failed = |source| StoreError::Disk {
            path: path.clone(),
            source,
        };
        let pack = fs::File::open(&path).map_err(failed)?;
        let damaged = |why: &str| StoreError::Damaged {
            path: path.clone(),
            why: why.to_owned(),
        };
        // A length that is not true must not ask for memory.
        let length = pack.metadata().map_err(failed)?.len();
        if file
            .offset
            .checked_add(file.bytes)
            .is_none_or(|end| end > length)
        {
            return Err(damaged("it is shorter than its record says"));
        }
        let mut bytes = vec![0; usize::try_from(file.bytes).unwrap_or_default()];
        pack.read_exact_at(&mut bytes, file.offset)
            .map_err(failed)?;
        if !file.is(&bytes) {
            return Err(damaged("a file in it is not what was written"));
        }
        Ok(bytes)
    }

    /// The variables and secrets of a version, in this order.
    ///
    /// # Errors
    /// If they do not open.
    pub fn values(&self, version: &Version) -> Result<(Values, Values), StoreError> {
        let path = self.record_path(&version.app, version.number);
        let context = context(&version.app, version.number);
        let open = |sealed: &str| {
            let damaged = |why: String| StoreError::Damaged {
                path: path.clone(),
                why,
            };
            let sealed = record::unprinted(sealed).map_err(|why| damaged(why.to_owned()))?;
            let opened = self.vault.open(&context, &sealed);
            let text = opened.map_err(|error| damaged(error.to_string()))?;
            Values::from_json(&text).map_err(|_| damaged("its values are none".to_owned()))
        };
        Ok((open(&version.vars)?, open(&version.secrets)?))
    }
}
