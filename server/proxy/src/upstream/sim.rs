//! Destinations against seeded servers that answer, split their bytes, stall, break off in a value, answer
//! wrongly, reset, vanish and come back: every request gets exactly one reply, never that of another request
//! or key.
//!
//! A server's reply is a function of the request alone, so that each can be checked without a model of its
//! state.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use corecached_protocol::client::{ReplyEvent, encode};
use corecached_protocol::{
    Arithmetic, Command, Delete, ErrorKind, Exptime, Meta, MetaFlags, MetaVerb, Reply, Retrieve, Store,
    StoreVerb, Touch,
};
use corecached_testkit::memcached::Memcached;
use corecached_testkit::wire::{Fault, Faults, ServerConnection};

use super::connection::UpstreamConnection;
use super::*;

/// A request, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TestRequest {
    Get { key: String, with_cas: bool, touch: Option<i64> },
    Set { key: String, len: u32 },
    Delete { key: String },
    Incr { key: String, delta: u64 },
    Touch { key: String, exptime: i64 },
    Mg { key: String },
    Version,
}

impl TestRequest {
    fn random(random: &mut fastrand::Rng) -> Self {
        let key = format!("key{}", random.u32(..40));
        match random.u32(..12) {
            0..=5 => {
                let touch = if random.u32(..4) == 0 { Some(random.i64(-1..2)) } else { None };
                Self::Get { key, with_cas: random.u32(..4) == 0, touch }
            }
            6 => Self::Set { key, len: random.u32(..300) },
            7 => Self::Delete { key },
            8 => Self::Incr { key, delta: random.u64(..1000) },
            9 => Self::Touch { key, exptime: random.i64(0..100) },
            _ => Self::Mg { key },
        }
    }

    /// Calls `each` with the command and the value that goes with it.
    fn with_command<R>(&self, each: impl FnOnce(&Command, &[u8]) -> R) -> R {
        let noreply = true; // is never sent upstream
        match self {
            Self::Get { key, with_cas, touch } => {
                let touch = touch.map(Exptime);
                let key = key.as_bytes();
                each(&Command::Retrieve(Retrieve { key, with_cas: *with_cas, touch, last: false }), b"")
            }
            Self::Set { key, len } => {
                let store = Store {
                    verb: StoreVerb::Set,
                    key: key.as_bytes(),
                    client_flags: 1,
                    exptime: Exptime(0),
                    value_len: *len,
                    cas_unique: 0,
                    noreply,
                };
                each(&Command::Store(store), &vec![b'\n'; *len as usize])
            }
            Self::Delete { key } => each(&Command::Delete(Delete { key: key.as_bytes(), noreply }), b""),
            Self::Incr { key, delta } => {
                let (key, delta) = (key.as_bytes(), *delta);
                each(&Command::Arithmetic(Arithmetic { key, delta, decrement: false, noreply }), b"")
            }
            Self::Touch { key, exptime } => {
                let (key, exptime) = (key.as_bytes(), Exptime(*exptime));
                each(&Command::Touch(Touch { key, exptime, noreply }), b"")
            }
            Self::Mg { key } => {
                let flags =
                    MetaFlags { tokens: b"v k q", present: MetaFlags::bit(b'q'), ..MetaFlags::default() };
                each(
                    &Command::Meta(Meta { verb: MetaVerb::Get, key: key.as_bytes(), value_len: 0, flags }),
                    b"",
                )
            }
            Self::Version => each(&Command::Version, b""),
        }
    }

    /// The request that a server reads.
    fn read(command: &Command) -> Self {
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        match *command {
            Command::Retrieve(Retrieve { key, with_cas, touch, .. }) => {
                Self::Get { key: text(key), with_cas, touch: touch.map(|exptime| exptime.0) }
            }
            Command::Store(Store { key, value_len, noreply: false, .. }) => {
                Self::Set { key: text(key), len: value_len }
            }
            Command::Delete(Delete { key, noreply: false }) => Self::Delete { key: text(key) },
            Command::Arithmetic(Arithmetic { key, delta, noreply: false, .. }) => {
                Self::Incr { key: text(key), delta }
            }
            Command::Touch(Touch { key, exptime, noreply: false }) => {
                Self::Touch { key: text(key), exptime: exptime.0 }
            }
            Command::Meta(Meta { key, flags, .. }) if !flags.has(b'q') => Self::Mg { key: text(key) },
            Command::Version => Self::Version,
            other => panic!("a server was sent {other:?}"),
        }
    }

