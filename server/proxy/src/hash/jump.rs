//! Jump consistent hashing: the default of memcached's built-in proxy.

/// The bucket of `hash` among `buckets`, at least one.
#[inline]
#[must_use]
pub fn jump(mut hash: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0_i64, 0_i64);
    while next < buckets as i64 {
        bucket = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_i64 << 31) as f64 / ((hash >> 33) + 1) as f64)) as i64;
    }
    bucket as usize
}
