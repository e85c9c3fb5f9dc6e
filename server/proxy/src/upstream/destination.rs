//! One host:port that requests go to: its one connection, the deadlines of what it was asked, and its health.
//!
//! Owns no socket and reads no clock. A driver tells what happened to the socket, and does what
//! [`Destination::next_action`] says; whoever asks is told through a sink what came of it. Times are milliseconds of
//! any one clock, read once a turn, and never go back.

use std::io;
use std::rc::Rc;

use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, ErrorKind, Reply};

use super::super::config::AdaptiveConcurrency;
use super::super::request::Operation;
use super::concurrency::Concurrency;
use super::connection::{Answer, Connection, Limits};
use super::counters::Counters;
use super::failure::Reason;
use super::health::{Health, HealthOptions, PoolHealth};

/// The waiter that no request may have: probes have it.
pub const PROBE: u64 = u64::MAX;

/// What a destination is allowed, and allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Milliseconds from request to reply; 0 is no limit. Past it the waiter gets `SERVER_ERROR timeout`, and the
    /// destination counts a failure towards ejection. When nothing at all came for so long the connection is closed:
    /// as soon as all it was sent ran out of time too, so that nobody is told so early, and after twice as long anyway.
    pub server_timeout_ms: u64,
    /// Milliseconds for a connection to be made; 0 is no limit. Past it everything that waits gets `SERVER_ERROR
    /// connection timeout`, and the destination is ejected.
    pub connect_timeout_ms: u64,
    /// Connections that may time out one after the other before that counts.
    pub connect_retries: u32,
    /// Milliseconds without use after which a connection is closed; 0 is never.
    pub inactive_reset_ms: u64,
    /// Of the connection.
    pub limits: Limits,
    /// When to eject, and how often to probe.
    pub health: HealthOptions,
}

impl Default for Options {
    /// Those of mcrouter.
    fn default() -> Self {
        Self {
            server_timeout_ms: 1000,
            connect_timeout_ms: 1000,
            connect_retries: 0,
            inactive_reset_ms: 60_000,
            limits: Limits::default(),
            health: HealthOptions::default(),
        }
    }
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look up [`Destination::address`] and connect to it; then [`Destination::connected`] or
    /// [`Destination::connect_failed`].
    Connect,
    /// Send all that [`Destination::take_output`] yields.
    Send,
    /// Close the connection, or give up making it, and tell nothing of it any more.
    Close,
}

/// Where a destination stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No connection, as nothing asked for one.
    Idle,
    /// A connection is being made.
    Connecting,
    /// Connected.
    Up,
    /// Its requests fail at once; a connection is made for probes only.
    Ejected(Reason),
}

/// The connection, as far as the driver was told and told us.
#[derive(Clone, Copy, Debug)]
enum Link {
    Idle,
    Connecting { since_ms: u64, retries_left: u32 },
    Up,
}

/// See the module.
#[derive(Debug)]
pub struct Destination {
    address: String,
    options: Options,
    link: Link,
    /// The driver is to close what it has before anything else.
    close: bool,
    /// The connection is to be made anew when nothing is under way on it.
    moved: bool,
    /// Connections that may still time out without consequence.
    retries_left: u32,
    /// When something was last sent or received.
    used_ms: u64,
    connection: Connection,
    health: Health,
    /// Of gets, if they are to be fewer when it is slow.
    concurrency: Option<Box<Concurrency>>,
    counters: Counters,
}

impl Destination {
    /// A destination without a connection. `seed` moves its probes away from those of others; `pool` is what it shares
    /// with the other destinations of its pool.
    #[must_use]
    pub fn new(address: String, options: Options, pool: Option<Rc<PoolHealth>>, seed: u64) -> Self {
        Self {
            address,
            link: Link::Idle,
            close: false,
            moved: false,
            retries_left: options.connect_retries,
            used_ms: 0,
            connection: Connection::new(options.limits),
            health: Health::new(options.health, pool, seed),
            concurrency: None,
            counters: Counters::default(),
            options,
        }
    }

