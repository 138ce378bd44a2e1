//! Prepared statements of a client that has another connection for each of its transactions, beside one that is alone.

use wire::pg::{Format, Frame, Target, frontend};

use crate::harness::wired::{Wired, bytes, kinds, values};
use crate::harness::{Pooled, Postgres, limited, until};

/// A client that can be made to change connections, and one that has the origin for itself.
struct Moving {
    client: Wired,
    /// Whoever has begun a transaction has the connection that was used last.
    holder: Wired,
    is_held: bool,
    process: String,
    alone: Wired,
    _postgres: Postgres,
}

impl Moving {
    async fn start() -> Option<Self> {
        let postgres = Postgres::open()?;
        let pooled = Pooled::start(postgres.origin(), limited(2)).await;
        let mut moving = Self {
            client: Wired::connect(pooled.address).await,
            holder: Wired::connect(pooled.address).await,
            is_held: false,
            process: String::new(),
            alone: Wired::connect(postgres.native.address).await,
            _postgres: postgres,
        };
        moving.process = moving.now().await;
        Some(moving)
    }

    async fn now(&mut self) -> String {
        values(&self.client.query("select pg_backend_pid()").await)
    }

    /// From here on the client has the other connection. The pool itself may have one for a moment, and then it takes more
    /// than one step.
    async fn moves(&mut self) {
        let process = self.process.clone();
        until("it has moved", async || {
            let sql = match self.is_held {
                true => "commit",
                false => "begin; select 1",
            };
            self.is_held = !self.is_held;
            self.holder.query(sql).await;
            self.process = self.now().await;
            self.process != process
        })
        .await;
    }

