//! Gets that need not be sent: one for the same key is under way, or its value is kept here. One shard's part.
//!
//! A get joins one that was sent before it unless something was written to the key since: so it never sees less than
//! it would have seen by being sent itself on the same connection. What *another* proxy, or a client that asks the cache
//! itself, wrote meanwhile it may not see, for the time of one round trip; and a value that is kept, for as long as
//! [`super::hot::HotOptions::stale_ms`] says. That is why both are off unless asked for.
//!
//! A write forgets the key when it is sent and again when it is answered, as a get may have been sent elsewhere in
//! between. Keys that routes change on the way are what the client calls them here: two names of one key do not know
//! of each other.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use corecached_protocol::{Command, MetaFlags, MetaVerb, Retrieve};

use super::hot::{Hot, HotOptions, Identity, Kept};

/// What to spare.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// Send identical gets once.
    pub single_flight: bool,
    /// Which keys to find, and what to keep of them.
    pub hot: HotOptions,
    /// Counts every `flush_all`, when it is sent and when it is answered.
    pub flushes: Arc<AtomicU64>,
}

/// What a command means to the gets for its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    #[default]
    Plain,
    /// It is a get that others may join.
    Leads {
        /// Of its key.
        hash: u64,
        /// When.
        asked_ms: u64,
    },
    /// It changes the value.
    Writes {
        /// Of its key.
        hash: u64,
    },
}

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent.
    Sent(Role),
    /// It gets the reply to the one with this number.
    Joins(u64),
    /// Its value is here.
    Kept(Kept),
}

/// See the head of the file.
#[derive(Debug)]
pub struct Merge {
    single_flight: bool,
    /// Gets under way that others may join, by the hash of key and command.
    flights: HashMap<u64, u64, BuildHasherDefault<Identity>>,
    hot: Option<Hot>,
    flushes: Arc<AtomicU64>,
    flushes_seen: u64,
    joined: u64,
    answered: u64,
}

impl Merge {
    /// `None` where there is nothing to spare.
    #[must_use]
    pub fn new(options: &MergeOptions) -> Option<Self> {
        let MergeOptions { single_flight, hot, flushes } = options;
        (*single_flight || hot.keys > 0).then(|| Self {
            single_flight: *single_flight,
            flights: HashMap::default(),
            hot: (hot.keys > 0).then(|| Hot::new(*hot)),
            flushes: Arc::clone(flushes),
            flushes_seen: flushes.load(Ordering::Acquire),
            joined: 0,
            answered: 0,
        })
    }

    /// Once a turn.
    pub fn begin_turn(&mut self) {
        let flushes = self.flushes.load(Ordering::Acquire);
        if flushes != self.flushes_seen {
            self.flushes_seen = flushes;
            self.flights.clear();
            if let Some(hot) = &mut self.hot {
                hot.forget_all();
            }
        }
    }

    /// What becomes of `command`, whose key has this `hash`. `is_same` tells whether the get under way with this number is
    /// for the same key.
    pub fn take(
        &mut self,
        command: &Command,
        hash: u64,
        now_ms: u64,
        is_same: impl FnOnce(u64) -> bool,
    ) -> Fate {
        let with_cas = match command {
            // One with a routing prefix goes where it says.
            Command::Retrieve(Retrieve { key: [b'/', ..], touch: None, .. }) => {
                return Fate::Sent(Role::Plain);
            }
            Command::Retrieve(Retrieve { key, touch: None, with_cas, .. }) => {
                if let (Some(hot), false) = (&mut self.hot, *with_cas)
                    && let Some(kept) = hot.get(hash, key, now_ms)
                {
                    self.answered += 1;
                    return Fate::Kept(kept);
                }
                *with_cas
            }
            Command::Meta(meta) if !writes(meta.verb, &meta.flags) => return Fate::Sent(Role::Plain),
            _ => {
                self.forget(hash);
                return Fate::Sent(Role::Writes { hash });
            }
        };
        if let Some(&number) = self.flights.get(&flight(hash, with_cas))
            && self.single_flight
            && is_same(number)
        {
            self.joined += 1;
            return Fate::Joins(number);
        }
        Fate::Sent(Role::Leads { hash: flight(hash, with_cas), asked_ms: now_ms })
    }

    /// A get that leads is under way as number `number`.
    pub fn sent(&mut self, flight: u64, number: u64) {
        self.flights.insert(flight, number);
    }

    /// The reply to the get that leads as `number` begins: nobody joins it any more. Whether nothing was written since
    /// it was sent.
    pub fn lands(&mut self, flight: u64, number: u64) -> bool {
        let is_current = self.flights.get(&flight) == Some(&number);
        if is_current {
            self.flights.remove(&flight);
        }
        is_current
    }

    /// The hot keys.
    pub const fn hot(&mut self) -> Option<&mut Hot> {
        self.hot.as_mut()
    }

    /// Something is, or was, written to the key with this hash.
    pub fn forget(&mut self, hash: u64) {
        self.flights.remove(&flight(hash, false));
        self.flights.remove(&flight(hash, true));
        if let Some(hot) = &mut self.hot {
            hot.forget(hash);
        }
    }

