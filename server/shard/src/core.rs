//! What a shard knows, apart from its driver: its store, its sessions, its ends of the mesh, and the output of the
//! turn. Parsing and carrying out requests is in `requests.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corecached_engine::{Seconds, Store};
use corecached_protocol::{Limits, Parser};

use super::mesh::Mesh;
use super::message::{GATHER, Message, Piece, Reply, ReplyTo};
use super::slice::{Lent, Slices};
use crate::admin::prefixes::Prefixes;
use crate::admin::watch::Journal;
use crate::conn::session::Spares;
use crate::conn::{Session, State};
use crate::metrics::Counters;
use crate::net::{Close, ConnId, Driver, Event, Pinned, Send, Waker, outbox};
use crate::proxy::relay::{Clients, Relay, RelaySetup};
use crate::server::Shared;

/// Batches taken from the mesh in one turn, so that a flood of requests does not keep a shard from its own clients.
const BATCHES_PER_TURN: usize = 16;

/// Connections looked at in one go for being idle.
const IDLE_LOOKS: usize = 256;

/// How far the clock of milliseconds may lag.
const CLOCK_STEP_MS: u64 = 4;

/// Requests of a batch whose items are prefetched: three lines each, a share of the first-level cache.
const PREFETCH_MAX: usize = 64;

/// What a shard is made from.
pub struct CoreSetup {
    /// Its ends of the mesh.
    pub mesh: Mesh,
    /// Its store.
    pub store: Store,
    /// Where it goes, beside those of the other shards.
    pub slices: Slices<Store>,
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// Of a proxy: what it forwards to.
    pub relay: Option<RelaySetup>,
}

/// See the head of the file.
pub struct Core {
    pub(super) me: usize,
    pub(super) shared: Arc<Shared>,
    /// Its own slice; held except while parked.
    pub(super) store: Lent<Store>,
    /// The others' slices, by shard; held for the rest of a batch at most.
    pub(super) others: Vec<Lent<Store>>,
    /// Some of `others` are held.
    pub(super) borrowing: bool,
    pub(super) mesh: Mesh,
    /// Of a proxy: every request on a key goes there.
    pub(super) relay: Option<Box<Relay>>,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) prefixes: Option<Box<Prefixes>>,
    /// What anybody watches, as of this turn, and what was seen of it.
    pub(super) watched: u32,
    pub(super) journal: Journal,
    /// Connections of this shard that watch.
    pub(super) watching: Vec<ConnId>,
    /// Commands are counted by prefix, or watched.
    pub(super) observed: bool,
    /// Values being stored piece by piece: the shard and connection they come from. `None` once there was no room.
    pub(super) uploads: HashMap<(usize, ConnId), Option<corecached_engine::Upload>>,
    pub(super) now: Seconds,
    sessions: Vec<Option<Box<Session>>>,
    pub(super) spares: Spares,
    open: usize,
    /// Sessions with input to go on with, oldest first.
    run_list: VecDeque<ConnId>,
    /// Sessions something happened to in this turn.
    touched: Vec<u32>,
    /// Where what follows a value is received that goes straight to its place; empty until there is one.
    pub(super) behind_value: Vec<u8>,
    pub(super) out: Vec<u8>,
    sends: Vec<Send>,
    turn: u64,
    /// The store's memory limit, as last set.
    slice_bytes: usize,
    /// Of a proxy: the question of [`crate::metrics::Descriptions`] answered last.
    described: u64,
    /// The place from which idle connections are still to be looked for in this second.
    idle_at: usize,
    /// The upkeep of the store was cut short.
    upkeep_left: bool,
    drained: bool,
}

impl Core {
    pub(super) fn new(setup: CoreSetup) -> Self {
        let CoreSetup { mesh, store, slices, shared, relay } = setup;
        let store = slices.fill(mesh.me(), store);
        let others = (0..mesh.shards()).map(|shard| slices.other(shard)).collect();
        let config = &shared.config;
        let slice_bytes = shared.slice_bytes.load(Ordering::Relaxed);
        let prefixes = config.count_prefixes.then(|| Box::new(Prefixes::new(config.prefix_delimiter)));
        Self {
            me: mesh.me(),
            now: Seconds(shared.clock.now_s()),
            shared,
            store,
            others,
            borrowing: false,
            relay: relay.map(|setup| Box::new(Relay::new(setup))),
            mesh,
            limits: Limits::default(),
            counters: Counters::default(),
            watched: 0,
            journal: Journal::default(),
            watching: Vec::new(),
            observed: prefixes.is_some(),
            prefixes,
            uploads: HashMap::new(),
            sessions: Vec::new(),
            spares: Spares::default(),
            open: 0,
            run_list: VecDeque::new(),
            touched: Vec::new(),
            behind_value: Vec::new(),
            out: Vec::new(),
            sends: Vec::new(),
            turn: 0,
            slice_bytes,
            described: 0,
            idle_at: usize::MAX,
            upkeep_left: false,
            drained: false,
        }
    }

