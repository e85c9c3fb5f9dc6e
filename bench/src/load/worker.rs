//! One thread of load: its connections, the bursts it sends on them, and the clock.
//!
//! A turn waits for readiness (edge-triggered epoll, each socket registered once), reads each ready connection with one
//! recv and answers a finished burst with one send of the next.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::{ClockId, clock_gettime};

use super::connection::{Garbled, Judge, Replies};
use super::tally::Tally;
use super::versions::Versions;
use super::{Dataset, Pace, Plan, Progress, Work};
use crate::payload::Stamp;
use crate::popularity::KeyDraws;
use crate::rng::{Rng, mix};
use crate::{Failure, place, process, wire};

/// Bytes read from a socket at once: four values of 64 KiB.
const RECV_BYTES: usize = 256 << 10;
/// Sockets looked at in a turn.
const EVENTS_MAX: usize = 512;
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
/// When the server cannot be reached, or breaks connection after connection.
pub fn run(plan: &Plan, dataset: &Dataset, number: usize, progress: &Progress) -> Result<Outcome, Failure> {
    if !plan.cores.is_empty() {
        place::pin(&[plan.cores[number % plan.cores.len()]])?;
    }
    let worker = Worker::new(plan, dataset, number, progress)?;
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
    socket: OwnedFd,
    replies: Replies,
    /// Bytes the socket has not taken.
    unsent: Vec<u8>,
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

struct Worker<'p> {
    plan: &'p Plan,
    number: usize,
    progress: &'p Progress,
    start: Instant,
    epoll: OwnedFd,
    connections: Vec<Connection>,
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
    out: Vec<u8>,
    /// Connections with nothing under way, the longest idle first.
    idle: VecDeque<u32>,
    /// Open loop: when the next burst is due, and those due that found no idle connection.
    next_due_ns: f64,
    backlog: VecDeque<u64>,
    /// See [`Outcome::behind`].
    behind: u64,
    /// The measured time, on the run's clock.
    measure_from_ns: u64,
    measure_until_ns: u64,
    begun: Option<Sample>,
    under_way: usize,
}

impl<'p> Worker<'p> {
    fn new(
        plan: &'p Plan,
        dataset: &'p Dataset,
        number: usize,
        progress: &'p Progress,
    ) -> Result<Self, Failure> {
        let failed = |what: &'static str| move |error: Errno| Failure::new(format!("{what}: {error}"));
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll"))?;
        let mut rng = Rng::new(plan.seed ^ mix(number as u64));
        let draws = match plan.work {
            Work::Mix => KeyDraws::new(&plan.popularity, plan.keys, &mut rng)?,
            Work::Fill | Work::ReadBack => {
                KeyDraws::new(&crate::popularity::Popularity::Uniform, 1, &mut rng)?
            }
        };
        let versions = plan.verify.then(|| Versions::new(plan.run, plan.first_key, plan.keys));
        let mut worker = Self {
            plan,
            number,
            progress,
            start: Instant::now(),
            epoll,
            connections: Vec::new(),
            judge: Judge { dataset, protocol: plan.protocol, versions, tally: Tally::new()? },
            draws,
            rng,
            next_key: 0,
            requests_left: plan.requests.map_or(u64::MAX, |requests| share(requests, plan.threads, number)),
            next_version: 1,
            ids: Vec::with_capacity(plan.keys_per_get),
            out: Vec::with_capacity(RECV_BYTES),
            idle: VecDeque::new(),
            next_due_ns: 0.0,
            backlog: VecDeque::new(),
            behind: 0,
            measure_from_ns: 0,
            measure_until_ns: u64::MAX,
            begun: None,
            under_way: 0,
        };
        for index in 0..share(plan.connections as u64, plan.threads, number) as usize {
            let socket = worker.open(index)?;
            worker.connections.push(Connection {
                socket,
                replies: Replies::default(),
                unsent: Vec::new(),
                due_ns: 0,
                requests_left: plan.requests_per_connection.unwrap_or(u64::MAX),
            });
            worker.idle.push_back(index as u32);
        }
        Ok(worker)
    }

