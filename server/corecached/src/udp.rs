//! UDP (`-U`): a request is one datagram, its reply is one or more.
//!
//! Each socket has a thread. For each request the thread connects to a listening socket that only this
//! process knows, sends the request and waits for the reply, so that shards see a client like any other. That
//! costs more than TCP; UDP is here for clients that still use it.
//!
//! The sender of a datagram can be forged, and a cache that answers 15 bytes with a megabyte amplifies an
//! attack. Therefore replies longer than `--udp-reply-max` are refused.
//!
//! ```text
//! datagram    request id u16 | sequence number u16 | count of datagrams u16 | 0 u16 | up to 1,392 bytes
//! ```
//!
//! Numbers are big endian. Requests of several datagrams are not answered, as memcached's are not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use corecached_cache::config::UDP_PAYLOAD_BYTES as PAYLOAD_BYTES;
use corecached_net::endpoints::ListenAddress;
use corecached_shard::lifecycle::Lifecycle;

use crate::bind::bind_each;

const HEADER_BYTES: usize = 8;
/// Longest datagram, bytes.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;
/// Time between two looks of a thread at whether the server stops.
const TICK: Duration = Duration::from_millis(200);
/// Limit for the reply of a shard. A request without a reply by then is not answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const TOO_LARGE: &[u8] = b"SERVER_ERROR reply too large for UDP\r\n";
/// First byte of a request in the binary protocol, which has no such line and is not answered in that case.
const BINARY_REQUEST: u8 = 0x80;

/// The sockets of `-U`, and the address that requests go to.
#[derive(Debug)]
pub(crate) struct Udp {
    sockets: Vec<UdpSocket>,
    inner: UnixAddr,
}

impl Udp {
    /// Binds a socket at each of `addresses`, and the listening socket that the shards are to accept from.
    /// `name` makes the name of the latter unique on this machine.
    ///
    /// # Errors
    /// The first address that cannot be bound, with the reason.
    pub(crate) fn bind(
        addresses: &[ListenAddress],
        name: u64,
    ) -> Result<(Self, OwnedFd), (SocketAddr, io::Error)> {
        let sockets = bind_each(addresses, |address| bind(address.socket_address))?;
        let failed = |error| (addresses[0].socket_address, error);
        let inner = UnixAddr::from_abstract_name(format!("corecached-udp-{name:016x}")).map_err(failed)?;
        let listener = UnixListener::bind_addr(&inner).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok((Self { sockets, inner }, listener.into()))
    }

    /// The addresses that are bound.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Answers on every socket, in threads of their own, until the server stops. Replies longer than
    /// `reply_max` bytes are refused.
    pub(crate) fn run(self, lifecycle: &Arc<Lifecycle>, reply_max: usize) {
        for socket in self.sockets {
            let (lifecycle, inner) = (Arc::clone(lifecycle), self.inner.clone());
            std::thread::spawn(move || {
                if let Err(error) = answer(&socket, &inner, &lifecycle, reply_max) {
                    tracing::error!("UDP: {error}");
                }
            });
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket.into())
}

fn answer(socket: &UdpSocket, inner: &UnixAddr, lifecycle: &Lifecycle, reply_max: usize) -> io::Result<()> {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    while !lifecycle.is_stopping() {
        let (len, from) = match socket.recv_from(&mut datagram) {
            Ok(received) => received,
            // `ConnectionRefused` is the answer of a client that is gone to an earlier reply.
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        let Some((id, request)) = request(&datagram[..len]) else { continue };
        let reply = match carry(request, inner, reply_max) {
            Ok(Some(reply)) => reply,
            Ok(None) if request.first() != Some(&BINARY_REQUEST) => TOO_LARGE.to_vec(),
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!("UDP: a request of {from}: {error}");
                continue;
            }
        };
        for datagram in datagrams(id, &reply) {
            if let Err(error) = socket.send_to(&datagram, from) {
                tracing::debug!("UDP: a reply to {from}: {error}");
                break;
            }
        }
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}

/// The id and the bytes of a request; `None` for what is not answered.
fn request(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (header, request) = datagram.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    (number(4) == 1 && !request.is_empty()).then_some((number(0), request))
}

/// The whole reply to `request`; `None` when it is longer than `most` bytes.
fn carry(request: &[u8], inner: &UnixAddr, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut stream = UnixStream::connect_addr(inner)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(request)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.take(most as u64 + 1).read_to_end(&mut reply)?;
    Ok((reply.len() <= most).then_some(reply))
}

fn datagrams(id: u16, reply: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = reply.chunks(PAYLOAD_BYTES);
    let count = parts.len() as u16;
    parts.zip(0u16..).map(move |(part, number)| {
        let header = [id, number, count, 0].map(u16::to_be_bytes).concat();
        [&header, part].concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_requests_of_one_datagram_are_answered() {
        assert_eq!(request(b"\x01\x02\0\0\0\x01\0\0get a\r\n"), Some((0x102, &b"get a\r\n"[..])));
        assert_eq!(request(b"\0\x07\0\x01\0\x01\0\x09mn\r\n"), Some((7, &b"mn\r\n"[..])));
        for datagram in [
            &b""[..],
            b"\0\x01\0",
            b"\0\x01\0\0\0\x01\0\0",
            b"\0\x01\0\0\0\x02\0\0get a\r\n",
            b"\0\x01\0\0\0\0\0\0mn\r\n",
        ] {
            assert_eq!(request(datagram), None, "{datagram:?}");
        }
    }

    #[test]
    fn replies_are_split_and_numbered() {
        assert_eq!(datagrams(1, b"").count(), 0);
        let reply: Vec<u8> = (0..5000).map(|at| at as u8).collect();
        let all: Vec<Vec<u8>> = datagrams(0x1234, &reply).collect();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1400, 1400, 1400, 8 + 5000 - 3 * 1392]);
        assert_eq!(all[3][..8], [0x12, 0x34, 0, 3, 0, 4, 0, 0]);
        let joined: Vec<u8> = all.iter().flat_map(|datagram| datagram[8..].to_vec()).collect();
        assert_eq!(joined, reply);
    }
}
