//! The driver for kernels or containers without io_uring: edge-triggered epoll.
//!
//! A turn is one `epoll_wait`, then at most one `recv` for each readable connection and, inside a large
//! value, one that stores what has come of it in its place ([`Driver::receive_into`]); [`Driver::send`] is
//! one `send` for each connection. Interest is registered once, at accept, in both directions; a connection
//! that is readable but has not been read to the end stays on a list instead of being armed again.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::driver::{self, Buffer, Close, ConnId, Driver, DriverSetup, Event, Send, Wait, Waker};
use crate::endpoints::LISTENERS_MAX;
use crate::listen::{self, Admission};
use crate::outbox::{self, Outbox};

/// Most readiness events taken in one wait.
const EVENTS_MAX: usize = 512;
/// Receive buffers: at most this many connections are read in one turn, the rest in the next.
const BUFFERS: usize = 64;
/// Bytes of one receive buffer: a deep pipeline in one call, and still in the L2 cache when it is parsed.
const BUFFER_BYTES: usize = 16 * 1024;
/// Connections accepted in one turn, so that a storm of them does not starve the others.
const ACCEPTS_PER_TURN: usize = 64;
/// How long no connection is accepted after the process ran out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// Token of the wake-up eventfd.
const TOKEN_WAKE: u64 = u64::MAX;
/// Token of the first listener; those of the others follow, below [`TOKEN_WAKE`].
const TOKEN_LISTENER: u64 = u64::MAX - 64;

// Every configured listener has a token, and the one that carries datagrams.
const _: () = assert!((LISTENERS_MAX as u64) + 1 < TOKEN_WAKE - TOKEN_LISTENER);

/// The network of one shard over epoll.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Arc<Waker>,
    listeners: Vec<EpollListener>,
    admission: Arc<Admission>,
    conns: Vec<EpollSlot>,
    /// Slots without a connection.
    free: Vec<u32>,
    /// Readable connections that have not been read to the end, oldest first.
    readable: VecDeque<ConnId>,
    ready: Vec<epoll::Event>,
    buffers: Box<[u8]>,
    buffers_free: Vec<u16>,
    arena: Vec<u8>,
    /// Connections whose outbox was given something in this turn.
    dirty: Vec<ConnId>,
    /// Found outside of `turn`; the next turn reports it.
    deferred: Vec<Event>,
    accept_rest_until: Option<Instant>,
    accept_failures: u64,
}

#[derive(Debug)]
struct EpollListener {
    socket: OwnedFd,
    ready: bool,
}

/// A slot of the table of connections; it keeps its generation while it is empty.
#[derive(Debug)]
struct EpollSlot {
    generation: u32,
    conn: Option<EpollConn>,
}

#[derive(Debug)]
struct EpollConn {
    socket: OwnedFd,
    outbox: Option<Box<Outbox>>,
    /// The kernel may have bytes, or the end of the stream.
    readable: bool,
    /// On the driver's list of readable connections.
    listed: bool,
    /// The peer has shut down its side: it is read to the end, for no further edge reports that.
    ended: bool,
    paused: bool,
    /// It has been read to its end.
    finished: bool,
    closing: bool,
    dirty: bool,
    /// Accepted from a client, and counted as such; false for a connection to a server.
    client: bool,
    /// Begun by [`Driver::connect`] and not established yet.
    connecting: bool,
}

