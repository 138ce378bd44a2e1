//! A few thousand steps of every workload: some seeds that are always the same, and a new one.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use dormouse_sim::{History, WorkloadKind};

const FIXED_SEEDS: u64 = 6;
const STEPS: u64 = 500;

fn histories_of(workload: WorkloadKind) {
    let random = getrandom::u64().unwrap();
    for seed in (1..=FIXED_SEEDS).chain([random]) {
        println!("{workload}: seed {seed}");
        let history = History {
            workload,
            seed,
            steps: STEPS,
        };
        let summary = history
            .run(false)
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(summary.steps, STEPS);
        if seed != random {
            assert!(
                summary.disk.crashes > 0 && summary.disk.kills > 0,
                "{summary}"
            );
        }
    }
}

#[test]
fn disk_names() {
    histories_of(WorkloadKind::DiskNames);
}

#[test]
fn journal() {
    histories_of(WorkloadKind::Journal);
}

#[test]
fn volume() {
    histories_of(WorkloadKind::Volume);
}

#[test]
fn a_history_runs_the_same_every_time() {
    for workload in WorkloadKind::ALL {
        let history = History {
            workload,
            seed: 11,
            steps: 300,
        };
        assert_eq!(history.run(false), history.run(false));
    }
}
