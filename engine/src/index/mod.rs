//! The index: finds the location of an item, and how often it was read, by the hash of its key.
//!
//! It holds no keys: callers give a predicate that compares the key in the log. [`BucketIndex`] is the one
//! that stores use, a flat table of one-line buckets that stretches in place. Tests check it against
//! `TableIndex`, a directory of ordinary hash tables. Both use the low 48 bits of a hash.
//!
//! What is `pub` here is so because [`Store`](crate::Store) has the index as a type parameter. None of it can
//! be named outside this crate.

mod buckets;
mod layout;
mod line;
mod lines;
#[cfg(test)]
mod tables;

use std::io;

use crate::item::Location;

#[allow(unreachable_pub, reason = "the default of a type parameter of Store, which is public")]
pub use buckets::BucketIndex;
#[cfg(test)]
pub(crate) use tables::TableIndex;

/// The index uses the bits of a hash below this one.
pub(crate) const HASHES: u64 = 1 << 48;

/// Highest access count. Further accesses are not counted.
pub(crate) const FREQUENCY_MAX: u8 = 7;

/// An item, as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexedItem {
    pub(crate) location: Location,
    /// Accesses since it was stored or went to the main queue, 0 to [`FREQUENCY_MAX`].
    pub(crate) frequency: u8,
}

/// How an index wants to change its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Not at all.
    NotWanted,
    /// It wants to grow if there is free memory.
    Grow,
    /// It has to grow even if items are dropped for that.
    GrowNow,
    /// It wants to shrink.
    Shrink,
}

/// Reads keys in the log, for an index that has to compute the hash of an entry again.
pub trait KeyReader {
    /// Hash of the key of the item at `at`.
    fn hash(&self, at: Location) -> u64;
    /// Starts loading what `hash` of this location will read.
    fn prefetch(&self, at: Location);
}

/// An index with one entry for each key. The predicate `matches` decides between keys of similar hash.
pub trait Index: Sized {
    /// An empty index for a store of `memory_bytes` bytes, which may be given up to `reserve_bytes` later.
    ///
    /// # Errors
    /// The kernel's, when it refuses the address space.
    fn new(memory_bytes: usize, reserve_bytes: usize, huge_pages: bool) -> io::Result<Self>;
    /// Notes a new memory limit of the store.
    fn set_memory_bytes(&mut self, memory_bytes: usize);
    /// The entry of this hash with a location that `matches`.
    fn find(&self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<IndexedItem>;
    /// The location of the entry of this hash that `matches`; counts one access.
    fn find_counting(&mut self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Location>;
    /// Whether `insert` of this hash would displace nothing.
    fn has_room(&self, hash: u64) -> bool;
    /// Adds an entry with an access count of 0. If there is no room, an entry is removed for it and returned,
    /// which may be the new one; the caller then drops that item.
    fn insert(&mut self, hash: u64, location: Location, keys: &impl KeyReader) -> Option<Location>;
    /// Changes the location of an entry from `old` to `new`, and its access count to `frequency` if given.
    /// False if there is no such entry.
    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool;
    /// Removes the entry of `location`. False if there is none.
    fn remove(&mut self, hash: u64, location: Location) -> bool;
    /// Grows or shrinks by at most `slices` slices of about ten entries. True if there is more to do. The
    /// caller then takes the entries for which there was no room from `orphan`.
    fn adapt(&mut self, slices: usize, keys: &impl KeyReader) -> bool;
    /// Says whether memory is scarce. The index is smaller then, and lookups take longer.
    fn set_scarce(&mut self, scarce: bool);
    /// How the index wants `adapt` to change its size.
    fn wanted_resize(&self) -> Resize;
    /// An entry for which `adapt` found no room; the caller drops that item.
    fn orphan(&mut self) -> Option<Location>;
    /// Starts loading what `find` of this hash will read first.
    fn prefetch(&self, hash: u64);
    /// Calls `visit` for locations that may be of this hash, without a search: it may miss some.
    fn candidates(&self, hash: u64, visit: impl FnMut(Location));
    /// Number of entries.
    fn len(&self) -> usize;
    /// Bytes charged to the store's memory.
    fn bytes(&self) -> usize;
    /// Calls `visit` for every entry.
    fn for_each(&self, visit: impl FnMut(Location));
    /// Calls `visit` for every entry with a hash, in the bits that the index uses, in `from..until`, and
    /// for some others.
    fn in_range(&self, from: u64, until: u64, visit: impl FnMut(Location));
    /// Panics unless the index is consistent. Walks all entries.
    fn check_invariants(&self, keys: &impl KeyReader);
}