    /// Counters, each with its name in `stats`.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 4] {
        let (keys, bytes) = self.hot.as_ref().map_or((0, 0), |hot| (hot.len(), hot.bytes()));
        [
            ("single_flight_joined", self.joined),
            ("hot_key_hits", self.answered),
            ("hot_keys", keys as u64),
            ("hot_key_bytes", bytes as u64),
        ]
    }

    /// Gets that others may join.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// The hot keys, for `stats hot`.
    #[must_use]
    pub const fn hot_keys(&self) -> Option<&Hot> {
        self.hot.as_ref()
    }
}

/// What names a get under way: `gets` is answered otherwise than `get`.
const fn flight(hash: u64, with_cas: bool) -> u64 {
    hash ^ with_cas as u64
}

/// Whether a meta command changes the value, or how long it lives.
fn writes(verb: MetaVerb, flags: &MetaFlags<'_>) -> bool {
    match verb {
        MetaVerb::Get => flags.has(b'T') || flags.has(b'N'),
        MetaVerb::Debug => false,
        MetaVerb::Set | MetaVerb::Delete | MetaVerb::Arithmetic => true,
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{Limits, Parsed, Parser};

    use super::*;

    fn merge(single_flight: bool, keys: usize) -> Merge {
        let hot = HotOptions { keys, stale_ms: 100, bytes_max: 1000 };
        Merge::new(&MergeOptions { single_flight, hot, flushes: Arc::default() }).unwrap()
    }

    fn take(merge: &mut Merge, line: &str, now_ms: u64) -> Fate {
        let line = format!("{line}\r\n");
        let Ok(Parsed::Complete { value: command, .. }) =
            Parser::new().parse(line.as_bytes(), &Limits::default())
        else {
            panic!("{line}")
        };
        merge.take(&command, 1 << 40, now_ms, |_| true)
    }

    /// Sends a get as `number`.
    fn send(merge: &mut Merge, line: &str, number: u64, now_ms: u64) -> u64 {
        let Fate::Sent(Role::Leads { hash, .. }) = take(merge, line, now_ms) else {
            panic!("{line} is not sent")
        };
        merge.sent(hash, number);
        hash
    }

    #[test]
    fn a_get_joins_one_that_is_under_way_until_its_reply_begins() {
        let mut merge = merge(true, 0);
        let flight = send(&mut merge, "get k", 5, 0);
        assert_eq!(take(&mut merge, "get k", 1), Fate::Joins(5));
        let with_cas = send(&mut merge, "gets k", 6, 1);
        assert_eq!(take(&mut merge, "gets k", 1), Fate::Joins(6));
        assert!(merge.lands(flight, 5) && merge.lands(with_cas, 6));
        send(&mut merge, "get k", 7, 2);
        assert!(!merge.lands(flight, 5), "another is under way");
        assert_eq!(merge.counters()[0], ("single_flight_joined", 2));
    }

    #[test]
    fn nobody_joins_a_get_from_before_a_write() {
        for write in [
            "set k 0 0 1",
            "delete k",
            "incr k 1",
            "touch k 1",
            "gat 1 k",
            "ms k 1",
            "md k",
            "mg k N9",
            "mg k T9",
        ] {
            let mut merge = merge(true, 0);
            let flight = send(&mut merge, "get k", 5, 0);
            assert!(matches!(take(&mut merge, write, 0), Fate::Sent(Role::Writes { .. })), "{write}");
            send(&mut merge, "get k", 6, 0);
            assert_eq!(take(&mut merge, "get k", 0), Fate::Joins(6), "{write}");
            assert!(!merge.lands(flight, 5), "{write}: its value is from before");
        }
        let mut merge = merge(true, 0);
        send(&mut merge, "get k", 5, 0);
        for other in ["mg k v", "me k", "get /a/b/k"] {
            assert_eq!(take(&mut merge, other, 0), Fate::Sent(Role::Plain));
        }
        assert_eq!(take(&mut merge, "get k", 0), Fate::Joins(5));
    }

    #[test]
    fn a_flush_forgets_everything() {
        let mut merge = merge(true, 4);
        send(&mut merge, "get k", 5, 0);
        merge.begin_turn();
        assert_eq!(take(&mut merge, "get k", 0), Fate::Joins(5));
        merge.flushes.fetch_add(1, Ordering::Release);
        merge.begin_turn();
        send(&mut merge, "get k", 6, 0);
    }

    #[test]
    fn a_kept_value_is_the_answer_to_get_alone_and_to_nothing_after_a_write() {
        let mut merge = merge(false, 4);
        for number in 0..2 {
            let flight = send(&mut merge, "get k", number, 0);
            assert!(merge.lands(flight, number));
            merge.hot().unwrap().keep(1 << 40, b"k", 0, b"v", 0, 0);
        }
        assert!(matches!(take(&mut merge, "get k", 1), Fate::Kept(_)));
        assert!(matches!(take(&mut merge, "gets k", 1), Fate::Sent(Role::Leads { .. })));
        take(&mut merge, "set k 0 0 1", 2);
        assert!(matches!(take(&mut merge, "get k", 2), Fate::Sent(Role::Leads { .. })));
        assert_eq!(merge.counters()[1], ("hot_key_hits", 1));
    }

    #[test]
    fn without_single_flight_nobody_joins() {
        let mut merge = merge(false, 4);
        send(&mut merge, "get k", 5, 0);
        send(&mut merge, "get k", 6, 0);
        assert!(
            Merge::new(&MergeOptions {
                single_flight: false,
                hot: HotOptions { keys: 0, stale_ms: 1, bytes_max: 1 },
                flushes: Arc::default()
            })
            .is_none()
        );
    }
}
