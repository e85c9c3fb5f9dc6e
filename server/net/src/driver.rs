//! The one door to the kernel: a [`Driver`] accepts, receives, sends and wakes for one shard.
//!
//! A turn has two halves. [`Driver::turn`] hands what the kernel queued before to it, waits if asked to, and reports
//! [`Event`]s; the shard works on them, writing replies into the arena it took; [`Driver::send`] takes the arena back
//! with a list of what to send from it. What a socket does not take at once is kept in that connection's [`crate::outbox::Outbox`],
//! so the shard never sees a partial write.
//!
//! Two drivers do the same in different ways: `uring` (completions, one enter a turn) and `epoll` (readiness).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corecached_engine::PinnedValue;

use crate::listen;

/// Names one connection of one shard. The generation tells it from an earlier one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Place in the tables of driver and shard.
    pub index: u32,
    /// Raised each time the place is given out anew.
    pub generation: u32,
}

/// What happened since the last turn, in the order it happened on each connection.
#[derive(Debug)]
pub enum Event {
    /// A client connected.
    Accepted {
        /// Its name from now on.
        conn: ConnId,
        /// Number of the listening socket, in the order of [`DriverSetup::listeners`].
        listener: u16,
    },
    /// A connection begun by [`Driver::connect`] stands. When it cannot, [`Event::Closed`] comes instead.
    Connected {
        /// Which.
        conn: ConnId,
    },
    /// Bytes arrived; read them with [`Driver::received`], then give them back with [`Driver::recycle`].
    Received {
        /// From whom.
        conn: ConnId,
        /// Where they are.
        buffer: Buffer,
    },
    /// The peer will send nothing more, but may still be reading.
    Ended {
        /// Who.
        conn: ConnId,
    },
    /// The connection broke. Its name is void; nothing follows but [`Event::Released`].
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// What was waiting in the outbox fell under [`crate::outbox::LOW_WATER_BYTES`].
    Drained {
        /// Whose.
        conn: ConnId,
    },
    /// A pinned value was sent, or will never be: it goes back to its owner.
    Released {
        /// What was lent.
        pinned: Pinned,
    },
}

/// A buffer lent by the driver: which one, and how many of its bytes are filled.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Number in the driver's set.
    pub id: u16,
    /// Bytes received.
    pub len: u32,
}

/// A value lent by the shard that owns it, to be sent without a copy.
#[derive(Debug)]
pub struct Pinned {
    /// The bytes.
    pub value: PinnedValue,
    /// The shard whose store must take it back.
    pub owner: usize,
}

/// One thing to send, in order; made by the shard during a turn.
#[derive(Debug)]
pub enum Send {
    /// A range of the arena.
    Bytes {
        /// To whom.
        conn: ConnId,
        /// First byte in the arena.
        start: usize,
        /// One past the last; equal to `start` when the bytes were moved into a later range.
        end: usize,
        /// A pinned value for the same connection follows in this turn, so the bytes must queue with it.
        queued: bool,
    },
    /// A value sent from where it is stored.
    Pinned {
        /// To whom.
        conn: ConnId,
        /// What; comes back as [`Event::Released`].
        pinned: Pinned,
    },
}

/// How long [`Driver::turn`] may wait when nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    AtMost(Duration),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// When everything handed to [`Driver::send`] has been taken by the socket.
    AfterSend,
    /// At once.
    Now,
}

/// Network input and output of one shard. Not `Send`: made and used on the shard's own thread.
pub trait Driver {
    /// Hand over what is queued, wait as told if nothing is there, append what happened to `events`.
    ///
    /// # Errors
    /// Only what leaves the driver unusable; errors of one connection close that connection.
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()>;

    /// The bytes of a [`Event::Received`].
    fn received(&self, buffer: Buffer) -> &[u8];

    /// Give a buffer back. Each one, once.
    fn recycle(&mut self, buffer: Buffer);

    /// Take what else has come on this connection, straight into `first` and then `rest`, and say how many bytes; waits
    /// for nothing. Only once all events of the turn have been worked on, so that nothing is overtaken: a driver that
    /// may hold earlier bytes itself takes none, which costs no more than their copy. Does not tell an end or an error.
    fn receive_into(&mut self, conn: ConnId, first: &mut [u8], rest: &mut [u8]) -> usize {
        let _ = (conn, first, rest);
        0
    }

    /// An empty buffer to write this turn's replies into; goes back by [`Driver::send`].
    fn take_arena(&mut self) -> Vec<u8>;

    /// Send what `sends` lists from `arena`. The list is left empty.
    fn send(&mut self, arena: Vec<u8>, sends: &mut Vec<Send>);

