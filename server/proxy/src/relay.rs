//! One shard's part of the proxy: requests for the keys it owns go to their destinations, and replies come back.
//!
//! Owns the shard's routes, its destinations with their connections, and every request under way. The shard's core
//! brings requests ([`Relay::submit`]) and what the driver reported; [`Relay::finish_turn`] then connects, sends and
//! closes. What the clients get goes to [`Clients`]. No lock, no clock of its own, no blocking.

mod waiting;

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, ErrorKind, Exptime, Reply};
use crossbeam_channel::Receiver;
use socket2::SockAddr;

use super::config::{Address, EjectedLimit, PoolId, Server};
use super::merge::{Merge, MergeOptions, Role};
use super::request::{Operation, OwnedRequest, key_of};
use super::route::{self, Action, ErrorDowngrade, Execution, ExecutionLimits, Routes, Tree};
use super::shape::Shape;
use super::spool::{Spooler, Undelivered};
use super::upstream::{self, Destination, HealthOptions, Options, PoolHealth, Thresholds};
use corecached_net::outbox::HIGH_WATER_BYTES;
use corecached_net::tls::SecureDriver;
use corecached_net::tls::Trust;
use corecached_net::{Close, ConnId, Send};
use corecached_shard::clients::Clients;
use corecached_shard::mesh::message::ReplyTo;
use waiting::{Asked, Waiter, Waiting};

/// What the control thread found out, made anew whenever something changes.
#[derive(Debug)]
pub struct Snapshot {
    /// Where requests go.
    pub tree: Arc<Tree>,
    /// Where the servers of the tree are; one that is not among them cannot be reached now.
    pub addresses: HashMap<Server, SockAddr>,
    /// Whom secured destinations must be signed by.
    pub trust: Option<Arc<Trust>>,
}

/// What the command line says about destinations; the rest of their options is in the tree.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// `--reset-inactive-connection-interval`, ms
    pub inactive_reset_ms: u64,
    /// `--connect-timeout-retries`
    pub connect_retries: u32,
    /// `--target-max-pending-requests`, `--target-max-inflight-requests`
    pub limits: upstream::Limits,
    /// `--timeouts-until-tko`, `--probe-timeout-*`, `--disable-tko-tracking`
    pub health: HealthOptions,
    /// `--single-flight`, `--hot-*`
    pub merge: MergeOptions,
}

/// What a relay is made from, on its shard's thread.
#[derive(Clone, Debug)]
pub struct RelaySetup {
    /// To begin with.
    pub snapshot: Arc<Snapshot>,
    /// What follows.
    pub updates: Receiver<Arc<Snapshot>>,
    /// Of all destinations.
    pub options: UpstreamOptions,
    /// Takes the deletes that no destination takes.
    pub spooler: Option<Spooler>,
    /// Decides what is random.
    pub seed: u64,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Relay {
    updates: Receiver<Arc<Snapshot>>,
    options: UpstreamOptions,
    snapshot: Arc<Snapshot>,
    routes: Rc<Routes>,
    execution: Execution,
    /// Places stay what they are while anything refers to them.
    upstreams: Vec<Upstream>,
    by_server: HashMap<Server, u32>,
    /// What destinations share that may not all be ejected, by pool and its limits.
    pools: HashMap<(PoolId, u32, u32), Rc<PoolHealth>>,
    /// By the driver's place: which upstream a connection is to.
    by_conn: HashMap<ConnId, u32>,
    waiting: Waiting,
    /// Upstreams that something happened to in this turn.
    touched: Vec<u32>,
    actions: Vec<Action>,
    /// Requests of clients, by operation.
    asked: [u64; Operation::NAMES.len()],
    spooler: Option<Spooler>,
    /// Deletes that it took.
    kept: u64,
    flushes: HashMap<u64, Flush>,
    flushes_begun: u64,
    now_ms: u64,
    /// When an upstream next wants to be told the time; never later than it does.
    tick_at_ms: u64,
    seed: u64,
}

#[derive(Debug)]
struct Upstream {
    destination: Destination,
    server: Server,
    conn: Option<ConnId>,
    /// The driver has said that `conn` stands.
    connected: bool,
    touched: bool,
    /// No tree names it any more.
    retired: bool,
}

/// A `flush_all` under way.
#[derive(Debug)]
struct Flush {
    asked: Asked,
    missing: usize,
    /// An error, if there was one.
    worst: Reply,
}

impl Relay {
    /// A relay with nothing under way.
    #[must_use]
    pub fn new(setup: RelaySetup) -> Self {
        let RelaySetup { snapshot, updates, options, spooler, seed } = setup;
        let mut relay = Self {
            updates,
            routes: Rc::new(Routes::new(Arc::clone(&snapshot.tree))),
            snapshot: Arc::clone(&snapshot),
            execution: Execution::new(&ExecutionLimits::default(), seed),
            upstreams: Vec::new(),
            by_server: HashMap::new(),
            pools: HashMap::new(),
            by_conn: HashMap::new(),
            waiting: Waiting::new(Merge::new(&options.merge)),
            options,
            touched: Vec::new(),
            actions: Vec::new(),
            asked: [0; Operation::NAMES.len()],
            spooler,
            kept: 0,
            flushes: HashMap::new(),
            flushes_begun: 0,
            now_ms: 0,
            tick_at_ms: u64::MAX,
            seed,
        };
        relay.adopt(snapshot);
        relay
    }

