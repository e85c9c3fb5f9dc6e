//! A server reads what a proxy sends, and the bytes of a server give the same replies however they are split.

use proptest::prelude::*;

use super::*;
use crate::{
    Arithmetic, Command, Delete, ErrorKind, Exptime, Limits, MetaVerb, Parsed, Parser, Reply, Retrieve,
    Store, StoreVerb, Touch, VALUE_LEN_MAX,
};

/// Largest value that the parsers here yield whole.
const WHOLE_BYTES_MAX: u32 = 8;

/// The texts of the events of a reply, with the pieces of a value put together.
fn hear(sent: &[u8], piece_bytes: usize, expected: Expected, keys: &[&str]) -> Vec<String> {
    let mut parser = ReplyParser::new(WHOLE_BYTES_MAX);
    let (mut from, mut answered, mut value) = (0, 0, Vec::new());
    let mut events = Vec::new();
    let is_retrieval = matches!(expected, Expected::Values { .. });
    for to in (0..sent.len()).step_by(piece_bytes).map(|at| sent.len().min(at + piece_bytes)) {
        loop {
            let left = keys.iter().skip(answered).map(|key| key.as_bytes());
            match parser.parse(&sent[from..to], expected, left) {
                Ok(Parsed::Complete { value: event, consumed }) => {
                    from += consumed;
                    assert!(from <= to);
                    answered += usize::from(event.is_last());
                    let over = event == ReplyEvent::End || !is_retrieval && answered == 1;
                    match event {
                        ReplyEvent::ValuePiece(piece) => {
                            assert!(!piece.is_empty());
                            value.extend_from_slice(piece);
                        }
                        ReplyEvent::ValueEnd => {
                            events.push(format!("value {}", String::from_utf8_lossy(&value)));
                        }
                        event => {
                            let text = format!("{event:?}");
                            events.push(event.whole().map_or(text, replied));
                        }
                    }
                    if over {
                        assert!(parser.at_line_start());
                        events.push(format!("then {:?}", String::from_utf8_lossy(&sent[from..])));
                        return events;
                    }
                }
                Ok(Parsed::NeedMore) => {
                    assert!(to - from <= REPLY_LINE_BYTES_MAX + WHOLE_BYTES_MAX as usize + 2);
                    break;
                }
                Err(framing) => {
                    events.push(format!("{framing:?}"));
                    return events;
                }
            }
        }
    }
    events.push("needs more".to_owned());
    events
}

/// `sent` yields `expected`, in one piece and in pieces of every other size.
#[track_caller]
fn check(what: Expected, keys: &[&str], sent: &str, expected: &[String]) {
    for piece_bytes in 1..=sent.len() {
        let mut heard = hear(sent.as_bytes(), piece_bytes, what, keys);
        if let Some(then) = heard.last_mut()
            && then.starts_with("then ")
        {
            heard.pop(); // has a test of its own
        }
        assert_eq!(heard, expected, "{sent:?} in pieces of {piece_bytes}");
    }
}

fn replied(reply: Reply) -> String {
    format!("{:?}", ReplyEvent::Reply(reply))
}

fn value(value: &'static str) -> String {
    replied(Reply::Value { client_flags: 7, cas_unique: None, value: value.into() })
}

fn failed(kind: ErrorKind, line: &'static str) -> String {
    replied(Reply::Error { kind, line: line.into() })
}

fn end() -> String {
    format!("{:?}", ReplyEvent::End)
}

fn bad(framing: Framing) -> String {
    format!("{framing:?}")
}

const GET: Expected = Expected::Values { with_cas: false };
const GETS: Expected = Expected::Values { with_cas: true };

#[test]
fn every_key_of_a_retrieval_is_answered_in_order() {
    let miss = || replied(Reply::Miss);
    check(GET, &["a"], "END\r\nVALUE", &[miss(), end()]);
    check(GET, &["a"], "VALUE a 7 2\r\nhi\r\nEND\r\n", &[value("hi"), end()]);
    check(GET, &["a", "b", "c"], "END\r\n", &[miss(), miss(), miss(), end()]);
    check(
        GET,
        &["a", "b", "c", "d"],
        "VALUE c 7 0\r\n\r\nEND\r\n",
        &[miss(), miss(), value(""), miss(), end()],
    );
    check(
        GET,
        &["a", "b", "c"],
        "VALUE a 7 5\r\n\r\nEND\r\nVALUE c 7 1\r\nx\r\nEND\r\n",
        &[value("\r\nEND"), miss(), value("x"), end()],
    );
    let with_cas = Reply::Value { client_flags: u32::MAX, cas_unique: Some(u64::MAX), value: "x".into() };
    check(
        GETS,
        &["a"],
        "VALUE a 4294967295 1 18446744073709551615\r\nx\r\nEND\r\n",
        &[replied(with_cas), end()],
    );
}

