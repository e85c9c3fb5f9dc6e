//! The storage engine of one core's slice of a cache: memory, index, eviction and expiry.
//!
//! It has no protocol, I/O or clock: time is an argument of every operation, keys come with their hash by the
//! store's own [`KeyHasher`], and values are returned as borrowed bytes. README.md has a drawing, and says
//! how this is tested.
//!
//! ```
//! use corecached_engine::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};
//!
//! let hasher = KeyHasher::new(7);
//! let now = Seconds(1_000);
//! let mut store = Store::new(StoreConfig::new(8 << 20, hasher.clone()), now).unwrap();
//! let key = Key { bytes: b"greeting", hash: hasher.hash(b"greeting") };
//! store.store(key, b"hello", &StoreHow::default(), now);
//! assert_eq!(store.get(key, now).unwrap().value.as_contiguous(), Some(&b"hello"[..]));
//! ```
//!
//! # Map
//!
//! | module | noun |
//! | --- | --- |
//! | `arena` | the one memory mapping that holds all records |
//! | `item` | the record: header, optional fields, key, value, drawn byte by byte |
//! | `segment` | the bookkeeping of one segment of the arena |
//! | `segments` | all segments: free lists, queues, order of expiry, pins |
//! | `log` | the open segment that a record is appended to |
//! | `ttl_class` | classes of TTL: items of one class share segments, which then expire as a whole |
//! | `index` | from hash to location and access count: one-line buckets in a table that stretches in place |
//! | `eviction` | which items are kept when a segment is emptied; ghosts of those that were not |
//! | `store` | the operations |
//!
//! Unsafe code is in `arena`, `index::line` and `index::lines` alone.
//!
//! # Invariants
//!
//! 1. Every index entry is found by the hash of the key in the record at its location.
//! 2. The live bytes of a segment are those of its records that are in the index or belong to an upload in
//!    progress.
//! 3. Each segment is in exactly one state: free, in a queue, or being scanned.
//! 4. The values in a pinned segment are neither moved nor overwritten, and the segment is not reused.
//! 5. Segments, index and ghosts together stay within `memory_bytes`.

#![deny(clippy::undocumented_unsafe_blocks)]

mod arena;
mod clock;
mod config;
mod eviction;
mod index;
mod item;
mod key;
mod log;
mod segment;
mod segments;
mod stats;
mod store;
mod ttl_class;
mod value;

pub use arena::PageWork;
pub use clock::Seconds;
pub use config::{ConfigError, EvictionWeight, PolicyConfig, StoreConfig};
pub use key::{KEY_BYTES_MAX, Key, KeyHasher};
pub use stats::{FoundDead, StoreStats};
pub use store::{
    ArithmeticHow, Carried, Counted, DeleteHow, Deleted, Evicted, MetaGet, MetaGot, Mode, NoMemory,
    PinnedValue, Store, StoreHow, Stored, Upload,
};
pub use value::{Item, ItemHandle, Parts, Value};

#[cfg(test)]
mod tests;
