//! Parsing of the most frequent commands, and encoding of their replies.

use std::hint::black_box;

use corecached_protocol::meta::{MetaCode, MetaItem, encode_header};
use corecached_protocol::text::encode_value_header;
use corecached_protocol::{Command, Limits, Parsed, Parser, data_block, line};

use super::Case;

const VALUE: &[u8; 100] = &[b'v'; 100];

pub const CASES: &[Case] = &[
    Case {
        name: "protocol/parse get",
        operations: 16,
        prepare: || parsing(b"get corecached:benchmark\r\n".repeat(16)),
    },
    Case {
        name: "protocol/parse get of 50 keys, a key",
        operations: 50,
        prepare: || parsing([&b"get"[..], &b" corecached:benchmark".repeat(50), b"\r\n"].concat()),
    },
    Case {
        name: "protocol/parse set of 100 B",
        operations: 16,
        prepare: || {
            parsing([&b"set corecached:benchmark 0 0 100\r\n"[..], VALUE, b"\r\n"].concat().repeat(16))
        },
    },
    Case {
        name: "protocol/parse mg",
        operations: 16,
        prepare: || parsing(b"mg corecached:benchmark v\r\n".repeat(16)),
    },
    Case { name: "protocol/encode the reply to get", operations: 1, prepare: encoding_text },
    Case { name: "protocol/encode the reply to mg", operations: 1, prepare: encoding_meta },
];

/// Parses all of `input` in each call.
fn parsing(input: Vec<u8>) -> Box<dyn FnMut()> {
    let limits = Limits::default();
    Box::new(move || {
        let (mut parser, mut rest) = (Parser::new(), black_box(&input[..]));
        while let Ok(Parsed::Complete { value, consumed }) = parser.parse(rest, &limits) {
            rest = &rest[consumed..];
            if let Command::Store(store) = value {
                let Parsed::Complete { value, consumed } = data_block(rest, store.value_len) else {
                    panic!("the value is there");
                };
                let _ = black_box(value);
                rest = &rest[consumed..];
            } else {
                black_box(value);
            }
        }
        assert!(rest.is_empty());
    })
}

fn encoding_text() -> Box<dyn FnMut()> {
    let mut out = Vec::with_capacity(1024);
    Box::new(move || {
        out.clear();
        encode_value_header(&mut out, black_box(b"corecached:benchmark"), 0, 100, None);
        out.extend_from_slice(VALUE);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(line::END);
        black_box(&out);
    })
}

fn encoding_meta() -> Box<dyn FnMut()> {
    let mut out = Vec::with_capacity(1024);
    Box::new(move || {
        let parsed = Parser::new().parse(black_box(b"mg corecached:benchmark v\r\n"), &Limits::default());
        let Ok(Parsed::Complete { value: Command::Meta(meta), .. }) = parsed else {
            panic!("a meta command");
        };
        out.clear();
        encode_header(&mut out, MetaCode::Value, Some(100), &meta, &MetaItem::default());
        out.extend_from_slice(VALUE);
        out.extend_from_slice(b"\r\n");
        black_box(&out);
    })
}