#[test]
fn large_values_come_in_pieces() {
    let head =
        |value_len| format!("{:?}", ReplyEvent::ValueHead { client_flags: 7, cas_unique: None, value_len });
    check(
        GET,
        &["a", "b", "c"],
        "VALUE b 7 9\r\n123\r\n6789\r\nVALUE c 7 8\r\n12345678\r\nEND\r\n",
        &[replied(Reply::Miss), head(9), "value 123\r\n6789".to_owned(), value("12345678"), end()],
    );
    let meta = format!("{:?}", ReplyEvent::MetaHead { line: "VA 10 t-1".into(), value_len: 10 });
    check(
        Expected::Meta(MetaVerb::Get),
        &[],
        "VA 10 t-1\r\n0123456789\r\n",
        &[meta, "value 0123456789".to_owned()],
    );
    check(GET, &["a"], "VALUE a 7 9\r\n123456789\n\n", &[head(9), bad(Framing::BadTerminator)]);
}

#[test]
fn a_value_for_another_key_or_out_of_order_is_none() {
    check(GET, &["a"], "VALUE b 7 1\r\nx\r\nEND\r\n", &[bad(Framing::UnexpectedKey)]);
    check(
        GET,
        &["a", "b"],
        "VALUE b 7 1\r\nx\r\nVALUE a 7 1\r\nx\r\nEND\r\n",
        &[replied(Reply::Miss), value("x"), bad(Framing::UnexpectedKey)],
    );
    check(
        GET,
        &["a"],
        "VALUE a 7 1\r\nx\r\nVALUE a 7 1\r\nx\r\nEND\r\n",
        &[value("x"), bad(Framing::UnexpectedKey)],
    );
    check(GET, &["a"], "VALUE aa 7 1\r\nx\r\n", &[bad(Framing::UnexpectedKey)]);
}

#[test]
fn what_is_no_reply_to_the_command_is_refused() {
    for (expected, sent, framing) in [
        (GET, "STORED\r\n", Framing::UnexpectedLine),
        (GET, "EN\r\n", Framing::UnexpectedLine),
        (GET, "END\n", Framing::BadLineEnd),
        (GET, "\r\n", Framing::UnexpectedLine),
        (GET, "VALUE a 7 1 9\r\n", Framing::BadHeader),
        (GETS, "VALUE a 7 1\r\n", Framing::BadHeader),
        (GET, "VALUE a 7\r\n", Framing::BadHeader),
        (GET, "VALUE a 7 -1\r\n", Framing::BadHeader),
        (GET, "VALUE a +7 1\r\n", Framing::BadHeader),
        (GET, "VALUE a 4294967296 1\r\n", Framing::BadHeader),
        (GET, "VALUE a 7 2147483646\r\n", Framing::BadHeader),
        (GET, "VALUE a  7 1\r\n", Framing::BadHeader),
        (GET, "VALUE a 7 1\r\nxyz\r\n", Framing::BadTerminator),
        (GET, "VALUE a 7 1\r\nx\n\n", Framing::BadTerminator),
        (Expected::Store, "DELETED\r\n", Framing::UnexpectedLine),
        (Expected::Store, "STORED \r\n", Framing::UnexpectedLine),
        (Expected::Delete, "7\r\n", Framing::UnexpectedLine),
        (Expected::Touch, "STORED\r\n", Framing::UnexpectedLine),
        (Expected::Number, "-7\r\n", Framing::UnexpectedLine),
        (Expected::Number, "18446744073709551616\r\n", Framing::UnexpectedLine),
        (Expected::Done, "END\r\n", Framing::UnexpectedLine),
        (Expected::Version, "OK\r\n", Framing::UnexpectedLine),
        (Expected::MetaNoop, "HD\r\n", Framing::UnexpectedLine),
        (Expected::Meta(MetaVerb::Get), "MN\r\n", Framing::UnexpectedLine),
        (Expected::Meta(MetaVerb::Get), "HDX\r\n", Framing::UnexpectedLine),
        (Expected::Meta(MetaVerb::Get), "VA\r\n", Framing::BadHeader),
        (Expected::Meta(MetaVerb::Get), "VA x\r\n", Framing::BadHeader),
        (Expected::Meta(MetaVerb::Set), "VA 1\r\nx\r\n", Framing::UnexpectedLine),
        (Expected::Meta(MetaVerb::Delete), "EN\r\n", Framing::UnexpectedLine),
        (Expected::Store, "SERVER_ERRORS\r\n", Framing::UnexpectedLine),
        (Expected::Store, "ERROR: x\r\n", Framing::UnexpectedLine),
    ] {
        check(expected, &["a"], sent, &[bad(framing)]);
    }
    for len in [REPLY_LINE_BYTES_MAX, REPLY_LINE_BYTES_MAX + 100] {
        let endless = format!("SERVER_ERROR {}", "x".repeat(len));
        for piece_bytes in [1, 7, 1000, 10_000] {
            let heard = hear(endless.as_bytes(), piece_bytes, Expected::Store, &[]);
            assert_eq!(heard, [bad(Framing::LineTooLong)]);
        }
    }
}

