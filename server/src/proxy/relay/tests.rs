//! A relay over a driver that only remembers what it was told.

use std::net::SocketAddr;

use super::*;
use crate::discovery::Found;
use crate::net::{Buffer, Event, Wait, Waker};
use crate::proxy::config::{Config, Options as ConfigOptions};
use corecached_protocol::{Limits as LineLimits, Parsed, Parser};

const TIMEOUT_MS: u64 = 100;
const START_MS: u64 = 1_000_000;

#[derive(Debug, Default)]
struct FakeDriver {
    connects: u32,
    closed: Vec<ConnId>,
    /// Of every connection.
    backlog: usize,
}

impl Driver for FakeDriver {
    fn turn(&mut self, _wait: Wait, _events: &mut Vec<Event>) -> io::Result<()> {
        Ok(())
    }

    fn received(&self, _buffer: Buffer) -> &[u8] {
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

    fn pause(&mut self, _conn: ConnId) {}

    fn resume(&mut self, _conn: ConnId) {}

    fn close(&mut self, conn: ConnId, _how: Close) {
        self.closed.push(conn);
    }

    fn connect(&mut self, _address: &SockAddr) -> io::Result<ConnId> {
        self.connects += 1;
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

/// What a shard would send in a turn.
#[derive(Debug, Default)]
struct Told {
    out: Vec<u8>,
    sends: Vec<Send>,
    answers: Vec<u8>,
}

impl Told {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.answers).into_owned()
    }
}

impl Clients for Told {
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
    /// Keeps the channel open.
    _updates: crossbeam_channel::Sender<Arc<Snapshot>>,
}

impl Bench {
    fn new() -> Self {
        let text = format!(
            "{{\"pools\": {{\"A\": {{\"servers\": [\"127.0.0.1:1\"], \"server_timeout\": {TIMEOUT_MS}}}}}, \
             \"route\": \"PoolRoute|A\"}}"
        );
        let config =
            Config::parse("config", &text, &ConfigOptions::default(), &|_| Err(String::new())).unwrap();
        let tree = Tree::compile(&config, &Found::default().pools).unwrap();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let addresses = tree.destinations().iter().map(|it| (it.server.clone(), address.into())).collect();
        let (_updates, updates) = crossbeam_channel::bounded(1);
        let options = UpstreamOptions {
            trust: None,
            inactive_reset_ms: 0,
            connect_retries: 0,
            limits: upstream::Limits::default(),
            health: HealthOptions::default(),
        };
        let snapshot = Arc::new(Snapshot { tree: Arc::new(tree), addresses });
        let relay = Relay::new(RelaySetup { snapshot, updates, options, spooler: None, seed: 1 });
        Self { relay, driver: FakeDriver::default(), _updates }
    }

    /// A turn at this time; what was sent, and what the clients got.
    fn turn(&mut self, now_ms: u64, line: Option<&str>) -> (String, String) {
        let mut told = Told::default();
        self.relay.begin_turn(START_MS + now_ms, &mut told);
        if let Some(line) = line {
            let Ok(Parsed::Complete { value: command, .. }) =
                Parser::new().parse(line.as_bytes(), &LineLimits::default())
            else {
                panic!("{line}")
            };
            let to = ReplyTo { conn: ConnId { index: 0, generation: 1 }, sequence: 0 };
            self.relay.submit(0, to, &command, b"");
        }
        self.relay.finish_turn(&mut self.driver, &mut told);
        (String::from_utf8_lossy(&told.out).into_owned(), told.text())
    }

    /// What the clients get once the destination has sent this.
    fn receive(&mut self, now_ms: u64, bytes: &str) -> String {
        let mut told = Told::default();
        self.relay.begin_turn(START_MS + now_ms, &mut told);
        let conn = ConnId { index: self.driver.connects, generation: 1 };
        self.relay.received(conn, bytes.as_bytes(), &mut told);
        self.relay.finish_turn(&mut self.driver, &mut told);
        told.text()
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
    bench.driver.backlog = HIGH_WATER_BYTES + 1;
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
fn a_large_value_that_breaks_off_is_told_to_be_broken() {
    let mut bench = Bench::new();
    bench.turn(0, Some("get a\r\n"));
    bench.connected();
    bench.turn(1, None);
    bench.receive(2, "VALUE a 7 100000\r\nvvv");
    let mut told = Told::default();
    let conn = ConnId { index: bench.driver.connects, generation: 1 };
    bench.relay.ended(conn, &mut bench.driver, &mut told);
    assert_eq!(told.text(), "END\r\n!", "an error is a miss, as configured");
    assert_eq!(bench.relay.under_way(), 0);
}
