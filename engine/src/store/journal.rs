//! The journal of evictions, for callers that want to know of them. When it is off, it costs one branch per
//! eviction.

use crate::clock::{self, Seconds};
use crate::index::Index;
use crate::item::{Location, flag};

use super::Store;

/// Bytes of keys in the journal. When it is full, further evictions are only counted.
const JOURNAL_KEY_BYTES_MAX: usize = 32 * 1024;

/// An item that was evicted: dropped before it expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted<'k> {
    /// The key.
    pub key: &'k [u8],
    /// Whether it was read since it was stored.
    pub fetched: bool,
    /// When it would have expired; `None` for never.
    pub expires: Option<Seconds>,
    /// About when it was last written or moved (see [`Item::last_access`](crate::Item::last_access)).
    pub last_access: Seconds,
    /// Length of its value, bytes.
    pub value_len: usize,
}

/// Evictions since the journal was last taken.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The keys of all entries, one after the other.
    keys: Vec<u8>,
    entries: Vec<JournalEntry>,
    /// Evictions for which there was no room.
    omitted: u64,
}

/// An evicted item.
#[derive(Debug)]
struct JournalEntry {
    /// Where its key ends in `Journal::keys`; it starts at the end of the key before.
    key_end: usize,
    fetched: bool,
    expires: Option<Seconds>,
    last_access: Seconds,
    value_len: usize,
}

impl<I: Index> Store<I> {
    /// Turns the journal of evictions on or off. Turning it off empties it.
    pub fn keep_journal(&mut self, on: bool) {
        if on != self.journal.is_some() {
            self.journal = on.then(Box::default);
        }
    }

    /// Whether the journal of evictions is on.
    #[inline]
    pub fn keeps_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Empties the journal: calls `visit` for each evicted item in it, in order, and returns the number of
    /// further evictions for which it had no room.
    pub fn take_journal(&mut self, mut visit: impl FnMut(&Evicted<'_>)) -> u64 {
        let Some(journal) = &mut self.journal else { return 0 };
        let mut start = 0;
        for entry in journal.entries.drain(..) {
            let JournalEntry { key_end, fetched, expires, last_access, value_len } = entry;
            visit(&Evicted { key: &journal.keys[start..key_end], fetched, expires, last_access, value_len });
            start = key_end;
        }
        journal.keys.clear();
        std::mem::take(&mut journal.omitted)
    }

    /// Adds the item at `at`, which is about to be dropped, to the journal.
    pub(super) fn note_eviction(&mut self, at: Location) {
        let Some(mut journal) = self.journal.take() else { return };
        let record = self.record(at);
        if journal.keys.len() + record.key().len() > JOURNAL_KEY_BYTES_MAX {
            journal.omitted += 1;
        } else {
            journal.keys.extend_from_slice(record.key());
            let segments = &self.log.segments;
            journal.entries.push(JournalEntry {
                key_end: journal.keys.len(),
                fetched: record.has(flag::FETCHED),
                expires: clock::from_stored(record.expires()),
                last_access: Seconds(segments[segments.segment_of(at.offset())].opened_s),
                value_len: record.value_len(),
            });
        }
        self.journal = Some(journal);
    }
}