    /// The only right reply.
    fn truth(&self) -> Reply {
        let chance = self.fingerprint();
        match self {
            Self::Get { with_cas, .. } if !chance.is_multiple_of(3) => Reply::Value {
                client_flags: chance as u32,
                cas_unique: with_cas.then_some(chance),
                value: self.value().into(),
            },
            Self::Get { .. } => Reply::Miss,
            Self::Set { .. } if chance.is_multiple_of(2) => Reply::Stored,
            Self::Set { .. } => Reply::NotStored,
            Self::Delete { .. } if chance.is_multiple_of(2) => Reply::Deleted,
            Self::Touch { .. } if chance.is_multiple_of(2) => Reply::Touched,
            Self::Incr { .. } if !chance.is_multiple_of(4) => Reply::Number(chance),
            Self::Delete { .. } | Self::Touch { .. } | Self::Incr { .. } => Reply::NotFound,
            Self::Mg { .. } if chance.is_multiple_of(3) => Reply::Meta { line: "EN".into(), value: None },
            Self::Mg { key } => {
                let value = self.value();
                Reply::Meta { line: format!("VA {} k{key}", value.len()).into(), value: Some(value.into()) }
            }
            Self::Version => Reply::Done,
        }
    }

    /// A value of 0 to 600 bytes, line ends included.
    fn value(&self) -> Vec<u8> {
        let len = match self.fingerprint() % 5 {
            0 => 0,
            1 => 600,
            _ => self.fingerprint() % 200,
        };
        format!("{self:?}\r\nEND\r\n").into_bytes().into_iter().cycle().take(len as usize).collect()
    }

    /// FNV-1a of its debug text.
    fn fingerprint(&self) -> u64 {
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        format!("{self:?}").bytes().fold(0xcbf2_9ce4_8422_2325, hash) >> 7
    }
}

/// What goes wrong in these simulations.
const FAULTS: [Fault; 9] = [
    Fault::Stall,
    Fault::Garbage,
    Fault::WrongValue,
    Fault::ErrorReply,
    Fault::BreakOff,
    Fault::Reset,
    Fault::Refuse,
    Fault::Vanish,
    Fault::Return,
];

/// A server and the one connection to it.
struct SimulatedServer {
    memcached: Memcached,
    wire: ServerConnection,
    connected: bool,
    connecting: bool,
    faults: Faults,
    /// Commands read, each retrieval line as one.
    lines: u64,
}

impl SimulatedServer {
    fn new() -> Self {
        let replies: fn(&Command, &[u8]) -> Reply = |command, _| TestRequest::read(command).truth();
        Self {
            memcached: Memcached { replies: Some(replies), ..Memcached::default() },
            wire: ServerConnection::default(),
            connected: false,
            connecting: false,
            faults: Faults::default(),
            lines: 0,
        }
    }

    fn disconnect(&mut self) {
        self.wire = ServerConnection::default();
        self.connected = false;
        self.connecting = false;
    }

    /// Reads commands and answers them.
    fn work(&mut self, now_ms: u64, random: &mut fastrand::Rng) {
        let Self { memcached, wire, faults, .. } = self;
        let worked = wire.work(faults, random, |command, data| memcached.execute(command, data, now_ms));
        self.lines += worked.lines;
    }

    /// Whether the server works on a connection now.
    fn is_up(&self, now_ms: u64) -> bool {
        self.connected && !self.faults.is_silent(now_ms)
    }
}

/// What was seen over all runs.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    right: u64,
    streamed: u64,
    refused: u64,
    errors: HashMap<ErrorKind, u64>,
    faults: HashMap<Fault, u64>,
    connects: u64,
    ejections: u64,
    returns: u64,
    late: u64,
    lines: u64,
}

/// A request without a reply.
struct PendingRequest {
    asked: TestRequest,
    /// The head of a value that comes in pieces.
    head: Option<Reply>,
    pieces: Vec<u8>,
}

