//! Templates: what new databases are forked from, and where they are kept.
//!
//! A template is a folder `templates/ID` of the data directory: the volume's two files, and beside
//! them, for each build of the engine that has used it, an image of a backend booted on exactly
//! those files (`image-FINGERPRINT`), with the parameters that it told its first client. The
//! databases refer to it for as long as they live. It is made once a machine, in the cache folder,
//! and copied from there into each new data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use engine::{BackendLimits, Engine, EngineError, Image};
use volume::{Template, TemplateId, Volume};
use wire::pg::startup::Startup;
use wire::pg::{backend, frontend};

const KIND: [u8; 8] = *b"image\0\0\0";
const FORMAT_VERSION: u16 = 1;

/// The name of the user that owns everything in a new database.
pub(crate) const SUPERUSER: &str = "postgres";

/// What new databases are forked from.
pub(crate) struct CurrentTemplate {
    pub(crate) template: Arc<Template>,
    pub(crate) image: Image,
    /// The parameters that a session of it begins with.
    pub(crate) parameters: Vec<(String, String)>,
}

/// How names of images begin, in a template's folder.
const IMAGE_PREFIX: &str = "image-";

/// Statements that a template's backend runs before its image is taken, so that a fork finds the
/// catalog's entries for ordinary work in memory. They leave nothing behind.
const WARM_UP: [&str; 7] = [
    "SELECT 1",
    "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'public' AND relkind = 'r' ORDER BY 1",
    "BEGIN; CREATE TABLE warm (id int PRIMARY KEY, t text, at timestamptz DEFAULT now()); INSERT INTO warm VALUES (1, 'x'); UPDATE warm SET t = 'y' WHERE id = 1; SELECT count(*), max(t) FROM warm WHERE id = 1; DELETE FROM warm; ROLLBACK",
    "DO 'BEGIN PERFORM 1; END'",
    // What every wake begins with.
    "BEGIN; DELETE FROM pg_catalog.pg_database WHERE oid >= 1073741824 AND datname = 'x'; UPDATE pg_catalog.pg_database SET datname = 'x' WHERE oid = 5 AND datname <> 'x'; ROLLBACK",
    // Nothing of the statistics may be pending: see `Engine::join`.
    "SELECT pg_catalog.pg_stat_force_next_flush()",
    "CHECKPOINT",
];

/// Opens the newest template of this build in `templates`, copying it from the cache folder, or
/// making it there first.
pub(crate) async fn current(
    engine: &Engine,
    templates: &Path,
    cache: &Path,
) -> Result<CurrentTemplate, TemplateError> {
    let fingerprint = engine.fingerprint();
    let image_name = format!("{IMAGE_PREFIX}{fingerprint:016x}");
    if let Some(folder) = find(templates, &image_name)? {
        match open(&folder, &image_name, fingerprint) {
            Ok(current) => return Ok(current),
            Err(error) => tracing::warn!(%error, "the template's image is unusable"),
        }
    }
    let cached = cache.join(format!("template-{fingerprint:016x}"));
    let lock = cache_lock(&cached).await?;
    if !cached.join(&image_name).exists() {
        make(engine, &cached, &image_name, fingerprint).await?;
    }
    drop(lock);
    let template = Template::open(&cached)?;
    let folder = templates.join(template.id().to_string());
    copy(&cached, &folder)?;
    open(&folder, &image_name, fingerprint)
}

/// Held by the process that makes the template; others wait for it.
async fn cache_lock(cached: &Path) -> Result<fs::File, TemplateError> {
    let path = cached.with_extension("lock");
    let lock = tokio::task::spawn_blocking(move || {
        let file = fs::File::create(&path).map_err(io(&path))?;
        file.lock().map_err(io(&path))?;
        Ok(file)
    });
    lock.await
        .map_err(|error| TemplateError::Damaged(error.to_string()))?
}

