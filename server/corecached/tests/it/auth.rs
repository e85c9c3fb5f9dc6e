//! Authentication: `-Y` for text, `-S` for the binary protocol.

use rustix::process::Signal;

use crate::support::{Backend, Client, Folder, Launch, Packet, Server, opcode, wait_until};

const SASL_LIST: u8 = 0x20;
const SASL_AUTH: u8 = 0x21;
const SASL_STEP: u8 = 0x22;

fn users(folder: &Folder, text: &str) -> String {
    let file = folder.file("users");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn nothing_is_answered_before_the_password_but_that_it_is_missing() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass\nbob:secret");
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let reference = Server::memcached(&["-Y", &file]);
            let ours = Server::start_on(backend, shards, &["-Y", &file]);
            for server in [&ours, &reference] {
                let mut client = Client::connect(server);
                for line in
                    ["version", "get a", "stats", "flush_all", "set x 0 0", "set x 0 0 abc", "nonsense"]
                {
                    assert_eq!(client.ask(line), "CLIENT_ERROR unauthenticated", "{line}");
                }
                client.check("add x 0 0 9\r\n", "CLIENT_ERROR unauthenticated\r\n");
                client.check("user pass\r\n", "CLIENT_ERROR unauthenticated\r\n");
                client.check("set x 0 0 9\r\nuser pasx\r\n", "CLIENT_ERROR authentication failure\r\n");
                client.check("set x 0 0 11\r\nuser passxx\r\n", "CLIENT_ERROR authentication failure\r\n");
                client.check(
                    "set x 0 0 10\r\nuser secret\r\n",
                    "CLIENT_ERROR bad command line termination\r\n",
                );
                let mut client = Client::connect(server);
                client.check("set x 0 0 4\r\nuser\r\n", "CLIENT_ERROR bad authentication token format\r\n");
                client.check("set x y z 9\r\nuser pass\r\n", "STORED\r\n");
                client.check("get x\r\n", "END\r\n");
                client.set("x", b"value");
                let stats = client.stats("settings");
                assert_eq!((&stats["auth_enabled_ascii"], &stats["auth_enabled_sasl"][..]), (&file, "no"));
                assert_eq!((client.stat("auth_cmds"), client.stat("auth_errors")), (3, 2));
            }
        }
    }
}

#[test]
fn what_cannot_become_a_command_closes() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass\n");
    let server = Launch::new(&["-Y", &file]).serve();
    for sent in [&b"mn\r\n"[..], b"quit\r\n", &[b'x'; 3000]] {
        let mut client = Client::connect(&server);
        client.send(sent);
        assert_eq!(client.rest(), b"");
    }
    let mut client = Client::connect(&server);
    client.check(format!("{}\r\n", "x".repeat(3000)), "CLIENT_ERROR unauthenticated\r\n");
    // The binary protocol does not get around it.
    client.send(Packet::new(opcode::GET, b"k").bytes());
    client.check("\r\n", "CLIENT_ERROR unauthenticated\r\n");
}

#[test]
fn a_token_over_16_kilobytes_is_refused_and_the_client_may_try_again() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass\n");
    let ours = Launch::new(&["-Y", &file]).serve();
    let reference = Server::memcached(&["-Y", &file]);
    for server in [&ours, &reference] {
        for len in ["16385", "65536", "2000000000"] {
            let mut client = Client::connect(server);
            client.check(format!("set x 0 0 {len}\r\n"), "CLIENT_ERROR auth token too long\r\n");
            client.check("flush_all\r\n", "CLIENT_ERROR unauthenticated\r\n");
            client.check("set x 0 0 9\r\nuser pass\r\n", "STORED\r\n");
            client.check("mn\r\n", "MN\r\n");
        }
    }
}

#[test]
fn the_password_is_all_that_follows_the_name_and_a_blank() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass word\nempty:\nbob:se:cret\n");
    let server = Launch::new(&["-Y", &file]).serve();
    for (token, answer) in [
        ("user pass word", "STORED"),
        ("user pass", "CLIENT_ERROR authentication failure"),
        ("user  pass word", "CLIENT_ERROR authentication failure"),
        ("user pass word ", "CLIENT_ERROR authentication failure"),
        (" user pass word", "CLIENT_ERROR authentication failure"),
        ("empty ", "STORED"),
        ("empty", "CLIENT_ERROR bad authentication token format"),
        ("bob se:cret", "STORED"),
        ("bob:se:cret", "CLIENT_ERROR bad authentication token format"),
    ] {
        let mut client = Client::connect(&server);
        assert_eq!(client.ask(&format!("set x 0 0 {}\r\n{token}", token.len())), answer, "{token:?}");
    }
}

