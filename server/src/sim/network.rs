//! A network of byte queues, and the driver that a shard sees it through.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::net::listen::Admission;
use crate::net::outbox::{self, Outbox};
use crate::net::{Buffer, Close, ConnId, Driver, Event, Send, Wait, Waker};

/// Bytes of one receive buffer: small, so that commands are cut often.
const BUFFER_BYTES: usize = 4096;
/// Bytes that wait for a client that does not read, before the server's sends are refused.
const SOCKET_BYTES: usize = 8 * 1024;

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Link {
    pub to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// The client sends nothing more.
    pub shut: bool,
    /// The client broke the connection.
    pub reset: bool,
    /// The server closed.
    pub closed: bool,
    shard: usize,
    accepted: bool,
}

/// Every link, and which shards were woken.
#[derive(Debug)]
pub struct Network {
    pub links: Vec<Link>,
    wakers: Vec<Arc<Waker>>,
    woken: Vec<bool>,
    random: fastrand::Rng,
}

impl Network {
    pub fn new(seed: u64, shards: usize) -> Self {
        let wakers = (0..shards).map(|_| Arc::new(Waker::for_tests())).collect();
        let random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        Self { links: Vec::new(), wakers, woken: vec![false; shards], random }
    }

    /// A client connects to a shard; the number of its link.
    pub fn connect(&mut self, shard: usize) -> usize {
        self.links.push(Link { shard, ..Link::default() });
        self.woken[shard] = true;
        self.links.len() - 1
    }

    /// The client did something that the shard's kernel would report.
    pub fn stir(&mut self, link: usize) {
        let shard = self.links[link].shard;
        self.woken[shard] = true;
    }

    /// Whether the shard would be awake now: by its network or by a peer.
    pub fn take_wake(&mut self, shard: usize) -> bool {
        std::mem::take(&mut self.woken[shard])
    }
}

#[derive(Debug)]
struct Place {
    generation: u32,
    conn: Option<Conn>,
}

#[derive(Debug)]
struct Conn {
    link: usize,
    outbox: Outbox,
    paused: bool,
    ended: bool,
    closing: bool,
}

/// One shard's view of the network.
#[derive(Debug)]
pub struct SimDriver {
    shard: usize,
    network: Rc<RefCell<Network>>,
    admission: Arc<Admission>,
    places: Vec<Place>,
    free: Vec<u32>,
    buffers: Vec<Option<Vec<u8>>>,
    deferred: Vec<Event>,
}

impl SimDriver {
    pub fn new(shard: usize, network: Rc<RefCell<Network>>, admission: Arc<Admission>) -> Self {
        let (places, free, buffers, deferred) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { shard, network, admission, places, free, buffers, deferred }
    }

    fn conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let place = &mut self.places[conn.index as usize];
        if place.generation == conn.generation { place.conn.as_mut() } else { None }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        let mut network = self.network.borrow_mut();
        for (number, link) in network.links.iter_mut().enumerate() {
            if link.shard != self.shard || link.accepted {
                continue;
            }
            link.accepted = true;
            assert!(self.admission.admit());
            let index = self.free.pop().unwrap_or_else(|| {
                self.places.push(Place { generation: 0, conn: None });
                self.places.len() as u32 - 1
            });
            let place = &mut self.places[index as usize];
            place.generation += 1;
            let outbox = Outbox::default();
            place.conn = Some(Conn { link: number, outbox, paused: false, ended: false, closing: false });
            events
                .push(Event::Accepted { conn: ConnId { index, generation: place.generation }, listener: 0 });
        }
    }

    fn receive(&mut self, index: usize, events: &mut Vec<Event>) {
        let shared = Rc::clone(&self.network);
        let network = &mut *shared.borrow_mut();
        let Place { generation, conn: Some(conn) } = &mut self.places[index] else { return };
        let id = ConnId { index: index as u32, generation: *generation };
        let link = &mut network.links[conn.link];
        if link.reset {
            let closing = conn.closing;
            self.forget(id, network);
            if !closing {
                self.deferred.push(Event::Closed { conn: id });
            }
            events.append(&mut self.deferred);
            return;
        }
        if conn.paused || conn.ended || conn.closing {
            return;
        }
        if link.to_server.is_empty() {
            if link.shut {
                conn.ended = true;
                events.push(Event::Ended { conn: id });
            }
            return;
        }
        if network.random.u8(..4) == 0 {
            network.woken[self.shard] = true; // delayed
            return;
        }
        let most = link.to_server.len().min(BUFFER_BYTES);
        let len = if network.random.bool() { most } else { network.random.usize(1..=most) };
        let bytes: Vec<u8> = link.to_server.drain(..len).collect();
        network.woken[self.shard] = true;
        self.buffers.push(Some(bytes));
        let buffer = Buffer { id: (self.buffers.len() - 1) as u16, len: len as u32 };
        events.push(Event::Received { conn: id, buffer });
    }

    fn forget(&mut self, id: ConnId, network: &mut Network) {
        if let Some(mut conn) = self.places[id.index as usize].conn.take() {
            conn.outbox.clear(|pinned| self.deferred.push(Event::Released { pinned }));
            network.links[conn.link].closed = true;
            self.free.push(id.index);
            self.admission.leave();
        }
    }

    /// Move what the client's socket takes.
    fn flush(&mut self, id: ConnId) {
        let shared = Rc::clone(&self.network);
        let network = &mut *shared.borrow_mut();
        let Some(conn) = self.conn(id) else { return };
        let link = &mut network.links[conn.link];
        let was_high = conn.outbox.len() > outbox::LOW_WATER_BYTES;
        let mut released = Vec::new();
        while !conn.outbox.is_empty() && !link.reset {
            let room = SOCKET_BYTES.saturating_sub(link.to_client.len());
            if room == 0 {
                break;
            }
            let mut pieces: Vec<IoSlice<'_>> = Vec::new();
            conn.outbox.gather(&mut pieces);
            let taken: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(room).collect();
            link.to_client.extend(&taken);
            conn.outbox.advance(taken.len(), |pinned| released.push(Event::Released { pinned }));
        }
        let (drained, finished) = (
            was_high && conn.outbox.len() <= outbox::LOW_WATER_BYTES,
            conn.closing && conn.outbox.is_empty(),
        );
        self.deferred.extend(released);
        if finished {
            self.forget(id, network);
        } else if drained {
            self.deferred.push(Event::Drained { conn: id });
        }
        if !self.deferred.is_empty() {
            network.woken[self.shard] = true;
        }
    }
}

