//! TLS over another driver. What arrives on a secured connection is decrypted before the shard sees it, and
//! what the shard sends to it in a turn is encrypted together: one record as far as 16 KiB allow, in the one
//! send of that turn.
//!
//! Connections of plain listeners pass through. Values that are sent from where they are stored are queued
//! here in plain, pinned, until the socket has taken what was encrypted before; for the shard they are
//! backlog like any other.
//!
//! A client whose handshake is not done in time is closed, because it counts against the limit of
//! connections. Turns come at least once a second, so it is closed at most a second late.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::certificates::{Certificates, LoadedCertificates, TlsCounters};
use super::connection::{Decrypted, TlsConnection};
use super::options::Usage;
use super::trust::ClientTls;
use crate::driver::{Buffer, Close, ConnId, Driver, Event, Send, Wait, Waker};
use crate::epoll::Epoll;
use crate::outbox;
use crate::uring::{Uring, UringDriver};

/// Number of the first buffer of decrypted bytes: above any of the driver below, which has at most this many.
const BUFFERS_FROM: u16 = 1 << 15;
/// Most bytes of memory for decrypted input kept between turns.
const PLAIN_KEEP_BYTES: usize = 256 * 1024;
/// How often all connections are examined for late handshakes, while there may be one.
const EXAMINE_EVERY: Duration = Duration::from_millis(250);

/// A driver that secures connections of the driver below it.
pub struct TlsDriver<D> {
    below: D,
    /// For clients; `None` when only connections to servers are secured.
    certificates: Option<Arc<Certificates>>,
    counters: Arc<TlsCounters>,
    /// How each listening socket is secured.
    usages: Box<[Usage]>,
    /// What connections of clients begin with, and its generation.
    current: Option<(u64, Arc<LoadedCertificates>)>,
    /// By the index of the connection; `None` for plain ones.
    conns: Vec<Option<Box<TlsConnection>>>,
    /// What was decrypted in this turn.
    plain: Vec<u8>,
    /// Where in `plain` each buffer begins.
    starts: Vec<usize>,
    /// Events of the driver below in this turn.
    events: Vec<Event>,
    /// Connections that have something to send in this turn.
    touched: Vec<ConnId>,
    /// Connections that are examined in every turn: they have queued output, owe a report, or are closing.
    busy: Vec<ConnId>,
    /// Connections that end when what is sent in this turn has been sent.
    ending: Vec<ConnId>,
    /// Found outside of `turn`; the next turn reports it.
    deferred: Vec<Event>,
    /// What the driver below is to send.
    sends: Vec<Send>,
    late: LateHandshakes,
}

/// When to examine connections for handshakes that are not done in time.
#[derive(Debug)]
struct LateHandshakes {
    /// What a client has for its handshake.
    timeout: Duration,
    /// When the handshake of the youngest connection is late; `None` when none can be. There is no queue of
    /// deadlines: the table of connections is examined, which the limit of connections bounds.
    until: Option<Instant>,
    examine_at: Instant,
}

impl LateHandshakes {
    /// A client has connected.
    fn expect(&mut self, now: Instant) {
        if self.until.is_none() {
            self.examine_at = now + EXAMINE_EVERY;
        }
        self.until = Some(now + self.timeout);
    }

    /// Called once a turn. The time, if connections are to be examined now.
    fn due(&mut self) -> Option<Instant> {
        let until = self.until?;
        let now = Instant::now();
        if now < self.examine_at {
            return None;
        }
        self.examine_at = now + EXAMINE_EVERY;
        if now >= until {
            self.until = None;
        }
        Some(now)
    }
}

