//! UDP: requests in datagrams, answered as memcached answers them.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::{Backend, Client, Launch, Memcached, Server, free_port};

struct Datagrams {
    socket: UdpSocket,
    next_id: u16,
}

impl Datagrams {
    fn to(server: &Server) -> Self {
        let port: u16 = Client::connect(server).stats("settings")["udpport"].parse().unwrap();
        assert_ne!(port, 0);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, next_id: 0 }
    }

    fn send(&mut self, header: [u16; 3], request: &[u8]) -> u16 {
        self.next_id += 1;
        let [sequence, total, reserved] = header;
        let header = [self.next_id, sequence, total, reserved].map(u16::to_be_bytes).concat();
        self.socket.send(&[&header, request].concat()).unwrap();
        self.next_id
    }

    /// Receives the datagrams of the reply to request `id`, and joins them.
    fn reply(&self, id: u16) -> Vec<u8> {
        let mut parts: Vec<Option<Vec<u8>>> = Vec::new();
        while parts.is_empty() || parts.iter().any(Option::is_none) {
            let mut datagram = [0; 2000];
            let len = loop {
                match self.socket.recv(&mut datagram) {
                    // The kernel may interrupt a wait that has a timeout.
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    received => break received.unwrap(),
                }
            };
            assert!(len <= 1400);
            let number = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
            assert_eq!((number(0), number(6)), (id, 0));
            parts.resize(usize::from(number(4)), None);
            parts[usize::from(number(2))] = Some(datagram[8..len].to_vec());
        }
        parts.into_iter().flatten().flatten().collect()
    }

    fn check(&mut self, request: &[u8], expected: &[u8]) {
        let id = self.send([0, 1, 0], request);
        let reply = self.reply(id);
        assert!(reply == expected, "{:?}", String::from_utf8_lossy(&reply));
    }
}

/// Sends requests that both servers answer alike.
fn exchange(server: &Server) {
    let mut client = Client::connect(server);
    let large: Vec<u8> = (0..5000).map(|at| b'a' + (at % 26) as u8).collect();
    client.set("large", &large);
    let mut datagrams = Datagrams::to(server);
    datagrams.check(b"set k 5 0 2\r\nhi\r\n", b"STORED\r\n");
    datagrams.check(b"get k\r\n", b"VALUE k 5 2\r\nhi\r\nEND\r\n");
    datagrams.check(b"mg k v f\r\n", b"VA 2 f5\r\nhi\r\n");
    datagrams.check(b"nonsense\r\n", b"ERROR\r\n");
    let reply = [b"VALUE large 0 5000\r\n", &large[..], b"\r\nEND\r\n"].concat();
    datagrams.check(b"get large\r\n", &reply);
    // These are not answered; the ones after them are.
    datagrams.send([0, 2, 0], b"get k\r\n");
    datagrams.socket.send(b"\0\x01\0").unwrap();
    datagrams.send([0, 1, 0], b"set k 0 0 2 noreply\r\nho\r\n");
    let id = datagrams.send([1, 1, 9], b"get k\r\n");
    assert_eq!(datagrams.reply(id), b"VALUE k 0 2\r\nho\r\nEND\r\n");
    // A noop of the binary protocol.
    let (mut noop, mut answer) = ([0; 24], [0; 24]);
    (noop[0], noop[1], answer[0], answer[1]) = (0x80, 0x0a, 0x81, 0x0a);
    datagrams.check(&noop, &answer);
}

#[test]
fn datagrams_are_answered_as_a_memcached_answers_them() {
    let port = free_port().to_string();
    // With one thread replies are in order.
    exchange(&Launch::memcached(Memcached::newest(), &["-U", &port, "-t", "1"]).serve());
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let args = ["-U", "-1", "--udp-reply-max", "100000"];
            exchange(&Server::start_on(backend, shards, &args));
        }
    }
}

#[test]
fn a_reply_longer_than_one_datagram_is_refused_unless_allowed() {
    let server = Server::start(&["-U", "-1"]);
    let mut client = Client::connect(&server);
    let fits = 1392 - "VALUE k 0 1365\r\n\r\nEND\r\n".len();
    let mut datagrams = Datagrams::to(&server);
    for (len, answered) in [(fits, true), (fits + 1, false)] {
        let value = vec![b'x'; len];
        client.set("k", &value);
        let whole = [format!("VALUE k 0 {len}\r\n").as_bytes(), &value, b"\r\nEND\r\n"].concat();
        let refusal = b"SERVER_ERROR reply too large for UDP\r\n".to_vec();
        datagrams.check(b"get k\r\n", if answered { &whole } else { &refusal });
    }
}

#[test]
fn udp_is_off_unless_asked_for_and_brings_its_port_to_tcp() {
    assert_eq!(Client::connect(&Server::start(&[])).stats("settings")["udpport"], "0");
    for (args, code) in [
        (&["-U", "11211", "-S"][..], 64),
        (&["-U", "11211", "-Y", "/etc/hostname"], 64),
        (&["-U", "70000"], 64),
        (&["-U", "11211", "--udp-reply-max", "0"], 64),
    ] {
        let exit = Launch::new(args).exit();
        assert_eq!(exit.code(), Some(code), "{args:?}: {}", exit.stderr);
        assert!(exit.stderr.contains("-U") || exit.stderr.contains("--udp-reply-max"), "{}", exit.stderr);
    }
    let port = free_port().to_string();
    let server = Launch::bare(&["-l", "127.0.0.1", "-U", &port]).serve();
    let settings = Client::connect(&server).stats("settings");
    assert_eq!((&settings["tcpport"], &settings["udpport"]), (&port, &port));
}
