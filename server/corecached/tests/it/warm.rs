//! Restarts with `-e FILE`.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Backend, Client, Folder, Launch, Server, wait_until};

const KEYS: usize = 3000;

fn start(backend: Backend, shards: usize, file: &Path) -> Server {
    let shards = shards.to_string();
    Launch::new(&["-t", &shards, "-A", "-e", file.to_str().unwrap(), "-v", backend.flag()]).serve()
}

fn value(number: usize) -> Vec<u8> {
    let len = if number.is_multiple_of(500) { 300_000 } else { number % 200 };
    (0..len).map(|at| (at * 7 + number) as u8).collect()
}

fn fill(client: &mut Client) {
    for number in 0..KEYS {
        client.set(&format!("key{number}"), &value(number));
    }
    client.check("set flags 77 1000 2\r\nhi\r\n", "STORED\r\n");
    client.check("set expires 0 -1 2\r\nhi\r\n", "STORED\r\n");
    client.check("set token 0 0 1\r\nx\r\nmd token I\r\n", "STORED\r\nHD\r\n");
}

fn check_values(client: &mut Client) {
    for number in 0..KEYS {
        assert!(client.get(&format!("key{number}")) == Some(value(number)), "key{number}");
    }
}

fn check(client: &mut Client) {
    check_values(client);
    client.check("get flags\r\n", "VALUE flags 77 2\r\nhi\r\nEND\r\n");
    client.check("get expires\r\n", "END\r\n");
    client.check("mg token v\r\n", "VA 1 X W\r\nx\r\n");
}

fn end(mut server: Server, signal: Signal) -> String {
    server.signal(signal);
    let exit = server.exit_within(Duration::from_secs(20));
    assert_eq!(exit.code(), Some(0));
    exit.stderr
}

#[test]
fn contents_outlive_a_graceful_stop_and_no_other() {
    for (&backend, (before, after)) in Backend::all().iter().zip([(1, 2), (2, 2)]) {
        let folder = Folder::new();
        let file = folder.file("memory");
        let server = start(backend, before, &file);
        let mut client = Client::connect(&server);
        fill(&mut client);
        client.send("gets flags\r\n");
        let shown = client.through(b"END\r\n");
        drop(client);
        let stderr = end(server, Signal::USR1);
        assert!(stderr.contains("items saved"), "{stderr}");

        let server = start(backend, after, &file);
        let mut client = Client::connect(&server);
        client.check("gets flags\r\n", &shown); // the unique too
        check(&mut client);
        assert_eq!(client.stats("settings")["memory_file"], file.to_str().unwrap());
        client.send("shutdown graceful\r\n");
        drop(client);
        let mut server = server;
        assert_eq!(server.exit_within(Duration::from_secs(20)).code(), Some(0));

        let server = start(backend, 1, &file);
        // The cas unique has been used since.
        check_values(&mut Client::connect(&server));
        let second = Launch::new(&["-e", file.to_str().unwrap()]).exit();
        assert_eq!(second.code(), Some(1));
        assert!(
            second.stderr.contains("-e") && second.stderr.contains("another process"),
            "{}",
            second.stderr
        );
        end(server, Signal::TERM);

        let server = start(backend, 1, &file);
        assert_eq!(Client::connect(&server).stat("curr_items"), 0);
        assert!(server.stderr().contains("not stopped gracefully"), "{}", server.stderr());
    }
}

#[test]
fn a_server_that_is_killed_starts_empty() {
    let folder = Folder::new();
    let file = folder.file("memory");
    let server = start(Backend::all()[0], 2, &file);
    fill(&mut Client::connect(&server));
    end(server, Signal::USR1);
    let mut server = start(Backend::all()[0], 2, &file);
    check(&mut Client::connect(&server));
    server.signal(Signal::KILL);
    assert_eq!(server.exit_within(Duration::from_secs(20)).code(), None);
    let server = start(Backend::all()[0], 2, &file);
    assert_eq!(Client::connect(&server).stat("curr_items"), 0);
}

#[test]
fn what_was_saved_and_cannot_be_read_is_said() {
    let start = |file: &Path| Launch::new(&["-t", "2", "-u", "root", "-e", file.to_str().unwrap()]).serve();
    for (part, damage, said) in [
        ("", &b""[..], "empty, although"),
        ("", b"{\"corecached_warm\": 1, \"state\": \"save", "damaged"),
        ("", &[0xff; 300], "damaged"),
        ("", b"{\"corecached_warm\": 1, \"state\": \"saved\"}", "damaged"),
        (".0", b"", "could be read"),
        (".1", b"ccwarm1\n", "could be read"),
    ] {
        let folder = Folder::new();
        let file = folder.file("memory");
        let server = start(&file);
        let mut client = Client::connect(&server);
        (0..100).for_each(|number| client.set(&format!("key{number}"), b"value"));
        drop(client);
        assert_eq!(end(server, Signal::USR1), "", "a first start and a graceful stop have nothing to say");
        std::fs::write(format!("{}{part}", file.display()), damage).unwrap();
        let server = start(&file);
        let mut client = Client::connect(&server);
        // A shard shows its items when it begins to serve.
        match part {
            "" => assert_eq!(client.stat("curr_items"), 0, "{said}"),
            _ => wait_until("items of the other part", || client.stat("curr_items") > 0),
        }
        let stderr = server.stderr();
        assert!(stderr.contains("WARN") && stderr.contains(said), "{part} {said}: {stderr}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let exit = Launch::new(&["-e", "/nowhere/at/all"]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains("-e") && exit.stderr.contains("/nowhere/at/all"), "{}", exit.stderr);
}
