//! CTR1 traces: recorded requests for objects, with their times and the size of each object.
//!
//! All numbers are little endian: `"CTR1"`, u32 version 1, u64 requests, u64 objects, then u32
//! size\[objects\] (bytes of key and value), u32 id\[requests\] (object numbers in order of request), u8
//! dt\[requests\] (seconds since the previous request, 255 for 255 or more).

use std::path::Path;

use crate::payload::{KEY_BYTES_MAX, KEY_BYTES_MIN};
use crate::{Failure, input};

const MAGIC: &[u8] = b"CTR1";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
/// Key bytes of an object that is large enough for them. Traces do not record the size of keys.
const KEY_BYTES: u32 = 20;
/// Value bytes of an object that is too small for a key of [`KEY_BYTES`].
const VALUE_BYTES_LEFT: u32 = 2;

/// A trace in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    sizes: Vec<u32>,
    ids: Vec<u32>,
    gaps_s: Vec<u8>,
}

impl Trace {
    /// Reads a trace file, plain or xz.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid trace.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Self::parse(&input::read(path)?).map_err(|failure| failure.during(path.display()))
    }

    /// Parses a trace from the bytes of an unpacked file.
    ///
    /// # Errors
    /// The bytes are not a valid trace of version 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let bad = |words: String| Err(Failure::new(words));
        if !bytes.starts_with(MAGIC) {
            return bad("not a CTR1 trace".to_owned());
        }
        if bytes.len() < HEADER_BYTES {
            return bad(format!("ends in its header, after {} bytes", bytes.len()));
        }
        let version = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if version != VERSION {
            return bad(format!("is of version {version}, not {VERSION}"));
        }
        let long = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let (requests, objects) = (long(8), long(16));
        let expected = u128::from(objects) * 4 + u128::from(requests) * 5 + HEADER_BYTES as u128;
        if expected != bytes.len() as u128 {
            return bad(format!(
                "{requests} requests of {objects} objects take {expected} bytes, there are {}",
                bytes.len()
            ));
        }
        if objects > u64::from(u32::MAX) {
            return bad(format!("{objects} objects are too many: the format numbers them with 32 bits"));
        }
        // Both casts are lossless: the trace is in memory and has more bytes than either count.
        let (requests, objects) = (requests as usize, objects as usize);
        let numbers = |from: usize, count: usize| -> Vec<u32> {
            let (words, _) = bytes[from..from + 4 * count].as_chunks::<4>();
            words.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let sizes = numbers(HEADER_BYTES, objects);
        let ids = numbers(HEADER_BYTES + 4 * objects, requests);
        if let Some(at) = ids.iter().position(|&id| id as usize >= objects) {
            return bad(format!("request {at} is for object {}, of {objects}", ids[at]));
        }
        Ok(Self { sizes, ids, gaps_s: bytes[HEADER_BYTES + 4 * objects + 4 * requests..].to_vec() })
    }

    /// Returns the object number of each request, in order.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Returns the number of objects.
    #[must_use]
    pub fn objects(&self) -> u32 {
        self.sizes.len() as u32
    }

    /// Returns the seconds between request `index` and the previous one; 255 means 255 or more.
    #[must_use]
    pub fn gap_s(&self, index: usize) -> u8 {
        self.gaps_s[index]
    }

    /// Returns the bytes of key and value of object `id`. An object too small for a key of 20 bytes gets a
    /// shorter key, but at least the shortest one, and the value gets the rest, which may be 0 bytes.
    #[must_use]
    pub fn split(&self, id: u32) -> (usize, usize) {
        const { assert!(KEY_BYTES as usize <= KEY_BYTES_MAX) };
        let size = self.sizes[id as usize];
        let key = size.saturating_sub(VALUE_BYTES_LEFT).clamp(KEY_BYTES_MIN as u32, KEY_BYTES);
        (key as usize, size.saturating_sub(key) as usize)
    }

    /// Returns the share of the first `requests` that are the first for their object. No cache has a lower
    /// miss ratio.
    #[must_use]
    pub fn first_touch_ratio(&self, requests: usize) -> f64 {
        let mut seen = vec![false; self.sizes.len()];
        let mut is_first = |id: u32| !std::mem::replace(&mut seen[id as usize], true);
        let first = self.ids[..requests].iter().filter(|&&id| is_first(id)).count();
        first as f64 / requests.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(sizes: &[u32], ids: &[u32]) -> Vec<u8> {
        let mut bytes = b"CTR1\x01\0\0\0".to_vec();
        bytes.extend((ids.len() as u64).to_le_bytes());
        bytes.extend((sizes.len() as u64).to_le_bytes());
        sizes.iter().chain(ids).for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes.extend((0..ids.len()).map(|index| index as u8));
        bytes
    }

    #[test]
    fn a_trace_is_read_packed_or_not() {
        let raw = bytes(&[10, 500], &[0, 1, 0]);
        let trace = Trace::parse(&raw).unwrap();
        assert_eq!((trace.ids(), trace.objects(), trace.gap_s(2)), (&[0, 1, 0][..], 2, 2));
        assert_eq!((trace.split(0), trace.split(1)), ((8, 2), (20, 480)));
        assert!((trace.first_touch_ratio(3) - 2.0 / 3.0).abs() < 1e-9);
        let mut packed = Vec::new();
        let mut encoder = liblzma::read::XzEncoder::new(&raw[..], 6);
        std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
        for content in [&raw, &packed] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
            assert_eq!(Trace::read(file.path()).unwrap(), trace);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &packed[..packed.len() / 2]).unwrap();
        let said = Trace::read(file.path()).unwrap_err().to_string();
        assert!(said.contains("cannot be unpacked"), "{said}");
    }

    #[test]
    fn a_broken_trace_is_refused_with_its_fault() {
        let good = bytes(&[10, 500], &[0, 1, 0]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, words) in [
            (Vec::new(), "not a CTR1 trace"),
            (b"CTR2".to_vec(), "not a CTR1 trace"),
            (b"CTR1\x01\0\0\0\x05".to_vec(), "ends in its header"),
            (with(4, 2), "version 2"),
            (with(8, 4), "there are"),
            (with(15, 0xff), "there are"),
            (with(23, 0xff), "there are"),
            (good[..good.len() - 1].to_vec(), "there are"),
            (with(24 + 8 + 4, 2), "request 1 is for object 2"),
        ] {
            let said = Trace::parse(&bytes).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }
}
