//! A deployment is kept alive, within limits, and exchanged without a gap.

use crate::harness::{PATIENCE, Stage, answering, get, get_by, logged};
use dormouse_workers::{
    modules::Code,
    runtime::{Level, Running},
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The process of a deployment, which may just be starting.
async fn pid(running: &Running) -> Pid {
    let begin = Instant::now();
    loop {
        if let Some(id) = running.standing().process {
            return Pid::from_raw(id.try_into().unwrap()).unwrap();
        }
        assert!(begin.elapsed() < PATIENCE, "nothing starts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a process to be gone.
async fn gone(pid: Pid) {
    let begin = Instant::now();
    while test_kill_process(pid).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "{pid:?} lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_swap_refuses_no_request_and_lets_those_under_way_finish() {
    let Some(stage) = Stage::new() else { return };
    let of = |version: u64| {
        let body = format!(
            "if (request.url.endsWith('/slow')) await scheduler.wait(1500); return new Response('{version}');"
        );
        answering(version, &body)
    };
    let running = stage.supervisor.run(of(1)).await.unwrap();
    let first = pid(&running).await;
    let slow = tokio::spawn(get_by(running.lease(), "/slow"));
    // It has been taken when a later one has been answered.
    get(&running, "/").await.unwrap();
    let over = AtomicBool::new(false);
    let ask = async || {
        let mut answers = Vec::new();
        while !over.load(Ordering::Relaxed) {
            answers.push(get(&running, "/").await.unwrap());
        }
        answers
    };
    let swap = async {
        for version in 2..=4 {
            running.swap(of(version)).await.unwrap();
            assert_eq!(running.standing().version, version);
        }
        over.store(true, Ordering::Relaxed);
    };
    let (a, b, c, ()) = tokio::join!(ask(), ask(), ask(), swap);
    for answers in [a, b, c] {
        assert!(!answers.is_empty() && answers.iter().all(|(status, _)| *status == 200));
    }
    assert_eq!(get(&running, "/").await.unwrap(), (200, "4".to_owned()));
    assert_eq!(slow.await.unwrap().unwrap(), (200, "1".to_owned()));
    gone(first).await;
    assert_eq!(running.standing().crashes, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_version_that_does_not_start_leaves_the_old_one_serving() {
    let Some(stage) = Stage::new() else { return };
    let running = stage
        .supervisor
        .run(answering(1, "return new Response('one')"))
        .await
        .unwrap();
    let mut broken = answering(2, "");
    broken.backend.modules[0].code = Code::Script("throw new Error('late')".to_owned());
    let refused = running.swap(broken).await.unwrap_err();
    assert!(refused.to_string().contains("Error: late"), "{refused}");
    assert_eq!(running.standing().version, 1);
    assert_eq!(get(&running, "/").await.unwrap(), (200, "one".to_owned()));
    // And it is the old one that comes back after a crash.
    kill_process(pid(&running).await, Signal::KILL).unwrap();
    assert_eq!(get(&running, "/").await.unwrap(), (200, "one".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn a_crash_is_restarted_and_requests_wait() {
    let Some(stage) = Stage::new() else { return };
    let running = stage
        .supervisor
        .run(answering(1, "return new Response('up')"))
        .await
        .unwrap();
    for crash in 1..=3 {
        let before = pid(&running).await;
        kill_process(before, Signal::KILL).unwrap();
        gone(before).await;
        assert_eq!(get(&running, "/").await.unwrap(), (200, "up".to_owned()));
        assert_eq!(running.standing().crashes, crash);
        assert_ne!(pid(&running).await, before);
    }
    logged(
        running.log(),
        Level::Supervisor,
        "the backend ended (signal: 9",
    )
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_heap_that_is_full_ends_one_process_only() {
    let Some(stage) = Stage::with(|options| options.heap_mib_max = 32) else {
        return;
    };
    let body = "if (request.url.endsWith('/fill')) { const all = []; for (;;) all.push(new Array(1e5).fill({})); } \
                return new Response('up');";
    let running = stage.supervisor.run(answering(1, body)).await.unwrap();
    let filled = get(&running, "/fill").await;
    assert!(filled.is_err() || filled.is_ok_and(|(status, _)| status >= 500));
    logged(running.log(), Level::Supervisor, "the backend ended").await;
    assert_eq!(get(&running, "/").await.unwrap(), (200, "up".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn memory_has_a_limit_with_a_name() {
    let Some(stage) = Stage::with(|options| {
        options.memory_bytes_max = 300 << 20;
        options.memory_check = Duration::from_millis(20);
    }) else {
        return;
    };
    let body = "if (request.url.endsWith('/fill')) { globalThis.all = []; for (let i = 0; i < 40; i++) { \
                all.push(new Uint8Array(2e7).fill(1)); await scheduler.wait(30); } } return new Response('up');";
    let running = stage.supervisor.run(answering(1, body)).await.unwrap();
    assert!(get(&running, "/fill").await.is_err());
    logged(
        running.log(),
        Level::Supervisor,
        "raise workers.memory_bytes_max",
    )
    .await;
    assert_eq!(get(&running, "/").await.unwrap(), (200, "up".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn a_loop_is_killed_when_its_time_to_drain_is_over() {
    let Some(stage) = Stage::with(|options| options.drain_max = Duration::from_millis(300)) else {
        return;
    };
    let body = "console.log('begun'); for (;;) {}";
    let running = stage.supervisor.run(answering(1, body)).await.unwrap();
    let (process, log) = (pid(&running).await, Arc::clone(running.log()));
    let socket = running.lease().path().to_owned();
    let asked = tokio::spawn(get_by(running.lease(), "/"));
    logged(&log, Level::Log, "begun").await;
    running.stop().await;
    assert!(asked.await.unwrap().is_err());
    logged(&log, Level::Supervisor, "drain_ms_max (300 ms)").await;
    gone(process).await;
    assert!(!socket.exists());
}

/// Whoever notices that a backend answers nobody has it restarted, once.
#[tokio::test]
async fn a_loop_is_ended_by_whoever_notices() {
    let Some(stage) = Stage::new() else { return };
    let body = "if (request.url.endsWith('/loop')) { console.log('begun'); for (;;) {} } return new Response('up');";
    let running = stage.supervisor.run(answering(1, body)).await.unwrap();
    let before = running.standing().process.unwrap();
    let asked = tokio::spawn(get_by(running.lease(), "/loop"));
    logged(running.log(), Level::Log, "begun").await;
    running.restart(before, "it answers nobody").await;
    running.restart(before, "it answers nobody").await;
    assert!(asked.await.unwrap().is_err());
    assert_eq!(get(&running, "/").await.unwrap(), (200, "up".to_owned()));
    running.restart(before, "it answers nobody").await;
    assert_eq!(get(&running, "/").await.unwrap(), (200, "up".to_owned()));
    assert_eq!(running.standing().crashes, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_deployment_that_is_dropped_is_killed() {
    let Some(stage) = Stage::new() else { return };
    let program = answering(1, "return new Response('up')");
    let running = stage.supervisor.run(program).await.unwrap();
    let process = pid(&running).await;
    drop(running);
    gone(process).await;
}

/// No runtime outlives a server that is killed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_launched_ends_with_its_parent() {
    let mut shell = Command::new("sh")
        .args(["-c", "\"$0\" launch sleep 1000 & echo $!; wait"])
        .arg(env!("CARGO_BIN_EXE_dormouse-workers-child"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(shell.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let child = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    let name = format!("/proc/{}/comm", line.trim());
    let begin = Instant::now();
    while std::fs::read_to_string(&name).unwrap().trim() != "sleep" {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shell.kill().unwrap();
    shell.wait().unwrap();
    gone(child).await;
}
