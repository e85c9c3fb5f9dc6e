//! Clients of the proxy. Each writes keys of its own and reads those of all, over one connection at a time. A
//! client that loses its connection makes another, and writes other keys from then on.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::VALUE_BYTES_MAX;
use super::blame::Blame;
use super::history::{History, Settled, contents};
use super::pending::{Facts, PendingRequest, ReplyProgress, RequestKind};
use corecached_testkit::network::Network;

/// Keys that a client writes over one connection.
const KEYS: usize = 6;
/// Bytes that the network takes of a client before the proxy has read any.
const SOCKET_BYTES: usize = 64_000;

/// The state that all clients share.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) blame: Rc<RefCell<Blame>>,
    /// The number of connections that each client has lost.
    pub(crate) generations: Rc<RefCell<Vec<u32>>>,
    /// Errors of retrievals are downgraded to misses.
    pub(crate) downgrades_errors: bool,
    /// There are no faults.
    pub(crate) is_exact: bool,
    /// Values of more bytes are relayed in pieces.
    pub(crate) whole_value_bytes_max: usize,
    pub(crate) shards: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Breaks its connection now and then.
    Reset,
    /// Reads rarely.
    Slow,
    /// Shuts down its side after the last command, and still expects every reply.
    HalfClose,
}

/// What clients sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    /// Connections that the proxy closed in the middle of a value.
    pub(crate) broken: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.answered += other.answered;
        self.errors += other.errors;
        self.broken += other.broken;
    }
}

/// One simulated client.
pub(crate) struct Client {
    number: usize,
    link: usize,
    scene: Scene,
    random: fastrand::Rng,
    fault: Fault,
    /// The most pending requests.
    depth_max: usize,
    commands_left: u64,
    /// Keys that the audit still has to read, write and read again.
    audit: Vec<Vec<u8>>,
    unsent: VecDeque<u8>,
    input: Vec<u8>,
    pending: VecDeque<PendingRequest>,
    counts: BTreeMap<Vec<u8>, u64>,
    counted: BTreeMap<Vec<u8>, u64>,
    half_closed: bool,
    pub(crate) tally: Tally,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, link, fault, commands_left, pending, .. } = self;
        write!(
            f,
            "client {number} on link {link} ({fault:?}): {commands_left} commands left, {} bytes unsent, \
             {} received, {} without a reply: {:?}",
            self.unsent.len(),
            self.input.len(),
            pending.len(),
            pending.front()
        )
    }
}

