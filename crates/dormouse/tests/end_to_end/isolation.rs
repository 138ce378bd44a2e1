//! Many databases from one template.

use crate::harness::Server;

const COUNT: usize = 100;

#[test]
fn a_hundred_databases_each_with_its_own_rows() {
    let server = Server::start();
    for n in 0..COUNT {
        let sql = format!("create table t as select {n} as n, md5('{n}') as s");
        server.connect(&format!("tenant_{n}")).query(&sql).unwrap();
    }
    for n in (0..COUNT).rev() {
        let rows = server.sql(
            &format!("tenant_{n}"),
            "select n, s = md5(n::text) as own from t",
        );
        assert_eq!(rows["rows"], serde_json::json!([{"n": n, "own": true}]));
    }
    let list = server.http().get("/v1/databases").json();
    assert!(list["databases"].as_array().unwrap().len() >= COUNT);
    // Nobody's random numbers are anybody else's.
    let mut seen = std::collections::HashSet::new();
    for n in 0..COUNT {
        let sql = "select random()::text || gen_random_uuid() as r";
        let row = server.sql(&format!("tenant_{n}"), sql);
        assert!(seen.insert(row["rows"][0]["r"].to_string()), "tenant_{n}");
    }
}
