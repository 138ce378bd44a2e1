//! What is deployed, put together: by `serve` and by `dev`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use database::Databases;
use server::{Apps, ManagedBindings, NodeKey};
use workers::Bindings;

use super::config::Config;
use super::failure::Failure;

/// The hidden commands that backends are begun with.
pub(crate) const COMPILE: &str = "backend-compile";
pub(crate) const LAUNCH: &str = "backend-launch";

/// The longest path of a folder for sockets: a socket's own has an end, and names in it take some of that.
const SOCKETS_BYTES_MAX: usize = 78;

/// How backends are compiled: by this program, in a process of its own.
pub(crate) struct Compiling {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
}

/// How the runtime is begun: by way of this program.
pub(crate) struct Launching(pub(crate) Vec<OsString>);

impl Compiling {
    pub(crate) fn here() -> Result<Self, Failure> {
        Ok(Self {
            program: this_program()?,
            args: vec![COMPILE.into()],
        })
    }
}

impl Launching {
    pub(crate) fn here() -> Result<Self, Failure> {
        Ok(Self(vec![this_program()?.into(), LAUNCH.into()]))
    }
}

/// A folder for the sockets of backends, with none of before in it.
pub(crate) struct Sockets {
    path: PathBuf,
    /// Whether it goes away with this.
    is_temporary: bool,
}

impl Sockets {
    /// In the data directory, if its path is not too long for sockets.
    pub(crate) fn below(data: &Path) -> Result<Self, Failure> {
        let near = data
            .canonicalize()
            .unwrap_or_else(|_| data.to_owned())
            .join("run");
        let is_temporary = near.as_os_str().len() > SOCKETS_BYTES_MAX;
        let path = match is_temporary {
            true => env::temp_dir().join(format!("dormouse-{}", std::process::id())),
            false => near,
        };
        // What is there is of a server that has ended: only one has the data open.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::unavailable(format!("{}: {error}", path.display())));
            }
            _ => {}
        }
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path);
        made.and_then(|()| path.canonicalize())
            .map(|path| Self { path, is_temporary })
            .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::debug!(%error, "a folder for sockets stays");
        }
    }
}

/// What is configured of managed bindings. Blocks for the disk.
pub(crate) fn bindings(
    config: &Config,
    key: &NodeKey,
    databases: &Databases,
    sockets: &Sockets,
) -> Result<Arc<ManagedBindings>, Failure> {
    let options = config.bindings(sockets.path());
    let key = key.for_purpose("bindings");
    let opened = ManagedBindings::open(options, &key, databases.clone());
    opened
        .map(Arc::new)
        .map_err(|error| Failure::unavailable(error.to_string()))
}

/// Opens what is deployed. Blocks for the disk.
pub(crate) fn open(
    config: &Config,
    key: &NodeKey,
    bindings: Arc<dyn Bindings>,
    sockets: &Sockets,
) -> Result<Arc<Apps>, Failure> {
    let opened = Apps::open(config.apps(sockets.path())?, key, bindings);
    opened.map_err(|error| Failure::unavailable(error.to_string()))
}

/// The runtime in packages of npm that are installed here, or in a folder above.
pub(crate) fn packaged_workerd() -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    let packages = here
        .ancestors()
        .map(|folder| folder.join("node_modules/@cloudflare"));
    packages
        .filter_map(|packages| fs::read_dir(packages).ok())
        .find_map(|packages| {
            let packages = packages.filter_map(Result::ok);
            let named = packages
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("workerd-"));
            let mut programs = named.map(|entry| entry.path().join("bin/workerd"));
            programs.find(|program| program.is_file())
        })
}

/// This very program: on Linux also when its file has been replaced meanwhile.
fn this_program() -> Result<PathBuf, Failure> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    env::current_exe().map_err(|error| {
        Failure::unavailable(format!("where this program is is not known: {error}"))
    })
}
