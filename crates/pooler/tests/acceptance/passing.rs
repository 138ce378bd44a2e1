//! What passes through as it is: beside the origin's own answers, byte for byte.

use wire::pg::{Format, Frame, frontend};

use crate::harness::wired::{Wired, bytes, kinds, notices, values};
use crate::harness::{Pooled, Postgres, limited};

async fn both() -> Option<(Postgres, Wired, Wired)> {
    let postgres = Postgres::open()?;
    let pooled = Pooled::start(postgres.origin(), limited(1)).await;
    let through = Wired::connect(pooled.address).await;
    let alone = Wired::connect(postgres.native.address).await;
    Some((postgres, through, alone))
}

/// Both are told the same; gives the answer.
async fn same(
    through: &mut Wired,
    alone: &mut Wired,
    what: &str,
    say: impl AsyncFn(&mut Wired) -> Vec<Frame>,
) -> Vec<Frame> {
    let (got, expected) = (say(through).await, say(alone).await);
    assert_eq!(kinds(&got), kinds(&expected), "{what}");
    assert_eq!(bytes(&got), bytes(&expected), "{what}");
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_several_statements_notices_and_parameters() {
    let Some((_postgres, mut through, mut alone)) = both().await else {
        return;
    };
    // A changed parameter is told before the end.
    for (sql, expected) in [
        ("select 1; select 'two', 3; select", "TDCTDCTDCZ"),
        ("", "IZ"),
        ("select 1; select 1 / 0; select 2", "TDCEZ"),
        (
            "do $$ begin raise notice 'a'; raise warning 'b'; end $$",
            "NNCZ",
        ),
        ("set time zone 'Asia/Tokyo'", "CSZ"),
        ("select '2026-01-01 00:00+00'::timestamptz", "TDCZ"),
        ("set application_name = 'mine'; reset time zone", "CCSSZ"),
        ("begin; set local datestyle = 'SQL, DMY'", "CCSZ"),
        ("select '2026-02-01'::date", "TDCZ"),
        ("commit", "CSZ"),
        ("begin; set datestyle = 'German'", "CCSZ"),
        ("rollback", "CSZ"),
        (
            "select generate_series(1, 5); show application_name",
            "TDDDDDCTDCZ",
        ),
        ("drop table if exists nowhere", "NCZ"),
        ("values (null, ''), (E'\\\\x', 'ä')", "TDDCZ"),
    ] {
        let say = async |wired: &mut Wired| wired.query(sql).await;
        let got = same(&mut through, &mut alone, sql, say).await;
        assert_eq!(kinds(&got), expected, "{sql}");
    }
    let notice = "do $$ begin raise notice 'heard'; end $$";
    assert_eq!(notices(&through.query(notice).await), ["heard"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_copies_both_ways() {
    let Some((_postgres, mut through, mut alone)) = both().await else {
        return;
    };
    alone
        .query("create table a (n int, t text); create table b (like a)")
        .await;
    let copy = async |wired: &mut Wired, table: &str, lines: &[&str], fails: bool| {
        let sql = format!("copy {table} from stdin");
        frontend::query(&mut wired.out, sql.as_bytes()).unwrap();
        let mut frames = wired.until(b'G').await;
        for line in lines {
            frontend::copy_data(&mut wired.out, line.as_bytes()).unwrap();
        }
        match fails {
            true => frontend::copy_fail(&mut wired.out, b"no more").unwrap(),
            false => frontend::copy_done(&mut wired.out),
        }
        frames.extend(wired.until(b'Z').await);
        frames
    };
    let long = format!("3\t{}\n", "x".repeat(100_000));
    let lines = ["1\ta\n2", "\tb\n", &long, "\\N\t\\N\n"];
    let got = copy(&mut through, "a", &lines, false).await;
    let expected = copy(&mut alone, "b", &lines, false).await;
    assert_eq!(bytes(&got), bytes(&expected));
    assert_eq!(kinds(&got), "GCZ");
    for (lines, fails) in [(&["1\ta\n", "x\ty\n"][..], false), (&["5\tb\n"], true)] {
        let got = copy(&mut through, "a", lines, fails).await;
        let expected = copy(&mut alone, "b", lines, fails).await;
        assert_eq!(kinds(&got), "GEZ");
        let code = |frames: &[Frame]| values(frames).split(' ').next().unwrap().to_owned();
        assert_eq!(code(&got), code(&expected));
    }
    for sql in [
        "copy a to stdout",
        "copy (select n, repeat('y', n) from generate_series(1, 3000) n) to stdout with (format csv)",
        "copy (select * from b order by n) to stdout with (format binary)",
    ] {
        let got = same(&mut through, &mut alone, sql, async |wired| {
            wired.query(sql).await
        })
        .await;
        assert!(kinds(&got).starts_with("Hd"), "{sql}");
    }
    let count = values(
        &through
            .query("select count(*), (select count(*) from b) from a")
            .await,
    );
    assert_eq!(count, "4|4");
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_20_portals_with_a_limit_of_rows() {
    let Some((_postgres, mut through, mut alone)) = both().await else {
        return;
    };
    let sql = "select n, 'row ' || n from generate_series(1, 10) n";
    for format in [Format::Text, Format::Binary] {
        let got = same(&mut through, &mut alone, "in one breath", async |wired| {
            wired.parse("", sql, &[]).bind("", &[], format);
            wired.execute(4).execute(4).execute(4).sync().await
        })
        .await;
        assert_eq!(kinds(&got), "12DDDDsDDDDsDDCZ");
        // The connection stays with its client in between, as it is asked for nothing else.
        let got = same(&mut through, &mut alone, "each waited for", async |wired| {
            wired.parse("", sql, &[]).bind("", &[], format);
            let mut frames = wired.execute(3).flush().until(b's').await;
            frames.extend(wired.execute(3).flush().until(b's').await);
            frames.extend(wired.execute(0).sync().await);
            frames
        })
        .await;
        assert_eq!(kinds(&got), "12DDDsDDDsDDDDCZ");
    }
    let got = same(&mut through, &mut alone, "cursors", async |wired| {
        let mut frames = wired
            .query("begin; declare c scroll cursor for select generate_series(1, 9)")
            .await;
        frames.extend(wired.query("fetch 2 from c").await);
        frames.extend(
            wired
                .query("fetch backward 1 from c; move last from c")
                .await,
        );
        frames.extend(wired.query("fetch prior from c; commit").await);
        frames
    })
    .await;
    assert_eq!(values(&got), "1 2 1 8");
}
