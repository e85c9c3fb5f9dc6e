//! A destination over a socket to a real memcached, where one is installed: what the simulation takes for its
//! replies is what it sends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, Limits as LineLimits, Meta, MetaVerb, Parsed, Parser, Reply};

use super::*;

/// What a step may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

struct Memcached(Child);

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A memcached, and a connection to it; `None` where none is installed.
fn memcached() -> Option<(Memcached, TcpStream)> {
    // Somebody else may take the port meanwhile: memcached then ends, and another is tried.
    for _ in 0..5 {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut process = Process::new("memcached");
        process.args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-p", &port.to_string()]);
        let mut process = Memcached(process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && process.0.try_wait().unwrap().is_none() {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return Some((process, stream));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    None
}

/// What `lines`, sent at once by a client, are answered through a destination.
fn ask(destination: &mut Destination, stream: &mut TcpStream, lines: &str) -> Vec<String> {
    let mut parser = Parser::new();
    let (mut input, mut asked) = (lines.as_bytes(), 0);
    while !input.is_empty() {
        let Ok(Parsed::Complete { value: command, consumed }) = parser.parse(input, &LineLimits::default())
        else {
            panic!("{:?} is no command", String::from_utf8_lossy(input));
        };
        input = &input[consumed..];
        let mut data = &b""[..];
        if let Command::Store(corecached_protocol::Store { value_len, .. })
        | Command::Meta(Meta { verb: MetaVerb::Set, value_len, .. }) = command
        {
            data = &input[..value_len as usize];
            input = &input[value_len as usize + 2..];
        }
        destination.request(&command, data, asked, false, 0).unwrap();
        asked += 1;
    }
    let mut replies = vec![String::new(); asked as usize];
    let mut left = asked;
    while let Some(action) = destination.next_action(0) {
        match action {
            DestinationAction::Connect => destination.connected(0),
            DestinationAction::Send => {
                let mut out = Vec::new();
                destination.take_output(&mut out, 0);
                stream.write_all(&out).unwrap();
            }
            DestinationAction::Close => panic!("the connection is good"),
        }
    }
    let mut buffer = [0; 4096];
    while left > 0 {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "memcached closed; answered until then: {replies:?}");
        destination.received(&buffer[..len], 0, &mut |number, event| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let reply = match event {
                ReplyEvent::Value { client_flags, cas_unique, value } => {
                    format!("value {} {client_flags} {}", text(value), cas_unique.is_some())
                }
                ReplyEvent::Meta { line, value } => {
                    format!("{} {}", text(line), value.map(text).unwrap_or_default())
                }
                ReplyEvent::Reply(Reply::Error { line, .. }) => text(&line),
                ReplyEvent::Reply(reply) => format!("{reply:?}"),
                ReplyEvent::ValuePiece(piece) => {
                    replies[number as usize] += &text(piece);
                    return;
                }
                ReplyEvent::ValueEnd => String::new(),
                ReplyEvent::ValueHead { .. } | ReplyEvent::MetaHead { .. } | ReplyEvent::End => return,
            };
            replies[number as usize] += &reply;
            left -= 1;
        });
        assert_eq!(destination.next_action(0), None);
    }
    replies
}

#[test]
fn a_memcached_answers_every_command_in_a_way_that_is_understood() {
    let Some((_process, mut stream)) = memcached() else {
        println!("no memcached is installed: nothing was tested");
        return;
    };
    let limits = ConnectionLimits { whole_value_bytes_max: 1000, ..ConnectionLimits::default() };
    let mut destination = Destination::new(
        "memcached:11211".to_owned(),
        DestinationOptions { limits, ..DestinationOptions::default() },
        None,
        0,
    );
    let large = "v".repeat(100_000);
    let oversize = "v".repeat(2_000_000);
    for (lines, expected) in [
        ("version\r\nmn\r\nflush_all noreply\r\nverbosity 1\r\n", &["Done", "MN ", "Done", "Done"][..]),
        (
            "set a 7 0 2 noreply\r\nhi\r\nadd a 0 0 1\r\nx\r\nadd b 0 0 1\r\n5\r\nreplace z 0 0 1\r\nx\r\n\
             append a 0 0 1\r\n!\r\nprepend a 0 0 1\r\n!\r\ncas a 0 0 1 1\r\nx\r\ncas z 0 0 1 1\r\nx\r\n",
            &["Stored", "NotStored", "Stored", "NotStored", "Stored", "Stored", "Exists", "NotFound"],
        ),
        (
            "get z a y b a\r\ngets a z\r\ngat 100 z a\r\ngats -1 z\r\nget z\r\n",
            &[
                "Miss",
                "value !hi! 7 false",
                "Miss",
                "value 5 0 false",
                "value !hi! 7 false", //
                "value !hi! 7 true",
                "Miss",
                "Miss",
                "value !hi! 7 false",
                "Miss",
                "Miss",
            ],
        ),
        (
            "incr b 18446744073709551611\r\ndecr b 1 noreply\r\nincr z 1\r\nincr a 1\r\ntouch a 0\r\ntouch z 0\r\n",
            &[
                "Number(0)",
                "Number(0)",
                "NotFound",
                "CLIENT_ERROR cannot increment or decrement non-numeric value",
                "Touched",
                "NotFound",
            ],
        ),
        ("delete a noreply\r\ndelete a\r\n", &["Deleted", "NotFound"]),
        (
            "mg m v q\r\nms m 2 c q F5 I\r\nhi\r\nmg m v f k Oabc q\r\nmg m\r\nms m 1 ME\r\nx\r\nma b D7 v q t\r\n\
             ma z\r\nmd m q\r\nmd m\r\nme z\r\nmn\r\n",
            &[
                "EN ",
                "HD c*",
                "VA 2 f5 km Oabc hi",
                "HD ",
                "NS ",
                "VA 1 t-1 7",
                "NF ",
                "HD ",
                "NF ",
                "EN ",
                "MN ",
            ],
        ),
        (
            &format!("set l 0 0 100000\r\n{large}\r\nget z l b\r\nmg l v\r\n"),
            &["Stored", "Miss", &large, "value 7 0 false", &large],
        ),
        (
            &format!("set o 0 0 2000000\r\n{oversize}\r\nget b\r\n"),
            &["SERVER_ERROR object too large for cache", "value 7 0 false"],
        ),
    ] {
        let replies = ask(&mut destination, &mut stream, lines);
        assert_eq!(replies.len(), expected.len());
        for (reply, expected) in replies.iter().zip(expected) {
            match expected.strip_suffix('*') {
                Some(start) => assert!(reply.starts_with(start), "{reply}"),
                None => assert!(reply == expected, "{:.100} is not {:.100}", reply, expected),
            }
        }
    }
    assert_eq!((destination.pending(), destination.status()), (0, DestinationStatus::Up));
}
