//! Values that are sent without a copy: they are pinned in their segments until they have been sent.

use crate::arena::View;
use crate::index::Index;
use crate::item::{self, Location, PIECE_HEADER_BYTES, Piece};
use crate::value::ItemHandle;

use super::Store;

/// At most the segments that the memory limit allows, divided by this, are pinned at a time.
const PINNED_FRACTION: usize = 2;

/// Consecutive bytes of a value in the arena.
#[derive(Clone, Copy)]
struct ArenaRange {
    at: usize,
    len: usize,
}

/// A value that can be read in its place, from any thread, until it is given back to its store's
/// [`Store::unpin`]. If it is dropped instead, its segments stay pinned: that is safe, but they can never be
/// reused.
#[must_use = "dropping a pinned value leaks its segments: give it back to unpin"]
pub struct PinnedValue {
    view: View,
    len: usize,
    first: ArenaRange,
    /// The other pieces of a large value.
    rest: Vec<ArenaRange>,
}

impl PinnedValue {
    /// Length of the value, bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts of the value, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first).chain(&self.rest).map(|range| self.view.bytes(range.at, range.len))
    }
}

impl std::fmt::Debug for PinnedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinnedValue({} bytes)", self.len)
    }
}

impl<I: Index> Store<I> {
    /// Pins the value of an item just read. `None` if too many segments would be pinned then: the caller
    /// should copy the value instead. Panics if the handle is of another store, or an operation has removed
    /// or moved the item since.
    pub fn pin(&mut self, handle: ItemHandle) -> Option<PinnedValue> {
        let segments = &self.log.segments;
        let location = handle.location;
        // Other threads read the pinned bytes: an outdated handle would let them read what this store writes.
        assert_eq!(
            segments[segments.segment_of(location.offset())].sequence,
            handle.sequence,
            "stale handle"
        );
        assert!(item::is_item(&self.log.arena, location), "stale handle");
        let record = self.record(location);
        assert!(self.is_indexed(self.config.hasher.hash(record.key()), location), "stale handle");
        let value_len = record.value_len();
        if segments.pinned() + record.piece_count().max(1) > self.segments_total() / PINNED_FRACTION {
            return None;
        }
        let mut rest = Vec::new();
        let first = if record.is_large() {
            let mut ranges = record.pieces().map(|piece| self.content(piece));
            let first = ranges.next()?;
            rest.extend(ranges);
            first
        } else {
            // An empty value may be at the very end of its segment, where another one begins.
            let at = if value_len == 0 { 0 } else { record.value_at() };
            ArenaRange { at: location.offset() + at, len: value_len }
        };
        let pinned = PinnedValue { view: self.log.arena.view(), len: value_len, first, rest };
        for range in std::iter::once(&pinned.first).chain(&pinned.rest) {
            assert!(self.log.is_written(range.at, range.len)); // past that are bytes that may change
            self.log.pin(Location::containing(range.at));
        }
        Some(pinned)
    }

    /// Gives a pinned value back, so that its segments may be reused. Panics if the value is of another
    /// store.
    pub fn unpin(&mut self, pinned: PinnedValue) {
        assert!(self.log.arena.is_source_of(&pinned.view), "a pinned value of another store");
        for range in std::iter::once(&pinned.first).chain(&pinned.rest) {
            self.log.unpin(Location::containing(range.at));
        }
    }

    /// The part of a value in this piece.
    fn content(&self, piece: Location) -> ArenaRange {
        let len = Piece::read(&self.log.arena, piece).len;
        ArenaRange { at: piece.offset() + PIECE_HEADER_BYTES, len }
    }
}
