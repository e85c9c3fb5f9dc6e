//! Commands to the wire, as a memcached reads them.

use crate::number::put_decimal;
use crate::{
    AdminVerb, Arithmetic, Command, Delete, Exptime, Meta, MetaVerb, Retrieve, Store, StoreVerb, Touch,
};

/// Appends `command`, and behind its line `data` and CRLF where it has a value. Every command is to be answered:
/// `noreply` and the meta flag `q` are left out.
///
/// Meta flags go out as their tokens stand, whatever their numbers in [`crate::MetaFlags`] say.
///
/// `data` is as long as the command says; it is empty for commands without one.
#[inline]
pub fn encode(command: &Command, data: &[u8], out: &mut Vec<u8>) {
    put_line(command, false, out);
    put_data(command, data, out);
}

/// As [`encode`], with `noreply` and `q` where the command has them: there may be no answer.
pub fn encode_as_sent(command: &Command, data: &[u8], out: &mut Vec<u8>) {
    put_line(command, true, out);
    put_data(command, data, out);
}

/// As [`encode`], without the data block: for a value that follows in pieces, and its CRLF.
#[inline]
pub fn encode_line(command: &Command, out: &mut Vec<u8>) {
    put_line(command, false, out);
}

fn put_data(command: &Command, data: &[u8], out: &mut Vec<u8>) {
    let value_len = match command {
        Command::Store(store) => store.value_len,
        Command::Meta(Meta { verb: MetaVerb::Set, value_len, .. }) => *value_len,
        _ => return,
    };
    debug_assert_eq!(data.len(), value_len as usize);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn put_line(command: &Command, quiet: bool, out: &mut Vec<u8>) {
    let noreply = match command {
        Command::Retrieve(retrieve) => {
            put_retrieval_head(out, retrieve);
            put_word(out, retrieve.key);
            false
        }
        Command::Store(store) => {
            put_store(out, store);
            store.noreply
        }
        Command::Delete(Delete { key, noreply }) => {
            out.extend_from_slice(b"delete");
            put_word(out, key);
            *noreply
        }
        Command::Arithmetic(Arithmetic { key, delta, decrement, noreply }) => {
            out.extend_from_slice(if *decrement { b"decr" } else { b"incr" });
            put_word(out, key);
            put_number(out, *delta);
            *noreply
        }
        Command::Touch(Touch { key, exptime, noreply }) => {
            out.extend_from_slice(b"touch");
            put_word(out, key);
            put_exptime(out, *exptime);
            *noreply
        }
        Command::Meta(meta) => {
            put_meta(out, meta, quiet);
            false
        }
        _ => put_keyless(out, command),
    };
    out.extend_from_slice(if noreply && quiet { b" noreply\r\n" } else { b"\r\n" });
}

/// The line in front of its keys.
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

fn put_meta(out: &mut Vec<u8>, meta: &Meta, quiet: bool) {
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
        // The parser keeps no more of its flags.
        if meta.flags.has(b'b') {
            out.extend_from_slice(b" b");
        }
    } else if meta.flags.has(b'q') && !quiet {
        for (letter, token) in meta.flags.iter().filter(|&(letter, _)| letter != b'q') {
            out.extend_from_slice(&[b' ', letter]);
            out.extend_from_slice(token);
        }
    } else if !meta.flags.tokens.is_empty() {
        put_word(out, meta.flags.tokens);
    }
}

/// A command that names no key; returns whether it wants no reply.
#[cold]
fn put_keyless(out: &mut Vec<u8>, command: &Command) -> bool {
    match command {
        Command::MetaNoop => out.extend_from_slice(b"mn"),
        Command::Version => out.extend_from_slice(b"version"),
        Command::Quit => out.extend_from_slice(b"quit"),
        Command::Shutdown { graceful } => {
            out.extend_from_slice(if *graceful { b"shutdown graceful" } else { b"shutdown" });
        }
        Command::Stats { words } => put_words(out, b"stats", words),
        Command::FlushAll { delay, noreply } => {
            out.extend_from_slice(b"flush_all");
            if let Some(delay) = delay {
                put_exptime(out, *delay);
            }
            return *noreply;
        }
        Command::Verbosity { level, noreply } => {
            out.extend_from_slice(b"verbosity");
            put_number(out, u64::from(*level));
            return *noreply;
        }
        Command::CacheMemlimit { megabytes, noreply } => {
            out.extend_from_slice(b"cache_memlimit");
            put_number(out, *megabytes);
            return *noreply;
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
        | Command::BinaryControl(_) => debug_assert!(false, "a command on a key, or of another protocol"),
    }
    false
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
