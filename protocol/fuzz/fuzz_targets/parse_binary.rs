//! Any bytes as the binary protocol, in one piece and in small ones: the parser never panics, always gets somewhere,
//! and comes to the same whichever way they arrive. What it yields keeps its promises.
#![no_main]

use corecached_protocol::binary::{BODY_BYTES_MAX, HEADER_BYTES};
use corecached_protocol::{
    BinaryControlVerb, Command, KEY_BYTES_MAX, Limits, Parsed, Parser, VALUE_LEN_MAX, Wire,
};
use libfuzzer_sys::fuzz_target;

/// What a piece of input came to.
#[derive(Debug, PartialEq)]
struct Yielded(Vec<String>);

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how large the small pieces are.
    let Some((&piece_bytes, sent)) = bytes.split_first() else { return };
    assert_eq!(hear(sent, sent.len()), hear(sent, usize::from(piece_bytes) + 1));
});

fn hear(sent: &[u8], piece_bytes: usize) -> Yielded {
    let limits = Limits::default();
    let mut parser = Parser::speaking(Wire::Binary);
    let mut yielded = Vec::new();
    let (mut from, mut to, mut skip) = (0, 0, 0);
    while to < sent.len() {
        to = sent.len().min(to + piece_bytes);
        loop {
            let skipped = skip.min(to - from);
            (from, skip) = (from + skipped, skip - skipped);
            match parser.parse(&sent[from..to], &limits) {
                Ok(Parsed::Complete { value, consumed }) => {
                    assert!(consumed >= HEADER_BYTES && from + consumed <= to);
                    from += consumed;
                    yielded.push(format!("{value:?}"));
                    match value {
                        Command::Binary(binary) => {
                            assert!((1..=KEY_BYTES_MAX).contains(&binary.key.len()));
                            assert!(binary.value_len <= VALUE_LEN_MAX);
                            assert!(binary.value_len == 0 || binary.verb.has_value());
                            skip = binary.value_len as usize;
                        }
                        Command::BinaryControl(control) => match control.verb {
                            BinaryControlVerb::Refused { close: true, .. } => return Yielded(yielded),
                            BinaryControlVerb::Refused { swallow, .. } => skip = swallow as usize,
                            _ => {}
                        },
                        _ => panic!("a text command"),
                    }
                }
                Ok(Parsed::NeedMore) => {
                    assert!(to - from < HEADER_BYTES + BODY_BYTES_MAX);
                    break;
                }
                Err(rejected) => {
                    assert!(rejected.close && rejected.error.line().is_empty());
                    return Yielded(yielded);
                }
            }
        }
    }
    Yielded(yielded)
}
