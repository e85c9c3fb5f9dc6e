//! The driver over io_uring: everything queued since the last turn goes to the kernel in one enter, which also waits.
//!
//! Accepting and receiving are multishot, receive buffers are picked by the kernel, and replies go out straight from
//! the arena: a send either takes everything at once and says nothing (`MSG_DONTWAIT | MSG_WAITALL`, success
//! skipped), or reports what it took, and the rest moves to the connection's outbox. Because such sends are carried
//! out inside the enter, the arena is free again when it returns.
//!
//! Every operation carries kind, place and generation of its connection; the place is given out anew only when all
//! its operations have completed, so that a late completion never touches a stranger.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SendFlags;

use crate::buffer_ring::BufferRing;
use crate::driver::{self, Buffer, Close, ConnId, Driver, DriverSetup, Event, Pinned, Send, Wait, Waker};
use crate::granted::{self, Features};
use crate::listen::{self, Admission};
use crate::outbox::{self, Outbox};

/// A driver over io_uring, or over one that is.
pub trait Ring: Driver {
    /// The one at the bottom.
    fn ring(&mut self) -> &mut Uring;

    /// Whether a turn has something to hand over, or would find something without waiting. No system call.
    fn pending(&mut self) -> bool;
}

/// Receive buffers a shard, and bytes of each; more showed no gain.
const BUFFERS: (u16, u32) = (256, 4096);
/// The same where values come in: a value of 8 KiB fits into one.
const VALUE_BUFFERS: (u16, u32) = (128, 16 * 1024);
/// Buffer group of the receive buffers.
const GROUP: u16 = 0;
/// How long accepting rests after the process ran out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);
/// How soon a reset is noticed that came behind bytes nobody answered: see `look_for_resets`.
const RESET_LOOK: Duration = Duration::from_secs(1);
/// Completions taken from the ring at a time.
const COMPLETIONS: usize = 1024;

/// What an operation was, in the top byte of its user data. Bits 32..56 hold the low bits of the generation, 0..32
/// the place.
mod kind {
    pub const IGNORED: u64 = 0;
    pub const ACCEPT: u64 = 1 << 56;
    pub const RECEIVE: u64 = 2 << 56;
    /// A send from the arena; the low bits number it in `Uring::arena_sends`.
    pub const ARENA_SEND: u64 = 3 << 56;
    pub const OUTBOX_SEND: u64 = 4 << 56;
    pub const WAKE_POLL: u64 = 5 << 56;
    /// A message from another shard's ring.
    pub const MESSAGE: u64 = 6 << 56;
    pub const CONNECT: u64 = 7 << 56;
    pub const MASK: u64 = 0xff << 56;
}
const GENERATION_MASK: u32 = 0xff_ffff;

/// One shard's network over io_uring.
pub struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    waker: Arc<Waker>,
    /// Our end of the wake-up socket pair.
    woken: OwnedFd,
    listeners: Vec<Listener>,
    admission: Arc<Admission>,
    conns: Vec<Place>,
    free: Vec<u32>,
    arena_in_flight: Vec<u8>,
    arena_sends: Vec<ArenaSend>,
    arena_spare: Vec<u8>,
    completions: Vec<cqueue::Entry>,
    /// Connections whose outbox has something to send and no send under way.
    dirty: Vec<ConnId>,
    /// Connections being closed from this side.
    closings: Vec<ConnId>,
    /// Connections whose receive ended for want of buffers.
    starved: Vec<ConnId>,
    /// Connections that sent something since the last look for resets.
    heard: Vec<ConnId>,
    looked: Instant,
    deferred: Vec<Event>,
    turns: u64,
    accept_rest_until: Option<Instant>,
    accept_failures: u64,
    features: Features,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    armed: bool,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    conn: Option<Conn>,
}

#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    outbox: Option<Box<Behind>>,
    receiving: bool,
    sending: bool,
    paused: bool,
    dirty: bool,
    /// The shard has let go of it: nothing is reported any more.
    closing: Option<Close>,
    /// The peer will send nothing more.
    ended: bool,
    /// A cancellation of the receive is under way.
    cancelling: bool,
    /// Among [`Uring::heard`].
    heard: bool,
    /// Nothing has been sent to it since it was heard.
    unanswered: bool,
    /// Accepted from a client, and counted as such; false for a connection to a server.
    client: bool,
    /// The address of a connection that was begun and is not there yet: the kernel reads it until then.
    connecting: Option<Box<socket2::SockAddr>>,
}

