//! `watch`: which events a watcher gets, and that a watcher that does not read delays no other client.

use crate::support::{Backend, Client, Packet, Server, opcode, wait_until};

fn watch(server: &Server, classes: &str) -> Client {
    let mut client = Client::connect(server);
    assert_eq!(client.ask(&format!("watch {classes}")), "OK");
    client
}

/// Takes the next line, without its time and number.
fn told(client: &mut Client) -> String {
    let line = String::from_utf8(client.through(b"\n")).unwrap();
    let mut words = line.trim_end().splitn(3, ' ');
    let (ts, gid) = (words.next().unwrap(), words.next().unwrap_or_default());
    // memcached writes microseconds without leading zeros.
    let is_time =
        |text: &str| text.split_once('.').is_some_and(|(_, micros)| (1..=6).contains(&micros.len()));
    assert!(ts.strip_prefix("ts=").is_some_and(is_time) && gid.starts_with("gid="), "{line}");
    words.next().unwrap().to_owned()
}

/// The parts of a line before and after the name of the connection.
fn around_cfd(line: &str) -> (String, String) {
    let (before, after) = line.split_once("cfd=").unwrap();
    (before.to_owned(), after.trim_start_matches(|digit: char| digit.is_ascii_digit()).to_owned())
}

#[test]
fn reads_writes_and_deletions_are_told_as_memcached_tells_them() {
    let reference = Server::memcached(&[]);
    let requests = [
        "get a\r\n",
        "set a 0 100 3\r\nabc\r\n",
        "get a b\r\n",
        "add a 0 0 1\r\nx\r\n",
        "replace zz 0 0 1\r\nx\r\n",
        "cas a 0 0 1 99\r\nx\r\n",
        "gat 50 a\r\n",
        "mg a v\r\n",
        "mg nokey%\x01 v\r\n",
        "ms m 2 T9\r\nhi\r\n",
        "append a 0 0 1\r\nz\r\n",
        "set n 0 0 1\r\n1\r\n",
        "incr n 1\r\n",
        "mn\r\n",
    ];
    let tell = |server: &Server, class: &str, count: usize| -> Vec<(String, String)> {
        let mut watcher = watch(server, class);
        let mut client = Client::connect(server);
        for request in requests {
            client.send(request);
        }
        client.through(b"MN\r\n");
        let lines: Vec<_> = (0..count).map(|_| around_cfd(&told(&mut watcher))).collect();
        client.check("flush_all\r\n", "OK\r\n");
        lines
    };
    for (class, count) in [("fetchers", 14), ("mutations", 7)] {
        let expected = tell(&reference, class, count);
        for &backend in Backend::all() {
            // With more than one shard the lines of several keys have no order.
            let ours = Server::start_on(backend, 1, &[]);
            assert_eq!(tell(&ours, class, count), expected, "{class}");
        }
    }
    for &backend in Backend::all() {
        let ours = Server::start_on(backend, 2, &[]);
        let mut watcher = watch(&ours, "deletions");
        let mut client = Client::connect(&ours);
        client.set("a", b"abc");
        client.set("b", b"");
        client.check("delete a\r\ndelete a\r\n", "DELETED\r\nNOT_FOUND\r\n");
        let line = around_cfd(&told(&mut watcher));
        assert_eq!(line, ("type=deleted key=a cmd=delete clsid=1 ".into(), " size=3".into()));
        client.check("md b\r\n", "HD\r\n");
        assert!(told(&mut watcher).starts_with("type=deleted key=b cmd=md "));
        // What is only marked as stale is not deleted.
        client.set("c", b"");
        client.check("md c I\r\nmd c I T30\r\nmd c\r\n", "HD\r\nHD\r\nHD\r\n");
        assert!(told(&mut watcher).starts_with("type=deleted key=c cmd=md "));
        assert_eq!(client.stat("delete_hits"), 3);
        let mut watcher = watch(&ours, "mutations");
        client.check("ma n N0\r\nma n N0\r\nms n 1 C99\r\nx\r\n", "HD\r\nHD\r\nEX\r\n");
        assert!(told(&mut watcher).starts_with("type=item_store key=n status=stored cmd=add "));
        assert!(told(&mut watcher).starts_with("type=item_store key=n status=exists cmd=cas "));
    }
}

