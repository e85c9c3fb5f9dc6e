//! Replays of traces against a server and into the engine.

use std::io::Write;
use std::process::Command;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::fake_server::{FakeServer, Fault};

/// A trace of 3000 requests for 40 objects of 10 to 5000 bytes.
fn trace() -> NamedTempFile {
    const REQUESTS: u32 = 3000;
    const OBJECTS: u32 = 40;
    let mut bytes = b"CTR1\x01\0\0\0".to_vec();
    bytes.extend(u64::from(REQUESTS).to_le_bytes());
    bytes.extend(u64::from(OBJECTS).to_le_bytes());
    (0..OBJECTS).for_each(|id| bytes.extend((10 + id * id * 3).to_le_bytes()));
    (0..REQUESTS).for_each(|at| {
        bytes.extend((at.wrapping_mul(2_654_435_761) >> 7 & 0xffff).rem_euclid(OBJECTS).to_le_bytes())
    });
    bytes.extend((0..REQUESTS).map(|at| u8::from(at % 500 == 0)));
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn replay(arguments: &[&str]) -> (bool, Vec<Value>, String) {
    let file = trace();
    let output = Command::new(env!("CARGO_BIN_EXE_corecached-bench"))
        .args(["replay", file.path().to_str().unwrap(), "--json", "-"])
        .args(arguments)
        .output()
        .unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.success(), json, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn with_room_for_all_only_first_requests_miss() {
    let server = FakeServer::start(Fault::None).target().to_string();
    for arguments in [
        &["--engine", "8m,1g"][..],
        &["--target", &server],
        &["--engine", "8m", "--copies", "3", "--ttl-mix", "1d:60,14d:40"],
    ] {
        let (success, reports, errors) = replay(arguments);
        assert!(success, "{errors}");
        for report in reports {
            assert_eq!(report["miss_ratio"], report["first_touch_ratio"], "{report}");
            assert_eq!(report["wrong"], 0);
            assert_eq!(report["refused_sets"], 0);
        }
    }
}

#[test]
fn copies_windows_and_connections_do_not_change_what_is_found() {
    for arguments in [
        &["--copies", "3"][..],
        &["--window", "1"],
        &["--window", "500", "--connections", "4"],
        &["--copies", "5", "--window", "7", "--connections", "2"],
    ] {
        let server = FakeServer::start(Fault::None).target().to_string();
        let (success, reports, errors) = replay(&[&["--target", &server], arguments].concat());
        assert!(success, "{errors}");
        assert_eq!(reports[0]["miss_ratio"], reports[0]["first_touch_ratio"], "{arguments:?}");
    }
}

#[test]
fn little_memory_misses_more() {
    let (success, reports, errors) = replay(&["--engine", "1m", "--copies", "40"]);
    assert!(success, "{errors}");
    assert!(reports[0]["avoidable_miss_ratio"].as_f64().unwrap() > 0.01, "{reports:?}");
}

#[test]
fn wrong_values_fail_a_replay() {
    for fault in [Fault::OtherKey, Fault::Short] {
        let server = FakeServer::start(fault).target().to_string();
        let (success, reports, errors) = replay(&["--target", &server]);
        assert!(!success, "{fault:?}: {reports:?} {errors}");
        assert!(reports[0]["wrong"].as_u64().unwrap() > 0);
    }
}

#[test]
fn impossible_options_are_refused() {
    for (arguments, words) in [
        (&["--engine", "x"][..], "not an amount of memory"),
        (&["--engine", "1k"], "memory_bytes"),
        (&["--engine", "8m", "--copies", "0"], "at least 1"),
        (&["--engine", "8m", "--target", "127.0.0.1:1"], "cannot be used with"),
        (&[], "required"),
    ] {
        let (success, _, errors) = replay(arguments);
        assert!(!success && errors.contains(words), "{arguments:?}: {errors}");
    }
}
