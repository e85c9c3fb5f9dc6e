//! The addresses of servers, and the members of pools whose names stand for several servers. Used by the
//! control thread only.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`dns`] | names, looked up by DNS |
//! | [`lookups`] | the thread that does so |
//! | [`slices`] | the endpoints of a Kubernetes Service, reported by its cluster |

mod dns;
mod lookups;
mod slices;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

pub(crate) use dns::Dns;
pub(crate) use lookups::{Lookups, Question};
pub(crate) use slices::{ACCOUNT, ApiAccess, EndpointSlices, SlicesFound, followed_services, known_services};

use crate::config::{Address, Config, Member, Pool, ResolvedPools, Server};

/// The members and addresses that were found for a configuration.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The members of each pool whose names stand for all their addresses.
    pub pools: ResolvedPools,
    /// The address of each server. A server that is missing has none now.
    pub addresses: HashMap<Server, SockAddr>,
}

impl Found {
    /// What is known without a lookup: what `slices` report, and servers that are configured with an IP
    /// address.
    #[must_use]
    pub(crate) fn without_lookups(config: &Config, slices: &SlicesFound) -> Self {
        let mut found = Self::default().with_slices(config, slices);
        for pool in config.pools.iter().filter(|pool| pool.resolve) {
            let known = servers(pool).filter(|server| configured_address(server).is_some());
            found.pools.entry(pool.name.clone()).or_insert_with(|| known.cloned().collect());
        }
        found.add_configured_addresses(config);
        found
    }

    /// Adds the addresses of servers that are configured with an IP address or a unix socket.
    fn add_configured_addresses(&mut self, config: &Config) {
        for server in configured_servers(config).chain(self.pools.values().flatten()) {
            if !self.addresses.contains_key(server)
                && let Some(address) = configured_address(server)
            {
                self.addresses.insert(server.clone(), address);
            }
        }
    }

    /// Whether a request would be sent to another address with `other`.
    #[must_use]
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let bytes =
            |address: &SockAddr| (address.as_socket(), address.as_pathname().map(std::path::Path::to_owned));
        self.pools != other.pools
            || self.addresses.len() != other.addresses.len()
            || self.addresses.iter().any(|(server, address)| {
                other.addresses.get(server).is_none_or(|found| bytes(found) != bytes(address))
            })
    }

    /// The differences from `before` as text for operators: the members of pools that were added and removed,
    /// and the addresses of servers that changed.
    #[must_use]
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<String> {
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

/// The servers of all pools of `config` whose names do not stand for several servers.
fn configured_servers(config: &Config) -> impl Iterator<Item = &Server> {
    config.pools.iter().filter(|pool| !pool.resolve).flat_map(servers)
}

/// The servers that `pool` is configured with.
fn servers(pool: &Pool) -> impl Iterator<Item = &Server> {
    pool.members.iter().filter_map(Member::server)
}

/// The address of `server`, if no name must be looked up for it.
fn configured_address(server: &Server) -> Option<SockAddr> {
    match &server.address {
        Address::Tcp { host, port } => Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, *port).into()),
        Address::Unix { path } => SockAddr::unix(path).ok(),
    }
}
