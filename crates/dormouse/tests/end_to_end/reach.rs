//! What SQL reaches beside its own database: no file, program, library or process of the host.

use crate::harness::{Pg, Server, startup};

/// No error.
const DONE: &str = "";

/// Statements, and the SQLSTATE with which each ends for a superuser and for an ordinary role.
const FILES_AND_PROGRAMS: &[(&str, &str, &str)] = &[
    // Programs.
    ("copy (select 1) to program 'id'", "XX000", "42501"),
    ("copy lines from program 'id'", "XX000", "42501"),
    ("copy lines from program '/bin/sh -c id'", "XX000", "42501"),
    // Answered by a file of the distribution; nothing is run.
    ("copy lines from program 'locale -a'", DONE, "42501"),
    // Files that the host has.
    ("select pg_read_file('/etc/passwd')", "58P01", "42501"),
    (
        "select pg_read_file('../../../etc/passwd')",
        "58P01",
        "42501",
    ),
    (
        "select pg_read_file('/tmp/../../etc/passwd')",
        "58P01",
        "42501",
    ),
    (
        "select pg_read_binary_file('/proc/self/environ')",
        "58P01",
        "42501",
    ),
    ("select pg_ls_dir('/proc')", "58P01", "42501"),
    ("select pg_ls_dir('/dev')", "58P01", "42501"),
    ("select pg_stat_file('/etc')", "58P01", "42501"),
    ("copy lines from '/etc/passwd'", "58P01", "42501"),
    ("select lo_import('/etc/passwd')", "58P01", "42501"),
    // Files that are there.
    ("copy lines from '/pglite/data/PG_VERSION'", DONE, "42501"),
    ("select pg_read_file('PG_VERSION')", DONE, "42501"),
    ("select pg_ls_dir('/')", DONE, "42501"),
    ("copy (select 1) to '/tmp/mine'", DONE, "42501"),
    ("copy (select 1) to '/pglite/data/mine'", DONE, "42501"),
    ("select lo_export(4711, '/tmp/library.so')", DONE, "42501"),
    (
        "select lo_export(4711, '/pglite/data/library.so')",
        DONE,
        "42501",
    ),
    // The distribution, which all share.
    (
        "copy (select 1) to '/pglite/lib/postgresql/plpgsql.so'",
        "42501",
        "42501",
    ),
    ("copy (select 1) to '/pglite/share/mine'", "42501", "42501"),
    (
        "select lo_export(4711, '/pglite/lib/postgresql/library.so')",
        "42501",
        "42501",
    ),
    ("copy (select 1) to '/mine'", "42501", "42501"),
    // Libraries that are not of the distribution, the tenant's own among them.
    ("load '/tmp/library.so'", "XX000", "42501"),
    ("load '/pglite/data/library.so'", "XX000", "42501"),
    ("load '../data/library.so'", "XX000", "42501"),
    ("load '$libdir/../../data/library'", "58P01", "42501"),
    ("load '/lib/libc.so.6'", "58P01", "42501"),
    (
        "create function f() returns int language c as '/tmp/library.so', 'f'",
        "XX000",
        "42501",
    ),
    (
        "create function f() returns int language c as '/pglite/data/library.so', 'f'",
        "XX000",
        "42501",
    ),
    (
        "create function f() returns int language c as 'plpgsql', 'popen'",
        "42883",
        "42501",
    ),
    (
        "create function f() returns int language internal as 'system'",
        "42883",
        "42501",
    ),
    (
        "set dynamic_library_path = '/tmp'; load 'library'",
        "58P01",
        "42501",
    ),
    ("set jit_provider = 'library'", "55P02", "55P02"),
    // Other servers, and languages that reach out.
    ("create extension dblink", "0A000", "0A000"),
    ("create extension postgres_fdw", "0A000", "0A000"),
    ("create extension plperlu", "0A000", "0A000"),
    ("create extension plpython3u", "0A000", "0A000"),
    ("create extension xml2", "0A000", "0A000"),
    (
        "select pg_create_logical_replication_slot('s', 'pgoutput')",
        "55000",
        "42501",
    ),
    // Places for data.
    ("create tablespace s location '/etc'", "58P01", "42501"),
    (
        "create tablespace s location '/pglite/share'",
        "42501",
        "42501",
    ),
    // External entities are not looked up.
    (
        "select xml '<!DOCTYPE x [<!ENTITY a SYSTEM \"/pglite/data/PG_VERSION\">]><x>&a;</x>'",
        DONE,
        DONE,
    ),
    // Orders to processes of the host that there are not.
    ("select pg_rotate_logfile()", DONE, "42501"),
    ("select pg_reload_conf()", DONE, "42501"),
    ("alter system set archive_command = 'id'", DONE, "42501"),
    ("alter system set restore_command = 'id'", DONE, "42501"),
    (
        "alter system set ssl_passphrase_command = 'id'",
        DONE,
        "42501",
    ),
    ("alter system set logging_collector = on", DONE, "42501"),
    ("alter system set listen_addresses = '*'", DONE, "42501"),
];

/// What only a foreign table of `file_fdw` could reach.
const FILE_FDW: &str = "create extension file_fdw; \
     create server files foreign data wrapper file_fdw; \
     create foreign table of_host (l text) server files options (filename '/etc/passwd'); \
     create foreign table of_program (l text) server files options (program 'id')";

fn code(session: &mut Pg, sql: &str) -> String {
    let failed = session.query(sql).err();
    failed.map_or_else(String::new, |error| error.code().to_owned())
}

/// A session of a database with what the statements need.
fn prepared(server: &Server, database: &str) -> Pg {
    let mut session = server.connect(database);
    let sql = "create role tenant; create temp table lines (l text)";
    session.query(sql).unwrap();
    // What begins every wasm module.
    let library = "select lo_from_bytea(4711, '\\x0061736d01000000')";
    session.query(library).unwrap();
    session
        .query("grant select on large object 4711 to tenant")
        .unwrap();
    session
}

