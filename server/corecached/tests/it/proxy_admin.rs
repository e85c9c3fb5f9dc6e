//! mcrouter's admin commands, which clients ask as keys.

use super::proxy::{addresses, caches, everywhere, proxy};
use super::support::{Client, Folder, Mounted, Packet, opcode, wait_until};

fn config(addresses: &[String], more: &str) -> String {
    format!("{{\"pools\": {{\"A\": {{\"servers\": {addresses:?}}}}}, \"route\": \"PoolRoute|A\"}}{more}")
}

/// The value of `__mcrouter__.{command}`.
fn asked(client: &mut Client, command: &str) -> String {
    let value = client.get(&format!("__mcrouter__.{command}"));
    String::from_utf8(value.unwrap_or_else(|| panic!("{command}: a miss"))).unwrap()
}

#[test]
fn a_proxy_says_who_it_is_and_which_configuration_it_uses() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let addresses = addresses(&caches);
        let text = config(&addresses, "");
        let folder = Mounted::new(&[("config.json", &text)]);
        let path = folder.path("config.json");
        let proxy = proxy(backend, shards, &["-f", &path, "--reconfiguration-delay-ms=10"]);
        let mut client = Client::connect(&proxy);
        assert_eq!(asked(&mut client, "version"), format!("corecached {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(asked(&mut client, "config_file"), path);
        assert!(asked(&mut client, "config_age").parse::<u64>().unwrap() < 1000);
        assert!(asked(&mut client, "hostid").parse::<u32>().is_ok());
        let digest = asked(&mut client, "config_md5_digest");
        assert_eq!((digest.len(), digest.bytes().all(|byte| byte.is_ascii_hexdigit())), (32, true));
        folder.hold(&[("config.json", &config(&addresses, " // changed"))]);
        wait_until("another digest", || asked(&mut client, "config_md5_digest") != digest);
        folder.hold(&[("config.json", &text)]);
        wait_until("the digest before", || asked(&mut client, "config_md5_digest") == digest);
        // One that cannot be used is not in use.
        folder.hold(&[("config.json", "{")]);
        wait_until("the mistake to be told", || proxy.stderr().contains("stays in use"));
        assert_eq!(asked(&mut client, "config_md5_digest"), digest);
        for (command, error) in [
            ("nothing", "unknown command: nothing"),
            ("route", "route: 2 args expected"),
            ("route(get)", "route: 2 args expected"),
            ("route(fly,k)", "route: unknown request fly"),
            ("route(get,)", "route: bad key"),
        ] {
            assert_eq!(asked(&mut client, command), format!("ERROR: {error}"));
        }
        // Beside other keys, in every protocol, and not for writes.
        client.set("k", b"v");
        client.check(
            "get k __mcrouter__.config_file\r\n",
            format!(
                "VALUE k 0 1\r\nv\r\nVALUE __mcrouter__.config_file 0 {}\r\n{path}\r\nEND\r\n",
                path.len()
            ),
        );
        client.check("mg __mcrouter__.nothing v\r\n", "VA 31\r\nERROR: unknown command: nothing\r\n");
        client.check("set __mcrouter__.version 0 0 1\r\nx\r\n", "STORED\r\n");
        let mut binary = Client::connect(&proxy);
        let got = Packet::new(opcode::GET, b"__mcrouter__.config_file").ask(&mut binary);
        assert_eq!((got.status, got.value), (0, path.into_bytes()));
    });
    let text = config(&["127.0.0.1:1".to_owned()], "");
    everywhere(|backend, shards| {
        let proxy = proxy(backend, shards, &["--config-str", &text]);
        let mut client = Client::connect(&proxy);
        assert_eq!(asked(&mut client, "config_file"), "ERROR: no config file found!");
    });
}

#[test]
fn a_route_that_is_asked_for_is_the_one_that_is_taken() {
    everywhere(|backend, shards| {
        let caches = caches(3);
        let addresses = addresses(&caches);
        let proxy = proxy(backend, shards, &["--config-str", &config(&addresses, "")]);
        let mut client = Client::connect(&proxy);
        for number in 0..30 {
            let key = format!("key,{number}(x)");
            for operation in ["get", "gets", "gat", "set", "cas", "incr", "touch", "delete", "metaget"] {
                let told = asked(&mut client, &format!("route({operation},{key})"));
                let at = addresses.iter().position(|address| *address == told);
                let at = at.unwrap_or_else(|| panic!("{operation} {key}: {told}"));
                client.set(&key, b"v");
                assert!(Client::connect(&caches[at]).get(&key).is_some(), "{operation} {key}: {told}");
            }
        }
        // Nothing was sent for it.
        let gets: u64 = caches.iter().map(|cache| Client::connect(cache).stat("cmd_get")).sum();
        assert_eq!(gets, 30 * 9);
    });
}

#[test]
fn a_route_names_every_destination_in_order() {
    let spool = Folder::new();
    let pools = r#""a": {"servers": ["a:1"]}, "b": {"servers": ["b:1"]}, "c": {"servers": ["[::1]:1"]}"#;
    for (route, operation, told) in [
        (r#"{"type": "AllSyncRoute", "children": ["PoolRoute|a", "PoolRoute|b"]}"#, "delete", "a:1\r\nb:1"),
        (
            r#"{"type": "MissFailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#,
            "get",
            "a:1\r\nb:1\r\n[::1]:1",
        ),
        (r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"]}"#, "get", "a:1"),
        (
            r#"{"type": "L1L2CacheRoute", "l1": "PoolRoute|a", "l2": "PoolRoute|b", "upgradingL1Exptime": 1}"#,
            "gets",
            "a:1\r\nb:1",
        ),
        (
            r#"{"type": "LatencyInjectionRoute", "child": "PoolRoute|a", "before_latency_ms": 5000}"#,
            "set",
            "a:1",
        ),
        (r#""NullRoute""#, "get", ""),
    ] {
        let config = format!("{{\"pools\": {{{pools}}}, \"route\": {route}}}");
        let args = ["-a", spool.path().to_str().unwrap(), "--config-str", &config];
        let proxy = proxy(super::support::Backend::all()[0], 1, &args);
        assert_eq!(asked(&mut Client::connect(&proxy), &format!("route({operation},k)")), told, "{route}");
    }
}
