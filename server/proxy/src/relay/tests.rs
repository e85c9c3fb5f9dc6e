//! A relay over a driver that only records what it was asked to do.

use std::io;
use std::net::SocketAddr;

use super::*;
use crate::config::{Config, Options as ConfigOptions};
use crate::discovery::Found;
use crate::hot::HotOptions;
use crate::merge::MergeOptions;
use crate::route::Tree;
use crate::upstream::{ConnectionLimits, HealthOptions};
use corecached_net::{Buffer, Driver, Event, Send, Wait, Waker};
use corecached_protocol::{Limits as LineLimits, Parsed, Parser};
use corecached_shard::mesh::message::Piece;
use socket2::SockAddr;

const TIMEOUT_MS: u64 = 100;
const START_MS: u64 = 1_000_000;

#[derive(Debug, Default)]
struct FakeDriver {
    connects: u32,
    /// The ports, in order.
    ports: Vec<u16>,
    closed: Vec<ConnId>,
    /// Of every connection.
    backlog: usize,
}

impl SecureDriver for FakeDriver {}

impl Driver for FakeDriver {
    fn turn(&mut self, _wait: Wait, _events: &mut Vec<Event>) -> io::Result<()> {
        Ok(())
    }

    fn received(&self, _buffer: &Buffer) -> &[u8] {
        &[]
    }

    fn recycle(&mut self, _buffer: Buffer) {}

    fn take_arena(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn send(&mut self, _arena: Vec<u8>, _sends: &mut Vec<Send>) {}

    fn backlog(&self, _conn: ConnId) -> usize {
        self.backlog
    }

    fn has_unreported(&mut self, _conn: ConnId) -> bool {
        false
    }

    fn pause(&mut self, _conn: ConnId) {}

    fn resume(&mut self, _conn: ConnId) {}

    fn close(&mut self, conn: ConnId, _how: Close) {
        self.closed.push(conn);
    }

    fn connect(&mut self, address: &SockAddr) -> io::Result<ConnId> {
        self.connects += 1;
        self.ports.extend(address.as_socket().map(|address| address.port()));
        Ok(ConnId { index: self.connects, generation: 1 })
    }

    fn peer(&self, _conn: ConnId) -> Option<SocketAddr> {
        None
    }

    fn stop_accepting(&mut self) {}

    fn waker(&self) -> Arc<Waker> {
        Arc::new(Waker::for_tests())
    }

    fn wake(&mut self, _other: &Waker) {}

    fn accept_failures(&self) -> u64 {
        0
    }

    fn has_unsent(&self) -> bool {
        false
    }
}

/// What a shard would send in a turn: to destinations and to clients.
#[derive(Debug, Default)]
struct ClientOutput {
    out: Vec<u8>,
    sends: Vec<Send>,
    answers: Vec<u8>,
}

impl ClientOutput {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.answers).into_owned()
    }
}

impl Clients for ClientOutput {
    fn answer(&mut self, _shard: usize, _to: ReplyTo, piece: Piece, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.answers);
        self.answers.extend_from_slice(match piece {
            Piece::Last => b"",
            Piece::More => b"~",
            Piece::Broken => b"!",
        });
    }

    fn output(&mut self) -> (&mut Vec<u8>, &mut Vec<Send>) {
        (&mut self.out, &mut self.sends)
    }
}

struct Bench {
    relay: Relay,
    driver: FakeDriver,
    /// Held so that the relay does not see its end.
    _updates: crossbeam_channel::Sender<Arc<Snapshot>>,
}

impl Bench {
    fn new() -> Self {
        Self::sparing(false, 0)
    }

