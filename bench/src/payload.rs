//! What is stored: keys and values that say whose they are.
//!
//! A value is [`STAMP_BYTES`] of stamp (key, run, version) and then bytes of a fixed pattern, from a place that the
//! stamp's hash picks. So a value of another key, another version's tail, a byte too many or a bit changed all show.
//! Values shorter than [`STAMPED_BYTES_MIN`] are pattern alone, from a place picked by the key.

use crate::rng::{Rng, mix};
use crate::sizes::SizeTable;

/// Longest key, bytes: the protocol's limit.
pub const KEY_BYTES_MAX: usize = 250;
/// Shortest key: the digits that tell keys apart.
pub const KEY_BYTES_MIN: usize = 8;
/// Bytes of the stamp: three 32-bit numbers.
pub const STAMP_BYTES: usize = 12;
/// Shortest value with a stamp: enough pattern behind it to show a change of the stamp.
pub const STAMPED_BYTES_MIN: usize = 24;

/// What the digits of a key stand behind.
const KEY_PREFIX: &[u8; KEY_BYTES_MAX] = &prefix();
/// Places a value's pattern can begin at: with typical values it stays in a core's second-level cache.
const PATTERN_PLACES: u64 = 1 << 16;

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

/// Keys of a run: key `id` has the length that goes with its hash.
#[derive(Clone, Debug)]
pub struct Keys {
    sizes: SizeTable,
}

impl Keys {
    /// Keys of these sizes, which are within [`KEY_BYTES_MIN`] and [`KEY_BYTES_MAX`].
    #[must_use]
    pub fn new(sizes: SizeTable) -> Self {
        assert!(sizes.most() as usize <= KEY_BYTES_MAX);
        Self { sizes }
    }

    /// Bytes of key `id`.
    #[inline]
    #[must_use]
    pub fn len(&self, id: u32) -> usize {
        self.sizes.of(mix(u64::from(id))) as usize
    }

    /// Appends key `id`.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>, id: u32) {
        put_key(out, id, self.len(id));
    }

    /// Whether these bytes are key `id`.
    #[inline]
    #[must_use]
    pub fn is(&self, bytes: &[u8], id: u32) -> bool {
        is_key(bytes, id, self.len(id))
    }
}

/// Whether these bytes are key `id` of `len` bytes.
#[inline]
#[must_use]
pub fn is_key(bytes: &[u8], id: u32, len: usize) -> bool {
    let digits_at = len - KEY_BYTES_MIN;
    bytes.len() == len && bytes[digits_at..] == hex(id) && bytes[..digits_at] == KEY_PREFIX[..digits_at]
}

/// Appends key `id` of `len` bytes, which are [`KEY_BYTES_MIN`] to [`KEY_BYTES_MAX`].
#[inline]
pub fn put_key(out: &mut Vec<u8>, id: u32, len: usize) {
    out.extend_from_slice(&KEY_PREFIX[..len - KEY_BYTES_MIN]);
    out.extend_from_slice(&hex(id));
}

/// Eight hexadecimal digits, without a branch.
#[inline]
fn hex(id: u32) -> [u8; 8] {
    let spread = u64::from(id);
    let spread = (spread | (spread << 16)) & 0x0000_ffff_0000_ffff;
    let spread = (spread | (spread << 8)) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | (spread << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

/// Whose value this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the key.
    pub id: u32,
    /// Which run wrote it.
    pub run: u32,
    /// How many writes of the key came before it in that run.
    pub version: u32,
}

/// What was wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It says that it belongs to another key.
    OtherKey,
    /// It is not as long as this key's values are.
    Length,
    /// Stamp and pattern do not go together: torn or corrupt.
    Torn,
}

/// Values of a run.
#[derive(Clone, Debug)]
pub struct Values {
    sizes: SizeTable,
    /// Whether each version of a value has its own size.
    resize: bool,
    pattern: Vec<u8>,
}

impl Values {
    /// Values of these sizes. With `resize`, versions of one key differ in size.
    #[must_use]
    pub fn new(sizes: SizeTable, resize: bool) -> Self {
        let mut rng = Rng::new(0x7061_7474_6572_6e73);
        let words = (PATTERN_PLACES as usize + sizes.most() as usize) / 8 + 1;
        let pattern = (0..words).flat_map(|_| rng.bits().to_le_bytes()).collect();
        Self { sizes, resize, pattern }
    }

    /// Bytes of this value.
    #[inline]
    #[must_use]
    pub fn len(&self, id: u32, version: u32) -> usize {
        let version = if self.resize { version } else { 0 };
        self.sizes.of(mix(0x7a6c_0000_0000 ^ u64::from(id) ^ (u64::from(version) << 40))) as usize
    }

    /// Mean bytes of a value.
    #[must_use]
    pub fn mean_len(&self) -> f64 {
        self.sizes.mean()
    }

    /// Appends the value.
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

    /// Check the whole of a value read for key `id`; its stamp, `None` for a value too short to have one.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// Check the beginning of a value of `len` bytes read for key `id`: as much of it as there is up to a stamp.
    ///
    /// # Errors
    /// What is wrong with it.
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
        let place = mix(u64::from(stamp.id)
            ^ (u64::from(stamp.version) << 32)
            ^ u64::from(stamp.run).rotate_left(17));
        &self.pattern[(place % PATTERN_PLACES) as usize..][..len]
    }

    /// Pattern without a stamp: what `len` bytes of key `id` are where there is one version only. At most as many as
    /// the largest value has.
    #[inline]
    #[must_use]
    pub fn unstamped(&self, id: u32, len: usize) -> &[u8] {
        &self.pattern[(mix(u64::from(id)) % PATTERN_PLACES) as usize..][..len]
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
