//! The invariants at the head of the crate, checked by walking everything: for tests and fuzzing.

use std::collections::HashMap;

use crate::index::Index;
use crate::item::{self, Location, Met, Piece, Record};
use crate::segment::Place;

use super::{LogKeys, Store};

impl<I: Index> Store<I> {
    /// Panics unless every index entry points at a record whose key hashes there, live bytes add up per
    /// segment, each segment is in exactly one place, and counters agree. Takes time in proportion to the
    /// store, and memory: not for production.
    pub fn check_invariants(&self) {
        let segments = &self.log.segments;
        segments.check_invariants();
        let mut live: HashMap<u32, usize> = HashMap::new();
        let mut add = |at: Location, bytes: usize| {
            let number = segments.holding(at.at());
            assert!(segments[number].place != Place::Free, "a record in a free segment");
            let end = at.at() + bytes - segments.start(number);
            assert!(end <= segments[number].written as usize, "a record past what was written");
            *live.entry(number).or_default() += bytes;
            bytes
        };
        let (mut items, mut bytes) = (0, 0);
        self.index.for_each(|at| {
            assert!(matches!(item::meet(&self.log.arena, at).0, Met::Item), "an entry for a piece");
            let record = Record::read(&self.log.arena, at);
            let hash = self.config.hasher.hash(record.key());
            let found = self.index.find(hash, |other| other == at);
            assert!(found.is_some(), "an entry where its key does not hash to");
            let same_key = |other| item::has_key(&self.log.arena, other, record.key());
            assert_eq!(self.index.find(hash, same_key), found, "two entries for a key");
            items += 1;
            bytes += add(at, record.bytes());
            let mut len = 0;
            for (ordinal, at) in record.pieces().enumerate() {
                let piece = Piece::read(&self.log.arena, at);
                assert!(piece.ordinal == ordinal && piece.hash == hash, "a piece of another item");
                bytes += add(at, Piece::bytes(piece.len));
                len += piece.len;
            }
            assert!(!record.is_large() || len == record.value_len(), "pieces of another length");
        });
        self.index.check_invariants(&LogKeys { arena: &self.log.arena, hasher: &self.config.hasher });
        assert_eq!(items, self.index.len());
        assert_eq!(items as u64, self.counts.items);
        assert_eq!(bytes as u64, self.counts.bytes);
        let uploads = self.counts.uploads > 0;
        for number in 0..segments.count() {
            let held = live.get(&number).copied().unwrap_or(0);
            let state = &segments[number];
            assert!(held <= state.live as usize, "segment {number} holds more than it knows");
            // What unfinished uploads hold is known to them alone; their segments are pinned.
            assert!(
                held == state.live as usize || (uploads && state.pins > 0),
                "segment {number} lost bytes"
            );
            let idle = state.live == 0 && state.pins == 0 && !state.open && state.place != Place::Scanned;
            assert!(!idle || state.place == Place::Free, "segment {number} is empty and not free");
        }
    }

    /// What a walk meets at `at`, where a record begins, and its bytes.
    #[cfg(test)]
    pub(crate) fn meet(&self, at: item::Location) -> (item::Met, usize) {
        item::meet(&self.log.arena, at)
    }
}
