//! Retrieval lines of any number of keys, of any length and in any pieces.

use crate::{Event, check, command, events, rejected};
use corecached_protocol::{Command, Exptime, Limits, ParseError, Parsed, Parser, Retrieve};

const GET: Retrieve<'static> = Retrieve { key: b"k", with_cas: false, touch: None, last: true };

fn retrieve(retrieve: Retrieve) -> Event {
    command(Command::Retrieve(retrieve))
}

/// The events of one line that names `keys`.
fn keys(kind: Retrieve, keys: &[&[u8]]) -> Vec<Event> {
    let last = keys.len() - 1;
    keys.iter().enumerate().map(|(at, key)| retrieve(Retrieve { key, last: at == last, ..kind })).collect()
}

#[test]
fn each_verb_yields_its_keys_one_by_one() {
    let gat = Retrieve { touch: Some(Exptime(30)), ..GET };
    for (verb, kind) in [
        ("get", GET),
        ("gets", Retrieve { with_cas: true, ..GET }),
        ("gat 30", gat),
        ("gats 30", Retrieve { with_cas: true, ..gat }),
        ("gat -1", Retrieve { touch: Some(Exptime(-1)), ..GET }),
    ] {
        check(format!("{verb} k\r\n"), &keys(kind, &[b"k"]));
        check(format!("{verb} a bb a ccc\r\n"), &keys(kind, &[b"a", b"bb", b"a", b"ccc"]));
    }
}

#[test]
fn blanks_run_and_either_line_end_will_do() {
    for line in ["get a b\n", "get  a  b  \r\n", "get a b \n", "get   a b\r\n"] {
        check(line, &keys(GET, &[b"a", b"b"]));
    }
}

#[test]
fn any_other_byte_belongs_to_a_key() {
    check(b"get a\tb \xff\x00 c\rd e\r\r\n", &keys(GET, &[b"a\tb", b"\xff\x00", b"c\rd", b"e\r"]));
    check("get k HTTP/1.1\r\n", &keys(GET, &[b"k", b"HTTP/1.1"]));
    check("get k noreply\r\n", &keys(GET, &[b"k", b"noreply"]));
}

#[test]
fn the_last_key_of_a_line_is_followed_by_the_next_line() {
    let mut expected = keys(GET, &[b"a", b"b"]);
    expected.extend(keys(GET, &[b"c"]));
    expected.push(command(Command::Version));
    check("get a b\r\nget c\r\nversion\r\n", &expected);
}

#[test]
fn a_key_of_250_bytes_is_the_longest() {
    let longest = "k".repeat(250);
    check(format!("get {longest}\r\n"), &keys(GET, &[longest.as_bytes()]));
    check(format!("get a {longest} b\n"), &keys(GET, &[b"a", longest.as_bytes(), b"b"]));
    check(format!("get {longest}k\r\n"), &[rejected(ParseError::KeyTooLong)]);
}

#[test]
fn one_key_too_long_rejects_its_line_whole_and_only_that() {
    let long = "k".repeat(251);
    for line in
        [format!("{long} a b"), format!("a {long} b"), format!("a b {long}"), format!("a b   {long}  ")]
    {
        for verb in ["get", "gets", "gat 0", "gats 0"] {
            check(
                format!("{verb} {line}\r\nversion\r\n"),
                &[rejected(ParseError::KeyTooLong), command(Command::Version)],
            );
        }
    }
}

#[test]
fn a_bad_key_far_down_a_line_that_is_all_there_rejects_it_whole() {
    let mut line = b"get".to_vec();
    line.extend(b" key".repeat(5000));
    line.extend(b" k".repeat(3));
    line.extend([b'k'; 251]);
    line.extend(b" key\r\n");
    assert_eq!(events([&line[..]]), [rejected(ParseError::KeyTooLong)]);
}

#[test]
fn a_line_longer_than_the_input_is_yielded_as_it_comes() {
    let names: Vec<String> = (0..3000).map(|n| format!("key{n}")).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    for (verb, kind) in
        [("get", GET), ("gats 5", Retrieve { with_cas: true, touch: Some(Exptime(5)), ..GET })]
    {
        let line = [verb.as_bytes(), b" ", &names.join(&b' '), b"\r\n"].concat();
        let expected = keys(kind, &names);
        for piece_bytes in [1, 7, 100, 2048, 2049, 4096, line.len()] {
            assert_eq!(events(line.chunks(piece_bytes)), expected, "{verb} in pieces of {piece_bytes}");
        }
    }
}

#[test]
fn keys_yielded_before_the_bad_one_of_a_longer_line_stand() {
    let mut line = b"get ".to_vec();
    line.extend(b"key ".repeat(1000));
    let bad_at = line.len();
    line.extend([b'k'; 9000]);
    line.extend(b" a b\r\nversion\r\n");
    for piece_bytes in [1, 100, 3000] {
        let events = events(line.chunks(piece_bytes));
        let key = retrieve(Retrieve { key: b"key", last: false, ..GET });
        assert_eq!(events.len(), bad_at / 4 - 1 + 2, "in pieces of {piece_bytes}");
        let (yielded, rest) = events.split_at(events.len() - 2);
        assert!(yielded.iter().all(|event| *event == key));
        assert_eq!(rest, [rejected(ParseError::KeyTooLong), command(Command::Version)]);
    }
}

#[test]
fn an_input_over_the_line_limit_is_never_left_waiting() {
    let full = Limits::default().line_bytes_max + 1;
    for start in ["get ", "get a", "get a b", "gat 0 ", "gat ", "gat 0", "get a ", "set ", "x", " ", "mg "] {
        for filler in [b' ', b'k', b'\r'] {
            let mut input = start.as_bytes().to_vec();
            input.resize(full, filler);
            let mut parser = Parser::new();
            let mut left = &input[..];
            // The result does not matter here, but what is left in the end is less than a full input.
            while left.len() >= full {
                match parser.parse(left, &Limits::default()) {
                    Ok(Parsed::Complete { consumed, .. }) => left = &left[consumed..],
                    Ok(Parsed::NeedMore) => panic!("{start:?} and {:?}", char::from(filler)),
                    Err(rejected) => left = &left[rejected.consumed..],
                }
            }
        }
    }
}

#[test]
fn a_run_of_blanks_longer_than_a_line_closes() {
    let blanks = " ".repeat(2049);
    for start in ["get", "gat 0", "get a"] {
        assert_eq!(
            events([format!("{start}{blanks}").as_bytes()]).last(),
            Some(&Event::Closed(ParseError::LineTooLong)),
            "{start}"
        );
    }
}
