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
    assert_eq!(read(&["-p", "1", "-p", "2"]).port, ["1", "2"], "lists add up");
    let line = ["--thread-affinity", "--thread-affinity", "--fibers-stack-size=1", "--fibers-stack-size=2"];
    assert_eq!(read(&line).without_effect, ["--fibers-stack-size", "--thread-affinity"]);
}

#[test]
fn a_wrong_value_is_named_with_its_remedy() {
    let checked = |line: &[&str]| read(line).check().unwrap_err().to_string();
    assert_eq!(checked(&["-p", "x", "-f", "c"]), "--port \"x\": give a number from 0 to 65535");
    assert_eq!(checked(&[]), "--config-file \"\": name the file with pools and routes");
    assert_eq!(
        checked(&["-f", "c", "--config-str", "{}"]),
        "--config-file \"\": give one of --config, --config-file and --config-str"
    );
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
