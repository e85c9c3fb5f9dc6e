//! Runs against a correct server.

use std::process::Command;
use std::time::Duration;

use corecached_net::endpoints::IoBackend;
use corecached_bench::load::{Pace, Plan, Progress, Report, run};
use corecached_bench::sizes::Sizes;
use corecached_bench::wire::Protocol;
use serde_json::Value;

use crate::fake_server::{FakeServer, Fault};

/// The default backend, which depends on the kernel, and the one that always works.
const BACKENDS: [IoBackend; 2] = [IoBackend::Auto, IoBackend::Epoll];

fn plan(server: &FakeServer) -> Plan {
    Plan { keys: 200, verify: true, requests: Some(1500), ..Plan::new(server.target()) }
}

fn timed(server: &FakeServer, duration: Duration) -> Plan {
    Plan { requests: None, warmup: Duration::ZERO, duration, ..plan(server) }
}

fn clean(plan: &Plan) -> Report {
    let report = run(plan, &Progress::hidden()).unwrap();
    assert!(report.is_clean() && report.requests > 0, "{report}");
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
                    let plan = Plan {
                        io_backend,
                        protocol,
                        keys_per_get,
                        depth,
                        connections: 3,
                        set_share: 0.5,
                        key_sizes: "8-250".parse().unwrap(),
                        value_sizes: size.parse::<Sizes>().unwrap(),
                        resize: size.contains('-'),
                        requests: Some(400),
                        ..plan(&server)
                    };
                    let report = clean(&plan);
                    assert!(report.hits > 0, "{protocol:?} {keys_per_get} {depth} {size}: {report}");
                }
            }
        }
    }
}

#[test]
fn threads_share_connections_and_keep_their_keys_apart() {
    let server = FakeServer::start(Fault::None);
    let plan = Plan { threads: 3, connections: 7, set_share: 0.5, keys: 20, ..plan(&server) };
    clean(&plan);
    assert_eq!(server.connections(), 7);
}

#[test]
fn churn_opens_connections_anew() {
    for io_backend in BACKENDS {
        let server = FakeServer::start(Fault::None);
        let shape = Plan { connections: 2, depth: 4, requests_per_connection: Some(10), ..plan(&server) };
        let report = clean(&Plan { io_backend, ..shape });
        let expected = report.requests / 10;
        let connections = server.connections() as u64;
        assert!(
            (expected - 2..=expected + 4).contains(&connections),
            "{connections} for {} requests",
            report.requests
        );
    }
}

#[test]
fn filling_sets_and_reading_back_finds_every_key_once() {
    let server = FakeServer::start(Fault::None);
    let plan = Plan { keys: 1001, first_key: 50, ..plan(&server) };
    let filled = clean(&plan.filling());
    assert_eq!((filled.sets, filled.gets), (1001, 0));
    let read = clean(&plan.reading_back());
    assert_eq!((read.hits, read.misses), (1001, 0));
    let elsewhere = clean(&Plan { first_key: 5000, ..plan }.reading_back());
    assert_eq!((elsewhere.hits, elsewhere.misses), (0, 1001));
}

#[test]
fn an_open_loop_counts_what_a_stopped_server_delays() {
    const STOP: Duration = Duration::from_millis(200);
    let stopped = |pace, io_backend| {
        let server = FakeServer::start(Fault::None);
        let plan = Plan { pace, io_backend, connections: 4, ..timed(&server, Duration::from_secs(1)) };
        server.stop_for(Duration::from_millis(400), STOP);
        clean(&plan)
    };
    for io_backend in BACKENDS {
        let open = stopped(Pace::Open { rate_per_s: 1000.0, sleep: true }, io_backend);
        assert!(open.latency.max_us > 180_000.0, "{open}");
        // A fifth of all requests were due while the server was stopped, and half of these waited longer than
        // half of the stop.
        assert!(open.latency.p90_us > 50_000.0, "{open}");
        assert!(open.steady_p99_us.is_some_and(|steady_us| steady_us < open.latency.max_us), "{open}");
        // A closed loop sends nothing during the stop, so all but four requests look fast.
        let closed = stopped(Pace::Closed, io_backend);
        assert!(closed.latency.max_us > 180_000.0, "{closed}");
        assert!(closed.latency.p50_us < 50_000.0, "{closed}");
    }
}

#[test]
fn an_open_loop_reports_what_was_asked_of_it() {
    let server = FakeServer::start(Fault::None);
    let pace = Pace::Open { rate_per_s: 2000.0, sleep: false };
    let plan = Plan { pace, connections: 4, ..timed(&server, Duration::from_millis(200)) };
    let report = clean(&plan);
    assert_eq!(report.asked_per_s, Some(2000.0));
    // 400 are expected, with a deviation of 20.
    assert!((280..=520).contains(&report.requests), "{report}");
}

#[test]
fn a_run_of_so_many_requests_makes_them_in_either_loop() {
    for pace in [
        Pace::Closed,
        Pace::Open { rate_per_s: 1e6, sleep: false },
        Pace::Open { rate_per_s: 5e3, sleep: true },
    ] {
        let server = FakeServer::start(Fault::None);
        let plan = Plan { pace, connections: 4, depth: 3, threads: 2, requests: Some(1001), ..plan(&server) };
        assert_eq!(clean(&plan).requests, 1001, "{pace:?}");
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