impl Driver for SimDriver {
    fn turn(&mut self, _wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.deferred);
        self.accept(events);
        for index in 0..self.places.len() {
            self.receive(index, events);
            let generation = self.places[index].generation;
            self.flush(ConnId { index: index as u32, generation });
        }
        events.append(&mut self.deferred);
        Ok(())
    }

    fn received(&self, buffer: Buffer) -> &[u8] {
        self.buffers[usize::from(buffer.id)].as_ref().expect("lent once")
    }

    fn recycle(&mut self, buffer: Buffer) {
        assert!(self.buffers[usize::from(buffer.id)].take().is_some(), "given back twice");
        if self.buffers.iter().all(Option::is_none) {
            self.buffers.clear();
        }
    }

    fn receive_into(&mut self, id: ConnId, first: &mut [u8], rest: &mut [u8]) -> usize {
        let shared = Rc::clone(&self.network);
        let network = &mut *shared.borrow_mut();
        let shard = self.shard;
        let Some(conn) = self.conn(id).filter(|conn| !conn.paused && !conn.ended && !conn.closing) else {
            return 0;
        };
        let link = &mut network.links[conn.link];
        if link.reset {
            return 0;
        }
        let most = link.to_server.len().min(first.len() + rest.len());
        let len = if network.random.bool() { most } else { network.random.usize(..=most) };
        for (to, byte) in first.iter_mut().chain(rest).zip(link.to_server.drain(..len)) {
            *to = byte;
        }
        network.woken[shard] = true;
        len
    }

    fn take_arena(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn send(&mut self, arena: Vec<u8>, sends: &mut Vec<Send>) {
        let mut touched = Vec::new();
        for send in sends.drain(..) {
            match send {
                Send::Bytes { conn: id, start, end, .. } => {
                    if let Some(conn) = self.conn(id).filter(|conn| !conn.closing) {
                        conn.outbox.push_bytes(&arena[start..end]);
                        touched.push(id);
                    }
                }
                Send::Pinned { conn: id, pinned } => match self.conn(id).filter(|conn| !conn.closing) {
                    Some(conn) => {
                        conn.outbox.push_pinned(pinned);
                        touched.push(id);
                    }
                    None => self.deferred.push(Event::Released { pinned }),
                },
            }
        }
        for id in touched {
            self.flush(id);
        }
        if !self.deferred.is_empty() {
            self.network.borrow_mut().woken[self.shard] = true;
        }
    }

    fn backlog(&self, conn: ConnId) -> usize {
        let place = &self.places[conn.index as usize];
        match &place.conn {
            Some(open) if place.generation == conn.generation => open.outbox.len(),
            _ => 0,
        }
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(conn) = self.conn(conn) {
            assert!(!conn.paused, "paused twice");
            conn.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(conn) = self.conn(conn) {
            assert!(conn.paused, "resumed twice");
            conn.paused = false;
        }
        self.network.borrow_mut().woken[self.shard] = true;
    }

    fn close(&mut self, id: ConnId, how: Close) {
        let shared = Rc::clone(&self.network);
        let Some(conn) = self.conn(id) else { return };
        conn.closing = true;
        if how == Close::Now || conn.outbox.is_empty() {
            self.forget(id, &mut shared.borrow_mut());
        }
    }

    fn connect(&mut self, _address: &socket2::SockAddr) -> io::Result<ConnId> {
        Err(io::ErrorKind::NetworkUnreachable.into()) // there are only clients here
    }

    fn peer(&self, _conn: ConnId) -> Option<SocketAddr> {
        None
    }

    fn stop_accepting(&mut self) {}

    fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.network.borrow().wakers[self.shard])
    }

    fn wake(&mut self, other: &Waker) {
        let network = &mut *self.network.borrow_mut();
        let shard = network.wakers.iter().position(|waker| std::ptr::eq(&**waker, other));
        network.woken[shard.expect("a shard's waker")] = true;
    }

    fn accept_failures(&self) -> u64 {
        0
    }

    fn has_unsent(&self) -> bool {
        self.places.iter().flat_map(|place| &place.conn).any(|conn| conn.closing)
    }
}
