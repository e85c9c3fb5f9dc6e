//! Single destinations and connections, one event at a time.

use std::io;

use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{
    AdminVerb, Command, Delete, ErrorKind, Exptime, Meta, MetaFlags, MetaVerb, Reply, Retrieve, Store,
    StoreVerb, VALUE_LEN_MAX,
};

use super::failure::EjectionReason;
use super::*;
use crate::config::AdaptiveConcurrency;

fn get(key: &str) -> Command<'_> {
    Command::Retrieve(Retrieve { key: key.as_bytes(), with_cas: false, touch: None, last: false })
}

fn set(key: &str, value_len: u32) -> Command<'_> {
    Command::Store(Store {
        verb: StoreVerb::Set,
        key: key.as_bytes(),
        client_flags: 0,
        exptime: Exptime(0),
        value_len,
        cas_unique: 0,
        noreply: false,
    })
}

/// A destination, and the events of its replies in short.
struct Bench {
    destination: Destination,
    told: Vec<String>,
}

/// One event of the reply to request `number`, in short.
fn short(number: u64, event: &ReplyEvent) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match event {
        ReplyEvent::Value { value, .. } => format!("{number} value {}", text(value)),
        ReplyEvent::Reply(Reply::Error { line, .. }) => format!("{number} {}", text(line)),
        ReplyEvent::Reply(reply) => format!("{number} {reply:?}"),
        ReplyEvent::ValueHead { value_len, .. } => format!("{number} head {value_len}"),
        ReplyEvent::ValuePiece(piece) => format!("{number} piece {}", text(piece)),
        other => format!("{number} {other:?}"),
    }
}

impl Bench {
    fn new(options: DestinationOptions) -> Self {
        let destination = Destination::new("server:11211".to_owned(), options, None, 7);
        Self { destination, told: Vec::new() }
    }

    /// With a connection.
    fn up(options: DestinationOptions) -> Self {
        let mut bench = Self::new(options);
        bench.ask(&get("first"), 0, 0);
        assert_eq!(bench.destination.next_action(0), Some(DestinationAction::Connect));
        bench.destination.connected(0);
        assert_eq!(bench.sent(0), "get first\r\n");
        bench.receive("END\r\n", 0);
        assert_eq!(bench.told(), ["0 Miss"]);
        bench
    }

    fn ask(&mut self, command: &Command, number: u64, now_ms: u64) {
        self.ask_refusable(command, number, false, now_ms);
    }

    fn ask_refusable(&mut self, command: &Command, number: u64, may_refuse: bool, now_ms: u64) {
        let data = match command {
            Command::Store(store) => vec![b'x'; store.value_len as usize],
            _ => Vec::new(),
        };
        if let Err(reply) = self.destination.request(command, &data, number, may_refuse, now_ms) {
            self.told.push(short(number, &ReplyEvent::Reply(reply)));
        }
    }

    /// What a driver would send now.
    fn sent(&mut self, now_ms: u64) -> String {
        let mut out = Vec::new();
        if self.destination.next_action(now_ms) == Some(DestinationAction::Send) {
            self.destination.take_output(&mut out, now_ms);
        }
        String::from_utf8(out).unwrap()
    }

    fn receive(&mut self, bytes: &str, now_ms: u64) {
        let told = &mut self.told;
        self.destination
            .received(bytes.as_bytes(), now_ms, &mut |number, event| told.push(short(number, &event)));
    }

    fn tick(&mut self, now_ms: u64) {
        let told = &mut self.told;
        self.destination.tick(now_ms, &mut |number, event| told.push(short(number, &event)));
    }

    fn close(&mut self, now_ms: u64) {
        let told = &mut self.told;
        self.destination.closed(now_ms, &mut |number, event| told.push(short(number, &event)));
    }

