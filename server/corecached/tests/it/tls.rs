//! TLS: everything that plain connections do, which clients are accepted, broken clients, and the reload of
//! certificates.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection, HandshakeKind};

use crate::admin::scrape;
use crate::support::{
    Authority, Backend, Client, DEADLINE, Folder, Identity, Launch, Mounted, Packet, Server, opcode,
    wait_until,
};

/// An authority, the certificate of a server in a folder, and the value of `-o` that uses it.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) folder: Folder,
    pub(crate) options: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let options = authority.sign().install(&folder);
        std::fs::write(folder.file("ca.pem"), authority.pem()).unwrap();
        Self { authority, folder, options }
    }

    pub(crate) fn launch(&self, args: &[&str]) -> Launch {
        Launch::new(&["-Z", "-o", &self.options]).args(args)
    }

    /// The value of `-o` that names the authority too.
    fn with_ca(&self) -> String {
        format!("ssl_ca_cert={}", self.folder.file("ca.pem").display())
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.authority.client(ALL_VERSIONS, None)
    }

    pub(crate) fn connect(&self, server: &Server) -> Client {
        Client::connect_tls(server.address, &self.client())
    }
}

fn each_server(world: &World, args: &[&str], check: impl Fn(&Server)) {
    for &backend in Backend::all() {
        for shards in ["1", "2"] {
            check(&world.launch(&[backend.flag(), "-t", shards]).args(args).serve());
        }
    }
}

#[test]
fn every_protocol_is_spoken_over_tls_1_2_and_1_3() {
    let world = World::new();
    each_server(&world, &[], |server| {
        for version in [&TLS12, &TLS13] {
            let mut client = Client::connect_tls(server.address, &world.authority.client(&[version], None));
            client.set("k", b"value");
            assert_eq!(client.get("k").as_deref(), Some(&b"value"[..]));
            client.check("mg k v s\r\nmn\r\n", "VA 5 s5\r\nvalue\r\nMN\r\n");
            let settings = client.stats("settings");
            assert_eq!((&settings["ssl_enabled"][..], &settings["ssl_min_version"][..]), ("yes", "tlsv1.2"));
            assert_eq!(client.stat("ssl_handshake_errors"), 0);
            assert!(client.stat("time_since_server_cert_refresh") < 600);
            client.send("quit\r\n");
            assert_eq!(client.rest(), b"", "the end is told, not just there");
            let mut binary = Client::connect_tls(server.address, &world.authority.client(&[version], None));
            assert_eq!(Packet::new(opcode::GET, b"k").ask(&mut binary).value, b"value");
        }
    });
}

#[test]
fn commands_cut_anywhere_over_records_are_understood() {
    let world = World::new();
    let server = world.launch(&["-t", "2"]).serve();
    let sent = b"set cut 0 0 5\r\nvalue\r\nget cut other\r\nmg cut v\r\n";
    let mut client = world.connect(&server);
    for cut in 0..sent.len() {
        client.send(&sent[..cut]);
        client.send(&sent[cut..]);
        client.expect("STORED\r\nVALUE cut 0 5\r\nvalue\r\nEND\r\nVA 5\r\nvalue\r\n");
    }
    for byte in sent {
        client.send([*byte]);
    }
    client.expect("STORED\r\nVALUE cut 0 5\r\nvalue\r\nEND\r\nVA 5\r\nvalue\r\n");
}

#[test]
fn values_of_many_records_go_both_ways() {
    let world = World::new();
    each_server(&world, &["-m", "256", "-I", "32m"], |server| {
        let mut client = world.connect(server);
        for len in [16_383, 16_384, 16_385, 65_536, 1 << 20, 20 << 20] {
            let value: Vec<u8> = (0..len as u32).map(|at| (at ^ (at >> 9)) as u8).collect();
            client.set("large", &value);
            // Several large values at once, with small replies between them.
            client.send("get large\r\nmn\r\nget large\r\nmn\r\n");
            for _ in 0..2 {
                client.expect(format!("VALUE large 0 {len}\r\n"));
                assert!(client.read(len) == value, "{len} bytes came changed");
                client.expect("\r\nEND\r\nMN\r\n");
            }
        }
        wait_until("pins to be given back", || client.stat("segments_pinned") == 0);
    });
}

