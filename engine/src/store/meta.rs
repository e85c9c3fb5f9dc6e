//! The meta read: leases, serve-stale and early refill decided in one look.

use crate::clock::{NEVER, Seconds, or_never};
use crate::index::Index;
use crate::item::{self, Fields, flag};
use crate::key::Key;
use crate::value::Item;

use super::write::Source;
use super::{Before, Store};

/// What a meta read asks for beside the item.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetaGet {
    /// Give the item this expiry (T). Should memory for that be missing, it keeps the old one.
    pub touch: Option<Option<Seconds>>,
    /// Create a missing item, empty, with this expiry; the creator wins (N).
    pub vivify: Option<Option<Seconds>>,
    /// Win when less than this many seconds are left and nobody won yet (R).
    pub recache_below_s: Option<u32>,
    /// Of the expiry just given, not of the old one (T in front of R).
    pub recache_after_touch: bool,
    /// Unique for a created item (E).
    pub new_cas: Option<u64>,
    /// Assign a unique if the item has none (c).
    pub with_cas: bool,
    /// Count the access and mark the item read; false for flag u.
    pub bump: bool,
    /// The client gave the key in base64; kept with a created item.
    pub binary_key: bool,
}

/// What a meta read found.
#[derive(Clone, Copy, Debug)]
pub enum MetaGot<'s> {
    /// The item.
    Hit(Item<'s>),
    /// There was none; this is the empty one made for it, and this reader is to fill it.
    Vivified(Item<'s>),
    /// There is none.
    Miss,
    /// There is none, and no room to make one.
    NoMemory,
}

impl<I: Index> Store<I> {
    /// Reads an item and does what was asked with it.
    pub fn meta_get(&mut self, key: Key<'_>, ask: &MetaGet, now: Seconds) -> MetaGot<'_> {
        let found = if ask.bump { self.find_counting(key, now) } else { self.find(key, now) };
        let Some(mut at) = found else {
            let Some(expires) = ask.vivify else { return MetaGot::Miss };
            return self.vivify(key, expires, ask, now);
        };
        let mut before = if ask.bump { self.mark_fetched(at) } else { Before::of(self.record(at)) };
        before.expires = self.record(at).expires();
        let sent = before.flags & flag::WIN_SENT != 0;
        let judged = match ask.touch {
            Some(expires) if ask.recache_after_touch => or_never(expires),
            _ => before.expires,
        };
        let early = ask
            .recache_below_s
            .is_some_and(|below_s| judged != NEVER && judged.saturating_sub(now.0) < below_s);
        let win = !sent && (early || before.flags & flag::STALE != 0);
        if win {
            let flags = self.record(at).flags();
            item::set_flags(&mut self.log.arena, at, flags | flag::WIN_SENT);
        }
        if let Some(expires) = ask.touch {
            at = self.set_expires(key.hash, at, or_never(expires), now).unwrap_or(at);
        }
        if ask.with_cas {
            at = self.assign_cas(key, at, now).unwrap_or(at);
        }
        MetaGot::Hit(Item { win, ..self.item(at, before) })
    }

    fn vivify(&mut self, key: Key<'_>, expires: Option<Seconds>, ask: &MetaGet, now: Seconds) -> MetaGot<'_> {
        if !key.fits() {
            return MetaGot::Miss;
        }
        self.pay(now);
        // Its making counts as a read of it.
        let marks = flag::WIN_SENT
            | if ask.bump { flag::FETCHED } else { 0 }
            | if ask.binary_key { flag::BINARY_KEY } else { 0 };
        let cas = self.following_cas(None, ask.new_cas, ask.with_cas);
        let fields = Fields { marks, expires: or_never(expires), client_flags: 0, cas };
        match self.replace(key, None, &fields, [Source::Bytes(&[]); 2], 0, None, false, now) {
            Some(at) => {
                let before = Before { flags: 0, expires: fields.expires };
                MetaGot::Vivified(Item { win: true, ..self.item(at, before) })
            }
            None => {
                self.count_out_of_memory();
                MetaGot::NoMemory
            }
        }
    }
}
