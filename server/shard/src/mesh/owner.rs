//! Which shard a key belongs to: the one place that says so.

/// The owner among `shards` of the key whose hash is `hash`.
///
/// Takes the top 16 bits, which the index leaves alone: keys of one owner must not crowd a part of it.
#[inline]
#[must_use]
pub fn owner_of(hash: u64, shards: usize) -> usize {
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
