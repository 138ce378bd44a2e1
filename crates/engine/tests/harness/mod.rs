//! An engine, a template with an image of its backend, and SQL on backends in text.

#![allow(dead_code, reason = "each user needs a part")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dormouse_engine::{Backend, BackendError, BackendLimits, Engine, EngineOptions, Image};
use volume::{Base, DatabaseId, Template, TemplateId, Volume, Volumes};

/// What tests fork backends from.
pub(crate) struct Ground {
    pub(crate) engine: Engine,
    pub(crate) image: Image,
    template: Arc<Template>,
    volumes: Arc<Volumes>,
    _folder: tempfile::TempDir,
    next: AtomicU64,
}

impl Ground {
    /// Compiles into `cache` what is not there yet, and makes a template.
    pub(crate) async fn new(cache: &Path) -> Self {
        let engine = Engine::open(EngineOptions::new(cache.join("code"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let volume = Arc::new(Volume::scratch(folder.path()).unwrap());
        engine.initdb(Arc::clone(&volume)).await.unwrap();
        boot(&engine, &volume).await.shut_down().await.unwrap();
        let mut backend = boot(&engine, &volume).await;
        connect(&mut backend).await;
        for statement in [
            "SELECT 1",
            "BEGIN; CREATE TABLE warm (id int PRIMARY KEY, t text); INSERT INTO warm VALUES (1, 'x'); \
             UPDATE warm SET t = 'y' WHERE id = 1; SELECT * FROM warm; ROLLBACK",
            "SELECT pg_stat_force_next_flush()",
            "CHECKPOINT",
        ] {
            run(&mut backend, statement).await;
        }
        let image = engine.image(&mut backend).unwrap();
        let path = folder.path().join("template");
        let id = TemplateId::from_bytes([7; 16]);
        volume.save_as_template(&path, id).unwrap();
        drop(backend);
        let template = Template::open(&path).unwrap();
        let found = Arc::clone(&template);
        let volumes = Volumes::new(
            Arc::new(store::RealDisk),
            folder.path(),
            None,
            1,
            Box::new(move |_| Ok(Arc::clone(&found))),
        );
        Self {
            engine,
            image,
            template,
            volumes,
            _folder: folder,
            next: AtomicU64::new(1),
        }
    }

    fn id(&self) -> DatabaseId {
        DatabaseId::new(self.next.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    /// A new database.
    pub(crate) fn volume(&self) -> Arc<Volume> {
        let template = Arc::clone(&self.template);
        Arc::new(Volume::create(&self.volumes, self.id(), &Base::template(template)).unwrap())
    }

    /// A database that starts as `volume` is now.
    pub(crate) fn copy(&self, volume: &Volume) -> Arc<Volume> {
        let base = self.volumes.base(volume.share().unwrap()).unwrap();
        Arc::new(Volume::create(&self.volumes, self.id(), &base).unwrap())
    }

    pub(crate) async fn fork(&self, volume: &Arc<Volume>) -> Backend {
        self.engine
            .fork(&self.image, Arc::clone(volume), BackendLimits::default())
            .await
            .unwrap()
    }

    pub(crate) async fn resume(
        &self,
        saved: &[u8],
        volume: &Arc<Volume>,
    ) -> Result<Backend, BackendError> {
        self.engine
            .resume(
                &self.image,
                saved,
                Arc::clone(volume),
                BackendLimits::default(),
            )
            .await
    }
}

pub(crate) async fn boot(engine: &Engine, volume: &Arc<Volume>) -> Backend {
    engine
        .boot(Arc::clone(volume), "postgres", BackendLimits::default())
        .await
        .unwrap()
}

pub(crate) async fn connect(backend: &mut Backend) {
    let parameters = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let mut startup = (parameters.len() as u32 + 4).to_be_bytes().to_vec();
    startup.extend_from_slice(parameters);
    backend.connect(&startup).await.unwrap();
    backend.output().clear();
}

/// The rows of the last statement, a column's text each; `Err` has the message of an error.
pub(crate) async fn query(backend: &mut Backend, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let input = backend.input();
    input.extend_from_slice(b"Q");
    input.extend_from_slice(&(sql.len() as u32 + 5).to_be_bytes());
    input.extend_from_slice(sql.as_bytes());
    input.extend_from_slice(b"\0");
    backend.exchange().await.unwrap();
    let output = backend.output().split();
    let mut rows = Vec::new();
    let mut rest = &output[..];
    while let [kind, len @ ..] = rest {
        let len = word(len) as usize;
        let body = &rest[5..=len];
        rest = &rest[len + 1..];
        match kind {
            b'T' => rows.clear(),
            b'D' => rows.push(columns(body)),
            b'E' => {
                let message = body.split(|byte| *byte == 0).find(|f| f.starts_with(b"M"));
                return Err(String::from_utf8_lossy(message.unwrap_or_default()).into_owned());
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// As [`query`], of which an error is a failure.
pub(crate) async fn run(backend: &mut Backend, sql: &str) -> Vec<Vec<String>> {
    match query(backend, sql).await {
        Ok(rows) => rows,
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// The one value of a query's one row.
pub(crate) async fn value(backend: &mut Backend, sql: &str) -> String {
    let mut rows = run(backend, sql).await;
    assert_eq!((rows.len(), rows[0].len()), (1, 1), "{sql}");
    rows.remove(0).remove(0)
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}

/// A NULL is an empty text here.
fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while !rest.is_empty() {
        let len = word(rest) as i32;
        let len = usize::try_from(len).unwrap_or(0);
        columns.push(String::from_utf8_lossy(&rest[4..4 + len]).into_owned());
        rest = &rest[4 + len..];
    }
    columns
}
