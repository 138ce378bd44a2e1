//! Compiled code, kept from one start to the next.
//!
//! A module is compiled once for each combination of its bytes, wasmtime's version and settings,
//! the processor's features, and the version of our rewriting. Two files hold it: `KEY.code`, what
//! wasmtime serialized, and `KEY.about`, a sealed file with everything else and a checksum of the
//! code. What does not match, or is damaged, is compiled again.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::{CacheStore, Engine, Module};

use crate::codec::{Reader, Writer};
use crate::error::EngineError;
use crate::module::Description;
use crate::rewrite::{Dylink, Role, Segment, rewrite};

/// Raised whenever `rewrite` or the layout of `KEY.about` changes.
const FORMAT_VERSION: u16 = 17;
const KIND: [u8; 8] = *b"compiled";

/// Told about work that takes long: compiling, and making a template.
pub trait Progress: Send + Sync {
    /// `what` begins and has `steps` steps, or an unknown number if zero.
    fn begin(&self, what: &str, steps: u64);
    /// So many steps are done in all.
    fn advance(&self, done: u64);
    /// The work has ended.
    fn end(&self);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _steps: u64) {}
    fn advance(&self, _done: u64) {}
    fn end(&self) {}
}

/// A folder of compiled modules.
pub(crate) struct CompileCache {
    directory: PathBuf,
    progress: Arc<dyn Progress>,
}

impl CompileCache {
    pub(crate) fn open(directory: &Path, progress: Arc<dyn Progress>) -> Result<Self, EngineError> {
        // Code from here is run: nobody else may write to it.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| cache_error(directory, source))?;
        Ok(Self {
            directory: directory.to_owned(),
            progress,
        })
    }

    pub(crate) fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    /// The compiled module and what is known of it; `wasm` is asked for only if it must be
    /// compiled. `hash` identifies its bytes.
    pub(crate) fn load(
        &self,
        engine: &Engine,
        name: &str,
        hash: &[u8; 32],
        role: Role,
        wasm: impl FnOnce() -> Vec<u8>,
    ) -> Result<(Module, Description), EngineError> {
        let key = key(engine, hash);
        let code_path = self.directory.join(format!("{key:016x}.code"));
        let about_path = self.directory.join(format!("{key:016x}.about"));
        match read(engine, &code_path, &about_path, key) {
            Ok(found) => return Ok(found),
            Err(reason) if about_path.exists() => {
                tracing::warn!(name, %reason, "compiled code is unusable; compiling again");
            }
            Err(_) => {}
        }
        // Another process may be compiling the same: wait for it, then look again.
        let lock_path = code_path.with_extension("lock");
        let lock =
            fs::File::create(&lock_path).map_err(|source| cache_error(&lock_path, source))?;
        lock.lock()
            .map_err(|source| cache_error(&lock_path, source))?;
        if let Ok(found) = read(engine, &code_path, &about_path, key) {
            return Ok(found);
        }
        let rewritten = rewrite(&wasm(), role).map_err(|source| EngineError::Rewrite {
            name: name.to_owned(),
            source,
        })?;
        let code = self.compile(name, &rewritten.wasm)?;
        let description = Description::from(rewritten);
        let about = encode(&description, &code);
        write_atomic(&code_path, &code).map_err(|source| cache_error(&code_path, source))?;
        store::write_sealed(
            &store::RealDisk,
            &about_path,
            KIND,
            FORMAT_VERSION,
            key,
            &about,
        )
        .map_err(|error| cache_error(&about_path, std::io::Error::other(error.to_string())))?;
        let module = deserialize(engine, &code_path).map_err(EngineError::Wasm)?;
        Ok((module, description))
    }

    fn compile(&self, name: &str, wasm: &[u8]) -> Result<Vec<u8>, EngineError> {
        let counter = Arc::new(Counter {
            done: AtomicU64::new(0),
            progress: Arc::clone(&self.progress),
        });
        let mut config = crate::engine::configuration();
        config
            .enable_incremental_compilation(counter)
            .map_err(EngineError::Wasm)?;
        let compiler = Engine::new(&config).map_err(EngineError::Wasm)?;
        self.progress
            .begin(&format!("compiling {name} (once)"), functions(wasm));
        let code = compiler.precompile_module(wasm).map_err(EngineError::Wasm);
        self.progress.end();
        code
    }
}

