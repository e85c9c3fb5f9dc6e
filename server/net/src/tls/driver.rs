//! TLS over another driver. What arrives on a secured connection is decrypted before the shard sees it, and what the
//! shard sends to it in a turn is encrypted together: one record as far as 16 KiB allow, in the one send of that turn.
//!
//! Connections of plain listeners pass through. Values that are sent from where they are stored wait here in plain,
//! pinned, until the socket takes what was encrypted before; the shard is told of them as a backlog like any other.
//!
//! A client that has not done its handshake in time is closed: it holds a connection that others may want. Turns come once
//! a second at least, so that is seen within a second of its time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::certificates::{Certificates, Counts, Loaded};
use super::connection::{Connection, Taken};
use super::options::Usage;
use super::trust::Secure;
use crate::driver::{Buffer, Close, ConnId, Driver, Event, Send, Wait, Waker};
use crate::epoll::Epoll;
use crate::outbox;
use crate::uring::{Ring, Uring};

/// Buffers of decrypted bytes are numbered from here, above any of the driver below.
const BUFFERS_FROM: u16 = 1 << 15;
/// Bytes for decrypted input kept between turns.
const PLAIN_KEEP_BYTES: usize = 256 * 1024;
/// How often all connections are looked at for handshakes that are late, while there may be one.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// See the head of the file.
pub struct Tls<D> {
    below: D,
    /// For clients; `None` where only servers are reached this way.
    certificates: Option<Arc<Certificates>>,
    counts: Arc<Counts>,
    /// How each listening socket is secured.
    usages: Box<[Usage]>,
    /// What connections begin with, and the generation it is of.
    current: Option<(u64, Arc<Loaded>)>,
    /// By place; `None` for plain ones.
    conns: Vec<Option<Box<Connection>>>,
    /// What was decrypted in this turn.
    plain: Vec<u8>,
    /// Where each buffer of it begins.
    starts: Vec<usize>,
    /// What happened below in this turn.
    events: Vec<Event>,
    /// Connections that have something to send in this turn.
    touched: Vec<ConnId>,
    /// Connections that wait, be it for the socket or for their end.
    busy: Vec<ConnId>,
    /// Connections that end with what is sent in this turn.
    ending: Vec<ConnId>,
    /// Found while sending; reported by the next turn.
    deferred: Vec<Event>,
    /// What the driver below is to send.
    sends: Vec<Send>,
    late: Late,
}

/// When to look for handshakes that are late.
#[derive(Debug)]
struct Late {
    /// What a client has for its handshake.
    timeout: Duration,
    /// When the handshake of the youngest connection is late; `None` when nobody's can be. No queue: what is looked at
    /// are the connections themselves, of which there are only so many.
    until: Option<Instant>,
    look_at: Instant,
}

impl Late {
    /// A client has connected.
    fn expect(&mut self, now: Instant) {
        if self.until.is_none() {
            self.look_at = now + LOOK_EVERY;
        }
        self.until = Some(now + self.timeout);
    }

    /// Once a turn: the time, if it is time to look.
    fn due(&mut self) -> Option<Instant> {
        let until = self.until?;
        let now = Instant::now();
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_EVERY;
        if now >= until {
            self.until = None;
        }
        Some(now)
    }
}

impl<D: Driver> Tls<D> {
    /// TLS over `below`, whose listening sockets are secured as `usages` say.
    pub fn new(below: D, certificates: Option<Arc<Certificates>>, usages: Box<[Usage]>) -> Self {
        let current = certificates.as_ref().map(|it| (it.generation(), it.current()));
        let counts = certificates.as_ref().map(|it| Arc::clone(&it.counts)).unwrap_or_default();
        let timeout = certificates.as_ref().map_or(Duration::ZERO, |it| it.options().handshake_timeout);
        Self {
            below,
            certificates,
            counts,
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
            late: Late { timeout, until: None, look_at: Instant::now() },
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.conns.get_mut(id.index as usize)?.as_deref_mut().filter(|conn| conn.id == id)
    }

    fn get(&self, id: ConnId) -> Option<&Connection> {
        self.conns.get(id.index as usize)?.as_deref().filter(|conn| conn.id == id)
    }

    /// Whether there is something to do without waiting.
    fn has_work(&self) -> bool {
        !self.deferred.is_empty()
            || !self.touched.is_empty()
            || self.busy.iter().any(|&id| self.may_go_on(id))
    }

    /// Whether the socket of a connection that waits has room again.
    fn may_go_on(&self, id: ConnId) -> bool {
        self.get(id).is_some() && self.below.backlog(id) <= outbox::LOW_WATER_BYTES
    }

    /// A client connected; false when it cannot be served.
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
        // Whoever cannot be secured is not served in plain: the shard does not hear of it.
        let made = self
            .current
            .as_ref()
            .and_then(|current| current.1.of(usage))
            .map(|config| Connection::new(id, config, now));
        let Some(Ok(made)) = made else {
            self.counts.handshake_errors.fetch_add(1, Ordering::Relaxed);
            self.below.close(id, Close::Now);
            return false;
        };
        self.add(made);
        self.late.expect(now);
        true
    }

