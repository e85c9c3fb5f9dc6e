//! Pools that follow a Service of Kubernetes: caches are added, moved, terminated and removed, and the proxy
//! falls back to DNS when the API server does not answer.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::admin::{ADMIN, get};
use super::proxy::{launch, proxy};
use super::support::{
    Backend, Client, Cluster, Endpoint, EndpointState, Hosts, LateNames, Names, Server, wait_until,
};

/// Enough keys that every cache has some.
const KEYS: usize = 60;

/// Starts a proxy for the `caches` that `cluster`, or else DNS, names.
fn proxied(caches: &Hosts, cluster: &Cluster, backend: Backend, args: &[&str]) -> Server {
    let port = caches.port();
    let pool = format!(
        r#""A": {{"servers": ["caches.test:{port}"], "resolve": true, "endpoint_slices": "n/cache"}}"#
    );
    let config = format!(r#"{{"pools": {{{pool}}}, "route": "PoolRoute|A"}}"#);
    proxied_by(cluster, backend, &config, args)
}

fn proxied_by(cluster: &Cluster, backend: Backend, config: &str, args: &[&str]) -> Server {
    cluster.reached_by(launch(backend, 2, &["-v", "--config-str", config]).args(args)).serve()
}

fn ready(name: &'static str, host: u8) -> Endpoint {
    Endpoint { host, name, state: EndpointState::Ready }
}

/// Sets every key and gets it.
#[track_caller]
fn round(client: &mut Client) {
    let (mut requests, mut replies) = (String::new(), String::new());
    for key in 0..KEYS {
        let _ = write!(requests, "set k{key} 0 0 1\r\nx\r\nget k{key}\r\n");
        let _ = write!(replies, "STORED\r\nVALUE k{key} 0 1\r\nx\r\nEND\r\n");
    }
    client.check(requests, replies);
}

/// Waits until exactly the caches on `used` get requests, and no other one of `hosts`.
#[track_caller]
fn wait_for_use(caches: &Hosts, client: &mut Client, hosts: std::ops::RangeInclusive<u8>, used: &[u8]) {
    let sets = || hosts.clone().map(|host| caches.stat(host, "cmd_set")).collect::<Vec<_>>();
    wait_until(&format!("{used:?} to be used"), || {
        let before = sets();
        for key in 0..KEYS {
            // Requests fail while a server has no address.
            client.ask(&format!("set k{key} 0 0 1\r\nx"));
        }
        let mut use_of = hosts.clone().zip(before.iter().zip(sets()));
        use_of.all(|(host, (before, after))| used.contains(&host) == (after > *before))
    });
}

#[test]
fn caches_that_come_move_end_and_go_lose_no_request() {
    let hosts = 31..=34;
    let caches = Hosts::start(hosts.clone());
    for &backend in Backend::all() {
        let cluster = Cluster::start();
        cluster.put("a", &[ready("c-0", 31), ready("c-1", 32)]);
        let proxy = proxied(&caches, &cluster, backend, &["--dns-server=127.0.0.1:9"]);
        let over = Arc::new(AtomicBool::new(false));
        let (address, is_over) = (proxy.address, Arc::clone(&over));
        let load = std::thread::spawn(move || {
            let mut client = Client::connect_to(address);
            while !is_over.load(Ordering::Relaxed) {
                round(&mut client);
            }
        });
        let mut client = Client::connect(&proxy);
        let mut check = |used: &[u8]| {
            // There is other load at the same time; it does not reach the unused caches either.
            wait_for_use(&caches, &mut client, hosts.clone(), used);
        };
        check(&[31, 32]);
        cluster.put("b", &[ready("c-2", 33)]);
        check(&[31, 32, 33]);
        // The pod starts again on another address.
        cluster.put("b", &[ready("c-2", 34)]);
        check(&[31, 32, 34]);
        for serving in [true, false] {
            cluster.put("b", &[Endpoint { state: EndpointState::Ending { serving }, ..ready("c-2", 34) }]);
            check(&[31, 32]);
            cluster.put("b", &[ready("c-2", 34)]);
            check(&[31, 32, 34]);
        }
        cluster.put("a", &[ready("c-0", 31), Endpoint { state: EndpointState::Unready, ..ready("c-1", 32) }]);
        check(&[31, 34]);
        cluster.remove("b");
        check(&[31]);
        assert_eq!(cluster.lists(), 1, "the rest was watched");
        over.store(true, Ordering::Relaxed);
        load.join().unwrap();
        assert!(!proxy.stderr().contains("DNS"), "{}", proxy.stderr());
    }
}

#[test]
fn caches_that_end_and_still_serve_are_used_while_none_is_ready() {
    let caches = Hosts::start(101..=103);
    for &backend in Backend::all() {
        let cluster = Cluster::start();
        let ending =
            |name, host, serving| Endpoint { state: EndpointState::Ending { serving }, ..ready(name, host) };
        let unready = Endpoint { state: EndpointState::Unready, ..ready("c-2", 103) };
        cluster.put("a", &[ending("c-0", 101, true), ending("c-1", 102, true)]);
        cluster.put("b", &[ready("c-2", 103)]);
        let proxy = proxied(&caches, &cluster, backend, &["--dns-server=127.0.0.1:9"]);
        let mut client = Client::connect(&proxy);
        let warnings = || proxy.stderr().matches("no endpoint of n/cache is ready: those that end").count();
        let mut check = |used: &[u8]| wait_for_use(&caches, &mut client, 101..=103, used);
        check(&[103]);
        assert_eq!(warnings(), 0);
        cluster.put("b", &[unready]);
        check(&[101, 102]);
        cluster.put("a", &[ending("c-0", 101, true), ending("c-1", 102, false)]);
        check(&[101]);
        cluster.remove("b");
        check(&[101]);
        assert_eq!(warnings(), 1, "{}", proxy.stderr());
        cluster.put("a", &[ending("c-0", 101, false)]);
        check(&[]);
        cluster.put("a", &[ready("c-0", 102)]);
        check(&[102]);
        cluster.put("a", &[ending("c-0", 102, true), ending("c-1", 101, true)]);
        check(&[101, 102]);
        assert_eq!(warnings(), 2, "{}", proxy.stderr());
        assert_eq!(cluster.lists(), 1, "the rest was watched");
        assert!(!proxy.stderr().contains("DNS"), "{}", proxy.stderr());
    }
}

#[test]
fn a_key_stays_with_its_pod_when_the_pod_moves() {
    let caches = Hosts::start(41..=43);
    let cluster = Cluster::start();
    cluster.put("a", &[ready("c-0", 41), ready("c-1", 42)]);
    let proxy = proxied(&caches, &cluster, Backend::all()[0], &["--dns-server=127.0.0.1:9"]);
    let mut client = Client::connect(&proxy);
    round(&mut client);
    let (stayed, moved) = (caches.stat(41, "curr_items"), caches.stat(42, "curr_items"));
    assert!(stayed > 0 && moved > 0);
    cluster.put("a", &[ready("c-0", 41), ready("c-1", 43)]);
    wait_for_use(&caches, &mut client, 41..=43, &[41, 43]);
    round(&mut client);
    assert_eq!((caches.stat(41, "curr_items"), caches.stat(43, "curr_items")), (stayed, moved));
}

#[test]
fn a_watch_goes_on_where_it_ended_and_is_listed_anew_when_that_is_forgotten() {
    let caches = Hosts::start(51..=53);
    let cluster = Cluster::start();
    cluster.put("a", &[ready("c-0", 51)]);
    let proxy = proxied(&caches, &cluster, Backend::all()[0], &["--dns-server=127.0.0.1:9"]);
    let mut client = Client::connect(&proxy);
    let mut check = |used: &[u8]| wait_for_use(&caches, &mut client, 51..=53, used);
    check(&[51]);
    // The watch ends by its time limit. Changes before the next one begins are not missed.
    cluster.end_watches();
    cluster.put("a", &[ready("c-0", 52)]);
    check(&[52]);
    // Only a bookmark moves the version on while nothing changes.
    cluster.bookmark();
    cluster.put("a", &[ready("c-0", 51)]);
    check(&[51]);
    let lists = cluster.lists();
    cluster.forget();
    cluster.end_watches();
    wait_until("a list", || cluster.lists() > lists);
    wait_until("a watch", || cluster.watching() == 1);
    cluster.put("a", &[ready("c-0", 53)]);
    check(&[53]);
    assert!(!proxy.stderr().contains("DNS"), "{}", proxy.stderr());
}

#[test]
fn dns_names_the_caches_while_the_api_server_is_away() {
    let Some(names) = Names::start() else { return };
    let caches = Hosts::start(61..=63);
    let mut cluster = Cluster::start();
    cluster.put("a", &[ready("c-0", 61)]);
    names.tell(&[62]);
    let dns = format!("--dns-server=127.0.0.1:{}", names.port());
    let proxy = proxied(&caches, &cluster, Backend::all()[0], &[&dns]);
    let mut client = Client::connect(&proxy);
    let mut check = |used: &[u8]| wait_for_use(&caches, &mut client, 61..=63, used);
    check(&[61]);
    // The API server is back in time: nothing is logged, and the changes are known.
    cluster.vanish();
    cluster.put("a", &[ready("c-0", 63)]);
    check(&[61]);
    cluster.come_back();
    check(&[63]);
    cluster.vanish();
    check(&[62]);
    let said = proxy.stderr();
    assert_eq!(said.matches("DNS is asked instead").count(), 1, "{said}");
    assert!(said.contains("EndpointSlices of n/cache: "), "{said}");
    names.tell(&[61]);
    check(&[61]);
    cluster.come_back();
    check(&[63]);
    let said = proxy.stderr();
    assert_eq!(said.matches("EndpointSlices of n/cache are followed: 1 members").count(), 2, "{said}");
}

#[test]
fn what_the_api_server_refuses_is_said_in_its_words_with_the_remedy() {
    let Some(names) = Names::start() else { return };
    let caches = Hosts::start(71..=72);
    let cluster = Cluster::start();
    cluster.put("a", &[ready("c-0", 71)]);
    cluster.permit(false);
    names.tell(&[72]);
    let dns = format!("--dns-server=127.0.0.1:{}", names.port());
    let proxy = proxied(&caches, &cluster, Backend::all()[0], &[&dns]);
    let mut client = Client::connect(&proxy);
    let mut check = |used: &[u8]| wait_for_use(&caches, &mut client, 71..=72, used);
    let said = |text: &str| {
        wait_until(text, || proxy.stderr().contains(text));
    };
    check(&[72]);
    said(
        "answered 403 Forbidden (endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:n:proxy\" cannot list resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"n\"): let the service account list and watch endpointslices there; DNS is asked instead",
    );
    cluster.permit(true);
    check(&[71]);
    // An API server that has just started may refuse for a moment. That alone does not make the proxy use
    // DNS.
    cluster.permit(false);
    cluster.end_watches();
    wait_until("the watch to end", || cluster.watching() == 0);
    cluster.permit(true);
    wait_until("another", || cluster.watching() == 1);
    check(&[71]);
    assert_eq!(proxy.stderr().matches("DNS is asked instead").count(), 1);
    // A token that is replaced in time is not logged; one that is not is logged.
    cluster.rotate_token("the-second-token");
    cluster.end_watches();
    cluster.put("a", &[ready("c-1", 71)]);
    wait_until("a watch with it", || cluster.watching() == 1);
    check(&[71]);
    assert_eq!(proxy.stderr().matches("DNS is asked instead").count(), 1);
    cluster.accept_token("the-third-token");
    cluster.end_watches();
    check(&[72]);
    said("answered 401 Unauthorized (Unauthorized): ");
    said("/token must hold a token that the cluster takes; DNS is asked instead");
    cluster.rotate_token("the-third-token");
    check(&[71]);
}

#[test]
fn a_service_that_is_not_there_is_named_and_followed_once_it_is() {
    let caches = Hosts::start(91..=91);
    let cluster = Cluster::start();
    let proxy = proxied(&caches, &cluster, Backend::all()[0], &["--dns-server=127.0.0.1:9"]);
    let warning = "there is no EndpointSlice of n/cache: name a Service that is there";
    wait_until("the warning", || proxy.stderr().contains(warning));
    // A Service that exists has a slice, even if it is empty.
    cluster.put("a", &[]);
    cluster.put("a", &[ready("c-0", 91)]);
    wait_for_use(&caches, &mut Client::connect(&proxy), 91..=91, &[91]);
}

#[test]
fn a_dns_server_that_does_not_answer_does_not_hold_up_what_the_cluster_tells() {
    const CHANGES: usize = 20;
    let caches = Hosts::start(81..=82);
    let cluster = Cluster::start();
    cluster.put("a", &[ready("c-0", 81)]);
    let silent = LateNames::silent();
    let dns = format!("--dns-server=127.0.0.1:{}", silent.port());
    // One lookup of these names takes seconds.
    let others = ["b", "c", "d"].map(|name| {
        format!(r#""{name}": {{"servers": ["{name}.test:{}"], "resolve": true}}"#, caches.port())
    });
    let policies = r#"{"b:": "PoolRoute|b", "c:": "PoolRoute|c", "d:": "PoolRoute|d"}"#;
    let config = format!(
        r#"{{"pools": {{"A": {{"servers": ["caches.test:{}"], "resolve": true, "endpoint_slices": "n/cache"}}, {}}},
            "route": {{"type": "PrefixSelectorRoute", "policies": {policies}, "wildcard": "PoolRoute|A"}}}}"#,
        caches.port(),
        others.join(", ")
    );
    let proxy = proxied_by(&cluster, Backend::all()[0], &config, &[&dns]);
    let mut client = Client::connect(&proxy);
    wait_for_use(&caches, &mut client, 81..=82, &[81]);
    let (asked, begun) = (silent.asked(), Instant::now());
    wait_until("a lookup to be under way", || silent.asked() > asked);
    for _ in 0..CHANGES / 2 {
        cluster.put("a", &[ready("c-0", 82)]);
        wait_for_use(&caches, &mut client, 81..=82, &[82]);
        cluster.put("a", &[ready("c-0", 81)]);
        wait_for_use(&caches, &mut client, 81..=82, &[81]);
    }
    // A lookup is 18 questions: the SRV record of each name twice, then both kinds of address twice. If each
    // change waited for a lookup, there would be one for each change.
    let asked = silent.asked() - asked;
    println!("{CHANGES} changes in {:?}, {asked} questions meanwhile", begun.elapsed());
    assert!(asked < 18 * CHANGES / 2, "{asked} questions while {CHANGES} changes were followed");
}

