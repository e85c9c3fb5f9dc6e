//! Which bytes of a key decide its destination.

use memchr::{memchr, memmem};

/// The part of a key that is hashed; the whole key is sent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum KeyPart {
    /// The whole key.
    #[default]
    Whole,
    /// The part before the first occurrence of these bytes, such as `|#|`; the whole key if they do not
    /// occur.
    Before(Vec<u8>),
    /// The part between the first occurrence of the one byte and the next one of the other, such as `{}`; the
    /// whole key if that part is empty or does not exist.
    Between(u8, u8),
}

impl KeyPart {
    /// mcrouter's hash stop.
    #[must_use]
    pub fn hash_stop() -> Self {
        Self::Before(b"|#|".to_vec())
    }

    /// This part of `key`.
    #[inline]
    #[must_use]
    pub fn of<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match self {
            Self::Whole => key,
            Self::Before(marker) => before(key, marker),
            Self::Between(open, close) => between(key, *open, *close).unwrap_or(key),
        }
    }
}

/// Most keys do not contain even the first byte of `marker`: the search for all of it is prepared for the
/// others only.
#[inline]
fn before<'k>(key: &'k [u8], marker: &[u8]) -> &'k [u8] {
    let has_first = marker.first().is_none_or(|&first| memchr(first, key).is_some());
    match has_first.then(|| memmem::find(key, marker)).flatten() {
        Some(end) => &key[..end],
        None => key,
    }
}

fn between(key: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    let rest = &key[memchr(open, key)? + 1..];
    let part = &rest[..memchr(close, rest)?];
    (!part.is_empty()).then_some(part)
}
