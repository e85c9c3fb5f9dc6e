//! Keys and values that a run stores. Each value can be verified: it names its key, run and version.
//!
//! A value is [`STAMP_BYTES`] of stamp (key, run, version), followed by bytes of a fixed pattern from an
//! offset that the hash of the stamp selects. This reveals the value of another key, the tail of another
//! version, a wrong length and a changed bit. Values shorter than [`STAMPED_BYTES_MIN`] have no stamp: they
//! are pattern from an offset that the key selects.

use crate::rng::{Rng, mix};
use crate::sizes::SizeTable;

/// Longest key in bytes: the limit of the protocol.
pub const KEY_BYTES_MAX: usize = 250;
/// Shortest key in bytes: the digits that tell keys apart.
pub const KEY_BYTES_MIN: usize = 8;
/// Bytes of a stamp: three 32-bit numbers.
pub const STAMP_BYTES: usize = 12;
/// Shortest value with a stamp, in bytes: it has enough pattern after the stamp to reveal a changed stamp.
pub const STAMPED_BYTES_MIN: usize = 24;

/// The bytes that fill a key before its digits.
const KEY_PREFIX: &[u8; KEY_BYTES_MAX] = &prefix();
/// Number of offsets at which the pattern of a value can begin. With values of usual sizes the pattern stays
/// in the second-level cache of a core.
const PATTERN_OFFSETS: u64 = 1 << 16;

const fn prefix() -> [u8; KEY_BYTES_MAX] {
    let word = b"corecached:bench:";
    let mut text = [0; KEY_BYTES_MAX];
    let mut at = 0;
    while at < text.len() {
        text[at] = word[at % word.len()];
        at += 1;
    }
    text
}

/// The keys of a run. The length of key `id` depends on the hash of `id`.
#[derive(Clone, Debug)]
pub struct Keys {
    sizes: SizeTable,
}

impl Keys {
    /// Creates keys of these sizes, which must lie between [`KEY_BYTES_MIN`] and [`KEY_BYTES_MAX`].
    #[must_use]
    pub fn new(sizes: SizeTable) -> Self {
        assert!(sizes.most() as usize <= KEY_BYTES_MAX);
        Self { sizes }
    }

    /// Returns the length of key `id` in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self, id: u32) -> usize {
        self.sizes.size_for(mix(u64::from(id))) as usize
    }

    /// Appends key `id`.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>, id: u32) {
        put_key(out, id, self.len(id));
    }

    /// Tells whether these bytes are key `id`.
    #[inline]
    #[must_use]
    pub fn is(&self, bytes: &[u8], id: u32) -> bool {
        is_key(bytes, id, self.len(id))
    }
}

/// Tells whether these bytes are key `id` with `len` bytes.
#[inline]
#[must_use]
pub fn is_key(bytes: &[u8], id: u32, len: usize) -> bool {
    let digits_at = len - KEY_BYTES_MIN;
    bytes.len() == len && bytes[digits_at..] == hex(id) && bytes[..digits_at] == KEY_PREFIX[..digits_at]
}

/// Appends key `id` with `len` bytes, from [`KEY_BYTES_MIN`] to [`KEY_BYTES_MAX`].
#[inline]
pub fn put_key(out: &mut Vec<u8>, id: u32, len: usize) {
    out.extend_from_slice(&KEY_PREFIX[..len - KEY_BYTES_MIN]);
    out.extend_from_slice(&hex(id));
}

