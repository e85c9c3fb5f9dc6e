//! What a store is told at start, and what is wrong with a bad configuration.

use std::fmt;

use crate::key::KeyHasher;

/// Smallest store: below it sixteen segments of 64 KiB do not fit.
pub(crate) const MEMORY_BYTES_MIN: usize = 1 << 20;
/// Largest store: locations are 32-bit numbers of 4-byte granules.
pub(crate) const MEMORY_BYTES_MAX: usize = 16 << 30;
/// Address space kept beside the memory limit, so that the limit can be raised at run time this many times.
pub(crate) const RESERVE_FACTOR: usize = 8;
/// Share of memory one value may take: with more, storing it could not leave the old one alive meanwhile.
const VALUE_SHARE_MAX: usize = 2;

/// Smallest store in huge pages, bytes.
const HUGE_PAGES_FROM: usize = 64 << 20;

const SEGMENT_BYTES_MIN: usize = 64 << 10;
const SEGMENT_BYTES_MAX: usize = 2 << 20;
/// Segments aimed at. Fewer than 64 cost hits; each one free in reserve or part-filled is memory without items;
/// many more make ends and bookkeeping dear.
const SEGMENTS_AIM: usize = 2048;

/// Everything a store is made from.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Bytes for items, index and ghosts together; 1 MiB to 16 GiB.
    pub memory_bytes: usize,
    /// Longest value, bytes; at most half of `memory_bytes`. A longer one answers `TooLarge`.
    pub value_bytes_max: usize,
    /// Make room by dropping items. False (memcached's -M): writes answer `NoMemory` instead.
    pub evict: bool,
    /// Hand out cas uniques. False (memcached's -C): every cas reads 0 and compares with none.
    pub cas: bool,
    /// The hasher every key given to this store was hashed with.
    pub hasher: KeyHasher,
    /// Ask the kernel for huge pages: 2.2 times faster lookups in large stores. Below 64 MiB it has no effect:
    /// memory becomes resident in steps of 2 MiB, and caches reach that far without.
    pub huge_pages: bool,
    /// How eviction chooses.
    pub policy: PolicyConfig,
}

/// Constants of the eviction policy; the defaults are the measured ones.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// What eviction gets the most of for its memory.
    pub weight: EvictionWeight,
    /// Percent of segments that new items pass before they have to have been read; 1 to 50. It is 60 while a rehearsal
    /// of both on a sample of the keys misses less with that.
    pub admission_percent: u8,
    /// Remember dropped items, for about 0.9 % of memory, to admit those that return at once.
    pub ghosts: bool,
}

/// What the policy counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvictionWeight {
    /// Hits per request: a large item has to be read more often to stay.
    Requests,
    /// Hits per byte: all items count alike.
    Bytes,
}

impl Default for PolicyConfig {
    fn default() -> PolicyConfig {
        PolicyConfig { weight: EvictionWeight::Requests, admission_percent: 10, ghosts: true }
    }
}

impl StoreConfig {
    /// The defaults: evict, cas, values up to 1 MiB (or half of memory), huge pages.
    pub fn new(memory_bytes: usize, hasher: KeyHasher) -> StoreConfig {
        StoreConfig {
            memory_bytes,
            value_bytes_max: (1 << 20).min(memory_bytes / VALUE_SHARE_MAX),
            evict: true,
            cas: true,
            hasher,
            huge_pages: true,
            policy: PolicyConfig::default(),
        }
    }

    /// Whether a store can be made from this.
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
        if self.value_bytes_max == 0 || self.value_bytes_max > self.memory_bytes / VALUE_SHARE_MAX {
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

    /// Whether to ask for huge pages.
    pub(crate) fn wants_huge_pages(&self) -> bool {
        self.huge_pages && self.memory_bytes >= HUGE_PAGES_FROM
    }

    /// Bytes of one segment: a power of two near memory / 2048.
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