/// The count of whole records in `bytes`.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while bytes.len() >= 5 {
        let len = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        bytes = &bytes[len..];
        count += 1;
    }
    count
}

#[test]
fn replies_of_a_batch_come_in_one_record() {
    let world = World::new();
    for &backend in Backend::all() {
        let server = world.launch(&[backend.flag(), "-t", "1"]).serve();
        let mut client = world.connect(&server);
        client.set("k", &[b'x'; 100]);
        drop(client);
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut tls = ClientConnection::new(world.client(), "localhost".try_into().unwrap()).unwrap();
        // The tickets of TLS 1.3 come after the handshake. An exchange receives them first.
        tls.writer().write_all(b"mn\r\n").unwrap();
        let mut got = Vec::new();
        while got != b"MN\r\n" {
            tls.complete_io(&mut socket).unwrap();
            let ready = tls.process_new_packets().unwrap().plaintext_bytes_to_read();
            let start = got.len();
            got.resize(start + ready, 0);
            tls.reader().read_exact(&mut got[start..]).unwrap();
        }
        tls.writer().write_all(&b"get k\r\n".repeat(64)).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut socket).unwrap();
        }
        let (mut raw, mut answered) = (Vec::new(), 0);
        let expected = 64 * (b"VALUE k 0 100\r\n".len() + 100 + b"\r\nEND\r\n".len());
        while answered < expected {
            let mut chunk = [0; 65_536];
            let len = socket.read(&mut chunk).unwrap();
            assert!(len > 0);
            raw.extend_from_slice(&chunk[..len]);
            let mut bytes = &chunk[..len];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).unwrap();
                let ready = tls.process_new_packets().unwrap().plaintext_bytes_to_read();
                tls.reader().read_exact(&mut vec![0; ready]).unwrap();
                answered += ready;
            }
        }
        assert_eq!(records(&raw), 1, "64 replies of {expected} bytes");
    }
}

#[test]
fn a_client_without_tls_is_closed_without_a_word() {
    let world = World::new();
    each_server(&world, &[], |server| {
        let mut watching = world.connect(server);
        let requests =
            [&b"get a\r\n"[..], b"\x80\x0b", b"stats\r\n", &[b'x'; 5000], b"\x16\x02\x00\x00\x01\x00"];
        for request in requests {
            let mut client = Client::connect_to(server.address);
            client.send(request);
            match client.fill() {
                Ok(0) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
                Ok(len) => panic!("{len} bytes were said to a client without TLS"),
            }
        }
        assert_eq!(watching.stat("ssl_handshake_errors"), requests.len() as u64);
        assert_eq!(watching.stat("cmd_get"), 0);
        wait_until("the connections to be gone", || watching.stat("curr_connections") == 1);
    });
}

