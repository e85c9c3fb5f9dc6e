//! What was dropped while it lived, for whoever asked to be told. Off, it costs a branch an eviction.

use crate::clock::Seconds;
use crate::index::Index;
use crate::item::{self, Location, flag};

use super::Store;

/// Bytes of keys kept until they are asked for; what is dropped past that goes untold.
const KEY_BYTES_MAX: usize = 32 * 1024;

/// An item that was dropped while it lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted<'k> {
    /// Its key.
    pub key: &'k [u8],
    /// It had been read.
    pub fetched: bool,
    /// When it would have died.
    pub expires: Option<Seconds>,
    /// Best knowledge of its last write or move.
    pub last_access: Seconds,
    /// Bytes of its value.
    pub value_len: usize,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Journal {
    keys: Vec<u8>,
    entries: Vec<Entry>,
    untold: u64,
}

#[derive(Debug)]
struct Entry {
    key_end: usize,
    fetched: bool,
    expires: Option<Seconds>,
    last_access: Seconds,
    value_len: usize,
}

impl<I: Index> Store<I> {
    /// Keep a journal of evictions from now on, or no longer.
    pub fn keep_journal(&mut self, on: bool) {
        if on != self.journal.is_some() {
            self.journal = on.then(Box::default);
        }
    }

    /// Whether one is kept.
    #[inline]
    pub fn keeps_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Gives `told` each eviction since the last call; returns how many more there was no room for.
    pub fn take_journal(&mut self, mut told: impl FnMut(&Evicted<'_>)) -> u64 {
        let Some(journal) = &mut self.journal else { return 0 };
        let mut start = 0;
        for entry in journal.entries.drain(..) {
            let Entry { key_end, fetched, expires, last_access, value_len } = entry;
            told(&Evicted { key: &journal.keys[start..key_end], fetched, expires, last_access, value_len });
            start = key_end;
        }
        journal.keys.clear();
        std::mem::take(&mut journal.untold)
    }

    /// The item at `at` is about to go.
    pub(super) fn note_eviction(&mut self, at: Location) {
        let Some(mut journal) = self.journal.take() else { return };
        let record = self.record(at);
        if journal.keys.len() + record.key().len() > KEY_BYTES_MAX {
            journal.untold += 1;
        } else {
            journal.keys.extend_from_slice(record.key());
            let segments = &self.log.segments;
            journal.entries.push(Entry {
                key_end: journal.keys.len(),
                fetched: record.has(flag::FETCHED),
                expires: item::seconds(record.expires()),
                last_access: Seconds(segments[segments.holding(at.at())].opened_s),
                value_len: record.value_len(),
            });
        }
        self.journal = Some(journal);
    }
}
