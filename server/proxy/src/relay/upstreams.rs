//! The table of one shard's upstreams: the servers that its routes may send to, each with its destination and
//! connection.
//!
//! An upstream keeps its slot, an index into the table, for as long as the shard runs: trees, requests and
//! connections that were made earlier may still name it. Owns no pending request: the replies that its
//! methods yield are delivered through [`PendingRequests`].

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use corecached_net::outbox::HIGH_WATER_BYTES;
use corecached_net::tls::SecureDriver;
use corecached_net::{Close, ConnId, Send};
use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, Reply};
use corecached_shard::clients::Clients;
use socket2::SockAddr;

use super::pending::PendingRequests;
use super::setup::{Snapshot, UpstreamOptions};
use crate::config::{Address, EjectedLimit, PoolId, Server};
use crate::route;
use crate::upstream::{
    ConnectionLimits, Destination, DestinationAction, DestinationOptions, EjectionThresholds, HealthOptions,
    PoolHealth,
};

/// One server, as this shard sends to it.
#[derive(Debug)]
struct Upstream {
    destination: Destination,
    server: Server,
    /// The connection that the driver was asked for, until it is closed.
    conn: Option<ConnId>,
    /// The driver has reported that `conn` was established.
    connected: bool,
    /// The slot is in [`Upstreams::touched`].
    touched: bool,
    /// No tree in use names the server any more.
    retired: bool,
}

/// The options that all destinations share.
#[derive(Clone, Copy, Debug)]
struct SharedOptions {
    inactive_reset_ms: u64,
    connect_retries: u32,
    limits: ConnectionLimits,
    health: HealthOptions,
}

/// The table of upstreams.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// By slot. Only grows.
    upstreams: Vec<Upstream>,
    /// The slots of the servers that are in use, or that still have pending requests.
    by_server: HashMap<Server, u32>,
    /// The slots of the open connections, those that are being established included.
    by_conn: HashMap<ConnId, u32>,
    /// The health that destinations share of which some must not be ejected: by pool and by the pool's two
    /// limits.
    pools: HashMap<(PoolId, u32, u32), Rc<PoolHealth>>,
    /// The slots that something happened to since their actions were last carried out, each once.
    touched: Vec<u32>,
    snapshot: Arc<Snapshot>,
    options: SharedOptions,
    /// Unix milliseconds of this turn.
    now_ms: u64,
    /// Spreads the probes of different shards.
    seed: u64,
}

impl Upstreams {
    /// An empty table; [`Upstreams::adopt`] fills it.
    pub(super) fn new(snapshot: Arc<Snapshot>, options: &UpstreamOptions, seed: u64) -> Self {
        let UpstreamOptions { inactive_reset_ms, connect_retries, limits, health, merge: _ } = *options;
        Self {
            upstreams: Vec::new(),
            by_server: HashMap::new(),
            by_conn: HashMap::new(),
            pools: HashMap::new(),
            touched: Vec::new(),
            snapshot,
            options: SharedOptions { inactive_reset_ms, connect_retries, limits, health },
            now_ms: 0,
            seed,
        }
    }

    /// Sets the time of the turn, unix milliseconds.
    pub(super) fn begin_turn(&mut self, now_ms: u64) {
        debug_assert!(now_ms >= self.now_ms, "the clock of a shard never goes back");
        self.now_ms = now_ms;
    }

    /// Tells every destination the time. Returns the earliest of their next deadlines, `u64::MAX` for none.
    pub(super) fn tick(&mut self, pending: &mut PendingRequests, clients: &mut impl Clients) -> u64 {
        let mut deadline_ms = u64::MAX;
        for slot in 0..self.upstreams.len() as u32 {
            let destination = &mut self.upstreams[slot as usize].destination;
            destination.tick(self.now_ms, &mut |number, event| pending.deliver(clients, number, event));
            deadline_ms = deadline_ms.min(destination.next_deadline().unwrap_or(u64::MAX));
            self.touch(slot);
        }
        deadline_ms
    }

    // --- requests ---

    /// Enqueues `command`, with `data` as its value, at the destination of `slot`. Its reply is delivered to
    /// the pending request `number`.
    ///
    /// # Errors
    /// The reply that the destination refuses the request with.
    #[inline]
    pub(super) fn request(
        &mut self,
        slot: u32,
        command: &Command<'_>,
        data: &[u8],
        number: u64,
        may_be_refused: bool,
    ) -> Result<(), Reply> {
        let destination = &mut self.upstreams[slot as usize].destination;
        destination.request(command, data, number, may_be_refused, self.now_ms)?;
        self.touch(slot);
        Ok(())
    }

    /// The address of the server of `slot`, as configured.
    pub(super) fn address(&self, slot: u32) -> &Address {
        &self.upstreams[slot as usize].server.address
    }

    /// The slots of the servers that the tree in use names.
    pub(super) fn slots_in_use(&self) -> Vec<u32> {
        (0..self.upstreams.len() as u32).filter(|&slot| !self.upstreams[slot as usize].retired).collect()
    }