    fn open(&self, index: usize) -> Result<OwnedFd, Failure> {
        let socket = self.plan.target.connect()?;
        let edges = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), edges)
            .map_err(|error| Failure::new(format!("epoll: {error}")))?;
        Ok(socket)
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
        let mut buffer = vec![0; RECV_BYTES];
        let mut events = Vec::with_capacity(EVENTS_MAX);
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
            self.send_what_is_due(now_ns, over)?;
            let drained = self.under_way == 0 && (self.backlog.is_empty() || self.ran_out());
            let late = now_ns > self.measure_until_ns.saturating_add(DRAIN_LIMIT.as_nanos() as u64);
            if over && (drained || late) {
                break;
            }
            self.wait(&mut events, now_ns, over)?;
            if !events.is_empty() {
                last_event_ns = now_ns;
            } else if self.under_way > 0 && now_ns - last_event_ns > SILENCE_LIMIT.as_nanos() as u64 {
                return Err(Failure::new(format!("{} answers nothing", self.plan.target)));
            }
            for event in &events {
                self.serve(event.u64 as usize, event.events & libc::EPOLLOUT as u32 != 0, &mut buffer)?;
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

    fn send_what_is_due(&mut self, now_ns: u64, over: bool) -> Result<(), Failure> {
        match self.plan.pace {
            Pace::Closed => {
                while !over
                    && !self.ran_out()
                    && let Some(index) = self.idle.pop_front()
                {
                    self.send_burst(index as usize, now_ns)?;
                }
                Ok(())
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
                self.send_backlog()
            }
        }
    }

    fn send_backlog(&mut self) -> Result<(), Failure> {
        while !self.ran_out()
            && !self.backlog.is_empty()
            && let Some(index) = self.idle.pop_front()
        {
            let due_ns = self.backlog.pop_front().unwrap_or_default();
            self.send_burst(index as usize, due_ns)?;
        }
        Ok(())
    }

    /// Wait until a socket is ready or a burst is due.
    fn wait(&mut self, events: &mut Vec<libc::epoll_event>, now_ns: u64, over: bool) -> Result<(), Failure> {
        /// A shorter sleep would end late.
        const SLEEP_NS_MIN: f64 = 2_000.0;
        /// The end of the measured time is noticed this late at most.
        const SLEEP_NS_MAX: f64 = 100e6;
        let sleep_ns = match self.plan.pace {
            Pace::Open { sleep, .. } if !over => {
                let gap_ns = self.next_due_ns - now_ns as f64;
                if sleep && gap_ns > SLEEP_NS_MIN { gap_ns.min(SLEEP_NS_MAX) } else { 0.0 }
            }
            _ => SLEEP_NS_MAX,
        };
        let limit = libc::timespec { tv_sec: 0, tv_nsec: sleep_ns as i64 };
        events.clear();
        // SAFETY: the kernel writes at most EVENTS_MAX events, for which there is room, and reads the limit.
        let count = unsafe {
            let room = EVENTS_MAX as i32;
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                room,
                &raw const limit,
                ptr::null(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return match std::io::Error::last_os_error() {
                error if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
                error => Err(Failure::from(error).during("epoll_pwait2 (Linux 5.11)")),
            };
        };
        // SAFETY: the kernel has written that many.
        unsafe { events.set_len(count) };
        Ok(())
    }

    /// Read a connection, and send its next burst if the last one is answered.
    fn serve(&mut self, index: usize, writable: bool, buffer: &mut [u8]) -> Result<(), Failure> {
        if writable && !self.connections[index].unsent.is_empty() {
            self.send_rest(index)?;
        }
        loop {
            let connection = &mut self.connections[index];
            let count = match recv(connection.socket.as_fd(), &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return self.broke(index, "the server closed the connection"),
                Ok((count, _)) => count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return self.broke(index, &error.to_string()),
            };
            self.judge.tally.counts.bytes_in += count as u64;
            let taken = connection.replies.take(&buffer[..count], &mut self.judge);
            self.count_answered(index);
            if let Err(Garbled(words)) = taken {
                return self.broke(index, &words);
            }
            let connection = &mut self.connections[index];
            if connection.replies.outstanding() == 0 && connection.unsent.is_empty() {
                connection.replies.clear();
                return self.free(index);
            }
            // A short read emptied the socket; what comes later is another edge.
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    fn count_answered(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (gets, sets) = connection.replies.take_answered();
        if gets + sets == 0 {
            return;
        }
        let due_ns = connection.due_ns;
        let now_ns = self.now_ns();
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

    /// A connection has nothing under way: go on at once in a closed loop, or wait to be due.
    fn free(&mut self, index: usize) -> Result<(), Failure> {
        if self.connections[index].requests_left == 0 {
            self.reopen(index)?;
        }
        let now_ns = self.now_ns();
        let over = now_ns >= self.measure_until_ns || self.ran_out();
        if self.plan.pace == Pace::Closed && !over {
            return self.send_burst(index, now_ns);
        }
        self.idle.push_back(index as u32);
        Ok(())
    }

    fn reopen(&mut self, index: usize) -> Result<(), Failure> {
        let socket = self.open(index)?;
        let connection = &mut self.connections[index];
        connection.socket = socket; // the old one closes, which takes it out of epoll
        connection.requests_left = self.plan.requests_per_connection.unwrap_or(u64::MAX);
        Ok(())
    }

    #[cold]
    fn broke(&mut self, index: usize, words: &str) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        let lost = connection.replies.outstanding();
        connection.replies.clear();
        connection.unsent.clear();
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
        self.reopen(index)?;
        if lost > 0 {
            self.idle.push_back(index as u32); // with nothing under way it was idle, and listed, before
        }
        Ok(())
    }

    /// Write the next burst of a connection and send it.
    fn send_burst(&mut self, index: usize, due_ns: u64) -> Result<(), Failure> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let mut made = 0;
        while made < self.plan.depth && !self.ran_out() && self.connections[index].requests_left > 0 {
            self.put_request(index, &mut out);
            made += 1;
        }
        self.under_way += made;
        self.judge.tally.counts.bytes_out += out.len() as u64;
        let connection = &mut self.connections[index];
        connection.due_ns = due_ns;
        let sent = match send(connection.socket.as_fd(), &out, SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        };
        if let Ok(sent) = sent {
            connection.unsent.extend_from_slice(&out[sent..]);
        }
        self.out = out;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => self.broke(index, &error.to_string()),
        }
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

    fn send_rest(&mut self, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        match send(connection.socket.as_fd(), &connection.unsent, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                connection.unsent.drain(..sent);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => self.broke(index, &error.to_string()),
        }
    }
}
