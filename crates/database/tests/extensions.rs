//! Every extension of the distribution, in databases that did not know of it before.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use dormouse_database::{Databases, Options};
use engine::distribution::Distribution;
use harness::{cache, run, session, value};

#[tokio::test(flavor = "multi_thread")]
async fn every_extension_can_be_created() {
    let folder = tempfile::tempdir().unwrap();
    let databases = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap();
    let extensions = Distribution::open().extensions();
    assert!(extensions.len() >= 45, "{}", extensions.len());
    let mut failures = Vec::new();
    for extension in &extensions {
        let name = &extension.name;
        let mut session = session(&databases, name).await;
        let sql = format!("CREATE EXTENSION IF NOT EXISTS \"{name}\" CASCADE");
        if let Err(error) = session.query(&sql, &[]).await {
            failures.push(format!("{name}: {error}"));
            continue;
        }
        let installed = format!("SELECT extversion FROM pg_extension WHERE extname = '{name}'");
        assert_eq!(
            value(&mut session, &installed).await,
            extension.default_version,
            "{name}"
        );
    }
    assert!(failures.is_empty(), "{failures:#?}");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_extensions_live_together_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = Distribution::open()
        .extensions()
        .into_iter()
        .map(|extension| extension.name)
        .collect();
    let databases = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap();
    let mut all = session(&databases, "all").await;
    for name in &names {
        run(
            &mut all,
            &format!("CREATE EXTENSION IF NOT EXISTS \"{name}\" CASCADE"),
        )
        .await;
    }
    run(
        &mut all,
        "CREATE TABLE kept AS SELECT '[1,2]'::vector AS v, 'a=>1'::hstore AS h",
    )
    .await;
    all.close().await;
    databases.close().await.unwrap();
    drop(databases);

    let databases = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap();
    let mut all = session(&databases, "all").await;
    assert_eq!(
        value(&mut all, "SELECT v::text || (h -> 'a') FROM kept").await,
        "[1,2]1"
    );
    let count: usize = value(&mut all, "SELECT count(*) FROM pg_extension")
        .await
        .parse()
        .unwrap();
    assert_eq!(count, names.len());
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_without_an_extension_can_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let databases = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap();
    let mut session = session(&databases, "x").await;
    for library in ["auto_explain", "passwordcheck", "pg_overexplain"] {
        run(&mut session, &format!("LOAD '{library}'")).await;
    }
    run(&mut session, "EXPLAIN (RANGE_TABLE) SELECT 1").await;
    let error = session
        .query("LOAD 'nothing_of_this_name'", &[])
        .await
        .unwrap_err();
    assert_eq!(error.code(), "58P01");
    // A failed load does not break later ones.
    run(&mut session, "CREATE EXTENSION citext").await;
    assert_eq!(value(&mut session, "SELECT 'A'::citext = 'a'").await, "t");
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pgvector_finds_the_right_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let databases = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap();
    let mut session = session(&databases, "x").await;
    run(&mut session, "CREATE EXTENSION vector").await;
    run(&mut session, "CREATE TABLE items (id int, at vector(3))").await;
    // Points of a grid, so that the exact answer is known.
    let grid = "INSERT INTO items SELECT x * 400 + y * 20 + z, \
                ('[' || x || ',' || y || ',' || z || ']')::vector FROM generate_series(0, 19) x, \
                generate_series(0, 19) y, generate_series(0, 19) z";
    run(&mut session, grid).await;
    run(
        &mut session,
        "CREATE INDEX ON items USING hnsw (at vector_l2_ops)",
    )
    .await;
    run(&mut session, "SET enable_seqscan = off").await;
    let nearest = "SELECT id FROM items ORDER BY at <-> '[7.1,3.2,11.05]' LIMIT 3";
    let plan = session
        .query(&format!("EXPLAIN {nearest}"), &[])
        .await
        .unwrap();
    assert!(
        format!("{:?}", plan.rows).contains("Index Scan using items_at_idx"),
        "{plan:?}"
    );
    let found = session.query(nearest, &[]).await.unwrap();
    let found: Vec<_> = found
        .rows
        .into_iter()
        .map(|row| row[0].clone().unwrap())
        .collect();
    let id = |x: u32, y: u32, z: u32| (x * 400 + y * 20 + z).to_string();
    assert_eq!(found, [id(7, 3, 11), id(7, 4, 11), id(8, 3, 11)]);
    databases.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pgcrypto_gives_known_answers() {
    let folder = tempfile::tempdir().unwrap();
    let databases = Databases::open(Options::new(folder.path(), cache()))
        .await
        .unwrap();
    let mut session = session(&databases, "x").await;
    run(&mut session, "CREATE EXTENSION pgcrypto").await;
    // FIPS 180-2, "abc"; RFC 2202, case 2.
    let sha256 = "SELECT encode(digest('abc', 'sha256'), 'hex')";
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(value(&mut session, sha256).await, expected);
    let hmac = "SELECT encode(hmac('what do ya want for nothing?', 'Jefe', 'md5'), 'hex')";
    assert_eq!(
        value(&mut session, hmac).await,
        "750c783e6ab0b503eaa86e310a5db738"
    );
    // A vector of the bcrypt test suite (crypt_blowfish).
    let crypt = "SELECT crypt('U*U', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.')";
    let expected = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    assert_eq!(value(&mut session, crypt).await, expected);
    let round_trip = "SELECT pgp_sym_decrypt(pgp_sym_encrypt('secret', 'key'), 'key')";
    assert_eq!(value(&mut session, round_trip).await, "secret");
    let different = "SELECT pgp_sym_encrypt('a', 'k') <> pgp_sym_encrypt('a', 'k')";
    assert_eq!(value(&mut session, different).await, "t");
    databases.close().await.unwrap();
}