impl Client {
    pub(crate) fn new(
        number: usize,
        scene: &Scene,
        commands: u64,
        mut random: fastrand::Rng,
        network: &mut Network,
    ) -> Self {
        let fault = match random.u8(..8) {
            0 if !scene.is_exact => Fault::Reset,
            1 => Fault::Slow,
            2 => Fault::HalfClose,
            _ => Fault::None,
        };
        Self {
            number,
            link: network.connect(random.usize(..scene.shards)),
            scene: scene.clone(),
            depth_max: random.choice([1, 4, 30, 400]).unwrap(),
            random,
            fault,
            commands_left: commands,
            audit: Vec::new(),
            unsent: VecDeque::new(),
            input: Vec::new(),
            pending: VecDeque::new(),
            counts: BTreeMap::new(),
            counted: BTreeMap::new(),
            half_closed: false,
            tally: Tally::default(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        let has_sent_all = self.commands_left == 0 && self.audit.is_empty();
        has_sent_all && self.unsent.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn hang_up(&self, network: &mut Network) {
        network.links[self.link].shut = true;
        network.links[self.link].to_client.clear();
        network.wake_ends(self.link);
    }

    /// Sends a part and reads a part. False when nothing changed.
    pub(crate) fn step(&mut self, network: &mut Network) -> bool {
        let mut moved = false;
        if self.commands_left > 0 && self.pending.len() < self.depth_max {
            let room = self.depth_max - self.pending.len();
            for _ in 0..self.random.usize(1..8).min(room).min(self.commands_left as usize) {
                self.command();
                self.commands_left -= 1;
            }
            moved = true;
        }
        if self.pending.len() < self.depth_max
            && let Some(key) = self.audit.pop()
        {
            self.audit_key(key);
            moved = true;
        }
        moved |= self.send(network);
        moved |= self.read(network);
        if self.fault == Fault::Reset && !self.is_done() && self.random.u16(..300) == 0 {
            network.links[self.link].reset = true;
            network.wake_ends(self.link);
            self.connect_anew(network);
            return true;
        }
        if self.fault == Fault::HalfClose
            && self.commands_left == 0
            && self.unsent.is_empty()
            && !self.half_closed
        {
            self.half_closed = true;
            network.links[self.link].shut = true;
            network.wake_ends(self.link);
        }
        moved
    }

    fn send(&mut self, network: &mut Network) -> bool {
        let link = &mut network.links[self.link];
        let room = SOCKET_BYTES.saturating_sub(link.to_server.len()).min(self.unsent.len());
        if room == 0 {
            return false;
        }
        let len = if self.random.bool() { room } else { self.random.usize(1..=room) };
        link.to_server.extend(self.unsent.drain(..len));
        network.wake_ends(self.link);
        true
    }

    fn read(&mut self, network: &mut Network) -> bool {
        let link = &mut network.links[self.link];
        if self.fault == Fault::Slow && self.random.u16(..100) != 0 {
            return !link.to_client.is_empty(); // it could, and will
        }
        if link.to_client.is_empty() {
            if !link.closed || self.half_closed && self.pending.is_empty() {
                return false;
            }
            // A value that has begun cannot be replaced by an error: the proxy closes the connection.
            let front = self.pending.front();
            let len = front.and_then(|request| request.broken_value_len(&self.input)).unwrap_or(0);
            let is_streamed = len > self.scene.whole_value_bytes_max && !self.scene.is_exact;
            assert!(is_streamed, "closed by the proxy: {self:?}");
            self.tally.broken += 1;
            self.connect_anew(network);
            return true;
        }
        let most = link.to_client.len();
        let len = if self.random.bool() { most } else { self.random.usize(1..=most) };
        self.input.extend(link.to_client.drain(..len));
        network.wake_ends(self.link);
        self.take_replies();
        true
    }

    fn take_replies(&mut self) {
        let mut at = 0;
        while at < self.input.len() {
            let Some(request) = self.pending.front_mut() else {
                panic!("no request is pending: {:?}", self.input[at..].escape_ascii().to_string())
            };
            let Scene { history, blame, downgrades_errors, is_exact, .. } = &self.scene;
            let (history, blame) = (&mut history.borrow_mut(), &blame.borrow());
            let counted = &mut self.counted;
            let is_alone = self.depth_max == 1;
            let mut facts = Facts {
                history,
                blame,
                downgrades_errors: *downgrades_errors,
                is_exact: *is_exact,
                is_alone,
                counted,
            };
            match request.take(&self.input[at..], &mut facts) {
                ReplyProgress::NeedMore => break,
                ReplyProgress::Part(len) => at += len,
                ReplyProgress::Done(len) => {
                    at += len;
                    self.tally.answered += 1;
                    self.pending.pop_front();
                }
                ReplyProgress::Error(len) => {
                    at += len;
                    self.tally.errors += 1;
                    self.pending.pop_front();
                }
            }
        }
        self.input.drain(..at);
    }

    /// The connection is lost, with every pending request. Makes another one.
    fn connect_anew(&mut self, network: &mut Network) {
        for request in self.pending.drain(..) {
            request.is_lost(&mut self.scene.history.borrow_mut());
        }
        self.unsent.clear();
        self.input.clear();
        self.scene.generations.borrow_mut()[self.number] += 1;
        self.half_closed = false;
        self.link = network.connect(self.random.usize(..self.scene.shards));
    }

    /// Begins the audit, once everything works again and nothing is pending: every key is read, written and
    /// read again.
    pub(crate) fn begin_audit(&mut self, network: &mut Network) {
        self.fault = Fault::None;
        if std::mem::take(&mut self.half_closed) {
            self.link = network.connect(self.random.usize(..self.scene.shards));
        }
        let number = self.number;
        let all = (0..=self.generation())
            .flat_map(|generation| (0..KEYS).map(move |key| name(number, generation, key)));
        self.audit = all.collect();
    }

    fn audit_key(&mut self, key: Vec<u8>) {
        self.get(vec![key.clone()], false);
        self.set(key.clone());
        self.get(vec![key.clone()], true);
        self.delete(key.clone());
        self.meta_get(key);
        self.count();
    }

    // --- requests ---

    fn generation(&self) -> u32 {
        self.scene.generations.borrow()[self.number]
    }

    fn own_key(&mut self) -> Vec<u8> {
        name(self.number, self.generation(), self.random.usize(..KEYS))
    }

    fn any_key(&mut self) -> Vec<u8> {
        if self.random.bool() {
            return self.own_key();
        }
        let generations = self.scene.generations.borrow();
        let client = self.random.usize(..generations.len());
        name(client, generations[client], self.random.usize(..KEYS))
    }

    fn ask(&mut self, kind: RequestKind) {
        let at_ms = self.scene.blame.borrow().now_ms;
        self.tally.requests += 1;
        self.pending.push_back(PendingRequest { kind, at_ms });
    }

    fn say(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
    }

    fn command(&mut self) {
        match self.random.u8(..20) {
            0..=3 => {
                let key = self.own_key();
                self.set(key);
            }
            4..=9 => {
                let count = if self.random.bool() { 1 } else { self.random.usize(2..20) };
                let mut keys: Vec<Vec<u8>> = Vec::new();
                for _ in 0..count {
                    let key = self.any_key();
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                let with_cas = self.random.u8(..4) == 0;
                self.get(keys, with_cas);
            }
            10 | 11 => {
                let key = self.own_key();
                self.delete(key);
            }
            12..=14 => {
                let key = self.any_key();
                self.meta_get(key);
            }
            15 | 16 => self.meta_set(),
            17 => self.count(),
            18 => {
                self.say(b"mn\r\n");
                self.ask(RequestKind::Noop);
            }
            _ => {
                self.say(b"version\r\n");
                self.ask(RequestKind::Version);
            }
        }
    }

    fn value_len(&mut self) -> usize {
        let most = match self.random.u8(..20) {
            0 => 1,
            1..=13 => 64,
            14..=18 => 8_000,
            _ => VALUE_BYTES_MAX,
        };
        self.random.usize(..most)
    }

    /// Adds a write of `key` and returns its number, and ` noreply` or nothing for its line.
    fn write(
        &mut self,
        key: Vec<u8>,
        value_len: Option<usize>,
        opaque: Option<u64>,
        quiet: bool,
    ) -> (u32, &'static str) {
        let noreply = opaque.is_none() && self.random.u8(..4) == 0;
        let mut history = self.scene.history.borrow_mut();
        let before = history.read(&key, true);
        let number = history.begin(&key, value_len);
        if noreply {
            let settled = if self.scene.is_exact { Settled::Done(u64::MAX) } else { Settled::Unknown };
            history.settle(&key, number, settled);
            return (number, " noreply");
        }
        drop(history);
        self.ask(RequestKind::Write { key, number, deletes: value_len.is_none(), before, opaque, quiet });
        (number, "")
    }

    fn set(&mut self, key: Vec<u8>) {
        let len = self.value_len();
        let (number, noreply) = self.write(key.clone(), Some(len), None, false);
        let line = format!("set {} {number} 0 {len}{noreply}\r\n", String::from_utf8_lossy(&key));
        self.say(line.as_bytes());
        self.say(&contents(&key, number, len));
        self.say(b"\r\n");
    }

    fn delete(&mut self, key: Vec<u8>) {
        let opaque = self.random.bool().then_some(self.tally.requests);
        let (_, noreply) = self.write(key.clone(), None, opaque, false);
        let key = String::from_utf8_lossy(&key);
        self.say(
            match opaque {
                Some(opaque) => format!("md {key} O{opaque}\r\n"),
                None => format!("delete {key}{noreply}\r\n"),
            }
            .as_bytes(),
        );
    }

    fn get(&mut self, keys: Vec<Vec<u8>>, with_cas: bool) {
        let mut history = self.scene.history.borrow_mut();
        let reads = keys.iter().map(|key| history.read(key, self.owns(key))).collect();
        drop(history);
        self.ask(RequestKind::Gets { reads, with_cas, done: 0 });
        self.say(if with_cas { b"gets" } else { b"get" });
        for key in keys {
            self.say(b" ");
            self.say(&key);
        }
        self.say(b"\r\n");
    }

    fn owns(&self, key: &[u8]) -> bool {
        key.starts_with(format!("client{}.{}:", self.number, self.generation()).as_bytes())
    }

    fn meta_get(&mut self, key: Vec<u8>) {
        let (opaque, quiet) = (self.tally.requests, self.random.u8(..4) == 0);
        let read = self.scene.history.borrow_mut().read(&key, self.owns(&key));
        self.ask(RequestKind::Meta { read, opaque, quiet });
        let q = if quiet { " q" } else { "" };
        self.say(format!("mg {} v f k O{opaque}{q}\r\n", String::from_utf8_lossy(&key)).as_bytes());
        self.end_quiet(quiet);
    }

    fn meta_set(&mut self) {
        let (opaque, quiet) = (self.tally.requests, self.random.u8(..4) == 0);
        let (key, len) = (self.own_key(), self.value_len());
        let (number, _) = self.write(key.clone(), Some(len), Some(opaque), quiet);
        let q = if quiet { " q" } else { "" };
        let line = format!("ms {} {len} F{number} O{opaque}{q}\r\n", String::from_utf8_lossy(&key));
        self.say(line.as_bytes());
        self.say(&contents(&key, number, len));
        self.say(b"\r\n");
        self.end_quiet(quiet);
    }

    fn end_quiet(&mut self, quiet: bool) {
        if quiet {
            self.say(b"mn\r\n");
            self.ask(RequestKind::Noop);
        }
    }

    fn count(&mut self) {
        let key = format!("client{}.{}:count", self.number, self.generation()).into_bytes();
        let count = self.counts.entry(key.clone()).or_default();
        *count += 1;
        let (count_max, opaque) = (*count, self.tally.requests);
        self.say(format!("ma {} N0 J1 D1 v O{opaque}\r\n", String::from_utf8_lossy(&key)).as_bytes());
        self.ask(RequestKind::Count { key, count_max, opaque });
    }
}

fn name(client: usize, generation: u32, key: usize) -> Vec<u8> {
    format!("client{client}.{generation}:{key}").into_bytes()
}