/// The clients of all requests, which check what they get.
#[derive(Default)]
struct Clients {
    waiting: HashMap<u64, PendingRequest>,
    next: u64,
    tally: Tally,
}

impl Clients {
    fn deliver(&mut self, number: u64, event: ReplyEvent<'_>) {
        let Some(one) = self.waiting.get_mut(&number) else {
            panic!("{number} has got its reply, or was never sent: {event:?}")
        };
        let reply = match event {
            ReplyEvent::ValueHead { client_flags, cas_unique, .. } => {
                one.head = Some(Reply::Value { client_flags, cas_unique, value: Default::default() });
                return;
            }
            ReplyEvent::MetaHead { line, .. } => {
                one.head = Some(Reply::Meta { line, value: None });
                return;
            }
            ReplyEvent::ValuePiece(piece) => {
                assert!(one.head.is_some());
                one.pieces.extend_from_slice(piece);
                return;
            }
            ReplyEvent::ValueEnd => {
                self.tally.streamed += 1;
                let pieces = std::mem::take(&mut one.pieces).into();
                match one.head.take().expect("a head comes first") {
                    Reply::Value { client_flags, cas_unique, .. } => {
                        Reply::Value { client_flags, cas_unique, value: pieces }
                    }
                    Reply::Meta { line, .. } => Reply::Meta { line, value: Some(pieces) },
                    other => panic!("{other:?} has no pieces"),
                }
            }
            ReplyEvent::End => panic!("the end of a line is nobody's reply"),
            event => {
                let reply = event.whole().expect("what is in pieces came before");
                assert!(one.head.is_none() || matches!(reply, Reply::Error { .. }));
                reply
            }
        };
        match reply {
            Reply::Error { kind, .. } => *self.tally.errors.entry(kind).or_default() += 1,
            reply => {
                assert_eq!(reply, one.asked.truth(), "to {:?}", one.asked);
                self.tally.right += 1;
            }
        }
        self.waiting.remove(&number);
    }
}

