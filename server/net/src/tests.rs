//! Connections that a driver begins itself, on both kinds of drivers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::driver::*;
use crate::epoll::Epoll;
use crate::listen::Admission;
use crate::uring::Uring;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn drivers(check: impl Fn(&mut dyn Driver)) {
    let setup = || DriverSetup {
        listeners: Vec::new(),
        admission: Arc::new(Admission::new(1)),
        receives_values: false,
    };
    check(&mut Epoll::new(setup()).expect("epoll"));
    match Uring::new(setup()) {
        Ok(mut uring) => check(&mut uring),
        Err(error) => println!("io_uring is not available here: {error}"),
    }
}

/// Takes turns until `done` is true of an event, and returns that event.
fn until(driver: &mut dyn Driver, what: &str, done: impl Fn(&Event) -> bool) -> Event {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while Instant::now() < deadline {
        driver.turn(Wait::AtMost(Duration::from_millis(10)), &mut events).expect("a turn");
        let arena = driver.take_arena();
        driver.send(arena, &mut Vec::new());
        for event in events.drain(..) {
            if done(&event) {
                return event;
            }
        }
    }
    panic!("{what}: not within {PATIENCE:?}");
}

fn send(driver: &mut dyn Driver, conn: ConnId, bytes: &[u8]) {
    let mut arena = driver.take_arena();
    arena.extend_from_slice(bytes);
    let (start, end) = (0, arena.len());
    driver.send(arena, &mut vec![Send::Bytes { conn, start, end, queued: false }]);
    driver.turn(Wait::No, &mut Vec::new()).expect("a turn");
}

fn address_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("an address")
}

#[test]
fn a_connection_to_a_server_carries_bytes_both_ways() {
    drivers(|driver| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let conn = driver.connect(&address_of(&listener).into()).expect("begun");
        until(driver, "connected", |event| matches!(event, Event::Connected { conn: it } if *it == conn));
        let (mut server, _) = listener.accept().expect("accepted");
        send(driver, conn, b"version\r\n");
        let mut request = [0; 9];
        server.read_exact(&mut request).expect("the request");
        assert_eq!(&request, b"version\r\n");
        server.write_all(b"VERSION 1\r\n").expect("written");
        let event = until(driver, "received", |event| matches!(event, Event::Received { .. }));
        let Event::Received { conn: from, buffer } = event else { unreachable!() };
        assert_eq!((from, driver.received(&buffer)), (conn, &b"VERSION 1\r\n"[..]));
        driver.recycle(buffer);
        drop(server);
        until(driver, "the end", |event| matches!(event, Event::Ended { conn: it } if *it == conn));
        driver.close(conn, Close::Now);
    });
}

