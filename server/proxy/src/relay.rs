//! One shard's part of the proxy: requests for the keys it owns go to their destinations, and replies come
//! back.
//!
//! ```text
//! relay      the requests of clients, flushes, and what routes ask to be done
//! pending    requests without a reply, and the delivery of replies
//! upstreams  destinations with their connections, and their actions towards the driver
//! ```
//!
//! The shard's core brings requests ([`Relay::submit`]) and what the driver reported; [`Relay::finish_turn`]
//! then connects, sends and closes. Clients get their replies through [`Clients`]. The relay takes no lock,
//! reads no clock and never blocks.

mod pending;
mod setup;
#[cfg(test)]
mod tests;
mod upstreams;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use corecached_net::tls::SecureDriver;
use corecached_net::{Close, ConnId};
use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, ErrorKind, Exptime, Reply};
use corecached_shard::clients::Clients;
use corecached_shard::mesh::message::ReplyTo;
use crossbeam_channel::Receiver;

use crate::binary::Scratch;
use crate::merge::Merge;
use crate::reply_format::ReplyFormat;
use crate::request::{Operation, OwnedRequest};
use crate::route::{self, Action, ErrorDowngrade, Execution, ExecutionLimits, Routes, Tree};
use crate::spool::{Spooler, Undelivered};
use crate::upstream::{Destination, failure};
use pending::{ClientRequest, PendingRequest, PendingRequests};
pub use setup::{RelaySetup, Snapshot, UpstreamOptions};
use upstreams::Upstreams;

/// The proxy's part of one shard.
#[derive(Debug)]
pub struct Relay {
    updates: Receiver<Arc<Snapshot>>,
    routes: Rc<Routes>,
    execution: Execution,
    upstreams: Upstreams,
    pending: PendingRequests,
    flushes: Flushes,
    /// What routes have asked for and is not done yet.
    actions: Vec<Action>,
    /// Requests of clients, by operation.
    requests: [u64; Operation::NAMES.len()],
    spooler: Option<Spooler>,
    /// Deletes that the spooler took.
    spooled: u64,
    /// Unix milliseconds of this turn.
    now_ms: u64,
    /// When a destination or a route next needs to know the time, unix milliseconds; never later than that.
    tick_at_ms: u64,
}

/// The `flush_all` commands that not every destination has answered.
#[derive(Debug)]
struct Flushes {
    by_number: HashMap<u64, Flush>,
    /// The number of the next one.
    next_number: u64,
    /// Counts, over all shards, every `flush_all` when it is sent and when it is answered.
    count: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Flush {
    request: ClientRequest,
    /// Destinations that have not answered.
    missing: usize,
    /// The last error that a destination answered, else `Reply::Done`.
    result: Reply,
}

impl Relay {
    /// A relay without pending requests.
    #[must_use]
    pub(crate) fn new(setup: RelaySetup) -> Self {
        let RelaySetup { snapshot, updates, options, spooler, seed } = setup;
        let mut upstreams = Upstreams::new(Arc::clone(&snapshot), &options, seed);
        let slots = upstreams.adopt(Arc::clone(&snapshot));
        let count = Arc::clone(&options.merge.flushes);
        Self {
            updates,
            routes: Rc::new(Routes::with_places(Arc::clone(&snapshot.tree), slots)),
            execution: Execution::new(&ExecutionLimits::default(), seed),
            upstreams,
            pending: PendingRequests::new(Merge::new(&options.merge)),
            flushes: Flushes { by_number: HashMap::new(), next_number: 0, count },
            actions: Vec::new(),
            requests: [0; Operation::NAMES.len()],
            spooler,
            spooled: 0,
            now_ms: 0,
            tick_at_ms: u64::MAX,
        }
    }

    // --- the turn ---