impl<D: Driver> TlsDriver<D> {
    /// TLS over `below`, whose listening sockets are secured as `usages` say, in their order.
    pub fn new(below: D, certificates: Option<Arc<Certificates>>, usages: Box<[Usage]>) -> Self {
        let current = certificates.as_ref().map(|it| (it.generation(), it.current()));
        let counters = certificates.as_ref().map(|it| Arc::clone(&it.counters)).unwrap_or_default();
        let timeout = certificates.as_ref().map_or(Duration::ZERO, |it| it.options().handshake_timeout);
        Self {
            below,
            certificates,
            counters,
            usages,
            current,
            conns: Vec::new(),
            plain: Vec::new(),
            starts: Vec::new(),
            events: Vec::new(),
            touched: Vec::new(),
            busy: Vec::new(),
            ending: Vec::new(),
            deferred: Vec::new(),
            sends: Vec::new(),
            late: LateHandshakes { timeout, until: None, examine_at: Instant::now() },
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut TlsConnection> {
        self.conns.get_mut(id.index as usize)?.as_deref_mut().filter(|conn| conn.id == id)
    }

    fn get(&self, id: ConnId) -> Option<&TlsConnection> {
        self.conns.get(id.index as usize)?.as_deref().filter(|conn| conn.id == id)
    }

    /// Whether there is something to do without waiting.
    fn has_work(&self) -> bool {
        !self.deferred.is_empty() || !self.touched.is_empty() || self.busy.iter().any(|&id| self.has_room(id))
    }

    /// Whether the connection exists, and the driver below has sent enough of it to be given more.
    fn has_room(&self, id: ConnId) -> bool {
        self.get(id).is_some() && self.below.backlog(id) <= outbox::LOW_WATER_BYTES
    }

    /// A client connected. False when it cannot be secured: then it is closed, and the shard does not learn
    /// of it.
    fn accepted(&mut self, id: ConnId, listener: u16) -> bool {
        let usage = self.usages[usize::from(listener)];
        if usage == Usage::Plain {
            return true;
        }
        if let (Some(certificates), Some(current)) = (&self.certificates, &mut self.current) {
            let generation = certificates.generation();
            if current.0 != generation {
                *current = (generation, certificates.current());
            }
        }
        let now = Instant::now();
        let made = self
            .current
            .as_ref()
            .and_then(|current| current.1.for_usage(usage))
            .map(|config| TlsConnection::from_client(id, config, now));
        let Some(Ok(made)) = made else {
            self.counters.handshake_errors.fetch_add(1, Ordering::Relaxed);
            self.below.close(id, Close::Now);
            return false;
        };
        self.add(made);
        self.late.expect(now);
        true
    }

    /// Closes connections whose handshakes are late.
    fn close_late(&mut self, events: &mut Vec<Event>) {
        let Some(now) = self.late.due() else { return };
        for slot in &mut self.conns {
            let is_late = |conn: &TlsConnection| {
                let since = conn.since.filter(|_| !conn.is_open() && !conn.closing);
                since.is_some_and(|since| now.saturating_duration_since(since) >= self.late.timeout)
            };
            if let Some(conn) = slot.take_if(|conn| is_late(conn)) {
                self.counters.handshake_timeouts.fetch_add(1, Ordering::Relaxed);
                events.push(Event::Closed { conn: conn.id });
                self.below.close(conn.id, Close::Now);
            }
        }
    }

    fn add(&mut self, conn: TlsConnection) {
        let index = conn.id.index as usize;
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        debug_assert!(self.conns[index].is_none(), "a slot that is in use was given out");
        self.conns[index] = Some(Box::new(conn));
    }

    fn received(&mut self, id: ConnId, buffer: Buffer, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id.index as usize).and_then(Option::as_deref_mut) else {
            return events.push(Event::Received { conn: id, buffer });
        };
        debug_assert_eq!(conn.id, id);
        if conn.closing {
            return self.below.recycle(buffer);
        }
        let start = self.plain.len();
        let was_open = conn.is_open();
        let outcome = conn.decrypt(self.below.received(&buffer), &mut self.plain);
        self.below.recycle(buffer);
        let counters = &self.counters;
        if !was_open && conn.is_open() && conn.is_to_server() {
            events.push(Event::Connected { conn: id });
        } else if !was_open && conn.is_open() && !conn.is_resumed() {
            counters.new_sessions.fetch_add(1, Ordering::Relaxed);
        }
        let is_open = conn.is_open();
        let len = self.plain.len() - start;
        if len > 0 {
            debug_assert!(self.starts.len() < usize::from(BUFFERS_FROM), "more buffers than numbers");
            let number = BUFFERS_FROM + self.starts.len() as u16;
            self.starts.push(start);
            let buffer = Buffer::new(number, len as u32);
            events.push(Event::Received { conn: id, buffer });
        }
        match outcome {
            Decrypted::Ok => {}
            Decrypted::Ended => events.push(Event::Ended { conn: id }),
            Decrypted::NotTls | Decrypted::Broken => {
                let counter = if is_open { &counters.proto_errors } else { &counters.handshake_errors };
                counter.fetch_add(1, Ordering::Relaxed);
                events.push(Event::Closed { conn: id });
                if outcome == Decrypted::NotTls {
                    conn.closing = true;
                    self.forget(id);
                    return self.below.close(id, Close::Now);
                }
                self.end_with_this_turn(id);
            }
        }
        self.touch(id);
    }

    /// Lists the connection among those that have something to send in this turn.
    fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !std::mem::replace(&mut conn.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// Lists the connection among those that are examined in every turn.
    fn watch(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !std::mem::replace(&mut conn.busy, true)
        {
            self.busy.push(id);
        }
    }

    /// Ends a connection that the shard knows to be broken, after what is encrypted has been sent.
    fn end_with_this_turn(&mut self, id: ConnId) {
        let Some(conn) = self.conns[id.index as usize].as_deref_mut() else { return };
        conn.closing = true;
        conn.abandon(|pinned| self.deferred.push(Event::Released { pinned }));
        if !std::mem::replace(&mut conn.paused, true) {
            self.below.pause(id);
        }
        self.ending.push(id);
    }

    /// Removes the connection; pinned values that were queued go back to their owners.
    fn forget(&mut self, id: ConnId) {
        let slot = self.conns.get_mut(id.index as usize);
        if let Some(mut conn) = slot.and_then(|slot| slot.take_if(|conn| conn.id == id)) {
            if conn.is_shaking_hands() && !conn.closing && !conn.is_to_server() {
                self.counters.handshake_errors.fetch_add(1, Ordering::Relaxed);
            }
            conn.abandon(|pinned| self.deferred.push(Event::Released { pinned }));
        }
    }

    /// Turns an event of the driver below into what the shard sees of it.
    fn translate(&mut self, event: Event, events: &mut Vec<Event>) {
        match event {
            Event::Accepted { conn, listener } => {
                if self.accepted(conn, listener) {
                    events.push(event);
                }
            }
            Event::Received { conn, buffer } => self.received(conn, buffer, events),
            // Reported when the handshake is done, whose first message is sent in this turn.
            Event::Connected { conn } if self.get(conn).is_some() => self.touch(conn),
            Event::Ended { conn } if self.get(conn).is_some_and(|conn| conn.closing) => {}
            Event::Closed { conn } => {
                let was_closing = self.get(conn).is_some_and(|conn| conn.closing);
                self.forget(conn);
                if !was_closing {
                    events.push(event);
                }
            }
            Event::Drained { conn } => match self.conn(conn).filter(|conn| conn.busy) {
                // Reported when what is queued here is gone too.
                Some(busy) => busy.owes_drained = true,
                None => events.push(event),
            },
            event => events.push(event),
        }
    }

    /// Reports connections whose backlog was high, and is not any more, here and below.
    fn report_drained(&mut self, events: &mut Vec<Event>) {
        for at in 0..self.busy.len() {
            let id = self.busy[at];
            let backlog = self.backlog(id);
            if let Some(conn) = self.conn(id)
                && conn.owes_drained
                && backlog <= outbox::LOW_WATER_BYTES
            {
                conn.owes_drained = false;
                if !conn.closing {
                    events.push(Event::Drained { conn: id });
                }
            }
        }
    }

    /// Takes output to a secured connection; that to a plain one is returned.
    fn write(&mut self, send: Send, arena: &[u8]) -> Option<Send> {
        let id = match send {
            Send::Bytes { conn, .. } | Send::Pinned { conn, .. } => conn,
        };
        let Some(conn) = self.conn(id) else { return Some(send) };
        let outcome = match send {
            Send::Bytes { .. } if conn.closing => return None,
            Send::Bytes { start, end, .. } if start == end => return None,
            Send::Bytes { start, end, queued, .. } => conn.write(&arena[start..end], queued),
            Send::Pinned { pinned, .. } if conn.closing => {
                self.deferred.push(Event::Released { pinned });
                return None;
            }
            Send::Pinned { pinned, .. } => {
                conn.write_pinned(pinned);
                Ok(())
            }
        };
        let has_queued = conn.queued() > 0;
        if outcome.is_err() {
            self.deferred.push(Event::Closed { conn: id });
            self.end_with_this_turn(id);
        } else if has_queued {
            self.watch(id);
        }
        self.touch(id);
        None
    }

    /// Encrypts more of what is queued where there is room, and ends closing connections that have nothing
    /// left.
    fn encrypt_queued(&mut self) {
        for at in 0..self.busy.len() {
            let id = self.busy[at];
            if !self.has_room(id) {
                continue;
            }
            let Some(conn) = self.conns[id.index as usize].as_deref_mut() else { continue };
            let deferred = &mut self.deferred;
            let outcome = conn.encrypt_queued(|pinned| deferred.push(Event::Released { pinned }));
            let ends = conn.closing && conn.queued() == 0;
            if outcome.is_err() {
                if !conn.closing {
                    self.deferred.push(Event::Closed { conn: id });
                }
                self.end_with_this_turn(id);
            } else if ends && !self.ending.contains(&id) {
                conn.close_notify();
                self.ending.push(id);
            }
            self.touch(id);
        }
    }

    /// Takes connections that need not be examined any more off the list.
    fn trim_busy(&mut self) {
        let mut busy = std::mem::take(&mut self.busy);
        busy.retain(|&id| {
            let backlog = self.backlog(id);
            let Some(conn) = self.conn(id) else { return false };
            conn.owes_drained |= backlog > outbox::HIGH_WATER_BYTES;
            conn.busy = conn.queued() > 0 || conn.owes_drained || conn.closing;
            conn.busy
        });
        self.busy = busy;
    }
}

impl<D: Driver> Driver for TlsDriver<D> {
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        let wait = if self.has_work() { Wait::No } else { wait };
        self.below.turn(wait, &mut self.events)?;
        self.plain.clear();
        self.plain.shrink_to(PLAIN_KEEP_BYTES);
        self.starts.clear();
        // First, because events of the driver below may be about another connection in the same slot.
        events.append(&mut self.deferred);
        let mut below = std::mem::take(&mut self.events);
        for event in below.drain(..) {
            self.translate(event, events);
        }
        self.events = below;
        self.close_late(events);
        events.append(&mut self.deferred);
        self.report_drained(events);
        Ok(())
    }

    fn received(&self, buffer: &Buffer) -> &[u8] {
        match buffer.id.checked_sub(BUFFERS_FROM) {
            Some(number) => &self.plain[self.starts[usize::from(number)]..][..buffer.len as usize],
            None => self.below.received(buffer),
        }
    }

    fn recycle(&mut self, buffer: Buffer) {
        if buffer.id < BUFFERS_FROM {
            self.below.recycle(buffer);
        }
    }

    fn take_arena(&mut self) -> Vec<u8> {
        self.below.take_arena()
    }

    fn send(&mut self, mut arena: Vec<u8>, sends: &mut Vec<Send>) {
        let mut out = std::mem::take(&mut self.sends);
        for send in sends.drain(..) {
            out.extend(self.write(send, &arena));
        }
        self.encrypt_queued();
        // After the plain bytes: what was encrypted is one range for each connection.
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let Some(conn) = self.conn(id) else { continue };
            conn.touched = false;
            let start = arena.len();
            conn.take_encrypted(&mut arena);
            let end = arena.len();
            if start < end {
                out.push(Send::Bytes { conn: id, start, end, queued: false });
            }
        }
        self.touched = touched;
        self.below.send(arena, &mut out);
        self.sends = out;
        let mut ending = std::mem::take(&mut self.ending);
        for id in ending.drain(..) {
            self.forget(id);
            self.below.close(id, Close::AfterSend);
        }
        self.ending = ending;
        self.trim_busy();
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.below.backlog(conn) + self.get(conn).map_or(0, TlsConnection::queued)
    }