    /// Close those whose handshakes are late.
    fn close_late(&mut self, events: &mut Vec<Event>) {
        let Some(now) = self.late.due() else { return };
        for place in &mut self.conns {
            let is_late = |conn: &Connection| {
                let since = conn.since.filter(|_| !conn.is_open() && !conn.closing);
                since.is_some_and(|since| now.saturating_duration_since(since) >= self.late.timeout)
            };
            if let Some(conn) = place.take_if(|conn| is_late(conn)) {
                self.counts.handshake_timeouts.fetch_add(1, Ordering::Relaxed);
                events.push(Event::Closed { conn: conn.id });
                self.below.close(conn.id, Close::Now);
            }
        }
    }

    fn add(&mut self, conn: Connection) {
        let index = conn.id.index as usize;
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        debug_assert!(self.conns[index].is_none());
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
        let taken = conn.take(self.below.received(buffer), &mut self.plain);
        self.below.recycle(buffer);
        let counts = &self.counts;
        if !was_open && conn.is_open() && conn.is_ours() {
            events.push(Event::Connected { conn: id });
        } else if !was_open && conn.is_open() && !conn.is_resumed() {
            counts.new_sessions.fetch_add(1, Ordering::Relaxed);
        }
        let is_open = conn.is_open();
        let len = self.plain.len() - start;
        if len > 0 {
            let id_of_buffer = BUFFERS_FROM + self.starts.len() as u16;
            self.starts.push(start);
            let buffer = Buffer { id: id_of_buffer, len: len as u32 };
            events.push(Event::Received { conn: id, buffer });
        }
        match taken {
            Taken::Ok => {}
            Taken::Ended => events.push(Event::Ended { conn: id }),
            Taken::Foreign | Taken::Broken => {
                let count = if is_open { &counts.proto_errors } else { &counts.handshake_errors };
                count.fetch_add(1, Ordering::Relaxed);
                events.push(Event::Closed { conn: id });
                if taken == Taken::Foreign {
                    conn.closing = true;
                    self.forget(id);
                    return self.below.close(id, Close::Now);
                }
                self.end_with_this_turn(id);
            }
        }
        self.touch(id);
    }

    /// It has something to send in this turn.
    fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !std::mem::replace(&mut conn.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// Look at it in every turn.
    fn watch(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !std::mem::replace(&mut conn.busy, true)
        {
            self.busy.push(id);
        }
    }

    /// The shard knows it no more: what is ready is sent, then it closes.
    fn end_with_this_turn(&mut self, id: ConnId) {
        let Some(conn) = self.conns[id.index as usize].as_deref_mut() else { return };
        conn.closing = true;
        conn.abandon(|pinned| self.deferred.push(Event::Released { pinned }));
        if !std::mem::replace(&mut conn.paused, true) {
            self.below.pause(id);
        }
        self.ending.push(id);
    }

    fn forget(&mut self, id: ConnId) {
        let place = self.conns.get_mut(id.index as usize);
        if let Some(mut conn) = place.and_then(|place| place.take_if(|conn| conn.id == id)) {
            if conn.is_shaking_hands() && !conn.closing && !conn.is_ours() {
                self.counts.handshake_errors.fetch_add(1, Ordering::Relaxed);
            }
            conn.abandon(|pinned| self.deferred.push(Event::Released { pinned }));
        }
    }

    fn translate(&mut self, event: Event, events: &mut Vec<Event>) {
        match event {
            Event::Accepted { conn, listener } => {
                if self.accepted(conn, listener) {
                    events.push(event);
                }
            }
            Event::Received { conn, buffer } => self.received(conn, buffer, events),
            // It stands when both have shaken hands; what opens that goes out with this turn.
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
                // Told when what waits here is gone too.
                Some(busy) => busy.owes_drained = true,
                None => events.push(event),
            },
            event => events.push(event),
        }
    }

