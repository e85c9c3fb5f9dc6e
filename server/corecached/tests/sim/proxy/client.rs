//! Clients of the proxy. Each writes keys of its own and reads everybody's, over one connection at a time; when that is
//! lost it makes another, and keeps away from the keys it had.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use corecached_testkit::network::Network;
use super::VALUE_BYTES_MAX;
use super::asked::{Asked, Facts, Told, What};
use super::blame::Blame;
use super::history::{History, Settled, contents};

/// Keys of a client for each of its connections.
const KEYS: usize = 6;
/// Bytes that the network takes of a client before the proxy has read any.
const SOCKET_BYTES: usize = 64_000;

/// What all clients have in common.
#[derive(Clone)]
pub struct Scene {
    pub history: Rc<RefCell<History>>,
    pub blame: Rc<RefCell<Blame>>,
    /// How often each client has lost its connection.
    pub generations: Rc<RefCell<Vec<u32>>>,
    /// Errors of retrievals look like misses.
    pub softens: bool,
    /// There are no faults.
    pub is_exact: bool,
    /// Values of more bytes are passed on in pieces.
    pub whole_value_bytes_max: usize,
    pub shards: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Breaks its connection now and then.
    Reset,
    /// Reads seldom.
    Slow,
    /// Shuts down its side after the last command, and still wants every reply.
    HalfClose,
}

/// What clients saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub asked: u64,
    pub answered: u64,
    pub errors: u64,
    /// Connections that the proxy closed in the middle of a value.
    pub broken: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.errors += other.errors;
        self.broken += other.broken;
    }
}

/// See the head of the file.
pub struct Client {
    number: usize,
    link: usize,
    scene: Scene,
    random: fastrand::Rng,
    fault: Fault,
    /// Requests it has under way, at most.
    depth_max: usize,
    commands_left: u64,
    /// Keys to be read, written and read once more.
    audit: Vec<Vec<u8>>,
    unsent: VecDeque<u8>,
    input: Vec<u8>,
    asked: VecDeque<Asked>,
    counts: BTreeMap<Vec<u8>, u64>,
    counted: BTreeMap<Vec<u8>, u64>,
    half_closed: bool,
    pub tally: Tally,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, link, fault, commands_left, asked, .. } = self;
        write!(
            f,
            "client {number} on link {link} ({fault:?}): {commands_left} commands left, {} bytes unsent, {} received, \
             {} without a reply: {:?}",
            self.unsent.len(),
            self.input.len(),
            asked.len(),
            asked.front()
        )
    }
}

