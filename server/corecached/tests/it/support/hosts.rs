//! Caches as pods run them: each on an address of its own, all on one port.

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use super::{Client, Launch, Server};

/// Running caches on addresses of 127.0.0.0/24, all on one port.
pub struct Hosts {
    port: u16,
    _servers: Vec<Server>,
}

impl Hosts {
    /// Starts a cache on each of these hosts of 127.0.0.0/24. Tests run side by side, so each test uses other
    /// hosts.
    pub fn start(hosts: RangeInclusive<u8>) -> Self {
        let first = format!("127.0.0.{}:0", hosts.start());
        let port = TcpListener::bind(first).unwrap().local_addr().unwrap().port();
        let on = |host: u8| {
            Launch::bare(&["-l", &format!("127.0.0.{host}"), "-p", &port.to_string(), "-t", "1"]).serve()
        };
        Self { port, _servers: hosts.map(on).collect() }
    }

    /// The port of all caches.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects a client to the cache on `host`.
    pub fn client(&self, host: u8) -> Client {
        Client::connect_to(SocketAddr::from(([127, 0, 0, host], self.port)))
    }

    /// One number of the `stats` of the cache on `host`.
    pub fn stat(&self, host: u8, name: &str) -> u64 {
        self.client(host).stat(name)
    }
}