    /// One that sends identical gets once, and keeps the values of so many hot keys.
    fn sparing(single_flight: bool, keys: usize) -> Self {
        let hot = HotOptions { keys, stale_ms: 50, bytes_max: 10_000 };
        let merge = MergeOptions { single_flight, hot, flushes: Arc::default() };
        let text = format!(
            "{{\"pools\": {{\"A\": {{\"servers\": [\"127.0.0.1:1\"], \"server_timeout\": {TIMEOUT_MS}}}}}, \
             \"route\": \"PoolRoute|A\"}}"
        );
        let config = Config::parse("config", &text, &ConfigOptions::default(), &|_| Err("".into())).unwrap();
        let tree = Tree::compile(&config, &Found::default().pools).unwrap();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let addresses = tree.destinations().iter().map(|it| (it.server.clone(), address.into())).collect();
        let (sender, updates) = crossbeam_channel::bounded(1);
        let options = UpstreamOptions {
            inactive_reset_ms: 0,
            connect_retries: 0,
            limits: ConnectionLimits::default(),
            health: HealthOptions::default(),
            merge,
        };
        let snapshot = Arc::new(Snapshot { tree: Arc::new(tree), addresses, trust: None });
        let relay = Relay::new(RelaySetup { snapshot, updates, options, spooler: None, seed: 1 });
        Self { relay, driver: FakeDriver::default(), _updates: sender }
    }

    /// A turn at this time; what was sent, and what the clients got.
    fn turn(&mut self, now_ms: u64, line: Option<&str>) -> (String, String) {
        let mut output = ClientOutput::default();
        self.relay.begin_turn(START_MS + now_ms, &mut output);
        if let Some(line) = line {
            let Ok(Parsed::Complete { value: command, .. }) =
                Parser::new().parse(line.as_bytes(), &LineLimits::default())
            else {
                panic!("{line}")
            };
            let to = ReplyTo { conn: ConnId { index: 0, generation: 1 }, sequence: 0 };
            self.relay.submit(0, to, &command, 1 << 40, b"");
        }
        self.relay.finish_turn(&mut self.driver, &mut output);
        (String::from_utf8_lossy(&output.out).into_owned(), output.text())
    }

    /// What the clients get once the destination has sent this.
    fn receive(&mut self, now_ms: u64, bytes: &str) -> String {
        let mut output = ClientOutput::default();
        self.relay.begin_turn(START_MS + now_ms, &mut output);
        let conn = ConnId { index: self.driver.connects, generation: 1 };
        self.relay.received(conn, bytes.as_bytes(), &mut output);
        self.relay.finish_turn(&mut self.driver, &mut output);
        output.text()
    }

    fn connected(&mut self) {
        self.relay.connected(ConnId { index: self.driver.connects, generation: 1 });
    }
}

#[test]
fn a_destination_that_does_not_read_is_sent_no_more_but_closed_all_the_same() {
    let mut bench = Bench::new();
    bench.turn(0, Some("touch a 0\r\n"));
    assert_eq!(bench.driver.connects, 1);
    bench.connected();
    assert_eq!(bench.turn(1, None).0, "touch a 0\r\n");
    bench.driver.backlog = corecached_net::outbox::HIGH_WATER_BYTES + 1;
    assert_eq!(bench.turn(2, Some("touch b 0\r\n")).0, "", "sent to one that is behind");
    let (sent, answered) = bench.turn(2 * TIMEOUT_MS, None);
    assert_eq!((sent.as_str(), answered.as_str()), ("", "SERVER_ERROR timeout\r\nSERVER_ERROR timeout\r\n"));
    assert_eq!(bench.driver.closed, [ConnId { index: 1, generation: 1 }]);
}

#[test]
fn a_large_value_goes_to_its_client_as_it_comes() {
    let mut bench = Bench::new();
    bench.turn(0, Some("get a\r\n"));
    bench.connected();
    bench.turn(1, None);
    let value = "v".repeat(100_000);
    let mut got = bench.receive(2, &format!("VALUE a 7 {}\r\n", value.len()));
    assert_eq!(got, "VALUE a 7 100000\r\n~");
    for piece in value.as_bytes().chunks(30_000) {
        got = bench.receive(3, std::str::from_utf8(piece).unwrap());
        assert_eq!(got, format!("{}~", std::str::from_utf8(piece).unwrap()));
    }
    assert_eq!(bench.receive(4, "\r\nEND\r\n"), "\r\nEND\r\n");
    assert_eq!(bench.relay.under_way(), 0);
}