/// What a connection needs while its socket is behind. The kernel may read all of it while a send is under way.
struct Behind {
    outbox: Outbox,
    /// The turn it came in.
    since: u64,
    pieces: [libc::iovec; outbox::GATHER_MAX],
    header: libc::msghdr,
}

#[derive(Clone, Copy, Debug)]
struct ArenaSend {
    conn: ConnId,
    start: usize,
    end: usize,
}

impl Uring {
    /// A driver that accepts on the sockets of `setup`. Call it on the thread that will use it.
    ///
    /// # Errors
    /// When the kernel forbids io_uring, lacks a feature this needs, or memory may not be locked.
    pub fn new(setup: DriverSetup) -> io::Result<Self> {
        let (ring, features) = granted::build_ring()?;
        let (count, bytes) = if setup.receives_values { VALUE_BUFFERS } else { BUFFERS };
        let buffers = BufferRing::register(&ring, count, bytes, GROUP)?;
        let (woken, signal) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
            None,
        )?;
        let waker = Arc::new(Waker { signal, ring: Some(ring.as_raw_fd()) });
        let mut listeners = Vec::new();
        for socket in setup.listeners {
            rustix::io::ioctl_fionbio(&socket, false)?; // the ring waits by itself
            listeners.push(Listener { socket, armed: false });
        }
        let mut driver = Self {
            ring,
            buffers,
            waker,
            woken,
            listeners,
            admission: setup.admission,
            conns: Vec::new(),
            free: Vec::new(),
            arena_in_flight: Vec::new(),
            arena_sends: Vec::new(),
            arena_spare: Vec::new(),
            completions: Vec::with_capacity(COMPLETIONS),
            dirty: Vec::new(),
            closings: Vec::new(),
            starved: Vec::new(),
            heard: Vec::new(),
            looked: Instant::now(),
            deferred: Vec::new(),
            turns: 0,
            accept_rest_until: None,
            accept_failures: 0,
            features,
        };
        driver.arm_wake();
        driver.arm_accepts();
        Ok(driver)
    }

    /// What the kernel gave us.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Have completions signal `eventfd`, but only between [`Uring::signal_completions`]`(true)` and `(false)`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd)?;
        self.ring.completion().disable_eventfd();
        Ok(())
    }

    /// Whether completions signal the registered eventfd.
    pub fn signal_completions(&mut self, on: bool) {
        let queue = self.ring.completion();
        if on {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: whatever the entry points at (arena, outbox, sockets, buffer ring) is owned by this driver and
            // kept until its completion: see `arena_in_flight`, `Behind` and `release`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand over what is there. The kernel takes all of it (`SUBMIT_ALL`), so this ends.
            let _ = self.ring.submit();
        }
    }

    fn arm_wake(&mut self) {
        let poll = opcode::PollAdd::new(types::Fd(self.woken.as_raw_fd()), libc::POLLIN as u32).multi(true);
        self.push(&poll.build().user_data(kind::WAKE_POLL));
    }

    fn arm_accepts(&mut self) {
        for number in 0..self.listeners.len() {
            if !self.listeners[number].armed {
                self.listeners[number].armed = true;
                let accept = opcode::AcceptMulti::new(types::Fd(self.listeners[number].socket.as_raw_fd()))
                    .flags(libc::SOCK_CLOEXEC);
                self.push(&accept.build().user_data(kind::ACCEPT | number as u64));
            }
        }
    }

    fn arm_receive(&mut self, id: ConnId) {
        let Some(conn) = self.place(id) else { return };
        if conn.receiving || conn.paused || conn.ended || conn.connecting.is_some() || conn.closing.is_some()
        {
            return;
        }
        conn.receiving = true;
        let socket = types::Fd(conn.socket.as_raw_fd());
        let receive = opcode::RecvMulti::new(socket, self.buffers.group()).build();
        self.push(&receive.user_data(tag(kind::RECEIVE, id)));
    }

    /// The connection, closing or not.
    fn place(&mut self, id: ConnId) -> Option<&mut Conn> {
        let place = self.conns.get_mut(id.index as usize)?;
        if place.generation != id.generation {
            return None;
        }
        place.conn.as_mut()
    }

    /// The connection, as long as the shard holds it.
    fn open(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.place(id).filter(|conn| conn.closing.is_none())
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let outcome = match wait {
            Wait::No => {
                let queued = {
                    let mut queue = self.ring.submission();
                    queue.sync();
                    queue.len()
                };
                // SAFETY: no signal mask is passed.
                unsafe {
                    self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, ENTER_GETEVENTS, None)
                }
            }
            Wait::AtMost(limit) => {
                let limit = types::Timespec::from(limit);
                let args = types::SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match outcome {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                _ => return Err(error),
            },
        }
        // What is still queued (after EBUSY or EINTR) must be in the kernel's hands before the arena is used again.
        loop {
            let empty = {
                let mut queue = self.ring.submission();
                queue.sync();
                queue.is_empty()
            };
            if empty {
                return Ok(());
            }
            self.collect();
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Move completions out of the ring, those the kernel held back for want of room too.
    fn collect(&mut self) {
        loop {
            self.completions.extend(self.ring.completion());
            if !self.ring.submission().cq_overflow() {
                return;
            }
            // SAFETY: no signal mask is passed.
            let _ = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event>) {
        let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        match data & kind::MASK {
            kind::RECEIVE => self.received_bytes(data, result, flags, events),
            kind::ARENA_SEND => self.arena_send_cut((data & !kind::MASK) as usize, result, events),
            kind::OUTBOX_SEND => self.outbox_sent(data, result, events),
            kind::CONNECT => self.connected(data, result, events),
            kind::ACCEPT => self.accepted((data & !kind::MASK) as usize, result, flags, events),
            kind::WAKE_POLL => {
                let mut sink = [0u8; 256];
                while rustix::io::read(&self.woken, &mut sink).is_ok_and(|count| count == sink.len()) {}
                if !cqueue::more(flags) {
                    self.arm_wake();
                }
            }
            _ => {}
        }
    }

    fn accepted(&mut self, number: usize, result: i32, flags: u32, events: &mut Vec<Event>) {
        if !cqueue::more(flags)
            && let Some(listener) = self.listeners.get_mut(number)
        {
            listener.armed = false;
        }
        if result >= 0 {
            // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            if self.listeners.is_empty() {
                return; // draining: the client is turned away by the close
            }
            if !self.admission.admit() {
                let _ =
                    rustix::net::send(&socket, listen::TOO_MANY, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                return;
            }
            let conn = self.open_place(socket);
            events.push(Event::Accepted { conn, listener: number as u16 });
            self.arm_receive(conn);
        } else if !matches!(-result, libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::ECANCELED) {
            self.accept_failures += 1;
            self.accept_rest_until = Some(Instant::now() + ACCEPT_RETRY);
        }
    }

    fn open_place(&mut self, socket: OwnedFd) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(Place { generation: 0, conn: None });
            self.conns.len() as u32 - 1
        });
        let place = &mut self.conns[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.conn = Some(Conn {
            socket,
            outbox: None,
            receiving: false,
            sending: false,
            paused: false,
            dirty: false,
            closing: None,
            ended: false,
            cancelling: false,
            heard: false,
            unanswered: false,
            client: true,
            connecting: None,
        });
        ConnId { index, generation: place.generation }
    }

    /// The connection a completion belongs to. Its place cannot have been given out anew: see `release`.
    fn conn_of(&self, data: u64) -> ConnId {
        let index = data as u32;
        let generation = self.conns[index as usize].generation;
        assert_eq!((data >> 32) as u32 & GENERATION_MASK, generation & GENERATION_MASK, "a stray completion");
        ConnId { index, generation }
    }

    fn received_bytes(&mut self, data: u64, result: i32, flags: u32, events: &mut Vec<Event>) {
        let id = self.conn_of(data);
        let conn = self.place(id).expect("kept until its operations are done");
        let (closing, ended) = (conn.closing.is_some(), !cqueue::more(flags));
        if ended {
            conn.receiving = false;
            conn.cancelling = false;
        }
        if let Some(buffer) = cqueue::buffer_select(flags) {
            if result > 0 && !closing {
                conn.unanswered = true;
                if !std::mem::replace(&mut conn.heard, true) {
                    self.heard.push(id);
                }
                events.push(Event::Received { conn: id, buffer: Buffer { id: buffer, len: result as u32 } });
            } else {
                self.buffers.put(buffer);
                self.buffers.publish();
            }
        }
        if !ended {
            return;
        }
        if closing {
            self.release(id);
        } else if result == -libc::ENOBUFS {
            self.starved.push(id);
        } else if result > 0 || matches!(-result, libc::EINTR | libc::ECANCELED | libc::EAGAIN) {
            self.arm_receive(id);
        } else if result == 0 {
            conn_ended(self.place(id));
            events.push(Event::Ended { conn: id });
        } else {
            self.fail(id, events);
        }
    }

    /// A send from the arena did not take everything.
    fn arena_send_cut(&mut self, number: usize, result: i32, events: &mut Vec<Event>) {
        let ArenaSend { conn: id, start, end } = self.arena_sends[number];
        let taken = match result {
            0.. => result as usize,
            _ if matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => 0,
            _ => {
                if self.open(id).is_some() {
                    self.fail(id, events);
                }
                return;
            }
        };
        let arena = std::mem::take(&mut self.arena_in_flight);
        let rest = &arena[start + taken..end];
        let turn_before = self.turns - 1;
        if let Some(conn) = self.place(id) {
            debug_assert!(conn.outbox.is_none(), "nothing goes around a waiting outbox");
            conn.outbox.get_or_insert_with(|| Behind::boxed(turn_before)).outbox.push_bytes(rest);
            self.mark_dirty(id);
        }
        self.arena_in_flight = arena;
    }

    fn outbox_sent(&mut self, data: u64, result: i32, events: &mut Vec<Event>) {
        let id = self.conn_of(data);
        let conn = self.place(id).expect("kept until its operations are done");
        conn.sending = false;
        let behind = conn.outbox.as_mut().expect("kept while a send is under way");
        if result < 0 && !matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) {
            if conn.closing.is_some() {
                self.release(id);
            } else {
                self.fail(id, events);
            }
            return;
        }
        let was_high = behind.outbox.len() > outbox::LOW_WATER_BYTES;
        behind.outbox.advance(result.max(0) as usize, |pinned| events.push(Event::Released { pinned }));
        let left = behind.outbox.len();
        if left == 0 {
            conn.outbox = None;
        }
        if let Some(how) = conn.closing {
            if left == 0 || how == Close::Now {
                self.release(id);
            } else {
                self.mark_dirty(id);
            }
            return;
        }
        if left > 0 {
            self.mark_dirty(id);
        }
        if was_high && left <= outbox::LOW_WATER_BYTES {
            events.push(Event::Drained { conn: id });
        }
    }

    /// The outcome of a connection that was begun.
    fn connected(&mut self, data: u64, result: i32, events: &mut Vec<Event>) {
        let id = self.conn_of(data);
        let conn = self.place(id).expect("kept until its operations are done");
        conn.connecting = None;
        if conn.closing.is_some() {
            self.release(id);
        } else if result < 0 {
            self.fail(id, events);
        } else {
            events.push(Event::Connected { conn: id });
            self.arm_receive(id);
        }
    }

    /// The connection broke: tell the shard, which then knows it no more.
    fn fail(&mut self, id: ConnId, events: &mut Vec<Event>) {
        if let Some(conn) = self.open(id) {
            conn.closing = Some(Close::Now);
            events.push(Event::Closed { conn: id });
            self.release(id);
        }
    }

    /// Let go of a connection that is being closed, as far as its operations under way allow.
    fn release(&mut self, id: ConnId) {
        let Some(conn) = self.place(id) else { return };
        debug_assert!(conn.closing.is_some());
        if conn.receiving || conn.sending {
            // Ends both; their completions bring us back here.
            let _ = rustix::net::shutdown(&conn.socket, rustix::net::Shutdown::Both);
            return;
        }
        if conn.connecting.is_some() {
            // As does this one's.
            let cancel = opcode::AsyncCancel::new(tag(kind::CONNECT, id)).build();
            return self.push(&cancel.user_data(kind::IGNORED));
        }
        let client = conn.client;
        let place = &mut self.conns[id.index as usize];
        if let Some(mut behind) = place.conn.take().and_then(|gone| gone.outbox) {
            behind.outbox.clear(|pinned| self.deferred.push(Event::Released { pinned }));
        }
        self.free.push(id.index);
        if client {
            self.admission.leave();
        }
    }

    /// A multishot receive that has read the last bytes before a reset waits for a wake-up that was before them (seen on
    /// Linux 6.18). A reply finds the connection broken; one that is due none would stay for ever. So, once in a while,
    /// connections that were heard and not answered are asked whether they still stand.
    fn look_for_resets(&mut self) {
        if self.looked.elapsed() < RESET_LOOK {
            return;
        }
        self.looked = Instant::now();
        for id in std::mem::take(&mut self.heard) {
            let Some(conn) = self.place(id) else { continue };
            conn.heard = false;
            if !conn.unanswered || !conn.receiving || conn.cancelling || conn.closing.is_some() {
                continue;
            }
            let mut asked = [PollFd::new(&conn.socket, PollFlags::empty())];
            let broken = rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok()
                && asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
            if broken {
                // Its completion arms another one, which is told.
                conn.cancelling = true;
                let cancel = opcode::AsyncCancel::new(tag(kind::RECEIVE, id)).build();
                self.push(&cancel.user_data(kind::IGNORED));
            }
        }
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.place(id)
            && !conn.dirty
            && !conn.sending
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Queue a send of what the outbox holds.
    fn send_outbox(&mut self, id: ConnId) {
        let Some(conn) = self.place(id) else { return };
        conn.dirty = false;
        if conn.sending {
            return;
        }
        let Some(behind) = conn.outbox.as_mut() else { return };
        conn.sending = true;
        let socket = types::Fd(conn.socket.as_raw_fd());
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        let send = opcode::SendMsg::new(socket, behind.gather()).flags(flags).build();
        self.push(&send.user_data(tag(kind::OUTBOX_SEND, id)));
    }

    /// Connections closed from this side, once nothing of them is queued any more.
    fn finish_closings(&mut self) {
        for id in std::mem::take(&mut self.closings) {
            let Some(conn) = self.place(id) else { continue };
            if conn.closing == Some(Close::AfterSend) && conn.outbox.is_some() {
                continue; // `outbox_sent` ends it
            }
            self.release(id);
        }
    }
}

