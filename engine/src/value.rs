//! Items and values as reads return them, borrowed from the store.

use std::fmt;
use std::iter::FusedIterator;

use crate::arena::Arena;
use crate::clock::Seconds;
use crate::item::{Location, Piece, Record};
use crate::segment::Segment;
use crate::segments::Segments;

/// An item that was found, valid until the next operation on its store.
#[derive(Clone, Copy)]
pub struct Item<'s> {
    /// The 32 bits the client stored with it; the store gives them no meaning.
    pub client_flags: u32,
    /// When it expires; `None` for never. This is after the operation that returned it.
    pub expires: Option<Seconds>,
    /// When it was to expire before the operation that returned it changed that.
    pub expires_before: Option<Seconds>,
    /// Its cas unique; 0 if none was asked for now or before, or the store hands out none.
    pub cas: u64,
    /// The value.
    pub value: Value<'s>,
    /// Whether it was read before this access.
    pub hit_before: bool,
    /// Whether it was invalidated; the value is the old one.
    pub stale: bool,
    /// Whether this reader should refill it (has won the lease). No other reader wins until it is written.
    pub win: bool,
    /// Whether another reader was told to refill it.
    pub token_sent: bool,
    /// Whether the client gave the key in base64.
    pub binary_key: bool,
    /// Bytes it takes in the segments: headers, key, value, padding.
    pub stored_bytes: u32,
    pub(crate) at: Location,
    pub(crate) segments: &'s Segments,
}

impl Item<'_> {
    /// A handle to pin the item with [`Store::pin`](crate::Store::pin).
    pub fn handle(&self) -> ItemHandle {
        ItemHandle { location: self.at, sequence: self.segment().sequence }
    }

    /// About when the item was last written or moved: the second in which its segment was opened. Reads do
    /// not change it.
    pub fn last_access(&self) -> Seconds {
        Seconds(self.segment().opened_s)
    }

    fn segment(&self) -> &Segment {
        &self.segments[self.segments.segment_of(self.at.offset())]
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("client_flags", &self.client_flags)
            .field("expires", &self.expires)
            .field("cas", &self.cas)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

/// Identifies an item for [`Store::pin`](crate::Store::pin), until the next operation that takes `&mut Store`
/// other than `pin`: those may move items.
#[derive(Clone, Copy, Debug)]
pub struct ItemHandle {
    pub(crate) location: Location,
    /// Sequence number of its segment, by which a handle that was kept too long is noticed.
    pub(crate) sequence: u64,
}

/// The bytes of a value, in one part or, if it is large, in several.
#[derive(Clone, Copy)]
pub struct Value<'s> {
    len: usize,
    layout: ValueLayout<'s>,
}

/// How the bytes of a value lie in the arena.
#[derive(Clone, Copy)]
enum ValueLayout<'s> {
    Contiguous(&'s [u8]),
    /// Locations of pieces, 4 bytes each.
    Pieces(&'s Arena, &'s [u8]),
    /// Only in an iterator: all parts were given.
    Done,
}

impl<'a> Record<'a> {
    /// The value of the item, in the arena that the record lies in.
    #[inline(always)] // for a value in the record: no call
    pub(crate) fn value(&self, arena: &'a Arena) -> Value<'a> {
        if !self.is_large() {
            return Value::contiguous(self.after_key());
        }
        self.value_in_pieces(arena)
    }

    #[inline(never)]
    fn value_in_pieces(&self, arena: &'a Arena) -> Value<'a> {
        Value::in_pieces(arena, self.after_key(), self.value_len())
    }
}

impl<'s> Value<'s> {
    #[inline]
    pub(crate) fn contiguous(bytes: &'s [u8]) -> Value<'s> {
        Value { len: bytes.len(), layout: ValueLayout::Contiguous(bytes) }
    }

    pub(crate) fn in_pieces(arena: &'s Arena, list: &'s [u8], len: usize) -> Value<'s> {
        match Parts(ValueLayout::Pieces(arena, list)).next() {
            Some(only) if list.len() == 4 => Value::contiguous(only),
            _ => Value { len, layout: ValueLayout::Pieces(arena, list) },
        }
    }

    /// Length of the value, bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, if they are in one part, as they are in values shorter than a sixteenth of a segment.
    #[inline]
    pub fn as_contiguous(&self) -> Option<&'s [u8]> {
        match self.layout {
            ValueLayout::Contiguous(bytes) => Some(bytes),
            ValueLayout::Pieces(..) | ValueLayout::Done => None,
        }
    }

    /// The parts of the value, in order. An empty value has one empty part.
    #[inline]
    pub fn parts(&self) -> Parts<'s> {
        Parts(self.layout)
    }

    /// Appends all bytes to `target`.
    #[inline]
    pub fn copy_to(&self, target: &mut Vec<u8>) {
        if let Some(bytes) = self.as_contiguous() {
            return target.extend_from_slice(bytes);
        }
        target.reserve(self.len);
        for part in self.parts() {
            target.extend_from_slice(part);
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len)
    }
}

/// Iterator over the parts of a [`Value`].
#[derive(Clone)]
pub struct Parts<'s>(ValueLayout<'s>);

impl<'s> Iterator for Parts<'s> {
    type Item = &'s [u8];

    #[inline]
    fn next(&mut self) -> Option<&'s [u8]> {
        match self.0 {
            ValueLayout::Contiguous(bytes) => {
                self.0 = ValueLayout::Done;
                Some(bytes)
            }
            ValueLayout::Done => None,
            ValueLayout::Pieces(arena, list) => {
                let (at, rest) = list.split_first_chunk::<4>()?;
                self.0 = ValueLayout::Pieces(arena, rest);
                Some(Piece::content(arena, Location(u32::from_le_bytes(*at))))
            }
        }
    }
}

impl FusedIterator for Parts<'_> {}