#[test]
fn every_shard_and_protocol_is_watched() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &["-I", "2m"]);
        let mut watcher = watch(&server, "mutations");
        let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            for n in 0..8 {
                client.set(&format!("k{number}-{n}"), b"value");
            }
        }
        let mut lines: Vec<String> = (0..64).map(|_| told(&mut watcher)).collect();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), 64);
        assert_eq!(Packet::store(opcode::SET, b"bin", b"v").ask(&mut Client::connect(&server)).status, 0);
        assert!(told(&mut watcher).starts_with("type=item_store key=bin status=stored cmd=set "));
        // A value that is sent in pieces, and one that is too large.
        let client = &mut clients[0];
        client.set("large", &vec![b'x'; 1 << 20]);
        assert!(told(&mut watcher).ends_with(" size=1048576"));
        client.send([&b"set toolarge 0 0 3000000\r\n"[..], &vec![b'x'; 3_000_002]].concat());
        client.expect("SERVER_ERROR object too large for cache\r\n");
        assert!(told(&mut watcher).starts_with("type=item_store key=toolarge status=too_large cmd=set "));
    }
}

#[test]
fn connections_are_told_with_what_ended_them() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &["-o", "idle_timeout=1"]);
        let mut watcher = watch(&server, "connevents sysevents");
        let mut expect = |kind: &str, reason: &str| {
            let line = told(&mut watcher);
            assert!(line.starts_with(&format!("type={kind} rip=127.0.0.1 rport=")), "{line}");
            assert!(line.contains(&format!(" transport=tcp{reason} cfd=")), "{line}");
        };
        let mut client = Client::connect(&server);
        expect("conn_new", "");
        client.send("quit\r\n");
        expect("conn_close", " reason=normal");
        let client = Client::connect(&server);
        expect("conn_new", "");
        client.reset_on_drop();
        drop(client);
        expect("conn_close", " reason=error");
        // What cannot be answered.
        for sent in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[b'x'; 3000],
            b"\x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
        ] {
            let mut client = Client::connect(&server);
            expect("conn_new", "");
            client.send(sent);
            expect("conn_close", " reason=error");
        }
        let _silent = Client::connect(&server);
        expect("conn_new", "");
        expect("conn_close", " reason=idle_timeout");
    }
}

#[test]
fn evictions_are_told() {
    let server = Server::start(&["-m", "8", "-t", "1", "-I", "512k"]);
    let mut watcher = watch(&server, "evictions");
    let mut client = Client::connect(&server);
    for n in 0..200 {
        client.send(format!("set key%{n} 0 0 100000\r\n{}\r\n", "x".repeat(100_000)));
        assert_eq!(client.line(), "STORED");
    }
    let line = told(&mut watcher);
    assert!(line.starts_with("type=eviction key=key%25") && line.ends_with(" clsid=1 size=100000"), "{line}");
    assert!(line.contains(" fetch=no ttl=-1 la="), "{line}");
}

#[test]
fn what_memcached_refuses_is_refused() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    assert_eq!(client.ask("watch bogus"), "ERROR");
    let mut watchers: Vec<Client> = (0..20).map(|_| watch(&server, "rawcmds proxyreqs")).collect();
    assert_eq!(client.ask("watch"), "WATCHER_TOO_MANY log watcher limit reached");
    assert_eq!(client.stat("log_watchers"), 20);
    // Requests of a watcher are ignored; its connection ends when it closes.
    watchers[0].send("get a\r\nquit\r\n");
    client.check("mn\r\n", "MN\r\n");
    assert_eq!((client.stat("log_watchers"), client.stat("cmd_get")), (20, 0));
    drop(watchers);
    wait_until("the watchers to be gone", || client.stat("log_watchers") == 0);
    assert!(client.ask("watch") == "OK");
    let server = Server::start(&["-W"]);
    assert_eq!(Client::connect(&server).ask("watch"), "CLIENT_ERROR watch commands not allowed");
}

#[test]
fn a_watcher_that_does_not_listen_stops_nobody_and_is_told_what_it_missed() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let mut client = Client::connect(&server);
        let before = server.resident_bytes();
        let mut deaf = Client::connect(&server);
        deaf.set_receive_buffer(64 * 1024);
        assert_eq!(deaf.ask("watch fetchers"), "OK");
        let batch = "get missing\r\n".repeat(500);
        for _ in 0..200 {
            client.send(&batch);
            client.expect("END\r\n".repeat(500));
        }
        let stats = client.stats("");
        let number = |name: &str| stats[name].parse::<u64>().unwrap();
        assert!(number("log_watcher_skipped") > 0, "{stats:?}");
        let told_of = number("log_worker_written") + number("log_worker_dropped");
        assert_eq!(told_of, 100_000);
        assert_eq!(number("log_watcher_sent") + number("log_watcher_skipped"), number("log_worker_written"));
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes for a watcher that does not listen");
        // When it reads again, it gets the lines that were buffered, then the count of lines that it missed,
        // and then new lines. Lines that do not fit its buffers meanwhile are missed as well.
        let mut skipped = false;
        loop {
            client.check("get new\r\n", "END\r\n");
            let line = String::from_utf8(deaf.through(b"\n")).unwrap();
            skipped |= line.starts_with("skipped=");
            if skipped && line.contains("key=new ") {
                break;
            }
        }
        assert!(skipped);
    }
}