    // --- the turn ---

    /// The time, unix milliseconds, once a turn; destinations whose deadlines have come are told.
    pub fn begin_turn(&mut self, now_ms: u64, clients: &mut impl Clients) {
        self.now_ms = now_ms;
        self.waiting.now_ms = now_ms;
        if let Some(merge) = &mut self.waiting.merge {
            merge.begin_turn();
        }
        while let Ok(snapshot) = self.updates.try_recv() {
            self.adopt(snapshot);
        }
        if now_ms < self.tick_at_ms {
            return;
        }
        self.tick_at_ms = u64::MAX;
        for place in 0..self.upstreams.len() {
            let Self { upstreams, waiting, .. } = self;
            let upstream = &mut upstreams[place];
            upstream.destination.tick(now_ms, &mut |waiter, event| waiting.step(clients, waiter, event));
            let deadline_ms = upstream.destination.next_deadline().unwrap_or(u64::MAX);
            self.tick_at_ms = self.tick_at_ms.min(deadline_ms);
            self.touch(place as u32);
        }
        self.execution.tick(now_ms, &mut self.actions);
        self.act();
    }

    /// When [`Relay::begin_turn`] has something to do at the latest, unix milliseconds.
    #[must_use]
    pub const fn next_deadline_ms(&self) -> u64 {
        self.tick_at_ms
    }

    /// Connect, send and close as the destinations want it.
    pub fn finish_turn(&mut self, driver: &mut impl SecureDriver, clients: &mut impl Clients) {
        loop {
            self.settle(clients);
            let Some(place) = self.touched.pop() else { return };
            self.upstreams[place as usize].touched = false;
            self.drive(place, driver, clients);
        }
    }

