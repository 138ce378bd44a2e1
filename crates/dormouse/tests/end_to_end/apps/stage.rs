//! A server that runs backends, and what is deployed to it.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::harness::{Http, Response, Server, until};

/// A backend in TypeScript of more than one module.
pub(crate) const TYPESCRIPT: &[(&str, &str)] = &[
    (
        "backend/index.ts",
        "import { count } from './lib/count';\nimport type { Fruit } from './fruit';\n\
         const fruit: Fruit = { name: 'fig' };\n\
         export default { async fetch(_: Request): Promise<Response> {\n\
         return new Response(`${count(fruit.name)} ${fruit.name}`); } };",
    ),
    (
        "backend/fruit.ts",
        "export interface Fruit { name: string }",
    ),
    (
        "backend/lib/count.ts",
        "export const count = (text: string): number => text.length;",
    ),
];

/// The body of a deployment.
pub(crate) struct Archive(pub(crate) Vec<u8>);

impl Archive {
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (path, text) in files {
            zip.start_file(*path, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        Self(zip.finish().unwrap().into_inner())
    }
}

/// A backend that always says this.
pub(crate) fn saying(text: &str) -> String {
    format!("export default {{ async fetch() {{ return new Response('{text}'); }} }};")
}

pub(crate) fn base64url(text: &str) -> String {
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// The runtime, or a word about why there is none.
pub(crate) fn workerd() -> Option<PathBuf> {
    let Some(clients) = std::env::var_os("DORMOUSE_TEST_CLIENTS") else {
        eprintln!("skipped: `cargo xtask test` brings workerd");
        return None;
    };
    let packages = fs::read_dir(PathBuf::from(clients).join("node_modules/@cloudflare"));
    let mut programs = packages
        .unwrap()
        .map(|package| package.unwrap().path().join("bin/workerd"));
    programs.find(|program| program.is_file())
}

pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
    token: Option<String>,
}

impl Stage {
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), settings)
    }

    /// In a folder that has something already.
    pub(crate) fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Option<Self> {
        let server = Self::serve(folder.path(), settings)?;
        Some(Self {
            server,
            folder,
            token: None,
        })
    }

    /// A server in a folder.
    pub(crate) fn serve(folder: &Path, settings: &[(&str, &str)]) -> Option<Server> {
        let workerd = workerd()?.to_str().unwrap().to_owned();
        let own = [
            ("DORMOUSE_WORKERS__WORKERD", workerd.as_str()),
            // The machine of a test may have much else to do.
            ("DORMOUSE_WORKERS__START_MS_MAX", "60000"),
            ("DORMOUSE_WORKERS__COMPILE_MS_MAX", "60000"),
        ];
        Some(Server::start_in(folder, &[&own[..], settings].concat()))
    }

    /// The same for who has this token.
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Deploys, which must work.
    #[track_caller]
    pub(crate) fn deploy(&self, repository: &str, archive: &Archive) {
        let answer = self.deploy_with(repository, "", &[], archive);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// As the platform's action does it.
    pub(crate) fn deploy_with(
        &self,
        repository: &str,
        query: &str,
        more: &[(&str, &str)],
        archive: &Archive,
    ) -> Response {
        let headers = [
            ("x-github-repository", repository),
            ("x-github-branch", "main"),
            ("x-github-sha", "abc"),
            ("content-type", "application/zip"),
        ];
        let headers = [&headers[..], more].concat();
        self.send(&format!("/api/v1/deploy{query}"), &headers, &archive.0)
    }

    /// A POST with these headers and this body.
    pub(crate) fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut http = self.server.http();
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost:{}\r\ncontent-length: {}\r\n",
            self.server.http.port(),
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        http.send(&format!("{head}\r\n"));
        http.send_bytes(body);
        http.response()
    }

    /// What the server itself is asked.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer
            .iter()
            .map(|bearer| ("authorization", &**bearer))
            .collect();
        self.server
            .http()
            .request_with(method, path, &headers, body)
    }

    pub(crate) fn api(&self, path: &str) -> Response {
        self.ask("GET", path, None)
    }

    /// A page of an app of the owner `acme`.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.get_at("acme.apps.localhost", path)
    }

    pub(crate) fn get_at(&self, host: &str, path: &str) -> Response {
        self.get_with(host, path, &[])
    }

    pub(crate) fn get_with(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let host = format!("{host}:{}", self.server.http.port());
        let headers = [&[("host", &*host)], headers].concat();
        self.server.http().request_with("GET", path, &headers, None)
    }

    /// A connection.
    pub(crate) fn http(&self) -> Http {
        self.server.http()
    }

    #[track_caller]
    pub(crate) fn until<T: std::fmt::Debug>(
        &self,
        ask: impl FnMut() -> T,
        right: impl Fn(&T) -> bool,
    ) -> T {
        until(ask, right)
    }

    /// No file of the data, and no line of the log, has this text.
    #[track_caller]
    pub(crate) fn keeps_no(&self, text: &str) {
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                } else if entry.file_type().unwrap().is_file() {
                    let bytes = fs::read(entry.path()).unwrap();
                    let found = bytes
                        .windows(text.len())
                        .any(|part| part == text.as_bytes());
                    assert!(!found, "{} has it", entry.path().display());
                }
            }
        }
    }

    /// The processes of backends, which the server has started.
    pub(crate) fn backends(&self) -> Vec<u32> {
        let server = self.server.pid();
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // After the name, which is in brackets: the state, then the parent.
            let rest = stat.rsplit(") ").next().unwrap_or_default();
            let parent = rest.split(' ').nth(1).and_then(|id| id.parse::<u32>().ok());
            stat.contains("(workerd)") && parent == Some(server)
        };
        ids.filter(is_ours).collect()
    }
}
