//! The index: key hash -> where the item lies and how often it was read.
//!
//! Owns no keys: whoever asks brings a predicate that reads the log. [`BucketIndex`] is the one stores use,
//! a flat table of one-line buckets that stretches in place; [`TableIndex`] the plain one it is checked
//! against, a directory of small hash tables. Both use the low 48 bits of a hash.

mod buckets;
mod layout;
mod line;
mod lines;
#[cfg(test)]
mod tables;

use std::io;

use crate::item::Location;

pub use buckets::BucketIndex;
#[cfg(test)]
pub(crate) use tables::TableIndex;

/// Hashes are told apart by their bits below this.
pub(crate) const HASHES: u64 = 1 << 48;

/// Highest access count; it saturates there.
pub(crate) const FREQUENCY_MAX: u8 = 7;

/// What the index knows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub(crate) location: Location,
    /// Accesses since it was stored or last judged, 0 to [`FREQUENCY_MAX`].
    pub(crate) frequency: u8,
}

/// What an index wants to do with its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Rest,
    /// To take more, when there is some.
    Grow,
    /// To take more, wherever it comes from.
    GrowNow,
    /// To give some back.
    Shrink,
}

/// Reads keys in the log, for an index that has to place an entry anew.
pub trait Keys {
    /// Hash of the key of the item there.
    fn hash(&self, at: Location) -> u64;
    /// Starts loading what `hash` will read.
    fn prefetch(&self, at: Location);
}

/// Key hash -> item. One entry per key; `matches` decides among entries of like hash.
pub trait Index: Sized {
    /// An empty index for a store of this many bytes, which may be given `reserve_bytes` later.
    fn new(memory_bytes: usize, reserve_bytes: usize, huge_pages: bool) -> io::Result<Self>;
    /// The memory limit changed.
    fn set_memory_bytes(&mut self, memory_bytes: usize);
    /// The entry of this hash that `matches`.
    fn find(&self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Slot>;
    /// The same, counting one access.
    fn find_counting(&mut self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Location>;
    /// Whether `insert` of this hash would displace nothing.
    fn has_room(&self, hash: u64) -> bool;
    /// Adds an entry of frequency 0. Where there is no room another entry has to go, or this one: it is not
    /// in the index afterwards but returned, and the caller forgets that item.
    fn insert(&mut self, hash: u64, location: Location, keys: &impl Keys) -> Option<Location>;
    /// Points the entry of `old` at `new`, its frequency kept or replaced. False if there is none.
    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool;
    /// Takes the entry of `location` out. False if there is none.
    fn remove(&mut self, hash: u64, location: Location) -> bool;
    /// Does a slice of growing or shrinking, at most `slices` of about ten entries. True when there is more to
    /// do. Entries that found no place are in `orphan` then.
    fn adapt(&mut self, slices: usize, keys: &impl Keys) -> bool;
    /// Whether memory is scarce: then it takes less, and operations on it take longer.
    fn set_scarce(&mut self, scarce: bool);
    /// What it wants `adapt` for.
    fn wish(&self) -> Wish;
    /// An entry that `adapt` found no place for; the caller forgets that item.
    fn orphan(&mut self) -> Option<Location>;
    /// Starts loading what `find` of this hash will need first.
    fn prefetch(&self, hash: u64);
    /// Calls `visit` for locations the hash may belong to, as far as one look tells.
    fn candidates(&self, hash: u64, visit: impl FnMut(Location));
    /// Entries.
    fn len(&self) -> usize;
    /// Bytes taken, to be charged to the store's memory.
    fn bytes(&self) -> usize;
    /// Calls `visit` for every entry. Walks everything.
    fn for_each(&self, visit: impl FnMut(Location));
    /// Calls `visit` for every entry whose hash, in the bits the index uses, lies in `from..until`, and for some others.
    fn in_range(&self, from: u64, until: u64, visit: impl FnMut(Location));
    /// Panics unless it is whole; walks everything.
    fn check_invariants(&self, keys: &impl Keys);
}