    fn refuse(&mut self, now_ms: u64) {
        let told = &mut self.told;
        let error = io::ErrorKind::ConnectionRefused;
        self.destination.connect_failed(error, now_ms, &mut |number, event| told.push(short(number, &event)));
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn action(&mut self, now_ms: u64) -> Option<DestinationAction> {
        self.destination.next_action(now_ms)
    }
}

#[test]
fn a_connection_is_made_for_the_first_request_and_carries_what_waited() {
    let mut bench = Bench::new(DestinationOptions::default());
    assert_eq!(bench.destination.status(), DestinationStatus::Idle);
    assert_eq!((bench.action(0), bench.destination.next_deadline()), (None, None));
    bench.ask(&get("a"), 1, 0);
    bench.ask(&set("b", 2), 2, 0);
    assert_eq!(bench.action(0), Some(DestinationAction::Connect));
    assert_eq!((bench.action(0), bench.destination.status()), (None, DestinationStatus::Connecting));
    bench.destination.connected(5);
    assert_eq!(bench.sent(5), "get a\r\nset b 0 0 2\r\nxx\r\n");
    assert_eq!((bench.action(5), bench.destination.status()), (None, DestinationStatus::Up));
    bench.receive("VALUE a 0 1\r\nA\r\nEND\r\nSTO", 7);
    assert_eq!(bench.told(), ["1 value A"]);
    bench.receive("RED\r\n", 9);
    assert_eq!(bench.told(), ["2 Stored"]);
    let counters = bench.destination.counters();
    assert_eq!((counters.requests, counters.replies, counters.found, counters.stored), (2, 2, 1, 1));
    assert_eq!((counters.connects, counters.reply_mean_us()), (1, 8000));
    assert_eq!((counters.bytes_sent, counters.bytes_received), (24, 29));
}

#[test]
fn retrievals_of_a_turn_share_a_line_unless_something_stands_between_them() {
    let mut bench = Bench::up(DestinationOptions::default());
    for (number, key) in (1..).zip(["a", "b", "a", "c"]) {
        bench.ask(&get(key), number, 0);
    }
    let gets = Retrieve { key: b"d", with_cas: true, touch: None, last: true };
    bench.ask(&Command::Retrieve(gets), 5, 0);
    bench.ask(&Command::Delete(Delete { key: b"e", noreply: true }), 6, 0);
    bench.ask(&get("f"), 7, 0);
    // A key that is asked for twice begins another line.
    assert_eq!(bench.sent(0), "get a b\r\nget a c\r\ngets d\r\ndelete e\r\nget f\r\n");
    bench.ask(&get("g"), 8, 0);
    assert_eq!(bench.sent(0), "get g\r\n");
    bench.receive(
        "VALUE b 0 1\r\nB\r\nEND\r\nVALUE c 0 1\r\nC\r\nEND\r\nEND\r\nNOT_FOUND\r\nEND\r\nEND\r\n",
        0,
    );
    assert_eq!(
        bench.told(),
        ["1 Miss", "2 value B", "3 Miss", "4 value C", "5 Miss", "6 NotFound", "7 Miss", "8 Miss",]
    );
}

#[test]
fn long_lists_of_keys_are_parted() {
    let mut bench = Bench::up(DestinationOptions { server_timeout_ms: 0, ..DestinationOptions::default() });
    let keys: Vec<_> = (0..1000).map(|number| format!("{number:0200}")).collect();
    for (number, key) in (0..).zip(&keys) {
        bench.ask(&get(key), number, 0);
    }
    let sent = bench.sent(0);
    assert!(sent.split_inclusive("\r\n").all(|line| line.len() <= 2048 && line.starts_with("get ")));
    assert_eq!(sent.matches(" 0").count(), 1000);
    bench.receive(&"END\r\n".repeat(sent.lines().count()), 0);
    assert_eq!(bench.told().len(), 1000);
    assert_eq!(bench.destination.pending(), 0);
}

#[test]
fn what_cannot_be_sent_is_refused_at_once() {
    let mut bench = Bench::up(DestinationOptions::default());
    let long = "k".repeat(251);
    let flags = MetaFlags { tokens: b"v\nquit", ..MetaFlags::default() };
    let meta = Meta { verb: MetaVerb::Get, key: b"k", value_len: 0, flags };
    for (command, line) in [
        (get(""), "CLIENT_ERROR bad key"),
        (get("a b"), "CLIENT_ERROR bad key"),
        (get("a\nquit"), "CLIENT_ERROR bad key"),
        (get("a\u{7f}"), "CLIENT_ERROR bad key"),
        (get(&long), "CLIENT_ERROR bad key"),
        (Command::Meta(meta), "CLIENT_ERROR bad key"),
        (Command::Quit, "SERVER_ERROR local error"),
        (Command::Stats { words: b"" }, "SERVER_ERROR local error"),
        (Command::Admin { verb: AdminVerb::Watch, words: b"" }, "SERVER_ERROR local error"),
    ] {
        bench.ask(&command, 1, 0);
        assert_eq!(bench.told(), [format!("1 {line}")], "{command:?}");
    }
    assert!(bench.destination.request(&set("k", VALUE_LEN_MAX), b"short", 1, false, 0).is_err());
    assert_eq!(bench.sent(0), "");
    assert_eq!(bench.destination.counters().errors_of(ErrorKind::BadKey), 6);
}

#[test]
fn past_its_bounds_a_connection_is_busy() {
    let limits = ConnectionLimits { requests_max: 3, ..ConnectionLimits::default() };
    let mut bench = Bench::up(DestinationOptions { limits, ..DestinationOptions::default() });
    for number in 1..=4 {
        bench.ask(&get("k"), number, 0);
    }
    assert_eq!(bench.told(), ["4 SERVER_ERROR 307 busy"]);
    bench.sent(0);
    bench.ask(&get("k"), 5, 0);
    assert_eq!(bench.told(), ["5 SERVER_ERROR 307 busy"], "sent ones count too");
    bench.receive("END\r\n", 0);
    bench.ask(&get("k"), 6, 0);
    assert_eq!(bench.told(), ["1 Miss"]);

    let limits = ConnectionLimits { bytes_max: 100, ..ConnectionLimits::default() };
    let mut bench = Bench::up(DestinationOptions { limits, ..DestinationOptions::default() });
    bench.ask(&set("k", 101), 1, 0);
    assert_eq!(bench.told(), ["1 SERVER_ERROR 307 busy"]);
    bench.ask(&set("k", 90), 2, 0);
    bench.ask(&get("k"), 3, 0);
    assert_eq!(bench.told(), ["3 SERVER_ERROR 307 busy"]);
    bench.sent(0);
    bench.ask(&get("k"), 4, 0);
    assert_eq!(bench.told(), [""; 0], "what was sent makes room");
}

#[test]
fn no_more_lines_are_in_flight_than_allowed() {
    let limits = ConnectionLimits { inflight_max: 2, ..ConnectionLimits::default() };
    let mut bench = Bench::up(DestinationOptions { limits, ..DestinationOptions::default() });
    for (number, key) in (1..).zip(["a", "b", "c", "d", "e"]) {
        bench.ask(&get(key), number, 0);
    }
    assert_eq!(bench.sent(0), "get a b\r\n");
    assert_eq!((bench.destination.inflight(), bench.destination.pending()), (2, 5));
    assert_eq!(bench.sent(0), "");
    bench.receive("END\r\n", 0);
    assert_eq!(bench.sent(0), "get c d\r\n");
    bench.receive("END\r\n", 0);
    assert_eq!(bench.sent(0), "get e\r\n");
}

#[test]
fn a_late_reply_goes_to_no_request_and_the_next_one_to_its_own() {
    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&get("a"), 1, 1000);
    bench.sent(1000);
    bench.ask(&get("b"), 2, 1500);
    bench.sent(1500);
    bench.receive("VALUE a 0 3\r\nA", 1900);
    assert_eq!(bench.destination.next_deadline(), Some(2000));
    bench.tick(1999);
    assert_eq!(bench.told(), [""; 0]);
    bench.tick(2000);
    assert_eq!(bench.told(), ["1 SERVER_ERROR timeout"]);
    assert_eq!((bench.action(2000), bench.destination.timeouts()), (None, 1));
    bench.receive("AA\r\nEND\r\nVALUE b 0 1\r\nB\r\nEND\r\n", 2100);
    assert_eq!(bench.told(), ["2 value B"]);
    let counters = bench.destination.counters();
    assert_eq!((counters.late_replies, counters.errors_of(ErrorKind::Timeout)), (1, 1));
    assert_eq!(bench.destination.timeouts(), 0);
}

