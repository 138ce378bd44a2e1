//! `COPY … FROM STDIN` of clients that do not wait for its beginning, or for its end, and of those that leave amid it.

use wire::pg::{Format, Frame, frontend};

use crate::harness::wired::{Wired, kinds, values};
use crate::harness::{Pooled, Postgres, limited};

/// What a client says at once. Small letters are data for `COPY`, its end, and `Sync`.
fn say(wired: &mut Wired, what: &str) {
    for word in what.split_whitespace() {
        match word {
            "d" => frontend::copy_data(&mut wired.out, b"1\n").unwrap(),
            "bad" => frontend::copy_data(&mut wired.out, b"x\n").unwrap(),
            "c" => frontend::copy_done(&mut wired.out),
            "f" => frontend::copy_fail(&mut wired.out, b"no").unwrap(),
            "s" => frontend::sync(&mut wired.out),
            "h" => frontend::flush(&mut wired.out),
            "select" => execute(wired, "select 3"),
            "wrong" => execute(wired, "select 1/0"),
            "sleep" => execute(wired, "select pg_sleep(0.02)"),
            "begin" | "commit" | "rollback" => execute(wired, word),
            "end" => frontend::query(&mut wired.out, b"select 'end'").unwrap(),
            "query" => frontend::query(&mut wired.out, b"select 'secret'").unwrap(),
            "copies" => {
                let sql = b"copy t from stdin; copy t from stdin";
                frontend::query(&mut wired.out, sql).unwrap();
            }
            // Nothing is read of what is sent for a view.
            table => execute(wired, &format!("copy {table} from stdin")),
        }
    }
}

fn execute(wired: &mut Wired, sql: &str) {
    wired.parse("", sql, &[]).bind("", &[], Format::Text);
    wired.execute(0);
}

async fn answers(wired: &mut Wired, ready: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    for _ in 0..ready {
        frames.extend(wired.until(b'Z').await);
    }
    frames
}

/// A pool with one connection, two clients of it, and a session that has none.
async fn three() -> Option<(Postgres, Pooled, Wired, Wired, Wired)> {
    let postgres = Postgres::open()?;
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let ann = Wired::connect(pooled.address).await;
    let joe = Wired::connect(pooled.address).await;
    let mut alone = Wired::connect(postgres.native.address).await;
    alone
        .query("create table t (n int); create view v as select 1 as n")
        .await;
    Some((postgres, pooled, ann, joe, alone))
}

/// The answers are the origin's own, but for a `Sync` before the data of a `COPY` that has read none of them: Postgres
/// ignores it where it has read one, and so may the pool.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_copies_in_one_breath() {
    let Some((_postgres, _pooled, mut ann, mut joe, mut alone)) = three().await else {
        return;
    };
    for (said, expected, by_the_pool) in [
        ("t s d c s select s", "12GCZ12DCZ", None),
        ("t s bad c s select s", "12GEZ12DCZ", None),
        ("t s d f s select s", "12GEZ12DCZ", None),
        ("t s s d s d c s select s", "12GCZ12DCZ", None),
        ("missing s d c s select s", "12EZZ12DCZ", None),
        ("v s d c s select s", "12GEZZ12DCZ", Some("12GEZ12DCZ")),
        ("v s d c s wrong s", "12GEZZ1EZ", Some("12GEZ1EZ")),
        ("v d c s select s", "12GEZ12DCZ", None),
        // What stands between is done, or left out.
        ("t s d c select s", "12GC12DCZ", None),
        ("t s bad c select s", "12GEZ", None),
        ("t s d c t s d c s", "12GC12GCZ", None),
        ("select t s d c s", "12DC12GCZ", None),
        ("wrong t s d c s", "1EZZ", None),
        ("sleep s t s d c s", "12DCZ12GCZ", None),
        ("copies d c d c select s", "GCGCZ12DCZ", None),
        ("copies d c bad c select s", "GCGEZ12DCZ", None),
        ("copies f select s", "GEZ12DCZ", None),
    ] {
        let through = by_the_pool.unwrap_or(expected);
        for (wired, expected) in [(&mut ann, through), (&mut alone, expected)] {
            say(wired, said);
            let mut frames = answers(wired, expected.matches('Z').count()).await;
            let is_answered = expected == through && kinds(&frames).contains("EZZ");
            if is_answered && by_the_pool.is_some() {
                frames.extend(answers(wired, 1).await);
                frames.remove(
                    frames
                        .iter()
                        .position(|frame| frame.kind() == b'Z')
                        .unwrap(),
                );
            }
            assert_eq!(kinds(&frames), expected, "{said}");
        }
        assert_eq!(values(&joe.query("select 5").await), "5", "{said}");
    }
    let count = "select count(*) from t";
    assert_eq!(
        values(&ann.query(count).await),
        values(&alone.query(count).await)
    );
}

/// What a client says, up to which answer it waits, and what it has heard by then.
type Step = (&'static str, u8, &'static str);