/// Returns `id` as eight hexadecimal digits, computed without a branch.
#[inline]
fn hex(id: u32) -> [u8; 8] {
    let spread = u64::from(id);
    let spread = (spread | (spread << 16)) & 0x0000_ffff_0000_ffff;
    let spread = (spread | (spread << 8)) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | (spread << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

/// The key, run and version that a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the key.
    pub id: u32,
    /// Number of the run that wrote the value.
    pub run: u32,
    /// Number of writes of the key that came before this one in that run.
    pub version: u32,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its stamp names another key.
    OtherKey,
    /// Its length is not the one of this key and version.
    Length,
    /// Stamp and pattern do not match: the value is torn or corrupt.
    Torn,
}

/// The values of a run.
#[derive(Clone, Debug)]
pub struct Values {
    sizes: SizeTable,
    /// Whether each version of a value has a size of its own.
    resize: bool,
    pattern: Vec<u8>,
}

impl Values {
    /// Creates values of these sizes. With `resize`, the versions of one key differ in size.
    #[must_use]
    pub fn new(sizes: SizeTable, resize: bool) -> Self {
        let mut rng = Rng::new(0x7061_7474_6572_6e73);
        let words = (PATTERN_OFFSETS as usize + sizes.most() as usize) / 8 + 1;
        let pattern = (0..words).flat_map(|_| rng.bits().to_le_bytes()).collect();
        Self { sizes, resize, pattern }
    }

    /// Returns the length in bytes of a version of the value of key `id`.
    #[inline]
    #[must_use]
    pub fn len(&self, id: u32, version: u32) -> usize {
        let version = if self.resize { version } else { 0 };
        self.sizes.size_for(mix(0x7a6c_0000_0000 ^ u64::from(id) ^ (u64::from(version) << 40))) as usize
    }

    /// Returns the mean length of a value in bytes.
    #[must_use]
    pub fn mean_len(&self) -> f64 {
        self.sizes.mean()
    }

    /// Appends the value with this stamp.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let len = self.len(stamp.id, stamp.version);
        if len < STAMPED_BYTES_MIN {
            out.extend_from_slice(self.unstamped(stamp.id, len));
            return;
        }
        out.extend_from_slice(&stamp.id.to_le_bytes());
        out.extend_from_slice(&stamp.run.to_le_bytes());
        out.extend_from_slice(&stamp.version.to_le_bytes());
        out.extend_from_slice(self.body(stamp, len - STAMP_BYTES));
    }

    /// Verifies every byte of a value that was read for key `id`. Returns its stamp, or `None` for a value
    /// that is too short to have one.
    ///
    /// # Errors
    /// The value belongs to another key, has a wrong length, or is torn.
    pub fn check(&self, value: &[u8], id: u32) -> Result<Option<Stamp>, Wrong> {
        let Some(stamp) = self.check_stamp(value, value.len(), id)? else {
            let right = self.unstamped(id, value.len()) == value;
            return if right { Ok(None) } else { Err(Wrong::Torn) };
        };
        match self.body(stamp, value.len() - STAMP_BYTES) == &value[STAMP_BYTES..] {
            true => Ok(Some(stamp)),
            false => Err(Wrong::Torn),
        }
    }

    /// Verifies the stamp and the length of a value of `len` bytes that was read for key `id`. `beginning`
    /// holds at least the stamp, unless the value is too short to have one.
    ///
    /// # Errors
    /// The value belongs to another key or has a wrong length.
    #[inline]
    pub fn check_stamp(&self, beginning: &[u8], len: usize, id: u32) -> Result<Option<Stamp>, Wrong> {
        if len < STAMPED_BYTES_MIN {
            return if len == self.len(id, 0) || self.resize { Ok(None) } else { Err(Wrong::Length) };
        }
        let (numbers, _) = beginning[..STAMP_BYTES].as_chunks::<4>();
        let [owner, run, version] = [0, 1, 2].map(|index: usize| u32::from_le_bytes(numbers[index]));
        if owner != id {
            return Err(Wrong::OtherKey);
        }
        if len != self.len(id, version) {
            return Err(Wrong::Length);
        }
        Ok(Some(Stamp { id, run, version }))
    }

    #[inline]
    fn body(&self, stamp: Stamp, len: usize) -> &[u8] {
        let offset = mix(u64::from(stamp.id)
            ^ (u64::from(stamp.version) << 32)
            ^ u64::from(stamp.run).rotate_left(17));
        &self.pattern[(offset % PATTERN_OFFSETS) as usize..][..len]
    }

    /// Returns `len` bytes of pattern for key `id`: a value without a stamp, of which there is only one
    /// version. `len` is at most the size of the largest value.
    #[inline]
    #[must_use]
    pub fn unstamped(&self, id: u32, len: usize) -> &[u8] {
        &self.pattern[(mix(u64::from(id)) % PATTERN_OFFSETS) as usize..][..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::Sizes;

    fn table(text: &str) -> SizeTable {
        SizeTable::new(&text.parse::<Sizes>().unwrap(), 0, 1 << 20).unwrap()
    }

    #[test]
    fn digits_are_those_of_format() {
        for id in [0, 9, 10, 0x1234_abcd, u32::MAX] {
            assert_eq!(hex(id), format!("{id:08x}").as_bytes());
        }
    }

    #[test]
    fn a_key_is_itself_and_no_other() {
        let keys = Keys::new(table("8-250"));
        for id in 0..2000 {
            let mut text = Vec::new();
            keys.put(&mut text, id);
            assert_eq!(text.len(), keys.len(id));
            assert!(keys.is(&text, id));
            assert!(!keys.is(&text, id + 1));
        }
    }

    #[test]
    fn every_changed_byte_and_length_is_found() {
        for size in ["5", "23", "24", "100", "5000"] {
            let values = Values::new(table(size), false);
            let stamp = Stamp { id: 77, run: 5, version: 3 };
            let mut value = Vec::new();
            values.put(&mut value, stamp);
            assert!(values.check(&value, 77).is_ok());
            assert!(values.check(&value, 78).is_err(), "{size}: another key's value");
            assert!(values.check(&value[1..], 77).is_err(), "{size}: first byte lost");
            assert!(values.check(&value[..value.len() - 1], 77).is_err(), "{size}: last byte lost");
            for at in 0..value.len() {
                value[at] ^= 0x10;
                assert!(values.check(&value, 77).is_err(), "{size}: byte {at} changed");
                value[at] ^= 0x10;
            }
        }
    }

    #[test]
    fn a_value_torn_between_two_versions_is_found() {
        let values = Values::new(table("100"), false);
        let (mut old, mut new) = (Vec::new(), Vec::new());
        values.put(&mut old, Stamp { id: 1, run: 1, version: 1 });
        values.put(&mut new, Stamp { id: 1, run: 1, version: 2 });
        new[60..].copy_from_slice(&old[60..]);
        assert_eq!(values.check(&new, 1), Err(Wrong::Torn));
    }

    #[test]
    fn resized_versions_are_checked_by_their_own_size() {
        let values = Values::new(table("10-500"), true);
        let mut sizes = Vec::new();
        for version in 0..100 {
            let mut value = Vec::new();
            values.put(&mut value, Stamp { id: 9, run: 1, version });
            sizes.push(value.len());
            assert!(values.check(&value, 9).is_ok());
        }
        sizes.sort_unstable();
        sizes.dedup();
        assert!(sizes.len() > 50);
    }
}