#[test]
fn a_connection_that_says_nothing_for_the_whole_timeout_is_closed() {
    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&get("a"), 1, 1000);
    bench.sent(1000);
    bench.ask(&set("b", 0), 2, 1900);
    bench.sent(1900);
    bench.tick(2000);
    assert_eq!(bench.told(), ["1 SERVER_ERROR timeout"]);
    assert_eq!((bench.action(2000), bench.destination.next_deadline()), (None, Some(2900)));
    bench.ask(&get("c"), 3, 2899); // not sent
    bench.tick(2900);
    assert_eq!(bench.told(), ["2 SERVER_ERROR timeout"]);
    assert_eq!(bench.destination.timeouts(), 2);
    bench.receive("END\r\n", 2900);
    assert_eq!(bench.told(), [""; 0], "too late");
    assert_eq!(
        (bench.action(2900), bench.action(2900)),
        (Some(DestinationAction::Close), Some(DestinationAction::Connect))
    );
    bench.destination.connected(2901);
    assert_eq!(bench.sent(2901), "get c\r\n");
    bench.receive("END\r\n", 2902);
    assert_eq!(bench.told(), ["3 Miss"]);
}

#[test]
fn a_silent_connection_that_is_asked_ever_more_is_closed_after_twice_the_timeout() {
    let health = HealthOptions { ejects: false, ..HealthOptions::default() };
    let mut bench = Bench::up(DestinationOptions { health, ..DestinationOptions::default() });
    for number in 1..=20 {
        bench.ask(&get("a"), number, number * 100);
        bench.sent(number * 100);
        bench.tick(number * 100);
    }
    // The first was asked at 100.
    assert_eq!(
        (bench.told().len(), bench.action(2000), bench.destination.next_deadline()),
        (10, None, Some(2100))
    );
    bench.tick(2100);
    assert_eq!(
        bench.told(),
        (11..=20).map(|number| format!("{number} SERVER_ERROR timeout")).collect::<Vec<_>>()
    );
    assert_eq!((bench.action(2100), bench.action(2100)), (Some(DestinationAction::Close), None));
}