/// Counts compiled functions. wasmtime offers each to this store as it is done; none is kept.
struct Counter {
    done: AtomicU64,
    progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Counter")
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl CacheStore for Counter {
    fn get(&self, _key: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }

    fn insert(&self, _key: &[u8], _value: Vec<u8>) -> bool {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(64) {
            self.progress.advance(done);
        }
        true
    }
}

fn functions(wasm: &[u8]) -> u64 {
    wasmparser::Parser::new(0)
        .parse_all(wasm)
        .find_map(|payload| match payload {
            Ok(wasmparser::Payload::FunctionSection(section)) => Some(u64::from(section.count())),
            _ => None,
        })
        .unwrap_or_default()
}

fn key(engine: &Engine, hash: &[u8; 32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash.hash(&mut hasher);
    FORMAT_VERSION.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn read(
    engine: &Engine,
    code_path: &Path,
    about_path: &Path,
    key: u64,
) -> Result<(Module, Description), String> {
    let about = store::read_sealed(&store::RealDisk, about_path, KIND, FORMAT_VERSION, key)
        .map_err(|error| error.to_string())?;
    let mut reader = Reader::new(&about);
    let (len, checksum) = (reader.u64()?, reader.u32()?);
    let description = decode(&mut reader)?;
    let code = fs::read(code_path).map_err(|error| error.to_string())?;
    if code.len() as u64 != len || crc32c::crc32c(&code) != checksum {
        return Err("the code's checksum differs".to_owned());
    }
    drop(code);
    let module = deserialize(engine, code_path).map_err(|error| format!("{error:#}"))?;
    Ok((module, description))
}

fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Module> {
    // SAFETY: the file was written by `precompile_module` of an engine with the same
    // compatibility hash (it is part of the key), into a folder that only this user may write,
    // and its checksum was compared or it was written a moment ago.
    unsafe { Module::deserialize_file(engine, path) }
}

fn encode(description: &Description, code: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u64(code.len() as u64);
    writer.u32(crc32c::crc32c(code));
    writer.u32(description.first_callback);
    writer.u32(description.dylink.memory_bytes);
    writer.u32(description.dylink.memory_align_log2);
    writer.u32(description.dylink.table_slots);
    writer.u32(description.segments.len() as u32);
    for segment in &description.segments {
        writer.u32(segment.offset);
        writer.bytes(&segment.bytes);
    }
    for map in [&description.symbols, &description.function_slots] {
        writer.u32(map.len() as u32);
        for (name, value) in map {
            writer.bytes(name.as_bytes());
            writer.u32(*value);
        }
    }
    writer.u32(description.mutable_globals.len() as u32);
    for name in &description.mutable_globals {
        writer.bytes(name.as_bytes());
    }
    writer.finish()
}

fn decode(reader: &mut Reader<'_>) -> Result<Description, String> {
    let first_callback = reader.u32()?;
    let dylink = Dylink {
        memory_bytes: reader.u32()?,
        memory_align_log2: reader.u32()?,
        table_slots: reader.u32()?,
    };
    let mut segments = Vec::new();
    for _ in 0..reader.u32()? {
        segments.push(Segment {
            offset: reader.u32()?,
            bytes: reader.bytes()?.to_vec(),
        });
    }
    let mut maps = [HashMap::new(), HashMap::new()];
    for map in &mut maps {
        for _ in 0..reader.u32()? {
            let name = reader.string()?;
            map.insert(name, reader.u32()?);
        }
    }
    let mut mutable_globals = Vec::new();
    for _ in 0..reader.u32()? {
        mutable_globals.push(reader.string()?);
    }
    let [symbols, function_slots] = maps;
    Ok(Description {
        segments,
        dylink,
        first_callback,
        symbols,
        function_slots,
        mutable_globals,
    })
}

fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path)
}

fn cache_error(path: &Path, source: std::io::Error) -> EngineError {
    EngineError::Cache {
        path: path.to_owned(),
        source,
    }
}
