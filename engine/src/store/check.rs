//! A check of the invariants of the crate, for tests and fuzzing.

use std::collections::HashMap;

use crate::index::Index;
use crate::item::{self, Location, Piece, Record, RecordKind};
use crate::segment::SegmentState;

use super::{LogKeyReader, Store};

impl<I: Index> Store<I> {
    /// Panics unless the invariants in the documentation of the crate hold: each index entry is of a record
    /// with a key of its hash, live bytes add up in each segment, each segment is in exactly one list, and
    /// counters agree. For tests: takes time and memory in proportion to the store.
    pub fn check_invariants(&self) {
        let segments = &self.log.segments;
        segments.check_invariants();
        let mut live: HashMap<u32, usize> = HashMap::new();
        let mut add = |at: Location, bytes: usize| {
            let number = segments.segment_of(at.offset());
            assert!(segments[number].state != SegmentState::Free, "a record in a free segment");
            let end = at.offset() + bytes - segments.start(number);
            assert!(end <= segments[number].written as usize, "a record past what was written");
            *live.entry(number).or_default() += bytes;
            bytes
        };
        let (mut items, mut bytes) = (0, 0);
        self.index.for_each(|at| {
            assert!(
                matches!(item::kind_and_bytes(&self.log.arena, at).0, RecordKind::Item),
                "an entry for a piece"
            );
            let record = Record::read(&self.log.arena, at);
            let hash = self.config.hasher.hash(record.key());
            let found = self.index.find(hash, |other| other == at);
            assert!(found.is_some(), "an entry that the hash of its key does not find");
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
        self.index.check_invariants(&LogKeyReader { arena: &self.log.arena, hasher: &self.config.hasher });
        assert_eq!(items, self.index.len());
        assert_eq!(items as u64, self.counts.items);
        assert_eq!(bytes as u64, self.counts.bytes);
        let uploads = self.counts.uploads > 0;
        for number in 0..segments.count() {
            let held = live.get(&number).copied().unwrap_or(0);
            let segment = &segments[number];
            assert!(held <= segment.live as usize, "segment {number} has more live bytes than it counts");
            // Only uploads in progress know their pieces; the segments of these are pinned.
            assert!(
                held == segment.live as usize || (uploads && segment.pins > 0),
                "segment {number} counts live bytes that no item has"
            );
            let idle = segment.live == 0
                && segment.pins == 0
                && !segment.open
                && segment.state != SegmentState::Scanned;
            assert!(!idle || segment.state == SegmentState::Free, "segment {number} is empty and not free");
        }
    }

    /// The kind of the record at `at`, and its bytes.
    #[cfg(test)]
    pub(crate) fn kind_and_bytes(&self, at: item::Location) -> (item::RecordKind, usize) {
        item::kind_and_bytes(&self.log.arena, at)
    }
}
