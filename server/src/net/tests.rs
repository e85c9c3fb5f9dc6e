//! Connections that a driver begins itself, on both kinds of drivers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::epoll::Epoll;
use super::listen::Admission;
use super::uring::Uring;
use super::*;

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

/// Turns until `done` says so of an event; hands that event on.
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
        assert_eq!((from, driver.received(buffer)), (conn, &b"VERSION 1\r\n"[..]));
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