/// `IORING_ENTER_GETEVENTS`
const ENTER_GETEVENTS: u32 = 1;

fn tag(kind: u64, conn: ConnId) -> u64 {
    kind | u64::from(conn.generation & GENERATION_MASK) << 32 | u64::from(conn.index)
}

impl Behind {
    fn boxed(since: u64) -> Box<Self> {
        // SAFETY: both are plain C structures for which all zeroes means empty.
        let (pieces, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Self { outbox: Outbox::default(), since, pieces, header })
    }

    /// A message header over the next bytes to send; valid until the send completes, for all of it is boxed.
    fn gather(&mut self) -> *const libc::msghdr {
        let mut gathered: Vec<IoSlice<'_>> = Vec::with_capacity(outbox::GATHER_MAX);
        self.outbox.gather(&mut gathered);
        let count = gathered.len();
        for (slot, piece) in self.pieces.iter_mut().zip(&gathered) {
            *slot = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count;
        &raw const self.header
    }
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behind").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("features", &self.features).finish_non_exhaustive()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel lets go of sockets and memory only when nothing is under way, and closing the ring does not wait.
        for conn in self.conns.iter().filter_map(|place| place.conn.as_ref()) {
            let _ = rustix::net::shutdown(&conn.socket, rustix::net::Shutdown::Both);
            if conn.client {
                self.admission.leave();
            }
        }
        let _ = self.ring.submit();
        let _ = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        self.buffers.unregister(&self.ring.submitter());
    }
}

