//! Listening sockets, and the limit of connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

/// What a client is sent past the connection limit, before its connection is closed.
pub(crate) const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// Counts connections over all shards against the limit.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    open: AtomicUsize,
    accepted: AtomicU64,
    rejected: AtomicU64,
}

impl Admission {
    /// A limit of `limit` connections at once.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, open: AtomicUsize::new(0), accepted: AtomicU64::new(0), rejected: AtomicU64::new(0) }
    }

    /// Counts one connection in; false when the limit is reached.
    pub fn admit(&self) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Counts out one connection that [`Admission::admit`] counted in.
    pub fn leave(&self) {
        let before = self.open.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more connections left than were admitted");
    }

    /// Counts accepted and rejected connections from zero again, as `stats reset` asks.
    pub fn reset_counts(&self) {
        self.accepted.store(0, Ordering::Relaxed);
        self.rejected.store(0, Ordering::Relaxed);
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections admitted since the start or the last reset.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections turned away since the start or the last reset.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

/// Opens listening sockets for one address, one a shard, among which the kernel spreads connections. Returns
/// them with the address they got: port 0 takes a free port, the same for all.
///
/// `backlog` is the length of each accept queue.
///
/// # Errors
/// The address cannot be bound or listened on; the error does not name it.
pub fn listen_on_all_shards(
    address: SocketAddr,
    shards: usize,
    backlog: i32,
) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    // A socket that shares its port may bind beside any other one that does: another server of the same user
    // would go unnoticed. The first socket therefore claims the port alone, as memcached does.
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

/// Opens a listening socket in the file system, and removes one that an earlier server left at `path`.
///
/// # Errors
/// The path cannot be bound; also when something other than a socket is there. The error does not name the
/// path.
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
