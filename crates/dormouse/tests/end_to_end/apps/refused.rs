//! What is wrong with a deployment is said in the platform's words, and nothing comes of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::stage::{Archive, Stage, saying};
use crate::harness::PATIENCE;

const SITE: &[(&str, &str)] = &[("out/index.html", "x")];

fn said(stage: &Stage, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let answer = stage.send("/api/v1/deploy", headers, body);
    let body = answer.json();
    assert_eq!(body["status"], "error");
    (answer.status, body["error"].as_str().unwrap().to_owned())
}

const GOOD: [(&str, &str); 4] = [
    ("x-github-repository", "acme/shop"),
    ("x-github-branch", "main"),
    ("x-github-sha", "abc"),
    ("content-type", "application/zip"),
];

#[test]
fn headers_in_the_platforms_words() {
    let Some(stage) = Stage::start() else { return };
    let archive = Archive::of(SITE).0;
    let with = |name: &str, value: Option<&str>| {
        let kept = GOOD.iter().filter(|(known, _)| *known != name).copied();
        let headers: Vec<_> = kept.chain(value.map(|value| (name, value))).collect();
        said(&stage, &headers, &archive)
    };
    let repository = "x-github-repository must be in owner/repo form.";
    for bad in [None, Some("shop"), Some("a/b/c"), Some("../x")] {
        assert_eq!(
            with("x-github-repository", bad),
            (400, repository.to_owned())
        );
    }
    assert_eq!(
        with("x-github-sha", None),
        (400, "Missing x-github-sha header.".to_owned())
    );
    let kind = "Deploy body must be an application/zip archive.";
    for bad in [None, Some("application/json"), Some("text/plain")] {
        assert_eq!(with("content-type", bad), (415, kind.to_owned()));
    }
    assert_eq!(with("x-github-branch", None).0, 400);
    for (bad, words) in [
        ("%%%", "x-w7s-vars must be base64url-encoded JSON."),
        ("W10", "x-w7s-vars must be a JSON object."),
    ] {
        assert_eq!(with("x-w7s-vars", Some(bad)), (400, words.to_owned()));
    }
    assert_eq!(with("x-w7s-environment", Some("///")).0, 400);
    assert_eq!(with("x-w7s-application", Some("other")).0, 400);
    let secret = super::stage::base64url(r#"{"KEY": 5, "OTHER": "hunter2"}"#);
    let (status, error) = with("x-w7s-secrets", Some(&secret));
    assert!(status == 400 && !error.contains("hunter2"), "{error}");
    assert_eq!(stage.api("/api/v1/deployments/acme/shop").status, 404);
    let twice = stage.api("/api/v1/deployments/acme/shop?environment=a&environment=b");
    assert_eq!(
        (twice.status, twice.json()["status"].clone()),
        (400, "error".into())
    );
}

#[test]
fn archives_in_the_platforms_words() {
    let settings = [
        ("DORMOUSE_WORKERS__ARCHIVE_BYTES_MAX", "100000"),
        ("DORMOUSE_WORKERS__EXPANDED_BYTES_MAX", "1000000"),
        ("DORMOUSE_HTTP__BODY_BYTES_MAX", "1000"),
    ];
    let Some(stage) = Stage::start_with(&settings) else {
        return;
    };
    let refused = |body: &[u8]| said(&stage, &GOOD, body);
    assert_eq!(refused(b""), (400, "Deploy archive is empty.".to_owned()));
    for bad in [&b"no zip"[..], &Archive::of(SITE).0[..40]] {
        let (status, error) = refused(bad);
        assert!(
            status == 400 && error.starts_with("Unable to read deploy archive: "),
            "{error}"
        );
    }
    for files in [
        &[("../evil", "x"), ("out/index.html", "x")][..],
        &[("/etc/evil", "x"), ("out/index.html", "x")],
        &[("a/../../evil", "x"), ("out/index.html", "x")],
    ] {
        let (status, error) = refused(&Archive::of(files).0);
        assert!(
            status == 400 && error.starts_with("Unable to read deploy archive: "),
            "{error}"
        );
    }
    let nothing =
        "Archive must contain worker/, backend/, dist/server/, or static frontend output.";
    assert_eq!(
        refused(&Archive::of(&[("readme", "x")]).0),
        (400, nothing.to_owned())
    );
    // Small as it is sent, and large as it is.
    let zeros = "0".repeat(2_000_000);
    let bomb = Archive::of(&[("out/index.html", &zeros)]).0;
    assert!(bomb.len() < 100_000);
    let (status, error) = refused(&bomb);
    assert!(
        status == 400 && error.contains("expanded_bytes_max"),
        "{error}"
    );
    let (status, error) = refused(&vec![7; 100_001]);
    assert!(
        status == 413 && error.contains("archive_bytes_max is 100000"),
        "{error}"
    );
    // The limit of other bodies is not that of archives.
    let larger = Archive::of(&[
        ("out/index.html", &"ab\u{e4}".repeat(5)),
        ("out/b", &noise(20_000)),
    ]);
    assert!(larger.0.len() > 1_000);
    stage.deploy("acme/shop", &larger);
    assert!(!stage.folder.path().join("evil").exists());
    stage.server.still_answers();
}

/// Text that does not get smaller when it is packed.
pub(super) fn noise(bytes: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(33 + ((state >> 33) % 94) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn manifests_in_the_platforms_words() {
    let Some(stage) = Stage::start() else { return };
    let refused = |manifest: &str| {
        let code = saying("x");
        let archive = Archive::of(&[("worker/index.js", &code), ("w7s.json", manifest)]);
        let (status, error) = said(&stage, &GOOD, &archive.0);
        assert_eq!(status, 400, "{error}");
        error
    };
    assert!(refused("{").starts_with("Invalid w7s.json: "));
    let of =
        |hyperdrive: &str| refused(&format!(r#"{{"bindings":{{"hyperdrive":{hyperdrive}}}}}"#));
    assert_eq!(of("{}"), "bindings.hyperdrive must be an array.");
    assert_eq!(of("[1]"), "bindings.hyperdrive[0] must be an object.");
    let name = "bindings.hyperdrive[0].binding must be a valid Worker binding name.";
    assert_eq!(of(r#"[{"binding":"1","id":"x"}]"#), name);
    assert_eq!(
        of(r#"[{"binding":"DB"}]"#),
        "bindings.hyperdrive[0].id must be a string."
    );
    assert_eq!(
        of(r#"[{"binding":"DB","id":""}]"#),
        "bindings.hyperdrive[0].id must not be empty."
    );
    let twice = r#"[{"binding":"DB","id":"x"},{"binding":"DB","id":"y"}]"#;
    assert_eq!(of(twice), "bindings.hyperdrive[1].binding duplicates DB.");
}

#[test]
fn without_a_runtime_there_are_sites_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing on the PATH, and no packages above.
    let mut server = crate::harness::Server::start_in(folder.path(), &[("PATH", "/nonexistent")]);
    let archive = |files: &[(&str, &str)]| Archive::of(files).0;
    let send = |server: &crate::harness::Server, body: &[u8]| {
        let mut http = server.http();
        let mut head = format!(
            "POST /api/v1/deploy HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in GOOD {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        http.send(&format!("{head}\r\n"));
        http.send_bytes(body);
        http.response()
    };
    let refused = send(&server, &archive(&[("worker/index.js", &saying("x"))]));
    assert_eq!(refused.status, 501, "{}", refused.text());
    assert!(
        refused.text().contains("workers.workerd"),
        "{}",
        refused.text()
    );
    let deployed = send(&server, &archive(SITE));
    assert_eq!(deployed.status, 200, "{}", deployed.text());
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn an_archive_that_never_comes_is_not_waited_for() {
    let settings = [
        ("DORMOUSE_WORKERS__UPLOAD_MS_MAX", "1500"),
        ("DORMOUSE_WORKERS__DEPLOYS_MAX", "1"),
    ];
    let Some(stage) = Stage::start_with(&settings) else {
        return;
    };
    let archive = Archive::of(SITE);
    let mut stream = TcpStream::connect(stage.server.http).unwrap();
    let mut head =
        "POST /api/v1/deploy HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n".to_owned();
    for (name, value) in GOOD {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(stream, "{head}\r\n").unwrap();
    // A byte now and then, so that it never is quiet for long.
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let (mut answer, begun) = (Vec::new(), Instant::now());
    while !String::from_utf8_lossy(&answer).contains("upload_ms_max") {
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
        // Whoever has answered may hear no more.
        let _ = stream.write_all(b"x");
        let mut part = [0; 4_096];
        if let Ok(count) = stream.read(&mut part) {
            answer.extend_from_slice(&part[..count]);
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(1_500));
    // Its place is free again.
    stage.deploy("acme/shop", &archive);
}