    /// Moves, and says the same to both: the answers are the same, but for where in Postgres' sources an error is from.
    async fn both(&mut self, what: &str, say: impl AsyncFn(&mut Wired) -> Vec<Frame>) -> String {
        self.moves().await;
        let (got, expected) = (say(&mut self.client).await, say(&mut self.alone).await);
        assert_eq!(kinds(&got), kinds(&expected), "{what}");
        assert_eq!(values(&got), values(&expected), "{what}");
        if !kinds(&got).contains('E') {
            assert_eq!(bytes(&got), bytes(&expected), "{what}");
        }
        format!("{} {}", kinds(&got), values(&got))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_17_named_statements_move_with_their_client() {
    let Some(mut moving) = Moving::start().await else {
        return;
    };
    let sum = "select $1::int + $2::int as sum";
    let said = moving
        .both("prepared, and run elsewhere", async |wired| {
            wired.parse("a", sum, &[]);
            wired.parse("b", "select 'b' || $1 as text", &[25]);
            wired.sync().await
        })
        .await;
    assert_eq!(said, "11Z ");
    for n in ["1", "2", "3"] {
        let said = moving
            .both("bound", async |wired| {
                wired.bind("a", &[n, "10"], Format::Text).execute(0);
                wired.bind("b", &[n], Format::Text).execute(0);
                wired.sync().await
            })
            .await;
        assert_eq!(said, format!("2DC2DCZ 1{n} b{n}"));
    }
    let said = moving
        .both("described without being run", async |wired| {
            wired.describe(Target::Statement, "a");
            wired.describe(Target::Statement, "b").sync().await
        })
        .await;
    assert_eq!(said, "tTtTZ ");
    let said = moving
        .both("a name that is taken", async |wired| {
            wired.parse("a", "select 5", &[]).sync().await
        })
        .await;
    assert!(said.starts_with("EZ 42P05 "), "{said}");
    moving
        .both("closed", async |wired| wired.close("a").sync().await)
        .await;
    let said = moving
        .both("what is closed", async |wired| {
            wired.bind("a", &["1", "2"], Format::Text).execute(0);
            wired.sync().await
        })
        .await;
    assert!(said.starts_with("EZ 26000 "), "{said}");
    moving
        .both("the same name for another text", async |wired| {
            wired.parse("a", "select 'other' as it", &[]).sync().await
        })
        .await;
    let said = moving
        .both("the other text", async |wired| {
            wired.bind("a", &[], Format::Text);
            wired.describe(Target::Portal, "").execute(0).sync().await
        })
        .await;
    assert_eq!(said, "2TDCZ other");
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_17_errors_amid_a_pipeline() {
    let Some(mut moving) = Moving::start().await else {
        return;
    };
    let said = moving
        .both("what came before the error is there", async |wired| {
            wired.parse("before", "select 'before'", &[]);
            wired.parse("fails", "select 1 / $1::int", &[]);
            wired.bind("fails", &["0"], Format::Text).execute(0);
            wired.parse("after", "select 'after'", &[]);
            wired.bind("before", &[], Format::Text).execute(0);
            wired.sync().await
        })
        .await;
    assert!(said.starts_with("11EZ 22012 "), "{said}");
    let said = moving
        .both("one pipeline after the other", async |wired| {
            wired.bind("before", &[], Format::Text).execute(0);
            let mut frames = wired.sync().await;
            wired.bind("after", &[], Format::Text).execute(0);
            frames.extend(wired.sync().await);
            wired.bind("fails", &["1"], Format::Text).execute(0);
            frames.extend(wired.sync().await);
            frames
        })
        .await;
    assert!(said.starts_with("2DCZEZ2DCZ before 26000 "), "{said}");
    let said = moving
        .both("a text that does not parse", async |wired| {
            wired.parse("wrong", "selec 1", &[]);
            wired.bind("wrong", &[], Format::Text).execute(0);
            wired.sync().await
        })
        .await;
    assert!(said.starts_with("EZ 42601 "), "{said}");
    let said = moving
        .both("several errors, each of its own pipeline", async |wired| {
            wired.bind("nothing", &[], Format::Text).execute(0);
            frontend::sync(&mut wired.out);
            wired.bind("before", &[], Format::Text).execute(0);
            frontend::sync(&mut wired.out);
            let mut frames = wired.until(b'Z').await;
            frames.extend(wired.until(b'Z').await);
            frames
        })
        .await;
    assert!(said.starts_with("EZ2DCZ 26000 "), "{said}");
}

/// Before anybody knows whether the first of them is taken.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_17_one_text_by_several_names() {
    let Some(mut moving) = Moving::start().await else {
        return;
    };
    let said = moving
        .both("in one breath", async |wired| {
            for name in ["a", "b", "c"] {
                wired.parse(name, "select $1 || '!'", &[25]);
                wired.bind(name, &[name], Format::Text).execute(0);
            }
            wired.sync().await
        })
        .await;
    assert_eq!(said, "12DC12DC12DCZ a! b! c!");
    let said = moving
        .both("of which the first fails", async |wired| {
            let later = "select 'there' from later";
            wired.query("drop table if exists later").await;
            wired.parse("d", later, &[]);
            frontend::sync(&mut wired.out);
            frontend::query(&mut wired.out, b"create table later as select 1").unwrap();
            wired.parse("e", later, &[]);
            wired.bind("e", &[], Format::Text).execute(0);
            frontend::sync(&mut wired.out);
            let mut frames = wired.until(b'Z').await;
            frames.extend(wired.until(b'Z').await);
            frames.extend(wired.until(b'Z').await);
            wired.bind("e", &[], Format::Text).execute(0);
            frames.extend(wired.sync().await);
            wired.bind("d", &[], Format::Text).execute(0);
            frames.extend(wired.sync().await);
            frames
        })
        .await;
    assert!(said.starts_with("EZCZ12DCZ2DCZEZ 42P01 "), "{said}");
    assert!(said.contains(" there there 26000 "), "{said}");
}

/// As postgres.js does it: what a statement takes and gives is waited for before it is bound.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_17_flush_without_sync() {
    let Some(mut moving) = Moving::start().await else {
        return;
    };
    for round in 0..4 {
        let said = moving
            .both(
                "parsed, described, flushed, and bound then",
                async |wired| {
                    let name = format!("s{round}");
                    wired.parse(&name, "select $1::int as n", &[]);
                    wired.describe(Target::Statement, &name).flush();
                    let mut frames = wired.until_described().await;
                    wired.bind(&name, &["7"], Format::Binary).execute(0);
                    frames.extend(wired.sync().await);
                    frames.extend(wired.close(&name).sync().await);
                    frames
                },
            )
            .await;
        assert!(said.starts_with("1tT2DCZ3Z "), "{said}");
    }
}

/// Each connection has the statement when its result changes; whoever asks what it is does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn behaviour_17_a_result_that_has_another_type() {
    let Some(mut moving) = Moving::start().await else {
        return;
    };
    moving.alone.query("create table t as select 1 as a").await;
    moving.client.parse("s", "select * from t", &[]);
    moving.client.sync().await;
    let mut ask = async |expected: &str, alter: Option<&str>| {
        moving.moves().await;
        if let Some(alter) = alter {
            moving.alone.query(alter).await;
        }
        moving.client.bind("s", &[], Format::Text);
        moving.client.describe(Target::Portal, "").execute(0);
        let frames = moving.client.sync().await;
        assert_eq!((&*kinds(&frames), &*values(&frames)), ("2TDCZ", expected));
    };
    ask("1", None).await;
    ask("1", None).await;
    ask("1|2", Some("alter table t add b int default 2")).await;
    ask("1|2", None).await;
    ask("x|2", Some("alter table t alter a type text using 'x'")).await;
    ask("x|2", None).await;
}
