//! Making a data directory: `initdb` itself, run in wasm.

use std::sync::Arc;

use volume::{Ino, Mtime, Volume};

use crate::engine::EngineInner;
use crate::error::EngineError;

/// The command line of `initdb`. Checksums catch what the volume's own cannot; WAL in small
/// segments keeps a small database small.
const ARGUMENTS: [&str; 10] = [
    "/pglite/bin/initdb",
    "--username=postgres",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--locale=C.UTF-8",
    "--auth=trust",
    "--data-checksums",
    "--wal-segsize=1",
    "--allow-group-access",
    "--no-instructions",
];

/// Settings of every database, appended to what `initdb` wrote. Each may be changed by
/// `ALTER SYSTEM` or `ALTER DATABASE`.
pub(crate) const SETTINGS: &str = "
# Dormouse
listen_addresses = ''
shared_buffers = 4MB            # pages are cached below, once for all databases
shared_preload_libraries = 'pg_stat_statements,pg_textsearch'
fsync = on
full_page_writes = off          # the volume writes pages atomically
wal_level = replica
max_wal_senders = 0
wal_init_zero = off             # segments need no room reserved in a volume
wal_recycle = off
wal_buffers = 64kB              # what was written stays in the memory, and in saved backends
min_wal_size = 2MB
max_wal_size = 64MB
checkpoint_timeout = 1d         # the host decides when
autovacuum = off                # there is no process for it; the host runs VACUUM
log_checkpoints = off
max_connections = 100
max_prepared_transactions = 0
timezone = 'UTC'
log_timezone = 'UTC'
jit = off
";

/// Local connections only; there is nothing else to match.
const HBA: &str = "local all all trust\n";

pub(crate) async fn run(engine: &Arc<EngineInner>, volume: Arc<Volume>) -> Result<(), EngineError> {
    engine.progress().begin("making the template (once)", 0);
    let ran = engine.run_initdb(Arc::clone(&volume), &ARGUMENTS).await;
    engine.progress().end();
    let (status, output) = ran?;
    if status != 0 {
        return Err(EngineError::Initdb { status, output });
    }
    append(&volume, "postgresql.conf", SETTINGS, false)?;
    append(&volume, "pg_hba.conf", HBA, true)?;
    Ok(())
}

fn append(volume: &Volume, name: &str, text: &str, replace: bool) -> Result<(), EngineError> {
    let ino = volume.lookup(Ino::ROOT, name)?;
    let mtime = Mtime::default();
    if replace {
        volume.set_len(ino, 0, mtime)?;
    }
    let end = volume.node(ino)?.len;
    volume.write(ino, end, text.as_bytes(), mtime)?;
    Ok(())
}