impl Client {
    pub fn new(
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
            asked: VecDeque::new(),
            counts: BTreeMap::new(),
            counted: BTreeMap::new(),
            half_closed: false,
            tally: Tally::default(),
        }
    }

    pub fn is_done(&self) -> bool {
        let has_asked = self.commands_left == 0 && self.audit.is_empty();
        has_asked && self.unsent.is_empty() && self.asked.is_empty()
    }

    pub fn hang_up(&self, network: &mut Network) {
        network.links[self.link].shut = true;
        network.links[self.link].to_client.clear();
        network.stir(self.link);
    }

    /// Send a little, read a little. False when nothing changed.
    pub fn step(&mut self, network: &mut Network) -> bool {
        let mut moved = false;
        if self.commands_left > 0 && self.asked.len() < self.depth_max {
            let room = self.depth_max - self.asked.len();
            for _ in 0..self.random.usize(1..8).min(room).min(self.commands_left as usize) {
                self.command();
                self.commands_left -= 1;
            }
            moved = true;
        }
        if self.asked.len() < self.depth_max
            && let Some(key) = self.audit.pop()
        {
            self.audit_key(key);
            moved = true;
        }
        moved |= self.send(network);
        moved |= self.read(network);
        if self.fault == Fault::Reset && !self.is_done() && self.random.u16(..300) == 0 {
            network.links[self.link].reset = true;
            network.stir(self.link);
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
            network.stir(self.link);
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
        network.stir(self.link);
        true
    }

    fn read(&mut self, network: &mut Network) -> bool {
        let link = &mut network.links[self.link];
        if self.fault == Fault::Slow && self.random.u16(..100) != 0 {
            return !link.to_client.is_empty(); // it could, and will
        }
        if link.to_client.is_empty() {
            if !link.closed || self.half_closed && self.asked.is_empty() {
                return false;
            }
            // A value that was begun and did not come whole cannot be told from one by an error.
            let front = self.asked.front();
            let len = front.and_then(|asked| asked.broken_value_len(&self.input)).unwrap_or(0);
            let is_streamed = len > self.scene.whole_value_bytes_max && !self.scene.is_exact;
            assert!(is_streamed, "closed by the proxy: {self:?}");
            self.tally.broken += 1;
            self.connect_anew(network);
            return true;
        }
        let most = link.to_client.len();
        let len = if self.random.bool() { most } else { self.random.usize(1..=most) };
        self.input.extend(link.to_client.drain(..len));
        network.stir(self.link);
        self.take_replies();
        true
    }

    fn take_replies(&mut self) {
        let mut at = 0;
        while at < self.input.len() {
            let Some(asked) = self.asked.front_mut() else {
                panic!("unasked: {:?}", self.input[at..].escape_ascii().to_string())
            };
            let Scene { history, blame, softens, is_exact, .. } = &self.scene;
            let (history, blame) = (&mut history.borrow_mut(), &blame.borrow());
            let counted = &mut self.counted;
            let is_alone = self.depth_max == 1;
            let mut facts =
                Facts { history, blame, softens: *softens, is_exact: *is_exact, is_alone, counted };
            match asked.take(&self.input[at..], &mut facts) {
                Told::NeedMore => break,
                Told::Part(len) => at += len,
                Told::Done(len) => {
                    at += len;
                    self.tally.answered += 1;
                    self.asked.pop_front();
                }
                Told::Error(len) => {
                    at += len;
                    self.tally.errors += 1;
                    self.asked.pop_front();
                }
            }
        }
        self.input.drain(..at);
    }

    /// The connection is gone, with all that was asked on it.
    fn connect_anew(&mut self, network: &mut Network) {
        for asked in self.asked.drain(..) {
            asked.is_lost(&mut self.scene.history.borrow_mut());
        }
        self.unsent.clear();
        self.input.clear();
        self.scene.generations.borrow_mut()[self.number] += 1;
        self.half_closed = false;
        self.link = network.connect(self.random.usize(..self.scene.shards));
    }

    /// Everything works again, and nothing is under way: reads all its keys, and writes and reads them once more.
    pub fn begin_audit(&mut self, network: &mut Network) {
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

    // --- what it asks ---

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

    fn ask(&mut self, what: What) {
        let at_ms = self.scene.blame.borrow().now_ms;
        self.tally.asked += 1;
        self.asked.push_back(Asked { what, at_ms });
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
                self.ask(What::Noop);
            }
            _ => {
                self.say(b"version\r\n");
                self.ask(What::Version);
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

    /// A write of `key`, its number, and what it says when it needs no reply.
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
        self.ask(What::Write { key, number, deletes: value_len.is_none(), before, opaque, quiet });
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
        let opaque = self.random.bool().then_some(self.tally.asked);
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
        self.ask(What::Gets { reads, with_cas, done: 0 });
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
        let (opaque, quiet) = (self.tally.asked, self.random.u8(..4) == 0);
        let read = self.scene.history.borrow_mut().read(&key, self.owns(&key));
        self.ask(What::Meta { read, opaque, quiet });
        let q = if quiet { " q" } else { "" };
        self.say(format!("mg {} v f k O{opaque}{q}\r\n", String::from_utf8_lossy(&key)).as_bytes());
        self.end_quiet(quiet);
    }

    fn meta_set(&mut self) {
        let (opaque, quiet) = (self.tally.asked, self.random.u8(..4) == 0);
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
            self.ask(What::Noop);
        }
    }

    fn count(&mut self) {
        let key = format!("client{}.{}:count", self.number, self.generation()).into_bytes();
        let asked = self.counts.entry(key.clone()).or_default();
        *asked += 1;
        let (asked, opaque) = (*asked, self.tally.asked);
        self.say(format!("ma {} N0 J1 D1 v O{opaque}\r\n", String::from_utf8_lossy(&key)).as_bytes());
        self.ask(What::Count { key, asked, opaque });
    }
}

fn name(client: usize, generation: u32, key: usize) -> Vec<u8> {
    format!("client{client}.{generation}:{key}").into_bytes()
}
