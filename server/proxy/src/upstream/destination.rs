//! One host:port that requests are sent to: its one connection, the deadlines of its pending requests, and
//! its health.
//!
//! Owns no socket and reads no clock. A driver reports what happened to the socket, and carries out the
//! actions that [`Destination::next_action`] returns. Replies are given to the `sink` of the method that
//! produced them, with the number of their request. All times are milliseconds of the same clock, read once a
//! turn, and never go back.

use std::io;
use std::rc::Rc;

use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, ErrorKind, Reply};

use super::concurrency::Concurrency;
use super::connection::{ConnectionLimits, RequestEvent, UpstreamConnection};
use super::counters::DestinationCounters;
use super::failure::EjectionReason;
use super::health::{Health, HealthOptions, PoolHealth};
use crate::config::AdaptiveConcurrency;
use crate::request::Operation;

/// The number of probes, which no request may have.
pub(crate) const PROBE: u64 = u64::MAX;

/// The limits and timeouts of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DestinationOptions {
    /// Milliseconds from request to reply; 0 is no limit. Past it the request gets `SERVER_ERROR timeout`,
    /// and counts as one failure towards ejection. When nothing at all has come for this time, the connection
    /// is closed: as soon as all requests in flight have timed out too, so that none fails early, and after
    /// twice this time in any case.
    pub(crate) server_timeout_ms: u64,
    /// Milliseconds in which a connection must be established; 0 is no limit. Past it all requests get
    /// `SERVER_ERROR connection timeout`, and the destination is ejected.
    pub(crate) connect_timeout_ms: u64,
    /// Connections in a row that may time out without consequence.
    pub(crate) connect_retries: u32,
    /// Milliseconds without use after which a connection is closed; 0 is never.
    pub(crate) inactive_reset_ms: u64,
    /// The limits of the connection.
    pub(crate) limits: ConnectionLimits,
    /// When it is ejected, and how often it is probed then.
    pub(crate) health: HealthOptions,
}

impl Default for DestinationOptions {
    /// The defaults of mcrouter.
    fn default() -> Self {
        Self {
            server_timeout_ms: 1000,
            connect_timeout_ms: 1000,
            connect_retries: 0,
            inactive_reset_ms: 60_000,
            limits: ConnectionLimits::default(),
            health: HealthOptions::default(),
        }
    }
}

/// What a destination asks the driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DestinationAction {
    /// Connect to [`Destination::address`], and report [`Destination::connected`] or
    /// [`Destination::connect_failed`].
    Connect,
    /// Send what [`Destination::take_output`] yields.
    Send,
    /// Close the connection, or stop connecting, and report nothing about it any more.
    Close,
}

/// The state of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DestinationStatus {
    /// Not connected, because there was no request since the last connection.
    Idle,
    /// A connection is being established.
    Connecting,
    /// Connected.
    Up,
    /// Requests fail at once; a connection is established for probes only.
    Ejected(EjectionReason),
}

/// The state of the connection, as far as the driver has reported.
#[derive(Clone, Copy, Debug)]
enum Link {
    Idle,
    Connecting { since_ms: u64, retries_left: u32 },
    Up,
}

/// One host:port that requests are sent to.
#[derive(Debug)]
pub(crate) struct Destination {
    address: String,
    options: DestinationOptions,
    link: Link,
    /// The driver must close the connection before anything else.
    close: bool,
    /// The address has changed: the destination is connected to again once nothing is in flight.
    moved: bool,
    /// Further connections that may time out without consequence.
    retries_left: u32,
    /// When something was last sent or received.
    used_ms: u64,
    connection: UpstreamConnection,
    health: Health,
    /// The limit of pending gets, if it depends on the speed of the destination.
    concurrency: Option<Box<Concurrency>>,
    counters: DestinationCounters,
}

impl Destination {
    /// A destination that is not connected. `seed` spreads its probes in time from those of others; `pool` is
    /// what it shares with the other destinations of its pool.
    #[must_use]
    pub(crate) fn new(
        address: String,
        options: DestinationOptions,
        pool: Option<Rc<PoolHealth>>,
        seed: u64,
    ) -> Self {
        Self {
            address,
            link: Link::Idle,
            close: false,
            moved: false,
            retries_left: options.connect_retries,
            used_ms: 0,
            connection: UpstreamConnection::new(options.limits),
            health: Health::new(options.health, pool, seed),
            concurrency: None,
            counters: DestinationCounters::default(),
            options,
        }
    }