    /// Begins a turn at `now_ms`, unix milliseconds, which never goes back: takes over new snapshots, and
    /// tells the time to destinations and routes if the deadline of one has come.
    pub(crate) fn begin_turn(&mut self, now_ms: u64, clients: &mut impl Clients) {
        self.now_ms = now_ms;
        self.upstreams.begin_turn(now_ms);
        self.pending.begin_turn(now_ms);
        while let Ok(snapshot) = self.updates.try_recv() {
            self.adopt(snapshot);
        }
        if now_ms < self.tick_at_ms {
            return;
        }
        self.tick_at_ms = self.upstreams.tick(&mut self.pending, clients);
        self.execution.tick(now_ms, &mut self.actions);
        self.perform_actions();
    }

    /// When [`Relay::begin_turn`] has something to do at the latest, unix milliseconds.
    #[must_use]
    pub(crate) const fn next_deadline_ms(&self) -> u64 {
        self.tick_at_ms
    }

    /// Delivers what is left to deliver, then connects, sends and closes as the destinations ask for it.
    pub(crate) fn finish_turn(&mut self, driver: &mut impl SecureDriver, clients: &mut impl Clients) {
        loop {
            self.deliver_finished(clients);
            let Some(slot) = self.upstreams.take_touched() else { return };
            let deadline_ms = self.upstreams.carry_out_actions(slot, driver, &mut self.pending, clients);
            self.tick_at_ms = self.tick_at_ms.min(deadline_ms);
        }
    }

    /// Routes requests by another tree from now on. Pending ones go on by the old one; connections to servers
    /// that both trees name stay open.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let slots = self.upstreams.adopt(Arc::clone(&snapshot));
        self.routes = Rc::new(Routes::with_places(Arc::clone(&snapshot.tree), slots));
    }

    // --- requests ---

    /// Sends `command`, with `data` as its value, to the destinations that the routes say. Its reply goes to
    /// `to` on shard `from`. `hash` is that of the command's key without its routing prefix. A command
    /// without a key is ignored.
    pub(crate) fn submit(&mut self, from: usize, to: ReplyTo, command: &Command<'_>, hash: u64, data: &[u8]) {
        let Some(key) = command.key() else { return };
        let format = ReplyFormat::for_command(command);
        let buffer = self.pending.key_buffer(key);
        let mut scratch;
        let (command, downgrade) = match command {
            Command::Binary(binary) => {
                scratch = Scratch::new();
                let Some(command) = scratch.translate(binary) else {
                    let request = ClientRequest::new(from, to, format, ErrorDowngrade::None, buffer);
                    let number = self.pending.insert(PendingRequest::Client(request));
                    return self.pending.finish(number, failure(ErrorKind::BadKey));
                };
                (command, self.routes.tree().downgrade_of_binary(&command))
            }
            command => (*command, self.routes.tree().downgrade_of(command)),
        };
        let command = &command;
        if let Some(operation) = Operation::from_command(command) {
            self.requests[operation as usize] += 1;
        }
        let mut request = ClientRequest::new(from, to, format, downgrade, buffer);
        if self.pending.merge().is_some() {
            match self.pending.merge_request(request, command, hash) {
                Some(to_send) => request = to_send,
                None => return,
            }
        }
        let number = self.pending.insert_client(request);
        if let Some(id) = self.routes.direct(key, command) {
            let slot = self.routes.place(id);
            if let Err(reply) = self.upstreams.request(slot, command, data, number, false) {
                self.pending.finish(number, reply);
            }
            return;
        }
        match OwnedRequest::new(command, Bytes::copy_from_slice(data)) {
            Some(request) => {
                let routes = Rc::clone(&self.routes);
                self.execution.begin(&routes, request, number, self.now_ms, &mut self.actions);
                self.perform_actions();
            }
            None => self.pending.finish(number, failure(ErrorKind::Local)),
        }
    }

    /// Answers `command`, which nobody else is asked, with `reply`, as [`Relay::submit`] would.
    pub(crate) fn answer(&mut self, from: usize, to: ReplyTo, command: &Command<'_>, reply: Reply) {
        let Some(key) = command.key() else { return };
        let (format, buffer) = (ReplyFormat::for_command(command), self.pending.key_buffer(key));
        let request = ClientRequest::new(from, to, format, ErrorDowngrade::None, buffer);
        let number = self.pending.insert(PendingRequest::Client(request));
        self.pending.finish(number, reply);
    }