#[test]
fn a_connection_that_is_refused_is_closed() {
    drivers(|driver| {
        let port = address_of(&TcpListener::bind("127.0.0.1:0").expect("a port"));
        match driver.connect(&port.into()) {
            Ok(conn) => {
                until(driver, "closed", |event| matches!(event, Event::Closed { conn: it } if *it == conn));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
        }
    });
}

#[test]
fn a_connection_given_up_before_it_stands_leaves_nothing_behind() {
    drivers(|driver| {
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        full.listen(0).expect("listening");
        let address = full.local_addr().expect("an address");
        // More than the queue takes: the last ones hang.
        let conns: Vec<ConnId> = (0..4).map(|_| driver.connect(&address).expect("begun")).collect();
        driver.turn(Wait::No, &mut Vec::new()).expect("a turn");
        for &conn in &conns {
            driver.close(conn, Close::Now);
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let conn = driver.connect(&address_of(&listener).into()).expect("begun");
        assert!(!conns.contains(&conn));
        until(driver, "connected", |event| match event {
            Event::Connected { conn: it } => *it == conn,
            other => panic!("{other:?} for a connection that was given up"),
        });
        driver.close(conn, Close::Now);
    });
}

#[test]
fn what_follows_the_bytes_reported_is_received_straight_to_its_place() {
    drivers(|driver| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let conn = driver.connect(&address_of(&listener).into()).expect("begun");
        until(driver, "connected", |event| matches!(event, Event::Connected { conn: it } if *it == conn));
        let (mut server, _) = listener.accept().expect("accepted");
        let sent: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        server.write_all(&sent[..10]).expect("written");
        let (mut got, mut straight) = (Vec::new(), 0);
        let mut events = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while got.len() < sent.len() && Instant::now() < deadline {
            driver.turn(Wait::AtMost(Duration::from_millis(10)), &mut events).expect("a turn");
            for event in events.drain(..) {
                let Event::Received { buffer, .. } = event else { panic!("{event:?}") };
                got.extend_from_slice(driver.received(&buffer));
                driver.recycle(buffer);
            }
            if got.len() == 10 {
                server.write_all(&sent[10..]).expect("written");
            }
            // An edge that was not reported yet is for the next turn.
            let (mut first, mut rest) = ([0; 1000], [0; 77]);
            let len = driver.receive_into(conn, &mut first, &mut rest);
            got.extend_from_slice(&[&first[..], &rest[..]].concat()[..len]);
            straight += len;
            let arena = driver.take_arena();
            driver.send(arena, &mut Vec::new());
        }
        assert!(got == sent, "{} bytes, out of order or lost", got.len());
        println!("{straight} bytes straight to their place");
        driver.close(conn, Close::Now);
        assert_eq!(driver.receive_into(conn, &mut [0; 10], &mut []), 0, "of a connection that is gone");
    });
}

#[test]
fn a_first_send_is_a_backlog_but_not_refused_until_the_socket_had_its_turn() {
    drivers(|driver| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let conn = driver.connect(&address_of(&listener).into()).expect("begun");
        until(driver, "connected", |event| matches!(event, Event::Connected { conn: it } if *it == conn));
        let (server, _) = listener.accept().expect("accepted");
        let mut refused_at = None;
        for turn in 0..1000 {
            let arena = vec![b'x'; 1 << 20];
            let (start, end) = (0, arena.len());
            driver.send(arena, &mut vec![Send::Bytes { conn, start, end, queued: true }]);
            assert!(driver.refused(conn) <= driver.backlog(conn));
            if driver.refused(conn) > 0 {
                refused_at = Some(turn);
                break;
            }
            driver.turn(Wait::No, &mut Vec::new()).expect("a turn");
        }
        assert!(refused_at.is_some(), "nobody reads, and nothing is refused");
        drop(server);
        driver.close(conn, Close::Now);
    });
}

#[test]
fn a_waker_may_outlive_its_driver() {
    let setup = || DriverSetup {
        listeners: Vec::new(),
        admission: Arc::new(Admission::new(1)),
        receives_values: false,
    };
    let (Ok(mut gone), Ok(mut other)) = (Uring::new(setup()), Uring::new(setup())) else {
        return println!("io_uring is not available here");
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let conn = gone.connect(&address_of(&listener).into()).expect("begun");
    until(&mut gone, "connected", |event| matches!(event, Event::Connected { conn: it } if *it == conn));
    let (mut server, _) = listener.accept().expect("accepted");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let waker = gone.waker();
    drop(gone);
    assert_eq!(server.read(&mut [0; 1]).expect("the end, with the driver"), 0);
    other.wake(&waker);
    waker.wake();
    other.turn(Wait::No, &mut Vec::new()).expect("a turn");
}

#[test]
fn a_listening_socket_closes_with_its_driver_though_a_waker_is_left() {
    let (listeners, address) =
        crate::listen::listen_on_all_shards(([127, 0, 0, 1], 0).into(), 1, 16).expect("a port");
    let setup = DriverSetup { listeners, admission: Arc::new(Admission::new(1)), receives_values: false };
    let Ok(mut driver) = Uring::new(setup) else { return println!("io_uring is not available here") };
    driver.turn(Wait::No, &mut Vec::new()).expect("a turn");
    let _waker = driver.waker();
    drop(driver);
    let refused = std::net::TcpStream::connect_timeout(&address, PATIENCE).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn output_of_two_sends_in_one_turn_is_never_read_from_memory_that_was_given_back() {
    if cfg!(debug_assertions) {
        return; // an assertion finds the second call
    }
    let setup =
        DriverSetup { listeners: Vec::new(), admission: Arc::new(Admission::new(1)), receives_values: false };
    let Ok(mut driver) = Uring::new(setup) else { return println!("io_uring is not available here") };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let conn = driver.connect(&address_of(&listener).into()).expect("begun");
    until(&mut driver, "connected", |event| matches!(event, Event::Connected { conn: it } if *it == conn));
    let (mut server, _) = listener.accept().expect("accepted");
    for byte in [b'a', b'b'] {
        let arena = vec![byte; 100];
        driver.send(arena, &mut vec![Send::Bytes { conn, start: 0, end: 100, queued: false }]);
    }
    driver.turn(Wait::No, &mut Vec::new()).expect("a turn");
    let mut got = [0; 200];
    server.read_exact(&mut got).expect("both");
    assert_eq!(got, *[[b'a'; 100], [b'b'; 100]].concat());
}
