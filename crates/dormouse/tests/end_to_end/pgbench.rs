//! pgbench: what it has written adds up.

use crate::harness::{Server, run_program};
use crate::psql::{ANY, client};

/// What TPC-B keeps in three places, and how many transactions have written it.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts), \
                    (select sum(tbalance) from pgbench_tellers), \
                    (select sum(bbalance) from pgbench_branches), \
                    (select sum(delta) from pgbench_history), \
                    (select count(*) from pgbench_history)";

/// Initializes, and runs with each of these arguments, unless there is no pgbench.
fn bench(server: &Server, runs: &[&[&str]]) {
    let Some(mut init) = client("pgbench", ANY, server) else {
        return;
    };
    run_program(init.args(["-i", "-q", "bench"])).done();
    for arguments in runs {
        let mut bench = client("pgbench", ANY, server).unwrap();
        let said = run_program(bench.arg("-n").args(*arguments).arg("bench")).done();
        assert!(said.contains("number of failed transactions: 0"), "{said}");
    }
    let sums = server.connect("bench").query(SUMS).unwrap().remove(0);
    let (count, sums) = sums.split_last().unwrap();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    let transactions = runs.iter().filter(|arguments| !arguments.contains(&"-S"));
    let number = |arguments: &&[&str], name| {
        let place = arguments.iter().position(|argument| *argument == name);
        place.map_or(1, |place| arguments[place + 1].parse::<u32>().unwrap())
    };
    let expected: u32 = transactions
        .map(|arguments| number(arguments, "-c") * number(arguments, "-t"))
        .sum();
    assert_eq!(count.as_deref(), Some(&*expected.to_string()));
}

#[test]
fn one_client_in_every_mode() {
    let mode = |mode| ["-t", "50", "-M", mode];
    let modes = ["simple", "extended", "prepared"].map(mode);
    bench(&Server::start(), &modes.each_ref().map(|mode| &mode[..]));
}

#[test]
fn eight_clients() {
    let tpc_b = ["-c", "8", "-j", "2", "-t", "50", "-M", "prepared"];
    let select_only = ["-S", "-c", "8", "-j", "2", "-t", "200", "-M", "prepared"];
    let again = ["-c", "8", "-j", "2", "-t", "20", "-C"];
    bench(&Server::start(), &[&tpc_b, &select_only, &again]);
}