    pub(super) fn set_waker(&self, waker: Arc<Waker>) {
        self.shared.presence[self.me].set_waker(waker);
    }

    pub(super) fn now_s(&self) -> u32 {
        self.now.0
    }

    // --- the turn ---

    pub(super) fn has_work(&self) -> bool {
        !self.run_list.is_empty() || self.upkeep_left || self.idle_at < self.sessions.len() || self.stopping()
    }

    /// How long the driver may wait: at most `limit`, and not past a deadline of the proxy.
    pub(super) fn wait_limit(&self, limit: Duration) -> Duration {
        match &self.relay {
            Some(relay) => {
                let left_ms = relay.next_deadline_ms().saturating_sub(self.shared.clock.now_ms());
                // The clock may be a few milliseconds behind; not to look in vain again and again.
                limit.min(Duration::from_millis(left_ms.saturating_add(CLOCK_STEP_MS)))
            }
            None => limit,
        }
    }

    /// About to wait: peers wake us when they have something, or help themselves. False when there is work after all.
    pub(super) fn park(&mut self) -> bool {
        let parked = self.mesh.park();
        if parked {
            self.store.give_up();
        }
        parked
    }

    pub(super) fn unpark(&mut self) {
        self.store.take();
        self.mesh.unpark();
    }

    pub(super) fn begin_turn(&mut self, arena: Vec<u8>, waited: bool) {
        debug_assert!(arena.is_empty() && self.sends.is_empty());
        self.out = arena;
        self.turn += 1;
        self.counters.waits += u64::from(waited);
        let watched = self.shared.watch.watched();
        if watched != self.watched {
            self.watched = watched;
            self.observed = watched != 0 || self.prefixes.is_some();
        }
        let now = Seconds(self.shared.clock.now_s());
        if now > self.now {
            self.now = now;
            if self.shared.config.idle_timeout_s > 0 {
                self.idle_at = 0;
            }
            self.resize_store();
        }
        let now_ms = self.shared.clock.now_ms();
        self.with_relay(|relay, core| relay.begin_turn(now_ms, core));
        if let Some(relay) = &mut self.relay {
            let descriptions = &self.shared.descriptions;
            let asked = descriptions.asked();
            if asked != self.described
                && descriptions.answer(self.me, asked, || crate::proxy::stats::describe(relay))
            {
                self.described = asked;
            }
        }
    }

    /// Once a second: the store gets what the memory limit leaves it.
    fn resize_store(&mut self) {
        let bytes = self.shared.slice_bytes.load(Ordering::Relaxed);
        if bytes != self.slice_bytes && self.relay.is_none() {
            self.slice_bytes = bytes;
            // Refused when the largest item would not fit any more: then the old limit stays.
            let _ = self.store.set_memory_bytes(bytes, self.now);
        }
    }

    /// Replies and requests of the other shards. True when there were any.
    pub(super) fn take_messages(&mut self) -> bool {
        let mut any = false;
        while let Some((from, batch)) = self.mesh.take_replies() {
            any = true;
            self.take_batch(from, batch);
        }
        for _ in 0..BATCHES_PER_TURN {
            let Some((from, batch)) = self.mesh.take_requests() else { break };
            any = true;
            self.take_batch(from, batch);
        }
        any
    }

    /// What the control thread says to connections that asked for certificates to be read again. True when there was
    /// any.
    pub(super) fn take_refreshed(&mut self) -> bool {
        let mut any = false;
        while let Some((conn, answer)) = self.shared.certificates.as_ref().and_then(|it| it.answer(self.me)) {
            any = true;
            if let Some(mut session) = self.take(conn) {
                self.gathered(&mut session, answer);
                self.put(session);
            }
        }
        any
    }