/// Opens a template that some database refers to.
pub(crate) fn open_template(
    templates: &Path,
    id: TemplateId,
) -> Result<Arc<Template>, volume::VolumeError> {
    Template::open(&templates.join(id.to_string()))
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The engine could not make one.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its files could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::VolumeError),
    /// Its image could not be read or written.
    #[error(transparent)]
    Sealed(#[from] store::SealedError),
    /// A folder could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The image is not what this build wrote.
    #[error("the image is damaged: {0}")]
    Damaged(String),
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TemplateError {
    let path = path.to_owned();
    move |source| TemplateError::Io { path, source }
}

/// As a template's id is shown: 32 hexadecimal digits.
fn is_template_name(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.len() == 32 && name.bytes().all(is_digit)
}

fn find(templates: &Path, image_name: &str) -> Result<Option<PathBuf>, TemplateError> {
    for entry in fs::read_dir(templates).map_err(io(templates))? {
        let folder = entry.map_err(io(templates))?.path();
        // One that was being copied has another name.
        let name = folder.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(is_template_name) {
            continue;
        }
        if folder.join(image_name).exists() {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn open(
    folder: &Path,
    image_name: &str,
    fingerprint: u64,
) -> Result<CurrentTemplate, TemplateError> {
    let template = Template::open(folder)?;
    let bytes = store::read_sealed(
        &store::RealDisk,
        &folder.join(image_name),
        KIND,
        FORMAT_VERSION,
        fingerprint,
    )?;
    let damaged = || TemplateError::Damaged("it is cut short".to_owned());
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (parameters, image) = rest
        .split_at_checked(u32::from_le_bytes(*len) as usize)
        .ok_or_else(damaged)?;
    let parameters = serde_json::from_slice(parameters)
        .map_err(|error| TemplateError::Damaged(error.to_string()))?;
    Ok(CurrentTemplate {
        template,
        image: Image::decode(image)?,
        parameters,
    })
}

/// Makes a template and its image in `cached`.
async fn make(
    engine: &Engine,
    cached: &Path,
    image_name: &str,
    fingerprint: u64,
) -> Result<(), TemplateError> {
    let work = cached.with_extension(format!("{}.tmp", std::process::id()));
    let remove = |folder: &Path| match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove(&work).map_err(io(&work))?;
    fs::create_dir_all(&work).map_err(io(&work))?;
    let made = make_in(engine, &work, image_name, fingerprint).await;
    if made.is_ok() {
        remove(cached).map_err(io(cached))?;
        fs::rename(work.join("template"), cached).map_err(io(cached))?;
    }
    remove(&work).map_err(io(&work))?;
    made
}

async fn make_in(
    engine: &Engine,
    work: &Path,
    image_name: &str,
    fingerprint: u64,
) -> Result<(), TemplateError> {
    let volume = Arc::new(Volume::scratch(work)?);
    engine.initdb(Arc::clone(&volume)).await?;
    let first = engine
        .boot(Arc::clone(&volume), SUPERUSER, BackendLimits::default())
        .await;
    first
        .map_err(EngineError::Backend)?
        .shut_down()
        .await
        .map_err(EngineError::Backend)?;

    let mut backend = engine
        .boot(Arc::clone(&volume), SUPERUSER, BackendLimits::default())
        .await
        .map_err(EngineError::Backend)?;
    let mut startup = BytesMut::new();
    let greeting = Startup::new(SUPERUSER, SUPERUSER);
    greeting
        .encode(&mut startup)
        .map_err(|error| TemplateError::Damaged(error.to_string()))?;
    backend
        .connect(&startup)
        .await
        .map_err(EngineError::Backend)?;
    for statement in WARM_UP {
        frontend::query(backend.input(), statement.as_bytes())
            .map_err(|error| TemplateError::Damaged(error.to_string()))?;
        backend.exchange().await.map_err(EngineError::Backend)?;
    }
    let parameters = parameters(backend.output())?;
    backend.output().clear();

    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| TemplateError::Damaged(error.to_string()))?;
    let image = engine.image(&mut backend)?;
    let folder = work.join("template");
    volume.save_as_template(&folder, TemplateId::from_bytes(id))?;
    let path = folder.join(image_name);
    let encoded = image.encode();
    let parameters = serde_json::to_vec(&parameters)
        .map_err(|error| TemplateError::Damaged(error.to_string()))?;
    let mut bytes = (parameters.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&parameters);
    bytes.extend_from_slice(&encoded);
    store::write_sealed(
        &store::RealDisk,
        &path,
        KIND,
        FORMAT_VERSION,
        fingerprint,
        &bytes,
    )?;
    Ok(())
}

/// The parameters in a backend's answers; any error among them means that the warm-up failed.
fn parameters(output: &BytesMut) -> Result<Vec<(String, String)>, TemplateError> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    let damaged = |error: wire::PgError| TemplateError::Damaged(error.to_string());
    for (kind, body) in wire::pg::frames(output) {
        match kind {
            backend::kind::PARAMETER_STATUS => {
                let (name, value) = backend::decode_parameter_status(body).map_err(damaged)?;
                crate::session::set_parameter(&mut parameters, name, value);
            }
            backend::kind::ERROR_RESPONSE => {
                let error = wire::PgError::decode(body).map_err(damaged)?;
                return Err(TemplateError::Damaged(format!(
                    "the warm-up failed: {error}"
                )));
            }
            _ => {}
        }
    }
    Ok(parameters)
}

/// Gives a template that databases may be over the images that it lacks. Its files are the same.
fn add_images(from: &Path, to: &Path) -> Result<(), TemplateError> {
    for entry in fs::read_dir(from).map_err(io(from))? {
        let entry = entry.map_err(io(from))?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(IMAGE_PREFIX) {
            continue;
        }
        let temporary = to.join("image.tmp");
        fs::copy(entry.path(), &temporary).map_err(io(&temporary))?;
        fs::File::open(&temporary)
            .and_then(|file| file.sync_all())
            .map_err(io(&temporary))?;
        let target = to.join(name);
        fs::rename(&temporary, &target).map_err(io(&target))?;
    }
    store::Disk::sync_directory(&store::RealDisk, to).map_err(io(to))
}

/// Copies a template's files, so that a crash leaves either a whole template or none.
fn copy(from: &Path, to: &Path) -> Result<(), TemplateError> {
    if to.exists() {
        return add_images(from, to);
    }
    let temporary = to.with_extension("tmp");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io(&temporary))?;
    }
    fs::create_dir_all(&temporary).map_err(io(&temporary))?;
    for entry in fs::read_dir(from).map_err(io(from))? {
        let entry = entry.map_err(io(from))?;
        let target = temporary.join(entry.file_name());
        fs::copy(entry.path(), &target).map_err(io(&target))?;
        fs::File::open(&target)
            .and_then(|file| file.sync_all())
            .map_err(io(&target))?;
    }
    store::Disk::sync_directory(&store::RealDisk, &temporary).map_err(io(&temporary))?;
    fs::rename(&temporary, to).map_err(io(to))?;
    let parent = to.parent().unwrap_or(to);
    store::Disk::sync_directory(&store::RealDisk, parent).map_err(io(parent))
}