#[test]
fn a_request_on_a_slow_connection_does_not_time_out_early() {
    let mut bench = Bench::new(DestinationOptions::default());
    bench.ask(&get("a"), 1, 0);
    assert_eq!(bench.action(0), Some(DestinationAction::Connect));
    bench.destination.connected(5);
    bench.sent(5);
    bench.tick(1000);
    bench.ask(&get("b"), 2, 1001);
    bench.sent(1001);
    bench.tick(1005); // nothing came for the whole timeout
    assert_eq!(bench.told(), ["1 SERVER_ERROR timeout"]);
    bench.receive("END\r\nEND\r\n", 1006);
    assert_eq!(bench.told(), ["2 Miss"]);
}

#[test]
fn a_lost_connection_fails_what_was_sent_and_the_rest_goes_out_on_the_next() {
    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&get("a"), 1, 0);
    bench.ask(&get("b"), 2, 0);
    bench.sent(0);
    bench.ask(&get("c"), 3, 0);
    bench.receive("VALUE a 0 1\r\nA\r\nVALUE b 0 10\r\nhalf", 1);
    bench.close(1);
    assert_eq!(bench.told(), ["1 value A", "2 SERVER_ERROR remote error"]);
    assert_eq!(bench.action(1), Some(DestinationAction::Connect));
    bench.destination.connected(2);
    assert_eq!(bench.sent(2), "get c\r\n");
    bench.receive("VALUE c 0 1\r\nC\r\nEND\r\n", 3);
    assert_eq!(bench.told(), ["3 value C"]);
    assert_eq!(bench.destination.status(), DestinationStatus::Up, "no failure of the destination");
}

