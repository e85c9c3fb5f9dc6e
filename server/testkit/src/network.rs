//! A simulated network of byte queues, and the driver through which a shard uses it. Simulated clients
//! connect to shards, and shards connect to destinations.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use corecached_net::listen::Admission;
use corecached_net::outbox::{self, Outbox};
use corecached_net::tls::SecureDriver;
use corecached_net::{Buffer, Close, ConnId, Driver, Event, Send, Wait, Waker};

/// Bytes of one receive buffer: small, so that commands are cut often.
const BUFFER_BYTES: usize = 4096;
/// Bytes that the socket of a peer holds unread. Past it, what a shard sends stays in its outbox.
const SOCKET_BYTES: usize = 8 * 1024;

/// The port of destination 0. Destination `n` has the port `PORT_FIRST + n`.
pub const PORT_FIRST: u16 = 10_000;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The end that made the connection.
    Client,
    /// The end that accepted the connection.
    Server,
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Link {
    /// Bytes on their way from the client.
    pub to_server: VecDeque<u8>,
    /// Bytes on their way to the client.
    pub to_client: VecDeque<u8>,
    /// The client sends nothing more. A shard that is the client has closed its end.
    pub shut: bool,
    /// The connection was reset: the bytes on their way are lost.
    pub reset: bool,
    /// The server closed its end.
    pub closed: bool,
    /// The connection is established. That of a simulated client is so from the start.
    pub established: bool,
    /// The destination that a shard connected to; `None` for simulated clients.
    pub destination: Option<usize>,
    /// The shards that hold the ends; `None` for the end of a simulated client or destination.
    server: Option<usize>,
    client: Option<usize>,
    accepted: bool,
}

impl Link {
    fn incoming(&mut self, side: Side) -> &mut VecDeque<u8> {
        match side {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }

    fn outgoing(&mut self, side: Side) -> &mut VecDeque<u8> {
        self.incoming(if side == Side::Client { Side::Server } else { Side::Client })
    }

    /// Whether nothing follows the bytes that are on their way to `side`.
    fn is_over(&self, side: Side) -> bool {
        if side == Side::Client { self.closed } else { self.shut }
    }

    fn leave(&mut self, side: Side) {
        *(if side == Side::Client { &mut self.shut } else { &mut self.closed }) = true;
    }

    fn other(&self, side: Side) -> Option<usize> {
        if side == Side::Client { self.server } else { self.client }
    }

    /// Whether a shard holds the client's end, established or not.
    pub fn is_held(&self) -> bool {
        self.client.is_some() && !self.shut && !self.reset
    }
}

/// An address that shards may connect to.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// The shards that accept its connections; empty for a simulated destination.
    pub shards: Vec<usize>,
    /// Connections are refused.
    pub refuses: bool,
    /// Connections are neither accepted nor refused.
    pub hangs: bool,
}

/// Every connection, and which shards were woken.
#[derive(Debug)]
pub struct Network {
    /// Every connection that was ever asked for, by its number.
    pub links: Vec<Link>,
    /// The addresses that shards may connect to, by the number of the destination.
    pub endpoints: Vec<Endpoint>,
    wakers: Vec<Arc<Waker>>,
    woken: Vec<bool>,
    random: fastrand::Rng,
}

impl Network {
    /// A network of `shards` shards. `seed` decides how bytes are cut and delayed.
    #[must_use]
    pub fn new(seed: u64, shards: usize) -> Self {
        let wakers = (0..shards).map(|_| Arc::new(Waker::for_tests())).collect();
        let random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        Self { links: Vec::new(), endpoints: Vec::new(), wakers, woken: vec![false; shards], random }
    }

    /// Connects a simulated client to a shard and returns the number of the link.
    pub fn connect(&mut self, shard: usize) -> usize {
        self.links.push(Link { server: Some(shard), established: true, ..Link::default() });
        self.woken[shard] = true;
        self.links.len() - 1
    }

    /// Wakes the shards that hold an end of the link: something happened that their kernel would report.
    pub fn wake_ends(&mut self, link: usize) {
        let Link { server, client, .. } = self.links[link];
        for shard in [server, client].into_iter().flatten() {
            self.woken[shard] = true;
        }
    }

    /// Wakes every shard.
    pub fn wake_all(&mut self) {
        self.woken.fill(true);
    }

