//! Where the proxy's servers are: names to addresses, and names that stand for several servers. Asked by the control
//! thread alone.

pub mod cores;
pub mod dns;
pub mod lookups;
pub mod slices;

use std::collections::HashMap;

use socket2::SockAddr;

pub use cores::{Cores, CoresFound, Scout};
pub use dns::Dns;
pub use lookups::{Lookups, Question};
pub use slices::{Slices, SlicesFound};

use crate::proxy::config::{Config, Member, ResolvedPools, Server};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The members of pools whose names stand for all their addresses.
    pub pools: ResolvedPools,
    /// The address of each server; one that is not there has none now.
    pub addresses: HashMap<Server, SockAddr>,
}

impl Found {
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
    config.pools.iter().filter(|pool| !pool.resolve).flat_map(|pool| &pool.members).filter_map(|member| {
        match member {
            Member::Server(server) => Some(server),
            Member::Handle(_) => None,
        }
    })
}
