//! Where the proxy's servers are: names to addresses, and names that stand for several servers. Control thread only.

pub mod cores;
pub mod dns;

use std::collections::HashMap;

use socket2::SockAddr;

pub use cores::{Cores, CoresFound, Scout};
pub use dns::Dns;

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