#[test]
fn files_programs_and_libraries_as_superuser() {
    let server = Server::start();
    let mut session = prepared(&server, "reach");
    for (sql, expected, _) in FILES_AND_PROGRAMS {
        assert_eq!(code(&mut session, sql), *expected, "{sql}");
    }
    session.query(FILE_FDW).unwrap();
    assert_eq!(code(&mut session, "select * from of_host"), "58P01");
    assert_eq!(code(&mut session, "select * from of_program"), "XX000");
    let rows = session.query("select l from lines order by 1").unwrap();
    assert!(rows.contains(&vec![Some("18".to_owned())]), "{rows:?}");
    server.still_answers();
}

#[test]
fn files_programs_and_libraries_as_an_ordinary_role() {
    let server = Server::start();
    drop(prepared(&server, "reach"));
    let mut tenant = startup("reach");
    tenant.user = "tenant".to_owned();
    let mut session = Pg::connect(server.pg, &tenant).unwrap();
    session.query("create temp table lines (l text)").unwrap();
    for (sql, _, expected) in FILES_AND_PROGRAMS {
        assert_eq!(code(&mut session, sql), *expected, "{sql}");
    }
    assert_eq!(code(&mut session, "create extension file_fdw"), "42501");
    server.still_answers();
}

#[test]
fn memory_and_scratch_files_have_an_end() {
    let server = Server::start();
    let mut session = server.connect("greedy");
    let megabytes = |count: u32, path: &str| {
        format!("copy (select repeat('x', 1000000) from generate_series(1, {count})) to '{path}'")
    };
    assert_eq!(code(&mut session, &megabytes(60, "/tmp/a")), DONE);
    assert_eq!(code(&mut session, &megabytes(60, "/tmp/b")), "53100");
    assert_eq!(code(&mut session, &megabytes(60, "/dev/shm/c")), "53100");
    let endless = "select length(pg_read_binary_file('/dev/zero'))";
    assert_eq!(code(&mut session, endless), "53200");
    assert_eq!(
        code(&mut session, "select repeat('x', 1000000000)"),
        "53200"
    );
    assert_eq!(session.query("select 1").unwrap(), [[Some("1".to_owned())]]);
    server.still_answers();
}

#[test]
fn signals_stay_in_their_database() {
    let server = Server::start();
    // Process ids are the same in each database.
    let mut others = [server.connect("other"), server.connect("other")];
    for session in &mut others {
        session.query("begin").unwrap();
    }
    let mut session = server.connect("mine");
    let sql = "select pid, pg_cancel_backend(pid), pg_terminate_backend(pid) \
               from generate_series(0, 2000) pid where pid <> pg_backend_pid()";
    for row in session.query(sql).unwrap() {
        let no = Some("f".to_owned());
        assert_eq!(row[1..], [no.clone(), no], "{row:?}");
    }
    for session in &mut others {
        assert_eq!(session.query("select 1").unwrap(), [[Some("1".to_owned())]]);
    }
}

/// A file of the data directory, and what a tenant may write into it; whether the database starts then.
const DAMAGE: &[(&str, &str, bool)] = &[
    ("PG_VERSION", "'99'", false),
    ("base/5/pg_filenode.map", "'junk'", false),
    ("base/5/1259", "decode(repeat('00', 81920), 'hex')", false),
    ("postgresql.conf", "'garbage ='", false),
    ("postgresql.conf", "'include ''postgresql.conf'''", false),
    ("postgresql.conf", "'shared_buffers = 1GB'", false),
    // Settings of ALTER SYSTEM are set aside.
    ("postgresql.auto.conf", "'garbage garbage garbage'", true),
    ("postgresql.auto.conf", "'shared_buffers = 1GB'", true),
    (
        "postgresql.auto.conf",
        "'shared_preload_libraries = library'",
        true,
    ),
    ("standby.signal", "''", false),
    ("recovery.signal", "''", false),
    ("backup_label", "'START WAL LOCATION: 0/9000028'", false),
    ("pg_hba.conf", "'local all all reject'", true),
    // The checkpoint before sleep writes it anew.
    (
        "global/pg_control",
        "decode(repeat('00', 8192), 'hex')",
        true,
    ),
    (
        "pg_wal/000000010000000000000050",
        "decode(repeat('ab', 1048576), 'hex')",
        true,
    ),
];

#[test]
fn who_damages_a_database_damages_that_one_only() {
    let settings = [
        ("DORMOUSE_DATABASES__IDLE_MS", "100"),
        // Each wake is a boot, which reads what was written.
        ("DORMOUSE_IMAGES__BYTES_MAX", "0"),
    ];
    let server = Server::start_with(&settings);
    for (at, (file, content, starts)) in DAMAGE.iter().enumerate() {
        let database = format!("damaged_{at}");
        let mut session = server.connect(&database);
        for sql in [
            "create table kept as select 42".to_owned(),
            format!("select lo_from_bytea(1, {content})"),
            format!("select lo_export(1, '/pglite/data/{file}')"),
        ] {
            session.query(&sql).unwrap();
        }
        drop(session);
        server.until_awake(0);
        if *starts {
            let kept = server.connect(&database).query("table kept").unwrap();
            assert_eq!(kept, [[Some("42".to_owned())]], "{file} {content}");
        } else {
            let error = server.refused(&database);
            assert_eq!(error.code(), "57P03", "{file} {content}: {error}");
        }
        server.still_answers();
        let path = format!("/v1/databases/{database}?force=true");
        assert_eq!(server.http().delete(&path).status, 204, "{database}");
    }
}
