//! The driver over io_uring: one enter a turn submits everything queued since the last, and waits.
//!
//! Accepting and receiving are multishot, receive buffers are picked by the kernel, and replies go out
//! straight from the arena: a send either takes everything at once and posts no completion (`MSG_DONTWAIT |
//! MSG_WAITALL`, success skipped), or reports what it took, and the rest moves to the connection's outbox.
//! Because such sends are carried out inside the enter, the arena is free again when it returns.
//!
//! The user data of every operation names its kind and its connection, generation included. The slot of a
//! connection is given out anew only when all its operations have completed, so that a late completion never
//! touches another connection.

mod conns;
mod queued_output;
mod user_data;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use self::conns::{UringConn, UringSlot, conn_at, open_conn_at};
use self::queued_output::QueuedOutput;
use crate::buffer_ring::BufferRing;
use crate::driver::{self, Buffer, Close, ConnId, Driver, DriverSetup, Event, Pinned, Send, Wait, Waker};
use crate::granted::{self, UringFeatures};
use crate::listen::{self, Admission};
use crate::outbox;

/// A driver over io_uring, or a driver over such a driver.
pub trait UringDriver: Driver {
    /// The io_uring driver at the bottom.
    fn uring(&mut self) -> &mut Uring;

    /// Whether a turn has something to submit, or would find something without waiting. No system call.
    fn has_pending(&mut self) -> bool;
}

/// Receive buffers of a shard, and bytes of each; more showed no gain.
const BUFFERS: (u16, u32) = (256, 4096);
/// Receive buffers where values come in, and bytes of each: a value of 8 KiB fits into one.
const VALUE_BUFFERS: (u16, u32) = (128, 16 * 1024);
/// Buffer group of the receive buffers.
const GROUP: u16 = 0;
/// How long no connection is accepted after the process ran out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);
/// How often connections are examined for a reset after bytes that nobody answered: see `look_for_resets`.
const RESET_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Completions that there is room for without a new allocation.
const COMPLETIONS: usize = 1024;
/// `IORING_ENTER_GETEVENTS`
const ENTER_GETEVENTS: u32 = 1;
/// A send takes all its bytes, or reports how many it took; a broken connection raises no signal. rustix has
/// `MSG_WAITALL` only among the flags of receiving.
const SEND_FLAGS: u32 = RecvFlags::WAITALL.bits() | SendFlags::NOSIGNAL.bits();
/// A send from the arena reads it at once or never.
const ARENA_SEND_FLAGS: u32 = SEND_FLAGS | SendFlags::DONTWAIT.bits();

/// The network of one shard over io_uring.
pub struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    waker: Arc<Waker>,
    /// This driver's end of the socket pair by which it is woken.
    woken: OwnedFd,
    listeners: Vec<UringListener>,
    admission: Arc<Admission>,
    conns: Vec<UringSlot>,
    /// Slots without a connection.
    free: Vec<u32>,
    arena: ArenaOutput,
    completions: Vec<cqueue::Entry>,
    /// Connections with queued output and no send under way.
    dirty: Vec<ConnId>,
    /// Connections being closed from this side.
    closings: Vec<ConnId>,
    /// Connections whose receive ended for want of buffers; the next turn arms it again.
    starved: Vec<ConnId>,
    /// Connections that sent something since connections were last examined for resets.
    heard: Vec<ConnId>,
    looked_for_resets: Instant,
    /// Found outside of `turn`; the next turn reports it.
    deferred: Vec<Event>,
    turns: u64,
    accept_rest_until: Option<Instant>,
    accept_failures: u64,
    features: UringFeatures,
}

#[derive(Debug)]
struct UringListener {
    socket: OwnedFd,
    armed: bool,
}

/// The output of a turn while the kernel sends it.
#[derive(Debug, Default)]
struct ArenaOutput {
    /// What the queued sends read, from `send` until the enter of the next turn has carried them out.
    in_flight: Vec<u8>,
    sends: Vec<ArenaSend>,
    /// Empty memory for the output of the next turn.
    spare: Vec<u8>,
}

