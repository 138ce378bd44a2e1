//! Whatever is killed, what is deployed comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::stage::{Archive, Stage, saying};

fn app(text: &str) -> Archive {
    Archive::of(&[("worker/index.js", &saying(text))])
}

#[test]
fn a_backend_that_is_killed_serves_the_next_request() {
    let Some(stage) = Stage::start() else { return };
    stage.deploy("acme/shop", &app("up"));
    for _ in 0..3 {
        assert_eq!(stage.get("/shop/").text(), "up");
        let backends = stage.until(|| stage.backends(), |backends| backends.len() == 1);
        let process = Pid::from_raw(backends[0].try_into().unwrap()).unwrap();
        kill_process(process, Signal::KILL).unwrap();
        stage.until(|| stage.backends(), |now| !now.contains(&backends[0]));
        assert_eq!(stage.get("/shop/").text(), "up");
    }
    let logs = stage.api("/api/v1/logs/acme/shop?kind=outcome").text();
    assert!(logs.contains("the backend ended (signal: 9"), "{logs}");
}

#[test]
fn a_backend_that_runs_in_a_circle_is_started_again() {
    let settings = [("DORMOUSE_WORKERS__REQUEST_MS_MAX", "1000")];
    let Some(stage) = Stage::start_with(&settings) else {
        return;
    };
    let code = "export default { async fetch(request) { const { pathname } = new URL(request.url);\n\
                if (pathname === '/loop') for (;;) {}\n\
                if (pathname === '/slow') await scheduler.wait(600_000);\n\
                return new Response('up'); } };";
    stage.deploy("acme/shop", &Archive::of(&[("worker/index.js", code)]));
    let backend = stage.until(|| stage.backends(), |backends| backends.len() == 1);
    // One that only waits is left alone.
    let slow = stage.get("/shop/slow");
    assert_eq!(slow.status, 504);
    assert!(
        slow.text().contains("workers.request_ms_max (1000 ms)"),
        "{}",
        slow.text()
    );
    assert_eq!(stage.get("/shop/").text(), "up");
    assert_eq!(stage.get("/shop/loop").status, 504);
    stage.until(|| stage.get("/shop/").status, |status| *status == 200);
    assert_ne!(stage.backends(), backend);
    let logs = stage.api("/api/v1/logs/acme/shop?kind=outcome").text();
    assert!(logs.contains("runs in a circle"), "{logs}");
    let usage = stage.api("/api/v1/usage/acme/shop").json();
    assert!(
        usage["data"]["usage"]["metrics"]["errors"].as_u64() >= Some(2),
        "{usage}"
    );
}

#[test]
fn a_server_that_comes_back_serves_what_it_served() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.deploy("acme/shop", &app("one"));
    let backends = stage.backends();
    stage.server.signal(Signal::KILL);
    stage.server.wait();
    // Nothing that it has started outlives it.
    for id in backends {
        stage.until(
            || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default(),
            |stat| !stat.contains("(workerd)") || stat.contains(") Z "),
        );
    }
    stage.server = Stage::serve(stage.folder.path(), &[]).unwrap();
    assert_eq!(stage.get("/shop/").text(), "one");
}

/// Killed at any moment of a deployment: one that was acknowledged serves, or the one that was under way.
#[test]
fn a_server_that_is_killed_amid_deployments() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    stage.deploy("acme/shop", &app("0"));
    let mut number = 0;
    for round in 0..4 {
        let (begun, acknowledged) = (AtomicU64::new(number), AtomicU64::new(number));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let next = begun.fetch_add(1, Ordering::AcqRel) + 1;
                    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        stage.deploy("acme/shop", &app(&next.to_string()));
                    }));
                    // It has been killed meanwhile.
                    let Ok(()) = sent else { return };
                    acknowledged.store(next, Ordering::Release);
                }
            });
            let target = number + 1 + round % 2;
            stage.until(
                || acknowledged.load(Ordering::Acquire),
                |done| *done >= target,
            );
            stage.server.signal(Signal::KILL);
            over.store(true, Ordering::Release);
        });
        stage.server.wait();
        stage.server = Stage::serve(stage.folder.path(), &[]).unwrap();
        let serves: u64 = stage.get("/shop/").text().parse().unwrap();
        let (least, most) = (acknowledged.into_inner(), begun.into_inner());
        assert!(
            (least..=most).contains(&serves),
            "{least} to {most}: {serves}"
        );
        number = most;
    }
}
