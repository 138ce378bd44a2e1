//! Prisma's client, whose compiler of queries is WebAssembly.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::backends::{FLAGS, manifest};
use super::both;
use crate::apps::stage::Archive;
use crate::harness::run_program;

/// Generated and bundled as their users do it: the files of `dist/server`.
fn bundled() -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let clients = std::env::var_os("DORMOUSE_TEST_CLIENTS").expect("who asks has a runtime");
    let packages = PathBuf::from(clients).join("node_modules");
    symlink(&packages, folder.path().join("node_modules")).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/node/prisma");
    for name in ["schema.prisma", "generate.mjs", "backend.ts"] {
        fs::copy(sources.join(name), folder.path().join(name)).unwrap();
    }
    let mut generate = Command::new("node");
    generate
        .args(["generate.mjs", "schema.prisma"])
        .arg(folder.path());
    // It downloads nothing: if it tried, it would be told that there is no such place.
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
        generate.env(name, "http://127.0.0.1:1");
    }
    run_program(generate.current_dir(folder.path())).done();
    let mut builds = fs::read_dir(packages.join("@esbuild")).unwrap();
    let esbuild = builds.next().unwrap().unwrap().path().join("bin/esbuild");
    let mut bundle = Command::new(esbuild);
    bundle.args([
        "backend.ts",
        "--bundle",
        "--format=esm",
        "--outdir=dist",
        "--entry-names=index",
    ]);
    bundle.args([
        "--platform=node",
        "--conditions=workerd",
        "--loader:.wasm=copy",
    ]);
    bundle.args(["--external:cloudflare:*", "--external:pg-native"]);
    bundle.arg("--banner:js=import{createRequire}from\"node:module\";const require=createRequire(\"file:///worker.js\");");
    run_program(bundle.current_dir(folder.path())).done();
    let files = fs::read_dir(folder.path().join("dist")).unwrap();
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (
            format!("dist/server/{name}"),
            fs::read(entry.path()).unwrap(),
        )
    };
    files.map(|entry| file(entry.unwrap())).collect()
}

#[test]
fn behaviour_15_prismas_adapter() {
    let Some((stage, _origin, ids)) = both() else {
        return;
    };
    let files = bundled();
    assert!(files.iter().any(|(name, _)| name.ends_with(".wasm")));
    for (id, name) in ids.iter().zip(["external", "own"]) {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let mut add = |path: &str, bytes: &[u8]| {
            zip.start_file(path, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        };
        add("w7s.json", manifest(id).as_bytes());
        add("dist/server/wrangler.json", FLAGS.as_bytes());
        files.iter().for_each(|(path, bytes)| add(path, bytes));
        let archive = Archive(zip.finish().unwrap().into_inner());
        stage.deploy(&format!("acme/{name}"), &archive);
        for _ in 0..2 {
            let answer = stage.get(&format!("/{name}/"));
            assert_eq!(
                (answer.status, &*answer.text()),
                (200, "\"passed\""),
                "{name}"
            );
        }
    }
}
