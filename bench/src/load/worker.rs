//! One thread of load: its connections, the bursts it sends on them, and the clock.
//!
//! It stands on the server's own network drivers, turned around: a turn hands the kernel every burst written in the
//! last one, takes in what has come, and answers each finished burst with the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corecached::config::IoBackend;
use corecached::net::epoll::Epoll;
use corecached::net::granted;
use corecached::net::listen::Admission;
use corecached::net::uring::Uring;
use corecached::net::{Close, ConnId, Driver, DriverSetup, Event, Send, Wait};
use corecached::tls::Tls;
use rustix::time::{ClockId, clock_gettime};

use super::connection::{Garbled, Judge, Replies};
use super::tally::Tally;
use super::versions::Versions;
use super::{Dataset, Pace, Plan, Progress, Work};
use crate::payload::Stamp;
use crate::popularity::KeyDraws;
use crate::rng::{Rng, mix};
use crate::{Failure, place, process, wire};

/// Whom a server's certificate must name.
const SERVER_NAME: &str = "localhost";
/// Connections begun and not there yet; more at once would overflow a short accept queue.
const CONNECTING_MAX: usize = 64;
/// A server that does not take a connection within this long is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// After the measured time, replies under way are awaited for this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// A server that answers nothing for this long, while something is under way, is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Connections that may break before the run is given up.
const BROKEN_MAX: u64 = 100;
/// Requests due and not sent, above which an open loop that has fallen behind makes no more.
const BACKLOG_MAX: usize = 1 << 22;
/// What a tenth of a second is.
const TENTH_NS: u64 = 100_000_000;
/// Turns between two movements of the progress bar.
const TURNS_PER_STEP: u32 = 256;

/// What a thread brings home.
#[derive(Debug)]
pub struct Outcome {
    /// What was counted in the measured time.
    pub tally: Tally,
    /// The measured time.
    pub measured: Duration,
    /// CPU time of this thread in it.
    pub own_cpu: Duration,
    /// CPU time of the server in it; read by the first thread only.
    pub server_cpu: Option<Duration>,
    /// Requests of an open loop that were due and not sent when the measured time ended, or were left out for want of
    /// room to note them.
    pub behind: u64,
}

/// Run thread `number` of a plan.
///
/// # Errors
/// When the server cannot be reached, or breaks connection after connection; when io_uring is asked for and denied.
pub fn run(plan: &Plan, dataset: &Dataset, number: usize, progress: &Progress) -> Result<Outcome, Failure> {
    if !plan.cores.is_empty() {
        place::pin(&[plan.cores[number % plan.cores.len()]])?;
    }
    let setup = || DriverSetup {
        listeners: Vec::new(),
        admission: Arc::new(Admission::new(0)),
        receives_values: false,
    };
    let uring = match plan.io_backend {
        IoBackend::Epoll => None,
        IoBackend::Auto => granted::probe().ok().and_then(|_| Uring::new(setup()).ok()),
        IoBackend::IoUring => {
            let denied = |error: &dyn std::fmt::Display| Failure::new(format!("io_uring: {error}"));
            granted::probe().map_err(|error| denied(&error))?;
            Some(Uring::new(setup()).map_err(|error| denied(&error))?)
        }
    };
    // Whoever has no TLS runs no line of it.
    match (uring, &plan.tls) {
        (Some(driver), None) => run_over(driver, plan, dataset, number, progress),
        (Some(driver), Some(_)) => run_over(secured(driver), plan, dataset, number, progress),
        (None, None) => run_over(Epoll::new(setup())?, plan, dataset, number, progress),
        (None, Some(_)) => run_over(secured(Epoll::new(setup())?), plan, dataset, number, progress),
    }
}

/// A driver that can begin secured connections, and takes none.
fn secured<D: Driver>(below: D) -> Tls<D> {
    Tls::new(below, None, Box::default())
}