#[test]
fn short_replies_are_what_they_say() {
    let meta = |line: &'static str, value: Option<&'static str>| Reply::Meta {
        line: line.into(),
        value: value.map(Into::into),
    };
    for (expected, sent, reply) in [
        (Expected::Store, "STORED\r\n", Reply::Stored),
        (Expected::Store, "NOT_STORED\r\n", Reply::NotStored),
        (Expected::Store, "EXISTS\r\n", Reply::Exists),
        (Expected::Store, "NOT_FOUND\r\n", Reply::NotFound),
        (Expected::Delete, "DELETED\r\n", Reply::Deleted),
        (Expected::Delete, "NOT_FOUND\r\n", Reply::NotFound),
        (Expected::Number, "0\r\n", Reply::Number(0)),
        (Expected::Number, "18446744073709551615\r\n", Reply::Number(u64::MAX)),
        (Expected::Number, "NOT_FOUND\r\n", Reply::NotFound),
        (Expected::Touch, "TOUCHED\r\n", Reply::Touched),
        (Expected::Done, "OK\r\n", Reply::Done),
        (Expected::Version, "VERSION 1.6.45\r\n", Reply::Done),
        (Expected::MetaNoop, "MN\r\n", meta("MN", None)),
        (Expected::Meta(MetaVerb::Get), "EN\r\n", meta("EN", None)),
        (Expected::Meta(MetaVerb::Get), "HD t30 kfoo\r\n", meta("HD t30 kfoo", None)),
        (Expected::Meta(MetaVerb::Get), "VA 5 c3\r\n12\r\n5\r\n", meta("VA 5 c3", Some("12\r\n5"))),
        (Expected::Meta(MetaVerb::Get), "VA 0\r\n\r\n", meta("VA 0", Some(""))),
        (Expected::Meta(MetaVerb::Set), "NS c0\r\n", meta("NS c0", None)),
        (Expected::Meta(MetaVerb::Delete), "NF\r\n", meta("NF", None)),
        (Expected::Meta(MetaVerb::Arithmetic), "VA 2 t-1\r\n10\r\n", meta("VA 2 t-1", Some("10"))),
        (Expected::Meta(MetaVerb::Debug), "ME k exp=-1 la=4\r\n", meta("ME k exp=-1 la=4", None)),
    ] {
        check(expected, &[], sent, &[replied(reply)]);
    }
}

#[test]
fn errors_answer_any_command_with_their_text() {
    for (line, kind) in [
        ("ERROR", ErrorKind::Client),
        ("ERROR metadump not allowed", ErrorKind::Client),
        ("CLIENT_ERROR bad data chunk", ErrorKind::Client),
        ("SERVER_ERROR", ErrorKind::Remote),
        ("SERVER_ERROR out of memory storing object", ErrorKind::Remote),
        ("SERVER_ERROR: shutdown not enabled", ErrorKind::Remote),
        ("SERVER_ERROR 307 busy", ErrorKind::Busy),
        ("SERVER_ERROR 302 try again", ErrorKind::TryAgain),
        ("SERVER_ERROR 301 shutdown", ErrorKind::Shutdown),
        ("SERVER_ERROR 3010", ErrorKind::Remote),
    ] {
        let sent = format!("{line}\r\n");
        for expected in [
            Expected::Store,
            Expected::Number,
            Expected::Version,
            Expected::MetaNoop,
            Expected::Meta(MetaVerb::Get),
        ] {
            check(expected, &[], &sent, &[failed(kind, line)]);
        }
        check(GET, &["a", "b"], &sent, &[failed(kind, line), failed(kind, line), end()]);
        let late = format!("VALUE a 7 1\r\nx\r\n{sent}");
        check(GET, &["a", "b"], &late, &[value("x"), failed(kind, line), end()]);
        check(GET, &["a"], &late, &[value("x"), end()]);
    }
}

