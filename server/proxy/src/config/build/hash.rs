//! How keys are laid out over the children of a handle.

use super::builder::{Builder, Checked};
use crate::config::handle::Hash;
use crate::config::hash::WrittenHash;
use crate::config::json::Json;

impl Builder<'_> {
    /// The hash that `json` gives.
    pub(crate) fn hash(&self, json: &Json) -> Checked<Hash> {
        let written = WrittenHash {
            function: self.text_at(json, "hash_func")?,
            key_hash: self.text_at(json, "key_hash")?,
            seed: self.text_at(json, "seed")?,
            points: self.int_at(json, "points", 1, 100_000)?.map(|points| points as u32),
            hash_tag: self.text_at(json, "hash_tag")?,
            hash_stop: self.text_at(json, "hash_stop")?,
            salt: self.text_at(json, "salt")?.unwrap_or_default(),
            weights: self.numbers_at(json, "weights", 1e6)?,
            tags: self.texts_at(json, "tags")?,
        };
        self.check_hash(written, json)
    }

    /// The hash that was written at `at`.
    pub(crate) fn check_hash(&self, written: WrittenHash, at: &Json) -> Checked<Hash> {
        written.check().map_err(|fault| self.fault(at, fault.key, &fault.value, &fault.remedy))
    }
}
