//! A few stories of the fuzzers: arbitrary messages over many connections, and programs of sessions that a
//! native server must answer equally. They are here because only here cargo builds the program first;
//! docs/fuzzing.md says how to run them for as long as one likes, and what is left out and why.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::PathBuf;
use std::time::Duration;

use fuzz::protocol::options::Until;
use fuzz::{protocol, sessions};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dormouse");

#[tokio::test]
async fn arbitrary_messages_do_no_harm_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let options = protocol::options::Options {
        dormouse: PathBuf::from(PROGRAM),
        folder: folder.path().to_owned(),
        seed: 20_261,
        first_round: 0,
        until: Until::Rounds(2),
        story: None,
        connections: 8,
        databases: 2,
        processes_max: 3,
        stories: 4,
        patience: Duration::from_secs(60),
        memory_bytes_max: 1 << 30,
        mixed_queries: false,
        // A process that once had temporary tables keeps whoever comes into it: that one is not to be ended.
        settings: vec![(
            "DORMOUSE_SESSIONS__IDLE_HOLDER_MS_MAX".to_owned(),
            "60000".to_owned(),
        )],
        failures_max: 1,
    };
    let mut told = String::new();
    let outcome = protocol::run::run(&options, |line| told.push_str(line)).await;
    let summary = outcome.unwrap_or_else(|error| panic!("{error}\n{told}"));
    assert_eq!(summary.failures, 0, "{told}");
    assert!(summary.played > 32, "{summary}");
    assert!(summary.looks >= 8, "{summary}");
}

#[tokio::test]
async fn sessions_are_answered_as_by_a_native_server() {
    let tools = std::env::var_os("DORMOUSE_TEST_TOOLS").map(PathBuf::from);
    let Some(tools) = tools else {
        eprintln!("skipped: no PostgreSQL 18; `cargo xtask test` brings it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = sessions::options::Options {
        dormouse: PathBuf::from(PROGRAM),
        postgres: tools.join("bin"),
        folder: folder.path().to_owned(),
        seed: 2,
        time: Duration::from_secs(60),
        programs: 3,
        processes_max: 3,
        shrink_runs: 0,
        differences_max: 1,
    };
    let mut told = String::new();
    let outcome = sessions::run::run(&options, |line| told.push_str(line)).await;
    let summary = outcome.unwrap_or_else(|error| panic!("{error}\n{told}"));
    assert_eq!(summary.differences, 0, "{told}");
    assert!(summary.ops > 60, "{summary:?}");
}
