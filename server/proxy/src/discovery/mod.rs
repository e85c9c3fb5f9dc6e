//! Where the proxy's servers are: names to addresses, and names that stand for several servers. Asked by the control
//! thread alone.

pub mod dns;
pub mod lookups;
pub mod slices;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

pub use dns::Dns;
pub use lookups::{Lookups, Question};
pub use slices::{Slices, SlicesFound};

use crate::config::{Address, Config, Member, Pool, ResolvedPools, Server};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The members of pools whose names stand for all their addresses.
    pub pools: ResolvedPools,
    /// The address of each server; one that is not there has none now.
    pub addresses: HashMap<Server, SockAddr>,
}

impl Found {
    /// What is known without a question: what `slices` say, and servers that are written as addresses.
    #[must_use]
    pub fn unasked(config: &Config, slices: &SlicesFound) -> Self {
        let mut found = Self::default().with(config, slices);
        for pool in config.pools.iter().filter(|pool| pool.resolve) {
            let known = servers(pool).filter(|server| address_written(server).is_some());
            found.pools.entry(pool.name.clone()).or_insert_with(|| known.cloned().collect());
        }
        found.locate_written(config);
        found
    }

    /// Servers that are written as addresses are where these say.
    fn locate_written(&mut self, config: &Config) {
        for server in written(config).chain(self.pools.values().flatten()) {
            if !self.addresses.contains_key(server)
                && let Some(address) = address_written(server)
            {
                self.addresses.insert(server.clone(), address);
            }
        }
    }

    /// Whether `other` would send a request elsewhere.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let bytes =
            |address: &SockAddr| (address.as_socket(), address.as_pathname().map(std::path::Path::to_owned));
        self.pools != other.pools
            || self.addresses.len() != other.addresses.len()
            || self.addresses.iter().any(|(server, address)| {
                other.addresses.get(server).is_none_or(|found| bytes(found) != bytes(address))
            })
    }

    /// What differs from `before`, in words: of pools that stand for all servers of a name who came and went, else
    /// the addresses of names.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (pool, servers) in &self.pools {
            let earlier = before.pools.get(pool).map_or(&[][..], Vec::as_slice);
            let without = |these: &[Server], those: &[Server]| {
                let gone = these.iter().filter(|server| !those.contains(server));
                gone.map(|server| server.address.to_string()).collect::<Vec<_>>()
            };
            for (sign, list) in [("+", without(servers, earlier)), ("-", without(earlier, servers))] {
                changes.extend(list.into_iter().map(|address| format!("pool {pool}: {sign} {address}")));
            }
        }
        let spelled = |address: Option<&SockAddr>| match address.and_then(SockAddr::as_socket) {
            Some(address) => address.to_string(),
            None => "nowhere".to_owned(),
        };
        for (server, address) in &self.addresses {
            let earlier = before.addresses.get(server);
            if earlier.is_some_and(|earlier| earlier.as_socket() != address.as_socket()) {
                changes.push(format!(
                    "{}: {} -> {}",
                    server.address,
                    spelled(earlier),
                    spelled(Some(address))
                ));
            }
        }
        changes.sort_unstable();
        changes
    }
}

/// Servers that `config` writes in pools that are taken as written.
fn written(config: &Config) -> impl Iterator<Item = &Server> {
    config.pools.iter().filter(|pool| !pool.resolve).flat_map(servers)
}

/// Servers that `pool` writes.
fn servers(pool: &Pool) -> impl Iterator<Item = &Server> {
    pool.members.iter().filter_map(Member::server)
}

/// Where `server` is, if no name has to be looked up for it.
fn address_written(server: &Server) -> Option<SockAddr> {
    match &server.address {
        Address::Tcp { host, port } => Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, *port).into()),
        Address::Unix { path } => SockAddr::unix(path).ok(),
    }
}