#[test]
fn what_follows_a_reply_is_left_alone() {
    for (expected, keys, sent) in [
        (Expected::Store, &[][..], "STORED\r\nSTORED\r\n"),
        (GET, &["a"], "VALUE a 7 1\r\nx\r\nEND\r\nSTORED\r\n"),
        (Expected::Meta(MetaVerb::Get), &[], "VA 9\r\n123456789\r\nSTORED\r\n"),
    ] {
        assert_eq!(
            hear(sent.as_bytes(), sent.len(), expected, keys).last().unwrap(),
            "then \"STORED\\r\\n\""
        );
    }
}

/// The command that a server reads from `sent`, which holds that command and its data block and nothing else.
#[track_caller]
fn read<'a>(sent: &'a [u8], data: &[u8]) -> Command<'a> {
    match Parser::new().parse(sent, &Limits::default()) {
        Ok(Parsed::Complete { value, consumed }) => {
            match value.value_len() {
                Some(_) => assert_eq!(&sent[consumed..], [data, b"\r\n"].concat()),
                None => assert_eq!(consumed, sent.len()),
            }
            value
        }
        other => panic!("{:?} was read as {other:?}", String::from_utf8_lossy(sent)),
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = || prop_oneof![8 => 0x21u8..0x7f, 1 => 0x80u8..=0xff];
    prop_oneof![4 => prop::collection::vec(byte(), 1..20), 1 => prop::collection::vec(byte(), 250)]
}

/// Commands over the key `k`.
fn classic() -> impl Strategy<Value = Command<'static>> {
    let verb = prop::sample::select(vec![
        StoreVerb::Set,
        StoreVerb::Add,
        StoreVerb::Replace,
        StoreVerb::Append,
        StoreVerb::Prepend,
        StoreVerb::Cas,
    ]);
    let exptime = || prop_oneof![Just(0), 1..3_000_000, any::<i32>()].prop_map(|s| Exptime(s.into()));
    let key = b"k";
    prop_oneof![
        (any::<bool>(), prop::option::of(exptime()))
            .prop_map(|(with_cas, touch)| Command::Retrieve(Retrieve { key, with_cas, touch, last: true })),
        (verb, any::<u32>(), exptime(), any::<u64>(), any::<bool>()).prop_map(
            |(verb, client_flags, exptime, cas, noreply)| {
                let cas_unique = if verb == StoreVerb::Cas { cas } else { 0 };
                let value_len = 0; // that of the value it goes with
                Command::Store(Store { verb, key, client_flags, exptime, value_len, cas_unique, noreply })
            }
        ),
        any::<bool>().prop_map(|noreply| Command::Delete(Delete { key, noreply })),
        (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(delta, decrement, noreply)| {
            Command::Arithmetic(Arithmetic { key, delta, decrement, noreply })
        }),
        (exptime(), any::<bool>()).prop_map(|(exptime, noreply)| Command::Touch(Touch {
            key,
            exptime,
            noreply
        })),
        (prop::option::of(exptime()), any::<bool>())
            .prop_map(|(delay, noreply)| Command::FlushAll { delay, noreply }),
        (any::<u32>(), any::<bool>()).prop_map(|(level, noreply)| Command::Verbosity { level, noreply }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(megabytes, noreply)| Command::CacheMemlimit { megabytes, noreply }),
        Just(Command::Version),
        Just(Command::Quit),
        Just(Command::MetaNoop),
        Just(Command::Shutdown { graceful: true }),
        Just(Command::Stats { words: b"items" }),
        Just(Command::Admin { verb: crate::AdminVerb::Slabs, words: b"automove 1" }),
    ]
}

/// `command` over `key`, with a value as long as `data`. Commands without a key stay as they are.
fn with<'a>(command: Command<'a>, key: &'a [u8], data: &[u8]) -> Command<'a> {
    let mut command = command.parts().map_or(command, |parts| parts.head.with_bytes(key, b""));
    if let Command::Store(store) = &mut command {
        store.value_len = data.len() as u32;
    }
    command
}

/// `command` without its `noreply`.
fn answered(mut command: Command) -> Command {
    match &mut command {
        Command::Store(Store { noreply, .. })
        | Command::Delete(Delete { noreply, .. })
        | Command::Arithmetic(Arithmetic { noreply, .. })
        | Command::Touch(Touch { noreply, .. })
        | Command::FlushAll { noreply, .. }
        | Command::Verbosity { noreply, .. }
        | Command::CacheMemlimit { noreply, .. } => *noreply = false,
        _ => {}
    }
    command
}