    fn take_batch(&mut self, from: usize, mut batch: super::message::Batch) {
        for value in batch.returned.drain(..) {
            self.store.unpin(value);
        }
        // What the first of them will read is on its way while they are told apart; more would be gone again by then.
        for hash in batch.hashes().take(PREFETCH_MAX) {
            self.store.prefetch(hash);
        }
        for hash in batch.hashes().take(PREFETCH_MAX) {
            self.store.prefetch_item(hash);
        }
        batch.drain(|message| match message {
            Message::Request { to, request } => self.serve(from, to, &request),
            Message::Reply(Reply { to, piece, bytes, split, pinned }) => {
                let pinned = pinned.map(|value| (Pinned { value, owner: from }, split));
                self.deliver(to, piece, pinned, |out| out.extend_from_slice(bytes));
            }
        });
        self.mesh.recycle(batch);
    }

    /// Sessions that had to stop. True when there were any.
    pub(super) fn go_on(&mut self) -> bool {
        let count = self.run_list.len();
        for _ in 0..count {
            let Some(conn) = self.run_list.pop_front() else { break };
            let Some(mut session) = self.take(conn) else { continue };
            session.listed = false;
            if !session.behind {
                self.consume_saved(&mut session);
            }
            self.put(session);
        }
        count > 0
    }

    /// Expiry and other upkeep of the store, a little at a time. True when there is more.
    pub(super) fn upkeep(&mut self, items: usize) -> bool {
        self.upkeep_left = self.store.maintain(self.now, items);
        if let Some(work) = self.store.next_page_work() {
            self.shared.paging.offer(work);
        }
        self.upkeep_left
    }

    /// Of a proxy: what happened to its connections to destinations. Yields what is the clients'.
    pub(super) fn relay_event(&mut self, event: Event, driver: &mut impl Driver) -> Option<Event> {
        let Some(relay) = &mut self.relay else { return Some(event) };
        match event {
            Event::Connected { conn } => relay.connected(conn),
            Event::Received { conn, buffer } if relay.owns(conn) => {
                self.with_relay(|relay, core| relay.received(conn, driver.received(buffer), core));
                driver.recycle(buffer);
            }
            Event::Ended { conn } if relay.owns(conn) => {
                self.with_relay(|relay, core| relay.ended(conn, driver, core));
            }
            Event::Closed { conn } if relay.owns(conn) => {
                self.with_relay(|relay, core| relay.closed(conn, core));
            }
            Event::Drained { conn } if relay.owns(conn) => relay.drained(conn),
            event => return Some(event),
        }
        None
    }

    /// Of a proxy: let the relay tell our clients and those of the other shards.
    fn with_relay(&mut self, work: impl FnOnce(&mut Relay, &mut Self)) {
        if let Some(mut relay) = self.relay.take() {
            work(&mut relay, self);
            self.relay = Some(relay);
        }
    }

    /// Of a proxy: send what was asked of destinations.
    pub(super) fn relay(&mut self, driver: &mut impl Driver) {
        self.with_relay(|relay, core| relay.finish_turn(driver, core));
    }

    /// Show counters, requests and replies to the others; `wake` is called for those that sleep.
    pub(super) fn publish(&mut self, mut wake: impl FnMut(&Waker)) {
        debug_assert!(!self.borrowing);
        if self.watched != 0 || self.store.keeps_journal() {
            self.publish_watched();
        }
        if !self.watching.is_empty() {
            self.serve_watchers();
        }
        self.counters.bytes_written += self.out.len() as u64;
        self.publish_counters();
        let wakeups = &mut self.counters.wakeups;
        self.mesh.publish(|waker| {
            *wakeups += 1;
            wake(waker);
        });
    }

    /// End the loans of this session's commands: their owners may be waiting to wake up. What borrowing changed in a store its owner cannot publish while it sleeps.
    fn give_back_slices(&mut self) {
        if !std::mem::take(&mut self.borrowing) {
            return;
        }
        for (shard, other) in self.others.iter_mut().enumerate() {
            if other.held() {
                self.shared.cells[shard].publish_store(&other.stats());
                other.give_up();
            }
        }
    }

    pub(super) fn publish_counters(&mut self) {
        let cells = &self.shared.cells[self.me];
        cells.publish(&self.counters);
        cells.publish_store(&self.store.stats());
    }

    /// `stats reset`
    pub(super) fn reset_counters(&mut self) {
        self.counters = Counters::default();
        self.shared.cells[self.me].reset_store(&self.store.stats());
    }