/// A client that waits between.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_copies_step_by_step() {
    let Some((_postgres, _pooled, mut ann, mut joe, mut alone)) = three().await else {
        return;
    };
    let all: &[&[Step]] = &[
        &[("t s", b'G', "12G"), ("d s d", 0, ""), ("c s", b'Z', "CZ")],
        &[("t s", b'G', "12G"), ("d c", 0, ""), ("s", b'Z', "CZ")],
        &[
            ("t s", b'G', "12G"),
            ("d c t s", b'G', "C12G"),
            ("d c s", b'Z', "CZ"),
        ],
        &[("missing s", b'Z', "12EZ"), ("d c s", b'Z', "Z")],
        // It has read nothing.
        &[("v h", b'E', "12GE"), ("d c s", b'Z', "Z")],
        &[
            ("copies", b'G', "G"),
            ("d c", b'G', "CG"),
            ("d c", b'Z', "CZ"),
        ],
    ];
    for steps in all {
        for (said, until, expected) in *steps {
            for wired in [&mut ann, &mut alone] {
                say(wired, said);
                match until {
                    0 => wired.send().await,
                    until => assert_eq!(kinds(&wired.until(*until).await), *expected, "{said}"),
                }
            }
        }
        assert_eq!(values(&joe.query("select 5").await), "5");
        assert_eq!(values(&ann.query("select 6").await), "6");
    }
}

/// Whatever a client has begun and left, who has its connection next is answered what it has asked.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_18_who_vanishes_amid_a_copy_leaves_nothing() {
    let Some((_postgres, pooled, mut ann, mut joe, _alone)) = three().await else {
        return;
    };
    for said in [
        "sleep s v s d c",
        "sleep s v s d c s",
        "sleep s v s d c select s",
        "sleep s v s d c query query query query",
        "sleep s t s d c select select s",
        "sleep s t s d",
        "sleep s copies d c",
        "sleep copies query",
        "wrong query query",
    ] {
        for _ in 0..4 {
            say(&mut ann, said);
            ann.send().await;
            let (next, answer) = tokio::join!(Wired::connect(pooled.address), async {
                drop(ann);
                joe.query("select 5").await
            });
            assert_eq!(kinds(&answer), "TDCZ", "{said}");
            assert_eq!(values(&answer), "5", "{said}");
            ann = next;
        }
    }
}

/// A server that leaves out what comes before the next `Sync` is nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_17_who_has_failed_keeps_its_connection_until_sync() {
    let Some((_postgres, _pooled, mut ann, mut joe, mut alone)) = three().await else {
        return;
    };
    for wired in [&mut ann, &mut alone] {
        wired.parse("", "selec", &[]);
        say(wired, "query");
        assert_eq!(kinds(&wired.until(b'E').await), "E");
    }
    let insert = async {
        joe.parse("", "insert into t values (7)", &[]);
        joe.bind("", &[], Format::Text).execute(0).sync().await
    };
    let end = async {
        // Not before the other one waits.
        tokio::task::yield_now().await;
        let mut ends = Vec::new();
        for wired in [&mut ann, &mut alone] {
            say(wired, "s");
            ends.push(kinds(&wired.until(b'Z').await));
        }
        ends
    };
    let (inserted, ends) = tokio::join!(insert, end);
    assert_eq!(ends, ["Z", "Z"]);
    assert_eq!(kinds(&inserted), "12CZ");
    let count = "select count(*) from t where n = 7";
    assert_eq!(values(&joe.query(count).await), "1");
}

/// Programs of these words, each beside the origin itself.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_copies_amid_anything() {
    let Some((_postgres, _pooled, mut ann, mut joe, mut alone)) = three().await else {
        return;
    };
    let mut random = 1_u64;
    let mut any = |of: &[&'static str]| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        of[usize::try_from(random >> 33).unwrap() % of.len()]
    };
    for _ in 0..150 {
        let mut program = String::new();
        for _ in 0..9 {
            let word = any(&[
                "t", "t", "t", "d", "c", "s", "s", "h", "select", "wrong", "missing", "query",
                "begin", "commit", "rollback",
            ]);
            program += &format!("{word} ");
            // Of anything else amid a `COPY` Postgres ends the session.
            let (mut is_open, mut is_bad) = (word == "t", false);
            while is_open {
                // Behind what it refuses a `Sync` is answered, which the pool cannot know in time.
                let amid = match is_bad {
                    true => any(&["d", "bad", "h", "c", "f"]),
                    false => any(&["s", "s", "d", "bad", "h", "c", "c", "f"]),
                };
                is_bad |= amid == "bad";
                program += &format!("{amid} ");
                is_open = !matches!(amid, "c" | "f");
            }
        }
        // Whatever is open by then.
        program += "f s rollback s end";
        let mut told = Vec::new();
        for wired in [&mut ann, &mut alone] {
            say(wired, &program);
            let mut frames = Vec::new();
            while values(&frames) != "end" {
                frames = wired.until(b'Z').await;
                told.push(kinds(&frames));
            }
            told.push("end".to_owned());
        }
        let of_each: Vec<_> = told.split(|kinds| kinds == "end").collect();
        assert_eq!(of_each[0], of_each[1], "{program}");
        assert_eq!(values(&joe.query("select 5").await), "5", "{program}");
    }
}

/// One whose statement the server has lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_a_copy_that_is_prepared_again() {
    let Some((_postgres, _pooled, mut ann, mut joe, _alone)) = three().await else {
        return;
    };
    ann.parse("copy", "copy t from stdin", &[]).sync().await;
    for _ in 0..3 {
        ann.bind("copy", &[], Format::Text).execute(0);
        say(&mut ann, "s d c s select s");
        assert_eq!(kinds(&answers(&mut ann, 2).await), "2GCZ12DCZ");
        let lost = "do $$ begin execute 'deallocate all'; end $$";
        assert_eq!(kinds(&joe.query(lost).await), "CZ");
    }
    assert_eq!(values(&joe.query("select count(*) from t").await), "3");
}
