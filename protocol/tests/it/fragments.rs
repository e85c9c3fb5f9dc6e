//! Arbitrary bytes in arbitrary pieces: the parser does not panic, makes progress, and yields the same for
//! any pieces.

use crate::{Connection, Event, events};
use corecached_protocol::{Limits, ParseError};
use proptest::prelude::*;

/// Words that lines are made of, so that arbitrary input gets past the verb.
fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "get", "gets", "gat", "gats", "set", "add", "cas", "append", "delete", "incr", "touch", "mg",
            "ms", "md", "ma", "me", "mn", "stats", "flush_all", "verbosity", "shutdown", "noreply",
            "HTTP/1.1", "version",
        ]).prop_map(|word| word.as_bytes().to_vec()),
        3 => prop::sample::select(vec![
            "0", "1", "2", "-1", "30", "2147483645", "4294967296", "18446744073709551616", "k", "Zm9v", "b",
            "q", "k", "v", "t", "c", "s", "f", "T30", "N0", "R5", "C7", "E9", "F1", "D2", "J3", "MA", "MI",
            "M", "O123", "I",
        ]).prop_map(|word| word.as_bytes().to_vec()),
        1 => (240usize..260).prop_map(|len| vec![b'k'; len]),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn separator() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![" ", " ", " ", " ", " ", "  ", "\r\n", "\r\n", "\n", "\r", ""])
        .prop_map(|separator| separator.as_bytes().to_vec())
}

fn conversation() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((word(), separator()), 0..60).prop_map(|parts| {
        parts.into_iter().flat_map(|(word, separator)| [word, separator].concat()).collect()
    })
}

/// A word of a storage line: what belongs there, what is wrong, and what does not fit.
fn storage_word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "0", "k", "1", "-1", "x", "4294967295", "99999999999999999999", "noreply", "T0", "Tx", "T", "F", "Fx", "MX",
            "M", "I", "b", "q", "C1", "Cx", "z", "!", "?9", "aw==", "N0", "E", "S2", "0x1", "+1", "-",
        ]).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::sample::select(vec![249usize, 250, 251, 260, 900])
            .prop_map(|len| vec![b'k'; len]),
        1 => prop::collection::vec(any::<u8>().prop_filter("a blank or a line end", |byte| !b" \r\n".contains(byte)), 1..6),
    ]
}

/// The events of `sent`, cut where `cuts` say.
fn cut(sent: &[u8], cuts: &[prop::sample::Index]) -> Vec<Event> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
    at.push(0);
    at.push(sent.len());
    at.sort_unstable();
    events(at.windows(2).map(|ends| &sent[ends[0]..ends[1]]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_in_any_pieces_get_somewhere(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let mut connection = Connection::default();
        for piece in &pieces {
            connection.receive(piece);
        }
    }

    #[test]
    fn a_value_whose_length_can_be_read_is_never_a_command(
        verb in prop::sample::select(vec!["set", "add", "replace", "append", "prepend", "cas", "ms"]),
        before in prop::collection::vec(storage_word(), 3),
        after in prop::collection::vec(storage_word(), 0..24),
        separators in prop::collection::vec(" {1,3}", 32),
        value in prop::sample::select(vec!["flush_all", "set k 0 0 2", "ms k 2", "quit", "get a b", "", "\r\nmn"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let before = if verb == "ms" { &before[..1] } else { &before[..] };
        let len = value.len().to_string().into_bytes();
        let mut line = verb.as_bytes().to_vec();
        let words = before.iter().chain([&len]).chain(&after);
        for (separator, word) in separators.iter().zip(words) {
            line.extend_from_slice(separator.as_bytes());
            line.extend_from_slice(word);
        }
        let sent = [&line[..], b"\r\n", value.as_bytes(), b"\r\nmn\r\n"].concat();
        let events = cut(&sent, &cuts);
        let taken = match &events[..] {
            [Event::Command(_), Event::Data(data), Event::Command(last)] => data == value.as_bytes() && last == "MetaNoop",
            [Event::Rejected { .. }, Event::Swallowed(bytes), Event::Command(last)] => {
                *bytes == value.len() as u64 + 2 && last == "MetaNoop"
            }
            [Event::Closed(ParseError::LineTooLong)] => sent.len() > Limits::default().line_bytes_max,
            _ => false,
        };
        prop_assert!(taken, "{}: {events:?}", sent.escape_ascii());
    }

    #[test]
    fn a_plain_line_is_what_it_is_with_a_blank_at_its_end(
        verb in prop::sample::select(vec!["get", "set"]),
        key in "[a-z\r\t]{1,3}|k{248,252}",
        numbers in prop::collection::vec("[0-9]{1,3}|[0-9]{9,11}|21474836[0-9]{2}|[-+x][0-9]|[0-9]x", 2..5),
        noreply: bool,
    ) {
        let line = match verb {
            "set" => format!("set {key} {}{}", numbers.join(" "), if noreply { " noreply" } else { "" }),
            _ => format!("get {key}"),
        };
        prop_assert_eq!(
            events([format!("{line}\r\n").as_bytes()]),
            events([format!("{line} \r\n").as_bytes()]),
            "{:?}", line
        );
    }

    #[test]
    fn the_pieces_make_no_difference(
        sent in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        // How many keys of a retrieval line over 2,048 bytes are checked in advance depends on the pieces.
        prop_assume!(sent.split(|&byte| byte == b'\n').all(|line| line.len() <= 2048));
        let whole = events([&sent[..]]);
        prop_assert_eq!(&cut(&sent, &cuts), &whole);
        prop_assert_eq!(&events(sent.chunks(1)), &whole);
    }
}