fn run_over(
    driver: impl Driver,
    plan: &Plan,
    dataset: &Dataset,
    number: usize,
    progress: &Progress,
) -> Result<Outcome, Failure> {
    let mut worker = Worker::new(driver, plan, dataset, number, progress)?;
    worker.connect_all()?;
    if plan.fifo {
        place::run_first(0)?;
    }
    worker.run()
}

/// Part `number` of `count`, dealt out to `parts`.
fn share(count: u64, parts: usize, number: usize) -> u64 {
    count / parts as u64 + u64::from((number as u64) < count % parts as u64)
}

struct Connection {
    /// Its name in the driver, void once that said it closed.
    conn: ConnId,
    /// It was begun and does not stand yet.
    connecting: bool,
    replies: Replies,
    /// Nanoseconds of the run's clock at which the burst under way was due.
    due_ns: u64,
    /// Requests it makes before it is opened anew.
    requests_left: u64,
}

/// CPU times at one instant.
struct Sample {
    at_ns: u64,
    own: Duration,
    server_ns: u64,
}

struct Worker<'p, D> {
    plan: &'p Plan,
    number: usize,
    progress: &'p Progress,
    start: Instant,
    driver: D,
    address: socket2::SockAddr,
    connections: Vec<Connection>,
    /// The connection in each place of the driver's.
    places: Vec<u32>,
    /// Connections begun and not there yet.
    connecting: usize,
    judge: Judge<'p>,
    draws: KeyDraws,
    rng: Rng,
    /// Keys in order: the next one, of [`Work::Fill`] and [`Work::ReadBack`].
    next_key: u32,
    /// Requests it may still make.
    requests_left: u64,
    /// Version of the next set that nobody keeps book of.
    next_version: u32,
    /// Ids drawn for the request being made.
    ids: Vec<(u32, u32)>,
    /// Bursts written in this turn, and which bytes are whose.
    arena: Vec<u8>,
    sends: Vec<Send>,
    /// Connections with nothing under way, the longest idle first.
    idle: VecDeque<u32>,
    /// Open loop: when the next burst is due, and those due that found no idle connection.
    next_due_ns: f64,
    backlog: VecDeque<u64>,
    /// See [`Outcome::behind`].
    behind: u64,
    /// When the driver handed over what this turn works on.
    turn_ns: u64,
    /// The measured time, on the run's clock.
    measure_from_ns: u64,
    measure_until_ns: u64,
    begun: Option<Sample>,
    under_way: usize,
}

impl<'p, D: Driver> Worker<'p, D> {
    fn new(
        mut driver: D,
        plan: &'p Plan,
        dataset: &'p Dataset,
        number: usize,
        progress: &'p Progress,
    ) -> Result<Self, Failure> {
        let mut rng = Rng::new(plan.seed ^ mix(number as u64));
        let draws = match plan.work {
            Work::Mix => KeyDraws::new(&plan.popularity, plan.keys, &mut rng)?,
            Work::Fill | Work::ReadBack => {
                KeyDraws::new(&crate::popularity::Popularity::Uniform, 1, &mut rng)?
            }
        };
        let versions = plan.verify.then(|| Versions::new(plan.run, plan.first_key, plan.keys));
        let arena = driver.take_arena();
        Ok(Self {
            plan,
            number,
            progress,
            start: Instant::now(),
            driver,
            address: plan.target.address()?,
            connections: Vec::new(),
            places: Vec::new(),
            connecting: 0,
            judge: Judge { dataset, protocol: plan.protocol, versions, tally: Tally::new()? },
            draws,
            rng,
            next_key: 0,
            requests_left: plan.requests.map_or(u64::MAX, |requests| share(requests, plan.threads, number)),
            next_version: 1,
            ids: Vec::with_capacity(plan.keys_per_get),
            arena,
            sends: Vec::new(),
            idle: VecDeque::new(),
            next_due_ns: 0.0,
            backlog: VecDeque::new(),
            behind: 0,
            turn_ns: 0,
            measure_from_ns: 0,
            measure_until_ns: u64::MAX,
            begun: None,
            under_way: 0,
        })
    }

