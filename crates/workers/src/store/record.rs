//! The record of a version.

use super::{NewVersion, StoreError};
use crate::{
    App, PostgresBinding, Routing,
    modules::{Backend, Code, Compatibility, Module},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Where a version comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The repository as the sender writes it, `owner/repo`.
    pub repository: String,
    /// The branch.
    pub branch: String,
    /// The commit.
    pub commit_sha: String,
}

/// A file of a version: where its bytes are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Where its bytes begin in the pack.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal digits: also the file's entity tag.
    pub sha256: String,
}

impl StoredFile {
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        self.has_hash(Sha256::new_with_prefix(bytes))
    }

    /// Whether this hash, of all its bytes, is its.
    pub(super) fn has_hash(&self, hash: Sha256) -> bool {
        self.sha256 == printed(&hash.finalize())
    }
}

/// The backend of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBackend {
    /// The path of its entry in the archive.
    pub entrypoint: String,
    /// How the runtime behaves.
    pub compatibility: Compatibility,
    /// Its modules by name, the entry first.
    modules: Vec<(String, StoredFile)>,
}

impl StoredBackend {
    pub(super) fn load(
        &self,
        read: impl Fn(&StoredFile) -> Result<Vec<u8>, StoreError>,
    ) -> Result<Backend, StoreError> {
        let module = |(name, file): &(String, StoredFile)| {
            Ok(Module {
                name: name.clone(),
                code: Code::of(name, read(file)?),
            })
        };
        Ok(Backend {
            entrypoint: self.entrypoint.clone(),
            modules: self.modules.iter().map(module).collect::<Result<_, _>>()?,
            compatibility: self.compatibility.clone(),
        })
    }
}

/// A version of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Whose it is.
    pub app: App,
    /// Its number: dense, from 1.
    pub number: u64,
    /// Where it comes from.
    pub source: Source,
    /// When it was deployed, in milliseconds since 1970.
    pub deployed_at_ms: u64,
    /// A hash of all that it is, values aside.
    pub digest: String,
    /// Its Postgres bindings, by their ids; versions of before may have names instead.
    pub hyperdrive: Vec<PostgresBinding>,
    /// Names of its variables.
    pub var_names: Vec<String>,
    /// Names of its secrets.
    pub secret_names: Vec<String>,
    /// Which hosts lead to it.
    pub routing: Routing,
    /// Host names of its own.
    pub domains: Vec<String>,
    /// Its backend.
    pub backend: Option<StoredBackend>,
    /// Its static files by path.
    pub site: Option<BTreeMap<String, StoredFile>>,
    /// Its variables, sealed.
    pub(super) vars: String,
    /// Its secrets, sealed.
    pub(super) secrets: String,
}

/// The bytes of a new version's files, and which is where.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    backend: Option<StoredBackend>,
    site: Option<BTreeMap<String, StoredFile>>,
}

impl Content {
    pub(super) fn of(new: &NewVersion) -> Self {
        let mut bytes = Vec::new();
        let mut keep = |content: &[u8]| {
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(content);
            StoredFile {
                offset,
                bytes: content.len() as u64,
                sha256: hash(content),
            }
        };
        let backend = new.backend.as_ref().map(|backend| {
            let modules = backend.modules.iter();
            StoredBackend {
                entrypoint: backend.entrypoint.clone(),
                compatibility: backend.compatibility.clone(),
                modules: modules
                    .map(|module| (module.name.clone(), keep(module.code.as_bytes())))
                    .collect(),
            }
        });
        let site = new.site.as_ref().map(|files| {
            let files = files.iter();
            files
                .map(|(path, content)| (path.clone(), keep(content)))
                .collect()
        });
        Self {
            bytes,
            backend,
            site,
        }
    }

    pub(super) fn version(
        &self,
        app: &App,
        number: u64,
        at_ms: u64,
        new: &NewVersion,
        vars: &[u8],
        secrets: &[u8],
    ) -> Version {
        let names = |values: &crate::Values| values.names().map(str::to_owned).collect();
        let mut version = Version {
            app: app.clone(),
            number,
            source: new.source.clone(),
            deployed_at_ms: at_ms,
            digest: String::new(),
            hyperdrive: new.manifest.hyperdrive.clone(),
            var_names: names(&new.vars),
            secret_names: names(&new.secrets),
            routing: new.manifest.routing.clone(),
            domains: new.domains.clone(),
            backend: self.backend.clone(),
            site: self.site.clone(),
            vars: BASE64_STANDARD.encode(vars),
            secrets: BASE64_STANDARD.encode(secrets),
        };
        version.digest = digest(&version);
        version
    }
}

/// What a version is, whenever and as whichever number it was deployed.
fn digest(version: &Version) -> String {
    let Version {
        hyperdrive,
        routing,
        domains,
        backend,
        site,
        ..
    } = version;
    hash(
        serde_json::json!([hyperdrive, routing, domains, backend, site])
            .to_string()
            .as_bytes(),
    )
}

/// Sealed bytes of their printed form.
pub(super) fn unprinted(text: &str) -> Result<Vec<u8>, &'static str> {
    let decoded = BASE64_STANDARD.decode(text);
    decoded.map_err(|_| "its values are not base64")
}

fn hash(bytes: &[u8]) -> String {
    printed(&Sha256::digest(bytes))
}

fn printed(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in digest {
        // Writing into a string does not fail.
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok());
    }
    text
}
