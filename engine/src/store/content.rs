//! What a write is given: its kind, its options, the value and its source; and what it returns.

use crate::clock::Seconds;
use crate::item::Location;

/// A record of at most a segment divided by this is never split into pieces: rather its lane opens another
/// segment.
pub(super) const UNSPLIT_FRACTION: usize = 16;

/// The kind of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Stores the value, whether there is an item or not.
    #[default]
    Set,
    /// Stores the value only if there is no item.
    Add,
    /// Stores the value only if there is an item.
    Replace,
    /// Adds the value to the end of an item's, which keeps its client flags and expiry.
    Append,
    /// Adds the value to the front of an item's, which keeps its client flags and expiry.
    Prepend,
}

/// The options of a write. The default is a plain set that never expires.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreHow {
    /// The kind of the write.
    pub mode: Mode,
    /// The 32 bits the client stores with the item; the store gives them no meaning.
    pub client_flags: u32,
    /// When the item expires; `None` for never. With a second that is not later than now it is stored and
    /// expired at once.
    pub expires: Option<Seconds>,
    /// Stores only if the item has this cas unique. With `Add` it has no effect.
    pub compare_cas: Option<u64>,
    /// The cas unique for the item; without it the store chooses one.
    pub new_cas: Option<u64>,
    /// If `compare_cas` is lower than the item's unique, stores the value all the same but marks it as stale;
    /// the item keeps its expiry and a win token that was sent. `Set` and `Replace` only.
    pub stale_if_older: bool,
    /// If there is no item, `Append` and `Prepend` create one with this expiry (`Some(None)` for never).
    pub vivify: Option<Option<Seconds>>,
    /// Assigns a cas unique and returns it.
    pub with_cas: bool,
    /// Whether the client gave the key in base64.
    pub binary_key: bool,
    /// Longest value the item may have, including the old value it is added to, if that depends on the key.
    /// The store's own `value_bytes_max` holds as well.
    pub value_bytes_max: Option<usize>,
}

/// The result of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// The value was stored.
    Stored {
        /// The cas unique of the item; 0 unless `with_cas` was given.
        cas: u64,
        /// Length of the whole value, bytes, after append or prepend.
        value_len: usize,
    },
    /// Not stored: there is an item, or none, or the key is not valid, as `mode` does not allow.
    NotStored,
    /// Not stored: the item has another cas unique.
    Exists,
    /// Not stored: there is no item to compare the cas unique with.
    NotFound,
    /// Not stored: the value is longer than `value_bytes_max`. A `Set` has removed the old item, so that no
    /// reader takes it for the new one.
    TooLarge,
    /// Not stored: there is no memory and none can be freed. A `Set` has removed the old item.
    NoMemory,
}

/// Consecutive bytes to be copied into the log.
#[derive(Clone, Copy)]
pub(super) enum Chunk<'a> {
    Bytes(&'a [u8]),
    /// Bytes at this arena offset, in a pinned segment.
    Arena {
        at: usize,
        len: usize,
    },
}

impl Chunk<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Arena { len, .. } => *len,
        }
    }
}

/// The source of a part of a value, in one or more chunks.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    /// The value of a pinned item.
    Item(Location),
    /// The pieces of an upload.
    Pieces(&'a [Location]),
}

/// A value to be stored, and its length.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    /// A value to be copied.
    Source(Source<'a>, usize),
    /// Pieces that become those of the item, without a copy.
    Pieces(&'a [Location], usize),
}
