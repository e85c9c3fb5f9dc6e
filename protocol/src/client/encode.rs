//! Writes commands to the wire, as a memcached reads them.

use crate::number::put_decimal;
use crate::{
    AdminVerb, Arithmetic, Command, Delete, Exptime, Meta, MetaVerb, Retrieve, Store, StoreVerb, Touch,
};

/// Appends the line of `command`, and after it `data` and CRLF when a value follows the line. Left out are
/// `noreply` and the meta flag `q`, so that the command is always answered.
///
/// Meta flags are written as [`crate::MetaFlags::tokens`] holds them; the numbers in the other fields are not
/// looked at.
///
/// `data` is as long as [`Command::value_len`] says, and empty for commands without a value. Commands of the
/// binary protocol cannot be written.
#[inline]
pub fn encode(command: &Command, data: &[u8], out: &mut Vec<u8>) {
    put_line(command, false, out);
    put_data(command, data, out);
}

/// As [`encode`], but with `noreply` and `q` when the command has them: there may be no answer.
pub fn encode_as_sent(command: &Command, data: &[u8], out: &mut Vec<u8>) {
    put_line(command, true, out);
    put_data(command, data, out);
}

/// As [`encode`], but without the data block: the caller appends the value in pieces, and then CRLF.
#[inline]
pub fn encode_line(command: &Command, out: &mut Vec<u8>) {
    put_line(command, false, out);
}

fn put_data(command: &Command, data: &[u8], out: &mut Vec<u8>) {
    // Not `Command::value_len`: it knows the binary protocol too, which costs each command two instructions.
    let value_len = match command {
        Command::Store(store) => store.value_len,
        Command::Meta(Meta { verb: MetaVerb::Set, value_len, .. }) => *value_len,
        _ => return,
    };
    debug_assert_eq!(data.len(), value_len as usize);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn put_line(command: &Command, as_sent: bool, out: &mut Vec<u8>) {
    match command {
        Command::Retrieve(retrieve) => {
            put_retrieval_head(out, retrieve);
            put_word(out, retrieve.key);
        }
        Command::Store(store) => put_store(out, store),
        Command::Delete(Delete { key, .. }) => {
            out.extend_from_slice(b"delete");
            put_word(out, key);
        }
        Command::Arithmetic(Arithmetic { key, delta, decrement, .. }) => {
            out.extend_from_slice(if *decrement { b"decr" } else { b"incr" });
            put_word(out, key);
            put_number(out, *delta);
        }
        Command::Touch(Touch { key, exptime, .. }) => {
            out.extend_from_slice(b"touch");
            put_word(out, key);
            put_exptime(out, *exptime);
        }
        Command::Meta(meta) => put_meta(out, meta, as_sent),
        _ => put_keyless(out, command),
    }
    out.extend_from_slice(if as_sent && command.noreply() { b" noreply\r\n" } else { b"\r\n" });
}

/// Appends the verb of a retrieval line, and its exptime where it has one: what precedes the keys.
#[inline]
pub(super) fn put_retrieval_head(out: &mut Vec<u8>, retrieve: &Retrieve) {
    let verb: &[u8] = match (retrieve.touch, retrieve.with_cas) {
        (None, false) => b"get",
        (None, true) => b"gets",
        (Some(_), false) => b"gat",
        (Some(_), true) => b"gats",
    };
    out.extend_from_slice(verb);
    if let Some(exptime) = retrieve.touch {
        put_exptime(out, exptime);
    }
}

#[inline]
fn put_store(out: &mut Vec<u8>, store: &Store) {
    let verb: &[u8] = match store.verb {
        StoreVerb::Set => b"set",
        StoreVerb::Add => b"add",
        StoreVerb::Replace => b"replace",
        StoreVerb::Append => b"append",
        StoreVerb::Prepend => b"prepend",
        StoreVerb::Cas => b"cas",
    };
    out.extend_from_slice(verb);
    put_word(out, store.key);
    put_number(out, store.client_flags.into());
    put_exptime(out, store.exptime);
    put_number(out, store.value_len.into());
    if store.verb == StoreVerb::Cas {
        put_number(out, store.cas_unique);
    }
}

fn put_meta(out: &mut Vec<u8>, meta: &Meta, as_sent: bool) {
    let verb: &[u8; 2] = match meta.verb {
        MetaVerb::Get => b"mg",
        MetaVerb::Set => b"ms",
        MetaVerb::Delete => b"md",
        MetaVerb::Arithmetic => b"ma",
        MetaVerb::Debug => b"me",
    };
    out.extend_from_slice(verb);
    put_word(out, meta.key);
    if meta.verb == MetaVerb::Set {
        put_number(out, meta.value_len.into());
    }
    if meta.verb == MetaVerb::Debug {
        // The parser keeps no other flag of `me`.
        if meta.flags.has(b'b') {
            out.extend_from_slice(b" b");
        }
    } else if meta.flags.has(b'q') && !as_sent {
        for (letter, token) in meta.flags.iter().filter(|&(letter, _)| letter != b'q') {
            out.extend_from_slice(&[b' ', letter]);
            out.extend_from_slice(token);
        }
    } else if !meta.flags.tokens.is_empty() {
        put_word(out, meta.flags.tokens);
    }
}

/// Appends the line of a command without a key, up to its `noreply`.
#[cold]
fn put_keyless(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::MetaNoop => out.extend_from_slice(b"mn"),
        Command::Version => out.extend_from_slice(b"version"),
        Command::Quit => out.extend_from_slice(b"quit"),
        Command::Shutdown { graceful } => {
            out.extend_from_slice(if *graceful { b"shutdown graceful" } else { b"shutdown" });
        }
        Command::Stats { words } => put_words(out, b"stats", words),
        Command::FlushAll { delay, .. } => {
            out.extend_from_slice(b"flush_all");
            if let Some(delay) = delay {
                put_exptime(out, *delay);
            }
        }
        Command::Verbosity { level, .. } => {
            out.extend_from_slice(b"verbosity");
            put_number(out, u64::from(*level));
        }
        Command::CacheMemlimit { megabytes, .. } => {
            out.extend_from_slice(b"cache_memlimit");
            put_number(out, *megabytes);
        }
        Command::Admin { verb, words } => {
            let verb: &[u8] = match verb {
                AdminVerb::Slabs => b"slabs",
                AdminVerb::Lru => b"lru",
                AdminVerb::LruCrawler => b"lru_crawler",
                AdminVerb::Watch => b"watch",
                AdminVerb::RefreshCerts => b"refresh_certs",
                AdminVerb::Extstore => b"extstore",
                AdminVerb::DebugTime => b"debugtime",
            };
            put_words(out, verb, words);
        }
        Command::Retrieve(_)
        | Command::Store(_)
        | Command::Delete(_)
        | Command::Arithmetic(_)
        | Command::Touch(_)
        | Command::Meta(_)
        | Command::Binary(_)
        | Command::BinaryControl(_) => debug_assert!(false, "a keyed command, or one of the binary protocol"),
    }
}

fn put_words(out: &mut Vec<u8>, verb: &[u8], words: &[u8]) {
    out.extend_from_slice(verb);
    if !words.is_empty() {
        put_word(out, words);
    }
}

#[inline]
fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(word);
}

#[inline]
fn put_number(out: &mut Vec<u8>, number: u64) {
    out.push(b' ');
    put_decimal(out, number);
}

#[inline]
fn put_exptime(out: &mut Vec<u8>, exptime: Exptime) {
    out.push(b' ');
    if exptime.0 < 0 {
        out.push(b'-');
    }
    put_decimal(out, exptime.0.unsigned_abs());
}