    pub(super) fn end_turn(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn sends(&mut self) -> &mut Vec<Send> {
        &mut self.sends
    }

    pub(super) fn count_turn(&mut self, worked: bool, accept_failures: u64) {
        self.counters.turns += 1;
        self.counters.turns_busy += u64::from(worked);
        self.counters.listen_disabled_num = accept_failures;
    }

    pub(super) fn next_touched(&mut self) -> Option<u32> {
        self.touched.pop()
    }

    /// After the turn's output was handed over: tell the driver what this session needs from it.
    pub(super) fn settle(&mut self, index: u32, driver: &mut impl Driver) {
        let Some(session) = self.sessions[index as usize].as_mut() else { return };
        let conn = session.conn;
        session.touched = false;
        if session.broken {
            driver.close(conn, Close::AfterSend);
            return self.closed(conn);
        }
        session.behind |= driver.refused(conn) > outbox::HIGH_WATER_BYTES;
        let pause = session.behind || (session.stalled && session.unparsed() > 0);
        if pause != session.paused {
            session.paused = pause;
            if pause { driver.pause(conn) } else { driver.resume(conn) }
        }
        let finished = match session.state {
            State::Closing => true,
            State::Watching => session.ended,
            State::Barrier(_) | State::Gather(_) | State::Dump(_) => false,
            State::Command | State::Unauthenticated | State::Swallow(_) | State::Upload(_) => {
                session.ended && !session.stalled
            }
        };
        if finished && session.is_caught_up() && !session.behind {
            driver.close(conn, Close::AfterSend);
            self.closed(conn);
        }
    }

    /// A connection that has said nothing for too long (`-o idle_timeout`). Looks at so many a turn, once a second at
    /// all of them.
    pub(super) fn next_idle(&mut self) -> Option<ConnId> {
        let until = self.sessions.len().min(self.idle_at.saturating_add(IDLE_LOOKS));
        while self.idle_at < until {
            self.idle_at += 1;
            let Some(session) = &self.sessions[self.idle_at - 1] else { continue };
            let waits = matches!(session.state, State::Command | State::Unauthenticated);
            let silent_s = self.now.0.saturating_sub(session.last_s);
            let answered = session.is_caught_up() && !session.stalled && !session.behind;
            if waits && answered && silent_s > self.shared.config.idle_timeout_s {
                return Some(session.conn);
            }
        }
        None
    }

    /// It has been closed for being idle.
    pub(super) fn kicked(&mut self, conn: ConnId) {
        self.counters.idle_kicks += 1;
        self.closed_for(conn, "idle_timeout");
        self.publish_counters(); // the next turn may be a second away
    }

    // --- stopping ---

    pub(super) fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Connections that wait for nothing, or simply all of them.
    pub(super) fn answered_conns(&self, all: bool) -> Vec<ConnId> {
        let sessions = self.sessions.iter().flatten();
        sessions.filter(|s| all || (s.is_caught_up() && !s.stalled && !s.behind)).map(|s| s.conn).collect()
    }

    pub(super) fn has_no_conns(&self) -> bool {
        self.open == 0
    }

    /// Whether all shards are without connections: until then one may still need another's keys.
    pub(super) fn others_drained(&mut self) -> bool {
        if !self.drained {
            self.drained = true;
            self.shared.drained.fetch_add(1, Ordering::AcqRel);
        }
        self.shared.drained.load(Ordering::Acquire) == self.mesh.shards()
    }

    /// Of the stop under way, once nothing changes any more.
    pub(super) fn save_contents(&self) {
        if let Some(warm) = &self.shared.warm {
            warm.save(self.me, &self.store, self.now);
        }
    }

    // --- connections ---

    pub(super) fn accepted(&mut self, conn: ConnId, listener: u16, peer: Option<std::net::SocketAddr>) {
        let index = conn.index as usize;
        if index >= self.sessions.len() {
            self.sessions.resize_with(index + 1, || None);
        }
        debug_assert!(self.sessions[index].is_none());
        let serves = self.shared.serves[usize::from(listener)];
        let parser = Parser::speaking(serves.wire);
        let state = if self.shared.users.is_some() { State::Unauthenticated } else { State::Command };
        let peer = peer.into();
        self.tell_conn(&peer, conn, None);
        let mut session = Box::new(Session::new(conn, peer, parser, state, self.now.0));
        session.listener = listener;
        self.sessions[index] = Some(session);
        self.open += 1;
    }

    pub(super) fn received(&mut self, conn: ConnId, data: &[u8]) {
        let Some(mut session) = self.take(conn) else { return };
        self.counters.bytes_read += data.len() as u64;
        session.last_s = self.now.0;
        if session.unparsed() == 0 {
            self.consume_new(&mut session, data);
        } else {
            session.input.extend_from_slice(data);
            if !session.stalled {
                self.consume_saved(&mut session);
            }
        }
        self.put(session);
    }

    /// Nothing is left unparsed before `data`.
    fn consume_new(&mut self, session: &mut Session, data: &[u8]) {
        let used = self.consume(session, data);
        self.give_back_slices();
        session.input.extend_from_slice(&data[used..]);
    }

    /// Large values on their way in: what else of them has come goes straight from the socket to its place.
    pub(super) fn receive_values(&mut self, driver: &mut impl Driver) {
        if self.uploads.is_empty() {
            return;
        }
        for at in 0..self.touched.len() {
            let Some(session) = &mut self.sessions[self.touched[at] as usize] else { continue };
            let State::Upload(upload) = &session.state else { continue };
            let held_up = session.stalled || session.paused || session.behind || session.unparsed() > 0;
            if held_up || !upload.is_received_directly(self.me) {
                continue;
            }
            let conn = session.conn;
            let Some(mut session) = self.take(conn) else { continue };
            let mut behind = std::mem::take(&mut self.behind_value);
            let len = self.receive_value(&mut session, driver, &mut behind);
            if len > 0 {
                self.consume_new(&mut session, &behind[..len]);
            }
            self.behind_value = behind;
            self.put(session);
        }
    }

    pub(super) fn consume_saved(&mut self, session: &mut Session) {
        let input = std::mem::take(&mut session.input);
        let used = self.consume(session, &input[session.input_at..]);
        self.give_back_slices();
        session.input_at += used;
        if session.input_at == input.len() {
            session.input_at = 0; // and the buffer goes: most connections never need it
        } else {
            session.input = input;
            // What is done with goes before it outgrows the rest, so each byte is moved once on average.
            if session.input_at >= session.unparsed() {
                session.input.drain(..session.input_at);
                session.input_at = 0;
            }
        }
    }

    pub(super) fn ended(&mut self, conn: ConnId) {
        if let Some(mut session) = self.take(conn) {
            session.ended = true;
            self.put(session);
        }
    }

    /// The connection is gone for the driver, or is about to be.
    fn closed(&mut self, conn: ConnId) {
        self.closed_for(conn, "normal");
    }

    /// See [`Core::closed`]; `reason` is for those who watch.
    pub(super) fn closed_for(&mut self, conn: ConnId, reason: &str) {
        let Some(mut session) = self.take(conn) else { return };
        self.open -= 1;
        self.tell_conn(&session.peer, conn, Some(reason));
        session.abandon(|pinned| self.give_back(pinned));
        self.break_off(&session);
    }

    pub(super) fn drained(&mut self, conn: ConnId) {
        if let Some(mut session) = self.take(conn) {
            if std::mem::take(&mut session.behind) {
                self.list(&mut session);
            }
            self.put(session);
        }
    }

    /// A value that was lent has been sent.
    pub(super) fn give_back(&mut self, pinned: Pinned) {
        if pinned.owner == self.me {
            self.store.unpin(pinned.value);
        } else {
            self.mesh.replies(pinned.owner).returned.push(pinned.value);
        }
    }

    /// Every session, for `stats conns`.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().flatten().map(|session| &**session)
    }