proptest! {
    #[test]
    fn a_server_reads_what_was_sent(
        command in classic(),
        key in key(),
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let command = with(command, &key, &data);
        let mut out = Vec::new();
        encode_as_sent(&command, &data, &mut out);
        prop_assert_eq!(read(&out, &data), command);
        out.clear();
        encode(&command, &data, &mut out);
        prop_assert_eq!(read(&out, &data), answered(command));
    }

    #[test]
    fn a_server_reads_the_meta_flags_that_were_sent(
        verb in "mg|ms|md|ma|me",
        key in "[a-zA-Z0-9]{4}",
        letters in prop::sample::subsequence(b"bkqvcfhlstuxIOLPTNRECFMDJ".to_vec(), 0..=15).prop_shuffle(),
        number in any::<u32>(),
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut line = format!("{verb} {key}");
        if verb == "ms" {
            line += &format!(" {}", data.len());
        }
        for letter in &letters {
            let letter = char::from(*letter);
            line += &match letter {
                'M' => format!(" M{}", if verb == "ma" { 'D' } else { 'E' }),
                'T' | 'N' | 'R' => format!("  {letter}{}", number.cast_signed()),
                'E' | 'C' | 'F' | 'D' | 'J' | 'O' => format!("  {letter}{number}"),
                _ => format!(" {letter}"),
            };
        }
        let sent = [line.as_bytes(), b"\r\n"].concat();
        let with_data = if verb == "ms" { [&sent[..], &data, b"\r\n"].concat() } else { sent };
        let command = read(&with_data, &data);
        let mut out = Vec::new();
        encode_as_sent(&command, &data, &mut out);
        prop_assert_eq!(read(&out, &data), command);

        out.clear();
        encode(&command, &data, &mut out);
        let (Command::Meta(sent), Command::Meta(heard)) = (command, read(&out, &data)) else {
            unreachable!()
        };
        prop_assert!(!heard.flags.has(b'q'));
        let without_q: Vec<_> = sent.flags.iter().filter(|&(letter, _)| letter != b'q').collect();
        prop_assert_eq!(heard.flags.iter().collect::<Vec<_>>(), without_q);
        prop_assert_eq!((heard.verb, heard.key, heard.value_len), (sent.verb, sent.key, sent.value_len));
    }

    #[test]
    fn any_bytes_yield_the_same_in_one_piece_and_in_many(
        sent in prop::collection::vec(
            prop::sample::select(vec![
                "VALUE ", "a", "b", " ", "7", "1", "9", "12", "\r\n", "\r\n", "\r\n", "\n", "x", "END\r\n",
                "VALUE a 7 1\r\nx\r\n", "VALUE b 7 12\r\n0123456789ab\r\n", "VA 1\r\nx\r\n", "HD\r\n",
                "STORED\r\n", "SERVER_ERROR 307 busy\r\n", "ERROR\r\n",
            ]),
            0..12,
        ),
        piece_bytes in 1..9usize,
        expected in prop::sample::select(vec![
            GET, GETS, Expected::Store, Expected::Number, Expected::Meta(MetaVerb::Get),
        ]),
    ) {
        let sent = sent.concat();
        let whole = hear(sent.as_bytes(), sent.len().max(1), expected, &["a", "b"]);
        let pieces = hear(sent.as_bytes(), piece_bytes, expected, &["a", "b"]);
        prop_assert_eq!(whole, pieces);
    }
}

#[test]
fn the_line_of_a_large_value_stands_alone() {
    let store = Store {
        verb: StoreVerb::Set,
        key: b"k",
        client_flags: 1,
        exptime: Exptime(-1),
        value_len: VALUE_LEN_MAX,
        cas_unique: 0,
        noreply: true,
    };
    let mut out = Vec::new();
    encode_line(&Command::Store(store), &mut out);
    assert_eq!(out, b"set k 1 -1 2147483645\r\n");
}

#[test]
fn only_commands_with_one_reply_have_one_to_expect() {
    assert_eq!(Expected::from_command(&Command::Version), Some(Expected::Version));
    assert_eq!(Expected::from_command(&Command::MetaNoop), Some(Expected::MetaNoop));
    for command in [Command::Quit, Command::Stats { words: b"" }, Command::Shutdown { graceful: false }] {
        assert_eq!(Expected::from_command(&command), None);
    }
    assert!(Expected::Store.has_data() && Expected::Meta(MetaVerb::Set).has_data());
    assert!(!GET.has_data() && !Expected::Meta(MetaVerb::Arithmetic).has_data());
}