impl Driver for Uring {
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        self.turns += 1;
        for conn in std::mem::take(&mut self.starved) {
            self.arm_receive(conn);
        }
        let mut wait = wait;
        match self.accept_rest_until {
            Some(until) if Instant::now() < until => {
                if let Wait::AtMost(limit) = wait {
                    wait = Wait::AtMost(limit.min(ACCEPT_RETRY));
                }
            }
            _ => {
                self.accept_rest_until = None;
                self.arm_accepts();
            }
        }
        if !self.heard.is_empty() && wait != Wait::No {
            self.look_for_resets();
        }
        events.append(&mut self.deferred);
        // A connection being closed is let go after the enter, which must not sleep on it.
        if !events.is_empty() || !self.closings.is_empty() {
            wait = Wait::No;
        }
        self.enter(wait)?;
        self.collect();
        let completions = std::mem::take(&mut self.completions);
        for entry in &completions {
            self.complete(entry, events);
        }
        self.completions = completions;
        self.completions.clear();
        self.arena_sends.clear();
        self.finish_closings();
        for conn in std::mem::take(&mut self.dirty) {
            self.send_outbox(conn);
        }
        Ok(())
    }

    fn received(&self, buffer: Buffer) -> &[u8] {
        self.buffers.bytes(buffer.id, buffer.len)
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.buffers.put(buffer.id);
    }

    /// Beside the multishot receive, which runs only inside our own enters (`DEFER_TASKRUN`): it cannot take bytes while
    /// we do, and what it took before lies in the completion queue, or has been worked on. It learns nothing of what is
    /// taken here: its next attempt finds the socket empty and waits on.
    fn receive_into(&mut self, conn: ConnId, first: &mut [u8], rest: &mut [u8]) -> usize {
        let held = !self.ring.completion().is_empty() || self.ring.submission().cq_overflow();
        if !self.features.deferred_taskrun || held {
            return 0;
        }
        let Some(open) = self.open(conn) else { return 0 };
        if open.paused || open.ended || open.connecting.is_some() {
            return 0;
        }
        match driver::receive_into(open.socket.as_fd(), first, rest) {
            Ok(len) => {
                open.unanswered |= len > 0;
                if len > 0 && !std::mem::replace(&mut open.heard, true) {
                    self.heard.push(conn);
                }
                len // at the end of the stream, the multishot receive finds it too
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            Err(_) => {
                let mut found = std::mem::take(&mut self.deferred);
                self.fail(conn, &mut found);
                found.append(&mut self.deferred);
                self.deferred = found;
                0
            }
        }
    }

    fn take_arena(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.arena_spare)
    }

    fn send(&mut self, arena: Vec<u8>, sends: &mut Vec<Send>) {
        self.buffers.publish();
        // The arena of the turn before was sent inside the last enter.
        debug_assert!(self.arena_sends.is_empty());
        let mut spare = std::mem::take(&mut self.arena_in_flight);
        spare.clear();
        driver::shrink_arena(&mut spare);
        self.arena_spare = spare;
        for send in sends.drain(..) {
            match send {
                Send::Bytes { conn, start, end, queued } => {
                    if start == end {
                        continue;
                    }
                    let turn = self.turns;
                    let Some(open) = self.open(conn) else { continue };
                    open.unanswered = false;
                    if queued || open.outbox.is_some() {
                        let behind = open.outbox.get_or_insert_with(|| Behind::boxed(turn));
                        behind.outbox.push_bytes(&arena[start..end]);
                        self.mark_dirty(conn);
                        continue;
                    }
                    let socket = types::Fd(open.socket.as_raw_fd());
                    let number = self.arena_sends.len() as u64;
                    self.arena_sends.push(ArenaSend { conn, start, end });
                    let bytes = &arena[start..end];
                    let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
                    let entry = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32)
                        .flags(flags)
                        .build()
                        .flags(squeue::Flags::SKIP_SUCCESS)
                        .user_data(kind::ARENA_SEND | number);
                    self.push(&entry);
                }
                Send::Pinned { conn, pinned } => self.send_pinned(conn, pinned),
            }
        }
        self.arena_in_flight = arena; // its bytes stay where they are
        for conn in std::mem::take(&mut self.dirty) {
            self.send_outbox(conn);
        }
    }

    fn backlog(&self, conn: ConnId) -> usize {
        let place = &self.conns[conn.index as usize];
        match &place.conn {
            Some(open) if place.generation == conn.generation => {
                open.outbox.as_ref().map_or(0, |behind| behind.outbox.len())
            }
            _ => 0,
        }
    }

    fn refused(&self, conn: ConnId) -> usize {
        let place = &self.conns[conn.index as usize];
        let open = place.conn.as_ref().filter(|_| place.generation == conn.generation);
        let behind = open.and_then(|open| open.outbox.as_ref()).filter(|behind| behind.since != self.turns);
        behind.map_or(0, |behind| behind.outbox.len())
    }

    fn pause(&mut self, conn: ConnId) {
        let Some(open) = self.open(conn) else { return };
        open.paused = true;
        if open.receiving && !open.cancelling {
            open.cancelling = true;
            let cancel = opcode::AsyncCancel::new(tag(kind::RECEIVE, conn)).build();
            self.push(&cancel.user_data(kind::IGNORED));
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(open) = self.open(conn) else { return };
        open.paused = false;
        self.arm_receive(conn); // when the cancellation is still under way, its completion does it
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let Some(open) = self.open(conn) else { return };
        open.closing = Some(how);
        // Something may be queued for it: it is let go after the next enter.
        self.closings.push(conn);
    }

    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId> {
        let socket = driver::socket_for(address, false)?;
        let (fd, address) = (types::Fd(socket.as_raw_fd()), Box::new(address.clone()));
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        let id = self.open_place(socket.into());
        let conn = self.place(id).expect("just opened");
        (conn.client, conn.connecting) = (false, Some(address));
        self.push(&entry.user_data(tag(kind::CONNECT, id)));
        Ok(id)
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        let place = &self.conns[conn.index as usize];
        let open = place.conn.as_ref().filter(|_| place.generation == conn.generation)?;
        driver::peer_of(open.socket.as_fd())
    }

    fn stop_accepting(&mut self) {
        let _ = self.ring.submit();
        for (number, listener) in self.listeners.iter().enumerate() {
            if listener.armed {
                // An accept under way would keep the socket, and so the address, after we closed it.
                let accept = types::CancelBuilder::user_data(kind::ACCEPT | number as u64);
                let _ = self.ring.submitter().register_sync_cancel(None, accept);
            }
        }
        self.listeners.clear();
    }

    fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    fn wake(&mut self, other: &Waker) {
        match other.ring {
            Some(ring) => {
                let message = opcode::MsgRingData::new(types::Fd(ring), 0, kind::MESSAGE, None).build();
                self.push(&message.flags(squeue::Flags::SKIP_SUCCESS).user_data(kind::IGNORED));
            }
            None => other.wake(),
        }
    }

    fn accept_failures(&self) -> u64 {
        self.accept_failures
    }

    fn has_unsent(&self) -> bool {
        // What was sent from the arena is carried out by the next enter.
        let waits = |conn: &Conn| conn.closing == Some(Close::AfterSend);
        !self.arena_sends.is_empty() || self.conns.iter().flat_map(|place| &place.conn).any(waits)
    }
}

impl Ring for Uring {
    fn ring(&mut self) -> &mut Uring {
        self
    }

    fn pending(&mut self) -> bool {
        let queue = self.ring.submission();
        let (deferred_work, queued) = (queue.taskrun(), !queue.is_empty());
        drop(queue);
        deferred_work || queued || !self.ring.completion().is_empty() || !self.deferred.is_empty()
    }
}

impl Uring {
    fn send_pinned(&mut self, conn: ConnId, pinned: Pinned) {
        let turn = self.turns;
        match self.open(conn) {
            Some(open) => {
                open.outbox.get_or_insert_with(|| Behind::boxed(turn)).outbox.push_pinned(pinned);
                self.mark_dirty(conn);
            }
            None => self.deferred.push(Event::Released { pinned }),
        }
    }
}

fn conn_ended(conn: Option<&mut Conn>) {
    if let Some(conn) = conn {
        conn.ended = true;
    }
}
