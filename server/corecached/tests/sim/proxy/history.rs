//! What each key may hold: every write with its number, when it was asked for and what became of it. A key is written
//! by one client alone, in order; anybody may read it.
//!
//! The client flags of a value are the number of the write that stored it, so that even empty ones can be told apart.

use std::collections::{BTreeMap, BTreeSet};

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has no reply.
    Open,
    /// It was done; its reply came in this step.
    Done(u64),
    /// It was not done, and will not be.
    Never,
    /// It failed, or its reply is not known: it may have been done, or may be later.
    Unknown,
}

/// One write of a key, which is numbered by its place.
#[derive(Clone, Copy, Debug)]
struct Write {
    /// Bytes of the value; `None` deletes.
    value_len: Option<usize>,
    settled: Settled,
}

/// What is known of one key.
#[derive(Debug)]
struct Key {
    /// The first stands for the key's never having been written.
    writes: Vec<Write>,
    /// Values that were stored by a connection that the proxy had given up.
    late: BTreeSet<u32>,
    /// Such a connection deleted it.
    deleted_late: bool,
    /// Destinations that were asked about it.
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
    /// The last write up to number `last` that certainly was done, and known to be at `step`.
    fn floor(&self, last: u32, step: u64) -> u32 {
        let done = |write: &Write| matches!(write.settled, Settled::Done(at) if at <= step);
        self.writes[..=last as usize].iter().rposition(done).map_or(0, |at| at as u32)
    }
}

/// A read under way, and the writes it may see.
#[derive(Clone, Debug)]
pub struct Read {
    pub key: Vec<u8>,
    /// The first; `None` is told from what was done by the time of the reply.
    from: Option<u32>,
    /// The last before it, where that is known: of whoever writes the key.
    own: Option<u32>,
    /// The last; `None` is any that was asked for by the time of the reply.
    to: Option<u32>,
}

/// See the head of the file.
#[derive(Debug)]
pub struct History {
    keys: BTreeMap<Vec<u8>, Key>,
    one_copy: bool,
    pub ordered: bool,
    one_after_other: bool,
    /// Raised with everything that happens anywhere.
    pub step: u64,
}

impl History {
    /// Of keys that are on `one_copy` each; or requests for them are `ordered` at least, so that nobody reads from a copy
    /// that was not written. Reads may ask one copy after the other, and so see what was written behind them.
    pub fn new(one_copy: bool, ordered: bool, one_after_other: bool) -> Self {
        Self { keys: BTreeMap::new(), one_copy, ordered, one_after_other, step: 0 }
    }

    fn key(&mut self, key: &[u8]) -> &mut Key {
        self.keys.entry(key.to_vec()).or_default()
    }

    /// A write that is about to be asked for; its number.
    pub fn begin(&mut self, key: &[u8], value_len: Option<usize>) -> u32 {
        let writes = &mut self.key(key).writes;
        writes.push(Write { value_len, settled: Settled::Open });
        writes.len() as u32 - 1
    }

    pub fn settle(&mut self, key: &[u8], number: u32, settled: Settled) {
        let ordered = self.ordered;
        let write = &mut self.key(key).writes[number as usize];
        assert_eq!(write.settled, Settled::Open);
        write.settled = if settled == Settled::Never && !ordered { Settled::Unknown } else { settled };
    }

    /// A read, by whoever writes the key or by somebody else.
    pub fn read(&mut self, key: &[u8], is_own: bool) -> Read {
        let (step, may_see_later) = (self.step, self.one_after_other);
        let entry = self.key(key);
        let last = entry.writes.len() as u32 - 1;
        let own = is_own.then_some(last);
        let from = (!is_own).then(|| entry.floor(last, step));
        Read { key: key.to_vec(), from, own, to: own.filter(|_| !may_see_later) }
    }

    /// Whether the read may have found nothing.
    pub fn may_be_absent(&self, read: &Read) -> bool {
        let key = &self.keys[&read.key];
        let (from, to) = self.span(key, read);
        let absent = |write: &Write| write.value_len.is_none() && write.settled != Settled::Never;
        key.deleted_late || key.writes[from as usize..=to as usize].iter().any(absent)
    }

    /// Whether it may have found something.
    pub fn may_be_present(&self, read: &Read) -> bool {
        let key = &self.keys[&read.key];
        let (from, to) = self.span(key, read);
        let present = |write: &Write| write.value_len.is_some() && write.settled != Settled::Never;
        !key.late.is_empty() || key.writes[from as usize..=to as usize].iter().any(present)
    }

    /// What it may have seen, in words.
    pub fn shown(&self, read: &Read) -> String {
        let key = &self.keys[&read.key];
        let (from, to) = self.span(key, read);
        format!("{from} to {to} of {:?}, late {:?}", key.writes, key.late)
    }

    /// The read found this value with these client flags.
    pub fn check_value(&self, read: &Read, flags: u32, value: &[u8]) {
        let name = read.key.escape_ascii();
        let Some(key) = self.keys.get(&read.key) else { panic!("{name}: nobody asked for it") };
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

    /// A destination was asked about the key.
    pub fn asked(&mut self, key: &[u8], destination: usize) {
        let one_copy = self.one_copy;
        let destinations = &mut self.key(key).destinations;
        destinations.insert(destination);
        assert!(!one_copy || destinations.len() == 1, "{} went to two destinations", key.escape_ascii());
    }

    /// Destinations that requests for the key go to, as far as is known.
    pub fn destinations(&self, key: &[u8]) -> BTreeSet<usize> {
        self.keys.get(key).filter(|_| self.one_copy).map(|key| key.destinations.clone()).unwrap_or_default()
    }

    /// A connection that the proxy had given up stored this value, or deleted the key.
    pub fn written_late(&mut self, key: &[u8], flags: Option<u32>) {
        let key = self.key(key);
        match flags {
            Some(flags) => _ = key.late.insert(flags),
            None => key.deleted_late = true,
        }
    }
}

/// The value that write `number` of `key` stores: its name and number over and over, and what ends lines and blocks.
pub fn contents(key: &[u8], number: u32, len: usize) -> Vec<u8> {
    let unit = [key, b"#", number.to_string().as_bytes(), b"\r\nEND\r\n"].concat();
    unit.into_iter().cycle().take(len).collect()
}
