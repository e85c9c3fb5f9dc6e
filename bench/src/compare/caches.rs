//! The caches behind the compared proxies: three memcached servers. One of them is also measured directly.

use std::path::Path;

use super::workloads::OPEN;
use super::{ServerLine, Subject, line};
use crate::Failure;
use crate::peer::{Peer, Server, Setting};
use crate::pool::Pool;

/// Number of caches; all proxies use the same ones.
const CACHES: usize = 3;

/// Running caches. They are stopped when this is dropped.
#[derive(Debug)]
pub struct ProxiedCaches {
    servers: Vec<Server>,
}

impl ProxiedCaches {
    /// Starts the caches.
    ///
    /// # Errors
    /// A cache cannot be started.
    pub fn start(memcached: &Path, setting: &Setting) -> Result<Self, Failure> {
        let peer = Peer::memcached("direct", memcached);
        let servers = (0..CACHES).map(|_| peer.start(setting)).collect::<Result<_, _>>()?;
        Ok(Self { servers })
    }

    /// Returns the pool that the proxies are configured with.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool { destinations: self.servers.iter().map(Server::address).collect() }
    }

    /// Returns the first cache as a subject that is measured without a proxy. Its CPU time is not read: it
    /// cannot be compared with that of a proxy.
    #[must_use]
    pub fn direct(&self) -> Subject {
        let server = &self.servers[0];
        Subject { name: server.name.clone(), target: server.target(), pid: None, only: Some(OPEN) }
    }

    /// Returns the line of the report for [`ProxiedCaches::direct`].
    #[must_use]
    pub fn line(&self) -> ServerLine {
        let line = line(&self.servers[0]);
        ServerLine { version: format!("one of the {CACHES} caches, {}", line.version), ..line }
    }
}