    /// Open this thread's connections, a few at a time, and wait until all stand.
    fn connect_all(&mut self) -> Result<(), Failure> {
        let count = share(self.plan.connections as u64, self.plan.threads, self.number) as usize;
        let mut events = Vec::new();
        let mut last = (0, Instant::now());
        while self.idle.len() < count {
            while self.connections.len() < count && self.connecting < CONNECTING_MAX {
                let conn = self.begin(self.connections.len())?;
                self.connections.push(Connection {
                    conn,
                    connecting: true,
                    replies: Replies::default(),
                    due_ns: 0,
                    requests_left: self.plan.requests_per_connection.unwrap_or(u64::MAX),
                });
            }
            if last.0 < self.idle.len() {
                last = (self.idle.len(), Instant::now());
            } else if last.1.elapsed() > CONNECT_LIMIT {
                return Err(Failure::new(format!("cannot connect to {}: no answer", self.plan.target)));
            }
            self.driver.turn(Wait::AtMost(Duration::from_millis(100)), &mut events)?;
            for event in events.drain(..) {
                self.heard(event)?;
            }
        }
        Ok(())
    }

    /// Begin connection `index`.
    fn begin(&mut self, index: usize) -> Result<ConnId, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(format!("cannot connect to {}: {error}", self.plan.target));
        let conn = match &self.plan.tls {
            None => self.driver.connect(&self.address),
            Some(trust) => {
                trust.towards(SERVER_NAME).and_then(|with| self.driver.connect_secured(&self.address, &with))
            }
        };
        let conn = conn.map_err(failed)?;
        let place = conn.index as usize;
        self.places.resize(self.places.len().max(place + 1), 0);
        self.places[place] = index as u32;
        self.connecting += 1;
        Ok(conn)
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn run(mut self) -> Result<Outcome, Failure> {
        self.start = Instant::now();
        if self.plan.requests.is_none() {
            self.measure_from_ns = self.plan.warmup.as_nanos() as u64;
            self.measure_until_ns = self.measure_from_ns + self.plan.duration.as_nanos() as u64;
        }
        if let Pace::Open { .. } = self.plan.pace {
            self.next_due_ns = self.gap_ns();
        }
        let mut events = Vec::new();
        let mut ended = None;
        let mut last_event_ns = 0;
        let mut turns = 0u32;
        loop {
            let now_ns = self.now_ns();
            if self.begun.is_none() && now_ns >= self.measure_from_ns {
                self.judge.tally.restart();
                self.begun = Some(self.sample());
            }
            let over = now_ns >= self.measure_until_ns || self.ran_out();
            if over && ended.is_none() && (self.plan.requests.is_none() || self.under_way == 0) {
                ended = Some(self.sample());
                self.behind += (self.backlog.len() * self.plan.depth) as u64;
            }
            self.write_what_is_due(now_ns, over);
            let drained = self.under_way == 0 && (self.backlog.is_empty() || self.ran_out());
            let late = now_ns > self.measure_until_ns.saturating_add(DRAIN_LIMIT.as_nanos() as u64);
            if over && (drained || late) {
                break;
            }
            self.send_what_is_written();
            let wait = self.wait(now_ns, over);
            self.driver.turn(wait, &mut events)?;
            self.turn_ns = self.now_ns();
            if !events.is_empty() {
                last_event_ns = now_ns;
            } else if self.under_way > 0 && now_ns - last_event_ns > SILENCE_LIMIT.as_nanos() as u64 {
                return Err(Failure::new(format!("{} answers nothing", self.plan.target)));
            }
            for event in events.drain(..) {
                self.heard(event)?;
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_PER_STEP) {
                self.show(now_ns);
            }
        }
        self.outcome(ended)
    }

    /// Whether it has made its last request.
    fn ran_out(&self) -> bool {
        self.requests_left == 0
    }

