//! The counters of a store.

/// A snapshot of the counters and sizes of a store. Sizes are in bytes; counts are since the store was made.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Items held now, including expired ones that no operation has come across yet.
    pub items: u64,
    /// Items ever stored.
    pub total_items: u64,
    /// Bytes of the items held: keys, values, headers and padding.
    pub bytes: u64,
    /// Items dropped to make room.
    pub evictions: u64,
    /// Evicted items that were never read.
    pub evicted_unfetched: u64,
    /// Items removed because they had expired.
    pub reclaimed: u64,
    /// Reclaimed items that were never read.
    pub expired_unfetched: u64,
    /// Lookups that came upon dead items.
    pub found_dead: FoundDead,
    /// Segments the memory limit allows now.
    pub segments_total: u64,
    /// Segments that may still be opened within the memory limit.
    pub segments_free: u64,
    /// Segments that may not be emptied now, because a value of theirs is being sent or uploaded.
    pub segments_pinned: u64,
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of the fingerprints of dropped items.
    pub ghost_bytes: u64,
    /// Bytes of the segments in use.
    pub arena_bytes: u64,
    /// Items copied to another segment to keep them (eviction, compaction).
    pub moved_items: u64,
    /// Bytes copied that way.
    pub moved_bytes: u64,
    /// Writes refused because there was no memory for them.
    pub out_of_memory: u64,
    /// Uploads in progress.
    pub uploads: u64,
    /// The memory limit.
    pub memory_bytes: u64,
}

/// Lookups that came upon an item which is dead but was not removed yet, since the store was made.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct FoundDead {
    /// It had expired.
    pub expired: u64,
    /// It was flushed.
    pub flushed: u64,
}
