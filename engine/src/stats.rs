//! Counters of a store.

/// A snapshot of a store's counters and sizes. Sizes are bytes; counts are since start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Items held now, expired ones that nobody met yet included.
    pub items: u64,
    /// Items ever stored.
    pub total_items: u64,
    /// Bytes of the items held: keys, values, headers and padding.
    pub bytes: u64,
    /// Items dropped to make room.
    pub evictions: u64,
    /// Those of them that were never read.
    pub evicted_unfetched: u64,
    /// Items reclaimed because they had expired or were flushed.
    pub reclaimed: u64,
    /// Those of them that were never read.
    pub expired_unfetched: u64,
    /// Segments the memory limit allows now.
    pub segments_total: u64,
    /// Segments of the limit that hold nothing.
    pub segments_free: u64,
    /// Segments that may not be moved: values being sent, uploads.
    pub segments_pinned: u64,
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of the memory of dropped items.
    pub ghost_bytes: u64,
    /// Bytes of arena that hold segments in use.
    pub arena_bytes: u64,
    /// Items copied to another place to keep them (eviction, compaction).
    pub moved_items: u64,
    /// Bytes of those.
    pub moved_bytes: u64,
    /// Writes refused for want of memory.
    pub out_of_memory: u64,
    /// Uploads begun and not finished.
    pub uploads: u64,
    /// The limit all of this stays under.
    pub memory_bytes: u64,
}