    /// `host:port` as configured.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match (self.health.ejected(), self.link) {
            (Some(reason), _) => Status::Ejected(reason),
            (None, Link::Idle) => Status::Idle,
            (None, Link::Connecting { .. }) => Status::Connecting,
            (None, Link::Up) => Status::Up,
        }
    }

    /// From now on as many gets may be under way as its speed allows, or as its connection does. What was learnt stays
    /// while `bounds` are the same.
    pub fn limit_concurrency(&mut self, bounds: Option<AdaptiveConcurrency>) {
        if self.concurrency.as_ref().map(|concurrency| concurrency.bounds()) != bounds {
            self.concurrency = bounds.map(|bounds| Box::new(Concurrency::new(bounds)));
        }
    }

    /// See [`Destination::limit_concurrency`].
    #[must_use]
    pub fn concurrency_bounds(&self) -> Option<AdaptiveConcurrency> {
        self.concurrency.as_ref().map(|concurrency| concurrency.bounds())
    }

    /// How many gets may be under way now; `None` where that does not depend on its speed.
    #[must_use]
    pub fn concurrency(&self) -> Option<u32> {
        self.concurrency.as_ref().map(|concurrency| concurrency.limit())
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests without a reply, sent or not.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.connection.pending()
    }

    /// Requests sent and without a reply.
    #[must_use]
    pub fn inflight(&self) -> usize {
        self.connection.inflight()
    }

    /// Timeouts since the last reply that was no error.
    #[must_use]
    pub fn timeouts(&self) -> u32 {
        self.health.timeouts()
    }

    /// Asks for the reply to `command` with `data` as its value. `waiter`, which is not [`PROBE`], will get exactly
    /// one, through the sink of one of the calls that follow. `may_refuse` says that another destination would be asked
    /// in place of this one, if it is slow.
    ///
    /// # Errors
    /// The reply at once: ejected, too much waits already, the command cannot be sent, or [`failure::slow`].
    ///
    /// [`failure::slow`]: super::failure::slow
    #[inline]
    pub fn request(
        &mut self,
        command: &Command,
        data: &[u8],
        waiter: u64,
        may_refuse: bool,
        now_ms: u64,
    ) -> Result<(), Reply> {
        debug_assert_ne!(waiter, PROBE);
        let taken = match self.health.ejected() {
            Some(reason) => Err(reason.reply()),
            None if self.is_beyond(command) && may_refuse => {
                self.counters.refused += 1;
                Err(super::failure::slow())
            }
            None => self.connection.enqueue(command, data, waiter, now_ms),
        };
        match &taken {
            Ok(()) => self.counters.requests += 1,
            Err(Reply::Error { kind, .. }) => self.counters.failed(*kind),
            Err(_) => {}
        }
        taken
    }

    /// Whether `command` only reads, and more of the kind would wait for a destination that is slow. What is written goes
    /// through: nobody else could take it.
    #[inline]
    fn is_beyond(&mut self, command: &Command) -> bool {
        let Some(concurrency) = &mut self.concurrency else { return false };
        let reads =
            matches!(Operation::of(command), Some(Operation::Get | Operation::Gets | Operation::Metaget));
        reads && !concurrency.admits(self.connection.pending())
    }

    /// What the driver is to do next; `None` when there is nothing until the next event or deadline.
    pub fn next_action(&mut self, now_ms: u64) -> Option<Action> {
        if std::mem::take(&mut self.close) {
            return Some(Action::Close);
        }
        if self.moved && self.connection.inflight() == 0 {
            self.moved = false;
            if !matches!(self.link, Link::Idle) {
                self.link = Link::Idle;
                return Some(Action::Close);
            }
        }
        match self.link {
            Link::Idle if !self.connection.is_idle() => {
                self.link = Link::Connecting { since_ms: now_ms, retries_left: self.retries_left };
                Some(Action::Connect)
            }
            Link::Up if !self.moved && self.connection.has_output() => Some(Action::Send),
            _ => None,
        }
    }

    /// Appends to `out` what is to be sent.
    pub fn take_output(&mut self, out: &mut Vec<u8>, now_ms: u64) {
        if !matches!(self.link, Link::Up) {
            return;
        }
        let before = out.len();
        self.connection.take_output(out);
        self.counters.bytes_sent += (out.len() - before) as u64;
        self.used_ms = now_ms;
    }

    /// The connection asked for is there.
    pub fn connected(&mut self, now_ms: u64) {
        if let Link::Connecting { .. } = self.link {
            self.link = Link::Up;
            self.retries_left = self.options.connect_retries;
            self.used_ms = now_ms;
            self.connection.connected(now_ms);
            self.counters.connects += 1;
        }
    }

    /// The connection asked for cannot be made: refused, unreachable, or a name that is not known. Everything that waits
    /// gets `SERVER_ERROR connection error`, or `connection timeout` when the kernel gave up waiting.
    pub fn connect_failed(
        &mut self,
        error: io::ErrorKind,
        now_ms: u64,
        sink: &mut impl FnMut(u64, ReplyEvent<'_>),
    ) {
        if let Link::Connecting { .. } = self.link {
            let (reason, kind) = match error {
                io::ErrorKind::TimedOut => (Reason::ConnectTimeout, ErrorKind::ConnectTimeout),
                _ => (Reason::Connect, ErrorKind::Connect),
            };
            self.not_connected(reason, kind, now_ms, sink);
        }
    }

    /// The other end closed or reset the connection. What was sent gets `SERVER_ERROR remote error`; what was not goes
    /// out on the next connection.
    pub fn closed(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        if let Link::Up = self.link {
            self.lost(ErrorKind::Remote, now_ms, sink);
        }
    }

    /// Bytes came. A driver goes on receiving however slow a waiter is: a connection that is not read from cannot be
    /// told from a destination that is silent, and other waiters stand behind the slow one.
    pub fn received(&mut self, bytes: &[u8], now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        if !matches!(self.link, Link::Up) {
            return; // of a connection that was given up
        }
        self.used_ms = now_ms;
        self.counters.bytes_received += bytes.len() as u64;
        let Self { connection, health, counters, concurrency, .. } = self;
        let outcome = connection.received(bytes, now_ms, &mut |answer| {
            if let Some(concurrency) = concurrency
                && answer.waiter.is_some_and(|waiter| waiter != PROBE)
                && answer.event.is_last()
            {
                concurrency.answered(answer.waited_ms, now_ms);
            }
            settle(health, counters, answer, now_ms, sink);
        });
        if outcome.is_err() {
            self.close = true;
            self.lost(ErrorKind::Remote, now_ms, sink);
        }
    }

    /// The address stands for another host from now on: what was sent is still answered by the one before, then the
    /// connection, if there is one, is closed, and what waits goes out on the next. An ejected one is probed at once.
    pub fn moved(&mut self, now_ms: u64) {
        self.moved = !matches!(self.link, Link::Idle);
        self.health.moved(now_ms);
    }

    /// Time passed: call it at [`Destination::next_deadline`], or more often.
    pub fn tick(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        self.expire(now_ms, sink);
        let is_due = |since_ms: u64, limit_ms| limit_ms > 0 && since_ms.saturating_add(limit_ms) <= now_ms;
        match self.link {
            Link::Connecting { since_ms, retries_left }
                if is_due(since_ms, self.options.connect_timeout_ms) =>
            {
                self.close = true;
                match retries_left.checked_sub(1) {
                    Some(left) => {
                        self.link = Link::Idle;
                        self.retries_left = left;
                        self.counters.connect_failures += 1;
                    }
                    None => {
                        self.not_connected(Reason::ConnectTimeout, ErrorKind::ConnectTimeout, now_ms, sink);
                    }
                }
            }
            Link::Up => {
                if self.gives_up_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                    self.close = true;
                    self.lost(ErrorKind::Timeout, now_ms, sink);
                } else if self.connection.is_idle() && is_due(self.used_ms, self.options.inactive_reset_ms) {
                    self.close = true;
                    self.lost(ErrorKind::Remote, now_ms, sink); // nothing to fail
                }
            }
            Link::Idle | Link::Connecting { .. } => {}
        }
        if self.health.start_probe(now_ms) {
            self.counters.probes += 1;
            if self.connection.enqueue(&Command::Version, b"", PROBE, now_ms).is_err() {
                self.health.probe_failed();
            }
        }
    }

    /// When [`Destination::tick`] has something to do; `None` when only an event brings that.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let Options { server_timeout_ms, connect_timeout_ms, inactive_reset_ms, .. } = self.options;
        let after = |since_ms: Option<u64>, limit_ms: u64| {
            since_ms.filter(|_| limit_ms > 0).map(|since_ms| since_ms.saturating_add(limit_ms))
        };
        let of_link = match self.link {
            Link::Idle => None,
            Link::Connecting { since_ms, .. } => after(Some(since_ms), connect_timeout_ms),
            Link::Up if self.connection.is_idle() => after(Some(self.used_ms), inactive_reset_ms),
            Link::Up => self.gives_up_at_ms(),
        };
        let expiry =
            if server_timeout_ms > 0 { self.connection.next_expiry_ms(server_timeout_ms) } else { None };
        [of_link, expiry, self.health.probe_at_ms()].into_iter().flatten().min()
    }

    /// When a connection on which nothing comes is closed.
    fn gives_up_at_ms(&self) -> Option<u64> {
        let timeout_ms = self.options.server_timeout_ms;
        let since_ms = self.connection.silent_since_ms().filter(|_| timeout_ms > 0)?;
        let patience = if self.connection.is_awaited() { 2 } else { 1 };
        Some(since_ms.saturating_add(timeout_ms.saturating_mul(patience)))
    }

    /// The destination is no longer wanted: everything that waits gets `SERVER_ERROR local error`. The driver closes
    /// what it has.
    pub fn abandon(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        self.close |= !matches!(self.link, Link::Idle);
        self.link = Link::Idle;
        self.fail_all(ErrorKind::Local, now_ms, sink);
    }

    /// Tells those that waited too long.
    fn expire(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        let timeout_ms = self.options.server_timeout_ms;
        if timeout_ms == 0 {
            return;
        }
        let Self { connection, health, counters, concurrency, .. } = self;
        connection.expire(timeout_ms, now_ms, &mut |answer| {
            if answer.waiter != Some(PROBE) {
                if let Some(concurrency) = concurrency {
                    concurrency.answered(answer.waited_ms, now_ms);
                }
                counters.ejections += u64::from(health.timed_out(now_ms));
            }
            pass_failure(health, counters, answer, sink);
        });
    }

    /// The connection cannot be made.
    fn not_connected(
        &mut self,
        reason: Reason,
        kind: ErrorKind,
        now_ms: u64,
        sink: &mut impl FnMut(u64, ReplyEvent<'_>),
    ) {
        self.link = Link::Idle;
        self.retries_left = self.options.connect_retries;
        self.counters.connect_failures += 1;
        self.counters.ejections += u64::from(self.health.failed_hard(reason, now_ms));
        self.fail_all(kind, now_ms, sink);
    }

    /// The connection is of no use any more.
    fn lost(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        self.link = Link::Idle;
        self.counters.closes += 1;
        let Self { connection, health, counters, .. } = self;
        connection.fail_sent(kind, now_ms, &mut |answer| pass_failure(health, counters, answer, sink));
        if self.health.ejected().is_some() {
            self.fail_all(ErrorKind::Ejected, now_ms, sink);
        }
    }

    fn fail_all(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        let Self { connection, health, counters, .. } = self;
        connection.fail_all(kind, now_ms, &mut |answer| pass_failure(health, counters, answer, sink));
    }
}

