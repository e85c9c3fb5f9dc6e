//! A thread of load: its connections, the bursts that it sends on them, and its clock.
//!
//! It uses the network drivers of the server on the client side. A turn gives the kernel all bursts that the
//! last turn wrote, processes what has been received, and writes the next burst on each connection whose
//! burst is answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corecached_net::endpoints::IoBackend;
use corecached_net::epoll::Epoll;
use corecached_net::granted;
use corecached_net::listen::Admission;
use corecached_net::tls::{SecureDriver, TlsDriver};
use corecached_net::uring::Uring;
use corecached_net::{Close, ConnId, Driver, DriverSetup, Event, Send, Wait};
use rustix::time::{ClockId, clock_gettime};

use super::connection::{Garbled, Judge, Replies};
use super::requests::RequestSource;
use super::tally::Tally;
use super::versions::Versions;
use super::{Dataset, Pace, Plan, Progress};
use crate::{Failure, process, scheduling};

/// Name that the certificate of the server must bear.
const SERVER_NAME: &str = "localhost";
/// Connections that are being opened at the same time; more could overflow a short accept queue.
const CONNECTING_MAX: usize = 64;
/// Time that a server gets to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time that pending requests get to be answered after the measured time.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Time without any reply to pending requests after which the run fails.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Number of connections that may break before the run fails.
const BROKEN_MAX: u64 = 100;
/// Bursts that an open loop keeps which are due and not sent. Further ones are counted as unsent and dropped.
const BACKLOG_MAX: usize = 1 << 22;
/// A tenth of a second.
const TENTH_NS: u64 = 100_000_000;
/// Turns between two updates of the progress bar.
const TURNS_PER_STEP: u32 = 256;

/// The result of a thread.
#[derive(Debug)]
pub(super) struct ThreadOutcome {
    /// Counters and histograms of the measured time.
    pub tally: Tally,
    /// Length of the measured time.
    pub measured: Duration,
    /// CPU time of this thread in the measured time.
    pub own_cpu: Duration,
    /// CPU time of the server in the measured time; read by the first thread only.
    pub server_cpu: Option<Duration>,
    /// Requests of an open loop that were due and not sent when the measured time ended, or were dropped
    /// because the backlog was full.
    pub unsent: u64,
}

/// Runs thread `number` of a plan.
///
/// # Errors
/// The server cannot be reached, gives no reply, or breaks too many connections; or io_uring was requested
/// and the kernel denies it.
pub(super) fn run(
    plan: &Plan,
    dataset: &Dataset,
    number: usize,
    progress: &Progress,
) -> Result<ThreadOutcome, Failure> {
    if !plan.threads.cores.is_empty() {
        scheduling::pin(&[plan.threads.cores[number % plan.threads.cores.len()]])?;
    }
    let setup = || DriverSetup {
        listeners: Vec::new(),
        admission: Arc::new(Admission::new(0)),
        receives_values: false,
    };
    let uring = match plan.threads.io_backend {
        IoBackend::Epoll => None,
        IoBackend::Auto => granted::probe().ok().and_then(|_| Uring::new(setup()).ok()),
        IoBackend::IoUring => {
            let denied = |error: &dyn std::fmt::Display| Failure::new(format!("io_uring: {error}"));
            granted::probe().map_err(|error| denied(&error))?;
            Some(Uring::new(setup()).map_err(|error| denied(&error))?)
        }
    };
    // Each combination is compiled separately, so that a run without TLS executes no TLS code.
    match (uring, &plan.connections.tls) {
        (Some(driver), None) => run_over(driver, plan, dataset, number, progress),
        (Some(driver), Some(_)) => run_over(secured(driver), plan, dataset, number, progress),
        (None, None) => run_over(Epoll::new(setup())?, plan, dataset, number, progress),
        (None, Some(_)) => run_over(secured(Epoll::new(setup())?), plan, dataset, number, progress),
    }
}

/// Returns a driver that can open TLS connections, and accepts none.
fn secured<D: Driver>(below: D) -> TlsDriver<D> {
    TlsDriver::new(below, None, Box::default())
}