#[test]
fn a_dns_server_that_does_not_answer_does_not_hold_up_the_start() {
    let Some(names) = Names::start() else { return };
    let cache = Server::start(&["-t", "1"]); // on 127.0.0.1
    names.tell(&[1]);
    let port = cache.address.port();
    // A name that means all its addresses, a name that means one, and an address. In this test an ejected
    // server is probed only when it is found.
    let pools = format!(
        r#""A": {{"servers": ["caches.test:{port}"], "resolve": true}}, "B": {{"servers": ["caches.test:{port}"]}},
            "C": {{"servers": ["127.0.0.1:{port}"]}}"#
    );
    let route = r#"{"type": "PrefixSelectorRoute", "policies": {"a": "PoolRoute|A", "b": "PoolRoute|B"}, "wildcard": "PoolRoute|C"}"#;
    let config = format!(r#"{{"pools": {{{pools}}}, "route": {route}}}"#);
    for &backend in Backend::all() {
        let late = LateNames::before(&names);
        let dns = format!("--dns-server=127.0.0.1:{}", late.port());
        let args = ["--config-str", &config, &dns, ADMIN, "--probe-timeout-initial=600000"];
        let proxy = proxy(backend, 2, &args);
        assert!(proxy.stderr().contains("DNS has not answered for 1000 ms"), "{}", proxy.stderr());
        assert_eq!(get(&proxy, "/readyz"), (503, "a pool has no server yet\n".to_owned()));
        assert_eq!(get(&proxy, "/healthz").0, 200);
        let mut client = Client::connect(&proxy);
        client.set("c", b"x");
        client.check("set a 0 0 1\r\nx\r\n", "SERVER_ERROR pool A is empty\r\n");
        client.check("set b 0 0 1\r\nx\r\n", "SERVER_ERROR connection error\r\n");
        late.open();
        wait_until("the proxy to be ready", || get(&proxy, "/readyz").0 == 200);
        client.set("a", b"x");
        wait_until("the answer to a probe", || client.ask("set b 0 0 1\r\nx") == "STORED");
    }
}

#[test]
fn a_fixed_list_of_names_is_waited_for_as_well() {
    let Some(names) = Names::start() else { return };
    let cache = Server::start(&["-t", "1"]);
    names.tell(&[1]);
    let late = LateNames::before(&names);
    let dns = format!("--dns-server=127.0.0.1:{}", late.port());
    let list = format!("\"caches.test:{0}\", \"nobody.test:{0}\"", cache.address.port());
    let config = format!(r#"{{"pools": {{"A": {{"servers": [{list}]}}}}, "route": "PoolRoute|A"}}"#);
    let proxy = proxy(Backend::all()[0], 2, &["--config-str", &config, &dns, ADMIN]);
    assert_eq!(get(&proxy, "/readyz").0, 503);
    late.open();
    // One of them is enough; the other counts as a server that is down.
    wait_until("the proxy to be ready", || get(&proxy, "/readyz").0 == 200);
    let mut client = Client::connect(&proxy);
    let mut stored = |key: usize| client.ask(&format!("set k{key} 0 0 1\r\nx")) == "STORED";
    assert!((0..KEYS).filter(|&key| stored(key)).count() > 0);
}
