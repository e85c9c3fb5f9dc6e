//! What a server listens on, as its configuration names it, and how it reaches the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use corecached_protocol::Wire;

use crate::tls::Usage;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On these addresses.
    Tcp(Vec<ListenAddress>),
    /// On a socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permissions, as `chmod` takes them.
        mode: u32,
        /// What is spoken there.
        protocol: ListenerProtocol,
    },
}

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Address and port; port 0 takes a free one.
    pub socket_address: SocketAddr,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// The entry of the command line that it is for, such as a name with several addresses. Of the addresses
    /// of one entry, those may be left out that are in use or of a family that this machine has not.
    pub entry: usize,
}

/// What is spoken on the connections of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerProtocol {
    /// Text, binary or either.
    pub wire: Wire,
    /// Whether connections are secured, and how.
    pub usage: Usage,
}

/// Most listening sockets of a shard: the drivers tell no more of them apart.
pub const LISTENERS_MAX: usize = 62;

/// How to reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring; without it the server does not start.
    IoUring,
    /// epoll.
    Epoll,
}

impl std::str::FromStr for IoBackend {
    /// The names that may be given.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "epoll" => Ok(Self::Epoll),
            _ => Err("give auto, io_uring or epoll"),
        }
    }
}

/// The unspecified address of both families: every address of this machine.
pub const ALL_ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