    /// Take a session out to work on it; [`Core::put`] brings it back.
    pub(super) fn take(&mut self, conn: ConnId) -> Option<Box<Session>> {
        let place = self.sessions.get_mut(conn.index as usize)?;
        if place.as_ref()?.conn != conn {
            return None;
        }
        place.take()
    }

    pub(super) fn put(&mut self, mut session: Box<Session>) {
        let index = session.conn.index;
        if !session.touched {
            session.touched = true;
            self.touched.push(index);
        }
        self.sessions[index as usize] = Some(session);
    }

    /// Go on with this session in the next turn.
    pub(super) fn list(&mut self, session: &mut Session) {
        if !session.listed {
            session.listed = true;
            self.run_list.push_back(session.conn);
        }
    }

    // --- output ---

    /// Bytes this session was given in this turn.
    pub(super) fn output_len(&self, session: &Session) -> usize {
        if session.output.0 == self.turn { session.output_bytes } else { 0 }
    }

    /// Make the end of the arena the place where this session's output goes on: one send a connection and turn.
    pub(super) fn open_range(&mut self, session: &mut Session) {
        let (turn, at) = session.output;
        let mut queued = false;
        if turn == self.turn {
            match &mut self.sends[at] {
                Send::Bytes { end, .. } if *end == self.out.len() => return,
                Send::Bytes { start, end, queued, .. } if !*queued => {
                    let moved = *start..*end;
                    *end = *start;
                    let start = self.out.len();
                    self.out.extend_from_within(moved);
                    let end = self.out.len();
                    session.output.1 = self.sends.len();
                    self.sends.push(Send::Bytes { conn: session.conn, start, end, queued: false });
                    return;
                }
                Send::Bytes { .. } | Send::Pinned { .. } => queued = true,
            }
        }
        if turn != self.turn {
            session.output_bytes = 0;
        }
        let (start, end) = (self.out.len(), self.out.len());
        session.output = (self.turn, self.sends.len());
        self.sends.push(Send::Bytes { conn: session.conn, start, end, queued });
    }

