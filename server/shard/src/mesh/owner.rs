//! Which shard a key belongs to. Nothing else in the server decides that.

/// The index of the shard, out of `shards`, that owns the keys with this hash.
///
/// Only the top 16 bits decide. The index of the store does not use them, so the keys of one owner spread
/// over all of it.
#[inline]
#[must_use]
pub fn owner_of(hash: u64, shards: usize) -> usize {
    debug_assert!((1..=1 << 16).contains(&shards), "16 bits of the hash choose the owner");
    (((hash >> 48) * shards as u64) >> 16) as usize
}

#[cfg(test)]
mod tests {
    use super::owner_of;

    #[test]
    fn every_owner_gets_its_share() {
        let hasher = corecached_engine::KeyHasher::new(7);
        for shards in [1usize, 2, 3, 4, 7, 64] {
            let mut keys = vec![0usize; shards];
            for number in 0..64_000u32 {
                keys[owner_of(hasher.hash(&number.to_le_bytes()), shards)] += 1;
            }
            let fair = 64_000 / shards;
            assert!(keys.iter().all(|&got| got > fair * 8 / 10 && got < fair * 12 / 10), "{keys:?}");
        }
    }
}