#[test]
fn a_reply_that_is_none_closes_the_connection() {
    for bytes in ["STORED\r\n", "VALUE b 0 1\r\nx\r\nEND\r\n", "VALUE a 0 1\r\nxx\r\n", "\r\n", "END\n"] {
        let mut bench = Bench::up(DestinationOptions::default());
        bench.ask(&get("a"), 1, 0);
        bench.ask(&set("b", 0), 2, 0);
        bench.sent(0);
        bench.receive(bytes, 1);
        assert_eq!(bench.told(), ["1 SERVER_ERROR remote error", "2 SERVER_ERROR remote error"], "{bytes:?}");
        bench.receive("END\r\nSTORED\r\n", 2);
        assert_eq!(bench.told(), [""; 0]);
        assert_eq!((bench.action(2), bench.action(2)), (Some(DestinationAction::Close), None));
        bench.receive("END\r\n", 3);
        assert_eq!((bench.action(3), bench.destination.counters().closes), (None, 1), "{bytes:?}");
    }
    let mut bench = Bench::up(DestinationOptions::default());
    bench.receive("END\r\n", 1);
    assert_eq!(bench.action(1), Some(DestinationAction::Close), "nothing was asked");
}

#[test]
fn a_value_that_was_refused_with_its_line_ends_the_connection() {
    // What follows may be replies to the value, read as commands.
    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&set("a", 5), 1, 0);
    bench.ask(&get("b"), 2, 0);
    bench.sent(0);
    bench.receive("ERROR\r\nVALUE b 0 1\r\nx\r\nEND\r\n", 1);
    assert_eq!(bench.told(), ["1 ERROR", "2 SERVER_ERROR remote error"]);
    assert_eq!(bench.action(1), Some(DestinationAction::Close));

    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&set("a", 5), 1, 0);
    bench.ask(&get("b"), 2, 0);
    bench.sent(0);
    bench.receive("SERVER_ERROR object too large for cache\r\nEND\r\n", 1);
    assert_eq!(bench.told(), ["1 SERVER_ERROR object too large for cache", "2 Miss"]);
    assert_eq!(bench.action(1), None);
}

#[test]
fn a_large_value_is_passed_on_as_it_comes_and_may_break_off() {
    let limits = ConnectionLimits { whole_value_bytes_max: 4, ..ConnectionLimits::default() };
    let mut bench = Bench::up(DestinationOptions { limits, ..DestinationOptions::default() });
    for (number, key) in (1..).zip(["a", "b"]) {
        bench.ask(&get(key), number, 0);
    }
    bench.sent(0);
    bench.receive("VALUE a 0 5\r\n12", 0);
    assert_eq!(bench.told(), ["1 head 5", "1 piece 12"]);
    bench.receive("345\r", 0);
    bench.receive("\nVALUE b 0 9\r\n12", 0);
    assert_eq!(bench.told(), ["1 piece 345", "1 ValueEnd", "2 head 9", "2 piece 12"]);
    bench.close(0);
    assert_eq!(bench.told(), ["2 SERVER_ERROR remote error"]);
}

#[test]
fn a_refused_connection_ejects_until_a_probe_is_answered() {
    let mut bench = Bench::new(DestinationOptions::default());
    bench.ask(&get("a"), 1, 0);
    assert_eq!(bench.action(0), Some(DestinationAction::Connect));
    bench.refuse(10);
    assert_eq!(bench.told(), ["1 SERVER_ERROR connection error"]);
    assert_eq!(bench.destination.status(), DestinationStatus::Ejected(EjectionReason::Connect));
    bench.ask(&get("a"), 2, 20);
    assert_eq!(bench.told(), ["2 SERVER_ERROR Server unavailable. Reason: connection error"]);
    assert_eq!(bench.action(20), None);

    // The first probe is refused, the second gets no reply, the third gets one.
    let probe_ms = bench.destination.next_deadline().unwrap();
    assert!((10_510..=15_010).contains(&probe_ms), "{probe_ms}");
    bench.tick(probe_ms);
    assert_eq!(bench.action(probe_ms), Some(DestinationAction::Connect));
    bench.refuse(probe_ms);
    assert_eq!(bench.action(probe_ms), None);
    let probe_ms = bench.destination.next_deadline().unwrap();
    bench.tick(probe_ms);
    assert_eq!(bench.action(probe_ms), Some(DestinationAction::Connect));
    bench.destination.connected(probe_ms);
    assert_eq!(bench.sent(probe_ms), "version\r\n");
    assert_eq!(bench.destination.next_deadline(), Some(probe_ms + 1000));
    bench.tick(probe_ms + 1000);
    assert_eq!(bench.action(probe_ms + 1000), Some(DestinationAction::Close));
    let probe_ms = bench.destination.next_deadline().unwrap();
    bench.tick(probe_ms);
    assert_eq!(bench.action(probe_ms), Some(DestinationAction::Connect));
    bench.destination.connected(probe_ms);
    assert_eq!(bench.sent(probe_ms), "version\r\n");
    bench.receive("VERSION 1.6.45\r\n", probe_ms);
    assert_eq!(bench.destination.status(), DestinationStatus::Up);
    bench.ask(&get("a"), 3, probe_ms);
    assert_eq!(bench.sent(probe_ms), "get a\r\n");
    let counters = bench.destination.counters();
    assert_eq!((counters.ejections, counters.returns, counters.probes), (1, 1, 3));
    assert_eq!((counters.connect_failures, counters.connects, counters.requests), (2, 2, 2));
    assert_eq!(bench.told(), [""; 0], "nobody hears of probes");
}