/// Counts what the destination answered, draws what follows for its health, and passes it on.
#[inline]
fn settle(
    health: &mut Health,
    counters: &mut Counters,
    answer: Answer<'_>,
    now_ms: u64,
    sink: &mut impl FnMut(u64, ReplyEvent<'_>),
) {
    let Answer { waiter, waited_ms, event } = answer;
    let Some(waiter) = waiter else {
        // The waiter went with a timeout; nothing is made of the reply, as mcrouter does not either.
        counters.late_replies += u64::from(event.is_last());
        return;
    };
    match &event {
        ReplyEvent::Reply(Reply::Error { kind, .. }) => {
            if *kind == ErrorKind::Shutdown {
                counters.ejections += u64::from(health.failed_hard(Reason::Shutdown, now_ms));
            }
            if waiter == PROBE {
                health.probe_failed();
            }
        }
        event if event.is_last() => counters.returns += u64::from(health.answered()),
        _ => {}
    }
    if waiter != PROBE {
        counters.answered(&event, waited_ms);
        sink(waiter, event);
    }
}

/// Counts a reply that was made here, and passes it on.
fn pass_failure(
    health: &mut Health,
    counters: &mut Counters,
    answer: Answer<'_>,
    sink: &mut impl FnMut(u64, ReplyEvent<'_>),
) {
    let Answer { waiter: Some(waiter), event, .. } = answer else { return };
    if waiter == PROBE {
        health.probe_failed();
        return;
    }
    if let ReplyEvent::Reply(Reply::Error { kind, .. }) = &event {
        counters.failed(*kind);
    }
    sink(waiter, event);
}
