//! Where a server listens, and how a connection to it is made.

use std::fmt;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use socket2::SockAddr;

use crate::Failure;

/// A server that does not take a connection within this long is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// `host:port`, or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Connect; the socket does not block and does not wait to fill packets.
    ///
    /// # Errors
    /// When nobody answers.
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

    /// As the kernel takes it.
    ///
    /// # Errors
    /// A path that is too long for a socket.
    pub fn address(&self) -> Result<SockAddr, Failure> {
        match self {
            Self::Tcp(address) => Ok((*address).into()),
            Self::Unix(path) => {
                SockAddr::unix(path).map_err(|error| Failure::from(error).during(path.display()))
            }
        }
    }

    /// The port, of a server on this machine.
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
