//! Deployments: zips that are none, what serves while another version takes over, and who is let in where nobody is asked.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use serde_json::json;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::apps::stage::{Archive, Stage, saying};
use crate::harness::{dormouse, run_program};

/// Errors that the platform has words for, beside those of `apps::refused`.
#[test]
fn behaviour_08_the_platforms_words() {
    let Some(stage) = Stage::start() else { return };
    let refused = |files: &[(&str, &str)]| {
        let answer = stage.deploy_with("acme/shop", "", &[], &Archive::of(files));
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["status"], "error");
        answer.json()["error"].as_str().unwrap().to_owned()
    };
    let bound = r#"{"bindings":{"hyperdrive":[{"binding":"DB","id":"x"}]}}"#;
    assert_eq!(
        refused(&[("w7s.json", bound), ("out/index.html", "x")]),
        "Hyperdrive bindings require a native backend deployment."
    );
    let only = "Native deploy currently supports only relative imports inside backend/. Unsupported import: postgres";
    assert_eq!(
        refused(&[(
            "backend/index.ts",
            "import postgres from 'postgres'; postgres();"
        )]),
        only
    );
    assert_eq!(
        refused(&[("worker/index.ts", "import './x';")]),
        "Could not resolve ./x from worker/index.ts."
    );
    let requires = refused(&[("backend/main.ts", "x"), ("other", "x")]);
    assert!(
        requires.starts_with("Native backend deploy requires worker/index.ts, "),
        "{requires}"
    );
    // Not a refusal: the site is there, and a word about the backend.
    let files = [("backend/readme", "x"), ("out/index.html", "x")];
    let answer = stage.deploy_with("acme/shop", "", &[], &Archive::of(&files));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let warnings = &answer.json()["data"]["deploymentWarnings"];
    assert_eq!(warnings[0]["code"], "native_backend_skipped");
    assert!(warnings[0]["message"].is_string());
}

/// Whoever may deploy may run code here: beyond loopback that is nobody as long as nobody is asked who they are.
#[test]
fn behaviour_09_nobody_deploys_from_elsewhere_unasked() {
    let folder = tempfile::tempdir().unwrap();
    for (open, closed) in [("--http", "--pg"), ("--pg", "--http")] {
        let mut command = dormouse();
        command.args(["serve", open, "0.0.0.0:0", closed, "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data"));
        let said = run_program(command.current_dir(folder.path())).failed(3);
        assert!(said.contains("server.insecure_listen"), "{open}: {said}");
    }
}