struct World {
    now_ms: u64,
    destinations: Vec<Destination>,
    servers: Vec<SimulatedServer>,
    clients: Clients,
    faults: bool,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, faults: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let options = DestinationOptions {
            server_timeout_ms: random.choice([100, 1000]).unwrap(),
            connect_timeout_ms: random.choice([100, 1000, 3000]).unwrap(),
            connect_retries: random.u32(..2),
            inactive_reset_ms: random.choice([0, 5000]).unwrap(),
            limits: ConnectionLimits {
                requests_max: random.choice([8, 100_000, 100_000, 100_000]).unwrap(),
                bytes_max: random.choice([2000, 1 << 20, 1 << 20]).unwrap(),
                inflight_max: random.choice([0, 0, 1, 5]).unwrap(),
                whole_value_bytes_max: random.choice([0, 100, 1000]).unwrap(),
            },
            health: HealthOptions {
                ejects: random.u32(..5) > 0,
                timeouts_max: random.u32(1..4),
                ..HealthOptions::default()
            },
        };
        let count = random.usize(1..4);
        let pool = random.bool().then(|| PoolHealth::new(EjectionThresholds { upper: 2, lower: 1 }));
        let destinations = (0..count)
            .map(|number| {
                let address = format!("server{number}:11211");
                Destination::new(address, options, pool.as_ref().map(Rc::clone), seed ^ number as u64)
            })
            .collect();
        let servers = (0..count).map(|_| SimulatedServer::new()).collect();
        Self { now_ms: 0, destinations, servers, clients: Clients::default(), faults, random }
    }

    fn step(&mut self) {
        let number = self.random.usize(..self.destinations.len());
        match self.random.u32(..20) {
            0 | 1 => self.ask(number),
            2..=5 => self.turn(number),
            6..=9 => self.serve(number),
            10..=15 => self.deliver(number),
            16 | 17 => self.connect(number),
            18 => self.pass_time(),
            _ if self.faults && self.random.u32(..5) == 0 => self.go_wrong(number),
            _ => {}
        }
    }

    fn ask(&mut self, destination: usize) {
        let is_ejected = matches!(self.destinations[destination].status(), DestinationStatus::Ejected(_));
        for _ in 0..if is_ejected { 1 } else { self.random.u32(1..12) } {
            let asked = TestRequest::random(&mut self.random);
            let number = self.clients.next;
            self.clients.next += 1;
            self.clients.tally.requests += 1;
            let (destination, now_ms) = (&mut self.destinations[destination], self.now_ms);
            match asked
                .with_command(|command, data| destination.request(command, data, number, false, now_ms))
            {
                Ok(()) => {
                    let one = PendingRequest { asked, head: None, pieces: Vec::new() };
                    assert!(self.clients.waiting.insert(number, one).is_none());
                }
                Err(Reply::Error { kind, .. }) => {
                    assert!(matches!(kind, ErrorKind::Busy | ErrorKind::Ejected), "{kind:?}");
                    self.clients.tally.refused += 1;
                    *self.clients.tally.errors.entry(kind).or_default() += 1;
                }
                Err(other) => panic!("refused with {other:?}"),
            }
        }
    }

    /// What a driver does in a turn.
    fn turn(&mut self, number: usize) {
        let (destination, server) = (&mut self.destinations[number], &mut self.servers[number]);
        while let Some(action) = destination.next_action(self.now_ms) {
            match action {
                DestinationAction::Connect => {
                    assert!(!server.connected && !server.connecting, "one connection at a time");
                    server.connecting = true;
                }
                DestinationAction::Send => {
                    assert!(server.connected);
                    let before = server.wire.input.len();
                    destination.take_output(&mut server.wire.input, self.now_ms);
                    assert!(server.wire.input.len() > before);
                }
                DestinationAction::Close => server.disconnect(),
            }
        }
    }

    fn connect(&mut self, number: usize) {
        let (destination, server) = (&mut self.destinations[number], &mut self.servers[number]);
        if !server.connecting || server.faults.hangs {
            return;
        }
        server.connecting = false;
        if server.faults.refuses {
            let error =
                self.random.choice([io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut]).unwrap();
            let clients = &mut self.clients;
            destination
                .connect_failed(error, self.now_ms, &mut |number, event| clients.deliver(number, event));
        } else {
            server.connected = true;
            destination.connected(self.now_ms);
        }
    }

    fn serve(&mut self, number: usize) {
        let server = &mut self.servers[number];
        if server.is_up(self.now_ms) {
            server.work(self.now_ms, &mut self.random);
        }
    }

    fn deliver(&mut self, number: usize) {
        let (destination, server) = (&mut self.destinations[number], &mut self.servers[number]);
        if !server.is_up(self.now_ms) {
            return;
        }
        let clients = &mut self.clients;
        let mut sink = |number, event: ReplyEvent<'_>| clients.deliver(number, event);
        let bytes = server.wire.sendable();
        if !bytes.is_empty() {
            let len =
                if self.random.bool() { bytes.len() } else { self.random.usize(1..=bytes.len().min(40)) };
            destination.received(&bytes[..len], self.now_ms, &mut sink);
            server.wire.sent(len);
        } else if server.wire.has_broken_off() {
            destination.closed(self.now_ms, &mut sink);
            server.disconnect();
        }
    }

    fn pass_time(&mut self) {
        let jump_ms = match self.random.u32(..16) {
            0 if self.faults => self.random.u64(..2000),
            1 if self.faults => {
                let next = self.destinations.iter().filter_map(Destination::next_deadline).min();
                next.map_or(0, |next| next.saturating_sub(self.now_ms))
            }
            _ => self.random.u64(..5),
        };
        self.now_ms += jump_ms;
        self.tick();
    }

    fn tick(&mut self) {
        for destination in &mut self.destinations {
            let clients = &mut self.clients;
            destination.tick(self.now_ms, &mut |number, event| clients.deliver(number, event));
            assert!(
                destination.next_deadline().is_none_or(|deadline_ms| deadline_ms > self.now_ms),
                "what was due is done: {destination:?}"
            );
        }
    }

    fn go_wrong(&mut self, number: usize) {
        let fault =
            if self.random.u32(..3) == 0 { Fault::Return } else { self.random.choice(FAULTS).unwrap() };
        *self.clients.tally.faults.entry(fault).or_default() += 1;
        let (destination, server) = (&mut self.destinations[number], &mut self.servers[number]);
        if fault == Fault::Reset && server.connected {
            let clients = &mut self.clients;
            destination.closed(self.now_ms, &mut |number, event| clients.deliver(number, event));
            server.disconnect();
        }
        server.faults.begin(fault, self.now_ms, 3000, &mut self.random);
    }

    /// Everything works again: every request gets its reply, and every destination comes back.
    fn finish(&mut self) {
        self.servers.iter_mut().for_each(|server| server.faults.end());
        for round in 0.. {
            assert!(round < 10_000, "never done: {:?}", self.destinations);
            let is_quiet = self.destinations.iter().all(|destination| {
                destination.pending() == 0 && !matches!(destination.status(), DestinationStatus::Ejected(_))
            });
            if is_quiet {
                break;
            }
            for number in (0..self.destinations.len()).cycle().take(60) {
                self.turn(number);
                self.connect(number);
                self.serve(number);
                self.deliver(number);
            }
            let is_busy = self.destinations.iter().any(|destination| destination.pending() > 0);
            self.now_ms += if is_busy { 1 } else { 100 };
            self.tick();
        }
        assert!(self.clients.waiting.is_empty(), "a request got no reply");
        for (destination, server) in self.destinations.iter().zip(&self.servers) {
            let counters = destination.counters();
            assert_eq!((destination.pending(), destination.inflight()), (0, 0));
            assert_eq!(counters.ejections, counters.returns, "{counters:?}");
            let tally = &mut self.clients.tally;
            tally.connects += counters.connects;
            tally.ejections += counters.ejections;
            tally.returns += counters.returns;
            tally.late += counters.late_replies;
            tally.lines += server.lines;
        }
    }
}

