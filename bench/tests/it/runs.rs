//! Runs against a correct server.

use std::process::Command;
use std::time::Duration;

use corecached_bench::load::{Pace, Plan, Progress, Report, RunLength, Traffic, run};
use corecached_bench::sizes::Sizes;
use corecached_bench::wire::Protocol;
use corecached_net::endpoints::IoBackend;
use serde_json::Value;

use crate::fake_server::{FakeServer, Fault};

/// The default backend, which depends on the kernel, and the one that always works.
const BACKENDS: [IoBackend; 2] = [IoBackend::Auto, IoBackend::Epoll];

fn plan(server: &FakeServer) -> Plan {
    let mut plan = Plan { verify: true, ..Plan::new(server.target()) };
    plan.items.keys = 200;
    plan.length.requests = Some(1500);
    plan
}

fn timed(server: &FakeServer, duration: Duration) -> Plan {
    let length = RunLength { requests: None, warmup: Duration::ZERO, duration, ..RunLength::default() };
    Plan { length, ..plan(server) }
}

fn clean(plan: &Plan) -> Report {
    let report = run(plan, &Progress::hidden()).unwrap();
    assert!(report.is_clean() && report.throughput.requests > 0, "{report}");
    report
}

#[test]
fn every_shape_of_request_is_understood() {
    let shapes =
        [Protocol::Text, Protocol::Meta].into_iter().flat_map(|one| BACKENDS.map(|other| (one, other)));
    for (protocol, io_backend) in shapes {
        for keys_per_get in [1, 7] {
            for depth in [1, 16] {
                for size in ["0", "5", "24", "100", "1-70000"] {
                    let server = FakeServer::start(Fault::None);
                    let mut plan = plan(&server);
                    plan.threads.io_backend = io_backend;
                    plan.traffic = Traffic { protocol, keys_per_get, set_share: 0.5, ..plan.traffic };
                    (plan.connections.count, plan.connections.depth) = (3, depth);
                    plan.items.key_sizes = "8-250".parse().unwrap();
                    plan.items.value_sizes = size.parse::<Sizes>().unwrap();
                    plan.items.resize = size.contains('-');
                    plan.length.requests = Some(400);
                    let report = clean(&plan);
                    assert!(report.lookups.hits > 0, "{protocol:?} {keys_per_get} {depth} {size}: {report}");
                }
            }
        }
    }
}

#[test]
fn threads_share_connections_and_keep_their_keys_apart() {
    let server = FakeServer::start(Fault::None);
    let mut plan = plan(&server);
    (plan.threads.count, plan.connections.count) = (3, 7);
    (plan.traffic.set_share, plan.items.keys) = (0.5, 20);
    clean(&plan);
    assert_eq!(server.connections(), 7);
}

#[test]
fn churn_opens_connections_anew() {
    for io_backend in BACKENDS {
        let server = FakeServer::start(Fault::None);
        let mut plan = plan(&server);
        plan.threads.io_backend = io_backend;
        (plan.connections.count, plan.connections.depth) = (2, 4);
        plan.connections.requests_per_connection = Some(10);
        let report = clean(&plan);
        let expected = report.throughput.requests / 10;
        let connections = server.connections() as u64;
        assert!(
            (expected - 2..=expected + 4).contains(&connections),
            "{connections} for {} requests",
            report.throughput.requests
        );
    }
}

#[test]
fn filling_sets_and_reading_back_finds_every_key_once() {
    let server = FakeServer::start(Fault::None);
    let mut plan = plan(&server);
    (plan.items.keys, plan.items.first_key) = (1001, 50);
    let filled = clean(&plan.filling());
    assert_eq!((filled.throughput.sets, filled.throughput.gets), (1001, 0));
    let read = clean(&plan.reading_back());
    assert_eq!((read.lookups.hits, read.lookups.misses), (1001, 0));
    plan.items.first_key = 5000;
    let elsewhere = clean(&plan.reading_back());
    assert_eq!((elsewhere.lookups.hits, elsewhere.lookups.misses), (0, 1001));
}