fn run_over(
    driver: impl SecureDriver,
    plan: &Plan,
    dataset: &Dataset,
    number: usize,
    progress: &Progress,
) -> Result<ThreadOutcome, Failure> {
    let mut worker = Worker::new(driver, plan, dataset, number, progress)?;
    worker.connect_all()?;
    if plan.threads.fifo {
        scheduling::run_first(0)?;
    }
    worker.run()
}

/// Divides `count` evenly into `parts` and returns part `number`.
fn share(count: u64, parts: usize, number: usize) -> u64 {
    count / parts as u64 + u64::from((number as u64) < count % parts as u64)
}

struct LoadConnection {
    /// Id in the driver; not valid after [`Event::Closed`].
    conn: ConnId,
    /// Whether it is not established yet.
    connecting: bool,
    replies: Replies,
    /// When the pending burst was due, in nanoseconds of the clock of the run.
    due_ns: u64,
    /// Number of requests that it makes before it is closed and opened again.
    requests_left: u64,
}

/// The connections of a thread.
#[derive(Default)]
struct ConnectionTable {
    all: Vec<LoadConnection>,
    /// Index in `all` by the index of a [`ConnId`].
    index_by_slot: Vec<u32>,
    /// Number of connections that are not established yet.
    connecting: usize,
    /// Indices of connections without pending requests, the longest idle first.
    idle: VecDeque<u32>,
}

/// The bursts written in this turn.
struct TurnOutput {
    /// Bytes of the bursts; `sends` tells the connection of each part.
    arena: Vec<u8>,
    sends: Vec<Send>,
}

/// The bursts of an open loop that are not sent yet.
#[derive(Default)]
struct OpenLoop {
    /// When the next burst is due.
    next_due_ns: f64,
    /// When each burst was due that has found no idle connection.
    backlog: VecDeque<u64>,
    /// Becomes [`ThreadOutcome::unsent`].
    unsent: u64,
}

/// CPU times at one instant.
struct Sample {
    at_ns: u64,
    own: Duration,
    server_ns: u64,
}

/// The clock of a run: nanoseconds since its start.
struct RunClock {
    start: Instant,
    /// When the driver returned the events of this turn.
    turn_ns: u64,
    /// Start of the measured time.
    measure_from_ns: u64,
    /// End of the measured time.
    measure_until_ns: u64,
    /// CPU times at the start of the measured time; `None` before it.
    begun: Option<Sample>,
}

