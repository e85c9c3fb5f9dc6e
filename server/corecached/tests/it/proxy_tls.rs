//! A proxy with TLS to destinations and to clients.

use rustls::ALL_VERSIONS;

use crate::admin::{ADMIN, scrape};
use crate::proxy::{everywhere, launch};
use crate::support::{
    Authority, Backend, Client, Folder, Identity, Launch, Mounted, Server, free_port, wait_for, wait_until,
};

/// The files of an authority and of a certificate that it signed.
struct Files {
    folder: Folder,
    authority: Authority,
    identity: Identity,
}

impl Files {
    fn new() -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let identity = authority.sign();
        identity.install(&folder);
        std::fs::write(folder.file("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority, identity }
    }

    /// The files as those of a Secret.
    fn secret(&self) -> Vec<(&str, &str)> {
        [("ca.pem", self.authority.pem())].into_iter().chain(self.identity.secret()).collect()
    }

    fn path(&self, name: &str) -> String {
        self.folder.file(name).to_str().unwrap().to_owned()
    }

    /// Starts a cache with TLS; with `verify` 2 it requires certificates of its clients.
    fn cache(&self, verify: u8) -> Server {
        self.launch(verify, "-1").serve()
    }

    /// Starts a cache with TLS on this port, as soon as the port is free.
    fn cache_on(&self, port: u16, verify: u8) -> Server {
        wait_for("the port", || self.launch(verify, &port.to_string()).try_serve().ok())
    }

    fn launch(&self, verify: u8, port: &str) -> Launch {
        let options = format!(
            "ssl_chain_cert={},ssl_key={},ssl_ca_cert={},ssl_verify_mode={verify}",
            self.path("chain.pem"),
            self.path("key.pem"),
            self.path("ca.pem")
        );
        Launch::bare(&["-l", "127.0.0.1", "-p", port, "-t", "1", "-Z", "-o", &options])
    }
}

/// The name in the certificates of tests.
const NAME: &str = "--ssl-server-name=localhost";

fn proxy(backend: Backend, shards: usize, caches: &[Server], args: &[&str]) -> Launch {
    let servers: Vec<String> =
        caches.iter().map(|cache| format!("\"{}:ascii:ssl\"", cache.address)).collect();
    let config = format!(
        "{{\"pools\": {{\"A\": {{\"servers\": [{}]}}}}, \"route\": \"PoolRoute|A\"}}",
        servers.join(",")
    );
    launch(backend, shards, &["--config-str", &config, "--disable-miss-on-get-errors"]).args(args)
}

#[test]
fn destinations_are_reached_over_tls() {
    let files = Files::new();
    everywhere(|backend, shards| {
        let caches: Vec<Server> = (0..3).map(|_| files.cache(0)).collect();
        let ca = files.path("ca.pem");
        let proxy = proxy(backend, shards, &caches, &["--pem-ca-path", &ca, NAME]).serve();
        let mut client = Client::connect(&proxy);
        for number in 0..60 {
            client.set(&format!("key{number}"), &vec![number as u8; number * 300]);
        }
        for number in 0..60 {
            assert!(client.get(&format!("key{number}")) == Some(vec![number as u8; number * 300]));
        }
        let large: Vec<u8> = (0..900_000).map(|at| (at % 251) as u8).collect();
        client.set("large", &large);
        assert!(client.get("large").as_deref() == Some(&large[..]));
        // Many requests at once are answered in order.
        let requests: String = (0..2000).map(|number| format!("get key{}\r\n", number % 60)).collect();
        let replies: Vec<u8> = (0..2000)
            .flat_map(|number| {
                let number = number % 60;
                let head = format!("VALUE key{number} 0 {}\r\n", number * 300);
                [head.as_bytes(), &vec![number as u8; number * 300], b"\r\nEND\r\n"].concat()
            })
            .collect();
        assert!(client.exchange(requests.as_bytes(), |got| got.len() >= replies.len()) == replies);
        drop(caches);
        client.send("get key1\r\nset key1 0 0 1\r\nx\r\nmn\r\n");
        for _ in 0..2 {
            assert!(client.line().starts_with("SERVER_ERROR "));
        }
        client.expect("MN\r\n");
    });
}

#[test]
fn whoever_is_not_signed_for_is_not_reached() {
    let (files, others) = (Files::new(), Files::new());
    everywhere(|backend, shards| {
        let caches = [files.cache(0)];
        let (ca, other_ca) = (files.path("ca.pem"), others.path("ca.pem"));
        // A certificate of another authority, one of another name, and a server without TLS.
        let plain = [Launch::new(&[]).serve()];
        for (caches, args) in [
            (&caches, vec!["--pem-ca-path", &other_ca, NAME]),
            (&caches, vec!["--pem-ca-path", &ca, "--ssl-server-name=elsewhere"]),
            (&caches, vec!["--pem-ca-path", &ca]),
            (&plain, vec!["--pem-ca-path", &ca, NAME]),
        ] {
            let proxy = proxy(backend, shards, caches, &args).serve();
            Client::connect(&proxy).check("get k\r\n", "SERVER_ERROR connection error\r\n");
        }
        let good = proxy(backend, shards, &caches, &["--pem-ca-path", &ca, NAME]).serve();
        Client::connect(&good).check("get k\r\n", "END\r\n");
    });
}

#[test]
fn a_destination_that_asks_is_shown_a_certificate() {
    let files = Files::new();
    let [ca, chain, key] = ["ca.pem", "chain.pem", "key.pem"].map(|name| files.path(name));
    everywhere(|backend, shards| {
        let caches = [files.cache(2)];
        let shown = ["--pem-ca-path", &ca, NAME, "--pem-cert-path", &chain, "--pem-key-path", &key];
        let with = proxy(backend, shards, &caches, &shown).serve();
        Client::connect(&with)
            .check("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
        let without = proxy(backend, shards, &caches, &shown[..3]).serve();
        let mut client = Client::connect(&without);
        client.send("get k\r\n");
        assert!(client.line().starts_with("SERVER_ERROR"));
    });
}

#[test]
fn clients_reach_the_proxy_over_tls() {
    let files = Files::new();
    let [ca, chain, key] = ["ca.pem", "chain.pem", "key.pem"].map(|name| files.path(name));
    everywhere(|backend, shards| {
        let caches = [files.cache(0)];
        let port = free_port().to_string();
        let args = [
            "--pem-ca-path",
            &ca,
            NAME,
            "--ssl-port",
            &port,
            "--server-pem-cert-path",
            &chain,
            "--server-pem-key-path",
            &key,
            "--ssl-require-peer-certs",
            "--ssl-handshake-timeout-ms=1500",
            ADMIN,
        ];
        let proxy = proxy(backend, shards, &caches, &args).serve();
        let address = ([127, 0, 0, 1], port.parse().unwrap()).into();
        let config = files.authority.client(ALL_VERSIONS, Some(&files.identity));
        let mut client = Client::connect_tls(address, &config);
        client.check("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
        Client::connect(&proxy).check("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
        // The proxy does not wait for a client that never sends anything.
        assert_eq!(Client::connect_to(address).rest(), b"");
        assert_eq!(scrape(&proxy)["corecached_tls_handshake_timeouts_total"], 1.0);
        client.check("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    });
}

#[test]
fn what_cannot_be_used_is_named() {
    let files = Files::new();
    let caches = [files.cache(0)];
    let ca = files.path("ca.pem");
    let key = files.path("key.pem");
    for (args, said) in [
        (&[][..], "--pem-ca-path"),
        (&["--pem-ca-path", "/nowhere.pem"], "/nowhere.pem"),
        (&["--pem-ca-path", &key], &key[..]),
        (&["--pem-ca-path", &ca, "--pem-cert-path", &ca], "--pem-key-path"),
        (&["--pem-ca-path", &ca, "--ssl-server-name", "a b"], "--ssl-server-name"),
        (&["--pem-ca-path", &ca, "--ssl-port", "0"], "--server-pem-cert-path"),
        (&["--ssl-port", "0", "--pem-cert-path", &ca, "--ssl-require-peer-certs"], "--pem-ca-path"),
        (
            &["--pem-ca-path", &ca, "--ssl-handshake-timeout-ms=0"],
            "--ssl-handshake-timeout-ms \"0\": give a number",
        ),
    ] {
        let exit = proxy(Backend::all()[0], 1, &caches, args).exit();
        assert_ne!(exit.code(), Some(0), "{args:?}");
        assert!(exit.stderr.contains(said), "{args:?}: {}", exit.stderr);
    }
}

#[test]
fn certificates_towards_destinations_are_read_again_when_they_change() {
    let [old, new] = [(); 2].map(|()| Files::new());
    for &backend in Backend::all() {
        let mounted = Mounted::new(&old.secret());
        let port = free_port();
        let mut cache = Some(old.cache_on(port, 2));
        let [ca, chain, key] = ["ca.pem", "chain.pem", "key.pem"].map(|name| mounted.path(name));
        let args = ["--pem-ca-path", &ca, "--pem-cert-path", &chain, "--pem-key-path", &key, NAME];
        let proxy = proxy(backend, 2, cache.as_slice(), &args)
            .args(&["--probe-timeout-initial=100", "--probe-timeout-max=100", "-v"])
            .args(&["--reconfiguration-delay-ms=50"])
            .serve();
        let mut client = Client::connect(&proxy);
        client.set("k", b"old");
        mounted.hold(&[("ca.pem", "nothing")]);
        wait_until("files that cannot be used to be named", || {
            proxy.stderr().contains("stay as they were") && proxy.stderr().contains(&ca)
        });
        client.set("k", b"old");
        mounted.hold(&new.secret());
        wait_until("new ones to be read", || proxy.stderr().contains("towards destinations again"));
        client.set("k", b"old"); // on the connection that was there
        drop(cache.take());
        let _cache = new.cache_on(port, 2);
        wait_until("a cache that the new ones are good for", || client.ask("set k 0 0 3\r\nnew") == "STORED");
        assert_eq!(client.get("k").as_deref(), Some(&b"new"[..]));
    }
}

#[test]
fn the_certificate_shown_to_clients_is_read_again_when_it_changes() {
    let files = Files::new();
    let [old, new] = [(); 2].map(|()| files.authority.sign());
    let mounted = Mounted::new(&old.secret());
    let (port, caches) = (free_port(), [files.cache(0)]);
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| mounted.path(name));
    let args = ["--pem-ca-path", &files.path("ca.pem"), NAME, "--ssl-port", &port.to_string()];
    let shown = ["--server-pem-cert-path", &chain, "--server-pem-key-path", &key];
    let _proxy = proxy(Backend::all()[0], 2, &caches, &args).args(&shown).serve();
    let client = files.authority.client(ALL_VERSIONS, None);
    let connect = || Client::connect_tls(([127, 0, 0, 1], port).into(), &client);
    let mut early = connect();
    early.set("k", b"value");
    assert_eq!(connect().server_certificate(), old.certificate.to_vec());
    mounted.hold(&new.secret());
    wait_until("the new certificate", || connect().server_certificate() == new.certificate.to_vec());
    assert_eq!(early.get("k").as_deref(), Some(&b"value"[..]));
}