    // --- actions ---

    /// Takes the slot that was touched last, whose actions are to be carried out now.
    pub(super) fn take_touched(&mut self) -> Option<u32> {
        let slot = self.touched.pop()?;
        let upstream = &mut self.upstreams[slot as usize];
        debug_assert!(upstream.touched, "a slot is in the list of touched ones exactly while it is marked");
        upstream.touched = false;
        Some(slot)
    }

    /// Connects, sends and closes as the destination of `slot` asks for it, until it asks for nothing more.
    /// Returns the destination's next deadline, `u64::MAX` for none.
    pub(super) fn carry_out_actions(
        &mut self,
        slot: u32,
        driver: &mut impl SecureDriver,
        pending: &mut PendingRequests,
        clients: &mut impl Clients,
    ) -> u64 {
        let Self { upstreams, by_conn, snapshot, now_ms, .. } = self;
        let upstream = &mut upstreams[slot as usize];
        while let Some(action) = upstream.destination.next_action(*now_ms) {
            match action {
                DestinationAction::Connect => match connect(snapshot, &upstream.server, driver) {
                    Ok(conn) => {
                        debug_assert!(upstream.conn.is_none(), "one connection at a time");
                        let earlier = by_conn.insert(conn, slot);
                        assert!(earlier.is_none(), "an open connection belongs to one upstream");
                        (upstream.conn, upstream.connected) = (Some(conn), false);
                    }
                    Err(error) => {
                        upstream.destination.connect_failed(error.kind(), *now_ms, &mut |number, event| {
                            pending.deliver(clients, number, event);
                        });
                    }
                },
                DestinationAction::Send => {
                    let Some(conn) = upstream.conn else { break };
                    // A destination that does not read keeps its requests, whose number is bounded there. To
                    // close it and to connect to it again remains possible.
                    if driver.backlog(conn) > HIGH_WATER_BYTES {
                        break;
                    }
                    let (out, sends) = clients.output();
                    let start = out.len();
                    upstream.destination.take_output(out, *now_ms);
                    sends.push(Send::Bytes { conn, start, end: out.len(), queued: false });
                }
                DestinationAction::Close => {
                    if let Some(conn) = upstream.conn.take() {
                        by_conn.remove(&conn);
                        driver.close(conn, Close::Now);
                    }
                    upstream.connected = false;
                }
            }
        }
        let deadline_ms = upstream.destination.next_deadline().unwrap_or(u64::MAX);
        if upstream.retired {
            self.release_retired(slot, pending, clients);
        }
        deadline_ms
    }

    // --- connections ---

    /// Whether `conn` is a connection to an upstream.
    #[inline]
    pub(super) fn owns(&self, conn: ConnId) -> bool {
        self.by_conn.contains_key(&conn)
    }

    /// The number of connections, those that are being established included.
    pub(super) fn connections(&self) -> usize {
        self.by_conn.len()
    }

    /// The connection was established.
    pub(super) fn connected(&mut self, conn: ConnId) {
        let Some(&slot) = self.by_conn.get(&conn) else { return };
        let upstream = &mut self.upstreams[slot as usize];
        debug_assert_eq!(upstream.conn, Some(conn));
        upstream.connected = true;
        upstream.destination.connected(self.now_ms);
        self.touch(slot);
    }

