//! Deleting, and invalidating what readers may still see.

use std::cmp::Ordering;

use crate::clock::{NEVER, Seconds, or_never};
use crate::index::Index;
use crate::item::flag;
use crate::key::Key;

use super::SHRINK_SLICES;
use super::Store;
use super::write::Source;

/// How to delete. The default takes the item out, whatever its unique.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteHow {
    /// Only an item of this cas unique.
    pub compare_cas: Option<u64>,
    /// The unique for what stays (`invalidate`, `erase_value`); otherwise the store counts.
    pub new_cas: Option<u64>,
    /// Keep the item but mark it stale, with a new unique: the next reader wins the right to refill it.
    pub invalidate: bool,
    /// A new expiry for what stays.
    pub expires: Option<Option<Seconds>>,
    /// Keep the item but not its value nor client flags. Without `expires` it never expires; its unique stays.
    pub erase_value: bool,
}

/// What became of a delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// Done.
    Deleted,
    /// There is none.
    NotFound,
    /// The unique differs.
    Exists,
    /// No room to write what should stay. The item is gone, lest it be taken for valid.
    NoMemory,
}

impl<I: Index> Store<I> {
    /// Deletes, invalidates or erases an item.
    pub fn delete(&mut self, key: Key<'_>, how: &DeleteHow, now: Seconds) -> Deleted {
        self.turn(now);
        if how.invalidate || how.erase_value {
            self.pay(now);
        }
        let Some(at) = self.find(key, now) else { return Deleted::NotFound };
        if how.compare_cas.is_some_and(|wanted| self.compare_cas(at, wanted) != Ordering::Equal) {
            return Deleted::Exists;
        }
        if !how.invalidate && !how.erase_value {
            self.unlink(key.hash, at);
            self.adapt_index(SHRINK_SLICES);
            return Deleted::Deleted;
        }
        let mut fields = self.record(at).fields();
        if how.erase_value {
            fields.marks &= flag::BINARY_KEY;
            fields.client_flags = 0;
            fields.expires = NEVER;
            if self.config.cas {
                fields.cas = how.new_cas.map(|wish| self.chosen_cas(wish)).or(fields.cas);
            }
        }
        if let Some(expires) = how.expires {
            fields.expires = or_never(expires);
        }
        if how.invalidate {
            fields.marks = (fields.marks | flag::STALE) & !flag::WIN_SENT;
            // With a field: who holds an older unique must be seen to be older.
            fields.cas = self.following_cas(fields.cas, how.new_cas, true);
        }
        let kept = if how.erase_value {
            let kept = self.replace(key, Some(at), &fields, [Source::Bytes(&[]); 2], 0, None, false, now);
            self.counts.out_of_memory += u64::from(kept.is_none());
            kept
        } else {
            self.rewrite(key.hash, at, fields, now)
        };
        if kept.is_none() {
            if let Some(at) = self.find(key, now) {
                self.unlink(key.hash, at);
            }
            return Deleted::NoMemory;
        }
        Deleted::Deleted
    }
}
