//! What a server listens on, as its configuration names it, and how it reaches the network.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use corecached_protocol::Wire;

use crate::tls::Usage;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On these addresses; port 0 takes a free one.
    Tcp(Vec<Address>),
    /// On a socket in the file system, with these permissions.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its mode, as of `chmod`.
        mode: u32,
        /// What is spoken there.
        serves: Serves,
    },
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where.
    pub at: SocketAddr,
    /// What is spoken there.
    pub serves: Serves,
}

/// What is spoken on the connections of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    /// Text, binary or either.
    pub wire: Wire,
    /// Whether and how it is secured.
    pub usage: Usage,
}

/// Most listening sockets: so many the drivers can tell apart.
pub const LISTENERS_MAX: usize = 62;

/// How to reach the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

impl std::str::FromStr for IoBackend {
    /// What may be given instead.
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

/// Every address of this machine, of both families.
pub const ALL_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];