    /// Whether the shard was woken, by its kernel or by another shard, since this was last asked.
    pub fn take_wake(&mut self, shard: usize) -> bool {
        std::mem::take(&mut self.woken[shard])
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

#[derive(Debug)]
struct Conn {
    link: usize,
    side: Side,
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
    slots: Vec<Slot>,
    free: Vec<u32>,
    buffers: Vec<Option<Vec<u8>>>,
    deferred: Vec<Event>,
}

impl SimDriver {
    /// The driver of a shard. `shard` is its number among all shards on the network.
    pub fn new(shard: usize, network: Rc<RefCell<Network>>, admission: Arc<Admission>) -> Self {
        let (slots, free, buffers, deferred) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { shard, network, admission, slots, free, buffers, deferred }
    }

    /// The number of open connections, and of lent buffers that were not given back.
    pub fn left_over(&self) -> (usize, usize) {
        (self.slots.iter().flat_map(|slot| &slot.conn).count(), self.buffers.iter().flatten().count())
    }

    fn conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = &mut self.slots[conn.index as usize];
        if slot.generation == conn.generation { slot.conn.as_mut() } else { None }
    }

    fn open(&mut self, link: usize, side: Side) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, conn: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation += 1;
        let outbox = Outbox::default();
        slot.conn = Some(Conn { link, side, outbox, paused: false, ended: false, closing: false });
        ConnId { index, generation: slot.generation }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        let shared = Rc::clone(&self.network);
        for (number, link) in shared.borrow_mut().links.iter_mut().enumerate() {
            if link.server != Some(self.shard) || link.accepted || !link.established {
                continue;
            }
            link.accepted = true;
            assert!(self.admission.admit());
            events.push(Event::Accepted { conn: self.open(number, Side::Server), listener: 0 });
        }
    }

    /// Establishes or refuses a connection that was asked for, or leaves it for later.
    fn try_connect(&mut self, id: ConnId, link: usize, network: &mut Network, events: &mut Vec<Event>) {
        let Network { links, endpoints, woken, random, .. } = network;
        let link = &mut links[link];
        let endpoint = &endpoints[link.destination.expect("a shard connected")];
        if endpoint.hangs {
            return;
        }
        if random.bool() {
            woken[self.shard] = true; // delayed
        } else if endpoint.refuses {
            self.forget(id, network);
            events.push(Event::Closed { conn: id });
        } else {
            link.established = true;
            events.push(Event::Connected { conn: id });
            link.server.into_iter().for_each(|shard| woken[shard] = true);
        }
    }

    fn receive(&mut self, index: usize, events: &mut Vec<Event>) {
        let shared = Rc::clone(&self.network);
        let network = &mut *shared.borrow_mut();
        let Slot { generation, conn: Some(conn) } = &mut self.slots[index] else { return };
        let id = ConnId { index: index as u32, generation: *generation };
        let link = &mut network.links[conn.link];
        if !link.established {
            let link = conn.link;
            return self.try_connect(id, link, network, events);
        }
        if link.reset {
            let closing = conn.closing;
            self.forget(id, network);
            if !closing {
                self.deferred.push(Event::Closed { conn: id });
            }
            events.append(&mut self.deferred);
            return;
        }
        // Several buffers may arrive in one turn.
        loop {
            if conn.paused || conn.ended || conn.closing {
                return;
            }
            if link.incoming(conn.side).is_empty() {
                if link.is_over(conn.side) {
                    conn.ended = true;
                    events.push(Event::Ended { conn: id });
                }
                return;
            }
            network.woken[self.shard] = true;
            if network.random.u8(..4) == 0 {
                return; // delayed
            }
            let incoming = link.incoming(conn.side);
            let most = incoming.len().min(BUFFER_BYTES);
            let len = if network.random.bool() { most } else { network.random.usize(1..=most) };
            let bytes: Vec<u8> = incoming.drain(..len).collect();
            link.other(conn.side).into_iter().for_each(|shard| network.woken[shard] = true);
            self.buffers.push(Some(bytes));
            let buffer = Buffer::new((self.buffers.len() - 1) as u16, len as u32);
            events.push(Event::Received { conn: id, buffer });
            if network.random.bool() {
                return;
            }
        }
    }

