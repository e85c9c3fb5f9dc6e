//! Files with certificates and keys, as bytes: read within a bound, and told apart from what they were.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Longest file, bytes: hundreds of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let len = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > FILE_BYTES_MAX {
        return Err(format!("{len} bytes are too many: at most {FILE_BYTES_MAX}"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Of the contents, or of why there are none.
pub(super) fn fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.for_each(|file| read(file).hash(&mut hasher));
    hasher.finish()
}