/// The first message of a handshake.
fn client_hello(world: &World) -> Vec<u8> {
    let mut tls = ClientConnection::new(world.client(), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn handshakes_that_break_off_leave_nothing_behind() {
    let world = World::new();
    each_server(&world, &[], |server| {
        let mut watching = world.connect(server);
        let hello = client_hello(&world);
        for cut in [0, 1, 4, 5, 6, hello.len() / 2, hello.len()] {
            for end in 0..3 {
                let mut client = Client::connect_to(server.address);
                client.send(&hello[..cut]);
                match end {
                    0 => client.end_sending(),
                    1 => client.reset_on_drop(),
                    _ => {}
                }
                if end == 0 {
                    client.rest();
                }
            }
        }
        wait_until("the connections to be gone", || watching.stat("curr_connections") == 1);
        // A client that sent nothing may have been a probe.
        assert_eq!(watching.stat("ssl_handshake_errors"), 6 * 3);
    });
}

#[test]
fn a_handshake_without_end_is_cut_off() {
    let world = World::new();
    each_server(&world, &["-c", "2000"], |server| {
        let mut watching = world.connect(server);
        // A ClientHello that claims 16 MiB, in records of the largest size; and one in records of one byte.
        let large = [&[22, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[0; 0x4000 - 4]].concat();
        let tiny = [22, 3, 1, 0, 1, 1];
        for record in [&large[..], &tiny] {
            let mut client = Client::connect_to(server.address);
            let mut sent = 0;
            while client.try_send(record).is_ok() {
                sent += record.len();
                assert!(sent < 64 << 20, "never cut off");
            }
        }
        wait_until("the connections to be gone", || watching.stat("curr_connections") == 1);
        assert_eq!(watching.stat("ssl_handshake_errors"), 2);
        let before = server.resident_bytes();
        let mut waiting = Vec::new();
        for _ in 0..500 {
            let mut client = Client::connect_to(server.address);
            client.send(&large[..16_000]);
            waiting.push(client);
        }
        wait_until("all of them", || watching.stat("curr_connections") == 501);
        let each = server.resident_bytes().saturating_sub(before) / 500;
        assert!(each < 48 << 10, "{each} bytes for a handshake that waits");
    });
}

#[test]
fn rubbish_after_the_handshake_closes_and_is_counted() {
    let world = World::new();
    each_server(&world, &[], |server| {
        let mut watching = world.connect(server);
        for rubbish in [&b"get a\r\n"[..], &[23, 3, 3, 0, 4, 1, 2, 3, 4], &[23, 3, 3, 0xff, 0xff]] {
            let mut client = world.connect(server);
            client.check("mn\r\n", "MN\r\n");
            client.raw().write_all(rubbish).unwrap();
            let error = client.fill().expect_err("an alert");
            assert!(error.to_string().contains("alert") || error.to_string().contains("reset"), "{error}");
        }
        wait_until("the connections to be gone", || watching.stat("curr_connections") == 1);
        assert_eq!((watching.stat("ssl_proto_errors"), watching.stat("ssl_handshake_errors")), (3, 0));
    });
}

#[test]
fn a_client_that_has_said_its_last_word_gets_the_answers() {
    let world = World::new();
    each_server(&world, &["-m", "256", "-I", "8m"], |server| {
        let mut client = world.connect(server);
        client.set("k", &vec![b'x'; 4 << 20]);
        client.send("get k\r\nmn\r\n");
        client.end_sending();
        let answer = client.rest();
        assert_eq!(answer.len(), b"VALUE k 0 4194304\r\n".len() + (4 << 20) + b"\r\nEND\r\nMN\r\n".len());
        assert!(answer.ends_with(b"END\r\nMN\r\n"));
    });
}

#[test]
fn clients_that_do_not_read_cost_no_copy_of_what_waits() {
    let world = World::new();
    each_server(&world, &["-m", "256", "-I", "32m"], |server| {
        let mut watching = world.connect(server);
        watching.set("large", &vec![b'x'; 16 << 20]);
        watching.get("large");
        let before = server.resident_bytes();
        let mut idle = Vec::new();
        for _ in 0..16 {
            let mut client = world.connect(server);
            client.set_receive_buffer(4096);
            client.send("get large\r\nget large\r\n");
            idle.push(client);
        }
        wait_until("their values to be pinned", || watching.stat("segments_pinned") > 0);
        watching.check("mn\r\n", "MN\r\n");
        let grown = server.resident_bytes().saturating_sub(before) / idle.len();
        assert!(grown < 1 << 20, "{grown} bytes for a client that does not read");
        drop(idle);
        let mut one = world.connect(server);
        one.send("get large\r\nget large\r\n");
        watching.check("mn\r\n", "MN\r\n");
        for _ in 0..2 {
            one.expect("VALUE large 0 16777216\r\n");
            assert!(one.read(16 << 20).iter().all(|&byte| byte == b'x'));
            one.expect("\r\nEND\r\n");
        }
        drop(one);
        wait_until("pins to be given back", || watching.stat("segments_pinned") == 0);
        wait_until("the connections to be gone", || watching.stat("curr_connections") == 1);
    });
}

#[test]
fn sessions_resume_on_any_core_and_survive_a_reload() {
    let world = World::new();
    for version in [&TLS12, &TLS13] {
        let server = world.launch(&["-t", "2", "-o", "ssl_session_cache"]).serve();
        let config = world.authority.client(&[version], None);
        let connect = || {
            let mut client = Client::connect_tls(server.address, &config);
            client.check("mn\r\n", "MN\r\n"); // tickets come after the handshake
            client
        };
        let mut first = connect();
        assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
        for round in 0..32 {
            if round == 16 {
                first.check("refresh_certs\r\n", "OK\r\n");
            }
            assert_eq!(connect().handshake_kind(), Some(HandshakeKind::Resumed), "connection {round}");
        }
        assert_eq!(first.stat("ssl_new_sessions"), 1);
    }
}

/// Whether a client with this configuration is served.
fn is_served(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    // With TLS 1.3 a client learns after its handshake that its certificate is refused.
    Client::try_connect_tls(address, config)
        .is_ok_and(|mut client| client.try_send(b"mn\r\n").is_ok() && matches!(client.fill(), Ok(1..)))
}

#[test]
fn client_certificates_are_asked_for_as_the_mode_says() {
    let world = World::new();
    let known = world.authority.sign();
    let stranger = Authority::new().sign();
    for version in [&TLS12, &TLS13] {
        let clients = [None, Some(&known), Some(&stranger)]
            .map(|identity| world.authority.client(&[version], identity));
        for (mode, served) in [
            ("0", [true, true, true]),
            ("1", [true, true, false]),
            ("2", [false, true, false]),
            ("3", [true, true, false]),
        ] {
            let options = format!("ssl_verify_mode={mode},{}", world.with_ca());
            let server = world.launch(&["-o", &options]).serve();
            let got = clients.each_ref().map(|client| is_served(server.address, client));
            assert_eq!(got, served, "mode {mode}");
        }
    }
}

#[test]
fn a_listener_is_secured_as_its_prefix_says_and_its_tickets_open_no_other() {
    let world = World::new();
    let known = world.authority.sign();
    for &backend in Backend::all() {
        let options = format!("{},{}", world.options, world.with_ca());
        let listen = "127.0.0.1,notls:127.0.0.2,btls:127.0.0.3,mtls:127.0.0.4";
        let server =
            Launch::bare(&["-p", "-1", "-l", listen, "-Z", "-o", &options, "-t", "2", backend.flag()])
                .serve();
        let ports = std::fs::read_to_string(server.folder().file("ports")).unwrap();
        let address = |number: usize| -> SocketAddr {
            let port = ports.lines().nth(number - 1).unwrap().rsplit(' ').next().unwrap();
            format!("127.0.0.{number}:{port}").parse().unwrap()
        };
        let anonymous = world.client();
        assert!(is_served(address(1), &anonymous));
        let mut plain = Client::connect_to(address(2));
        plain.set("k", b"value");
        // The ticket comes with the first reply, and is used on the next connection to that name.
        assert!(is_served(address(3), &anonymous));
        let mut basic = Client::connect_tls(address(3), &anonymous);
        assert_eq!(basic.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(basic.get("k").as_deref(), Some(&b"value"[..]));
        assert!(!is_served(address(4), &anonymous));
        assert!(is_served(address(4), &world.authority.client(ALL_VERSIONS, Some(&known))));
        // Plain and secured connections at the same time.
        for _ in 0..100 {
            plain.check("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
            basic.check("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
        }
    }
}

#[test]
fn certificates_are_read_again_while_connections_go_on() {
    let world = World::new();
    each_server(&world, &[], |server| {
        let first = world.authority.sign();
        first.install(&world.folder);
        let mut early = world.connect(server);
        early.check("refresh_certs\r\n", "OK\r\n");
        assert_eq!(world.connect(server).server_certificate(), first.certificate.to_vec());
        let second = world.authority.sign();
        second.install(&world.folder);
        early.check("mn\r\nrefresh_certs\r\nmn\r\n", "MN\r\nOK\r\nMN\r\n");
        assert_eq!(world.connect(server).server_certificate(), second.certificate.to_vec());
        let third = world.authority.sign();
        third.install(&world.folder);
        server.signal(Signal::HUP);
        let shown = || world.connect(server).server_certificate();
        wait_until("the third certificate", || shown() == third.certificate.to_vec());
        // A bad file changes nothing.
        let chain = world.folder.file("chain.pem");
        std::fs::write(&chain, first.certificate_pem).unwrap();
        let answer = early.ask("refresh_certs");
        assert!(answer.contains("ssl_chain_cert") || answer.contains("ssl_key"), "{answer}");
        std::fs::write(&chain, "no certificate").unwrap();
        let answer = early.ask("refresh_certs");
        assert!(answer.contains(chain.to_str().unwrap()), "{answer}");
        server.signal(Signal::HUP);
        wait_until("the log", || server.stderr().contains("the certificates stay as they were"));
        assert_eq!(shown(), third.certificate.to_vec());
        early.set("k", b"still there");
        third.install(&world.folder);
    });
}

#[test]
fn a_certificate_of_a_mounted_secret_is_followed_without_a_signal() {
    let world = World::new();
    let [first, second, third, fourth] = [(); 4].map(|()| world.authority.sign());
    for &backend in Backend::all() {
        let mounted = Mounted::new(&first.secret());
        let options =
            format!("ssl_chain_cert={},ssl_key={}", mounted.path("chain.pem"), mounted.path("key.pem"));
        let launch = |more: &str| {
            let options = format!("{options}{more}");
            Launch::new(&["-Z", "-t", "2", backend.flag(), "-o", &options]).serve()
        };
        let (server, indifferent) = (launch(",ssl_watch_certs"), launch(""));
        let shown = |server: &Server| world.connect(server).server_certificate();
        let wait_for = |identity: &Identity| {
            wait_until("the certificate", || shown(&server) == identity.certificate.to_vec());
        };
        let warnings = || server.stderr().matches("the certificates stay as they were").count();
        let mut early = world.connect(&server);
        early.set("k", b"value");
        assert_eq!(shown(&server), first.certificate.to_vec());
        let age = "time_since_server_cert_refresh";
        wait_until("the certificate to age", || early.stat(age) > 1);
        let begun = Instant::now();
        mounted.hold(&second.secret());
        wait_for(&second);
        assert!(early.stat(age) <= begun.elapsed().as_secs(), "the time of the refresh is known");
        assert_eq!(warnings(), 0, "{}", server.stderr());
        // The key of another certificate, no key, and an empty file: each is logged once, however often files
        // are checked.
        let foreign = [first.secret()[0], third.secret()[1]];
        for (number, bad) in [&foreign[..], &foreign[..1], &[]].into_iter().enumerate() {
            mounted.hold(bad);
            wait_until("the warning", || warnings() > number);
            mounted.hold(bad);
            assert_eq!(shown(&server), second.certificate.to_vec());
        }
        mounted.hold(&third.secret());
        wait_for(&third);
        assert_eq!(warnings(), 3, "{}", server.stderr());
        assert!(
            server.stderr().contains(&format!("ssl_key={}: the key is of another", mounted.path("key.pem")))
        );
        mounted.hold(&fourth.secret());
        wait_for(&fourth);
        assert_eq!(early.get("k").as_deref(), Some(&b"value"[..]), "{}", server.stderr());
        let settings = |server: &Server| world.connect(server).stats("settings")["ssl_watch_certs"].clone();
        assert_eq!((&*settings(&server), &*settings(&indifferent)), ("yes", "no"));
        assert_eq!(shown(&indifferent), first.certificate.to_vec());
    }
}

#[test]
fn a_flood_of_refreshes_is_answered_and_stops_nobody() {
    let world = World::new();
    let server = world.launch(&["-t", "2"]).serve();
    let mut clients: Vec<Client> = (0..100).map(|_| world.connect(&server)).collect();
    for client in &mut clients {
        client.send("refresh_certs\r\nmn\r\n");
    }
    for client in &mut clients {
        let answer = client.line();
        assert!(answer == "OK" || answer == "SERVER_ERROR certificates are being refreshed", "{answer}");
        client.expect("MN\r\n");
    }
    // A client that does not wait for the reply.
    clients[0].send("refresh_certs\r\n");
    drop(clients);
    let mut watching = world.connect(&server);
    wait_until("the connections to be gone", || watching.stat("curr_connections") == 1);
}

#[test]
fn keys_may_change_at_any_time() {
    let world = World::new();
    let server = world.launch(&["-t", "2"]).serve();
    let mut client = Client::connect_tls(server.address, &world.authority.client(&[&TLS13], None));
    client.set("k", b"value");
    for _ in 0..200 {
        client.refresh_keys();
        client.check("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
    }
}

#[test]
fn a_server_that_stops_says_so_to_its_clients() {
    let world = World::new();
    for &backend in Backend::all() {
        let mut server = world.launch(&[backend.flag(), "-t", "2"]).serve();
        let mut clients: Vec<Client> = (0..8).map(|_| world.connect(&server)).collect();
        for client in &mut clients {
            client.check("mn\r\n", "MN\r\n");
        }
        server.signal(Signal::TERM);
        for client in &mut clients {
            assert_eq!(client.rest(), b"");
        }
        assert_eq!(server.exit_within(DEADLINE).code(), Some(0));
    }
}

#[test]
fn versions_and_ciphers_are_those_allowed() {
    let world = World::new();
    let server = world.launch(&["-o", "ssl_min_version=3"]).serve();
    assert!(!is_served(server.address, &world.authority.client(&[&TLS12], None)));
    assert!(is_served(server.address, &world.authority.client(&[&TLS13], None)));
    let server = world.launch(&["-o", "ssl_ciphers=ECDHE-RSA-AES128-GCM-SHA256"]).serve();
    // No suite of TLS 1.2 fits the kind of the certificate's key.
    assert!(!is_served(server.address, &world.authority.client(&[&TLS12], None)));
    assert!(is_served(server.address, &world.authority.client(&[&TLS13], None)));
    let server = world.launch(&["-o", "ssl_min_version=0"]).serve();
    assert!(server.stderr().contains("tlsv1.2 is the least"), "{}", server.stderr());
}

#[test]
fn a_health_check_speaks_tls_and_verifies_whom_it_asks_if_told_to() {
    let world = World::new();
    let file = |name: &str, text: &str| {
        let path = world.folder.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ca, other) = (file("own-ca.pem", world.authority.pem()), file("other.pem", Authority::new().pem()));
    let shown = world.authority.sign();
    let (chain, key) = (file("probe.pem", &shown.certificate_pem), file("probe.key", &shown.key_pem));
    let check = |server: &Server, host: &str, more: &[&str]| {
        let target = format!("{host}:{}", server.address.port());
        let words: Vec<&str> = ["healthcheck", &target].into_iter().chain(more.iter().copied()).collect();
        let exit = Launch::bare(&words).exit();
        (exit.code(), exit.stderr)
    };
    let good = |server: &Server, host: &str, more: &[&str]| {
        assert_eq!(check(server, host, more), (Some(0), String::new()), "{more:?}");
    };
    let bad = |server: &Server, host: &str, more: &[&str], said: &str| {
        let (got, stderr) = check(server, host, more);
        assert!(got == Some(1) && stderr.contains(said), "{more:?}: {got:?} {stderr}");
    };
    let server = world.launch(&[]).serve();
    good(&server, "127.0.0.1", &["-Z"]); // its certificate is for localhost
    good(&server, "127.0.0.1", &["--enable-ssl", "--store"]);
    good(&server, "localhost", &["-Z", "--pem-ca-path", &ca]);
    good(&server, "127.0.0.1", &["-Z", "--pem-ca-path", &ca, "--ssl-server-name", "localhost"]);
    bad(&server, "127.0.0.1", &["-Z", "--pem-ca-path", &ca], "not valid for name");
    bad(&server, "localhost", &["-Z", "--pem-ca-path", &other], "TLS: invalid peer certificate");
    bad(&server, "localhost", &["-Z", "--pem-ca-path", "/nowhere"], "--pem-ca-path /nowhere");
    bad(&server, "localhost", &["-Z", "--pem-cert-path", &chain], "--pem-key-path");
    bad(&server, "localhost", &["--pem-ca-path", &ca], "--enable-ssl");
    bad(&server, "localhost", &[], "receive");
    // A server that requires a certificate, one without TLS, and one that does not answer.
    let options = format!("{},ssl_verify_mode=2", world.with_ca());
    let strict = world.launch(&["-o", &options]).serve();
    good(&strict, "127.0.0.1", &["-Z", "--pem-cert-path", &chain, "--pem-key-path", &key]);
    bad(&strict, "127.0.0.1", &["-Z"], "CertificateRequired");
    let plain = Server::start(&[]);
    bad(&plain, "127.0.0.1", &["-Z"], "TLS");
    server.stop();
    bad(&server, "127.0.0.1", &["-Z", "-t", "50"], "TLS");
    server.signal(Signal::CONT);
}

#[test]
fn a_client_that_does_not_finish_its_handshake_in_time_is_closed_and_counted() {
    let world = World::new();
    each_server(&world, &["-o", "ssl_handshake_timeout_ms=1500", "--admin-listen=127.0.0.1:0"], |server| {
        let mut done = world.connect(server);
        done.set("k", b"value");
        let mut hello = Vec::new();
        let name = "localhost".try_into().unwrap();
        ClientConnection::new(world.client(), name).unwrap().write_tls(&mut hello).unwrap();
        // Nothing, one byte, half a ClientHello, and a whole one without the rest of the handshake.
        let lengths = [0, 1, hello.len() / 2, hello.len()];
        let late = lengths.map(|sent| {
            let mut client = TcpStream::connect(server.address).unwrap();
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            client.write_all(&hello[..sent]).unwrap();
            (sent, client)
        });
        for (sent, mut client) in late {
            let mut answer = Vec::new();
            match client.read_to_end(&mut answer) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{sent} bytes: {error}"),
                _ => assert_eq!(answer.is_empty(), sent < hello.len(), "{sent} bytes"),
            }
        }
        // Clients that were in time stay connected.
        assert_eq!(done.get("k").as_deref(), Some(&b"value"[..]));
        assert_eq!((done.stat("ssl_handshake_timeouts"), done.stat("ssl_handshake_errors")), (4, 0));
        assert_eq!(done.stats("settings")["ssl_handshake_timeout_ms"], "1500");
        assert_eq!(scrape(server)["corecached_tls_handshake_timeouts_total"], 4.0);
        wait_until("their connections to be closed", || done.stat("curr_connections") == 1);
    });
}