    fn show(&self, now_ns: u64) {
        if self.number == 0 {
            let counts = &self.judge.tally.counts;
            let position = match self.plan.requests {
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
            at_ns: self.now_ns(),
            own: Duration::new(own.tv_sec as u64, own.tv_nsec as u32),
            server_ns: server.map_or(0, process::cpu_ns),
        }
    }

    fn outcome(mut self, ended: Option<Sample>) -> Result<Outcome, Failure> {
        let ended = ended.unwrap_or_else(|| self.sample());
        let Some(begun) = self.begun.take() else {
            return Err(Failure::new("the run ended before it began"));
        };
        // What nobody answered took at least this long: left out, the worst latencies would be missing.
        let now_ns = self.now_ns();
        for connection in &self.connections {
            let count = connection.replies.outstanding() as u64;
            self.judge.tally.counts.unanswered += count;
            if count > 0 && matches!(self.plan.pace, Pace::Open { .. }) {
                self.judge.tally.get_ns.saturating_record_n(now_ns - connection.due_ns, count);
            }
        }
        if self.ran_out() {
            self.backlog.clear(); // due, but more than were to be made
        }
        for due_ns in &self.backlog {
            self.judge.tally.counts.unanswered += self.plan.depth as u64;
            self.judge.tally.get_ns.saturating_record_n(now_ns - due_ns, self.plan.depth as u64);
        }
        self.judge.tally.end_tenth();
        let first = self.number == 0 && self.plan.server_pid.is_some();
        Ok(Outcome {
            measured: Duration::from_nanos(ended.at_ns - begun.at_ns),
            own_cpu: ended.own.saturating_sub(begun.own),
            server_cpu: first.then(|| Duration::from_nanos(ended.server_ns.saturating_sub(begun.server_ns))),
            behind: self.behind,
            tally: self.judge.tally,
        })
    }

    /// Nanoseconds between two bursts of an open loop.
    fn gap_ns(&mut self) -> f64 {
        match self.plan.pace {
            Pace::Open { rate_per_s, .. } => {
                let bursts_per_s = rate_per_s / (self.plan.depth * self.plan.threads) as f64;
                self.rng.exponential() * 1e9 / bursts_per_s
            }
            Pace::Closed => 0.0,
        }
    }

    fn write_what_is_due(&mut self, now_ns: u64, over: bool) {
        match self.plan.pace {
            Pace::Closed => {
                while !over
                    && !self.ran_out()
                    && let Some(index) = self.idle.pop_front()
                {
                    self.write_burst(index as usize, now_ns);
                }
            }
            Pace::Open { .. } => {
                // What was due before the end is sent even if this thread was stopped until after it.
                while self.next_due_ns <= now_ns.min(self.measure_until_ns) as f64 {
                    if self.backlog.len() < BACKLOG_MAX {
                        self.backlog.push_back(self.next_due_ns as u64);
                    } else {
                        self.behind += self.plan.depth as u64;
                    }
                    self.next_due_ns += self.gap_ns();
                }
                while !self.ran_out()
                    && !self.backlog.is_empty()
                    && let Some(index) = self.idle.pop_front()
                {
                    let due_ns = self.backlog.pop_front().unwrap_or_default();
                    self.write_burst(index as usize, due_ns);
                }
            }
        }
    }

    /// Hand the driver this turn's bursts. Those of a closed loop count from here.
    fn send_what_is_written(&mut self) {
        if self.plan.pace == Pace::Closed && !self.sends.is_empty() {
            let now_ns = self.now_ns();
            for send in &self.sends {
                if let Send::Bytes { conn, .. } = send {
                    self.connections[self.places[conn.index as usize] as usize].due_ns = now_ns;
                }
            }
        }
        self.driver.send(std::mem::take(&mut self.arena), &mut self.sends);
        self.arena = self.driver.take_arena();
    }

    /// How long to wait for the server, at most: until a burst is due.
    fn wait(&self, now_ns: u64, over: bool) -> Wait {
        /// A shorter sleep would end late.
        const SLEEP_NS_MIN: f64 = 2_000.0;
        /// The end of the measured time is noticed this late at most.
        const SLEEP_NS_MAX: f64 = 100e6;
        let sleep_ns = match self.plan.pace {
            Pace::Open { sleep, .. } if !over => {
                let gap_ns = self.next_due_ns - now_ns as f64;
                if !sleep || gap_ns <= SLEEP_NS_MIN {
                    return Wait::No;
                }
                gap_ns.min(SLEEP_NS_MAX)
            }
            _ => SLEEP_NS_MAX,
        };
        Wait::AtMost(Duration::from_nanos(sleep_ns as u64))
    }

    /// Something happened to a connection.
    fn heard(&mut self, event: Event) -> Result<(), Failure> {
        let (Event::Connected { conn }
        | Event::Received { conn, .. }
        | Event::Ended { conn }
        | Event::Closed { conn }) = event
        else {
            return Ok(()); // nothing is accepted or pinned here, and bursts wait for replies, not for sockets
        };
        let index = self.places[conn.index as usize] as usize;
        let is_current = self.connections[index].conn == conn;
        match event {
            Event::Received { buffer, .. } => {
                let taken = match is_current {
                    true => self.received(index, buffer),
                    false => Ok(()),
                };
                self.driver.recycle(buffer);
                match taken {
                    Ok(()) if is_current => self.free_if_answered(index),
                    Ok(()) => Ok(()),
                    Err(Garbled(words)) => {
                        self.driver.close(conn, Close::Now);
                        self.broke(index, &words)
                    }
                }
            }
            _ if !is_current => Ok(()),
            Event::Connected { .. } => {
                self.connections[index].connecting = false;
                self.connecting -= 1;
                self.idle.push_back(index as u32);
                Ok(())
            }
            Event::Closed { .. } if self.connections[index].connecting => {
                self.connecting -= 1;
                self.plan.target.connect()?; // says why, unless it has come up by now
                self.connections[index].conn = self.begin(index)?;
                Ok(())
            }
            Event::Ended { .. } => {
                self.driver.close(conn, Close::Now);
                self.broke(index, "the server closed the connection")
            }
            _ => self.broke(index, "the connection broke"),
        }
    }

    /// Bytes came.
    fn received(&mut self, index: usize, buffer: corecached::net::Buffer) -> Result<(), Garbled> {
        let bytes = self.driver.received(buffer);
        self.judge.tally.counts.bytes_in += bytes.len() as u64;
        let taken = self.connections[index].replies.take(bytes, &mut self.judge);
        self.count_answered(index);
        taken
    }

    /// Once its burst is answered: go on at once in a closed loop, or wait to be due.
    fn free_if_answered(&mut self, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        if connection.replies.outstanding() > 0 || connection.replies.is_clear() {
            return Ok(());
        }
        connection.replies.clear();
        if connection.requests_left == 0 {
            self.driver.close(connection.conn, Close::Now);
            return self.reopen(index);
        }
        let over = self.turn_ns >= self.measure_until_ns || self.ran_out();
        if self.plan.pace == Pace::Closed && !over {
            self.write_burst(index, self.turn_ns);
        } else {
            self.idle.push_back(index as u32);
        }
        Ok(())
    }

    fn count_answered(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (gets, sets) = connection.replies.take_answered();
        if gets + sets == 0 {
            return;
        }
        let (due_ns, now_ns) = (connection.due_ns, self.turn_ns);
        self.under_way -= (gets + sets) as usize;
        // An open loop counts what was due in the measured time, a closed loop what was answered in it.
        let counts_at = if self.plan.pace == Pace::Closed { now_ns } else { due_ns };
        if (self.measure_from_ns..self.measure_until_ns).contains(&counts_at) && self.begun.is_some() {
            let latency_ns = now_ns - due_ns;
            self.judge.tally.answered(gets, sets, latency_ns);
            let interval_ns = self.plan.interval.as_nanos().max(1) as u64;
            let interval = (counts_at - self.measure_from_ns) / interval_ns;
            self.judge.tally.in_interval(interval as usize, gets + sets, latency_ns);
            if self.plan.pace != Pace::Closed {
                let tenth = (counts_at - self.measure_from_ns) / TENTH_NS;
                self.judge.tally.in_tenth(tenth, gets + sets, latency_ns);
            }
        }
    }

    /// Begin a connection anew; it is idle once it stands.
    fn reopen(&mut self, index: usize) -> Result<(), Failure> {
        let conn = self.begin(index)?;
        let connection = &mut self.connections[index];
        (connection.conn, connection.connecting) = (conn, true);
        connection.requests_left = self.plan.requests_per_connection.unwrap_or(u64::MAX);
        Ok(())
    }

    /// A connection is lost, and the driver knows it no more.
    #[cold]
    fn broke(&mut self, index: usize, words: &str) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
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
            self.idle.retain(|&idle| idle as usize != index);
        }
        self.reopen(index)
    }

    /// Write the next burst of a connection.
    fn write_burst(&mut self, index: usize, due_ns: u64) {
        let start = self.arena.len();
        let mut out = std::mem::take(&mut self.arena);
        let mut made = 0;
        while made < self.plan.depth && !self.ran_out() && self.connections[index].requests_left > 0 {
            self.put_request(index, &mut out);
            made += 1;
        }
        self.under_way += made;
        self.judge.tally.counts.bytes_out += (out.len() - start) as u64;
        let connection = &mut self.connections[index];
        connection.due_ns = due_ns;
        self.sends.push(Send::Bytes { conn: connection.conn, start, end: out.len(), queued: false });
        self.arena = out;
    }

    fn put_request(&mut self, index: usize, out: &mut Vec<u8>) {
        let plan = self.plan;
        let connection = &mut self.connections[index];
        connection.requests_left -= 1;
        self.requests_left -= 1;
        let is_set = match plan.work {
            Work::Mix => plan.set_share > 0.0 && self.rng.unit() < plan.set_share,
            Work::Fill => true,
            Work::ReadBack => false,
        };
        let dataset = self.judge.dataset;
        if is_set {
            let id = self.draw();
            let version = match &mut self.judge.versions {
                Some(versions) => versions.sending(id),
                None => {
                    self.next_version = self.next_version.wrapping_add(1);
                    self.next_version
                }
            };
            let version = if plan.work == Work::Fill { 0 } else { version };
            let stamp = Stamp { id, run: plan.run, version };
            let ttl_s = plan.ttl.of(mix(u64::from(id)));
            wire::put_set(out, plan.protocol, &dataset.keys, &dataset.values, stamp, ttl_s);
            self.connections[index].replies.expect_set(id, version);
            return;
        }
        self.ids.clear();
        for _ in 0..plan.keys_per_get {
            let id = self.draw();
            let floor = self.judge.versions.as_mut().map_or(0, |versions| versions.floor(id));
            self.ids.push((id, floor));
        }
        wire::put_get(out, plan.protocol, &dataset.keys, self.ids.iter().map(|key| key.0));
        self.connections[index].replies.expect_get(self.ids.iter().copied());
    }

    /// The number of the next key. When versions are kept, each thread has keys of its own.
    #[inline]
    fn draw(&mut self) -> u32 {
        let plan = self.plan;
        if plan.work != Work::Mix {
            self.next_key += 1;
            return plan.first_key + self.next_key - 1;
        }
        let mut key = self.draws.draw(&mut self.rng);
        if plan.verify && plan.threads > 1 {
            let (threads, mine) = (plan.threads as u32, self.number as u32);
            key = key - key % threads + mine;
            if key >= plan.keys {
                key = mine;
            }
        }
        plan.first_key + key
    }
}
