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
        self.relay.begin_turn(START_MS + now_ms);
        if let Some(line) = line {
            let Ok(Parsed::Complete { value: command, .. }) =
                Parser::new().parse(line.as_bytes(), &LineLimits::default())
            else {
                panic!("{line}")
            };
            let to = ReplyTo { conn: ConnId { index: 0, generation: 1 }, sequence: 0 };
            self.relay.submit(0, to, &command, b"");
        }
        let (mut out, mut sends, mut answered) = (Vec::new(), Vec::new(), String::new());
        self.relay.finish_turn(&mut self.driver, &mut out, &mut sends);
        let mut answers = self.relay.take_answers();
        answers.drain(|_, _, bytes| answered.push_str(&String::from_utf8_lossy(bytes)));
        self.relay.recycle(answers);
        (String::from_utf8_lossy(&out).into_owned(), answered)
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