    /// Does what routes have asked for: sends requests, answers those of clients, and spools deletes.
    fn perform_actions(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send { call, place: slot, request, may_be_refused } => {
                    let number = self.pending.insert(PendingRequest::Call(call));
                    let (command, data) = (request.command(), request.data());
                    if let Err(reply) = self.upstreams.request(slot, &command, data, number, may_be_refused) {
                        self.pending.finish(number, reply);
                    }
                }
                Action::Answer { ticket, reply } => self.pending.finish(ticket, reply),
                Action::Keep { call, place: slot, request } => {
                    let number = self.pending.insert(PendingRequest::Call(call));
                    let address = self.upstreams.address(slot).clone();
                    let undelivered = Undelivered { address, key: request.key().clone() };
                    let taken = self.spooler.as_ref().is_some_and(|spooler| spooler.take(undelivered));
                    self.spooled += u64::from(taken);
                    let reply = if taken { Reply::NotFound } else { failure(ErrorKind::Local) };
                    self.pending.finish(number, reply);
                }
            }
        }
        debug_assert!(self.actions.is_empty(), "to perform an action asks for no other");
        self.actions = actions;
        let deadline_ms = self.execution.next_deadline_ms().unwrap_or(u64::MAX);
        self.tick_at_ms = self.tick_at_ms.min(deadline_ms);
    }

    /// Delivers whole replies to the clients, routes and flushes that wait for them, until none are left: a
    /// reply to a route may lead to others.
    fn deliver_finished(&mut self, clients: &mut impl Clients) {
        while self.pending.has_finished() {
            let mut finished = self.pending.take_finished();
            for (number, reply) in finished.drain(..) {
                if self.pending.is_of_client(number) {
                    self.pending.deliver(clients, number, ReplyEvent::Reply(reply));
                    continue;
                }
                match self.pending.remove(number) {
                    Some(PendingRequest::Call(call)) => {
                        self.execution.replied(call, reply, self.now_ms, &mut self.actions);
                        self.perform_actions();
                    }
                    Some(PendingRequest::Flush(flush)) => self.destination_flushed(flush, reply, clients),
                    Some(PendingRequest::Client(_)) | None => {
                        debug_assert!(false, "a reply to request {number}, which is not pending");
                    }
                }
            }
            self.pending.give_back(finished);
        }
    }

    // --- flushes ---

    /// Sends `flush_all` to every destination. The client gets the last error among their replies, or success if
    /// there was none, in this `format`.
    pub(crate) fn flush_all(
        &mut self,
        to: ReplyTo,
        from: usize,
        delay: Option<Exptime>,
        format: ReplyFormat,
    ) {
        let request = ClientRequest::new(from, to, format, ErrorDowngrade::None, Vec::new());
        let slots = self.upstreams.slots_in_use();
        if slots.is_empty() {
            let number = self.pending.insert(PendingRequest::Client(request));
            return self.pending.finish(number, Reply::Done);
        }
        let flush = self.flushes.begin(request, slots.len());
        let command = Command::FlushAll { delay, noreply: false };
        for slot in slots {
            let number = self.pending.insert(PendingRequest::Flush(flush));
            if let Err(reply) = self.upstreams.request(slot, &command, b"", number, false) {
                self.pending.finish(number, reply);
            }
        }
    }

    /// One destination has answered the flush with this number. After the last one the client gets its reply.
    fn destination_flushed(&mut self, number: u64, reply: Reply, clients: &mut impl Clients) {
        let Some((mut request, result)) = self.flushes.answered(number, reply) else { return };
        request.deliver(&ReplyEvent::Reply(result), clients);
        self.pending.release(request);
    }

    // --- connections ---

    /// Whether `conn` is a connection to an upstream.
    #[inline]
    #[must_use]
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.upstreams.owns(conn)
    }

    /// The connection was established.
    pub(crate) fn connected(&mut self, conn: ConnId) {
        self.upstreams.connected(conn);
    }

    /// Bytes were received on `conn`.
    pub(crate) fn received(&mut self, conn: ConnId, bytes: &[u8], clients: &mut impl Clients) {
        self.upstreams.received(conn, bytes, &mut self.pending, clients);
    }

    /// The other end will send nothing more, which is its way to close: the connection is closed from here
    /// too.
    pub(crate) fn ended(&mut self, conn: ConnId, driver: &mut impl SecureDriver, clients: &mut impl Clients) {
        if self.owns(conn) {
            driver.close(conn, Close::Now);
            self.closed(conn, clients);
        }
    }

    /// The connection broke, or could not be established.
    pub(crate) fn closed(&mut self, conn: ConnId, clients: &mut impl Clients) {
        self.upstreams.closed(conn, &mut self.pending, clients);
    }

    /// The socket of `conn` takes bytes again.
    pub(crate) fn drained(&mut self, conn: ConnId) {
        self.upstreams.drained(conn);
    }

    // --- reports ---

    /// Requests of clients that did `operation`.
    #[must_use]
    pub(crate) const fn requests(&self, operation: Operation) -> u64 {
        self.requests[operation as usize]
    }

    /// Deletes that failed and that the spooler took.
    #[must_use]
    pub(crate) const fn spooled(&self) -> u64 {
        self.spooled
    }

    /// The tree of routes in use.
    #[must_use]
    pub(crate) fn tree(&self) -> &Arc<Tree> {
        self.routes.tree()
    }

    /// What of the requests can be answered without being sent; `None` if that is switched off.
    #[must_use]
    pub(crate) fn merge(&self) -> Option<&Merge> {
        self.pending.merge()
    }

    /// Counts of what became of keys whose pool changed.
    #[must_use]
    pub(crate) const fn resize_counters(&self) -> &route::ResizeCounters {
        self.execution.resize_counters()
    }

    /// Counts of what was done against slow servers.
    #[must_use]
    pub(crate) const fn tail_counters(&self) -> &route::TailCounters {
        self.execution.tail_counters()
    }

    /// Pending requests: those of clients, and those that routes and flushes made of them.
    #[must_use]
    pub(crate) fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// Connections to destinations, those that are being established included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.upstreams.connections()
    }

    /// What must be empty once no request is pending, each with its count. For tests.
    #[must_use]
    pub fn left_behind(&self) -> Vec<(&'static str, usize)> {
        let mut left = vec![
            ("requests that wait", self.under_way()),
            ("requests to destinations", self.upstreams.pending()),
            ("frames of routes", self.execution.frames()),
            ("calls of routes", self.execution.calls()),
            ("requests that are delayed", self.execution.delayed()),
            ("flushes", self.flushes.by_number.len()),
            ("gets that others may join", self.merge().map_or(0, Merge::flights)),
        ];
        left.extend(self.pending.left_behind());
        left
    }

    /// The destinations that are in use, for `stats` and metrics.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.upstreams.destinations()
    }
}

impl Flushes {
    /// Adds the flush of `request`, which `destinations` will answer. Returns its number.
    fn begin(&mut self, request: ClientRequest, destinations: usize) -> u64 {
        assert!(destinations > 0, "a flush that nobody answers would never end");
        self.count.fetch_add(1, Ordering::Release);
        let number = self.next_number;
        self.next_number += 1;
        self.by_number.insert(number, Flush { request, missing: destinations, result: Reply::Done });
        number
    }

    /// A destination has answered flush `number` with `reply`. Returns the request and its result after the
    /// last one.
    fn answered(&mut self, number: u64, reply: Reply) -> Option<(ClientRequest, Reply)> {
        let flush = self.by_number.get_mut(&number);
        debug_assert!(flush.is_some(), "flush {number} was answered more often than it was sent");
        let flush = flush?;
        assert!(flush.missing > 0, "a flush ends with the last of its replies");
        flush.missing -= 1;
        if let Reply::Error { .. } = reply {
            flush.result = reply;
        }
        if flush.missing > 0 {
            return None;
        }
        let Flush { request, result, .. } = self.by_number.remove(&number)?;
        self.count.fetch_add(1, Ordering::Release);
        Some((request, result))
    }
}