impl RunClock {
    /// Starts a clock for a run whose measured time begins at once and does not end.
    fn new() -> Self {
        Self {
            start: Instant::now(),
            turn_ns: 0,
            measure_from_ns: 0,
            measure_until_ns: u64::MAX,
            begun: None,
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

struct Worker<'p, D> {
    plan: &'p Plan,
    number: usize,
    progress: &'p Progress,
    driver: D,
    address: socket2::SockAddr,
    connections: ConnectionTable,
    judge: Judge<'p>,
    requests: RequestSource<'p>,
    output: TurnOutput,
    open_loop: OpenLoop,
    clock: RunClock,
    /// Number of pending requests.
    under_way: usize,
}

impl<'p, D: SecureDriver> Worker<'p, D> {
    fn new(
        mut driver: D,
        plan: &'p Plan,
        dataset: &'p Dataset,
        number: usize,
        progress: &'p Progress,
    ) -> Result<Self, Failure> {
        let left = plan.length.requests.map_or(u64::MAX, |count| share(count, plan.threads.count, number));
        let requests = RequestSource::new(plan, number, left)?;
        let versions = plan.verify.then(|| Versions::new(plan.run, plan.items.first_key, plan.items.keys));
        let arena = driver.take_arena();
        Ok(Self {
            plan,
            number,
            progress,
            driver,
            address: plan.target.address()?,
            connections: ConnectionTable::default(),
            judge: Judge { dataset, protocol: plan.traffic.protocol, versions, tally: Tally::new()? },
            requests,
            output: TurnOutput { arena, sends: Vec::new() },
            open_loop: OpenLoop::default(),
            clock: RunClock::new(),
            under_way: 0,
        })
    }

    /// Opens all connections of this thread, at most [`CONNECTING_MAX`] at a time, and waits until all are
    /// established.
    fn connect_all(&mut self) -> Result<(), Failure> {
        let count = share(self.plan.connections.count as u64, self.plan.threads.count, self.number) as usize;
        let mut events = Vec::new();
        let mut last = (0, Instant::now());
        while self.connections.idle.len() < count {
            while self.connections.all.len() < count && self.connections.connecting < CONNECTING_MAX {
                let conn = self.begin(self.connections.all.len())?;
                self.connections.all.push(LoadConnection {
                    conn,
                    connecting: true,
                    replies: Replies::default(),
                    due_ns: 0,
                    requests_left: self.plan.connections.requests_per_connection.unwrap_or(u64::MAX),
                });
            }
            if last.0 < self.connections.idle.len() {
                last = (self.connections.idle.len(), Instant::now());
            } else if last.1.elapsed() > CONNECT_LIMIT {
                return Err(Failure::new(format!("cannot connect to {}: no answer", self.plan.target)));
            }
            self.driver.turn(Wait::AtMost(Duration::from_millis(100)), &mut events)?;
            for event in events.drain(..) {
                self.on_event(event)?;
            }
        }
        Ok(())
    }

    /// Starts to open connection `index`.
    fn begin(&mut self, index: usize) -> Result<ConnId, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(format!("cannot connect to {}: {error}", self.plan.target));
        let conn = match &self.plan.connections.tls {
            None => self.driver.connect(&self.address),
            Some(trust) => {
                trust.for_host(SERVER_NAME).and_then(|with| self.driver.connect_secured(&self.address, &with))
            }
        };
        let conn = conn.map_err(failed)?;
        let slot = conn.index as usize;
        self.connections.index_by_slot.resize(self.connections.index_by_slot.len().max(slot + 1), 0);
        self.connections.index_by_slot[slot] = index as u32;
        self.connections.connecting += 1;
        Ok(conn)
    }

    fn run(mut self) -> Result<ThreadOutcome, Failure> {
        self.clock.start = Instant::now();
        if self.plan.length.requests.is_none() {
            self.clock.measure_from_ns = self.plan.length.warmup.as_nanos() as u64;
            self.clock.measure_until_ns =
                self.clock.measure_from_ns + self.plan.length.duration.as_nanos() as u64;
        }
        if let Pace::Open { .. } = self.plan.pace {
            self.open_loop.next_due_ns = self.gap_ns();
        }
        let mut events = Vec::new();
        let mut ended = None;
        let mut last_event_ns = 0;
        let mut turns = 0u32;
        loop {
            let now_ns = self.clock.now_ns();
            if self.clock.begun.is_none() && now_ns >= self.clock.measure_from_ns {
                self.judge.tally.restart();
                self.clock.begun = Some(self.sample());
            }
            let over = now_ns >= self.clock.measure_until_ns || self.ran_out();
            if over && ended.is_none() && (self.plan.length.requests.is_none() || self.under_way == 0) {
                ended = Some(self.sample());
                self.open_loop.unsent += (self.open_loop.backlog.len() * self.plan.connections.depth) as u64;
            }
            self.write_what_is_due(now_ns, over);
            let drained = self.under_way == 0 && (self.open_loop.backlog.is_empty() || self.ran_out());
            let late = now_ns > self.clock.measure_until_ns.saturating_add(DRAIN_LIMIT.as_nanos() as u64);
            if over && (drained || late) {
                break;
            }
            self.send_what_is_written();
            let wait = self.wait(now_ns, over);
            self.driver.turn(wait, &mut events)?;
            self.clock.turn_ns = self.clock.now_ns();
            if !events.is_empty() {
                last_event_ns = now_ns;
            } else if self.under_way > 0 && now_ns - last_event_ns > SILENCE_LIMIT.as_nanos() as u64 {
                return Err(Failure::new(format!("{} answers nothing", self.plan.target)));
            }
            for event in events.drain(..) {
                self.on_event(event)?;
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_PER_STEP) {
                self.show(now_ns);
            }
        }
        self.outcome(ended)
    }

    /// Tells whether this thread has made its last request.
    fn ran_out(&self) -> bool {
        self.requests.left == 0
    }

    fn show(&self, now_ns: u64) {
        if self.number == 0 {
            let counts = &self.judge.tally.counts;
            let position = match self.plan.length.requests {
                None => now_ns / 1_000_000,
                Some(_) => counts.gets + counts.sets,
            };
            self.progress.advance(position, counts.gets + counts.sets);
        }
    }

    fn sample(&self) -> Sample {
        let own = clock_gettime(ClockId::ThreadCPUTime);
        let server = if self.number == 0 { self.plan.server_pid } else { None };
        Sample {
            at_ns: self.clock.now_ns(),
            own: Duration::new(own.tv_sec as u64, own.tv_nsec as u32),
            server_ns: server.map_or(0, process::cpu_ns),
        }
    }

    fn outcome(mut self, ended: Option<Sample>) -> Result<ThreadOutcome, Failure> {
        let ended = ended.unwrap_or_else(|| self.sample());
        let Some(begun) = self.clock.begun.take() else {
            return Err(Failure::new("the run ended before it began"));
        };
        // Requests without a reply took at least this long. Without them, the longest latencies would be
        // missing.
        let now_ns = self.clock.now_ns();
        for connection in &self.connections.all {
            let count = connection.replies.outstanding() as u64;
            self.judge.tally.counts.unanswered += count;
            if count > 0 && matches!(self.plan.pace, Pace::Open { .. }) {
                self.judge.tally.get_ns.saturating_record_n(now_ns - connection.due_ns, count);
            }
        }
        if self.ran_out() {
            self.open_loop.backlog.clear(); // these bursts exceed the requested number of requests
        }
        for due_ns in &self.open_loop.backlog {
            self.judge.tally.counts.unanswered += self.plan.connections.depth as u64;
            self.judge.tally.get_ns.saturating_record_n(now_ns - due_ns, self.plan.connections.depth as u64);
        }
        self.judge.tally.end_tenth();
        let first = self.number == 0 && self.plan.server_pid.is_some();
        Ok(ThreadOutcome {
            measured: Duration::from_nanos(ended.at_ns - begun.at_ns),
            own_cpu: ended.own.saturating_sub(begun.own),
            server_cpu: first.then(|| Duration::from_nanos(ended.server_ns.saturating_sub(begun.server_ns))),
            unsent: self.open_loop.unsent,
            tally: self.judge.tally,
        })
    }

    /// Draws the time between two bursts of an open loop, in nanoseconds.
    fn gap_ns(&mut self) -> f64 {
        match self.plan.pace {
            Pace::Open { rate_per_s, .. } => {
                let bursts_per_s =
                    rate_per_s / (self.plan.connections.depth * self.plan.threads.count) as f64;
                self.requests.rng.exponential() * 1e9 / bursts_per_s
            }
            Pace::Closed => 0.0,
        }
    }

    fn write_what_is_due(&mut self, now_ns: u64, over: bool) {
        match self.plan.pace {
            Pace::Closed => {
                while !over
                    && !self.ran_out()
                    && let Some(index) = self.connections.idle.pop_front()
                {
                    self.write_burst(index as usize, now_ns);
                }
            }
            Pace::Open { .. } => {
                // Bursts due before the end are sent even if this thread did not run until after the end.
                while self.open_loop.next_due_ns <= now_ns.min(self.clock.measure_until_ns) as f64 {
                    if self.open_loop.backlog.len() < BACKLOG_MAX {
                        self.open_loop.backlog.push_back(self.open_loop.next_due_ns as u64);
                    } else {
                        self.open_loop.unsent += self.plan.connections.depth as u64;
                    }
                    self.open_loop.next_due_ns += self.gap_ns();
                }
                while !self.ran_out()
                    && !self.open_loop.backlog.is_empty()
                    && let Some(index) = self.connections.idle.pop_front()
                {
                    let due_ns = self.open_loop.backlog.pop_front().unwrap_or_default();
                    self.write_burst(index as usize, due_ns);
                }
            }
        }
    }

    /// Gives the bursts of this turn to the driver. In a closed loop their latency counts from now.
    fn send_what_is_written(&mut self) {
        if self.plan.pace == Pace::Closed && !self.output.sends.is_empty() {
            let now_ns = self.clock.now_ns();
            for send in &self.output.sends {
                if let Send::Bytes { conn, .. } = send {
                    self.connections.all[self.connections.index_by_slot[conn.index as usize] as usize]
                        .due_ns = now_ns;
                }
            }
        }
        self.driver.send(std::mem::take(&mut self.output.arena), &mut self.output.sends);
        self.output.arena = self.driver.take_arena();
    }

    /// Returns how long the driver may wait for events: at most until the next burst is due.
    fn wait(&self, now_ns: u64, over: bool) -> Wait {
        /// Gaps up to this are polled through, because a shorter sleep would end late.
        const SLEEP_NS_MIN: f64 = 2_000.0;
        /// Bounds how late the end of the measured time is noticed.
        const SLEEP_NS_MAX: f64 = 100e6;
        let sleep_ns = match self.plan.pace {
            Pace::Open { sleep, .. } if !over => {
                let gap_ns = self.open_loop.next_due_ns - now_ns as f64;
                if !sleep || gap_ns <= SLEEP_NS_MIN {
                    return Wait::No;
                }
                gap_ns.min(SLEEP_NS_MAX)
            }
            _ => SLEEP_NS_MAX,
        };
        Wait::AtMost(Duration::from_nanos(sleep_ns as u64))
    }

    /// Handles an event of a connection.
    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        let (Event::Connected { conn }
        | Event::Received { conn, .. }
        | Event::Ended { conn }
        | Event::Closed { conn }) = event
        else {
            return Ok(()); // this side accepts and pins nothing, and bursts wait for replies, not sockets
        };
        let index = self.connections.index_by_slot[conn.index as usize] as usize;
        let is_current = self.connections.all[index].conn == conn;
        match event {
            Event::Received { buffer, .. } => {
                let taken = match is_current {
                    true => self.received(index, &buffer),
                    false => Ok(()),
                };
                self.driver.recycle(buffer);
                match taken {
                    Ok(()) if is_current => self.free_if_answered(index),
                    Ok(()) => Ok(()),
                    Err(Garbled(words)) => {
                        self.driver.close(conn, Close::Now);
                        self.on_broken(index, &words)
                    }
                }
            }
            _ if !is_current => Ok(()),
            Event::Connected { .. } => {
                self.connections.all[index].connecting = false;
                self.connections.connecting -= 1;
                self.connections.idle.push_back(index as u32);
                Ok(())
            }
            Event::Closed { .. } if self.connections.all[index].connecting => {
                self.connections.connecting -= 1;
                self.plan.target.connect()?; // returns the reason, unless the server accepts by now
                self.connections.all[index].conn = self.begin(index)?;
                Ok(())
            }
            Event::Ended { .. } => {
                self.driver.close(conn, Close::Now);
                self.on_broken(index, "the server closed the connection")
            }
            _ => self.on_broken(index, "the connection broke"),
        }
    }

