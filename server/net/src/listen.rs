//! Listening sockets, and who may connect.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

/// What a client is told past the connection limit, before its connection is closed.
pub const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// Counts connections over all shards against the limit.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    open: AtomicUsize,
    accepted: AtomicU64,
    rejected: AtomicU64,
}

impl Admission {
    /// At most `limit` connections at once.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, open: AtomicUsize::new(0), accepted: AtomicU64::new(0), rejected: AtomicU64::new(0) }
    }

    /// Count one connection in; false when the limit is reached.
    pub fn admit(&self) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Count one connection out.
    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// `stats reset`: count accepted and rejected connections anew.
    pub fn reset_counts(&self) {
        self.accepted.store(0, Ordering::Relaxed);
        self.rejected.store(0, Ordering::Relaxed);
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections admitted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections turned away since the start.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

/// Listening sockets for one address, one a shard, among which the kernel spreads connections; and the address they
/// got.
///
/// `backlog` is the length of each accept queue. Port 0 takes a free port, the same for all.
///
/// # Errors
/// What the kernel said; the caller names the address.
pub fn listen_on_all_shards(
    address: SocketAddr,
    shards: usize,
    backlog: i32,
) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    // Sockets that share a port take it from whoever else shares it: another server of the same user would go
    // unnoticed. The first socket therefore claims the port alone, as memcached does.
    let first = bind(address, false)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(bind(address, true)?);
    }
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    Ok((sockets.into_iter().map(OwnedFd::from).collect(), address))
}

/// A listening socket for one shard alone, and the address it got.
///
/// # Errors
/// As [`listen_on_all_shards`].
pub fn listen_on_one_shard(address: SocketAddr, backlog: i32) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = bind(address, false)?;
    socket.listen(backlog)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket.into(), address))
}

/// A listening socket in the file system, in place of one that an earlier server left there.
///
/// # Errors
/// What the kernel said; also when something else than a socket is there.
pub fn listen_unix(path: &std::path::Path, backlog: i32) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit these.
    socket.set_keepalive(true)?;
    socket.set_tcp_nodelay(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
