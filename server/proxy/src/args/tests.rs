//! Command lines, good and bad.

use std::ffi::OsString;

use super::*;
use corecached_net::endpoints::Listen;

fn read(line: &[&str]) -> ProxyArgs {
    let argv = std::iter::once("mcrouter").chain(line.iter().copied()).map(OsString::from);
    ProxyArgs::read(argv).expect("a command line")
}

#[test]
fn the_tutorials_command_line_is_taken() {
    let args = read(&["-p 5000", "--config-file=/etc/mcrouter/config.json"]);
    let checked = args.check().expect("good");
    let Listen::Tcp(addresses) = checked.server.listen else { panic!("no addresses") };
    assert!(addresses.iter().all(|address| address.socket_address.port() == 5000) && addresses.len() == 2);
    assert_eq!(checked.source, ConfigSource::File("/etc/mcrouter/config.json".into()));
}

#[test]
fn options_of_other_machinery_and_unknown_ones_change_nothing() {
    let args = read(&[
        "--config-str={}",
        "--fibers-stack-size",
        "24576",
        "--thread-affinity",
        "--no-such-thing=1",
        "-p",
        "11300,11301",
    ]);
    assert_eq!(args.port, ["11300", "11301"]);
    assert_eq!(args.without_effect, ["--fibers-stack-size", "--thread-affinity", "--no-such-thing=1"]);
}

#[test]
fn of_an_option_that_is_given_twice_the_last_one_counts() {
    let args = read(&["--config-str={}", "--config-str", "{\"route\":\"NullRoute\"}", "-t", "4", "-t", "1"]);
    assert_eq!(args.check().expect("good").source, ConfigSource::Text("{\"route\":\"NullRoute\"}".into()));
    assert_eq!(args.server_timeout, "1");
    assert_eq!(read(&["-f", "a", "-f", "b"]).config_file, Some("b".into()));
    assert_eq!(read(&["-p", "1,2", "-p", "3,4"]).port, ["3", "4"]);
    assert_eq!(
        read(&["--listen-addresses=::1", "--listen-addresses=127.0.0.1"]).listen_addresses,
        ["127.0.0.1"]
    );
    let line = ["--thread-affinity", "--thread-affinity", "--fibers-stack-size=1", "--fibers-stack-size=2"];
    assert_eq!(read(&line).without_effect, ["--fibers-stack-size", "--thread-affinity"]);
}

#[test]
fn mcrouters_ways_of_writing_options_are_understood() {
    let args = read(&[
        "-L",
        "/log",
        "-K",
        "3",
        "-i60",
        "-I=300",
        "--log-path=/l",
        "-v",
        "2",
        "-p",
        "9",
        "--stats-root",
        "/s",
    ]);
    assert_eq!((args.verbose, &args.port[..]), (2, &["9".to_owned()][..]));
    assert_eq!(
        args.without_effect,
        ["--keepalive-count", "--keepalive-interval", "--keepalive-idle", "--log-path", "--stats-root"]
    );
    for (line, verbose) in
        [(&["-v"][..], 1), (&["-vv"], 2), (&["-v", "0"], 0), (&["--verbosity=1"], 1), (&["-v", "9"], 3)]
    {
        assert_eq!(read(line).verbose, verbose, "{line:?}");
    }
    // Toggles with a value.
    let args = read(&[
        "--asynclog-disable=1",
        "--enable-flush-cmd=0",
        "--disable-tko-tracking=true",
        "--thread-affinity=1",
    ]);
    assert!(args.asynclog_disable && !args.enable_flush_cmd && args.disable_tko_tracking);
    assert_eq!(args.without_effect, ["--thread-affinity"]);
    // Cut short.
    let args = read(&["--server-time=5", "--asynclog-dis", "--send-invalid=1", "--probe-timeout-m", "7"]);
    assert_eq!((&*args.server_timeout, &*args.probe_timeout_max), ("5", "7"));
    assert!(args.asynclog_disable && args.send_invalid_route_to_default);
    // An unknown option goes with its value.
    let args = read(&["--no-such", "value", "-p", "9", "-q", "7", "--other", "-t", "5", "--last"]);
    assert_eq!((&args.port[..], &*args.server_timeout), (&["9".to_owned()][..], "5"));
    assert_eq!(args.without_effect, ["--no-such value", "-q 7", "--other", "--last"]);
    // A flavor.
    assert_eq!(read(&["file:web.json", "-p", "9"]).stray, ["file:web.json"]);
}

#[test]
fn of_three_configurations_one_counts() {
    let source = |line: &[&str]| read(line).check().expect("good").source;
    assert_eq!(
        source(&["-f", "c", "--config", "file:/a", "--config-str={}"]),
        ConfigSource::File("/a".into())
    );
    assert_eq!(source(&["--config-str={}", "-f", "c"]), ConfigSource::File("c".into()));
}

#[test]
fn what_must_not_be_left_out_is_refused_and_what_may_be_relied_on_is_named() {
    let checked = |line: &[&str]| read(&[&["-f", "c"], line].concat()).check();
    for line in [
        &["--allow-only-gets"][..],
        &["--allow-only-gets=1"],
        &["--listen-sock-fd", "3"],
        &["--listen-sock-fd=3"],
    ] {
        let error = checked(line).unwrap_err().to_string();
        assert!(error.starts_with(line[0].split('=').next().unwrap()), "{error}");
    }
    for line in [&["--allow-only-gets=0"][..], &["--listen-sock-fd=-1"], &["--listen-sock-fd", "-1"]] {
        assert!(checked(line).is_ok(), "{line:?}");
    }
    let args = read(&["--runtime-vars-file=/d", "--target-max-shadow-requests=5", "--fibers-stack-size=1"]);
    let names: Vec<&str> = args.relied_on.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["runtime-vars-file", "target-max-shadow-requests"]);
}

#[test]
fn a_wrong_value_is_named_with_its_remedy() {
    let checked = |line: &[&str]| read(line).check().unwrap_err().to_string();
    assert_eq!(checked(&["-p", "x", "-f", "c"]), "--port \"x\": give a number from 0 to 65535");
    assert_eq!(checked(&[]), "--config-file \"\": name the file with pools and routes");
    assert_eq!(checked(&["-f", "c", "--dns-server", "here"]), "--dns-server \"here\": write IP or IP:PORT");
}

#[test]
fn either_spelling_of_the_configuration_is_taken() {
    let source = |line: &[&str]| read(line).check().expect("good").source;
    assert_eq!(source(&["--config", "file:/a.json"]), ConfigSource::File("/a.json".into()));
    assert_eq!(source(&["--config", "{}"]), ConfigSource::Text("{}".into()));
    assert_eq!(source(&["--config-str", "{}"]), ConfigSource::Text("{}".into()));
    assert_eq!(source(&["-f", "/a.json"]), ConfigSource::File("/a.json".into()));
}