    /// Bytes were received on `conn`.
    pub(super) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        pending: &mut PendingRequests,
        clients: &mut impl Clients,
    ) {
        let Some(&slot) = self.by_conn.get(&conn) else { return };
        let upstream = &mut self.upstreams[slot as usize];
        debug_assert_eq!(upstream.conn, Some(conn));
        upstream
            .destination
            .received(bytes, self.now_ms, &mut |number, event| pending.deliver(clients, number, event));
        self.touch(slot);
    }

    /// The connection broke, or could not be established.
    pub(super) fn closed(&mut self, conn: ConnId, pending: &mut PendingRequests, clients: &mut impl Clients) {
        let Some(slot) = self.by_conn.remove(&conn) else { return };
        let upstream = &mut self.upstreams[slot as usize];
        debug_assert_eq!(upstream.conn, Some(conn));
        upstream.conn = None;
        let mut sink = |number, event: ReplyEvent<'_>| {
            pending.deliver(clients, number, event);
        };
        if std::mem::take(&mut upstream.connected) {
            upstream.destination.closed(self.now_ms, &mut sink);
        } else {
            upstream.destination.connect_failed(io::ErrorKind::ConnectionRefused, self.now_ms, &mut sink);
        }
        self.touch(slot);
    }

    /// The socket of `conn` takes bytes again.
    pub(super) fn drained(&mut self, conn: ConnId) {
        if let Some(&slot) = self.by_conn.get(&conn) {
            self.touch(slot);
        }
    }

    fn touch(&mut self, slot: u32) {
        let upstream = &mut self.upstreams[slot as usize];
        if !upstream.touched {
            upstream.touched = true;
            self.touched.push(slot);
        }
    }

    // --- snapshots ---

    /// Takes over the servers and addresses of `snapshot`. Connections to servers that it names too stay
    /// open. Returns the slot of each destination of its tree.
    pub(super) fn adopt(&mut self, snapshot: Arc<Snapshot>) -> Box<[u32]> {
        for upstream in &mut self.upstreams {
            upstream.retired = true;
        }
        let slots: Box<[u32]> =
            snapshot.tree.destinations().iter().map(|destination| self.slot_of(destination)).collect();
        for slot in 0..self.upstreams.len() {
            let upstream = &mut self.upstreams[slot];
            // A server that moved is connected to again once nothing is in flight. One that had no address
            // gets one.
            let address = snapshot.addresses.get(&upstream.server).map(address_bytes);
            let moved = self.snapshot.addresses.get(&upstream.server).map(address_bytes) != address;
            if moved && (upstream.conn.is_some() || address.is_some()) {
                upstream.destination.moved(self.now_ms);
            }
            self.touch(slot as u32);
        }
        self.snapshot = snapshot;
        debug_assert!(slots.iter().all(|&slot| !self.upstreams[slot as usize].retired));
        slots
    }

    /// The slot of the server of `wanted`; a new one if the server has none.
    fn slot_of(&mut self, wanted: &route::Destination) -> u32 {
        let server = wanted.server.clone();
        if let Some(&slot) = self.by_server.get(&server) {
            let upstream = &mut self.upstreams[slot as usize];
            upstream.retired = false;
            upstream.destination.limit_concurrency(wanted.adaptive_concurrency);
            return slot;
        }
        let options = DestinationOptions {
            server_timeout_ms: u64::from(server.reply_timeout_ms),
            connect_timeout_ms: u64::from(server.connect_timeout_ms),
            connect_retries: self.options.connect_retries,
            inactive_reset_ms: self.options.inactive_reset_ms,
            limits: self.options.limits,
            health: self.options.health,
        };
        let seed = self.seed ^ (self.upstreams.len() as u64) << 32;
        // A destination that stays over a change of the configuration keeps the limits it was made with.
        let pool = wanted.ejected_limit.map(|EjectedLimit { upper, lower }| {
            let health = self.pools.entry((wanted.pool, upper, lower)).or_insert_with(|| {
                PoolHealth::new(EjectionThresholds { upper: upper as usize, lower: lower as usize })
            });
            Rc::clone(health)
        });
        let mut destination = Destination::new(server.address.to_string(), options, pool, seed);
        destination.limit_concurrency(wanted.adaptive_concurrency);
        let slot = u32::try_from(self.upstreams.len()).expect("fewer than 2^32 upstreams");
        self.upstreams.push(Upstream {
            destination,
            server: server.clone(),
            conn: None,
            connected: false,
            touched: false,
            retired: false,
        });
        self.by_server.insert(server, slot);
        slot
    }

    /// Gives up a destination that no tree names, as soon as it has no pending requests.
    fn release_retired(&mut self, slot: u32, pending: &mut PendingRequests, clients: &mut impl Clients) {
        let upstream = &mut self.upstreams[slot as usize];
        debug_assert!(upstream.retired);
        if upstream.destination.pending() == 0 && self.by_server.get(&upstream.server) == Some(&slot) {
            self.by_server.remove(&upstream.server);
            upstream.destination.abandon(self.now_ms, &mut |number, event| {
                pending.deliver(clients, number, event);
            });
            self.touch(slot); // its connection is to be closed
        }
    }

    // --- reports ---

    /// The destinations that the tree in use names.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.upstreams.iter().filter(|upstream| !upstream.retired).map(|upstream| &upstream.destination)
    }

    /// Requests without a reply, over all destinations, retired ones included.
    pub(super) fn pending(&self) -> usize {
        self.upstreams.iter().map(|upstream| upstream.destination.pending()).sum()
    }
}

/// Has `driver` connect to `server`, at the address that `snapshot` gives it.
fn connect(snapshot: &Snapshot, server: &Server, driver: &mut impl SecureDriver) -> io::Result<ConnId> {
    let address = snapshot.addresses.get(server).ok_or(io::ErrorKind::NotFound)?;
    if !server.tls {
        return driver.connect(address);
    }
    let trust = snapshot.trust.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let secure = trust.for_host(name_in_certificate(&server.address))?;
    driver.connect_secured(address, &secure)
}

/// The name that the certificate of a server at `address` must bear.
fn name_in_certificate(address: &Address) -> &str {
    match address {
        Address::Tcp { host, .. } => host,
        Address::Unix { .. } => "localhost",
    }
}

/// What tells one address from another.
fn address_bytes(address: &SockAddr) -> Option<(std::net::SocketAddr, bool)> {
    address.as_socket().map(|socket| (socket, address.is_unix()))
}
