//! Reports of runs against faulty servers.

use corecached_bench::load::{Faults, Plan, Progress, Report, run};
use corecached_bench::sizes::Sizes;

use crate::fake_server::{FakeServer, Fault};

/// Runs gets and sets of a few keys that were set before, with every byte verified.
fn report_of(fault: Fault) -> Report {
    let server = FakeServer::start(fault);
    let mut plan = Plan { verify: true, ..Plan::new(server.target()) };
    (plan.connections.count, plan.connections.depth) = (4, 4);
    plan.traffic.set_share = 0.3;
    (plan.items.keys, plan.items.value_sizes) = (50, Sizes::Fixed(100));
    plan.length.requests = Some(2000);
    run(&plan.filling(), &Progress::hidden()).unwrap();
    // A new run number, so that the values written by the fill count as those of an earlier run.
    run(&Plan { run: plan.run.wrapping_add(1), ..plan }, &Progress::hidden()).unwrap()
}

fn faults_of(fault: Fault) -> Faults {
    let report = report_of(fault);
    assert_eq!(report.throughput.requests, 2000, "{report}");
    report.faults
}

#[test]
fn a_right_server_is_found_right() {
    let report = report_of(Fault::None);
    assert!(report.is_clean(), "{report}");
    assert!(report.throughput.gets > 0 && report.throughput.sets > 0);
    assert_eq!(report.lookups.hit_ratio, Some(1.0));
}

#[test]
fn wrong_values_are_found() {
    for fault in [Fault::OtherKey, Fault::ChangedByte, Fault::Short, Fault::Torn] {
        let faults = faults_of(fault);
        assert!(faults.wrong > 0, "{fault:?}: {faults:?}");
        assert!(!faults.examples.is_empty());
        assert_eq!((faults.stale, faults.broken_connections), (0, 0), "{fault:?}");
    }
}

#[test]
fn stale_values_are_told_from_wrong_ones() {
    let faults = faults_of(Fault::KeepsFirst);
    assert!(faults.stale > 0, "{faults:?}");
    assert_eq!(faults.wrong, 0, "{faults:?}");
}

#[test]
fn a_miss_is_no_fault() {
    let report = report_of(Fault::Forgets);
    assert!(report.is_clean(), "{report}");
    assert!(report.lookups.misses > 0);
}

#[test]
fn refused_sets_are_counted() {
    let faults = faults_of(Fault::Refuses);
    assert!(faults.server_errors > 0);
    assert_eq!((faults.wrong, faults.stale), (0, 0), "{faults:?}");
}

#[test]
fn a_server_that_breaks_every_connection_ends_the_run() {
    for fault in [Fault::Garbles, Fault::HangsUp] {
        let server = FakeServer::start(fault);
        let mut plan = Plan::new(server.target());
        plan.length.requests = Some(5000);
        plan.items.keys = 10;
        let words = run(&plan, &Progress::hidden()).unwrap_err().to_string();
        assert!(words.contains("connections broke"), "{fault:?}: {words}");
    }
}

#[test]
fn no_server_is_said_to_be_none() {
    let words = run(&Plan::new("127.0.0.1:1".parse().unwrap()), &Progress::hidden()).unwrap_err().to_string();
    assert!(words.contains("cannot connect to 127.0.0.1:1"), "{words}");
}
