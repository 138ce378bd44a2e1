//! What does not start is told in the runtime's own words, and what serves is not touched.

use crate::harness::{PATIENCE, Stage, answering, get, program};
use std::{fs, time::Duration};

/// Acceptance behaviour 11.
#[tokio::test]
async fn what_does_not_start_is_told_in_the_runtimes_words() {
    let Some(stage) = Stage::new() else { return };
    let serving = answering(1, "return new Response('one')");
    let running = stage.supervisor.run(serving).await.unwrap();
    let fine = "export default { fetch() { return new Response('x'); } }";
    let flags = |json| [("worker/index.js", fine), ("worker/wrangler.json", json)];
    let code = |text| [("worker/index.js", text), ("x", "")];
    for (files, words) in [
        (
            flags(r#"{"compatibility_flags":["bogus"]}"#),
            "No such compatibility flag: bogus",
        ),
        (
            flags(r#"{"compatibility_flags":["nodejs_compat","no_nodejs_compat"]}"#),
            "mutually contradictory",
        ),
        (
            flags(r#"{"compatibility_date":"soon"}"#),
            "Invalid compatibility date: soon",
        ),
        (
            flags(r#"{"compatibility_date":"2999-01-01"}"#),
            "the newest date supported by this server binary is",
        ),
        (
            code("export default {"),
            "SyntaxError: Unexpected end of input",
        ),
        (code("throw new Error('at the top')"), "Error: at the top"),
        (
            code("import 'node:nope'; export default { fetch() {} }"),
            "No such module \"node:nope\"",
        ),
        (
            code("export const x = 1;"),
            "does not export a fetch() function",
        ),
        (
            code("export default { fetch: 1 };"),
            "does not export a fetch() function",
        ),
        (
            code("export default { other() {} };"),
            "does not export a fetch() function",
        ),
        (
            code("await fetch('https://example.com'); export default { fetch() {} };"),
            "global scope",
        ),
    ] {
        let refused = stage
            .supervisor
            .trial(&program(2, &files))
            .await
            .unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(refused.to_string().contains(words), "{words}: {refused}");
        assert!(refused.message.starts_with("The backend does not start: "));
        let answer = get(&running, "/").await.unwrap();
        assert_eq!(answer, (200, "one".to_owned()));
    }
    assert_eq!(running.standing().crashes, 0);
    let names: Vec<_> = fs::read_dir(stage.folder.path().join("sockets"))
        .unwrap()
        .collect();
    assert_eq!(names.len(), 1, "sockets of trials go away: {names:?}");
    running.stop().await;
}

#[tokio::test]
async fn classes_and_warnings_pass() {
    let Some(stage) = Stage::new() else { return };
    let class = "import { WorkerEntrypoint } from 'cloudflare:workers';\n\
                 export default class extends WorkerEntrypoint { async fetch() { return new Response('c'); } }";
    let flags = r#"{"compatibility_date":"2026-11-01","compatibility_flags":["nodejs_compat_v2"]}"#;
    let files = [("worker/index.js", class), ("worker/wrangler.json", flags)];
    let program = program(1, &files);
    let warnings = stage.supervisor.trial(&program).await.unwrap();
    assert!(
        warnings
            .iter()
            .any(|line| line.contains("nodejs_compat_v2 became the default")),
        "{warnings:?}"
    );
    let running = stage.supervisor.run(program).await.unwrap();
    assert_eq!(get(&running, "/").await.unwrap(), (200, "c".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn a_start_has_a_deadline() {
    let Some(stage) = Stage::with(|options| options.start_max = Duration::from_millis(500)) else {
        return;
    };
    let program = program(1, &[("worker/index.js", "for (;;) {}")]);
    let refused = stage.supervisor.trial(&program).await.unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(
        refused.message.contains("workers.start_ms_max (500 ms)"),
        "{refused}"
    );
}

#[tokio::test]
async fn no_runtime_is_said_to_be_that() {
    let Some(stage) = Stage::with(|options| {
        options.workerd = "/nothing/workerd".into();
        options.launcher.clear();
        options.start_max = PATIENCE;
    }) else {
        return;
    };
    let program = answering(1, "return new Response('x')");
    let refused = stage.supervisor.trial(&program).await.unwrap_err();
    assert_eq!(refused.status, 500);
    assert!(refused.message.contains("/nothing/workerd"), "{refused}");
}