    fn has_unreported(&mut self, conn: ConnId) -> bool {
        self.below.has_unreported(conn)
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(conn) = self.conn(conn) {
            conn.paused = true;
        }
        self.below.pause(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(conn) = self.conn(conn) {
            conn.paused = false;
        }
        self.below.resume(conn);
    }

    fn close(&mut self, id: ConnId, how: Close) {
        let Some(conn) = self.conn(id) else { return self.below.close(id, how) };
        if how == Close::Now || !conn.is_open() {
            self.forget(id);
            return self.below.close(id, how);
        }
        conn.closing = true;
        if !std::mem::replace(&mut conn.paused, true) {
            self.below.pause(id);
        }
        self.watch(id);
    }

    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId> {
        self.below.connect(address)
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.below.peer(conn)
    }

    fn stop_accepting(&mut self) {
        self.below.stop_accepting();
    }

    fn waker(&self) -> Arc<Waker> {
        self.below.waker()
    }

    fn wake(&mut self, other: &Waker) {
        self.below.wake(other);
    }

    fn accept_failures(&self) -> u64 {
        self.below.accept_failures()
    }

    fn has_unsent(&self) -> bool {
        self.conns.iter().flatten().any(|conn| conn.closing) || self.below.has_unsent()
    }
}

impl UringDriver for TlsDriver<Uring> {
    fn uring(&mut self) -> &mut Uring {
        &mut self.below
    }

    fn has_pending(&mut self) -> bool {
        self.has_work() || self.below.has_pending()
    }
}

/// A driver that may be able to begin secured connections to servers.
pub trait SecureDriver: Driver {
    /// Begins a connection as [`Driver::connect`] does, secured as `tls` says.
    ///
    /// # Errors
    /// Those of [`Driver::connect`]; and always `Unsupported` on a driver that is not a [`TlsDriver`].
    fn connect_secured(&mut self, address: &socket2::SockAddr, tls: &ClientTls) -> io::Result<ConnId> {
        let _ = (address, tls);
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl SecureDriver for Uring {}

impl SecureDriver for Epoll {}

impl<D: Driver> SecureDriver for TlsDriver<D> {
    fn connect_secured(&mut self, address: &socket2::SockAddr, tls: &ClientTls) -> io::Result<ConnId> {
        let id = self.below.connect(address)?;
        match TlsConnection::to_server(id, tls) {
            Ok(made) => {
                self.add(made);
                Ok(id)
            }
            Err(error) => {
                self.below.close(id, Close::Now);
                Err(io::Error::other(error))
            }
        }
    }
}