    /// `host:port` as configured.
    #[must_use]
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The options it was created with.
    #[must_use]
    pub(crate) fn options(&self) -> &DestinationOptions {
        &self.options
    }

    /// The current state.
    #[must_use]
    pub(crate) fn status(&self) -> DestinationStatus {
        match (self.health.ejected(), self.link) {
            (Some(reason), _) => DestinationStatus::Ejected(reason),
            (None, Link::Idle) => DestinationStatus::Idle,
            (None, Link::Connecting { .. }) => DestinationStatus::Connecting,
            (None, Link::Up) => DestinationStatus::Up,
        }
    }

    /// Limits the pending gets by the speed of the destination, within `bounds`; `None` removes that limit.
    /// What was learnt is kept as long as `bounds` do not change.
    pub(crate) fn limit_concurrency(&mut self, bounds: Option<AdaptiveConcurrency>) {
        if self.concurrency.as_ref().map(|concurrency| concurrency.bounds()) != bounds {
            self.concurrency = bounds.map(|bounds| Box::new(Concurrency::new(bounds)));
        }
    }

    /// How many gets may be pending now; `None` if that does not depend on the speed of the destination.
    #[must_use]
    pub(crate) fn concurrency(&self) -> Option<u32> {
        self.concurrency.as_ref().map(|concurrency| concurrency.limit())
    }

    /// The counters of this destination.
    #[must_use]
    pub(crate) fn counters(&self) -> &DestinationCounters {
        &self.counters
    }

    /// The number of pending requests, sent or not.
    #[must_use]
    pub(crate) fn pending(&self) -> usize {
        self.connection.pending()
    }

    /// The number of requests in flight.
    #[must_use]
    pub(crate) fn inflight(&self) -> usize {
        self.connection.inflight()
    }

