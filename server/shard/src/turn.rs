//! One shard: the chassis, a driver and a service, and the turn in which they work.
//!
//! [`Shard::turn`] is the whole data path: take what the kernel and the other shards have, parse and answer,
//! publish, send. It never blocks but in the driver's wait, and reads the clock once. The lock of its slice it
//! holds all the while, and gives it up to sleep. What hosts it, a glommio executor or a plain thread, is in
//! [`crate::host_glommio`] and [`crate::host_thread`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use corecached_net::tls::SecureDriver;
use corecached_net::{Close, ConnId, Event, Pinned, Wait, outbox};

use crate::core::{Core, CoreSetup};
use crate::mesh::message::{Batch, Message, Reply};
use crate::service::Service;
use crate::session::{Session, State};
use crate::types::Task;

/// A host that sleeps looks at the clock at least this often. A shard with an earlier deadline does not let
/// it sleep.
const PARK_MIN: Duration = Duration::from_secs(1);
/// A client that does not take its last replies is cut off after this long when the server stops.
const DRAIN_LIMIT_S: u32 = 5;
/// Batches taken from the mesh in one turn, so that a flood of requests does not keep a shard from its own
/// clients.
const BATCHES_PER_TURN: usize = 16;
/// Sessions of which one turn checks whether they are idle.
const IDLE_LOOKS: usize = 256;
/// How many milliseconds the clock may be late.
const CLOCK_STEP_MS: u64 = 4;
/// Requests of a batch whose items are prefetched: three lines each, a share of the first-level cache.
const PREFETCH_MAX: usize = 64;

/// A shard over one kind of driver, with one kind of service.
pub struct Shard<D, S: Service> {
    driver: D,
    core: Core<S>,
    service: S,
    events: Vec<Event>,
    draining_since_s: Option<u32>,
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was something to do.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The server is stopping, and every connection has been closed.
    Finished,
}

impl<D: SecureDriver, S: Service> Shard<D, S> {
    /// A shard that is ready to take turns. It tells the others how to wake it.
    pub fn new(driver: D, setup: CoreSetup<S>, service: S) -> Self {
        let core = Core::new(setup);
        core.context.lifecycle.presence()[core.me].set_waker(driver.waker());
        // A store may have been filled from a file.
        service.publish(&core);
        Self { driver, core, service, events: Vec::new(), draining_since_s: None }
    }

    /// The driver, for hosts that know its kind.
    pub const fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// The service.
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// Takes one turn: handles all events, messages and input. When there are none, waits for at most
    /// `limit`.
    ///
    /// # Errors
    /// When the driver can no longer be used.
    pub fn turn(&mut self, limit: Duration) -> io::Result<Progress> {
        let limit = self.wait_limit(limit);
        let may_wait = !limit.is_zero() && !self.has_work() && self.park_mesh();
        let wait = if may_wait { Wait::AtMost(limit) } else { Wait::No };
        let outcome = self.driver.turn(wait, &mut self.events);
        if may_wait {
            self.unpark();
        }
        outcome?;
        let is_new_second = self.core.begin_turn(self.driver.take_arena(), may_wait);
        self.service.begin_turn(&mut self.core, is_new_second);
        let mut worked = !self.events.is_empty();
        self.take_events();
        worked |= self.service.take_news(&mut self.core);
        worked |= self.take_messages();
        worked |= self.continue_sessions();
        worked |= self.service.upkeep(&mut self.core, &mut self.driver);
        self.finish_turn();
        self.close_idle();
        if self.core.context.lifecycle.is_stopping() && self.drained() {
            self.service.stopped(&mut self.core);
            return Ok(Progress::Finished);
        }
        let counters = &mut self.core.counters;
        counters.turns += 1;
        counters.turns_busy += u64::from(worked);
        counters.listen_disabled_num = self.driver.accept_failures();
        Ok(if worked { Progress::Worked } else { Progress::Idle })
    }

