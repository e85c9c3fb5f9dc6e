//! Connections: their limit, their ends, and that no connection disturbs another.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::support::{Backend, Client, DEADLINE, Launch, Server, wait_for, wait_until};

#[test]
fn past_the_limit_clients_are_told_and_turned_away() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &["-c", "5"]);
        let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
        for client in &mut clients {
            client.check("mn\r\n", "MN\r\n");
        }
        let mut refused = Client::connect(&server);
        assert_eq!(refused.rest(), b"ERROR Too many open connections\r\n");
        let stats = clients[0].stats("");
        assert_eq!((&*stats["curr_connections"], &*stats["max_connections"]), ("5", "5"));
        assert_eq!((&*stats["rejected_connections"], &*stats["total_connections"]), ("1", "5"));
        clients.pop();
        wait_for("room for one more", || {
            let mut client = Client::connect(&server);
            client.try_send(b"mn\r\n").ok()?;
            (client.fill().ok()? > 0 && client.line() == "MN").then_some(())
        });
    }
}

#[test]
fn ten_thousand_idle_connections_are_answered_and_cost_little() {
    const CONNECTIONS: usize = 10_000;
    /// Most resident memory of the server for each connection, bytes, without the memory of the kernel.
    const EACH_MAX: usize = 2_048;
    if let Err(limit) = raise_descriptors(CONNECTIONS as u64 + 200) {
        println!("skipped: only {limit} files may be open");
        return;
    }
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &["-c", "10100"]);
        let mut control = Client::connect(&server);
        control.set("k", b"value");
        let before = server.resident_bytes();
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(&server)).collect();
        for client in &mut clients {
            client.send("get k\r\n");
        }
        for client in &mut clients {
            client.expect("VALUE k 0 5\r\nvalue\r\nEND\r\n");
        }
        assert_eq!(control.stat("curr_connections"), CONNECTIONS as u64 + 1);
        let grown = server.resident_bytes().saturating_sub(before);
        println!("{backend:?}: {} bytes a connection", grown / CONNECTIONS);
        assert!(grown < CONNECTIONS * EACH_MAX, "{backend:?}: {grown} bytes for {CONNECTIONS} connections");
        // Idle connections are still usable.
        for client in clients.iter_mut().step_by(97) {
            client.check("mn\r\n", "MN\r\n");
        }
        for client in &clients {
            client.reset_on_drop();
        }
        drop(clients);
        wait_until("the connections to be gone", || control.stat("curr_connections") == 1);
    }
}

/// Raises the limit of open files of this process to what it may be. `Err` with that limit when it is below
/// `wanted`.
fn raise_descriptors(wanted: u64) -> Result<(), u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Some(most) = maximum.filter(|&most| most < wanted) {
        return Err(most);
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit may be raised");
    Ok(())
}

#[test]
fn a_half_sent_value_keeps_nobody_waiting() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let half = vec![b'h'; 50_000];
        let mut senders: Vec<Client> = (0..20).map(|_| Client::connect(&server)).collect();
        for (number, sender) in senders.iter_mut().enumerate() {
            sender.send(format!("set half{number} 0 0 100000\r\n"));
            sender.send(&half);
        }
        let mut other = Client::connect(&server);
        for number in 0..200 {
            other.set(&format!("k{number}"), b"value");
            assert_eq!(other.get(&format!("half{}", number % 20)), None, "nothing of it can be seen");
        }
        for (number, sender) in senders.iter_mut().enumerate() {
            sender.send(&half);
            sender.check("\r\n", "STORED\r\n");
            assert_eq!(other.get(&format!("half{number}")).unwrap(), [b'h'; 100_000]);
        }
        assert_eq!(other.stat("uploads"), 0);
    }
}

#[test]
fn a_client_that_ends_sending_gets_all_its_replies() {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &[]);
            let mut client = Client::connect(&server);
            let value = vec![b'v'; 10_000];
            for number in 0..8 {
                client.set(&format!("k{number}"), &value);
            }
            let (mut requests, mut expected) = (Vec::new(), Vec::new());
            for number in 0..2_000 {
                requests.extend_from_slice(format!("get k{}\r\n", number % 8).as_bytes());
                expected.extend_from_slice(format!("VALUE k{} 0 10000\r\n", number % 8).as_bytes());
                expected.extend_from_slice(&value);
                expected.extend_from_slice(b"\r\nEND\r\n");
            }
            client.send(&requests);
            client.end_sending();
            assert!(client.rest() == expected, "{backend:?}, {shards} shards");
            // A connection without a request ends as well.
            let mut silent = Client::connect(&server);
            silent.end_sending();
            assert_eq!(silent.rest(), b"");
            // Half a command is never carried out.
            let mut half = Client::connect(&server);
            half.send("set k0 0 0 5\r\nnew");
            half.end_sending();
            assert_eq!(half.rest(), b"");
            assert_eq!(Client::connect(&server).get("k0").unwrap(), value);
        }
    }
}

