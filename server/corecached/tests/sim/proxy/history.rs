//! The values that each key may hold: every write, with its number, the time of the request and its result. A
//! key is written by one client only, in order, and read by all.
//!
//! The client flags of a value are the number of the write that stored it, so that even empty values can be
//! distinguished.

use std::collections::{BTreeMap, BTreeSet};

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It has no reply yet.
    Open,
    /// It was done; its reply came in this step.
    Done(u64),
    /// It was not done, and will not be.
    Never,
    /// It failed, or its reply is not known: it may have been done, or may be later.
    Unknown,
}

/// One write of a key. Its number is its index.
#[derive(Clone, Copy, Debug)]
struct Write {
    /// Bytes of the value; `None` deletes.
    value_len: Option<usize>,
    settled: Settled,
}

/// The writes of one key, and the destinations that received requests for it.
#[derive(Debug)]
struct Key {
    /// The first one stands for the time before the first write.
    writes: Vec<Write>,
    /// Numbers of the writes that arrived on a connection that the proxy had given up.
    late: BTreeSet<u32>,
    /// A delete arrived on such a connection.
    deleted_late: bool,
    /// Destinations that received a request for the key.
    destinations: BTreeSet<usize>,
}

impl Default for Key {
    fn default() -> Self {
        let absent = Write { value_len: None, settled: Settled::Done(0) };
        Self {
            writes: vec![absent],
            late: BTreeSet::new(),
            deleted_late: false,
            destinations: BTreeSet::new(),
        }
    }
}

impl Key {
    /// The last write up to number `last` that was known at `step` to be done.
    fn floor(&self, last: u32, step: u64) -> u32 {
        let done = |write: &Write| matches!(write.settled, Settled::Done(at) if at <= step);
        self.writes[..=last as usize].iter().rposition(done).map_or(0, |at| at as u32)
    }
}

/// A pending read, and the writes that it may see.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) key: Vec<u8>,
    /// The first write; `None` is the last one that is known to be done when the reply arrives.
    from: Option<u32>,
    /// The last write before the read; `None` where another client writes the key.
    own: Option<u32>,
    /// The last write; `None` is the last one that was requested when the reply arrives.
    to: Option<u32>,
}

/// Every write of every key.
#[derive(Debug)]
pub(crate) struct History {
    keys: BTreeMap<Vec<u8>, Key>,
    one_copy: bool,
    pub(crate) ordered: bool,
    one_after_other: bool,
    /// The number of the simulation's step: it orders everything that happens.
    pub(crate) step: u64,
}

impl History {
    /// With `one_copy`, each key is on one destination. With `ordered`, no read sees a copy that was not
    /// written. With `one_after_other`, a read may try one copy after the other, and see what was written
    /// after it.
    pub(crate) fn new(one_copy: bool, ordered: bool, one_after_other: bool) -> Self {
        Self { keys: BTreeMap::new(), one_copy, ordered, one_after_other, step: 0 }
    }

    fn key(&mut self, key: &[u8]) -> &mut Key {
        self.keys.entry(key.to_vec()).or_default()
    }

    /// Adds a write that is about to be requested and returns its number.
    pub(crate) fn begin(&mut self, key: &[u8], value_len: Option<usize>) -> u32 {
        let writes = &mut self.key(key).writes;
        writes.push(Write { value_len, settled: Settled::Open });
        writes.len() as u32 - 1
    }

    pub(crate) fn settle(&mut self, key: &[u8], number: u32, settled: Settled) {
        let ordered = self.ordered;
        let write = &mut self.key(key).writes[number as usize];
        assert_eq!(write.settled, Settled::Open);
        write.settled = if settled == Settled::Never && !ordered { Settled::Unknown } else { settled };
    }

