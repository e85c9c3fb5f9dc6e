//! `stats detail`: counters of gets, hits, sets and deletes for each prefix of keys, while it is switched on.

use std::collections::HashMap;

use corecached_protocol::{BinaryVerb, Command, MetaVerb, line};

use corecached_shard::counters::Counters;

/// Most prefixes that one shard counts. Keys with other prefixes are not counted then. memcached has the same
/// limit, 2^16.
const PREFIXES_MAX: usize = 1 << 16;

/// The counters of one prefix.
#[derive(Clone, Copy, Debug, Default)]
struct PrefixCounters {
    get: u64,
    hit: u64,
    set: u64,
    delete: u64,
}

/// The counters of one shard for each prefix.
#[derive(Debug)]
pub(crate) struct Prefixes {
    delimiter: u8,
    counters: HashMap<Box<[u8]>, PrefixCounters>,
}

impl Prefixes {
    /// Counters for prefixes: the bytes of a key before its first `delimiter`. A key without one is not
    /// counted.
    #[must_use]
    pub(crate) fn new(delimiter: u8) -> Self {
        Self { delimiter, counters: HashMap::new() }
    }

    /// Forgets all counters.
    pub(crate) fn reset(&mut self) {
        self.counters.clear();
    }

    /// Counts `command`, which has been carried out. It changed the counters of the shard from `before` to
    /// `after`.
    pub(crate) fn count(&mut self, command: &Command<'_>, before: &Counters, after: &Counters) {
        let key = match command {
            Command::Retrieve(retrieve) => retrieve.key,
            Command::Store(store) => store.key,
            Command::Delete(delete) => delete.key,
            Command::Meta(meta) if meta.verb != MetaVerb::Debug && !meta.flags.has(b'b') => meta.key,
            Command::Binary(binary) => match binary.verb {
                BinaryVerb::Touch | BinaryVerb::Increment | BinaryVerb::Decrement => return,
                _ => binary.key,
            },
            _ => return,
        };
        let Some(end) = key.iter().position(|&byte| byte == self.delimiter) else { return };
        let prefix = &key[..end];
        // Keys of the binary protocol may have any bytes. A prefix with a space could not be shown in a line
        // of words.
        if prefix.iter().any(|&byte| byte <= b' ') {
            return;
        }
        if !self.counters.contains_key(prefix) && self.counters.len() >= PREFIXES_MAX {
            return;
        }
        let counters = self.counters.entry(prefix.into()).or_default();
        counters.get += after.commands.cmd_get - before.commands.cmd_get + after.commands.cmd_touch
            - before.commands.cmd_touch;
        counters.hit += after.commands.get_hits - before.commands.get_hits + after.commands.touch_hits
            - before.commands.touch_hits;
        counters.set += after.commands.cmd_set - before.commands.cmd_set;
        counters.delete += (after.commands.delete_hits + after.commands.delete_misses)
            - (before.commands.delete_hits + before.commands.delete_misses);
    }

    /// The counters as text for another shard: a line for each prefix, with the prefix and its four counters.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        use std::io::Write;
        let mut lines = Vec::new();
        for (prefix, counters) in &self.counters {
            lines.extend_from_slice(prefix);
            let PrefixCounters { get, hit, set, delete } = counters;
            let _ = writeln!(lines, " {get} {hit} {set} {delete}");
        }
        lines
    }
}

/// Appends the answer to `stats detail dump`, made of the [`Prefixes::encode`] of every shard.
pub(crate) fn render(parts: &[Vec<u8>], out: &mut Vec<u8>) {
    use std::io::Write;
    let mut sums: std::collections::BTreeMap<&[u8], [u64; 4]> = std::collections::BTreeMap::new();
    for line in parts.iter().flat_map(|part| part.split(|&byte| byte == b'\n')) {
        let mut words = line.split(|&byte| byte == b' ');
        let Some(prefix) = words.next().filter(|_| !line.is_empty()) else { continue };
        let sum = sums.entry(prefix).or_default();
        for (sum, word) in sum.iter_mut().zip(words) {
            *sum += std::str::from_utf8(word).ok().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    for (prefix, [get, hit, set, delete]) in sums {
        out.extend_from_slice(b"PREFIX ");
        out.extend_from_slice(prefix);
        let _ = write!(out, " get {get} hit {hit} set {set} del {delete}\r\n");
    }
    out.extend_from_slice(line::END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_all_shards_are_summed_by_prefix() {
        let parts = [b"user 1 1 2 0\n".to_vec(), b"page 3 0 0 1\nuser 4 2 0 0\n".to_vec(), Vec::new()];
        let mut out = Vec::new();
        render(&parts, &mut out);
        let expected =
            "PREFIX page get 3 hit 0 set 0 del 1\r\nPREFIX user get 5 hit 3 set 2 del 0\r\nEND\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