/// A send that is queued, of a range of the arena.
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
        // SAFETY: no receive is armed before the driver exists, whose `drop` cancels all of them and
        // unregisters the buffers.
        let buffers = unsafe { BufferRing::register(&ring, count, bytes, GROUP)? };
        let (woken, signal) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
            None,
        )?;
        // SAFETY: the ring keeps its descriptor open for the length of this call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        let waker = Arc::new(Waker { signal, ring: Some(descriptor.try_clone_to_owned()?) });
        let mut listeners = Vec::new();
        for socket in setup.listeners {
            rustix::io::ioctl_fionbio(&socket, false)?; // the ring waits instead
            listeners.push(UringListener { socket, armed: false });
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
            arena: ArenaOutput::default(),
            completions: Vec::with_capacity(COMPLETIONS),
            dirty: Vec::new(),
            closings: Vec::new(),
            starved: Vec::new(),
            heard: Vec::new(),
            looked_for_resets: Instant::now(),
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

    /// Has completions signal `eventfd`, but only between [`Uring::signal_completions`]`(true)` and
    /// `(false)`.
    ///
    /// # Errors
    /// When the kernel does not take the eventfd.
    pub fn register_eventfd(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd.as_raw_fd())?; // the kernel keeps the file open
        self.ring.completion().disable_eventfd();
        Ok(())
    }

    /// Sets whether completions signal the registered eventfd.
    pub fn signal_completions(&mut self, on: bool) {
        let queue = self.ring.completion();
        if on {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }

    /// Queues an operation for the next enter.
    ///
    /// # Safety
    /// What the entry points to must stay valid and in place until its completion, and the descriptors it
    /// names must stay open until it has been submitted.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the caller keeps what the entry refers to.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full. The kernel takes all of it (`SETUP_SUBMIT_ALL`), so this ends.
            let _ = self.ring.submit();
        }
    }

    /// Queues a cancellation of the operation with this user data.
    fn cancel(&mut self, operation: u64) {
        let cancel = opcode::AsyncCancel::new(operation).build().user_data(user_data::IGNORED);
        // SAFETY: it refers to neither memory nor descriptors.
        unsafe { self.push(&cancel) };
    }

    fn arm_wake(&mut self) {
        let woken = types::Fd(self.woken.as_raw_fd());
        let poll = opcode::PollAdd::new(woken, u32::from(PollFlags::IN.bits())).multi(true);
        // SAFETY: it points to no memory, and the socket is open as long as the ring.
        unsafe { self.push(&poll.build().user_data(user_data::WAKE_POLL)) };
    }

    fn arm_accepts(&mut self) {
        for number in 0..self.listeners.len() {
            if !self.listeners[number].armed {
                self.listeners[number].armed = true;
                let accept = opcode::AcceptMulti::new(types::Fd(self.listeners[number].socket.as_raw_fd()))
                    .flags(SocketFlags::CLOEXEC.bits() as i32);
                // SAFETY: it points to no memory; `stop_accepting` submits before it closes the socket.
                unsafe { self.push(&accept.build().user_data(user_data::ACCEPT | number as u64)) };
            }
        }
    }

    fn arm_receive(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if conn.receiving || conn.paused || conn.ended || conn.connecting.is_some() || conn.closing.is_some()
        {
            return;
        }
        conn.receiving = true;
        let socket = types::Fd(conn.socket.as_raw_fd());
        let receive = opcode::RecvMulti::new(socket, self.buffers.group()).build();
        // SAFETY: the buffers are registered as long as the ring exists; `receiving` keeps the socket open.
        unsafe { self.push(&receive.user_data(user_data::for_conn(user_data::RECEIVE, id))) };
    }

    /// The connection, closing or not.
    fn conn(&mut self, id: ConnId) -> Option<&mut UringConn> {
        conn_at(&mut self.conns, id)
    }

    /// The connection, unless it is closing.
    fn open_conn(&mut self, id: ConnId) -> Option<&mut UringConn> {
        open_conn_at(&mut self.conns, id)
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
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::TIME | Errno::INTR | Errno::AGAIN | Errno::BUSY) => {}
                _ => return Err(error),
            },
        }
        // What is still queued (after EBUSY or EINTR) must be submitted before the arena is used again.
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
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR | Errno::AGAIN | Errno::BUSY) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Moves completions out of the ring, also those that the kernel held back for want of room.
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
        match user_data::kind(data) {
            user_data::RECEIVE => self.received_bytes(data, result, flags, events),
            user_data::ARENA_SEND => self.arena_send_cut(user_data::number(data), result, events),
            user_data::OUTBOX_SEND => self.output_sent(data, result, events),
            user_data::CONNECT => self.connected(data, result, events),
            user_data::ACCEPT => self.accepted(user_data::number(data), result, flags, events),
            user_data::WAKE_POLL => {
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
            // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            if self.listeners.is_empty() {
                return; // `stop_accepting` was called: the socket is closed
            }
            if !self.admission.admit() {
                let _ =
                    rustix::net::send(&socket, listen::TOO_MANY, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                return;
            }
            let conn = self.add_conn(socket, true);
            events.push(Event::Accepted { conn, listener: number as u16 });
            self.arm_receive(conn);
        } else if !matches!(
            errno(result),
            Some(Errno::CONNABORTED | Errno::INTR | Errno::AGAIN | Errno::CANCELED)
        ) {
            self.accept_failures += 1;
            self.accept_rest_until = Some(Instant::now() + ACCEPT_RETRY);
        }
    }

    fn add_conn(&mut self, socket: OwnedFd, client: bool) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(UringSlot { generation: 0, conn: None });
            self.conns.len() as u32 - 1
        });
        let slot = &mut self.conns[index as usize];
        debug_assert!(slot.conn.is_none(), "a slot that is in use was free");
        slot.generation = slot.generation.wrapping_add(1);
        slot.conn = Some(UringConn {
            socket,
            output: None,
            receiving: false,
            sending: false,
            paused: false,
            dirty: false,
            closing: None,
            ended: false,
            cancelling: false,
            heard: false,
            unanswered: false,
            client,
            connecting: None,
        });
        ConnId { index, generation: slot.generation }
    }

    /// The connection that a completion is about. Its slot cannot have been given out anew: see `release`.
    fn conn_of(&self, data: u64) -> ConnId {
        let index = user_data::slot_index(data);
        let generation = self.conns[index as usize].generation;
        assert!(user_data::is_of_generation(data, generation), "a stray completion");
        ConnId { index, generation }
    }

    fn received_bytes(&mut self, data: u64, result: i32, flags: u32, events: &mut Vec<Event>) {
        let id = self.conn_of(data);
        let conn = conn_at(&mut self.conns, id).expect("kept until its operations are done");
        let (closing, ended) = (conn.closing.is_some(), !cqueue::more(flags));
        if ended {
            conn.receiving = false;
            conn.cancelling = false;
        }
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.take(buffer);
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
            return self.release(id);
        }
        match errno(result) {
            None if result == 0 => {
                conn.ended = true;
                events.push(Event::Ended { conn: id });
            }
            None | Some(Errno::INTR | Errno::CANCELED | Errno::AGAIN) => self.arm_receive(id),
            Some(Errno::NOBUFS) => self.starved.push(id),
            Some(_) => self.fail(id, events),
        }
    }

    /// A send from the arena did not take everything: the rest is queued.
    fn arena_send_cut(&mut self, number: usize, result: i32, events: &mut Vec<Event>) {
        let ArenaSend { conn: id, start, end } = self.arena.sends[number];
        let taken = match result {
            0.. => result as usize,
            _ if may_send_again(result) => 0,
            _ => return self.fail(id, events),
        };
        debug_assert!(start + taken < end, "a send that took everything reports nothing");
        let turn_before = self.turns - 1;
        if let Some(conn) = conn_at(&mut self.conns, id) {
            debug_assert!(conn.output.is_none(), "queued output was overtaken");
            let output = conn.output.get_or_insert_with(|| QueuedOutput::boxed(turn_before));
            output.outbox.push_bytes(&self.arena.in_flight[start + taken..end]);
            self.mark_dirty(id);
        }
    }

    fn output_sent(&mut self, data: u64, result: i32, events: &mut Vec<Event>) {
        let id = self.conn_of(data);
        let conn = self.conn(id).expect("kept until its operations are done");
        conn.sending = false;
        let outbox = &mut conn.output.as_mut().expect("kept while a send is under way").outbox;
        if result < 0 && !may_send_again(result) {
            if conn.closing.is_some() {
                self.release(id);
            } else {
                self.fail(id, events);
            }
            return;
        }
        let was_high = outbox.len() > outbox::LOW_WATER_BYTES;
        outbox.advance(result.max(0) as usize, |pinned| events.push(Event::Released { pinned }));
        let left = outbox.len();
        if left == 0 {
            conn.output = None;
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

    /// A connection to a server is established, or cannot be.
    fn connected(&mut self, data: u64, result: i32, events: &mut Vec<Event>) {
        let id = self.conn_of(data);
        let conn = self.conn(id).expect("kept until its operations are done");
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

    /// The connection broke: reports that, unless it is closing, and ends it.
    fn fail(&mut self, id: ConnId, events: &mut Vec<Event>) {
        if let Some(conn) = self.open_conn(id) {
            conn.closing = Some(Close::Now);
            events.push(Event::Closed { conn: id });
            self.release(id);
        }
    }

    /// Ends a connection that is closing, and frees its slot, once no operation on it is under way; until
    /// then it ends those operations, whose completions call this again. Nothing may be queued for its
    /// socket.
    fn release(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        debug_assert!(conn.closing.is_some());
        if conn.receiving || conn.sending {
            let _ = rustix::net::shutdown(&conn.socket, rustix::net::Shutdown::Both);
            return;
        }
        if conn.connecting.is_some() {
            return self.cancel(user_data::for_conn(user_data::CONNECT, id));
        }
        let client = conn.client;
        let slot = &mut self.conns[id.index as usize];
        if let Some(mut output) = slot.conn.take().and_then(|gone| gone.output) {
            output.outbox.clear(|pinned| self.deferred.push(Event::Released { pinned }));
        }
        self.free.push(id.index);
        if client {
            self.admission.leave();
        }
    }

    /// A multishot receive that has read the last bytes before a reset waits for a wake-up that came before
    /// it (seen on Linux 6.18). A reply finds the connection broken; a connection that is due no reply would
    /// stay for ever. So, now and then, connections that sent something and got no reply are polled.
    fn look_for_resets(&mut self) {
        if self.looked_for_resets.elapsed() < RESET_LOOK_EVERY {
            return;
        }
        self.looked_for_resets = Instant::now();
        for id in std::mem::take(&mut self.heard) {
            let Some(conn) = self.conn(id) else { continue };
            conn.heard = false;
            if !conn.unanswered || !conn.receiving || conn.cancelling || conn.closing.is_some() {
                continue;
            }
            let mut polled = [PollFd::new(&conn.socket, PollFlags::empty())];
            let broken = rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
                && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
            if broken {
                // The completion arms another receive, which finds the reset.
                conn.cancelling = true;
                self.cancel(user_data::for_conn(user_data::RECEIVE, id));
            }
        }
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !conn.dirty
            && !conn.sending
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Queues a send of the first pieces of the queued output.
    fn send_output(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        conn.dirty = false;
        if conn.sending {
            return;
        }
        let Some(output) = conn.output.as_mut() else { return };
        conn.sending = true;
        let socket = types::Fd(conn.socket.as_raw_fd());
        let send = opcode::SendMsg::new(socket, output.gather()).flags(SEND_FLAGS).build();
        // SAFETY: `sending` keeps the output, to which the header belongs, and the socket until the
        // completion.
        unsafe { self.push(&send.user_data(user_data::for_conn(user_data::OUTBOX_SEND, id))) };
    }

    fn send_pinned(&mut self, conn: ConnId, pinned: Pinned) {
        let turn = self.turns;
        match self.open_conn(conn) {
            Some(open) => {
                let output = open.output.get_or_insert_with(|| QueuedOutput::boxed(turn));
                output.outbox.push_pinned(pinned);
                self.mark_dirty(conn);
            }
            None => self.deferred.push(Event::Released { pinned }),
        }
    }

    /// Ends connections that were closed from this side, now that nothing is queued for them any more.
    fn finish_closings(&mut self) {
        for id in std::mem::take(&mut self.closings) {
            let Some(conn) = self.conn(id) else { continue };
            if conn.closing == Some(Close::AfterSend) && conn.output.is_some() {
                continue; // `output_sent` ends it
            }
            self.release(id);
        }
    }
}

/// The error that a completion reports, if it does.
fn errno(result: i32) -> Option<Errno> {
    (result < 0).then(|| Errno::from_raw_os_error(-result))
}

/// Whether a send failed, but the connection is not broken.
fn may_send_again(result: i32) -> bool {
    matches!(errno(result), Some(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM))
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("features", &self.features).finish_non_exhaustive()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Closing the ring waits for nothing: what the kernel uses of ours must be out of its hands before it
        // is dropped.
        for conn in self.conns.iter().filter_map(|slot| slot.conn.as_ref()) {
            let _ = rustix::net::shutdown(&conn.socket, rustix::net::Shutdown::Both);
            if conn.client {
                self.admission.leave();
            }
        }
        let _ = self.ring.submit();
        let _ = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        // Wakers may keep the ring open, and with it the sockets of operations that have not been completed.
        // SAFETY: no signal mask is passed.
        let _ = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
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
        // A connection that is closing ends after the enter, which must not wait before that.
        if !events.is_empty() || !self.closings.is_empty() || !self.completions.is_empty() {
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
        self.arena.sends.clear();
        self.arena.spare = std::mem::take(&mut self.arena.in_flight);
        self.arena.spare.clear();
        driver::shrink_arena(&mut self.arena.spare);
        self.finish_closings();
        for conn in std::mem::take(&mut self.dirty) {
            self.send_output(conn);
        }
        Ok(())
    }

    fn received(&self, buffer: &Buffer) -> &[u8] {
        self.buffers.bytes(buffer.id, buffer.len)
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.buffers.put(buffer.id);
    }

    /// Receives beside the multishot receive, which runs only inside this driver's enters (`DEFER_TASKRUN`):
    /// it cannot take bytes meanwhile, and what it took before is in the completion queue, or has been worked
    /// on. Its next attempt finds the socket empty and goes on waiting.
    fn receive_into(&mut self, conn: ConnId, first: &mut [u8], rest: &mut [u8]) -> usize {
        let held = !self.ring.completion().is_empty() || self.ring.submission().cq_overflow();
        if !self.features.deferred_taskrun || held {
            return 0;
        }
        let Some(open) = self.open_conn(conn) else { return 0 };
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
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                open.closing = Some(Close::Now);
                self.deferred.push(Event::Closed { conn });
                self.closings.push(conn); // it ends after the next enter: a send may be queued for it
                0
            }
        }
    }

    fn take_arena(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.arena.spare)
    }

    fn send(&mut self, arena: Vec<u8>, sends: &mut Vec<Send>) {
        self.buffers.publish();
        debug_assert!(self.arena.sends.is_empty(), "`send` was called twice in one turn");
        // `turn` has taken the arena before this one. Were there one, because `send` is called twice, queued
        // sends would still read it: it is leaked, not freed.
        std::mem::forget(std::mem::replace(&mut self.arena.in_flight, arena));
        for send in sends.drain(..) {
            match send {
                Send::Bytes { conn, start, end, queued } => {
                    if start == end {
                        continue;
                    }
                    let turn = self.turns;
                    let Some(open) = open_conn_at(&mut self.conns, conn) else { continue };
                    open.unanswered = false;
                    let bytes = &self.arena.in_flight[start..end];
                    if queued || open.output.is_some() {
                        let output = open.output.get_or_insert_with(|| QueuedOutput::boxed(turn));
                        output.outbox.push_bytes(bytes);
                        self.mark_dirty(conn);
                        continue;
                    }
                    let socket = types::Fd(open.socket.as_raw_fd());
                    let entry = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32)
                        .flags(ARENA_SEND_FLAGS as i32)
                        .build()
                        .flags(squeue::Flags::SKIP_SUCCESS)
                        .user_data(user_data::ARENA_SEND | self.arena.sends.len() as u64);
                    self.arena.sends.push(ArenaSend { conn, start, end });
                    // SAFETY: the bytes stay in `arena.in_flight`, and the socket open, until the enter of
                    // the next turn has carried the send out: connections end after it.
                    unsafe { self.push(&entry) };
                }
                Send::Pinned { conn, pinned } => self.send_pinned(conn, pinned),
            }
        }
        for conn in std::mem::take(&mut self.dirty) {
            self.send_output(conn);
        }
    }

    fn backlog(&self, conn: ConnId) -> usize {
        let slot = &self.conns[conn.index as usize];
        match &slot.conn {
            Some(open) if slot.generation == conn.generation => {
                open.output.as_ref().map_or(0, |output| output.outbox.len())
            }
            _ => 0,
        }
    }

    fn refused(&self, conn: ConnId) -> usize {
        let slot = &self.conns[conn.index as usize];
        let open = slot.conn.as_ref().filter(|_| slot.generation == conn.generation);
        let output = open.and_then(|open| open.output.as_ref());
        output.filter(|output| output.since_turn != self.turns).map_or(0, |output| output.outbox.len())
    }

    fn has_unreported(&mut self, conn: ConnId) -> bool {
        // What the kernel has taken from the socket is in a completion; the next turn works on those.
        self.collect();
        let receive = user_data::for_conn(user_data::RECEIVE, conn);
        self.completions.iter().any(|entry| entry.user_data() == receive)
            || self.open_conn(conn).is_some_and(|open| driver::is_readable(open.socket.as_fd()))
    }

    fn pause(&mut self, conn: ConnId) {
        let Some(open) = self.open_conn(conn) else { return };
        open.paused = true;
        if open.receiving && !open.cancelling {
            open.cancelling = true;
            self.cancel(user_data::for_conn(user_data::RECEIVE, conn));
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(open) = self.open_conn(conn) else { return };
        open.paused = false;
        self.arm_receive(conn); // while a cancellation is under way, its completion does it instead
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let Some(open) = self.open_conn(conn) else { return };
        open.closing = Some(how);
        self.closings.push(conn); // it ends after the next enter: a send may be queued for it
    }

    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId> {
        let socket = driver::socket_for(address, false)?;
        let (fd, address) = (types::Fd(socket.as_raw_fd()), Box::new(address.clone()));
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        let id = self.add_conn(socket.into(), false);
        self.conn(id).expect("just added").connecting = Some(address);
        // SAFETY: `connecting` keeps the address, which is boxed, and the socket until the completion.
        unsafe { self.push(&entry.user_data(user_data::for_conn(user_data::CONNECT, id))) };
        Ok(id)
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        let slot = &self.conns[conn.index as usize];
        let open = slot.conn.as_ref().filter(|_| slot.generation == conn.generation)?;
        driver::peer_of(open.socket.as_fd())
    }

    fn stop_accepting(&mut self) {
        let _ = self.ring.submit();
        for (number, listener) in self.listeners.iter().enumerate() {
            if listener.armed {
                // An accept under way would keep the socket, and so the address, after it is closed here.
                let accept = types::CancelBuilder::user_data(user_data::ACCEPT | number as u64);
                let _ = self.ring.submitter().register_sync_cancel(None, accept);
            }
        }
        self.listeners.clear();
    }

    fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    fn wake(&mut self, other: &Waker) {
        match &other.ring {
            Some(ring) => {
                let ring = types::Fd(ring.as_raw_fd());
                let message = opcode::MsgRingData::new(ring, 0, user_data::MESSAGE, None).build();
                let message = message.flags(squeue::Flags::SKIP_SUCCESS).user_data(user_data::IGNORED);
                // SAFETY: it points to no memory, and the caller keeps the waker, with the ring, until the
                // next turn.
                unsafe { self.push(&message) };
            }
            None => other.wake(),
        }
    }

    fn accept_failures(&self) -> u64 {
        self.accept_failures
    }

    fn has_unsent(&self) -> bool {
        // The next enter carries out the sends from the arena.
        let is_unsent = |conn: &UringConn| conn.closing == Some(Close::AfterSend);
        !self.arena.sends.is_empty() || self.conns.iter().flat_map(|slot| &slot.conn).any(is_unsent)
    }
}

impl UringDriver for Uring {
    fn uring(&mut self) -> &mut Uring {
        self
    }

    fn has_pending(&mut self) -> bool {
        let queue = self.ring.submission();
        let (deferred_work, queued) = (queue.taskrun(), !queue.is_empty());
        drop(queue);
        let completed = !self.completions.is_empty() || !self.ring.completion().is_empty();
        // What is left to be done at the beginning or the end of a turn.
        let undone = !(self.deferred.is_empty() && self.closings.is_empty() && self.starved.is_empty());
        deferred_work || queued || completed || undone || !self.dirty.is_empty()
    }
}
