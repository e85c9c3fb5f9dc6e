//! The address of a server, and connections to it.

use std::fmt;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use socket2::SockAddr;

use crate::Failure;

/// Time that a server gets to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The address of a server, written `host:port` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Connects to the server. The socket is non-blocking, and TCP_NODELAY is set on a TCP socket.
    ///
    /// # Errors
    /// The server refuses the connection or does not accept it in time.
    pub fn connect(&self) -> Result<OwnedFd, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot connect to {self}: {error}"));
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT_LIMIT).map_err(failed)?;
                stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(failed)?;
                Ok(stream.into())
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(failed)?;
                stream.set_nonblocking(true).map_err(failed)?;
                Ok(stream.into())
            }
        }
    }

    /// Returns the address in the form of the kernel.
    ///
    /// # Errors
    /// The path is too long for a Unix socket.
    pub fn address(&self) -> Result<SockAddr, Failure> {
        match self {
            Self::Tcp(address) => Ok((*address).into()),
            Self::Unix(path) => {
                SockAddr::unix(path).map_err(|error| Failure::from(error).during(path.display()))
            }
        }
    }

    /// Returns the port if the server runs on this machine.
    #[must_use]
    pub fn local_port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) if address.ip().is_loopback() => Some(address.port()),
            _ => None,
        }
    }
}

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let mut found = text
            .to_socket_addrs()
            .map_err(|error| Failure::new(format!("{text}: not host:port: {error}")))?;
        found.next().map(Self::Tcp).ok_or_else(|| Failure::new(format!("{text}: has no address")))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
