//! Any bytes as replies to any command, in one piece and in small ones: the parser never panics, always gets somewhere,
//! and comes to the same whichever way they arrive. Every key of a retrieval is answered once.
#![no_main]

use corecached_protocol::client::{Expected, REPLY_LINE_BYTES_MAX, ReplyEvent, ReplyParser};
use corecached_protocol::{MetaVerb, Parsed, VALUE_LEN_MAX};
use libfuzzer_sys::fuzz_target;

/// Largest value that is yielded whole: small, so that pieces are common.
const WHOLE_BYTES_MAX: u32 = 8;

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

const EXPECTED: [Expected; 14] = [
    Expected::Values { with_cas: false },
    Expected::Values { with_cas: true },
    Expected::Store,
    Expected::Delete,
    Expected::Number,
    Expected::Touch,
    Expected::Done,
    Expected::Version,
    Expected::Meta(MetaVerb::Get),
    Expected::Meta(MetaVerb::Set),
    Expected::Meta(MetaVerb::Delete),
    Expected::Meta(MetaVerb::Arithmetic),
    Expected::Meta(MetaVerb::Debug),
    Expected::MetaNoop,
];

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how large the small pieces are, the second what was asked.
    let [piece_bytes, asked, sent @ ..] = bytes else { return };
    let expected = EXPECTED[usize::from(*asked) % EXPECTED.len()];
    assert_eq!(hear(sent, sent.len().max(1), expected), hear(sent, usize::from(*piece_bytes) + 1, expected));
});

/// What the bytes come to as replies to the same command again and again, pieces of a value put together.
fn hear(sent: &[u8], piece_bytes: usize, expected: Expected) -> Vec<String> {
    let mut parser = ReplyParser::new(WHOLE_BYTES_MAX);
    let is_retrieval = matches!(expected, Expected::Values { .. });
    let (mut from, mut to, mut answered) = (0, 0, 0);
    let (mut heard, mut value, mut announced) = (Vec::new(), Vec::new(), 0);
    while to < sent.len() {
        to = sent.len().min(to + piece_bytes);
        loop {
            let keys = KEYS.iter().skip(answered).copied().filter(|_| is_retrieval);
            let (event, consumed) = match parser.parse(&sent[from..to], expected, keys) {
                Ok(Parsed::Complete { value, consumed }) => (value, consumed),
                Ok(Parsed::NeedMore) => {
                    assert!(to - from <= REPLY_LINE_BYTES_MAX + WHOLE_BYTES_MAX as usize + 2);
                    break;
                }
                Err(framing) => {
                    heard.push(format!("{framing:?}"));
                    return heard;
                }
            };
            from += consumed;
            assert!(from <= to);
            match &event {
                event if is_retrieval && event.is_last() => {
                    answered += 1;
                    assert!(answered <= KEYS.len());
                }
                ReplyEvent::End => {
                    assert!(is_retrieval && answered == KEYS.len() && consumed > 0);
                    answered = 0;
                }
                _ => assert!(consumed > 0),
            }
            match event {
                ReplyEvent::ValueHead { value_len, .. } | ReplyEvent::MetaHead { value_len, .. } => {
                    assert!(value_len > WHOLE_BYTES_MAX && value_len <= VALUE_LEN_MAX);
                    announced = value_len as usize;
                    heard.push(format!("{event:?}"));
                }
                ReplyEvent::ValuePiece(piece) => {
                    assert!(!piece.is_empty());
                    value.extend_from_slice(piece);
                }
                ReplyEvent::ValueEnd => {
                    assert_eq!(value.len(), announced);
                    heard.push(format!("{value:?}"));
                    value.clear();
                }
                event => heard.push(format!("{event:?}")),
            }
        }
    }
    heard
}