    fn forget(&mut self, id: ConnId, network: &mut Network) {
        if let Some(mut conn) = self.slots[id.index as usize].conn.take() {
            conn.outbox.clear(|pinned| self.deferred.push(Event::Released { pinned }));
            let link = &mut network.links[conn.link];
            link.leave(conn.side);
            // A destination that has not read everything either reads it later or never does.
            link.reset |= conn.side == Side::Client && network.random.bool();
            link.other(conn.side).into_iter().for_each(|shard| network.woken[shard] = true);
            self.free.push(id.index);
            if conn.side == Side::Server {
                self.admission.leave();
            }
        }
    }

    /// Moves as many bytes as the other end's socket takes.
    fn flush(&mut self, id: ConnId) {
        let shared = Rc::clone(&self.network);
        let network = &mut *shared.borrow_mut();
        let Some(conn) = self.conn(id) else { return };
        let link = &mut network.links[conn.link];
        let was_high = conn.outbox.len() > outbox::LOW_WATER_BYTES;
        let mut released = Vec::new();
        while !conn.outbox.is_empty() && !link.reset {
            assert!(link.established, "sent before the connection was made");
            let outgoing = link.outgoing(conn.side);
            let room = SOCKET_BYTES.saturating_sub(outgoing.len());
            if room == 0 {
                break;
            }
            let mut pieces: Vec<IoSlice<'_>> = Vec::new();
            conn.outbox.gather(&mut pieces);
            let taken: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(room).collect();
            outgoing.extend(&taken);
            if conn.side == Side::Server && link.client.is_some() && link.shut {
                link.to_client.clear(); // nobody is there
            }
            link.other(conn.side).into_iter().for_each(|shard| network.woken[shard] = true);
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

impl SecureDriver for SimDriver {}

impl Driver for SimDriver {
    fn turn(&mut self, _wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.deferred);
        self.accept(events);
        for index in 0..self.slots.len() {
            self.receive(index, events);
            let generation = self.slots[index].generation;
            self.flush(ConnId { index: index as u32, generation });
        }
        events.append(&mut self.deferred);
        Ok(())
    }

    fn received(&self, buffer: &Buffer) -> &[u8] {
        self.buffers[usize::from(buffer.id())].as_ref().expect("lent once")
    }

    fn recycle(&mut self, buffer: Buffer) {
        assert!(self.buffers[usize::from(buffer.id())].take().is_some(), "given back twice");
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
        let side = conn.side;
        let most = link.incoming(side).len().min(first.len() + rest.len());
        let len = if network.random.bool() { most } else { network.random.usize(..=most) };
        for (to, byte) in first.iter_mut().chain(rest).zip(link.incoming(side).drain(..len)) {
            *to = byte;
        }
        link.other(side).into_iter().for_each(|shard| network.woken[shard] = true);
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
        let slot = &self.slots[conn.index as usize];
        match &slot.conn {
            Some(open) if slot.generation == conn.generation => open.outbox.len(),
            _ => 0,
        }
    }

    fn has_unreported(&mut self, id: ConnId) -> bool {
        let shared = Rc::clone(&self.network);
        let Some(conn) = self.conn(id) else { return false };
        let (link, side) = (conn.link, conn.side);
        let network = &mut *shared.borrow_mut();
        !network.links[link].incoming(side).is_empty()
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

    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId> {
        let shared = Rc::clone(&self.network);
        let network = &mut *shared.borrow_mut();
        let port = address.as_socket().expect("an internet address").port();
        let number = usize::from(port - PORT_FIRST);
        let Endpoint { shards, refuses, .. } = &network.endpoints[number];
        if *refuses && network.random.bool() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let is_to_it = |link: &&Link| {
            link.client == Some(self.shard) && link.destination == Some(number) && link.is_held()
        };
        assert_eq!(network.links.iter().find(is_to_it).map(|_| number), None, "one connection at a time");
        let server = (!shards.is_empty()).then(|| shards[network.random.usize(..shards.len())]);
        let link = Link { server, client: Some(self.shard), destination: Some(number), ..Link::default() };
        network.links.push(link);
        network.woken[self.shard] = true;
        Ok(self.open(network.links.len() - 1, Side::Client))
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
        self.slots.iter().flat_map(|slot| &slot.conn).any(|conn| conn.closing)
    }
}