    /// Tell the shard of connections whose backlog, here and below, is gone.
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

    /// A reply, or a part of one, to a secured connection. False when it is plain.
    fn put(&mut self, send: Send, arena: &[u8]) -> Option<Send> {
        let id = match send {
            Send::Bytes { conn, .. } | Send::Pinned { conn, .. } => conn,
        };
        let Some(conn) = self.conn(id) else { return Some(send) };
        let outcome = match send {
            Send::Bytes { .. } if conn.closing => return None,
            Send::Bytes { start, end, .. } if start == end => return None,
            Send::Bytes { start, end, queued, .. } => conn.put(&arena[start..end], queued),
            Send::Pinned { pinned, .. } if conn.closing => {
                self.deferred.push(Event::Released { pinned });
                return None;
            }
            Send::Pinned { pinned, .. } => {
                conn.put_pinned(pinned);
                Ok(())
            }
        };
        let waits = conn.waiting() > 0;
        if outcome.is_err() {
            self.deferred.push(Event::Closed { conn: id });
            self.end_with_this_turn(id);
        } else if waits {
            self.watch(id);
        }
        self.touch(id);
        None
    }

    /// Encrypt more of what waits where there is room, and end what has nothing left.
    fn go_on(&mut self) {
        for at in 0..self.busy.len() {
            let id = self.busy[at];
            if !self.may_go_on(id) {
                continue;
            }
            let Some(conn) = self.conns[id.index as usize].as_deref_mut() else { continue };
            let deferred = &mut self.deferred;
            let outcome = conn.seal_waiting(|pinned| deferred.push(Event::Released { pinned }));
            let ends = conn.closing && conn.waiting() == 0;
            if outcome.is_err() {
                if !conn.closing {
                    self.deferred.push(Event::Closed { conn: id });
                }
                self.end_with_this_turn(id);
            } else if ends && !self.ending.contains(&id) {
                conn.say_goodbye();
                self.ending.push(id);
            }
            self.touch(id);
        }
    }

    /// Those that wait no more leave the list.
    fn settle_busy(&mut self) {
        let mut busy = std::mem::take(&mut self.busy);
        busy.retain(|&id| {
            let backlog = self.backlog(id);
            let Some(conn) = self.conn(id) else { return false };
            conn.owes_drained |= backlog > outbox::HIGH_WATER_BYTES;
            conn.busy = conn.waiting() > 0 || conn.owes_drained || conn.closing;
            conn.busy
        });
        self.busy = busy;
    }
}

impl<D: Driver> Driver for Tls<D> {
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        let wait = if self.has_work() { Wait::No } else { wait };
        self.below.turn(wait, &mut self.events)?;
        self.plain.clear();
        self.plain.shrink_to(PLAIN_KEEP_BYTES);
        self.starts.clear();
        // First, for the place of one that closed may be given out anew.
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

    fn received(&self, buffer: Buffer) -> &[u8] {
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
            out.extend(self.put(send, &arena));
        }
        self.go_on();
        // Behind the plain bytes: what was encrypted stays in one piece a connection.
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let Some(conn) = self.conn(id) else { continue };
            conn.touched = false;
            let start = arena.len();
            conn.take_sealed(&mut arena);
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
        self.settle_busy();
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.below.backlog(conn) + self.get(conn).map_or(0, Connection::waiting)
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

impl Ring for Tls<Uring> {
    fn ring(&mut self) -> &mut Uring {
        &mut self.below
    }

    fn pending(&mut self) -> bool {
        self.has_work() || self.below.pending()
    }
}

/// A driver that may begin secured connections to servers.
pub trait SecureDriver: Driver {
    /// As [`Driver::connect`], but the connection is secured as `secure` says.
    ///
    /// # Errors
    /// Those of [`Driver::connect`]; and always `Unsupported` on a driver that is not a [`Tls`].
    fn connect_secured(&mut self, address: &socket2::SockAddr, secure: &Secure) -> io::Result<ConnId> {
        let _ = (address, secure);
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl SecureDriver for Uring {}

impl SecureDriver for Epoll {}

impl<D: Driver> SecureDriver for Tls<D> {
    fn connect_secured(&mut self, address: &socket2::SockAddr, secure: &Secure) -> io::Result<ConnId> {
        let id = self.below.connect(address)?;
        match Connection::to_server(id, secure) {
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