    /// Handles received bytes.
    fn received(&mut self, index: usize, buffer: &corecached_net::Buffer) -> Result<(), Garbled> {
        let bytes = self.driver.received(buffer);
        self.judge.tally.counts.bytes_in += bytes.len() as u64;
        let taken = self.connections.all[index].replies.take(bytes, &mut self.judge);
        self.count_answered(index);
        taken
    }

    /// If the burst of a connection is answered, writes its next burst (closed loop) or makes the connection
    /// idle.
    fn free_if_answered(&mut self, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections.all[index];
        if connection.replies.outstanding() > 0 || connection.replies.is_clear() {
            return Ok(());
        }
        connection.replies.clear();
        if connection.requests_left == 0 {
            self.driver.close(connection.conn, Close::Now);
            return self.reopen(index);
        }
        let over = self.clock.turn_ns >= self.clock.measure_until_ns || self.ran_out();
        if self.plan.pace == Pace::Closed && !over {
            self.write_burst(index, self.clock.turn_ns);
        } else {
            self.connections.idle.push_back(index as u32);
        }
        Ok(())
    }

    fn count_answered(&mut self, index: usize) {
        let connection = &mut self.connections.all[index];
        let (gets, sets) = connection.replies.take_answered();
        if gets + sets == 0 {
            return;
        }
        let (due_ns, now_ns) = (connection.due_ns, self.clock.turn_ns);
        self.under_way -= (gets + sets) as usize;
        // An open loop counts requests that were due in the measured time, a closed loop those answered in
        // it.
        let counts_at = if self.plan.pace == Pace::Closed { now_ns } else { due_ns };
        if (self.clock.measure_from_ns..self.clock.measure_until_ns).contains(&counts_at)
            && self.clock.begun.is_some()
        {
            let latency_ns = now_ns - due_ns;
            self.judge.tally.answered(gets, sets, latency_ns);
            let interval_ns = self.plan.length.interval.as_nanos().max(1) as u64;
            let interval = (counts_at - self.clock.measure_from_ns) / interval_ns;
            self.judge.tally.in_interval(interval as usize, gets + sets, latency_ns);
            if self.plan.pace != Pace::Closed {
                let tenth = (counts_at - self.clock.measure_from_ns) / TENTH_NS;
                self.judge.tally.in_tenth(tenth, gets + sets, latency_ns);
            }
        }
    }

