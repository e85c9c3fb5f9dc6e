//! The listening sockets of a server. They are bound before any shard starts, and before the process gives up
//! the rights of root (`-u`).

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use corecached_net::endpoints::{Listen, ListenAddress, ListenerProtocol};
use corecached_net::listen::{listen_on_all_shards, listen_unix};
use corecached_shard::ConfigError;
use corecached_shard::config::ServerConfig;

use crate::error::EX_OSERR;

/// The listening sockets of a server.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The sockets of each shard. Every shard has one socket for each entry of `protocols`, in the same
    /// order.
    sockets: Vec<Vec<OwnedFd>>,
    /// The TCP addresses that are listened on; a port of 0 is replaced by the port that the kernel chose.
    pub addresses: Vec<SocketAddr>,
    /// The protocol of each socket of a shard.
    pub protocols: Vec<ListenerProtocol>,
}

/// Listens on every address of the configuration. IPv6 is left out where the machine has none, unless it was
/// asked for.
///
/// # Errors
/// An address or a socket file cannot be listened on.
pub(crate) fn bind(config: &ServerConfig, shards: usize) -> Result<Bound, ConfigError> {
    let mut sockets: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    let (mut bound, mut protocols) = (Vec::new(), Vec::new());
    match &config.listen {
        Listen::Tcp(addresses) => {
            for &ListenAddress { socket_address: address, protocol } in addresses {
                // A port of 0 lets the kernel choose; both address families then use the same port.
                let port = match (address.port(), bound.first()) {
                    (0, Some(first)) => SocketAddr::port(first),
                    (port, _) => port,
                };
                let address = SocketAddr::new(address.ip(), port);
                match listen_on_all_shards(address, shards, config.listen_backlog) {
                    Ok((made, address)) => {
                        made.into_iter().zip(&mut sockets).for_each(|(socket, shard)| shard.push(socket));
                        bound.push(address);
                        protocols.push(protocol);
                    }
                    // A machine may have no IPv6 at all.
                    Err(_) if !config.listen_is_given && address.is_ipv6() && !bound.is_empty() => {}
                    Err(error) => {
                        let remedy = format!("free it, or listen elsewhere: {error}");
                        return Err(ConfigError::new("-l/-p", &address.to_string(), &remedy, EX_OSERR));
                    }
                }
            }
        }
        Listen::Unix { path, mode, protocol } => {
            protocols.push(*protocol);
            let refused = |error: std::io::Error| {
                let remedy = format!("give a path where a socket can be made: {error}");
                ConfigError::new("-s", &path.display().to_string(), &remedy, EX_OSERR)
            };
            let socket = listen_unix(path, config.listen_backlog).map_err(refused)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).map_err(refused)?;
            for shard in &mut sockets {
                shard.push(socket.try_clone().map_err(refused)?);
            }
        }
    }
    Ok(Bound { sockets, addresses: bound, protocols })
}

impl Bound {
    /// Lets every shard accept from `socket` too.
    ///
    /// # Errors
    /// The socket cannot be duplicated.
    pub(crate) fn add(&mut self, socket: &OwnedFd, protocol: ListenerProtocol) -> std::io::Result<()> {
        for shard in &mut self.sockets {
            shard.push(socket.try_clone()?);
        }
        self.protocols.push(protocol);
        Ok(())
    }

    /// Duplicates of the sockets of one shard, for its driver. The originals stay, as a second driver may be
    /// tried after the first.
    ///
    /// # Errors
    /// A socket cannot be duplicated.
    pub(crate) fn sockets(&self, shard: usize) -> std::io::Result<Vec<OwnedFd>> {
        self.sockets[shard].iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }
}