/// An answer that has begun ends with the version that began it; who comes meanwhile has the new one.
#[test]
fn behaviour_11_a_request_under_way_ends_as_it_began() {
    let Some(stage) = Stage::start() else { return };
    let echo = "export default { fetch: (request) => new Response(request.body, { headers: { 'x-version': '1' } }) };";
    stage.deploy("acme/shop", &Archive::of(&[("worker/index.js", echo)]));
    let first = stage.until(|| stage.backends(), |backends| backends.len() == 1);
    let mut http = stage.http();
    http.send(
        "POST /shop/ HTTP/1.1\r\nhost: acme.apps.localhost\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    http.send("5\r\nfirst\r\n");
    assert_eq!(http.head().header("x-version"), Some("1"));
    http.read_until("first");

    let two = Archive::of(&[("worker/index.js", &saying("two"))]);
    let deployed = stage.deploy_with("acme/shop", "", &[("x-github-sha", "def")], &two);
    assert_eq!(deployed.json()["data"]["new"], true, "{}", deployed.text());
    assert_eq!(stage.get("/shop/").text(), "two");
    assert_eq!(stage.backends().len(), 2, "the one before is still there");
    http.send("6\r\nsecond\r\n0\r\n\r\n");
    http.read_until("second");
    let now = stage.until(|| stage.backends(), |backends| backends.len() == 1);
    assert_ne!(now, first);

    // The same commit again: the same version, and the same process.
    let again = stage.deploy_with("acme/shop", "", &[("x-github-sha", "def")], &two);
    assert_eq!(again.status, 200);
    assert_eq!(again.json()["data"]["new"], false);
    assert_eq!(stage.backends(), now);
    let history = stage.api("/api/v1/deployments/acme/shop").json();
    assert_eq!(
        history["data"]["deployments"].as_array().map(Vec::len),
        Some(2)
    );
}

/// Each kind of bad zip is refused, and nothing of it is on the disk.
#[test]
fn behaviour_12_zips_that_are_none() {
    let Some(stage) = Stage::start() else { return };
    stage.deploy("acme/shop", &Archive::of(&[("out/index.html", "before")]));
    let before = names(stage.folder.path());
    let evil = "what must not be on the disk";
    let page = ("out/index.html", evil);
    let mut table: Vec<(&str, Vec<u8>)> = vec![
        ("leads out", Archive::of(&[page, ("../evil", evil)]).0),
        (
            "leads out by a detour",
            Archive::of(&[page, ("out/../../evil", evil)]).0,
        ),
        (
            "leads out by backslashes",
            Archive::of(&[page, ("out\\..\\..\\evil", evil)]).0,
        ),
        ("absolute", Archive::of(&[page, ("/tmp/evil", evil)]).0),
        (
            "of another system",
            Archive::of(&[page, ("C:\\evil", evil)]).0,
        ),
        (
            "with a control character",
            Archive::of(&[page, ("out/a\nb", evil)]).0,
        ),
        ("a link", linked()),
        ("encrypted", encrypted(&page)),
        ("twice the same name", twice(&page)),
        (
            "no zip",
            b"PK\x03\x04 and then nothing of the kind".to_vec(),
        ),
        ("empty", Vec::new()),
        (
            "of zeros",
            Archive::of(&[page, ("out/zeros", &"0".repeat(11 << 20))]).0,
        ),
    ];
    let whole = Archive::of(&[page, ("out/a", evil)]).0;
    for part in [1, 4, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        table.push(("cut", whole[..part].to_vec()));
    }
    for (what, zip) in table {
        assert!(zip.len() < 1 << 20, "{what}: small as it is sent");
        let answer = stage.deploy_with("acme/shop", "", &[("x-github-sha", "evil")], &Archive(zip));
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.json()["status"], "error", "{what}");
    }
    assert_eq!(stage.get("/shop/").text(), "before");
    stage.keeps_no(evil);
    assert_eq!(names(stage.folder.path()), before);
    for place in ["/tmp/evil", "/evil"] {
        assert!(!Path::new(place).exists(), "{place}");
    }
    let deployments = stage.api("/api/v1/deployments/acme/shop").json();
    assert_eq!(
        deployments["data"]["deployments"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(
        deployments["data"]["deployments"][0]["commitSha"],
        json!("abc")
    );
    stage.server.still_answers();
}

/// What a folder has, without what is below.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn linked() -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    zip.start_file("out/index.html", options).unwrap();
    zip.write_all(b"x").unwrap();
    zip.add_symlink("out/link", "/etc/passwd", options).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Bit 0 of the flags says so, beside each file and in the directory.
fn encrypted(page: &(&str, &str)) -> Vec<u8> {
    let mut zip = Archive::of(&[*page]).0;
    let directory = zip
        .windows(4)
        .position(|part| part == b"PK\x01\x02")
        .unwrap();
    zip[6] |= 1;
    zip[directory + 8] |= 1;
    zip
}

fn twice(page: &(&str, &str)) -> Vec<u8> {
    let mut zip = Archive::of(&[*page, ("out/index.htmx", "other")]).0;
    let at: Vec<_> = (0..zip.len() - 4)
        .filter(|at| &zip[*at..at + 4] == b"htmx")
        .collect();
    for at in at {
        zip[at + 3] = b'l';
    }
    zip
}