#[test]
fn connections_that_time_out_are_tried_again_as_often_as_allowed() {
    for retries in [0, 2] {
        let options = DestinationOptions {
            connect_retries: retries,
            server_timeout_ms: 60_000,
            ..DestinationOptions::default()
        };
        let mut bench = Bench::new(options);
        bench.ask(&get("a"), 1, 0);
        let mut now_ms = 0;
        for left in (0..=retries).rev() {
            assert_eq!(bench.action(now_ms), Some(DestinationAction::Connect));
            assert_eq!(bench.destination.next_deadline(), Some(now_ms + 1000));
            now_ms += 1000;
            bench.tick(now_ms);
            assert_eq!(bench.told().is_empty(), left > 0);
            assert_eq!(bench.action(now_ms), Some(DestinationAction::Close));
        }
        assert_eq!(bench.action(now_ms), None);
        assert_eq!(bench.destination.status(), DestinationStatus::Ejected(EjectionReason::ConnectTimeout));
    }
}

#[test]
fn a_destination_that_goes_away_gets_no_more_but_answers_what_it_has() {
    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&set("a", 0), 1, 0);
    bench.ask(&get("b"), 2, 0);
    bench.sent(0);
    bench.receive("SERVER_ERROR 301 shutdown\r\n", 0);
    bench.ask(&get("c"), 3, 0);
    assert_eq!(
        bench.told(),
        ["1 SERVER_ERROR 301 shutdown", "3 SERVER_ERROR Server unavailable. Reason: shutdown",]
    );
    assert_eq!(bench.destination.status(), DestinationStatus::Ejected(EjectionReason::Shutdown));
    bench.close(1);
    assert_eq!(bench.told(), ["2 SERVER_ERROR remote error"]);
    assert_eq!(bench.action(1), None);
}

#[test]
fn timeouts_in_a_row_eject_and_busy_replies_do_not() {
    let mut bench = Bench::up(DestinationOptions::default());
    for number in 1..=3 {
        bench.ask(&set("k", 0), number, 10);
    }
    bench.sent(10);
    bench.receive(&"SERVER_ERROR 307 busy\r\n".repeat(3), 20);
    assert_eq!((bench.told().len(), bench.destination.status()), (3, DestinationStatus::Up));
    for number in 4..=6 {
        bench.ask(&set("k", 0), number, 30);
    }
    bench.sent(30);
    bench.tick(1030);
    assert_eq!(bench.told().len(), 3);
    assert_eq!(bench.destination.status(), DestinationStatus::Ejected(EjectionReason::Timeout));
    assert_eq!(bench.destination.counters().ejections, 1);
}

#[test]
fn an_ejected_destination_is_not_connected_to_for_what_was_not_sent() {
    let limits = ConnectionLimits { inflight_max: 1, ..ConnectionLimits::default() };
    let health = HealthOptions { timeouts_max: 1, ..HealthOptions::default() };
    let mut bench = Bench::up(DestinationOptions { limits, health, ..DestinationOptions::default() });
    bench.ask(&get("a"), 1, 0);
    bench.ask(&get("b"), 2, 500);
    assert_eq!(bench.sent(500), "get a\r\n");
    bench.tick(1000);
    assert_eq!(bench.told(), ["1 SERVER_ERROR timeout", "2 SERVER_ERROR unavailable"]);
    assert_eq!((bench.action(1000), bench.action(1000)), (Some(DestinationAction::Close), None));
    assert_eq!(bench.destination.status(), DestinationStatus::Ejected(EjectionReason::Timeout));
}

