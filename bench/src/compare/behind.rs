//! The caches behind proxies: memcached three times over, one of which is asked directly as well.

use std::path::Path;

use super::workloads::OPEN;
use super::{ServerLine, Subject, line};
use crate::Failure;
use crate::peer::{Peer, Server, Setting};
use crate::pool::Pool;

/// Caches behind each proxy, the same for all.
const CACHES: usize = 3;

/// Caches that run; ended when dropped.
#[derive(Debug)]
pub struct Behind {
    servers: Vec<Server>,
}

impl Behind {
    /// Start them.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(memcached: &Path, setting: &Setting) -> Result<Self, Failure> {
        let peer = Peer::memcached("direct", memcached);
        let servers = (0..CACHES).map(|_| peer.start(setting)).collect::<Result<_, _>>()?;
        Ok(Self { servers })
    }

    /// What proxies are told.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool { destinations: self.servers.iter().map(Server::address).collect() }
    }

    /// The first of them, without a proxy. Its CPU is not that of a proxy, so nobody reads it.
    #[must_use]
    pub fn direct(&self) -> Subject {
        let server = &self.servers[0];
        Subject { name: server.name.clone(), target: server.target(), pid: None, only: Some(OPEN) }
    }

    /// The same, for the report.
    #[must_use]
    pub fn line(&self) -> ServerLine {
        let line = line(&self.servers[0]);
        ServerLine { version: format!("one of the {CACHES} caches, {}", line.version), ..line }
    }
}
