//! Which bytes of a key decide where it goes.

use std::fmt;

use memchr::{memchr, memmem};

/// The part of a key that is hashed; the whole key is sent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum KeyPart {
    /// All of it.
    #[default]
    Whole,
    /// What is before the first of these bytes, or all of a key without them: `|#|`.
    Before(Vec<u8>),
    /// What is between the first of the one byte and the next of the other, or all of a key that has not both
    /// or nothing between them: `{}`.
    Between(u8, u8),
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("all of the key"),
            Self::Before(marker) => write!(f, "before {}", marker.escape_ascii()),
            Self::Between(open, close) => {
                write!(f, "between {} and {}", open.escape_ascii(), close.escape_ascii())
            }
        }
    }
}

impl KeyPart {
    /// mcrouter's hash stop.
    #[must_use]
    pub fn hash_stop() -> Self {
        Self::Before(b"|#|".to_vec())
    }

    /// The part of `key` that is hashed.
    #[inline]
    #[must_use]
    pub fn part_of<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match self {
            Self::Whole => key,
            Self::Before(marker) => before(key, marker),
            Self::Between(open, close) => between(key, *open, *close).unwrap_or(key),
        }
    }
}

/// Most keys have not even the first byte of `marker`: no search for all of it is prepared for them.
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