    /// Bytes handed over that the socket has not taken yet.
    fn backlog(&self, conn: ConnId) -> usize;

    /// Of the backlog, what the socket had its chance to take and did not: a driver that sends in the next turn has it
    /// decide then, so that a turn's output may come on top.
    fn refused(&self, conn: ConnId) -> usize {
        self.backlog(conn)
    }

    /// Stop receiving on this connection; what is already under way may still arrive.
    fn pause(&mut self, conn: ConnId);

    /// Receive again.
    fn resume(&mut self, conn: ConnId);

    /// End a connection from this side. Its name is void at once; no event follows for it but [`Event::Released`].
    fn close(&mut self, conn: ConnId, how: Close);

    /// Begin a connection to a server. Its name may be given to the other functions at once, but bytes may be sent
    /// only after [`Event::Connected`]. There is no time limit: whoever wants one closes it.
    ///
    /// # Errors
    /// What can be said at once: no descriptors, no route, no such socket file.
    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId>;

    /// Where the peer is; `None` when the connection is gone or has no internet address.
    fn peer(&self, conn: ConnId) -> Option<SocketAddr>;

    /// Accept no more connections, and close the listening sockets.
    fn stop_accepting(&mut self);

    /// What another thread uses to end this driver's wait.
    fn waker(&self) -> Arc<Waker>;

    /// Wake another shard's driver, at the latest by the end of the next [`Driver::turn`].
    fn wake(&mut self, other: &Waker);

    /// Connections that could not be accepted for want of descriptors.
    fn accept_failures(&self) -> u64;

    /// Whether something waits that only further turns hand to its socket, on connections that were closed
    /// [`Close::AfterSend`] too. Looks at all of them.
    fn has_unsent(&self) -> bool;
}

/// Ends the wait of one driver from any thread.
#[derive(Debug)]
pub struct Waker {
    /// Writing to it makes the driver's wait return: an eventfd, or one end of a socket pair.
    pub(crate) signal: std::os::fd::OwnedFd,
    /// The driver's io_uring, when it has one that takes messages from other rings.
    pub(crate) ring: Option<std::os::fd::RawFd>,
}

impl Waker {
    /// A waker that wakes nobody.
    ///
    /// # Panics
    /// When the process may open no more descriptors.
    #[must_use]
    pub fn for_tests() -> Self {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Self { signal: rustix::event::eventfd(0, flags).expect("an eventfd"), ring: None }
    }

    /// End the wait of the driver this belongs to. Costs a system call.
    pub fn wake(&self) {
        // A full socket or eventfd means a wake-up is pending already.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }
}

/// What a driver of either kind needs to start.
#[derive(Debug)]
pub struct DriverSetup {
    /// Listening sockets of this shard, non-blocking.
    pub listeners: Vec<std::os::fd::OwnedFd>,
    /// Who may connect, counted over all shards.
    pub admission: Arc<listen::Admission>,
    /// Values of several KiB are what comes in, rather than requests: better received whole.
    pub receives_values: bool,
}

/// Bytes of reply arena kept between turns.
const ARENA_KEEP_BYTES: usize = 1 << 20;

/// Give back what one unusually large turn took.
pub(crate) fn shrink_arena(arena: &mut Vec<u8>) {
    debug_assert!(arena.is_empty());
    if arena.capacity() > ARENA_KEEP_BYTES {
        arena.shrink_to(ARENA_KEEP_BYTES);
    }
}

/// A socket for a connection to `address`.
pub(crate) fn socket_for(address: &socket2::SockAddr, nonblocking: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(address.domain(), socket2::Type::STREAM.cloexec(), None)?;
    socket.set_nonblocking(nonblocking)?;
    if !address.is_unix() {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// What has come, without waiting, into `first` and then `rest`.
pub(crate) fn receive_into(
    socket: std::os::fd::BorrowedFd<'_>,
    first: &mut [u8],
    rest: &mut [u8],
) -> Result<usize, rustix::io::Errno> {
    let mut parts = [io::IoSliceMut::new(first), io::IoSliceMut::new(rest)];
    let mut none = rustix::net::RecvAncillaryBuffer::default();
    let flags = rustix::net::RecvFlags::DONTWAIT;
    rustix::net::recvmsg(socket, &mut parts, &mut none, flags).map(|received| received.bytes)
}

pub(crate) fn peer_of(socket: std::os::fd::BorrowedFd<'_>) -> Option<SocketAddr> {
    rustix::net::getpeername(socket).ok().flatten()?.try_into().ok()
}
