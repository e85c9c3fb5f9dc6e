//! Deletes, and invalidations after which readers are still given the old value.

use std::cmp::Ordering;

use crate::clock::{NEVER, Seconds, or_never};
use crate::index::Index;
use crate::item::flag;
use crate::key::Key;

use super::SHRINK_SLICES;
use super::Store;
use super::content::Source;

/// The options of a delete. The default removes the item whatever its cas unique is.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteHow {
    /// Deletes the item only if it has this cas unique.
    pub compare_cas: Option<u64>,
    /// The cas unique for an item that stays (`invalidate`, `erase_value`); without it the store chooses one.
    pub new_cas: Option<u64>,
    /// Keeps the item but marks it as stale, with a new cas unique. The next reader is told to refill it.
    pub invalidate: bool,
    /// A new expiry for an item that stays; `Some(None)` for never.
    pub expires: Option<Option<Seconds>>,
    /// Keeps the item with its cas unique but removes value and client flags. Without `expires` it never
    /// expires.
    pub erase_value: bool,
}

/// The result of a delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// The item was deleted, invalidated or erased.
    Deleted,
    /// There is no item.
    NotFound,
    /// The item has another cas unique.
    Exists,
    /// There is no memory to write the item that should stay. It was removed, so that no reader takes it for
    /// valid.
    NoMemory,
}

impl<I: Index> Store<I> {
    /// Deletes, invalidates or erases an item.
    pub fn delete(&mut self, key: Key<'_>, how: &DeleteHow, now: Seconds) -> Deleted {
        self.apply_due_flush(now);
        if how.invalidate || how.erase_value {
            self.pay_scan_debt(now);
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
                fields.cas = how.new_cas.map(|requested| self.chosen_cas(requested)).or(fields.cas);
            }
        }
        if let Some(expires) = how.expires {
            fields.expires = or_never(expires);
        }
        if how.invalidate {
            fields.marks = (fields.marks | flag::STALE) & !flag::WIN_SENT;
            // The item needs a unique, so that an older one that a client holds compares as older.
            fields.cas = self.cas_for_write(fields.cas, how.new_cas, true);
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
