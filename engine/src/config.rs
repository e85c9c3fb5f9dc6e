//! The configuration of a store, and the error that names what is wrong with it.

use std::fmt;

use crate::key::KeyHasher;

/// Smallest store: below it sixteen segments of 64 KiB do not fit.
pub(crate) const MEMORY_BYTES_MIN: usize = 1 << 20;
/// Largest store: locations are 32-bit numbers of 4-byte granules.
pub(crate) const MEMORY_BYTES_MAX: usize = 16 << 30;
/// Address space reserved, in multiples of the memory limit at start: the limit can be raised this far at run
/// time.
pub(crate) const RESERVE_FACTOR: usize = 8;
/// One value may take at most memory divided by this: with a larger share there would be no room to keep the
/// old value while the new one is stored.
const VALUE_FRACTION: usize = 2;

/// Smallest store in huge pages, bytes.
const HUGE_PAGES_FROM: usize = 64 << 20;

const SEGMENT_BYTES_MIN: usize = 64 << 10;
const SEGMENT_BYTES_MAX: usize = 2 << 20;
/// Segments a store should have. Fewer than 64 cost hits, since free and part-filled segments are memory
/// without items; with many more, unused ends of segments and bookkeeping take too much.
const SEGMENTS_AIM: usize = 2048;

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Memory limit, bytes, for items, index and ghosts together; 1 MiB to 16 GiB.
    pub memory_bytes: usize,
    /// Longest value, bytes; at most half of `memory_bytes`. A longer one answers `TooLarge`.
    pub value_bytes_max: usize,
    /// Make room by dropping items. False (memcached's -M): writes answer `NoMemory` instead.
    pub evict: bool,
    /// Hand out cas uniques. False (memcached's -C): every cas reads 0 and compares with none.
    pub cas: bool,
    /// The hasher every key given to this store was hashed with.
    pub hasher: KeyHasher,
    /// Ask the kernel for huge pages, which make lookups in large stores 2.2 times faster. Has no effect
    /// below 64 MiB: memory would become resident in steps of 2 MiB, and the processor's address caches cover
    /// a small store anyway.
    pub huge_pages: bool,
    /// How eviction chooses what to drop.
    pub policy: PolicyConfig,
}

/// Constants of the eviction policy; the defaults are the measured ones.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// The hit ratio that eviction makes as high as it can.
    pub weight: EvictionWeight,
    /// Percent of segments in the admission queue; 1 to 50. At the end of that queue a new item is dropped
    /// unless it was read. The store uses 60 instead while a rehearsal of both on a sample of the keys misses
    /// less with 60.
    pub admission_percent: u8,
    /// Remember dropped items, for about 0.9 % of memory, so that one that is stored again skips the
    /// admission queue.
    pub ghosts: bool,
}

/// The hit ratio that eviction favours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvictionWeight {
    /// Hits per request: a large item has to be read more often to be kept.
    Requests,
    /// Hits per byte: items of all sizes count alike.
    Bytes,
}

impl Default for PolicyConfig {
    fn default() -> PolicyConfig {
        PolicyConfig { weight: EvictionWeight::Requests, admission_percent: 10, ghosts: true }
    }
}

impl StoreConfig {
    /// The default settings: evict, cas, values up to 1 MiB (or half of memory), huge pages.
    pub fn new(memory_bytes: usize, hasher: KeyHasher) -> StoreConfig {
        StoreConfig {
            memory_bytes,
            value_bytes_max: (1 << 20).min(memory_bytes / VALUE_FRACTION),
            evict: true,
            cas: true,
            hasher,
            huge_pages: true,
            policy: PolicyConfig::default(),
        }
    }

    /// Checks that a store can be made with these settings.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, value: usize, remedy| Err(ConfigError { key, value: value as u64, remedy });
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return bad(
                "memory_bytes",
                self.memory_bytes,
                "give each store at least 1 MiB, or run fewer stores",
            );
        }
        if self.memory_bytes > MEMORY_BYTES_MAX {
            return bad(
                "memory_bytes",
                self.memory_bytes,
                "give each store at most 16 GiB, and run more stores",
            );
        }
        if self.value_bytes_max == 0 || self.value_bytes_max > self.memory_bytes / VALUE_FRACTION {
            return bad(
                "value_bytes_max",
                self.value_bytes_max,
                "allow values of 1 byte to half of memory_bytes",
            );
        }
        if !(1..=50).contains(&self.policy.admission_percent) {
            let percent = self.policy.admission_percent as usize;
            return bad("policy.admission_percent", percent, "choose 1 to 50; the default is 10");
        }
        Ok(())
    }

    /// Whether to ask the kernel for huge pages.
    pub(crate) fn wants_huge_pages(&self) -> bool {
        self.huge_pages && self.memory_bytes >= HUGE_PAGES_FROM
    }

    /// Bytes of one segment: a power of two near `memory_bytes` / 2048.
    pub(crate) fn segment_bytes(&self) -> usize {
        let aim = (self.memory_bytes / SEGMENTS_AIM).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        1 << aim.ilog2()
    }
}

/// A setting the store cannot work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field of [`StoreConfig`].
    pub key: &'static str,
    /// What it was set to.
    pub value: u64,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.key, self.value, self.remedy)
    }
}

impl std::error::Error for ConfigError {}
