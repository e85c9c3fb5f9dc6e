//! The listening sockets of a server. They are bound before any shard starts, and before the process gives up
//! the rights of root (`-u`).

use std::io::{self, ErrorKind};
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

/// Binds every one of `addresses` with `bind`. Those of one entry that are in use, or of IPv6 where the machine
/// has none, are left out as long as another one of the entry can be had. A warning names those in use.
///
/// # Errors
/// The first address that cannot be left out, with the reason.
pub(crate) fn bind_each<T>(
    addresses: &[ListenAddress],
    mut bind: impl FnMut(&ListenAddress) -> io::Result<T>,
) -> Result<Vec<T>, (SocketAddr, io::Error)> {
    let mut bound = Vec::new();
    for entry in addresses.chunk_by(|one, next| one.entry == next.entry) {
        let bound_before = bound.len();
        let mut left_out = Vec::new();
        for listen_address in entry {
            let address = listen_address.socket_address;
            match bind(listen_address) {
                Ok(made) => bound.push(made),
                Err(error) if error.kind() == ErrorKind::AddrInUse || address.is_ipv6() => {
                    left_out.push((address, error));
                }
                Err(error) => return Err((address, error)),
            }
        }
        if bound.len() == bound_before {
            return Err(left_out.swap_remove(0));
        }
        for (address, error) in left_out.iter().filter(|(_, error)| error.kind() == ErrorKind::AddrInUse) {
            tracing::warn!("{address} is not listened on: {error}");
        }
    }
    Ok(bound)
}

/// Listens on every address of the configuration.
///
/// # Errors
/// An address or a socket file cannot be listened on.
pub(crate) fn bind(config: &ServerConfig, shards: usize) -> Result<Bound, ConfigError> {
    let mut sockets: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    let (mut bound, mut protocols) = (Vec::new(), Vec::new());
    match &config.listen {
        Listen::Tcp(addresses) => {
            let mut chosen_port = None;
            let made =
                bind_each(addresses, |&ListenAddress { socket_address: mut address, protocol, .. }| {
                    // A port of 0 lets the kernel choose; both address families then use the same port.
                    if let (0, Some(port)) = (address.port(), chosen_port) {
                        address.set_port(port);
                    }
                    let (made, address) = listen_on_all_shards(address, shards, config.listen_backlog)?;
                    chosen_port.get_or_insert(address.port());
                    Ok((made, address, protocol))
                });
            let made = made.map_err(|(address, error)| {
                let remedy = format!("free it, or listen elsewhere: {error}");
                ConfigError::new("-l/-p", &address.to_string(), &remedy, EX_OSERR)
            })?;
            for (of_shards, address, protocol) in made {
                of_shards.into_iter().zip(&mut sockets).for_each(|(socket, shard)| shard.push(socket));
                bound.push(address);
                protocols.push(protocol);
            }
        }
        Listen::Unix { path, mode, protocol } => {
            protocols.push(*protocol);
            let refused = |error: io::Error| {
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
    pub(crate) fn add(&mut self, socket: &OwnedFd, protocol: ListenerProtocol) -> io::Result<()> {
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
    pub(crate) fn sockets(&self, shard: usize) -> io::Result<Vec<OwnedFd>> {
        self.sockets[shard].iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binds the addresses of the entries, of which `refused` cannot be had. Returns those that were bound.
    fn bound(
        entries: &[&[&str]],
        refused: &[(&str, ErrorKind)],
    ) -> Result<Vec<String>, (SocketAddr, io::Error)> {
        let protocol = ListenerProtocol::default();
        let entry_addresses = entries.iter().enumerate().flat_map(|(entry, addresses)| {
            addresses.iter().map(move |address| ListenAddress {
                socket_address: address.parse().unwrap(),
                protocol,
                entry,
            })
        });
        bind_each(&entry_addresses.collect::<Vec<_>>(), |address| {
            let text = address.socket_address.to_string();
            match refused.iter().find(|(refused, _)| *refused == text) {
                Some((_, kind)) => Err((*kind).into()),
                None => Ok(text),
            }
        })
    }

    #[test]
    fn of_one_entry_one_address_is_enough() {
        use ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied, Unsupported};
        let (four, six) = ("0.0.0.0:9", "[::]:9");
        for (refused, left) in [
            (&[][..], Some(&[four, six][..])),
            (&[(four, AddrInUse)], Some(&[six])),
            (&[(six, AddrInUse)], Some(&[four])),
            (&[(six, Unsupported)], Some(&[four])),
            (&[(six, AddrNotAvailable)], Some(&[four])),
            (&[(four, AddrInUse), (six, AddrInUse)], None),
            (&[(four, AddrInUse), (six, Unsupported)], None),
            (&[(four, PermissionDenied)], None),
        ] {
            let outcome = bound(&[&[four, six]], refused);
            assert_eq!(
                outcome.as_deref().ok(),
                left.map(|l| l.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).as_deref(),
                "{refused:?}"
            );
            // Of two entries each must be had.
            let outcome = bound(&[&[four], &[six]], refused);
            assert_eq!(outcome.is_ok(), refused.is_empty(), "{refused:?}");
        }
        let (address, error) = bound(&[&[four, six]], &[(four, AddrInUse), (six, AddrInUse)]).unwrap_err();
        assert_eq!((address.to_string(), error.kind()), (four.to_owned(), AddrInUse));
    }
}