    /// The bytes written to the arena since [`Core::open_range`] are this session's, with a pinned value in them at
    /// the arena's byte `.0`, if any.
    pub(super) fn close_range(&mut self, session: &mut Session, large: Option<(usize, Pinned)>) {
        let len = self.out.len();
        let Send::Bytes { end, queued, .. } = &mut self.sends[session.output.1] else {
            unreachable!("a range is open")
        };
        session.output_bytes += len - *end;
        let Some((split, pinned)) = large else {
            *end = len;
            return;
        };
        session.output_bytes += pinned.value.len();
        *end = split;
        *queued = true;
        self.counters.bytes_written += pinned.value.len() as u64;
        let conn = session.conn;
        self.sends.push(Send::Pinned { conn, pinned });
        session.output.1 = self.sends.len();
        self.sends.push(Send::Bytes { conn, start: split, end: len, queued: true });
    }

    /// Answer with what `write` appends: at once, or when earlier replies have gone out.
    pub(super) fn reply(&mut self, session: &mut Session, write: impl FnOnce(&mut Vec<u8>)) {
        if session.is_caught_up() {
            self.open_range(session);
            write(&mut self.out);
            self.close_range(session, None);
        } else {
            session.hold(|held| {
                write(held);
                None
            });
        }
    }

    /// A reply to a request that had to wait, or a piece of one: `write` appends it to what it is given. A value is pinned
    /// into it so many bytes from its start.
    fn deliver(
        &mut self,
        to: ReplyTo,
        piece: Piece,
        pinned: Option<(Pinned, usize)>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let session = match self.take(to.conn) {
            Some(session) if session.broken => {
                self.put(session); // until the end of the turn
                None
            }
            session => session,
        };
        let Some(mut session) = session else {
            if let Some((pinned, _)) = pinned {
                self.give_back(pinned);
            }
            return;
        };
        if to.sequence == GATHER {
            let mut bytes = Vec::new();
            write(&mut bytes);
            self.gathered(&mut session, bytes);
        } else if session.is_due(to.sequence) {
            self.open_range(&mut session);
            let start = self.out.len();
            write(&mut self.out);
            if !session.passes(&self.out[start..], piece, &mut self.spares) {
                self.out.truncate(start);
            }
            self.close_range(&mut session, pinned.map(|(pinned, split)| (start + split, pinned)));
        } else {
            session.keep(to.sequence, piece, pinned, write);
        }
        while session.has_kept() {
            self.open_range(&mut session);
            let (out, mut large) = (&mut self.out, None);
            session.next_kept(&mut self.spares, |bytes, pinned| {
                large = pinned.map(|(pinned, split)| (out.len() + split, pinned));
                out.extend_from_slice(bytes);
            });
            self.close_range(&mut session, large);
        }
        if session.stalled || matches!(session.state, State::Barrier(_)) {
            self.list(&mut session);
        }
        self.put(session);
    }
}

impl Clients for Core {
    fn answer(&mut self, shard: usize, to: ReplyTo, piece: Piece, write: impl FnOnce(&mut Vec<u8>)) {
        if shard == self.me {
            return self.deliver(to, piece, None, write);
        }
        self.mesh.replies(shard).push_reply(to, piece, |out| {
            write(out);
            None
        });
    }

    fn output(&mut self) -> (&mut Vec<u8>, &mut Vec<Send>) {
        (&mut self.out, &mut self.sends)
    }
}
