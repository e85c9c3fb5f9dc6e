//! Comparisons of fake servers, and of proxies in front of real caches where these are installed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use corecached_bench::compare::{Method, OPEN, PROXIED, Rate, Row, Subject, Workload, measure};
use corecached_bench::load::{Plan, RunLength};
use serde_json::Value;

use crate::fake_server::{FakeServer, Fault};

/// A short method of two rounds with the named workloads for proxies.
fn method(names: &[&str]) -> Method {
    let small = |workload: &Workload| Workload { connections: 4, ..*workload };
    let base = Plan {
        length: RunLength {
            duration: Duration::from_millis(60),
            warmup: Duration::from_millis(5),
            ..RunLength::default()
        },
        ..Plan::new("127.0.0.1:1".parse().unwrap())
    };
    Method {
        base,
        workloads: PROXIED.iter().filter(|workload| names.contains(&workload.name)).map(small).collect(),
        rounds: 2,
        half_rate_per_s: None,
        sleep: true,
    }
}

fn subject(name: &str, server: &FakeServer, only: Option<&'static str>) -> Subject {
    let pid = only.is_none().then(std::process::id);
    Subject { name: name.to_owned(), target: server.target(), pid, only }
}

fn rows(faults: [Fault; 2], names: &[&str]) -> Vec<Row> {
    let servers =
        [FakeServer::start(faults[0]), FakeServer::start(faults[1]), FakeServer::start(Fault::None)];
    let subjects = [
        subject("reference", &servers[0], None),
        subject("other", &servers[1], None),
        subject("direct", &servers[2], Some(OPEN)),
    ];
    measure(&subjects, &method(names)).unwrap()
}

#[test]
fn a_cache_is_asked_directly_in_the_open_loop_only() {
    let rows = rows([Fault::None, Fault::None], &["p1", OPEN]);
    let failure = |row: &Row| row.cells[2].failure.clone();
    assert_eq!((rows[0].workload.as_str(), rows[1].workload.as_str()), ("p1", OPEN));
    assert_eq!(failure(&rows[0]).as_deref(), Some("not asked"));
    assert_eq!(failure(&rows[1]), None);
    assert_eq!(rows[1].cells[2].rounds.len(), 2);
    assert_eq!(rows[1].cells[2].cpu_us, 0.0, "nobody reads its CPU");
    assert!(rows[1].cells[0].cpu_us > 0.0);
}

#[test]
fn added_latency_is_the_difference_within_rounds() {
    let rows = rows([Fault::None, Fault::None], &[OPEN]);
    let names = ["reference", "other", "direct"].map(str::to_owned);
    let added = rows[0].added(&names);
    assert_eq!(added.iter().map(|added| added.name.as_str()).collect::<Vec<_>>(), ["reference", "other"]);
    let [one, two] = [0, 1].map(|round| {
        rows[0].cells[1].rounds[round].latencies.all.p50_us
            - rows[0].cells[2].rounds[round].latencies.all.p50_us
    });
    assert_eq!((added[1].p50_us.min, added[1].p50_us.max), (one.min(two), one.max(two)));
}

#[test]
fn nothing_is_said_of_what_a_broken_proxy_adds() {
    let mut rows = rows([Fault::None, Fault::HangsUp], &[OPEN]);
    let names = ["reference", "other", "direct"].map(str::to_owned);
    rows[0].cells[1].failure.get_or_insert_with(|| "gone".to_owned());
    assert_eq!(rows[0].added(&names).len(), 1);
    rows[0].cells[2].failure = Some("gone".to_owned());
    assert!(rows[0].added(&names).is_empty());
}

#[test]
fn proxies_are_asked_at_one_fixed_rate() {
    let open = PROXIED.iter().find(|workload| workload.name == OPEN).unwrap();
    assert_eq!(open.rate, Rate::PerSecond(10_000));
}

fn compare(arguments: &[&str]) -> (bool, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_corecached-bench")).arg("compare").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn impossible_comparisons_are_refused() {
    for (arguments, words) in [
        (&["--proxy", "--backends", "none", "--workloads", "w1"][..], "no workload w1: there are p1, p2"),
        (&["--backends", "none", "--workloads", "p1"], "no workload p1: there are w1, w2"),
        (&["--proxy", "--half-rate", "5"], "cannot be used with"),
        (&["--twemproxy", "nutcracker"], "--proxy"),
        (&["--proxy", "--backends", "none", "--peer", "x=y:-p {port}"], "--peer x: is told of no caches"),
        (&["--backends", "none", "--peer", "x=y:{port} {servers}"], "--peer x: is a proxy: say --proxy"),
        (&["--proxy", "--peer", "x=y:{servers}"], "not a peer"),
        (&["--proxy", "--server-cores", "0"], "--server-cores"),
        (&["--proxy", "--corecached", "/does/not/exist"], "no such file"),
        (&["--proxy", "--backends", "none", "--memcached", "/does/not/exist"], "No such file"),
    ] {
        let (success, _, errors) = compare(arguments);
        assert!(!success && errors.contains(words), "{arguments:?}: {errors}");
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    directories.map(|directory| directory.join(program)).any(|path| path.exists())
}

#[test]
fn proxies_are_compared_before_the_same_caches() {
    if !is_installed("memcached") || !is_installed("nutcracker") {
        return eprintln!("not run: needs memcached and nutcracker");
    }
    let out = tempfile::tempdir().unwrap();
    // A second twemproxy, started as a peer with the placeholders that any peer may use.
    let peer = "again=nutcracker:-c {yaml} -a 127.0.0.1 -s {spare} -v 0 -o {directory}/log";
    let arguments = ["--proxy", "--backends", "none", "--quick", "--rounds", "1", "--seconds", "0.1"];
    let more = ["--workloads", "p3,open", "--peer", peer, "--out", out.path().to_str().unwrap()];
    let (success, markdown, errors) = compare(&[&arguments[..], &more[..]].concat());
    assert!(success, "{errors}{markdown}");
    for words in ["## Ratios to twemproxy", "## Added latency", "nutcracker-0", "| p3 | CPU |", "| again | "]
    {
        assert!(markdown.contains(words), "{words}: {markdown}");
    }
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let files: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|path| path.to_str().unwrap().contains("-compare-proxy.")), "{files:?}");
    let json = files.iter().find(|path| path.extension().is_some_and(|ending| ending == "json")).unwrap();
    let json: Value = serde_json::from_str(&read(json)).unwrap();
    assert_eq!(json["servers"][0]["name"], "twemproxy");
    assert_eq!(json["servers"][2]["name"], "direct");
    assert_eq!(json["added"][1]["name"], "again");
    assert!(json["servers"][1]["arguments"].as_str().unwrap().ends_with("-o ./log"), "{json}");
    assert!(!json.to_string().contains(out.path().to_str().unwrap()), "a path of this machine");
    for cell in [&json["rows"][0]["cells"][0], &json["rows"][1]["cells"][2]] {
        assert_eq!(cell["failure"], Value::Null, "{cell}");
        assert_eq!(cell["rounds"][0]["misses"], 0);
    }
}
