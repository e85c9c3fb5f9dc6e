//! Any bytes, in one piece and in small ones: the parser never panics, always gets somewhere, and lines that fit the
//! line limit come to the same whichever way they arrive. What it yields keeps its promises.
#![no_main]

use corecached_protocol::{Command, KEY_BYTES_MAX, Limits, MetaKey, MetaVerb, Parsed, Parser, VALUE_LEN_MAX};
use libfuzzer_sys::fuzz_target;
use std::hash::{DefaultHasher, Hash, Hasher};

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how large the small pieces are.
    let Some((&piece_bytes, sent)) = bytes.split_first() else { return };
    let whole = Conversation::default().hear(sent, sent.len());
    let pieces = Conversation::default().hear(sent, usize::from(piece_bytes) + 1);
    if sent.split(|&byte| byte == b'\n').all(|line| line.len() <= Limits::default().line_bytes_max) {
        assert_eq!(whole, pieces);
    }
    check_value(sent);
});

/// The value of a storage line whose length can be read is never taken for commands, whatever else the line holds.
/// `words` are the words before and after the length, which a NUL separates.
fn check_value(words: &[u8]) {
    const VALUE: &[u8] = b"flush_all";
    let Some(at) = words.iter().position(|&byte| byte == 0) else { return };
    let (before, after) = (&words[..at], &words[at + 1..]);
    let count = before.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).count();
    let verb = match count {
        1 => "ms",
        3 => "cas",
        _ => return,
    };
    if words.iter().any(|&byte| byte == b'\n') {
        return;
    }
    let line = [verb.as_bytes(), before, VALUE.len().to_string().as_bytes(), after].join(&b' ');
    let sent = [&line[..], b"\r\n", VALUE, b"\r\n"].concat();
    let to_take = VALUE.len() as u64 + 2;
    match Parser::new().parse(&sent, &Limits::default()) {
        Ok(Parsed::Complete { value, .. }) => assert_eq!(value.value_len(), Some(VALUE.len() as u32)),
        Ok(Parsed::NeedMore) => unreachable!("the line is whole"),
        Err(rejected) => assert!(rejected.swallow == to_take || rejected.close, "{}", line.escape_ascii()),
    }
}

/// A connection, reduced to a fingerprint of all that it yielded. Data blocks are left to be read as lines.
#[derive(Default)]
struct Conversation {
    parser: Parser,
    yielded: DefaultHasher,
}

impl Conversation {
    fn hear(mut self, sent: &[u8], piece_bytes: usize) -> u64 {
        let limits = Limits::default();
        let (mut from, mut to) = (0, 0);
        while to < sent.len() {
            to = sent.len().min(to + piece_bytes);
            loop {
                match self.parser.parse(&sent[from..to], &limits) {
                    Ok(Parsed::Complete { value, consumed }) => {
                        assert!(consumed > 0 && from + consumed <= to);
                        from += consumed;
                        self.check(&value);
                        format!("{value:?}").hash(&mut self.yielded);
                    }
                    Ok(Parsed::NeedMore) => {
                        assert!(to - from <= limits.line_bytes_max);
                        break;
                    }
                    Err(rejected) => {
                        assert!(rejected.consumed > 0 && from + rejected.consumed <= to);
                        assert!(rejected.swallow <= u64::from(VALUE_LEN_MAX) + 2);
                        assert!(rejected.error.line().is_empty() || rejected.error.line().ends_with(b"\r\n"));
                        from += rejected.consumed;
                        if !rejected.error.line().is_empty() || rejected.close {
                            format!("{:?} {} {}", rejected.error, rejected.swallow, rejected.noreply)
                                .hash(&mut self.yielded);
                        }
                        if rejected.close {
                            return self.yielded.finish();
                        }
                    }
                }
            }
        }
        self.yielded.finish()
    }

    fn check(&self, command: &Command) {
        let key = match command {
            Command::Retrieve(retrieve) => retrieve.key,
            Command::Store(store) => store.key,
            Command::Delete(delete) => delete.key,
            Command::Arithmetic(arithmetic) => arithmetic.key,
            Command::Touch(touch) => touch.key,
            Command::Meta(meta) => {
                let mut scratch = [0; KEY_BYTES_MAX];
                assert!(!MetaKey::decode(meta, &mut scratch).is_empty());
                // `me` keeps no flags but remembers `b`.
                if meta.verb != MetaVerb::Debug {
                    assert_eq!(meta.flags.iter().count(), meta.flags.present.count_ones() as usize);
                }
                meta.key
            }
            _ => return,
        };
        assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
        assert!(!key.contains(&b' ') && !key.contains(&b'\n'));
    }
}