    fn drive(&mut self, place: u32, driver: &mut impl SecureDriver, clients: &mut impl Clients) {
        let now_ms = self.now_ms;
        let Self { upstreams, waiting, by_conn, snapshot, .. } = self;
        let upstream = &mut upstreams[place as usize];
        loop {
            match upstream.destination.next_action(now_ms) {
                Some(upstream::Action::Connect) => {
                    let begun = match snapshot.addresses.get(&upstream.server) {
                        Some(address) if upstream.server.tls => snapshot
                            .trust
                            .as_ref()
                            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
                            .and_then(|trust| trust.towards(host_of(&upstream.server.address)))
                            .and_then(|secure| driver.connect_secured(address, &secure)),
                        Some(address) => driver.connect(address),
                        None => Err(io::ErrorKind::NotFound.into()),
                    };
                    match begun {
                        Ok(conn) => {
                            by_conn.insert(conn, place);
                            (upstream.conn, upstream.connected) = (Some(conn), false);
                        }
                        Err(error) => {
                            upstream.destination.connect_failed(
                                error.kind(),
                                now_ms,
                                &mut |waiter, event| {
                                    waiting.step(clients, waiter, event);
                                },
                            );
                        }
                    }
                }
                Some(upstream::Action::Send) => {
                    let Some(conn) = upstream.conn else { break };
                    // A destination that does not read keeps its requests; their bound is its own. Closing it, or
                    // connecting anew, waits for nothing.
                    if driver.backlog(conn) > HIGH_WATER_BYTES {
                        break;
                    }
                    let (out, sends) = clients.output();
                    let start = out.len();
                    upstream.destination.take_output(out, now_ms);
                    sends.push(Send::Bytes { conn, start, end: out.len(), queued: false });
                }
                Some(upstream::Action::Close) => {
                    if let Some(conn) = upstream.conn.take() {
                        by_conn.remove(&conn);
                        driver.close(conn, Close::Now);
                    }
                    upstream.connected = false;
                }
                None => break,
            }
        }
        let deadline_ms = upstream.destination.next_deadline().unwrap_or(u64::MAX);
        self.tick_at_ms = self.tick_at_ms.min(deadline_ms);
        if self.upstreams[place as usize].retired {
            self.forget_retired(place, clients);
        }
    }

    // --- requests ---

    /// Send `command`, with `data` as its value, where its key belongs; the answer goes to `to` on shard `from`. `hash` is
    /// that of its key without a routing prefix.
    pub fn submit(&mut self, from: usize, to: ReplyTo, command: &Command<'_>, hash: u64, data: &[u8]) {
        let Some(key) = key_of(command) else { return };
        if let Some(operation) = Operation::of(command) {
            self.asked[operation as usize] += 1;
        }
        let downgrade = self.routes.tree().downgrade_of(command);
        let (shape, buffer) = (Shape::of(command), self.waiting.key(key));
        let mut asked = Asked {
            from,
            to,
            shape,
            downgrade,
            key: buffer,
            begun: false,
            role: Role::Plain,
            followers: Vec::new(),
        };
        if self.waiting.merge.is_some() {
            match self.waiting.merged(asked, command, hash) {
                Some(sent) => asked = sent,
                None => return,
            }
        }
        let role = asked.role;
        let waiter = self.waiting.insert(Waiter::Client(asked));
        if let (Role::Leads { hash, .. }, Some(merge)) = (role, &mut self.waiting.merge) {
            merge.sent(hash, waiter);
        }
        if let Some(id) = self.routes.direct(key, command) {
            let place = self.routes.place(id);
            let now_ms = self.now_ms;
            match self.upstreams[place as usize].destination.request(command, data, waiter, false, now_ms) {
                Ok(()) => self.touch(place),
                Err(reply) => self.waiting.done.push((waiter, reply)),
            }
            return;
        }
        match OwnedRequest::new(command, Bytes::copy_from_slice(data)) {
            Some(request) => {
                let routes = Rc::clone(&self.routes);
                self.execution.begin(&routes, request, waiter, self.now_ms, &mut self.actions);
                self.act();
            }
            None => self.waiting.done.push((waiter, upstream::failure(ErrorKind::Local))),
        }
    }