    /// A read that is about to be requested, by the client that writes the key or by another one.
    pub(crate) fn read(&mut self, key: &[u8], is_own: bool) -> Read {
        let (step, may_see_later) = (self.step, self.one_after_other);
        let entry = self.key(key);
        let last = entry.writes.len() as u32 - 1;
        let own = is_own.then_some(last);
        let from = (!is_own).then(|| entry.floor(last, step));
        Read { key: key.to_vec(), from, own, to: own.filter(|_| !may_see_later) }
    }

    /// Whether the read may have found nothing.
    pub(crate) fn may_be_absent(&self, read: &Read) -> bool {
        let key = &self.keys[&read.key];
        let (from, to) = self.span(key, read);
        let absent = |write: &Write| write.value_len.is_none() && write.settled != Settled::Never;
        key.deleted_late || key.writes[from as usize..=to as usize].iter().any(absent)
    }

    /// Whether the read may have found a value.
    pub(crate) fn may_be_present(&self, read: &Read) -> bool {
        let key = &self.keys[&read.key];
        let (from, to) = self.span(key, read);
        let present = |write: &Write| write.value_len.is_some() && write.settled != Settled::Never;
        !key.late.is_empty() || key.writes[from as usize..=to as usize].iter().any(present)
    }

    /// The writes that the read may have seen, for messages.
    pub(crate) fn shown(&self, read: &Read) -> String {
        let key = &self.keys[&read.key];
        let (from, to) = self.span(key, read);
        format!("{from} to {to} of {:?}, late {:?}", key.writes, key.late)
    }

    /// Checks that the read may have found this value with these client flags.
    pub(crate) fn check_value(&self, read: &Read, flags: u32, value: &[u8]) {
        let name = read.key.escape_ascii();
        let Some(key) = self.keys.get(&read.key) else { panic!("{name}: it was never requested") };
        let (from, to) = self.span(key, read);
        let write = key.writes.get(flags as usize);
        let Some(Write { value_len: Some(len), settled }) = write.copied() else {
            panic!("{name}: value {flags} was never stored: {:?}", key.writes)
        };
        assert!(value == contents(&read.key, flags, len), "{name}: not the bytes of value {flags}");
        assert!(flags <= to, "{name}: value {flags} is from after the read, which is before {to}");
        assert_ne!(settled, Settled::Never, "{name}: value {flags} was said not to be stored");
        let is_old = flags < from && !key.late.contains(&flags);
        assert!(!is_old, "{name}: value {flags} was overwritten, by {from} at the latest");
    }

    fn span(&self, key: &Key, read: &Read) -> (u32, u32) {
        let to = read.to.unwrap_or(key.writes.len() as u32 - 1);
        let from = if self.ordered {
            read.from.unwrap_or_else(|| key.floor(read.own.unwrap_or(to), u64::MAX))
        } else {
            0
        };
        (from, to)
    }

    /// A destination received a request for the key.
    pub(crate) fn requested(&mut self, key: &[u8], destination: usize) {
        let one_copy = self.one_copy;
        let destinations = &mut self.key(key).destinations;
        destinations.insert(destination);
        assert!(!one_copy || destinations.len() == 1, "{} went to two destinations", key.escape_ascii());
    }

    /// Destinations that requests for the key go to; empty when that is not known.
    pub(crate) fn destinations(&self, key: &[u8]) -> BTreeSet<usize> {
        self.keys.get(key).filter(|_| self.one_copy).map(|key| key.destinations.clone()).unwrap_or_default()
    }

    /// The write with this number, or a delete for `None`, arrived on a connection that the proxy had given
    /// up.
    pub(crate) fn written_late(&mut self, key: &[u8], flags: Option<u32>) {
        let key = self.key(key);
        match flags {
            Some(flags) => _ = key.late.insert(flags),
            None => key.deleted_late = true,
        }
    }
}

/// The value that write `number` of `key` stores: key and number, repeated, with the bytes that end lines and
/// replies.
pub(crate) fn contents(key: &[u8], number: u32, len: usize) -> Vec<u8> {
    let unit = [key, b"#", number.to_string().as_bytes(), b"\r\nEND\r\n"].concat();
    unit.into_iter().cycle().take(len).collect()
}
