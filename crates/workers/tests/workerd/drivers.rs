//! Drivers, bundled as their users bundle them, and a native PostgreSQL behind the binding.

use crate::harness::{Stage, get, program};
use dormouse_workers::BindingAddress;
use native::{Native, Options};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};
use tokio::net::{TcpStream, UnixListener};

/// The backend of the platform's document, as it is printed there.
const DOCUMENTED: &str = r#"import postgres from "postgres";
type Env = {
DB: {
connectionString: string;
};
};
export default {
async fetch(_request: Request, env: Env) {
const sql = postgres(env.DB.connectionString);
const rows = await sql`select now() as now`;
return Response.json({
now: rows[0]?.now
});
}
};
"#;

const NODE_POSTGRES: &str = r#"import { Client } from "pg";
export default { async fetch(_request: Request, env: { DB: { connectionString: string } }) {
  const client = new Client({ connectionString: env.DB.connectionString });
  await client.connect();
  const { rows } = await client.query("select $1::int + 1 as n", [41]);
  return Response.json(rows);
} };
"#;

/// Acceptance behaviour 10: manifest and flags are those of the document too.
#[tokio::test]
async fn the_documented_backend_answers_from_postgres() {
    let bundle = ["--conditions=workerd,worker,browser", "--external:node:*"];
    let Some(answers) = answers(DOCUMENTED, &bundle, 3).await else {
        return;
    };
    for answer in answers {
        let now = answer["now"].as_str().unwrap();
        assert!(now.starts_with("20") && now.ends_with('Z'), "{now}");
    }
}

#[tokio::test]
async fn node_postgres() {
    let bundle = [
        "--platform=node",
        "--conditions=workerd",
        "--banner:js=import{createRequire}from\"node:module\";const require=createRequire(\"file:///worker.js\");",
    ];
    let Some(answers) = answers(NODE_POSTGRES, &bundle, 3).await else {
        return;
    };
    assert_eq!(answers[0], serde_json::json!([{ "n": 42 }]));
}

/// Bundles a backend, runs it, and gives its first answers; `None` where the tools are missing.
async fn answers(source: &str, bundle: &[&str], count: usize) -> Option<Vec<serde_json::Value>> {
    let stage = Stage::new()?;
    let Some(tools) = env::var_os("DORMOUSE_TEST_TOOLS") else {
        eprintln!("skipped: run it by `cargo xtask test`, which brings PostgreSQL");
        return None;
    };
    let folder = stage.folder.path();
    let code = bundled(folder, source, bundle);
    let bin = PathBuf::from(tools).join("bin");
    let postgres = Native::start(&bin, &folder.join("postgres"), &Options::default()).unwrap();
    let socket = folder.join("binding.sock");
    let forwarding = tokio::spawn(forward(
        UnixListener::bind(&socket).unwrap(),
        postgres.address,
    ));

    let flags = "{\n\"compatibility_flags\": [\"nodejs_compat_v2\"]\n}";
    let files = [
        ("dist/server/index.js", code.as_str()),
        ("dist/server/wrangler.json", flags),
    ];
    let mut program = program(1, &files);
    let address = BindingAddress {
        socket,
        user: "postgres".to_owned(),
        password: "unused".to_owned(),
        database: "postgres".to_owned(),
        scheme: "postgres".to_owned(),
        grant: dormouse_workers::bindings::Grant::default(),
    };
    program.databases.push(("DB".to_owned(), address));
    stage.supervisor.trial(&program).await.unwrap();
    let running = stage.supervisor.run(program).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..count {
        let (status, body) = get(&running, "/").await.unwrap();
        let said = running.log().after(0, 99);
        assert_eq!(status, 200, "{said:#?}");
        answers.push(serde_json::from_str(&body).unwrap());
    }
    running.stop().await;
    forwarding.abort();
    Some(answers)
}

/// What esbuild makes of a source and of the packages that it imports.
fn bundled(folder: &Path, source: &str, options: &[&str]) -> String {
    let packages =
        PathBuf::from(env::var_os("DORMOUSE_TEST_CLIENTS").unwrap()).join("node_modules");
    std::os::unix::fs::symlink(&packages, folder.join("node_modules")).unwrap();
    fs::write(folder.join("index.ts"), source).unwrap();
    let mut builds = fs::read_dir(packages.join("@esbuild")).unwrap();
    let esbuild = builds.next().unwrap().unwrap().path().join("bin/esbuild");
    let output = Command::new(esbuild)
        .args([
            "index.ts",
            "--bundle",
            "--format=esm",
            "--external:cloudflare:*",
        ])
        .args(options)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Passes connections on, as the pool will.
async fn forward(listener: UnixListener, to: SocketAddr) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        tokio::spawn(async move {
            // Either side may leave in any way.
            drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
        });
    }
}
