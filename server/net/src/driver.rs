//! The one door to the kernel: a [`Driver`] accepts, receives, sends and wakes for one shard.
//!
//! A turn has two halves. [`Driver::turn`] submits what is queued, waits if it is told to, and reports
//! [`Event`]s. The shard works on them and writes replies into the arena it took; [`Driver::send`] takes the
//! arena back with a list of what to send from it. Bytes that a socket does not take at once are kept in the
//! connection's [`crate::outbox::Outbox`], so the shard never sees a partial write.
//!
//! Two drivers do this in different ways: `uring` (completions, one enter a turn) and `epoll` (readiness).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use corecached_engine::PinnedValue;

use crate::listen;

/// Names one connection of one shard. The generation tells it from earlier connections with the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Index of the slot in the tables of driver and shard.
    pub index: u32,
    /// Raised each time the slot is given to another connection; it wraps around after 2^32 of them.
    pub generation: u32,
}

/// What happened since the last turn, in the order it happened on each connection.
#[derive(Debug)]
pub enum Event {
    /// A client connected.
    Accepted {
        /// The name of the new connection.
        conn: ConnId,
        /// Index of the listening socket in [`DriverSetup::listeners`].
        listener: u16,
    },
    /// A connection begun by [`Driver::connect`] is established. When it cannot be, [`Event::Closed`] comes
    /// instead.
    Connected {
        /// The connection that [`Driver::connect`] returned.
        conn: ConnId,
    },
    /// Bytes arrived: read them with [`Driver::received`], then return the buffer with [`Driver::recycle`].
    Received {
        /// The connection they arrived on.
        conn: ConnId,
        /// The buffer that holds them.
        buffer: Buffer,
    },
    /// The peer will send nothing more, but may still be reading.
    Ended {
        /// The connection whose input has ended.
        conn: ConnId,
    },
    /// The connection broke. Its name is void: only [`Event::Released`] may follow for it.
    Closed {
        /// The connection that broke.
        conn: ConnId,
    },
    /// The outbox was above [`crate::outbox::LOW_WATER_BYTES`] and is not any more.
    Drained {
        /// The connection that may be given output again.
        conn: ConnId,
    },
    /// A pinned value was sent, or will never be: it goes back to the shard that owns it.
    Released {
        /// The value, as it was given to [`Driver::send`].
        pinned: Pinned,
    },
}

/// A receive buffer that a driver has lent, and how many of its bytes are filled.
///
/// It can be neither copied nor cloned, so that a buffer which was given back cannot be read. Give it to the
/// driver that lent it; one that is dropped instead is lost to that driver.
#[derive(Debug, PartialEq, Eq)]
pub struct Buffer {
    pub(crate) id: u16,
    pub(crate) len: u32,
}

impl Buffer {
    /// Buffer number `id` of a driver, with `len` bytes filled. Only the driver that lends the buffer calls
    /// this.
    #[must_use]
    pub const fn new(id: u16, len: u32) -> Self {
        Self { id, len }
    }

    /// Its number among the buffers of the driver.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id
    }
}

/// A value lent by the shard that owns it, to be sent without a copy.
#[derive(Debug)]
pub struct Pinned {
    /// The bytes.
    pub value: PinnedValue,
    /// The shard whose store must take it back.
    pub owner: usize,
}

/// One item of output, in the order of the list that [`Driver::send`] is given.
#[derive(Debug)]
pub enum Send {
    /// A range of the arena.
    Bytes {
        /// The connection that gets them.
        conn: ConnId,
        /// First byte in the arena.
        start: usize,
        /// One past the last byte in the arena; equal to `start` when the bytes were moved into a later
        /// range.
        end: usize,
        /// A pinned value for the same connection follows in this turn, so the bytes must queue with it.
        queued: bool,
    },
    /// A value sent from where it is stored.
    Pinned {
        /// The connection that gets it.
        conn: ConnId,
        /// The value; it comes back as [`Event::Released`].
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

/// When a connection that is closed from this side ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// As soon as the socket has taken everything that was given to [`Driver::send`].
    AfterSend,
    /// At once.
    Now,
}

/// Network input and output of one shard. Not `Send`: made and used on the shard's own thread.
pub trait Driver {
    /// Submits what is queued, waits as told if nothing has happened, and appends what happened to `events`.
    ///
    /// # Errors
    /// Only what leaves the driver unusable; errors of one connection close that connection.
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()>;

    /// The bytes of an [`Event::Received`] of this driver.
    fn received(&self, buffer: &Buffer) -> &[u8];

    /// Takes back a buffer of this driver's [`Event::Received`].
    fn recycle(&mut self, buffer: Buffer);

