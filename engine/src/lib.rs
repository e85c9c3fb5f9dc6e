//! One core's slice of a cache: memory, index, eviction and expiry.
//!
//! No protocol, no I/O, no clock: time is an argument of every operation, keys arrive hashed by the
//! store's own [`KeyHasher`], values leave as borrowed bytes.
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
//! | `arena` | the one mapping all items live in |
//! | `item` | the record: header, optional fields, key, value, drawn byte by byte |
//! | `segment` | what is known of one segment of the arena |
//! | `segments` | all of them: free list, queues, expiry order, pins |
//! | `log` | appending: which open segment a record goes to |
//! | `ttl_class` | items of like life together, so that segments expire whole |
//! | `index` | hash -> location and access count: one-line buckets in a table that stretches in place |
//! | `eviction` | what to keep when a segment is given up; ghosts of what was not kept |
//! | `store` | the operations |
//!
//! Unsafe code is in `arena`, `index::line` and `index::lines` alone.
//!
//! # Invariants
//!
//! 1. Every index entry points at a record whose key hashes to where the entry lies.
//! 2. A segment's live bytes are the sum of its records that the index (or an unfinished upload) holds.
//! 3. Each segment is in exactly one place: free, in a queue, or being scanned.
//! 4. Bytes of a pinned segment's values are neither moved, overwritten nor reused.
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
pub use stats::StoreStats;
pub use store::{
    ArithmeticHow, Carried, Counted, DeleteHow, Deleted, Evicted, MetaGet, MetaGot, Mode, NoMemory,
    PinnedValue, Store, StoreHow, Stored, Upload,
};
pub use value::{Item, ItemHandle, Parts, Value};

#[cfg(test)]
mod tests;