#[test]
fn a_large_value_that_breaks_off_is_delivered_as_broken() {
    let mut bench = Bench::new();
    bench.turn(0, Some("get a\r\n"));
    bench.connected();
    bench.turn(1, None);
    bench.receive(2, "VALUE a 7 100000\r\nvvv");
    let mut output = ClientOutput::default();
    let conn = ConnId { index: bench.driver.connects, generation: 1 };
    bench.relay.ended(conn, &mut bench.driver, &mut output);
    assert_eq!(output.text(), "END\r\n!", "an error is a miss, as configured");
    assert_eq!(bench.relay.under_way(), 0);
}

#[test]
fn gets_for_one_key_are_sent_once_and_all_answered() {
    let mut bench = Bench::sparing(true, 0);
    bench.turn(0, Some("get a\r\n"));
    bench.connected();
    assert_eq!(bench.turn(1, None).0, "get a\r\n");
    assert_eq!(bench.turn(2, Some("get a\r\n")).0, "");
    assert_eq!(bench.turn(2, Some("set a 0 0 0\r\n")).0, "set a 0 0 0\r\n\r\n");
    assert_eq!(
        bench.turn(3, Some("get a\r\n")).0,
        "get a\r\n",
        "what was sent before the write is no answer"
    );
    assert_eq!(bench.turn(3, Some("get a\r\n")).0, "");
    assert_eq!(
        bench.receive(4, "VALUE a 0 3\r\nold\r\nEND\r\nSTORED\r\nVALUE a 0 3\r\nnew\r\nEND\r\n"),
        "VALUE a 0 3\r\nold\r\nEND\r\nVALUE a 0 3\r\nold\r\nEND\r\nSTORED\r\n\
         VALUE a 0 3\r\nnew\r\nEND\r\nVALUE a 0 3\r\nnew\r\nEND\r\n"
    );
    assert_eq!(bench.relay.under_way(), 0);
    // A large value goes to all who waited when it began, and to nobody who came later.
    bench.turn(5, Some("get a\r\n"));
    bench.turn(5, Some("get a\r\n"));
    assert_eq!(bench.receive(6, "VALUE a 0 100000\r\n"), "VALUE a 0 100000\r\n~VALUE a 0 100000\r\n~");
    assert_eq!(bench.turn(7, Some("get a\r\n")).0, "get a\r\n");
    // And so does an error.
    bench.turn(8, Some("get a\r\n"));
    let answered = bench.turn(2 * TIMEOUT_MS, None).1;
    assert_eq!(answered, "END\r\n!END\r\n!END\r\nEND\r\n");
    assert_eq!(bench.relay.under_way(), 0);
}

#[test]
fn the_value_of_a_hot_key_is_answered_from_here_for_a_while() {
    let mut bench = Bench::sparing(false, 10);
    bench.turn(0, Some("get a\r\n"));
    bench.connected();
    bench.turn(1, None);
    bench.receive(2, "VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(bench.turn(3, Some("get a\r\n")).0, "get a\r\n", "one get makes it not hot");
    bench.receive(4, "VALUE a 0 1\r\ny\r\nEND\r\n");
    assert_eq!(bench.turn(5, Some("get a\r\n")), (String::new(), "VALUE a 0 1\r\ny\r\nEND\r\n".to_owned()));
    assert_eq!(bench.turn(52, Some("get a\r\n")).1, "VALUE a 0 1\r\ny\r\nEND\r\n");
    assert_eq!(bench.turn(53, Some("get a\r\n")).0, "get a\r\n", "it was asked for 50 ms ago");
    bench.receive(54, "VALUE a 0 1\r\nz\r\nEND\r\n");
    assert_eq!(bench.turn(55, Some("delete a\r\n")).0, "delete a\r\n");
    assert_eq!(bench.turn(55, Some("get a\r\n")).0, "get a\r\n");
    // Forgotten again when the write is answered: the get may have overtaken it on another way.
    bench.receive(56, "DELETED\r\nEND\r\n");
    assert_eq!(bench.turn(57, Some("get a\r\n")).0, "get a\r\n");
}