    /// Timeouts since the last reply that was no error.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn timeouts(&self) -> u32 {
        self.health.timeouts()
    }

    /// Enqueues `command` with `data` as its value, as request `number`, which is not [`PROBE`]. It will get
    /// exactly one reply, through the sink of one of the calls that follow. `may_refuse` says that another
    /// destination would be asked in place of this one if it is slow.
    ///
    /// # Errors
    /// The reply, if the destination is ejected or at one of its limits, if the command cannot be sent, or if
    /// the destination is slow ([`failure::slow`]).
    ///
    /// [`failure::slow`]: super::failure::slow
    #[inline]
    pub(crate) fn request(
        &mut self,
        command: &Command,
        data: &[u8],
        number: u64,
        may_refuse: bool,
        now_ms: u64,
    ) -> Result<(), Reply> {
        debug_assert_ne!(number, PROBE);
        let taken = match self.health.ejected() {
            Some(reason) => Err(reason.reply()),
            None if self.is_beyond(command) && may_refuse => {
                self.counters.refused += 1;
                Err(super::failure::slow())
            }
            None => self.connection.enqueue(command, data, number, now_ms),
        };
        match &taken {
            Ok(()) => self.counters.requests += 1,
            Err(Reply::Error { kind, .. }) => self.counters.failed(*kind),
            Err(_) => {}
        }
        taken
    }

    /// Whether `command` is a plain get and the destination, which is slow, has as many pending requests as
    /// it may have. Writes are never beyond the limit: no other destination could take them.
    #[inline]
    fn is_beyond(&mut self, command: &Command) -> bool {
        let Some(concurrency) = &mut self.concurrency else { return false };
        let reads = matches!(
            Operation::from_command(command),
            Some(Operation::Get | Operation::Gets | Operation::Metaget)
        );
        reads && !concurrency.admits(self.connection.pending())
    }

    /// What the driver must do next; `None` until the next event or deadline.
    pub(crate) fn next_action(&mut self, now_ms: u64) -> Option<DestinationAction> {
        if std::mem::take(&mut self.close) {
            return Some(DestinationAction::Close);
        }
        if self.moved && self.connection.inflight() == 0 {
            self.moved = false;
            if !matches!(self.link, Link::Idle) {
                self.link = Link::Idle;
                return Some(DestinationAction::Close);
            }
        }
        match self.link {
            Link::Idle if !self.connection.is_idle() => {
                self.link = Link::Connecting { since_ms: now_ms, retries_left: self.retries_left };
                Some(DestinationAction::Connect)
            }
            Link::Up if !self.moved && self.connection.has_output() => Some(DestinationAction::Send),
            _ => None,
        }
    }

    /// Appends to `out` the bytes to send.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>, now_ms: u64) {
        if !matches!(self.link, Link::Up) {
            return;
        }
        let before = out.len();
        self.connection.take_output(out);
        self.counters.bytes_sent += (out.len() - before) as u64;
        self.used_ms = now_ms;
    }

    /// The connection was established.
    pub(crate) fn connected(&mut self, now_ms: u64) {
        if let Link::Connecting { .. } = self.link {
            self.link = Link::Up;
            self.retries_left = self.options.connect_retries;
            self.used_ms = now_ms;
            self.connection.connected(now_ms);
            self.counters.connects += 1;
        }
    }

    /// The connection could not be established: refused, unreachable, or no address is known. All requests
    /// get `SERVER_ERROR connection error`, or `connection timeout` if the kernel gave up.
    pub(crate) fn connect_failed(
        &mut self,
        error: io::ErrorKind,
        now_ms: u64,
        sink: &mut impl FnMut(u64, ReplyEvent<'_>),
    ) {
        if let Link::Connecting { .. } = self.link {
            let (reason, kind) = match error {
                io::ErrorKind::TimedOut => (EjectionReason::ConnectTimeout, ErrorKind::ConnectTimeout),
                _ => (EjectionReason::Connect, ErrorKind::Connect),
            };
            self.not_connected(reason, kind, now_ms, sink);
        }
    }

    /// The other end closed or reset the connection. Requests in flight get `SERVER_ERROR remote error`; the
    /// others are sent on the next connection.
    pub(crate) fn closed(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        if let Link::Up = self.link {
            self.lost(ErrorKind::Remote, now_ms, sink);
        }
    }

    /// Bytes were received. A driver goes on receiving however slow a client is: a connection that is not
    /// read from looks like a silent destination, and replies to other clients follow on it.
    pub(crate) fn received(&mut self, bytes: &[u8], now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        if !matches!(self.link, Link::Up) {
            return; // the connection was given up
        }
        self.used_ms = now_ms;
        self.counters.bytes_received += bytes.len() as u64;
        let Self { connection, health, counters, concurrency, .. } = self;
        let outcome = connection.received(bytes, now_ms, &mut |answer| {
            if let Some(concurrency) = concurrency
                && answer.number.is_some_and(|number| number != PROBE)
                && answer.event.is_last()
            {
                concurrency.answered(answer.waited_ms, now_ms);
            }
            deliver_reply(health, counters, answer, now_ms, sink);
        });
        if outcome.is_err() {
            self.close = true;
            self.lost(ErrorKind::Remote, now_ms, sink);
        }
    }

    /// The address leads to another host from now on. Requests in flight are still answered by the host
    /// before; then the connection, if any, is closed, and other requests are sent on the next one. An
    /// ejected destination is probed at once.
    pub(crate) fn moved(&mut self, now_ms: u64) {
        self.moved = !matches!(self.link, Link::Idle);
        self.health.moved(now_ms);
    }

    /// Applies all deadlines up to `now_ms`. To be called at [`Destination::next_deadline`], or more often.
    pub(crate) fn tick(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
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
                        self.not_connected(
                            EjectionReason::ConnectTimeout,
                            ErrorKind::ConnectTimeout,
                            now_ms,
                            sink,
                        );
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

    /// When [`Destination::tick`] has something to do next; `None` if not before another event.
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let DestinationOptions { server_timeout_ms, connect_timeout_ms, inactive_reset_ms, .. } =
            self.options;
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

    /// When the connection is closed if nothing is received until then.
    fn gives_up_at_ms(&self) -> Option<u64> {
        let timeout_ms = self.options.server_timeout_ms;
        let since_ms = self.connection.silent_since_ms().filter(|_| timeout_ms > 0)?;
        let patience = if self.connection.is_awaited() { 2 } else { 1 };
        Some(since_ms.saturating_add(timeout_ms.saturating_mul(patience)))
    }

    /// The destination is not used any more: all requests get `SERVER_ERROR local error`, and the driver is
    /// asked to close the connection.
    pub(crate) fn abandon(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        self.close |= !matches!(self.link, Link::Idle);
        self.link = Link::Idle;
        self.fail_all(ErrorKind::Local, now_ms, sink);
    }

    /// Answers the requests that have timed out.
    fn expire(&mut self, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        let timeout_ms = self.options.server_timeout_ms;
        if timeout_ms == 0 {
            return;
        }
        let Self { connection, health, counters, concurrency, .. } = self;
        connection.expire(timeout_ms, now_ms, &mut |answer| {
            if answer.number != Some(PROBE) {
                if let Some(concurrency) = concurrency {
                    concurrency.answered(answer.waited_ms, now_ms);
                }
                counters.ejections += u64::from(health.timed_out(now_ms));
            }
            deliver_failure(health, counters, answer, sink);
        });
    }

    /// The connection cannot be established: all requests fail with `kind`.
    fn not_connected(
        &mut self,
        reason: EjectionReason,
        kind: ErrorKind,
        now_ms: u64,
        sink: &mut impl FnMut(u64, ReplyEvent<'_>),
    ) {
        debug_assert!(matches!(self.link, Link::Connecting { .. }));
        self.link = Link::Idle;
        self.retries_left = self.options.connect_retries;
        self.counters.connect_failures += 1;
        self.counters.ejections += u64::from(self.health.failed_hard(reason, now_ms));
        self.fail_all(kind, now_ms, sink);
    }

    /// The connection is lost: requests in flight fail with `kind`.
    fn lost(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        debug_assert!(matches!(self.link, Link::Up));
        self.link = Link::Idle;
        self.counters.closes += 1;
        let Self { connection, health, counters, .. } = self;
        connection.fail_sent(kind, now_ms, &mut |answer| deliver_failure(health, counters, answer, sink));
        if self.health.ejected().is_some() {
            self.fail_all(ErrorKind::Ejected, now_ms, sink);
        }
    }

    fn fail_all(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(u64, ReplyEvent<'_>)) {
        let Self { connection, health, counters, .. } = self;
        connection.fail_all(kind, now_ms, &mut |answer| deliver_failure(health, counters, answer, sink));
        debug_assert_eq!(self.connection.pending(), 0, "every request was answered");
    }
}

/// Counts an event of a reply, updates the health of the destination, and gives the event to `sink`.
#[inline]
fn deliver_reply(
    health: &mut Health,
    counters: &mut DestinationCounters,
    event: RequestEvent<'_>,
    now_ms: u64,
    sink: &mut impl FnMut(u64, ReplyEvent<'_>),
) {
    let RequestEvent { number, waited_ms, event } = event;
    let Some(number) = number else {
        // The request has timed out. As in mcrouter, its late reply has no consequence.
        counters.late_replies += u64::from(event.is_last());
        return;
    };
    match &event {
        ReplyEvent::Reply(Reply::Error { kind, .. }) => {
            if *kind == ErrorKind::Shutdown {
                counters.ejections += u64::from(health.failed_hard(EjectionReason::Shutdown, now_ms));
            }
            if number == PROBE {
                health.probe_failed();
            }
        }
        event if event.is_last() => counters.returns += u64::from(health.answered()),
        _ => {}
    }
    if number != PROBE {
        counters.answered(&event, waited_ms);
        sink(number, event);
    }
}

/// Counts an error reply that was made here, and gives it to `sink`.
fn deliver_failure(
    health: &mut Health,
    counters: &mut DestinationCounters,
    event: RequestEvent<'_>,
    sink: &mut impl FnMut(u64, ReplyEvent<'_>),
) {
    let RequestEvent { number: Some(number), event, .. } = event else { return };
    if number == PROBE {
        health.probe_failed();
        return;
    }
    if let ReplyEvent::Reply(Reply::Error { kind, .. }) = &event {
        counters.failed(*kind);
    }
    sink(number, event);
}
