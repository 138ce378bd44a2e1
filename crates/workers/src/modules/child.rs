//! Compiling in a process of its own: source text that is nested deep enough overflows the stack of a parser, which
//! ends the process that it is in.

use super::{Backend, Code, backend};
use crate::{Archive, DeployLimits, Refusal};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read, Write},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How a backend is compiled: a program that calls [`answer`] with its standard input and output.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub args: Vec<OsString>,
    /// How long it may take. Setting `compile_ms_max`.
    pub deadline: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    entrypoint: String,
    files: BTreeMap<String, String>,
    /// Paths of files that are not text, and of which no more is to be known.
    wasm: Vec<String>,
    modules_max: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Backend(Backend),
    Refused {
        message: String,
        details: Vec<String>,
    },
}

impl Compiler {
    /// [`backend`], in a process of its own.
    ///
    /// # Errors
    /// 400 as there, and for what ends that process or takes too long; 500 if there is no such process to be had.
    pub async fn backend(
        &self,
        archive: &Archive,
        entrypoint: &str,
        limits: DeployLimits,
    ) -> Result<Backend, Refusal> {
        let request = request(archive, entrypoint, limits)?;
        let done = timeout(self.deadline, self.run(&request)).await;
        let output = done.map_err(|_| {
            let ms = self.deadline.as_millis();
            Refusal::bad(format!(
                "Compiling took longer than workers.compile_ms_max ({ms} ms)."
            ))
        })?;
        let output = output.map_err(|error| {
            Refusal::with_status(500, format!("The compiler did not run: {error}."))
        })?;
        if !output.status.success() {
            return Err(Refusal::bad(format!(
                "The backend could not be compiled: the compiler ended ({}). Source text that is nested \
                 thousands deep does that.",
                output.status
            )));
        }
        match serde_json::from_slice(&output.stdout) {
            Ok(Answer::Backend(mut backend)) => {
                fill(&mut backend, archive)?;
                Ok(backend)
            }
            Ok(Answer::Refused { message, details }) => {
                Err(Refusal::bad(message).detailed(details))
            }
            Err(error) => {
                let message = format!("The compiler's answer is not understood: {error}.");
                Err(Refusal::with_status(500, message))
            }
        }
    }

    async fn run(&self, request: &[u8]) -> io::Result<std::process::Output> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                match stdin.write_all(request).await {
                    // It has ended already; its status says why.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                    done => done?,
                }
            }
            io::Result::Ok(())
        };
        let (written, output) = tokio::join!(write, child.wait_with_output());
        written?;
        output
    }
}

/// What is not text stays here.
fn fill(backend: &mut Backend, archive: &Archive) -> Result<(), Refusal> {
    let root = super::resolve::root_of(&backend.entrypoint)?;
    for module in &mut backend.modules {
        if let Code::Wasm(bytes) = &mut module.code {
            let file = archive.file(&format!("{root}/{}", module.name));
            *bytes = file.unwrap_or_default().to_vec();
        }
    }
    Ok(())
}

/// The text files of the entry's root, and the names of others that it may import.
fn request(archive: &Archive, entrypoint: &str, limits: DeployLimits) -> Result<Vec<u8>, Refusal> {
    let root = super::resolve::root_of(entrypoint)?;
    let wanted = |path: &str| super::resolve::is_module(path) || path == "wrangler.json";
    let mut files = BTreeMap::new();
    let mut wasm = Vec::new();
    for (name, _) in archive.below(root) {
        let path = format!("{root}/{name}");
        if super::resolve::is_wasm(name) {
            wasm.push(path);
            continue;
        }
        if !wanted(name) {
            continue;
        }
        let text = archive.text(&path)?.unwrap_or_default().to_owned();
        files.insert(path, text);
    }
    let request = Request {
        entrypoint: entrypoint.to_owned(),
        files,
        wasm,
        modules_max: limits.modules_max,
    };
    serde_json::to_vec(&request).map_err(|error| Refusal::with_status(500, error.to_string()))
}

/// The other side of [`Compiler`]: reads what is to be compiled, writes what became of it.
///
/// # Errors
/// What does not come or go, or is not understood.
pub fn answer(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    input.read_to_end(&mut text)?;
    let request: Request = serde_json::from_slice(&text)?;
    let limits = DeployLimits {
        modules_max: request.modules_max,
        // Whoever asks has seen to these.
        archive_bytes_max: u64::MAX,
        expanded_bytes_max: u64::MAX,
        file_bytes_max: u64::MAX,
        entries_max: u64::MAX,
        static_files_max: u64::MAX,
    };
    let files = request.files.into_iter();
    let files = files.map(|(path, text)| (path, text.into_bytes()));
    let wasm = request.wasm.into_iter().map(|path| (path, Vec::new()));
    let files = files.chain(wasm);
    let compiled = Archive::from_files(files, limits)
        .and_then(|archive| backend(&archive, &request.entrypoint, limits));
    let answer = match compiled {
        Ok(backend) => Answer::Backend(backend),
        Err(Refusal {
            message, details, ..
        }) => Answer::Refused { message, details },
    };
    serde_json::to_writer(&mut output, &answer)?;
    output.flush()
}

#[cfg(test)]
pub(super) fn request_for_tests(archive: &Archive, entrypoint: &str) -> Vec<u8> {
    request(archive, entrypoint, DeployLimits::default()).unwrap()
}
