//! What is killed amid transactions and requests: nothing is half done, nothing stays behind, and it serves again by itself.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{bind, bound};
use crate::apps::stage::Stage;
use crate::bound::backends::bundled;
use crate::harness::{Origin, Pg, User, until};

/// Writes a number to two tables in one transaction.
const WRITES: &str = r#"import postgres from "postgres";
export default { async fetch(request: Request, env: { DB: { connectionString: string } }) {
    const sql = postgres(env.DB.connectionString);
    const n = Number(new URL(request.url).searchParams.get("n"));
    await sql.begin(async (sql: any) => {
        await sql`insert into a values (${n})`;
        await sql`insert into b values (${n})`;
    });
    return new Response("done");
} };"#;

/// Holds a row, and waits for the database.
const WAITS: &str = r#"import postgres from "postgres";
export default { async fetch(request: Request, env: { DB: { connectionString: string } }) {
    const sql = postgres(env.DB.connectionString);
    if (new URL(request.url).pathname === "/wait") {
        await sql.begin(async (sql: any) => {
            await sql`insert into a values (1)`;
            await sql`select pg_sleep(100000)`;
        });
    }
    return Response.json(await sql`select count(*)::int as n from a`);
} };"#;

const BUNDLE: [&str; 2] = ["--conditions=workerd,worker,browser", "--external:node:*"];

/// Sessions at the origin that are not the asking one.
const SESSIONS: &str = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";

fn numbers(session: &mut Pg, table: &str) -> BTreeSet<u64> {
    let rows = session.query(&format!("select n from {table}")).unwrap();
    let count = rows.len();
    let all = rows
        .into_iter()
        .map(|row| row[0].as_ref().unwrap().parse().unwrap());
    let all: BTreeSet<_> = all.collect();
    assert_eq!(all.len(), count, "one was done twice");
    all
}

#[test]
fn behaviour_27_a_server_that_is_killed_under_load() {
    let Some(origin) = Origin::start() else {
        return;
    };
    let Some(mut stage) = Stage::start() else {
        return;
    };
    let new = json!({ "name": "shop", "connectionString": origin.url(), "limits": { "connectionsMax": 4 } });
    let id = bind(&stage, &new);
    let user = User::of(&stage.server, &id);
    let mut beside = origin.session();
    beside
        .query("create table a (n bigint); create table b (n bigint)")
        .unwrap();
    stage.deploy("acme/shop", &bound(&id, &bundled(WRITES, &BUNDLE)));

    let next = AtomicU64::new(0);
    let mut acknowledged = BTreeSet::new();
    for _ in 0..3 {
        let backends = stage.until(
            || {
                stage.get("/shop/?n=-1");
                stage.backends()
            },
            |backends| backends.len() == 1,
        );
        beside
            .query("delete from a where n = -1; delete from b where n = -1")
            .unwrap();
        let (done, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let (by_apps, by_clients) = (AtomicU64::new(0), AtomicU64::new(0));
        // Whoever is amid something when the server ends has nothing to say.
        let until_it_ends = |count: &AtomicU64, once: &mut dyn FnMut(u64)| {
            while !over.load(Ordering::Acquire) {
                let n = next.fetch_add(1, Ordering::AcqRel);
                if catch_unwind(AssertUnwindSafe(|| once(n))).is_err() {
                    return;
                }
                done.lock().unwrap().push(n);
                count.fetch_add(1, Ordering::AcqRel);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut session = None;
                    until_it_ends(&by_clients, &mut |n| {
                        let session = session.get_or_insert_with(|| user.session(&stage.server));
                        for sql in [
                            "begin".to_owned(),
                            format!("insert into a values ({n})"),
                            format!("insert into b values ({n})"),
                            "commit".to_owned(),
                        ] {
                            session.query(&sql).unwrap();
                        }
                    });
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    until_it_ends(&by_apps, &mut |n| {
                        let answer = stage.get(&format!("/shop/?n={n}"));
                        assert_eq!(answer.text(), "done");
                    });
                });
            }
            let some = || {
                (
                    by_apps.load(Ordering::Acquire),
                    by_clients.load(Ordering::Acquire),
                )
            };
            until(some, |(apps, clients)| *apps > 5 && *clients > 50);
            stage.server.signal(Signal::KILL);
            over.store(true, Ordering::Release);
        });
        stage.server.wait();
        // Nothing of it is left at the origin, nor here.
        until(|| beside.gives(SESSIONS), |count| count == "0");
        for id in backends {
            until(
                || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default(),
                |stat| !stat.contains("(workerd)") || stat.contains(") Z "),
            );
        }
        acknowledged.extend(done.into_inner().unwrap());
        let (a, b) = (numbers(&mut beside, "a"), numbers(&mut beside, "b"));
        assert_eq!(a, b, "a transaction is half done");
        let lost: Vec<_> = acknowledged.difference(&a).collect();
        assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
        println!("{} acknowledged, {} there", acknowledged.len(), a.len());

        let begun = Instant::now();
        stage.server = Stage::serve(stage.folder.path(), &[]).unwrap();
        let n = next.fetch_add(1, Ordering::AcqRel);
        assert_eq!(stage.get(&format!("/shop/?n={n}")).text(), "done");
        println!("it serves again {:?} after it was started", begun.elapsed());
        acknowledged.insert(n);
        let shown = stage.api("/v1/bindings/shop").json();
        assert_eq!(shown["limits"]["connectionsMax"], 4);
        assert_eq!(shown["usedBy"], json!(["acme/shop (production)"]));
        assert_eq!(user.session(&stage.server).gives("select 1"), "1");
    }
}

#[test]
fn behaviour_27_a_backend_that_is_killed_amid_requests() {
    let Some(origin) = Origin::start() else {
        return;
    };
    let Some(stage) = Stage::start() else { return };
    let new = json!({ "name": "shop", "connectionString": origin.url(), "limits": { "connectionsMax": 4 } });
    let id = bind(&stage, &new);
    let mut beside = origin.session();
    beside.query("create table a (n bigint)").unwrap();
    stage.deploy("acme/shop", &bound(&id, &bundled(WAITS, &BUNDLE)));
    let asleep = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()";
    let open = "select count(*) from pg_stat_activity where state like 'idle in transaction%' or query like '%pg_sleep(1%'";
    for _ in 0..2 {
        let early = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let answer = stage.get("/shop/wait");
                        early.lock().unwrap().push(answer.text().to_owned());
                        answer
                    })
                })
                .collect();
            let count = || {
                let early = early.lock().unwrap().clone();
                let logs = || stage.api("/api/v1/logs/acme/shop").text();
                assert!(
                    early.is_empty(),
                    "answered before the kill: {early:?}; {}",
                    logs()
                );
                beside.gives(asleep)
            };
            until(count, |count| count == "3");
            let backends = stage.backends();
            assert_eq!(backends.len(), 1);
            let process = Pid::from_raw(backends[0].try_into().unwrap()).unwrap();
            kill_process(process, Signal::KILL).unwrap();
            for asked in asking {
                let answer = asked.join().unwrap();
                assert_eq!(answer.status, 502, "{}", answer.text());
            }
        });
        // Their statements are cancelled, and their transactions rolled back.
        let open = open.replace(
            "count(*)",
            "count(*) filter (where pid <> pg_backend_pid())",
        );
        until(|| beside.gives(&open), |count| count == "0");
        let answer = stage.get("/shop/");
        assert_eq!((answer.status, answer.json()), (200, json!([{ "n": 0 }])));
        let shown = stage.api("/v1/bindings/shop").json();
        assert!(shown["pool"]["connections"].as_u64() <= Some(4), "{shown}");
    }
}