#[test]
fn the_password_may_come_cut_anywhere_and_with_commands_after_it() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass\n");
    let server = Launch::new(&["-Y", &file, "-t", "2"]).serve();
    let sent = b"set x 0 0 9\r\nuser pass\r\nset k 0 0 1\r\nv\r\nget k\r\n";
    for cut in 0..sent.len() {
        let mut client = Client::connect(&server);
        client.send(&sent[..cut]);
        std::thread::yield_now();
        client.send(&sent[cut..]);
        client.expect("STORED\r\nSTORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n");
    }
}

#[test]
fn users_are_read_again_on_sighup_and_stay_when_the_file_is_bad() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass\n");
    let server = Launch::new(&["-Y", &file]).serve();
    let admits = |token: &str| {
        let mut client = Client::connect(&server);
        client.ask(&format!("set x 0 0 {}\r\n{token}", token.len())) == "STORED"
    };
    let mut early = Client::connect(&server);
    early.check("set x 0 0 9\r\nuser pass\r\n", "STORED\r\n");
    users(&folder, "user:other\n");
    server.signal(Signal::HUP);
    wait_until("the new password to be taken", || admits("user other"));
    assert!(!admits("user pass"));
    early.check("get k\r\n", "END\r\n");
    users(&folder, "no colon\n");
    server.signal(Signal::HUP);
    wait_until("the log to name the file", || server.stderr().contains("malformed"));
    assert!(admits("user other"));
}

#[test]
fn files_that_are_none_end_the_server_by_name() {
    let folder = Folder::new();
    for (file, part) in
        [("/nonexistent".to_owned(), "No such file"), (users(&folder, "no colon\n"), "line 1 is malformed")]
    {
        let exit = Launch::new(&["-Y", &file]).exit();
        assert_eq!(exit.code(), Some(1));
        assert!(exit.stderr.contains("-Y") && exit.stderr.contains(part), "{}", exit.stderr);
    }
    let exit = Launch::new(&["-S"]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains("MEMCACHED_SASL_PWDB"), "{}", exit.stderr);
}

fn sasl(opcode: u8, mechanism: &str, message: &[u8]) -> Packet {
    Packet { value: message.to_vec(), ..Packet::new(opcode, mechanism.as_bytes()) }
}

#[test]
fn sasl_admits_with_the_right_password_alone() {
    let folder = Folder::new();
    let file = users(&folder, "user:pass\n");
    for &backend in Backend::all() {
        let launch = Launch::new(&["-S", backend.flag(), "-t", "2"]).env("MEMCACHED_SASL_PWDB", &file);
        let server = launch.serve();
        let mut client = Client::connect(&server);
        assert_eq!(Packet::new(opcode::VERSION, b"").ask(&mut client).status, 0);
        assert_eq!(Packet::new(SASL_LIST, b"").ask(&mut client).value, b"PLAIN");
        for message in [&b"\0user\0wrong"[..], b"", b"user", b"\0\0pass"] {
            let status = sasl(SASL_AUTH, "PLAIN", message).ask(&mut client).status;
            assert_eq!(status, if message.is_empty() { 0x21 } else { 0x20 });
        }
        assert_eq!(sasl(SASL_AUTH, "CRAM-MD5", b"\0user\0pass").ask(&mut client).status, 0x20);
        let admitted = sasl(SASL_STEP, "PLAIN", b"\0user\0pass").ask(&mut client);
        assert_eq!((admitted.status, &admitted.value[..]), (0, &b"Authenticated"[..]));
        assert_eq!(Packet::store(opcode::SET, b"k", b"v").ask(&mut client).status, 0);
        assert_eq!(Packet::new(opcode::GET, b"k").ask(&mut client).value, b"v");
        // A later attempt with a wrong password takes the authentication back.
        assert_eq!(sasl(SASL_AUTH, "PLAIN", b"\0user\0wrong").ask(&mut client).status, 0x20);
        let refused = Packet::new(opcode::GET, b"k").ask(&mut client);
        assert_eq!((refused.status, &refused.value[..]), (0x20, &b"Auth failure."[..]));
        assert_eq!(client.rest(), b"");
        // Before the password any other request closes the connection, also a value or a malformed one.
        for request in [
            Packet::new(opcode::NOOP, b""),
            Packet::store(opcode::SET, b"k", &[b'x'; 100_000]),
            Packet::new(0xff, b""),
            Packet::new(opcode::GET, b""),
        ] {
            let mut client = Client::connect(&server);
            let _ = client.try_send(&request.bytes());
            assert_eq!(Packet::read(&mut client).status, 0x20);
        }
        let mut text = Client::connect(&server);
        text.send("version\r\n");
        assert_eq!(text.rest(), b"");
    }
}
