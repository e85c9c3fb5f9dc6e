//! Gets that are answered without being sent: a get of the same key is pending, or the value is kept here.
//! One shard's part.
//!
//! A get joins one that was sent before it unless the key was written to since. So it never sees less than it
//! would have seen if it had been sent itself on the same connection. It may not see what *another* proxy, or
//! a client that asks the cache directly, wrote meanwhile: for the time of one round trip if it joined, and
//! for [`HotOptions::stale_ms`](super::hot::HotOptions::stale_ms) if it got a kept value. That is why both
//! are off by default.
//!
//! A write invalidates the key when it is sent, and again when it is answered, as a get may have been sent by
//! another connection in between. A key is known here as the client named it: where routes give two names to
//! one key, a write to the one does not invalidate the other.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use corecached_protocol::{Command, Retrieve};

use super::hot::{HotKeys, HotOptions, Identity, KeptValue};

/// Which gets are answered without being sent.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// Send identical gets once, while one is pending.
    pub single_flight: bool,
    /// Which hot keys to find, and how long to keep their values.
    pub hot: HotOptions,
    /// Counts every `flush_all` of any shard, once when it is sent and once when it is answered.
    pub flushes: Arc<AtomicU64>,
}

/// What a pending request means to gets of the same key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MergeRole {
    /// Nothing.
    #[default]
    Plain,
    /// It is a get, which others may join.
    Leads {
        /// The hash of key and command.
        hash: u64,
        /// When it was sent, unix milliseconds.
        asked_ms: u64,
    },
    /// It changes the value.
    Writes {
        /// The hash of the key.
        hash: u64,
    },
}

/// What is done with a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MergeDecision {
    /// It is sent, in this role.
    Send(MergeRole),
    /// It gets the reply to the pending request with this number.
    Join(u64),
    /// It gets this value.
    Answer(KeptValue),
}

/// The gets that others may join, and the values of hot keys.
#[derive(Debug)]
pub(crate) struct Merge {
    single_flight: bool,
    /// The numbers of the pending gets that others may join, by the hash of key and command.
    flights: HashMap<u64, u64, BuildHasherDefault<Identity>>,
    hot: Option<HotKeys>,
    flushes: Arc<AtomicU64>,
    /// The value of `flushes` up to which everything was forgotten.
    flushes_seen: u64,
    /// Gets that joined another.
    joined: u64,
    /// Gets that were answered with a kept value.
    answered: u64,
}

impl Merge {
    /// `None` if both single flight and hot keys are off.
    #[must_use]
    pub(crate) fn new(options: &MergeOptions) -> Option<Self> {
        let MergeOptions { single_flight, hot, flushes } = options;
        (*single_flight || hot.keys > 0).then(|| Self {
            single_flight: *single_flight,
            flights: HashMap::default(),
            hot: (hot.keys > 0).then(|| HotKeys::new(*hot)),
            flushes: Arc::clone(flushes),
            flushes_seen: flushes.load(Ordering::Acquire),
            joined: 0,
            answered: 0,
        })
    }

    /// Begins a turn. After a `flush_all` of any shard, nothing that was known before is used any more.
    pub(crate) fn begin_turn(&mut self) {
        let flushes = self.flushes.load(Ordering::Acquire);
        debug_assert!(flushes >= self.flushes_seen, "flushes are only ever counted up");
        if flushes != self.flushes_seen {
            self.flushes_seen = flushes;
            self.flights.clear();
            if let Some(hot) = &mut self.hot {
                hot.forget_all();
            }
        }
    }

    /// Decides what is done with `command`, whose key has this `hash`. `is_same` says whether the pending
    /// request with a number is for the same key.
    pub(crate) fn decide(
        &mut self,
        command: &Command,
        hash: u64,
        now_ms: u64,
        is_same: impl FnOnce(u64) -> bool,
    ) -> MergeDecision {
        let with_cas = match command {
            // A key with a routing prefix goes where the prefix says.
            Command::Retrieve(Retrieve { key: [b'/', ..], touch: None, .. }) => {
                return MergeDecision::Send(MergeRole::Plain);
            }
            Command::Retrieve(Retrieve { key, touch: None, with_cas, .. }) => {
                if let (Some(hot), false) = (&mut self.hot, *with_cas)
                    && let Some(kept) = hot.get(hash, key, now_ms)
                {
                    self.answered += 1;
                    return MergeDecision::Answer(kept);
                }
                *with_cas
            }
            _ if command.is_read() => return MergeDecision::Send(MergeRole::Plain),
            _ => {
                self.forget(hash);
                return MergeDecision::Send(MergeRole::Writes { hash });
            }
        };
        if let Some(&number) = self.flights.get(&flight(hash, with_cas))
            && self.single_flight
            && is_same(number)
        {
            self.joined += 1;
            return MergeDecision::Join(number);
        }
        MergeDecision::Send(MergeRole::Leads { hash: flight(hash, with_cas), asked_ms: now_ms })
    }

    /// A get that leads was sent as request `number`: others may join it.
    pub(crate) fn begin_flight(&mut self, flight: u64, number: u64) {
        self.flights.insert(flight, number);
    }