#[test]
fn an_open_loop_counts_what_a_stopped_server_delays() {
    const STOP: Duration = Duration::from_millis(200);
    let stopped = |pace, io_backend| {
        let server = FakeServer::start(Fault::None);
        let mut plan = Plan { pace, ..timed(&server, Duration::from_secs(1)) };
        plan.threads.io_backend = io_backend;
        plan.connections.count = 4;
        server.stop_for(Duration::from_millis(400), STOP);
        clean(&plan)
    };
    for io_backend in BACKENDS {
        let open = stopped(Pace::Open { rate_per_s: 1000.0, sleep: true }, io_backend);
        assert!(open.latencies.all.max_us > 180_000.0, "{open}");
        // A fifth of all requests were due while the server was stopped, and half of these waited longer than
        // half of the stop.
        assert!(open.latencies.all.p90_us > 50_000.0, "{open}");
        assert!(
            open.latencies.steady_p99_us.is_some_and(|steady_us| steady_us < open.latencies.all.max_us),
            "{open}"
        );
        // A closed loop sends nothing during the stop, so all but four requests look fast.
        let closed = stopped(Pace::Closed, io_backend);
        assert!(closed.latencies.all.max_us > 180_000.0, "{closed}");
        assert!(closed.latencies.all.p50_us < 50_000.0, "{closed}");
    }
}

#[test]
fn an_open_loop_reports_what_was_asked_of_it() {
    let server = FakeServer::start(Fault::None);
    let pace = Pace::Open { rate_per_s: 2000.0, sleep: false };
    let mut plan = Plan { pace, ..timed(&server, Duration::from_millis(200)) };
    plan.connections.count = 4;
    let report = clean(&plan);
    assert_eq!(report.throughput.asked_per_s, Some(2000.0));
    // 400 are expected, with a deviation of 20.
    assert!((280..=520).contains(&report.throughput.requests), "{report}");
}

#[test]
fn a_run_of_so_many_requests_makes_them_in_either_loop() {
    for pace in [
        Pace::Closed,
        Pace::Open { rate_per_s: 1e6, sleep: false },
        Pace::Open { rate_per_s: 5e3, sleep: true },
    ] {
        let server = FakeServer::start(Fault::None);
        let mut plan = Plan { pace, ..plan(&server) };
        (plan.connections.count, plan.connections.depth) = (4, 3);
        plan.threads.count = 2;
        plan.length.requests = Some(1001);
        assert_eq!(clean(&plan).throughput.requests, 1001, "{pace:?}");
    }
}

fn command(server: &FakeServer, more: &[&str]) -> (bool, Value) {
    let target = server.target().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_corecached-bench"))
        .args(["load", "--target", &target, "-k", "50", "-s", "1", "--warmup", "0.05", "--sets", "0.5"])
        .args(["--fill", "--verify", "--json", "-", "--interval", "0.25"])
        .args(more)
        .output()
        .unwrap();
    let json = serde_json::from_slice(&output.stdout);
    (output.status.success(), json.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

#[test]
fn the_command_writes_json_and_exits_by_what_it_found() {
    let (success, json) = command(&FakeServer::start(Fault::None), &["-c", "3", "-p", "2"]);
    assert!(success, "{json}");
    assert!(json["requests_per_s"].as_f64().unwrap() > 0.0);
    assert!(json["latency"]["p9999_us"].as_f64().unwrap() > 0.0);
    assert!(json["server_cpu_us"].as_f64().is_some(), "the server was not found by its port");
    assert_eq!(json["faults"]["wrong"], 0);
    assert!((1..=4).contains(&json["intervals"].as_array().unwrap().len()));
    let (success, json) = command(&FakeServer::start(Fault::ChangedByte), &[]);
    assert!(!success, "{json}");
    assert!(json["faults"]["wrong"].as_u64().unwrap() > 0);
}