#[test]
fn resets_in_the_middle_of_values_leave_nothing_behind() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let mut control = Client::connect(&server);
        control.set("reset0", b"old");
        for round in 0..10 {
            let senders: Vec<Client> = (0..30)
                .map(|number| {
                    let mut sender = Client::connect(&server);
                    sender.reset_on_drop();
                    let sent = (round * 30 + number) * 1_013 % 500_000;
                    sender.send(format!("set reset{number} 0 0 500000\r\n"));
                    sender.send(vec![b'x'; sent]);
                    sender
                })
                .collect();
            assert!(control.get("reset0").is_some());
            drop(senders);
        }
        wait_until("the connections to be gone", || control.stat("curr_connections") == 1);
        wait_until("the uploads to be given up", || control.stat("uploads") == 0);
        assert_eq!(control.get("reset0").unwrap(), b"old");
        assert_eq!(control.get("reset1"), None);
        let value = vec![b'y'; 500_000];
        for number in 0..30 {
            control.set(&format!("reset{number}"), &value);
            assert_eq!(control.get(&format!("reset{number}")).unwrap(), value);
        }
    }
}

#[test]
fn resets_with_replies_on_their_way_leave_nothing_behind() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let mut control = Client::connect(&server);
        for number in 0..10 {
            control.set(&format!("k{number}"), &vec![b'v'; 300_000]);
        }
        for _ in 0..100 {
            let mut reader = Client::connect(&server);
            reader.set_receive_buffer(4_096);
            reader.reset_on_drop();
            reader.send("get k0 k1 k2 k3 k4 k5 k6 k7 k8 k9\r\n".repeat(5));
            reader.read(1_000);
        }
        wait_until("the connections to be gone", || control.stat("curr_connections") == 1);
        wait_until("the values to be given back", || control.stat("segments_pinned") == 0);
        assert_eq!(control.get("k5").unwrap(), vec![b'v'; 300_000]);
    }
}

#[test]
fn a_connection_closes_at_once_when_asked_to() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 1, &[]);
        let quickest = (0..30)
            .map(|_| {
                let mut client = Client::connect(&server);
                let start = Instant::now();
                client.send("quit\r\n");
                assert_eq!(client.rest(), b"");
                start.elapsed()
            })
            .min()
            .unwrap();
        assert!(quickest < Duration::from_millis(5), "{backend:?}: {quickest:?} at best");
    }
}

#[test]
fn a_unix_socket_serves_as_tcp_does() {
    for &backend in Backend::all() {
        for shards in ["1", "2"] {
            let launch = Launch::bare(&[backend.flag(), "-t", shards, "-a", "770"]).on_unix_socket();
            let mut server = launch.serve();
            let path = server.unix_socket().unwrap().clone();
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o770);
            let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(&server)).collect();
            for (number, client) in clients.iter_mut().enumerate() {
                let value = vec![b'u'; number * 30_000];
                client.set(&format!("k{number}"), &value);
                assert_eq!(client.get(&format!("k{number}")).unwrap(), value);
            }
            assert_eq!(clients[0].stats("settings")["domain_socket"], path.display().to_string());
            server.signal(Signal::TERM);
            assert_eq!(server.exit_within(DEADLINE).code(), Some(0));
            assert!(!path.exists(), "it is removed in the end");
        }
    }
}

#[test]
fn whoever_says_nothing_for_too_long_is_closed_and_counted() {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-o", "idle_timeout=1"]);
            let mut client = Client::connect(&server);
            let mut silent: Vec<Client> = (0..300).map(|_| Client::connect(&server)).collect();
            silent[0].send("get a\r\nget");
            silent[0].expect("END\r\n");
            // A connection that waits for its client to read is not idle.
            client.set("k", &[b'x'; 1_000_000]);
            let mut slow = Client::connect(&server);
            slow.set_receive_buffer(4096);
            slow.send("get k\r\n".repeat(40));
            wait_until("the silent to be gone", || client.stat("curr_connections") == 2);
            for mut silent in silent {
                assert_eq!(silent.rest(), b"");
            }
            assert_eq!(client.stat("idle_kicks"), 300);
            assert_eq!(client.stats("settings")["idle_timeout"], "1");
            slow.expect("VALUE k 0 1000000\r\n");
        }
    }
    let server = Server::start(&[]);
    assert!(!Client::connect(&server).stats("").contains_key("idle_kicks"));
}

#[test]
fn a_request_after_the_limit_of_silence_is_answered_while_the_connection_is_open() {
    for &backend in Backend::all() {
        // A server each, so that nothing wakes the only shard but its own clock.
        let silent: Vec<_> = (0..8u64)
            .map(|number| {
                std::thread::spawn(move || {
                    let server = Server::start_on(backend, 1, &["-m", "8", "-o", "idle_timeout=1"]);
                    let mut client = TcpStream::connect(server.address).unwrap();
                    client.set_read_timeout(Some(DEADLINE)).unwrap();
                    let ask = |client: &mut TcpStream| {
                        let mut answer = [0; b"END\r\n".len()];
                        let asked =
                            client.write_all(b"get k\r\n").and_then(|()| client.read_exact(&mut answer));
                        asked.is_ok_and(|()| answer == *b"END\r\n")
                    };
                    assert!(ask(&mut client));
                    std::thread::sleep(Duration::from_millis(1_900 + 150 * number));
                    client.set_nonblocking(true).unwrap();
                    let is_open =
                        client.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                    client.set_nonblocking(false).unwrap();
                    match is_open {
                        false => "closed",
                        true if ask(&mut client) => "answered",
                        true => "lost",
                    }
                })
            })
            .collect();
        let outcomes: Vec<&str> = silent.into_iter().map(|thread| thread.join().unwrap()).collect();
        let lost = outcomes.iter().filter(|outcome| **outcome == "lost").count();
        // One may be closed in the very moment in which it sends.
        assert!(lost <= 1, "{backend:?}: {outcomes:?}");
    }
}