#[test]
fn an_unused_connection_is_closed() {
    let mut bench =
        Bench::up(DestinationOptions { inactive_reset_ms: 5000, ..DestinationOptions::default() });
    assert_eq!(bench.destination.next_deadline(), Some(5000));
    bench.ask(&get("a"), 1, 4000);
    bench.sent(4000);
    bench.receive("END\r\n", 4001);
    assert_eq!(bench.destination.next_deadline(), Some(9001));
    bench.tick(9001);
    assert_eq!((bench.action(9001), bench.action(9001)), (Some(DestinationAction::Close), None));
    assert_eq!(
        (bench.destination.status(), bench.destination.next_deadline()),
        (DestinationStatus::Idle, None)
    );
    bench.ask(&get("a"), 2, 9002);
    assert_eq!(bench.action(9002), Some(DestinationAction::Connect));
}

#[test]
fn requests_that_time_out_before_there_is_a_connection_are_never_sent() {
    let options = DestinationOptions { connect_timeout_ms: 5000, ..DestinationOptions::default() };
    let mut bench = Bench::new(options);
    bench.ask(&set("a", 3), 1, 0);
    bench.ask(&get("b"), 2, 500);
    bench.action(0);
    bench.tick(1000);
    assert_eq!(bench.told(), ["1 SERVER_ERROR timeout"]);
    bench.destination.connected(1100);
    assert_eq!(bench.sent(1100), "get b\r\n");
    bench.receive("END\r\n", 1200);
    assert_eq!(bench.told(), ["2 Miss"]);
}

#[test]
fn an_abandoned_destination_tells_everybody_and_closes() {
    let mut bench = Bench::up(DestinationOptions::default());
    bench.ask(&get("a"), 1, 0);
    bench.sent(0);
    bench.ask(&get("b"), 2, 0);
    let told = &mut bench.told;
    bench.destination.abandon(0, &mut |number, event| told.push(short(number, &event)));
    assert_eq!(bench.told(), ["1 SERVER_ERROR local error", "2 SERVER_ERROR local error"]);
    assert_eq!((bench.action(0), bench.action(0)), (Some(DestinationAction::Close), None));
}

#[test]
fn every_kind_of_failure_has_its_line() {
    for kind in [
        ErrorKind::Busy,
        ErrorKind::Timeout,
        ErrorKind::ConnectTimeout,
        ErrorKind::Connect,
        ErrorKind::Ejected,
        ErrorKind::Shutdown,
        ErrorKind::TryAgain,
        ErrorKind::BadKey,
        ErrorKind::Remote,
        ErrorKind::Local,
        ErrorKind::Client,
    ] {
        let Reply::Error { kind: told, line } = failure(kind) else { panic!("{kind:?}") };
        assert_eq!(told, kind);
        assert!(line.starts_with(b"SERVER_ERROR ") || line.starts_with(b"CLIENT_ERROR "));
        assert!((kind as usize) < counters::ERROR_KINDS);
    }
}

#[test]
fn a_get_beyond_what_a_destination_may_have_is_refused_if_another_may_answer() {
    let mut bench = Bench::up(DestinationOptions::default());
    bench.destination.limit_concurrency(Some(AdaptiveConcurrency { min: 1, max: 1 }));
    let slow = "SERVER_ERROR 307 busy: the server is slow (adaptive_concurrency)";
    bench.ask_refusable(&get("a"), 1, true, 0);
    assert_eq!(bench.told(), [""; 0]);
    bench.ask_refusable(&get("b"), 2, true, 0);
    assert_eq!(bench.told(), [format!("2 {slow}")]);
    bench.ask_refusable(&set("c", 1), 3, true, 0); // no other destination could take it
    bench.ask_refusable(&get("d"), 4, false, 0);
    assert_eq!(bench.told(), [""; 0]);
    assert_eq!(bench.sent(0), "get a\r\nset c 0 0 1\r\nx\r\nget d\r\n");
    assert_eq!(bench.destination.counters().refused, 1);
}