impl Epoll {
    /// A driver that accepts on the sockets of `setup`.
    ///
    /// # Errors
    /// When the process is out of descriptors or memory.
    pub fn new(setup: DriverSetup) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let signal = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &signal, epoll::EventData::new_u64(TOKEN_WAKE), edge)?;
        let mut listeners = Vec::new();
        for (number, socket) in setup.listeners.into_iter().enumerate() {
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(TOKEN_LISTENER + number as u64), edge)?;
            listeners.push(EpollListener { socket, ready: false });
        }
        assert!(TOKEN_LISTENER + (listeners.len() as u64) < TOKEN_WAKE);
        Ok(Self {
            epoll,
            waker: Arc::new(Waker { signal, ring: None }),
            listeners,
            admission: setup.admission,
            conns: Vec::new(),
            free: Vec::new(),
            readable: VecDeque::new(),
            ready: Vec::with_capacity(EVENTS_MAX),
            buffers: vec![0; BUFFERS * BUFFER_BYTES].into_boxed_slice(),
            buffers_free: (0..BUFFERS as u16).rev().collect(),
            arena: Vec::new(),
            dirty: Vec::new(),
            deferred: Vec::new(),
            accept_rest_until: None,
            accept_failures: 0,
        })
    }

    fn get(&mut self, conn: ConnId) -> Option<&mut EpollConn> {
        let slot = &mut self.conns[conn.index as usize];
        if slot.generation != conn.generation {
            return None;
        }
        slot.conn.as_mut()
    }

    fn wait(&mut self, wait: Wait) -> io::Result<()> {
        let accept_pending = self.listeners.iter().any(|listener| listener.ready);
        let idle = self.readable.is_empty() && self.deferred.is_empty();
        let timeout = match wait {
            Wait::AtMost(limit) if idle => match self.accept_rest_until {
                _ if !accept_pending => limit,
                Some(until) => limit.min(until.saturating_duration_since(Instant::now())),
                None => Duration::ZERO,
            },
            _ => Duration::ZERO,
        };
        let timeout = rustix::time::Timespec::try_from(timeout).expect("a wait of seconds");
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self, number: usize, events: &mut Vec<Event>) {
        for _ in 0..ACCEPTS_PER_TURN {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(&self.listeners[number].socket, flags) {
                Ok(socket) => {
                    if let Some(conn) = self.admit(socket) {
                        events.push(Event::Accepted { conn, listener: number as u16 });
                    }
                }
                Err(Errno::AGAIN) => {
                    self.listeners[number].ready = false;
                    return;
                }
                // The client gave up while it was queued.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PERM | Errno::PROTO) => {}
                Err(_) => {
                    self.accept_failures += 1;
                    self.accept_rest_until = Some(Instant::now() + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) -> Option<ConnId> {
        if !self.admission.admit() {
            let _ = rustix::net::send(&socket, listen::TOO_MANY, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            return None;
        }
        let conn = self.add_conn(socket, true);
        if conn.is_none() {
            self.accept_failures += 1;
            self.admission.leave();
        }
        conn
    }

    /// Gives the socket a slot, and registers it with epoll; `None` when the kernel has no memory for that.
    fn add_conn(&mut self, socket: OwnedFd, client: bool) -> Option<ConnId> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(EpollSlot { generation: 0, conn: None });
            self.conns.len() as u32 - 1
        });
        let slot = &mut self.conns[index as usize];
        debug_assert!(slot.conn.is_none(), "a slot that is in use was free");
        slot.generation = slot.generation.wrapping_add(1);
        let conn = ConnId { index, generation: slot.generation };
        let interest =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let token = u64::from(conn.generation) << 32 | u64::from(conn.index);
        let token = epoll::EventData::new_u64(token & !(1 << 63));
        if epoll::add(&self.epoll, &socket, token, interest).is_err() {
            self.free.push(index);
            return None;
        }
        slot.conn = Some(EpollConn {
            socket,
            outbox: None,
            readable: false,
            listed: false,
            ended: false,
            paused: false,
            finished: false,
            closing: false,
            dirty: false,
            client,
            connecting: !client,
        });
        Some(conn)
    }

    /// A connection to a server is writable or broken: reports which of the two. True when it is established.
    fn connected(&mut self, conn: ConnId, events: &mut Vec<Event>) -> bool {
        let Some(open) = self.get(conn) else { return false };
        open.connecting = false;
        if matches!(rustix::net::sockopt::socket_error(&open.socket), Ok(Ok(()))) {
            events.push(Event::Connected { conn });
            return true;
        }
        self.forget(conn, |event| events.push(event));
        events.push(Event::Closed { conn });
        false
    }

    /// Removes the connection. Its socket closes with it, which takes it off the epoll set.
    fn forget(&mut self, conn: ConnId, mut released: impl FnMut(Event)) {
        let slot = &mut self.conns[conn.index as usize];
        debug_assert_eq!(slot.generation, conn.generation);
        if let Some(mut gone) = slot.conn.take() {
            if let Some(outbox) = gone.outbox.as_mut() {
                outbox.clear(|pinned| released(Event::Released { pinned }));
            }
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(conn.index);
            if gone.client {
                self.admission.leave();
            }
        }
    }

    /// Receives once, if the connection may be read.
    fn read(&mut self, conn: ConnId, events: &mut Vec<Event>) {
        let Some(id) = self.buffers_free.pop() else { return };
        let start = usize::from(id) * BUFFER_BYTES;
        let slot = &mut self.conns[conn.index as usize];
        let Some(open) = slot.conn.as_mut().filter(|_| slot.generation == conn.generation) else {
            self.buffers_free.push(id);
            return;
        };
        open.listed = false;
        if open.paused || !open.readable {
            self.buffers_free.push(id);
            return; // `resume` lists it again, or it has been read to the end since
        }
        let buffer = &mut self.buffers[start..start + BUFFER_BYTES];
        let outcome = rustix::net::recv(&open.socket, buffer, RecvFlags::DONTWAIT);
        match outcome {
            Ok((_, len)) if len > 0 => {
                // A stream socket that filled less than was offered is empty, and its next bytes are a new
                // edge.
                open.readable = len == BUFFER_BYTES || open.ended;
                if open.readable {
                    open.listed = true;
                    self.readable.push_back(conn);
                }
                events.push(Event::Received { conn, buffer: Buffer { id, len: len as u32 } });
            }
            Err(Errno::AGAIN) => {
                open.readable = false;
                self.buffers_free.push(id);
            }
            Err(Errno::INTR) => {
                open.listed = true;
                self.readable.push_back(conn);
                self.buffers_free.push(id);
            }
            Ok(_) => {
                self.buffers_free.push(id);
                (open.finished, open.paused) = (true, true); // nothing is left to read
                if !open.closing {
                    events.push(Event::Ended { conn });
                }
            }
            Err(_) => {
                self.buffers_free.push(id);
                let closing = open.closing;
                self.forget(conn, |event| events.push(event));
                if !closing {
                    events.push(Event::Closed { conn });
                }
            }
        }
    }

    /// Sends from the outbox until the socket takes no more.
    fn flush(&mut self, conn: ConnId) {
        let deferred = &mut self.deferred;
        let slot = &mut self.conns[conn.index as usize];
        let Some(open) = slot.conn.as_mut().filter(|_| slot.generation == conn.generation) else { return };
        open.dirty = false;
        let Some(outbox) = open.outbox.as_mut() else { return };
        let was_high = outbox.len() > outbox::LOW_WATER_BYTES;
        let mut failed = false;
        while !outbox.is_empty() {
            let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(outbox::GATHER_MAX);
            outbox.gather(&mut pieces);
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let sent = rustix::net::sendmsg(
                &open.socket,
                &pieces,
                &mut rustix::net::SendAncillaryBuffer::default(),
                flags,
            );
            match sent {
                Ok(count) => outbox.advance(count, |pinned| deferred.push(Event::Released { pinned })),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        if failed {
            outbox.clear(|pinned| deferred.push(Event::Released { pinned }));
        }
        if was_high && outbox.len() <= outbox::LOW_WATER_BYTES && !failed {
            deferred.push(Event::Drained { conn });
        }
        if outbox.is_empty() {
            open.outbox = None;
        }
        let finished = open.closing && open.outbox.is_none();
        if failed || finished {
            let closing = open.closing;
            let mut found = std::mem::take(&mut self.deferred);
            self.forget(conn, |event| found.push(event));
            if !closing {
                found.push(Event::Closed { conn });
            }
            self.deferred = found;
        }
    }

    fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(open) = self.get(conn)
            && !open.dirty
        {
            open.dirty = true;
            self.dirty.push(conn);
        }
    }

    fn send_bytes(&mut self, conn: ConnId, bytes: &[u8], queued: bool) {
        let Some(open) = self.get(conn) else { return };
        if open.closing {
            return;
        }
        let mut sent = 0;
        if open.outbox.is_none() && !queued {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&open.socket, bytes, flags) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    let mut found = std::mem::take(&mut self.deferred);
                    self.forget(conn, |event| found.push(event));
                    found.push(Event::Closed { conn });
                    self.deferred = found;
                    return;
                }
            }
        }
        if sent < bytes.len() {
            open.outbox.get_or_insert_default().push_bytes(&bytes[sent..]);
            if queued {
                self.mark_dirty(conn);
            }
        }
    }
}