fn simulate(seeds: u64, faults: bool) -> Tally {
    let mut total = Tally::default();
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, faults);
            for _ in 0..500 {
                world.step();
            }
            world.finish();
            world.clients.tally
        });
        let Ok(tally) = outcome else { panic!("failed with seed {seed}, faults {faults}") };
        total.requests += tally.requests;
        total.right += tally.right;
        total.streamed += tally.streamed;
        total.refused += tally.refused;
        total.connects += tally.connects;
        total.ejections += tally.ejections;
        total.returns += tally.returns;
        total.late += tally.late;
        total.lines += tally.lines;
        for (kind, count) in tally.errors {
            *total.errors.entry(kind).or_default() += count;
        }
        for (fault, count) in tally.faults {
            *total.faults.entry(fault).or_default() += count;
        }
    }
    println!("{seeds} runs: {total:?}");
    assert_eq!(total.requests, total.right + total.errors.values().sum::<u64>(), "one reply each");
    total
}

/// Seeds from `CORECACHED_SIM_SEEDS` (a count), or so many.
fn seeds(default: u64) -> u64 {
    std::env::var("CORECACHED_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_request_gets_its_own_reply_while_all_is_well() {
    let total = simulate(seeds(500), false);
    assert_eq!(total.right + total.refused, total.requests);
    assert!(total.streamed > 0 && total.lines < total.right);
}

#[test]
fn every_request_gets_one_reply_and_never_anothers_whatever_goes_wrong() {
    let total = simulate(seeds(3000), true);
    for fault in FAULTS {
        assert!(total.faults.contains_key(&fault), "{fault:?} never happened");
    }
    for kind in [
        ErrorKind::Busy,
        ErrorKind::Timeout,
        ErrorKind::ConnectTimeout,
        ErrorKind::Connect,
        ErrorKind::Ejected,
        ErrorKind::Shutdown,
        ErrorKind::TryAgain,
        ErrorKind::Remote,
        ErrorKind::Client,
    ] {
        assert!(total.errors.contains_key(&kind), "{kind:?} never happened");
    }
    assert!(total.ejections > 0 && total.late > 0);
}

#[test]
fn a_command_goes_out_as_it_is_encoded() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let asked = TestRequest::random(&mut random);
        let mut connection = UpstreamConnection::new(ConnectionLimits::default());
        let (mut expected, mut out) = (Vec::new(), Vec::new());
        asked.with_command(|command, data| {
            encode(command, data, &mut expected);
            connection.enqueue(command, data, 1, 0).unwrap();
        });
        connection.take_output(&mut out);
        assert_eq!(out, expected);
    }
}
