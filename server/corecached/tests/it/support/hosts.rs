//! Caches as pods have them: each on an address of its own, all on one port.

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use super::{Client, Launch, Server};

/// See the head of the file.
pub struct Hosts {
    port: u16,
    _servers: Vec<Server>,
}

impl Hosts {
    /// On these hosts of 127.0.0.0/24. Each test has others: they run side by side.
    pub fn start(hosts: RangeInclusive<u8>) -> Self {
        let first = format!("127.0.0.{}:0", hosts.start());
        let port = TcpListener::bind(first).unwrap().local_addr().unwrap().port();
        let on = |host: u8| {
            Launch::bare(&["-l", &format!("127.0.0.{host}"), "-p", &port.to_string(), "-t", "1"]).serve()
        };
        Self { port, _servers: hosts.map(on).collect() }
    }

    /// The port of all of them.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client of one of them.
    pub fn client(&self, host: u8) -> Client {
        Client::connect_to(SocketAddr::from(([127, 0, 0, host], self.port)))
    }

    /// What one of them says of itself.
    pub fn stat(&self, host: u8, name: &str) -> u64 {
        self.client(host).stat(name)
    }
}
