use super::*;
use crate::facts::Facts;

fn reading(sql: &str) -> Reading {
    let facts = Facts::of(sql);
    assert!(!facts.is_unreadable, "{sql}");
    facts.reading
}

fn obstacle(sql: &str) -> Option<Obstacle> {
    reading(sql).obstacle
}

fn names(of: &BTreeSet<Name>) -> Vec<String> {
    let name = |name: &Name| match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    };
    of.iter().map(name).collect()
}

#[test]
fn what_reads() {
    for sql in [
        "select 1",
        "select * from t where a = $1 order by b limit 3",
        "values (1), (2)",
        "table t",
        "with c as (select * from t) select count(*) from c join d using (id)",
        "select 'x'::timestamptz, $1::date, '2020-01-01'::text::date, date '2020-01-01'",
        "select a::date, date_trunc('day', a)::date from t",
        "select a::text, b::int[], c::numeric(3, 2) from t",
        "select current_user, session_user, current_schema",
    ] {
        assert_eq!(obstacle(sql), None, "{sql}");
    }
    assert!(reading("select current_user").asks_session);
}

#[test]
fn what_does_not() {
    for (sql, expected) in [
        ("", Obstacle::NotAQuery),
        ("begin", Obstacle::NotAQuery),
        ("insert into t values (1)", Obstacle::NotAQuery),
        ("update t set a = 1 returning *", Obstacle::NotAQuery),
        (
            "with x as (delete from t returning *) select * from x",
            Obstacle::NotAQuery,
        ),
        ("select 1 as a into t2", Obstacle::NotAQuery),
        ("show search_path", Obstacle::NotAQuery),
        ("explain select 1", Obstacle::NotAQuery),
        ("select * from t for update", Obstacle::Uncacheable),
        (
            "select * from (select * from t for share) s",
            Obstacle::Uncacheable,
        ),
        (
            "select * from t tablesample system (1)",
            Obstacle::Uncacheable,
        ),
        ("select ctid from t", Obstacle::Uncacheable),
        ("select t.xmax from t", Obstacle::Uncacheable),
        ("select * from elsewhere.public.t", Obstacle::Uncacheable),
        ("select current_date", Obstacle::Volatile),
        ("select current_timestamp(2), 1", Obstacle::Volatile),
        ("select * from t where a > localtime", Obstacle::Volatile),
        ("select (a || b)::timestamptz from t", Obstacle::Volatile),
        ("select (a->>'at')::date from t", Obstacle::Volatile),
        (
            "select b::date from (select a as b from t) s",
            Obstacle::Volatile,
        ),
        (
            "select b::date from (select a from t) s (b)",
            Obstacle::Volatile,
        ),
        ("select a::timetz from t", Obstacle::Volatile),
        ("select a::regclass from t", Obstacle::Volatile),
        ("select max(a)::mydomain from t", Obstacle::Volatile),
        (
            "select a::time at time zone 'UTC' from t",
            Obstacle::Volatile,
        ),
        (
            "select * from json_to_record('{}') as x (a date)",
            Obstacle::Volatile,
        ),
        (
            "select json_value(a, '$.b' returning date) from t",
            Obstacle::Volatile,
        ),
    ] {
        assert_eq!(obstacle(sql), Some(expected), "{sql}");
    }
}

#[test]
fn what_is_read() {
    let sql = "with c as (select * from a) select f(x), count(*), percentile_cont(0.5) within group (order by y) \
        from c, s.b, lateral g(1, 2, 3) where x operator(s.@@@) 1 and y = any (select z from d) and c.computed";
    let reading = reading(sql);
    assert_eq!(names(&reading.relations), ["a", "c", "d", "s.b"]);
    assert!(reading.common.contains("c"));
    let calls = reading.calls.iter();
    let calls: Vec<_> = calls.map(|call| (&*call.name, call.arguments)).collect();
    assert_eq!(
        calls,
        [("count", 0), ("f", 1), ("g", 3), ("percentile_cont", 2)]
    );
    assert!(reading.operators.contains("@@@") && reading.columns.contains("computed"));
}

#[test]
fn what_is_written() {
    let tables = |sql: &str| {
        let writes = reading(sql).writes;
        assert!(!writes.everything, "{sql}");
        names(&writes.tables)
    };
    for (sql, expected) in [
        ("insert into s.t select * from u", &["s.t"][..]),
        ("update t set a = 1 from u", &["t"]),
        ("delete from t using u", &["t"]),
        (
            "merge into t using u on true when matched then delete",
            &["t"],
        ),
        ("truncate t, u", &["t", "u"]),
        ("copy t from stdin", &["t"]),
        ("copy t to stdout", &[]),
        ("copy (delete from t returning *) to stdout", &["t"]),
        ("refresh materialized view m", &["m"]),
        ("explain analyze delete from t", &["t"]),
        (
            "with x as (insert into t values (1) returning *), y as (update u set a = 1) select 1",
            &["t", "u"],
        ),
        ("declare c cursor for select * from t", &[]),
        ("select 1; update t set a = 2", &["t"]),
        ("create temp table x as select 1", &[]),
        ("create temp table x (n int)", &[]),
        ("set a.b = '1'", &[]),
    ] {
        assert_eq!(tables(sql), expected, "{sql}");
    }
    for sql in [
        "create table t (n int)",
        "select 1 as n into t",
        "create table t as select 1",
        "truncate t cascade",
        "alter table t add n int",
        "do $$ begin end $$",
        "call p()",
        "execute p",
        "grant select on t to joe",
        "drop table t",
        "create index on t (n)",
        "commit prepared 'x'",
        "create or replace view v as select 1",
        "alter role joe set search_path = a",
        "import foreign schema a from server b into c",
    ] {
        assert!(reading(sql).writes.everything, "{sql}");
    }
    assert!(
        reading("create temp table x (n int)")
            .writes
            .temporary
            .contains("x")
    );
}

#[test]
fn what_commits() {
    for (sql, expected) in [
        ("begin", false),
        ("rollback", false),
        ("savepoint s", false),
        ("rollback to s", false),
        ("commit", true),
        ("end", true),
        ("commit and chain", true),
        ("prepare transaction 'x'", true),
        ("commit prepared 'x'", true),
        ("insert into t values (1); commit", true),
        ("insert into t values (1)", false),
        ("rollback; insert into t values (1)", true),
    ] {
        assert_eq!(reading(sql).writes.may_commit, expected, "{sql}");
    }
    assert!(Reading::unknown().writes.may_commit);
    assert!(reading("rollback").writes.may_end && !reading("rollback to s").writes.may_end);
}