    /// Tells the others that this shard is about to sleep in its host. False when there is work after all.
    #[must_use]
    pub fn park(&mut self) -> bool {
        let has_deadline = self.wait_limit(PARK_MIN) < PARK_MIN;
        !has_deadline && !self.has_work() && self.park_mesh()
    }

    /// Tells the others that this shard is awake again.
    pub fn unpark(&mut self) {
        self.service.unpark();
        self.core.mesh.unpark();
    }

    /// From now on, the others wake this shard when they publish something for it. False when they have
    /// already.
    fn park_mesh(&mut self) -> bool {
        let parked = self.core.mesh.park();
        if parked {
            self.service.park();
        }
        parked
    }

    fn has_work(&self) -> bool {
        self.core.has_work() || self.service.has_work()
    }

    /// How long the driver may wait: at most `limit`, and not past a deadline of the service.
    fn wait_limit(&self, limit: Duration) -> Duration {
        match self.service.deadline_ms() {
            Some(deadline_ms) => {
                let left_ms = deadline_ms.saturating_sub(self.core.context.clock.now_ms());
                // The clock may be a few milliseconds late: without this, the shard would look in vain again
                // and again.
                limit.min(Duration::from_millis(left_ms.saturating_add(CLOCK_STEP_MS)))
            }
            None => limit,
        }
    }

    // --- input ---

    fn take_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let Some(event) = self.service.event(&mut self.core, &mut self.driver, event) else { continue };
            match event {
                Event::Received { conn, buffer } => {
                    let Self { driver, core, service, .. } = self;
                    core.received(service, conn, driver.received(&buffer));
                    driver.recycle(buffer);
                }
                Event::Accepted { conn, listener } => {
                    let peer = self.driver.peer(conn);
                    self.core.accepted(&mut self.service, conn, listener, peer);
                }
                Event::Connected { conn: _ } => {}
                Event::Ended { conn } => {
                    if let Some(mut session) = self.core.take(conn) {
                        session.ended = true;
                        self.core.put(session);
                    }
                }
                Event::Closed { conn } => self.core.closed(&mut self.service, conn, "error"),
                Event::Drained { conn } => {
                    if let Some(mut session) = self.core.take(conn) {
                        if std::mem::take(&mut session.lags) {
                            self.core.list(&mut session);
                        }
                        self.core.put(session);
                    }
                }
                Event::Released { pinned } => self.core.give_back(&mut self.service, pinned),
            }
        }
        self.events = events;
    }

    /// Replies and requests of the other shards. True when there were any.
    fn take_messages(&mut self) -> bool {
        let mut any = false;
        while let Some((from, batch)) = self.core.mesh.take_replies() {
            any = true;
            self.core.take_batch(&mut self.service, from, batch);
        }
        for _ in 0..BATCHES_PER_TURN {
            let Some((from, batch)) = self.core.mesh.take_requests() else { break };
            any = true;
            self.core.take_batch(&mut self.service, from, batch);
        }
        any
    }

    /// Sessions that had to stop before their input was handled. True when there were any.
    fn continue_sessions(&mut self) -> bool {
        let count = self.core.run_list().len();
        for _ in 0..count {
            let Some(conn) = self.core.run_list().pop_front() else { break };
            let Some(mut session) = self.core.take(conn) else { continue };
            session.listed = false;
            if !session.lags {
                self.core.consume_saved(&mut self.service, &mut session);
            }
            self.core.put(session);
        }
        count > 0
    }

    // --- output ---

    /// Publishes to the mesh, then sends, then tells the driver which connections to leave alone or to close.
    fn finish_turn(&mut self) {
        let Self { driver, core, service, .. } = self;
        service.finish_turn(core, driver);
        core.counters.bytes_written += core.output_bytes() as u64;
        core.publish_counters();
        service.publish(core);
        let wakeups = &mut core.counters.wakeups;
        core.mesh.publish(|waker| {
            *wakeups += 1;
            driver.wake(waker);
        });
        let (arena, sends) = core.end_turn();
        driver.send(arena, sends);
        while let Some(index) = core.next_touched() {
            core.settle(service, index, driver);
        }
    }

    /// Closes connections that have said nothing for too long (`-o idle_timeout`).
    fn close_idle(&mut self) {
        while let Some(conn) = self.core.next_idle() {
            // What the client did not take is no sign of its being idle, and what has come is answered.
            if self.driver.backlog(conn) == 0 && !self.driver.has_unreported(conn) {
                self.driver.close(conn, Close::AfterSend);
                self.core.counters.idle_kicks += 1;
                self.core.closed(&mut self.service, conn, "idle_timeout");
                self.core.publish_counters(); // the next turn may be a second away
            }
        }
    }

    /// Stops accepting, closes what has been answered, and in the end what has not. True once all shards have
    /// no connection.
    fn drained(&mut self) -> bool {
        let now_s = self.core.now.0;
        let since_s = *self.draining_since_s.get_or_insert_with(|| {
            self.driver.stop_accepting();
            now_s
        });
        let overdue = now_s.saturating_sub(since_s) > DRAIN_LIMIT_S;
        for conn in self.core.answered_conns(overdue) {
            if !overdue && self.driver.backlog(conn) > 0 {
                continue; // its last reply has not been sent
            }
            let how = if overdue { Close::Now } else { Close::AfterSend };
            self.driver.close(conn, how);
            self.core.closed(&mut self.service, conn, "shutdown");
        }
        let all_sent = overdue || !self.driver.has_unsent();
        self.core.open() == 0 && all_sent && self.core.others_drained()
    }
}