    /// Receives what else has come on this connection straight into `first` and then `rest`, without waiting,
    /// and returns how many bytes. Call it only after all events of the turn have been worked on, so that no
    /// bytes are overtaken: a driver that may itself hold earlier bytes receives none, which costs no more
    /// than their copy. It does not report the end of the stream or an error; those come as events.
    fn receive_into(&mut self, conn: ConnId, first: &mut [u8], rest: &mut [u8]) -> usize {
        let _ = (conn, first, rest);
        0
    }

    /// An empty buffer for this turn's replies; [`Driver::send`] takes it back.
    fn take_arena(&mut self) -> Vec<u8>;

    /// Sends what `sends` lists from `arena`, and leaves the list empty. Call it once after each
    /// [`Driver::turn`].
    ///
    /// # Panics
    /// When a range is not one of `arena`.
    fn send(&mut self, arena: Vec<u8>, sends: &mut Vec<Send>);

    /// Bytes given to [`Driver::send`] that the socket has not taken yet.
    fn backlog(&self, conn: ConnId) -> usize;

    /// The part of the backlog that the socket was offered and did not take. A driver that sends in the next
    /// turn leaves out what came in this turn.
    fn refused(&self, conn: ConnId) -> usize {
        self.backlog(conn)
    }

    /// Whether something has come on this connection, bytes or the end of the stream, that no event has reported.
    fn has_unreported(&mut self, conn: ConnId) -> bool;

    /// Stops receiving on this connection; a receive that is under way may still be reported.
    fn pause(&mut self, conn: ConnId);

    /// Receives on this connection again.
    fn resume(&mut self, conn: ConnId);

    /// Ends a connection from this side. Its name is void at once: only [`Event::Released`] may follow for
    /// it.
    fn close(&mut self, conn: ConnId, how: Close);

    /// Begins a connection to a server. Its name may be given to the other functions at once, but bytes may
    /// be sent only after [`Event::Connected`]. There is no time limit: close it to give up.
    ///
    /// # Errors
    /// What is known at once: no descriptors, no route, no such socket file.
    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId>;

    /// The address of the peer; `None` when the connection is gone or has no internet address.
    fn peer(&self, conn: ConnId) -> Option<SocketAddr>;

    /// Accepts no more connections, and closes the listening sockets.
    fn stop_accepting(&mut self);

    /// What another thread uses to end this driver's wait.
    fn waker(&self) -> Arc<Waker>;

    /// Wakes another shard's driver, at the latest by the end of the next [`Driver::turn`]; keep the waker
    /// until then.
    fn wake(&mut self, other: &Waker);

    /// Connections that could not be accepted for want of descriptors.
    fn accept_failures(&self) -> u64;

    /// Whether output is left that only further turns give to its socket, also of connections that were
    /// closed with [`Close::AfterSend`]. Takes time linear in the number of connections.
    fn has_unsent(&self) -> bool;
}

/// Ends the wait of one driver from any thread. It may outlive its driver, and then has no effect.
#[derive(Debug)]
pub struct Waker {
    /// Writing to it makes the driver's wait return: an eventfd, or one end of a socket pair.
    pub(crate) signal: OwnedFd,
    /// The driver's io_uring, when it has one that takes messages from other rings. A duplicate: were it only
    /// the number, it could name another file of the process once the driver is gone.
    pub(crate) ring: Option<OwnedFd>,
}

impl Waker {
    /// A waker without a driver.
    ///
    /// # Panics
    /// When the process may open no more descriptors.
    #[must_use]
    pub fn for_tests() -> Self {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Self { signal: rustix::event::eventfd(0, flags).expect("an eventfd"), ring: None }
    }

    /// Ends the wait of the driver this belongs to. Costs a system call.
    pub fn wake(&self) {
        // A full socket or eventfd means that a wake-up is pending already; without a reader there is nobody
        // to wake.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }
}

/// What a driver of either kind needs to start.
#[derive(Debug)]
pub struct DriverSetup {
    /// Listening sockets of this shard, non-blocking.
    pub listeners: Vec<OwnedFd>,
    /// The limit of connections, counted over all shards.
    pub admission: Arc<listen::Admission>,
    /// Whether values of several KiB are what comes in, rather than requests: larger receive buffers hold
    /// them whole.
    pub receives_values: bool,
}

/// Most bytes of reply arena kept between turns.
const ARENA_KEEP_BYTES: usize = 1 << 20;

/// Frees what one unusually large turn took.
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

/// Receives what has come, without waiting, into `first` and then `rest`; returns how many bytes.
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

/// Whether `socket` has bytes that were not received, or is at its end.
pub(crate) fn is_readable(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

pub(crate) fn peer_of(socket: std::os::fd::BorrowedFd<'_>) -> Option<SocketAddr> {
    rustix::net::getpeername(socket).ok().flatten()?.try_into().ok()
}
