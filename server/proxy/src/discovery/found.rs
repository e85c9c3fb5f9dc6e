//! What was found for a configuration: the members of its pools, and the addresses of its servers.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

use super::slices::{Endpoint, SlicesFound};
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

    /// This with the members that `slices` report. Nothing is looked up.
    #[must_use]
    pub(crate) fn with_slices(&self, config: &Config, slices: &SlicesFound) -> Self {
        let mut found = self.clone();
        for pool in &config.pools {
            let Some(members) = members(pool, slices) else { continue };
            let (servers, addresses): (Vec<_>, Vec<_>) = members.into_iter().unzip();
            for (server, address) in servers.iter().zip(addresses) {
                found.addresses.insert(server.clone(), address.into());
            }
            found.pools.insert(pool.name.clone(), servers);
        }
        let named: HashSet<&Server> =
            configured_servers(config).chain(found.pools.values().flatten()).collect();
        found.addresses.retain(|server, _| named.contains(server));
        found
    }

    /// Adds the addresses of servers that are configured with an IP address or a unix socket.
    pub(super) fn add_configured_addresses(&mut self, config: &Config) {
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
pub(super) fn configured_servers(config: &Config) -> impl Iterator<Item = &Server> {
    config.pools.iter().filter(|pool| !pool.resolve).flat_map(servers)
}

/// The servers that `pool` is configured with.
pub(super) fn servers(pool: &Pool) -> impl Iterator<Item = &Server> {
    pool.members.iter().filter_map(Member::server)
}

/// The address of `server`, if no name must be looked up for it.
pub(super) fn configured_address(server: &Server) -> Option<SockAddr> {
    match &server.address {
        Address::Tcp { host, port } => Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, *port).into()),
        Address::Unix { path } => SockAddr::unix(path).ok(),
    }
}

/// The members of `pool` according to `slices`; `None` if its Service is not known.
fn members(pool: &Pool, slices: &SlicesFound) -> Option<Vec<(Server, std::net::SocketAddr)>> {
    let endpoints = slices.get(pool.endpoint_slices.as_ref()?)?.as_ref()?;
    let Some(Member::Server(written)) = pool.members.first() else { return None };
    let Address::Tcp { host, port } = &written.address else { return None };
    let member = |endpoint: &Endpoint| {
        // The name that the SRV records of a headless Service give it, so that no key moves when DNS is used
        // instead.
        let host = format!("{}.{}", endpoint.name, host.trim_end_matches('.'));
        let address = Address::Tcp { host, port: *port };
        (Server { address, ..written.clone() }, (endpoint.ip, *port).into())
    };
    Some(endpoints.iter().map(member).collect())
}