impl<S: Service> Core<S> {
    fn accepted(&mut self, service: &mut S, conn: ConnId, listener: u16, peer: Option<SocketAddr>) {
        let mut session = self.add(conn, listener, peer);
        service.accepted(self, &mut session);
        self.store(session);
    }

    fn received(&mut self, service: &mut S, conn: ConnId, data: &[u8]) {
        let Some(mut session) = self.take(conn) else { return };
        self.counters.bytes_read += data.len() as u64;
        session.last_s = self.now.0;
        if session.unparsed() == 0 {
            self.consume_new(service, &mut session, data);
        } else {
            session.input.extend_from_slice(data);
            if !session.stalled {
                self.consume_saved(service, &mut session);
            }
        }
        self.put(session);
    }

    /// Works on `data` of a session that has nothing left unparsed before it.
    pub fn consume_new(&mut self, service: &mut S, session: &mut Session<S>, data: &[u8]) {
        debug_assert_eq!(session.unparsed(), 0);
        let used = self.consume(service, session, data);
        service.end_batch(self);
        session.input.extend_from_slice(&data[used..]);
    }

    /// Works on what a session has left unparsed.
    fn consume_saved(&mut self, service: &mut S, session: &mut Session<S>) {
        let input = std::mem::take(&mut session.input);
        let used = self.consume(service, session, &input[session.input_at..]);
        service.end_batch(self);
        session.input_at += used;
        debug_assert!(session.input_at <= input.len(), "no more is used than there is");
        if session.input_at == input.len() {
            session.input_at = 0; // and the buffer goes: most connections never need it
        } else {
            session.input = input;
            // Parsed bytes go before they outgrow the rest, so each byte is moved once on average.
            if session.input_at >= session.unparsed() {
                session.input.drain(..session.input_at);
                session.input_at = 0;
            }
        }
    }

    /// The connection is gone for the driver, or is about to be.
    pub(crate) fn closed(&mut self, service: &mut S, conn: ConnId, reason: &str) {
        let Some(mut session) = self.remove(conn) else { return };
        session.replies.abandon(|pinned| self.give_back(service, pinned));
        service.closed(self, &session, reason);
    }

    /// A pinned value has been sent: it goes back to its owner.
    fn give_back(&mut self, service: &mut S, pinned: Pinned) {
        if pinned.owner == self.me {
            service.take_back(pinned.value);
        } else {
            self.mesh.replies(pinned.owner).returned.push(pinned.value);
        }
    }

