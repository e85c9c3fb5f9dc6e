//! Values sent without a copy: pinned in their segments until the send is over.

use crate::arena::View;
use crate::index::Index;
use crate::item::{Location, PIECE_HEADER_BYTES, Piece};
use crate::value::ItemHandle;

use super::Store;

/// Bytes of a value in the arena.
#[derive(Clone, Copy)]
struct Range {
    at: usize,
    len: usize,
}

/// A value that stays readable where it is, from any thread, until it is given back to its store's `unpin`.
/// Merely dropped, its segments stay pinned for good: safe, but lost.
#[must_use = "dropping a pinned value leaks its segments: give it back to unpin"]
pub struct PinnedValue {
    view: View,
    len: usize,
    first: Range,
    /// Further pieces of a large value; no allocation for others.
    rest: Vec<Range>,
}

impl PinnedValue {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes in order, part by part.
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
    /// Pins the value of an item just read. `None` when more than half of the segments would be pinned: copy
    /// it instead.
    pub fn pin(&mut self, at: ItemHandle) -> Option<PinnedValue> {
        let segments = &self.log.segments;
        let location = at.location;
        debug_assert_eq!(segments[segments.holding(location.at())].sequence, at.sequence, "stale handle");
        let record = self.record(location);
        let value_len = record.value_len();
        if segments.pinned() + record.piece_count().max(1) > self.segments_total() / 2 {
            return None;
        }
        let mut rest = Vec::new();
        let first = if record.is_large() {
            let mut ranges = record.pieces().map(|piece| self.content(piece));
            let first = ranges.next()?;
            rest.extend(ranges);
            first
        } else {
            // An empty value may end where its segment does; its record never lies past that.
            let at = if value_len == 0 { 0 } else { record.value_at() };
            Range { at: location.at() + at, len: value_len }
        };
        let pinned = PinnedValue { view: self.log.arena.view(), len: value_len, first, rest };
        for range in std::iter::once(&pinned.first).chain(&pinned.rest) {
            self.log.pin(Location::of(range.at / 4 * 4));
        }
        Some(pinned)
    }

    /// Gives a pinned value back; its segments may be reused.
    pub fn unpin(&mut self, pinned: PinnedValue) {
        for range in std::iter::once(&pinned.first).chain(&pinned.rest) {
            self.log.unpin(Location::of(range.at / 4 * 4));
        }
    }

    fn content(&self, piece: Location) -> Range {
        let len = Piece::read(&self.log.arena, piece).len;
        Range { at: piece.at() + PIECE_HEADER_BYTES, len }
    }
}
