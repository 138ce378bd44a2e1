//! Reading files that others must not read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// The most that is read; keys and passwords are far smaller.
const BYTES_MAX: u64 = 1 << 20;

/// Reads a secret. If every user of the machine may do so too, the log says it.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        tracing::warn!(
            file = %path.display(),
            "every user of this machine may read or write a secret: chmod o= it"
        );
    }
    // All of it at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(file.metadata()?.len() as usize + 1));
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