    fn take_batch(&mut self, service: &mut S, from: usize, mut batch: Batch<S>) {
        for value in batch.returned.drain(..) {
            service.take_back(value);
        }
        if S::PREFETCHES {
            // What the first requests read arrives while they are told apart. More would be gone again by
            // then.
            for hash in batch.hashes().take(PREFETCH_MAX) {
                service.prefetch(hash);
            }
            for hash in batch.hashes().take(PREFETCH_MAX) {
                service.prefetch_item(hash);
            }
        }
        batch.drain(|message| match message {
            Message::Request { to, request } => service.serve(self, from, to, &request),
            Message::Reply(Reply { to, piece, bytes, split, pinned }) => {
                let pinned = pinned.map(|value| (Pinned { value, owner: from }, split));
                let undelivered = self.deliver(to, piece, pinned, |out| out.extend_from_slice(bytes));
                if let Some(pinned) = undelivered {
                    self.give_back(service, pinned);
                }
            }
            Message::Broadcast { conn, what } => {
                let answer = service.obey(self, what, None);
                self.mesh.replies(from).push_answer(conn, answer);
            }
            Message::Answer { conn, answer } => self.answered(service, conn, answer),
        });
        self.mesh.recycle(batch);
    }

    /// Another shard's answer to a broadcast has come, or one that the service asked for in another way.
    pub fn answered(&mut self, service: &mut S, conn: ConnId, answer: S::Answer) {
        let Some(mut session) = self.take(conn) else { return };
        match &mut session.state {
            State::Gather(gather) => {
                debug_assert!(gather.missing > 0, "each shard answers a broadcast once");
                gather.missing -= 1;
                gather.answers.push(answer);
                if gather.missing == 0 {
                    self.list(&mut session);
                }
            }
            _ => service.answered(self, &mut session, answer),
        }
        self.put(session);
    }

    /// After the turn's output was handed over: tells the driver what this session needs from it.
    fn settle(&mut self, service: &mut S, index: u32, driver: &mut impl SecureDriver) {
        let Some(session) = self.session_at(index as usize) else { return };
        let conn = session.conn;
        session.touched = false;
        if session.replies.is_broken() {
            driver.close(conn, Close::AfterSend);
            return self.closed(service, conn, "normal");
        }
        session.lags |= driver.refused(conn) > outbox::HIGH_WATER_BYTES;
        let pause = session.lags || (session.stalled && session.unparsed() > 0);
        if pause != session.paused {
            session.paused = pause;
            if pause { driver.pause(conn) } else { driver.resume(conn) }
        }
        let finished = match &session.state {
            State::Closing => true,
            State::Barrier(_) | State::Gather(_) => false,
            State::Task(task) => task.may_close(session.ended, session.stalled),
            State::Command | State::Swallow(_) => session.ended && !session.stalled,
        };
        if finished && session.replies.is_caught_up() && !session.lags {
            let reason = if session.malformed { "error" } else { "normal" };
            driver.close(conn, Close::AfterSend);
            self.closed(service, conn, reason);
        }
    }

    /// A connection that has said nothing for too long. Looks at a part of all sessions in one turn, and once
    /// a second at all of them.
    fn next_idle(&mut self) -> Option<ConnId> {
        let until = self.slots().min(self.idle_at.saturating_add(IDLE_LOOKS));
        let (now_s, limit_s) = (self.now.0, self.context.network.idle_timeout_s);
        while self.idle_at < until {
            self.idle_at += 1;
            let Some(session) = self.session_at(self.idle_at - 1) else { continue };
            let awaits_client = match &session.state {
                State::Command => true,
                State::Task(task) => task.awaits_client(),
                _ => false,
            };
            let silent_s = now_s.saturating_sub(session.last_s);
            if awaits_client && session.waits_for_nothing() && silent_s > limit_s {
                return Some(session.conn);
            }
        }
        None
    }

    /// Connections that wait for nothing, or simply all of them.
    fn answered_conns(&self, all: bool) -> Vec<ConnId> {
        let answered = self.sessions().filter(|session| all || session.waits_for_nothing());
        answered.map(|session| session.conn).collect()
    }
}
