//! What a read returns: an item, borrowed from the store.

use std::fmt;
use std::iter::FusedIterator;

use crate::arena::Arena;
use crate::clock::Seconds;
use crate::item::{Location, Piece};
use crate::segment::Segment;
use crate::segments::Segments;

/// An item that was found. Valid until the next operation on its store.
#[derive(Clone, Copy)]
pub struct Item<'s> {
    /// The client's opaque 32 bits.
    pub client_flags: u32,
    /// When it dies; `None` never. After the operation that returned it.
    pub expires: Option<Seconds>,
    /// When it would have died, before the operation that returned it touched it.
    pub expires_before: Option<Seconds>,
    /// Its cas unique; 0 when none was asked for and none handed out before, or the store hands out none.
    pub cas: u64,
    /// The bytes.
    pub value: Value<'s>,
    /// Was read before this access.
    pub hit_before: bool,
    /// Invalidated; this is the old value.
    pub stale: bool,
    /// This reader, and no other until it is written, should refill it.
    pub win: bool,
    /// Another reader was told so.
    pub token_sent: bool,
    /// The key was given in base64.
    pub binary_key: bool,
    /// Bytes it takes in the log: headers, key, value, padding.
    pub stored_bytes: u32,
    pub(crate) at: Location,
    pub(crate) segments: &'s Segments,
}

impl Item<'_> {
    /// Names the item for [`Store::pin`](crate::Store::pin).
    pub fn handle(&self) -> ItemHandle {
        ItemHandle { location: self.at, sequence: self.segment().sequence }
    }

    /// Best knowledge of the last write or move of the item: the second in which its segment was opened.
    /// Reads are not timed.
    pub fn last_access(&self) -> Seconds {
        Seconds(self.segment().opened_s)
    }

    fn segment(&self) -> &Segment {
        &self.segments[self.segments.holding(self.at.at())]
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

/// Names an item until the next operation that may move items (any that takes `&mut Store` but `pin`).
#[derive(Clone, Copy, Debug)]
pub struct ItemHandle {
    pub(crate) location: Location,
    /// Sequence number of the segment, to notice a handle kept too long.
    pub(crate) sequence: u64,
}

/// The bytes of a value, in one part or, when large, in several.
#[derive(Clone, Copy)]
pub struct Value<'s> {
    len: usize,
    shape: Shape<'s>,
}

#[derive(Clone, Copy)]
enum Shape<'s> {
    Whole(&'s [u8]),
    /// Locations of pieces, 4 bytes each.
    Pieces(&'s Arena, &'s [u8]),
    /// Of an iterator only: nothing left.
    Done,
}

impl<'s> Value<'s> {
    #[inline]
    pub(crate) fn whole(bytes: &'s [u8]) -> Value<'s> {
        Value { len: bytes.len(), shape: Shape::Whole(bytes) }
    }

    pub(crate) fn in_pieces(arena: &'s Arena, list: &'s [u8], len: usize) -> Value<'s> {
        match Parts(Shape::Pieces(arena, list)).next() {
            Some(only) if list.len() == 4 => Value::whole(only),
            _ => Value { len, shape: Shape::Pieces(arena, list) },
        }
    }

    /// Bytes in all.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, if they lie in one place. Always so below a sixteenth of a segment.
    #[inline]
    pub fn as_contiguous(&self) -> Option<&'s [u8]> {
        match self.shape {
            Shape::Whole(bytes) => Some(bytes),
            Shape::Pieces(..) | Shape::Done => None,
        }
    }

    /// The bytes in order, part by part. An empty value has one empty part.
    #[inline]
    pub fn parts(&self) -> Parts<'s> {
        Parts(self.shape)
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

/// Iterator over the parts of a value.
#[derive(Clone)]
pub struct Parts<'s>(Shape<'s>);

impl<'s> Iterator for Parts<'s> {
    type Item = &'s [u8];

    #[inline]
    fn next(&mut self) -> Option<&'s [u8]> {
        match self.0 {
            Shape::Whole(bytes) => {
                self.0 = Shape::Done;
                Some(bytes)
            }
            Shape::Done => None,
            Shape::Pieces(arena, list) => {
                let (at, rest) = list.split_first_chunk::<4>()?;
                self.0 = Shape::Pieces(arena, rest);
                Some(Piece::content(arena, Location(u32::from_le_bytes(*at))))
            }
        }
    }
}

impl FusedIterator for Parts<'_> {}