    /// Opens a connection again. It becomes idle when it is established.
    fn reopen(&mut self, index: usize) -> Result<(), Failure> {
        let conn = self.begin(index)?;
        let connection = &mut self.connections.all[index];
        (connection.conn, connection.connecting) = (conn, true);
        connection.requests_left = self.plan.connections.requests_per_connection.unwrap_or(u64::MAX);
        Ok(())
    }

    /// Handles a lost connection, which the driver has forgotten: counts its pending requests and opens it
    /// again.
    #[cold]
    fn on_broken(&mut self, index: usize, words: &str) -> Result<(), Failure> {
        let connection = &mut self.connections.all[index];
        let lost = connection.replies.outstanding();
        connection.replies.clear();
        self.under_way -= lost;
        let tally = &mut self.judge.tally;
        tally.counts.broken += 1;
        tally.counts.unanswered += lost as u64;
        tally.example(|| words.to_owned());
        if tally.counts.broken > BROKEN_MAX {
            return Err(Failure::new(format!(
                "{} connections broke, the last: {words}",
                tally.counts.broken
            )));
        }
        if lost == 0 {
            self.connections.idle.retain(|&idle| idle as usize != index);
        }
        self.reopen(index)
    }

    /// Writes the next burst of a connection.
    fn write_burst(&mut self, index: usize, due_ns: u64) {
        let start = self.output.arena.len();
        let mut out = std::mem::take(&mut self.output.arena);
        let mut made = 0;
        while made < self.plan.connections.depth
            && !self.ran_out()
            && self.connections.all[index].requests_left > 0
        {
            let connection = &mut self.connections.all[index];
            connection.requests_left -= 1;
            self.requests.put(&mut self.judge, &mut connection.replies, &mut out);
            made += 1;
        }
        self.under_way += made;
        self.judge.tally.counts.bytes_out += (out.len() - start) as u64;
        let connection = &mut self.connections.all[index];
        connection.due_ns = due_ns;
        self.output.sends.push(Send::Bytes { conn: connection.conn, start, end: out.len(), queued: false });
        self.output.arena = out;
    }
}
