//! How the server stops, and starts again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Backend, Client, Launch, Server, wait_until};

/// Limit for a server to stop when all its clients read, on a loaded machine.
const PROMPT: Duration = Duration::from_secs(4);
/// Limit for a server to stop when some clients do not read. It waits for them, but not without end.
const WITH_SLOW_CLIENTS: Duration = Duration::from_secs(20);

#[test]
fn an_idle_server_stops_at_once_with_success() {
    for &backend in Backend::all() {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = Server::start_on(backend, 2, &[]);
            let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&server)).collect();
            for client in &mut clients {
                client.check("mn\r\n", "MN\r\n");
            }
            let mut half = Client::connect(&server);
            half.send("set k 0 0 100000\r\nhalf of it");
            server.signal(signal);
            let exit = server.exit_within(PROMPT);
            assert_eq!(exit.code(), Some(0), "{backend:?}, signal {signal:?}: {}", exit.stderr);
            for client in &mut clients {
                assert_eq!(client.rest(), b"", "closed in order");
            }
        }
    }
}

#[test]
fn a_server_under_load_answers_what_it_read_and_stops() {
    for &backend in Backend::all() {
        let mut server = Server::start_on(backend, 2, &[]);
        let address = server.address;
        let answered = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..4)
            .map(|me| {
                let answered = Arc::clone(&answered);
                std::thread::spawn(move || work_until_closed(address, me, &answered))
            })
            .collect();
        wait_until("the load to build up", || answered.load(Ordering::Relaxed) > 4_000);
        server.signal(Signal::TERM);
        let exit = server.exit_within(PROMPT);
        assert_eq!(exit.code(), Some(0), "{backend:?}: {}", exit.stderr);
        for worker in workers {
            worker.join().unwrap();
        }
    }
}

/// Sends pipelines of sets and gets until the server closes. Everything that it sent must be whole replies in
/// order.
fn work_until_closed(address: std::net::SocketAddr, me: usize, answered: &AtomicUsize) {
    let mut client = Client::connect_to(address);
    let value = format!("{me:0>500}");
    let request = format!("set load{me} 0 0 500\r\n{value}\r\nget load{me}\r\n").repeat(20);
    let reply = format!("STORED\r\nVALUE load{me} 0 500\r\n{value}\r\nEND\r\n");
    let mut left_over: Vec<u8> = Vec::new();
    loop {
        let sent = client.try_send(request.as_bytes());
        let mut expected = reply.len() * 20;
        while expected > 0 {
            match client.fill() {
                Ok(0) | Err(_) => {
                    let got = &left_over;
                    assert!(reply.as_bytes().starts_with(got), "cut within another reply");
                    return;
                }
                Ok(len) => {
                    expected = expected.saturating_sub(len);
                    left_over.extend_from_slice(&client.read(len));
                    while left_over.len() >= reply.len() {
                        assert!(left_over.starts_with(reply.as_bytes()), "a wrong reply");
                        left_over.drain(..reply.len());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        if sent.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            return;
        }
    }
}

#[test]
fn clients_that_do_not_read_do_not_keep_it_from_stopping() {
    for &backend in Backend::all() {
        let mut server = Server::start_on(backend, 2, &[]);
        let mut control = Client::connect(&server);
        control.set("k", &vec![b'v'; 900_000]);
        let mut slow: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
        for client in &mut slow {
            client.set_receive_buffer(4_096);
            client.send("get k\r\n".repeat(20));
        }
        control.check("mn\r\n", "MN\r\n");
        server.signal(Signal::TERM);
        let exit = server.exit_within(WITH_SLOW_CLIENTS);
        assert_eq!(exit.code(), Some(0), "{backend:?}: {}", exit.stderr);
    }
}

#[test]
fn a_reply_that_is_being_read_is_sent_whole_before_it_stops() {
    for &backend in Backend::all() {
        let mut server = Server::start_on(backend, 1, &["-I", "16m", "-m", "128"]);
        let mut client = Client::connect(&server);
        let value = vec![b'v'; 8 << 20];
        client.set("k", &value);
        client.set_receive_buffer(16 << 10);
        client.send("get k\r\n");
        client.expect(format!("VALUE k 0 {}\r\n", value.len()));
        server.signal(Signal::TERM);
        assert!(client.read(value.len()) == value);
        client.expect("\r\nEND\r\n");
        assert_eq!(client.rest(), b"");
        assert_eq!(server.exit_within(PROMPT).code(), Some(0));
    }
}

#[test]
fn the_same_port_can_be_had_again_at_once() {
    for &backend in Backend::all() {
        let mut server = Server::start_on(backend, 2, &[]);
        let port = server.address.port().to_string();
        for _ in 0..5 {
            let mut client = Client::connect(&server);
            client.set("k", b"v");
            server.signal(Signal::TERM);
            assert_eq!(server.exit_within(PROMPT).code(), Some(0));
            server = Launch::bare(&["-l", "127.0.0.1", "-p", &port, backend.flag(), "-t", "2"]).serve();
            assert_eq!(Client::connect(&server).get("k"), None, "another server, without its values");
        }
    }
}

#[test]
fn a_port_that_is_taken_is_not_shared() {
    let server = Server::start(&["-t", "2"]);
    let port = server.address.port().to_string();
    let exit = Launch::bare(&["-l", "127.0.0.1", "-p", &port, "-t", "2"]).exit();
    assert_eq!(exit.code(), Some(71));
    assert!(exit.stderr.contains(&port), "{}", exit.stderr);
}

#[test]
fn shutdown_stops_it_where_it_is_switched_on() {
    for &backend in Backend::all() {
        for line in ["shutdown\r\n", "shutdown graceful\r\n"] {
            let mut server = Server::start_on(backend, 2, &["-A"]);
            let mut idle = Client::connect(&server);
            let mut client = Client::connect(&server);
            client.check("shutdown now\r\n", "CLIENT_ERROR invalid shutdown mode\r\n");
            client.send(line);
            let start = Instant::now();
            assert_eq!(server.exit_within(PROMPT).code(), Some(0));
            assert_eq!((client.rest(), idle.rest()), (vec![], vec![]));
            assert!(start.elapsed() < PROMPT);
        }
    }
}