    fn act(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send { call, place, request, may_be_refused } => {
                    let waiter = self.waiting.insert(Waiter::Call(call));
                    let now_ms = self.now_ms;
                    let destination = &mut self.upstreams[place as usize].destination;
                    let (command, data) = (request.command(), request.data());
                    match destination.request(&command, data, waiter, may_be_refused, now_ms) {
                        Ok(()) => self.touch(place),
                        Err(reply) => self.waiting.done.push((waiter, reply)),
                    }
                }
                Action::Answer { ticket, reply } => self.waiting.done.push((ticket, reply)),
                Action::Keep { call, place, request } => {
                    let waiter = self.waiting.insert(Waiter::Call(call));
                    let address = self.upstreams[place as usize].server.address.clone();
                    let undelivered = Undelivered { address, key: request.key().clone() };
                    let kept = self.spooler.as_ref().is_some_and(|spooler| spooler.take(undelivered));
                    self.kept += u64::from(kept);
                    let reply = if kept { Reply::NotFound } else { upstream::failure(ErrorKind::Local) };
                    self.waiting.done.push((waiter, reply));
                }
            }
        }
        self.actions = actions;
        let deadline_ms = self.execution.next_deadline_ms().unwrap_or(u64::MAX);
        self.tick_at_ms = self.tick_at_ms.min(deadline_ms);
    }

    /// Tell those who wait what came for them, until nothing follows from it.
    fn settle(&mut self, clients: &mut impl Clients) {
        while !self.waiting.done.is_empty() {
            let mut done = std::mem::take(&mut self.waiting.done);
            for (waiter, reply) in done.drain(..) {
                if let Some(Some(Waiter::Client(_))) = self.waiting.places.get(waiter as usize) {
                    self.waiting.step(clients, waiter, ReplyEvent::Reply(reply));
                    continue;
                }
                match self.waiting.remove(waiter) {
                    Some(Waiter::Call(call)) => {
                        self.execution.replied(call, reply, self.now_ms, &mut self.actions);
                        self.act();
                    }
                    Some(Waiter::Flush(number)) => self.flushed(number, reply, clients),
                    Some(Waiter::Client(_)) | None => debug_assert!(false, "a reply nobody waits for"),
                }
            }
            if self.waiting.done.is_empty() {
                self.waiting.done = done;
            }
        }
    }

    /// `flush_all`, to every destination; the worst of their replies is the answer.
    pub fn flush_all(&mut self, to: ReplyTo, from: usize, delay: Option<Exptime>, noreply: bool) {
        let shape = if noreply { Shape::Silence } else { Shape::Line };
        let asked = Asked {
            from,
            to,
            shape,
            downgrade: ErrorDowngrade::None,
            key: Vec::new(),
            begun: false,
            role: Role::Plain,
            followers: Vec::new(),
        };
        let places: Vec<u32> = (0..self.upstreams.len() as u32)
            .filter(|&place| !self.upstreams[place as usize].retired)
            .collect();
        if places.is_empty() {
            let waiter = self.waiting.insert(Waiter::Client(asked));
            return self.waiting.done.push((waiter, Reply::Done));
        }
        self.options.merge.flushes.fetch_add(1, Ordering::Release);
        let number = self.flushes_begun;
        self.flushes_begun += 1;
        self.flushes.insert(number, Flush { asked, missing: places.len(), worst: Reply::Done });
        let command = Command::FlushAll { delay, noreply: false };
        for place in places {
            let waiter = self.waiting.insert(Waiter::Flush(number));
            let now_ms = self.now_ms;
            match self.upstreams[place as usize].destination.request(&command, b"", waiter, false, now_ms) {
                Ok(()) => self.touch(place),
                Err(reply) => self.waiting.done.push((waiter, reply)),
            }
        }
    }

    fn flushed(&mut self, number: u64, reply: Reply, clients: &mut impl Clients) {
        let Some(flush) = self.flushes.get_mut(&number) else { return };
        flush.missing -= 1;
        if let Reply::Error { .. } = reply {
            flush.worst = reply;
        }
        if flush.missing == 0
            && let Some(Flush { asked, worst, .. }) = self.flushes.remove(&number)
        {
            self.options.merge.flushes.fetch_add(1, Ordering::Release);
            self.answer(asked, worst, clients);
        }
    }

    fn answer(&mut self, mut asked: Asked, reply: Reply, clients: &mut impl Clients) {
        asked.told(&ReplyEvent::Reply(reply), clients);
        self.waiting.forget(asked);
    }

    // --- connections ---

    /// Whether `conn` is one of ours.
    #[inline]
    #[must_use]
    pub fn owns(&self, conn: ConnId) -> bool {
        self.by_conn.contains_key(&conn)
    }

    /// It stands.
    pub fn connected(&mut self, conn: ConnId) {
        let Some(&place) = self.by_conn.get(&conn) else { return };
        let upstream = &mut self.upstreams[place as usize];
        upstream.connected = true;
        upstream.destination.connected(self.now_ms);
        self.touch(place);
    }

    /// Bytes came.
    pub fn received(&mut self, conn: ConnId, bytes: &[u8], clients: &mut impl Clients) {
        let Some(&place) = self.by_conn.get(&conn) else { return };
        let Self { upstreams, waiting, now_ms, .. } = self;
        upstreams[place as usize]
            .destination
            .received(bytes, *now_ms, &mut |waiter, event| waiting.step(clients, waiter, event));
        self.touch(place);
    }

    /// The other end will send nothing more, which is its way to close: so do we.
    pub fn ended(&mut self, conn: ConnId, driver: &mut impl SecureDriver, clients: &mut impl Clients) {
        if self.owns(conn) {
            driver.close(conn, Close::Now);
            self.closed(conn, clients);
        }
    }

    /// It broke, or could not be made.
    pub fn closed(&mut self, conn: ConnId, clients: &mut impl Clients) {
        let Some(place) = self.by_conn.remove(&conn) else { return };
        let Self { upstreams, waiting, now_ms, .. } = self;
        let upstream = &mut upstreams[place as usize];
        let mut sink = |waiter: u64, event: ReplyEvent<'_>| waiting.step(clients, waiter, event);
        upstream.conn = None;
        if std::mem::take(&mut upstream.connected) {
            upstream.destination.closed(*now_ms, &mut sink);
        } else {
            upstream.destination.connect_failed(io::ErrorKind::ConnectionRefused, *now_ms, &mut sink);
        }
        self.touch(place);
    }

    /// Its socket takes bytes again.
    pub fn drained(&mut self, conn: ConnId) {
        if let Some(&place) = self.by_conn.get(&conn) {
            self.touch(place);
        }
    }

    fn touch(&mut self, place: u32) {
        let upstream = &mut self.upstreams[place as usize];
        if !upstream.touched {
            upstream.touched = true;
            self.touched.push(place);
        }
    }

    // --- updates ---

    /// Route by another tree from now on. What is under way goes on by the old one; connections to servers that both
    /// name stay.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        for upstream in &mut self.upstreams {
            upstream.retired = true;
        }
        let places: Box<[u32]> =
            snapshot.tree.destinations().iter().map(|destination| self.place_of(destination)).collect();
        self.routes = Rc::new(Routes::with_places(Arc::clone(&snapshot.tree), places));
        for place in 0..self.upstreams.len() {
            let upstream = &mut self.upstreams[place];
            // One that moved is connected to anew, as soon as nothing is under way; one that was nowhere is found.
            let now_at = snapshot.addresses.get(&upstream.server).map(address_bytes);
            let moved = self.snapshot.addresses.get(&upstream.server).map(address_bytes) != now_at;
            if moved && (upstream.conn.is_some() || now_at.is_some()) {
                upstream.destination.moved(self.now_ms);
            }
            self.touch(place as u32);
        }
        self.snapshot = snapshot;
    }

    fn place_of(&mut self, wanted: &route::Destination) -> u32 {
        let server = wanted.server.clone();
        if let Some(&place) = self.by_server.get(&server) {
            let upstream = &mut self.upstreams[place as usize];
            upstream.retired = false;
            upstream.destination.limit_concurrency(wanted.adaptive_concurrency);
            return place;
        }
        let options = Options {
            server_timeout_ms: u64::from(server.reply_timeout_ms),
            connect_timeout_ms: u64::from(server.connect_timeout_ms),
            connect_retries: self.options.connect_retries,
            inactive_reset_ms: self.options.inactive_reset_ms,
            limits: self.options.limits,
            health: self.options.health,
        };
        let seed = self.seed ^ (self.upstreams.len() as u64) << 32;
        // Destinations that stay over a change of the configuration keep the limits they came with.
        let pool = wanted.ejected_limit.map(|EjectedLimit { upper, lower }| {
            let health = self.pools.entry((wanted.pool, upper, lower)).or_insert_with(|| {
                PoolHealth::new(Thresholds { upper: upper as usize, lower: lower as usize })
            });
            Rc::clone(health)
        });
        let mut destination = Destination::new(server.address.to_string(), options, pool, seed);
        destination.limit_concurrency(wanted.adaptive_concurrency);
        let place = self.upstreams.len() as u32;
        self.upstreams.push(Upstream {
            destination,
            server: server.clone(),
            conn: None,
            connected: false,
            touched: false,
            retired: false,
        });
        self.by_server.insert(server, place);
        place
    }

    /// A destination that no tree names is let go of once nothing is under way to it.
    fn forget_retired(&mut self, place: u32, clients: &mut impl Clients) {
        let Self { upstreams, waiting, now_ms, by_server, .. } = self;
        let upstream = &mut upstreams[place as usize];
        if upstream.destination.pending() == 0 && by_server.get(&upstream.server) == Some(&place) {
            by_server.remove(&upstream.server);
            upstream.destination.abandon(*now_ms, &mut |waiter, event| {
                waiting.step(clients, waiter, event);
            });
            self.touch(place); // it wants to be closed
        }
    }

    /// Requests of clients that did `operation`.
    #[must_use]
    pub const fn asked(&self, operation: Operation) -> u64 {
        self.asked[operation as usize]
    }

    /// Deletes that failed and were kept for later.
    #[must_use]
    pub const fn kept(&self) -> u64 {
        self.kept
    }

    /// What was spared, if anything is to be.
    #[must_use]
    pub fn merge(&self) -> Option<&Merge> {
        self.waiting.merge.as_deref()
    }

    /// What became of keys whose pool changed.
    #[must_use]
    pub const fn resize_counters(&self) -> &route::ResizeCounters {
        self.execution.resize_counters()
    }

    /// What was kept from slow servers.
    #[must_use]
    pub const fn tail_counters(&self) -> &route::TailCounters {
        self.execution.tail_counters()
    }

    /// Requests without an answer.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.waiting.places.len() - self.waiting.free.len()
    }

    /// Connections to destinations, those that are being made included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.by_conn.len()
    }

    /// What there must be nothing of once nothing is under way.
    #[must_use]
    pub fn left_behind(&self) -> Vec<(&'static str, usize)> {
        let destinations = self.upstreams.iter().map(|upstream| &upstream.destination);
        let mut left = vec![
            ("requests that wait", self.under_way()),
            ("requests to destinations", destinations.map(Destination::pending).sum()),
            ("frames of routes", self.execution.frames()),
            ("calls of routes", self.execution.calls()),
            ("requests that are delayed", self.execution.delayed()),
            ("flushes", self.flushes.len()),
            ("gets that others may join", self.merge().map_or(0, Merge::flights)),
        ];
        left.extend(self.waiting.left_behind());
        left
    }

    /// Every destination that is in use, for `stats` and metrics.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.upstreams.iter().filter(|upstream| !upstream.retired).map(|upstream| &upstream.destination)
    }
}

/// The name that a certificate of it bears.
fn host_of(address: &Address) -> &str {
    match address {
        Address::Tcp { host, .. } => host,
        Address::Unix { .. } => "localhost",
    }
}

fn address_bytes(address: &SockAddr) -> Option<(std::net::SocketAddr, bool)> {
    address.as_socket().map(|socket| (socket, address.is_unix()))
}

#[cfg(test)]
mod tests;