impl Driver for Epoll {
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        self.wait(wait)?;
        events.append(&mut self.deferred);
        for at in 0..self.ready.len() {
            let event = self.ready[at];
            let (token, flags) = (event.data.u64(), event.flags);
            if token == TOKEN_WAKE {
                let _ = rustix::io::read(&self.waker.signal, &mut [0u8; 8]);
            } else if token >= TOKEN_LISTENER {
                let number = (token - TOKEN_LISTENER) as usize;
                if let Some(listener) = self.listeners.get_mut(number) {
                    listener.ready = true;
                }
            } else {
                let index = (token & 0xffff_ffff) as u32;
                let generation = self.conns[index as usize].generation;
                if (token >> 32) as u32 != generation & 0x7fff_ffff {
                    continue; // an earlier connection had this slot
                }
                let conn = ConnId { index, generation };
                let Some(open) = self.get(conn) else { continue };
                let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                let readable = epoll::EventFlags::IN | ended;
                if open.connecting && !self.connected(conn, events) {
                    continue;
                }
                let Some(open) = self.get(conn) else { continue };
                if flags.intersects(readable) {
                    open.readable = true;
                    open.ended |= flags.intersects(ended);
                    if !open.paused && !open.listed {
                        open.listed = true;
                        self.readable.push_back(conn);
                    }
                }
                if flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
                {
                    self.flush(conn);
                }
            }
        }
        events.append(&mut self.deferred);
        if self.accept_rest_until.is_none_or(|until| Instant::now() >= until) {
            self.accept_rest_until = None;
            for number in 0..self.listeners.len() {
                if self.listeners[number].ready {
                    self.accept(number, events);
                }
            }
        }
        for _ in 0..self.readable.len().min(self.buffers_free.len()) {
            let Some(conn) = self.readable.pop_front() else { break };
            self.read(conn, events);
        }
        Ok(())
    }

    fn received(&self, buffer: &Buffer) -> &[u8] {
        debug_assert!(!self.buffers_free.contains(&buffer.id), "buffer {} is free", buffer.id);
        let start = usize::from(buffer.id) * BUFFER_BYTES;
        &self.buffers[start..start + buffer.len as usize]
    }

    fn recycle(&mut self, buffer: Buffer) {
        debug_assert!(!self.buffers_free.contains(&buffer.id), "buffer {} was recycled twice", buffer.id);
        self.buffers_free.push(buffer.id);
    }

    fn receive_into(&mut self, conn: ConnId, first: &mut [u8], rest: &mut [u8]) -> usize {
        let Some(open) = self.get(conn) else { return 0 };
        if open.paused || open.closing || open.connecting || !open.readable {
            return 0;
        }
        let offered = first.len() + rest.len();
        match driver::receive_into(open.socket.as_fd(), first, rest) {
            Ok(len) if len > 0 => {
                open.readable = len == offered || open.ended; // as in `read`
                if open.readable && !open.listed {
                    open.listed = true;
                    self.readable.push_back(conn);
                }
                len
            }
            Err(Errno::AGAIN) => {
                open.readable = false;
                0
            }
            // The end: `read` finds it again, for the connection is still readable.
            Ok(_) | Err(Errno::INTR) => {
                if !open.listed {
                    open.listed = true;
                    self.readable.push_back(conn);
                }
                0
            }
            Err(_) => {
                let mut found = std::mem::take(&mut self.deferred);
                self.forget(conn, |event| found.push(event));
                found.push(Event::Closed { conn });
                self.deferred = found;
                0
            }
        }
    }

    fn take_arena(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.arena)
    }

    fn send(&mut self, mut arena: Vec<u8>, sends: &mut Vec<Send>) {
        for send in sends.drain(..) {
            match send {
                Send::Bytes { conn, start, end, queued } => {
                    if start < end {
                        self.send_bytes(conn, &arena[start..end], queued);
                    }
                }
                Send::Pinned { conn, pinned } => match self.get(conn) {
                    Some(open) if !open.closing => {
                        open.outbox.get_or_insert_default().push_pinned(pinned);
                        self.mark_dirty(conn);
                    }
                    _ => self.deferred.push(Event::Released { pinned }),
                },
            }
        }
        for conn in std::mem::take(&mut self.dirty) {
            self.flush(conn);
        }
        arena.clear();
        driver::shrink_arena(&mut arena);
        self.arena = arena;
    }

    fn backlog(&self, conn: ConnId) -> usize {
        let slot = &self.conns[conn.index as usize];
        match &slot.conn {
            Some(open) if slot.generation == conn.generation => {
                open.outbox.as_ref().map_or(0, |outbox| outbox.len())
            }
            _ => 0,
        }
    }

    fn has_unreported(&mut self, conn: ConnId) -> bool {
        self.get(conn).is_some_and(|open| driver::is_readable(open.socket.as_fd()))
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(open) = self.get(conn) {
            open.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(open) = self.get(conn)
            && open.paused
            && !open.finished
        {
            open.paused = false;
            if open.readable && !open.listed {
                open.listed = true;
                self.readable.push_back(conn);
            }
        }
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let Some(open) = self.get(conn) else { return };
        if how == Close::AfterSend && open.outbox.is_some() {
            open.closing = true;
            open.paused = true;
            return;
        }
        let mut found = std::mem::take(&mut self.deferred);
        self.forget(conn, |event| found.push(event));
        self.deferred = found;
    }

    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId> {
        let socket = driver::socket_for(address, true)?;
        match socket.connect(address) {
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // Registered after the attempt has begun: its result is the first edge.
        self.add_conn(socket.into(), false).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        let slot = &self.conns[conn.index as usize];
        let open = slot.conn.as_ref().filter(|_| slot.generation == conn.generation)?;
        driver::peer_of(open.socket.as_fd())
    }

    fn stop_accepting(&mut self) {
        self.listeners.clear();
    }

    fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    fn wake(&mut self, other: &Waker) {
        other.wake();
    }

    fn accept_failures(&self) -> u64 {
        self.accept_failures
    }

    fn has_unsent(&self) -> bool {
        self.conns.iter().flat_map(|slot| &slot.conn).any(|conn| conn.closing)
    }
}