    /// The reply to the get `number`, which leads, begins: no other get joins it any more. Returns whether
    /// nothing was written to the key since the get was sent.
    pub(crate) fn end_flight(&mut self, flight: u64, number: u64) -> bool {
        let is_current = self.flights.get(&flight) == Some(&number);
        if is_current {
            self.flights.remove(&flight);
        }
        is_current
    }

    /// The hot keys, if they are looked for.
    pub(crate) const fn hot_mut(&mut self) -> Option<&mut HotKeys> {
        self.hot.as_mut()
    }

    /// The key with this hash is being written to, or was: forgets what is known of its value.
    pub(crate) fn forget(&mut self, hash: u64) {
        self.flights.remove(&flight(hash, false));
        self.flights.remove(&flight(hash, true));
        if let Some(hot) = &mut self.hot {
            hot.forget(hash);
        }
    }

    /// The counters, each with its name in `stats`.
    #[must_use]
    pub(crate) fn counters(&self) -> [(&'static str, u64); 4] {
        let (keys, bytes) = self.hot.as_ref().map_or((0, 0), |hot| (hot.len(), hot.bytes()));
        [
            ("single_flight_joined", self.joined),
            ("hot_key_hits", self.answered),
            ("hot_keys", keys as u64),
            ("hot_key_bytes", bytes as u64),
        ]
    }

    /// The number of pending gets that others may join.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// The hot keys, for `stats hot`, if they are looked for.
    #[must_use]
    pub(crate) const fn hot_keys(&self) -> Option<&HotKeys> {
        self.hot.as_ref()
    }
}

/// The name of a get in [`Merge::flights`]: `gets` and `get` of one key get different replies.
const fn flight(hash: u64, with_cas: bool) -> u64 {
    hash ^ with_cas as u64
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{Limits, Parsed, Parser};

    use super::*;

    fn merge(single_flight: bool, keys: usize) -> Merge {
        let hot = HotOptions { keys, stale_ms: 100, bytes_max: 1000 };
        Merge::new(&MergeOptions { single_flight, hot, flushes: Arc::default() }).unwrap()
    }

    fn decide(merge: &mut Merge, line: &str, now_ms: u64) -> MergeDecision {
        let line = format!("{line}\r\n");
        let Ok(Parsed::Complete { value: command, .. }) =
            Parser::new().parse(line.as_bytes(), &Limits::default())
        else {
            panic!("{line}")
        };
        merge.decide(&command, 1 << 40, now_ms, |_| true)
    }

    /// Sends a get as `number`.
    fn send(merge: &mut Merge, line: &str, number: u64, now_ms: u64) -> u64 {
        let MergeDecision::Send(MergeRole::Leads { hash, .. }) = decide(merge, line, now_ms) else {
            panic!("{line} is not sent")
        };
        merge.begin_flight(hash, number);
        hash
    }

    #[test]
    fn a_get_joins_one_that_is_under_way_until_its_reply_begins() {
        let mut merge = merge(true, 0);
        let flight = send(&mut merge, "get k", 5, 0);
        assert_eq!(decide(&mut merge, "get k", 1), MergeDecision::Join(5));
        let with_cas = send(&mut merge, "gets k", 6, 1);
        assert_eq!(decide(&mut merge, "gets k", 1), MergeDecision::Join(6));
        assert!(merge.end_flight(flight, 5) && merge.end_flight(with_cas, 6));
        send(&mut merge, "get k", 7, 2);
        assert!(!merge.end_flight(flight, 5), "another is under way");
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
            assert!(
                matches!(decide(&mut merge, write, 0), MergeDecision::Send(MergeRole::Writes { .. })),
                "{write}"
            );
            send(&mut merge, "get k", 6, 0);
            assert_eq!(decide(&mut merge, "get k", 0), MergeDecision::Join(6), "{write}");
            assert!(!merge.end_flight(flight, 5), "{write}: its value is from before");
        }
        let mut merge = merge(true, 0);
        send(&mut merge, "get k", 5, 0);
        for other in ["mg k v", "me k", "get /a/b/k"] {
            assert_eq!(decide(&mut merge, other, 0), MergeDecision::Send(MergeRole::Plain));
        }
        assert_eq!(decide(&mut merge, "get k", 0), MergeDecision::Join(5));
    }

    #[test]
    fn a_flush_forgets_everything() {
        let mut merge = merge(true, 4);
        send(&mut merge, "get k", 5, 0);
        merge.begin_turn();
        assert_eq!(decide(&mut merge, "get k", 0), MergeDecision::Join(5));
        merge.flushes.fetch_add(1, Ordering::Release);
        merge.begin_turn();
        send(&mut merge, "get k", 6, 0);
    }

    #[test]
    fn a_kept_value_is_the_answer_to_get_alone_and_to_nothing_after_a_write() {
        let mut merge = merge(false, 4);
        for number in 0..2 {
            let flight = send(&mut merge, "get k", number, 0);
            assert!(merge.end_flight(flight, number));
            merge.hot_mut().unwrap().keep(1 << 40, b"k", 0, b"v", 0, 0);
        }
        assert!(matches!(decide(&mut merge, "get k", 1), MergeDecision::Answer(_)));
        assert!(matches!(decide(&mut merge, "gets k", 1), MergeDecision::Send(MergeRole::Leads { .. })));
        decide(&mut merge, "set k 0 0 1", 2);
        assert!(matches!(decide(&mut merge, "get k", 2), MergeDecision::Send(MergeRole::Leads { .. })));
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
