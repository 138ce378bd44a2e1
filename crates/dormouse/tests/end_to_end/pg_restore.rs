//! pg_dump and pg_restore in the formats that are not SQL, with several sessions each.

use std::path::Path;

use crate::harness::{Server, run_program};
use crate::psql::{SAME, client, load};

/// Rows, and everything that a schema has, as one number.
const GARDEN: &str = "select md5(string_agg(p::text, '|' order by plant_id)), count(*), \
                      (select string_agg(conname || contype::text, ',' order by conname) from pg_constraint \
                      where conrelid <> 0 and connamespace = 'public'::regnamespace), \
                      (select string_agg(indexname, ',' order by indexname) from pg_indexes \
                      where schemaname = 'public') from plant p";

fn dumped_and_restored(format: &[&str]) {
    let server = Server::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/data/garden.sql");
    let Some(mut dump) = client("pg_dump", SAME, &server) else {
        return;
    };
    load(&server, "postgres", &script).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    run_program(dump.args(format).args(["garden", "-f"]).arg(&file)).done();
    let mut list = client("pg_restore", SAME, &server).unwrap();
    let listed = run_program(list.arg("-l").arg(&file)).done();
    assert!(listed.contains("TABLE DATA public plant"), "{listed}");
    // The second time over what is there.
    for clean in [&["--exit-on-error"][..], &["--clean", "--if-exists"]] {
        let mut restore = client("pg_restore", SAME, &server).unwrap();
        restore.args(["-j", "3", "-d", "again"]).args(clean);
        run_program(restore.arg(&file)).done();
        let rows = |database| server.connect(database).query(GARDEN).unwrap();
        assert_eq!(rows("again"), rows("garden"));
    }
}

#[test]
fn custom_format() {
    dumped_and_restored(&["-Fc"]);
}

#[test]
fn directory_format_by_three_sessions_of_one_snapshot() {
    dumped_and_restored(&["-Fd", "-j", "3"]);
}
