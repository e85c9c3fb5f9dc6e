//! The meta read, which also decides about leases, serving stale values and early refill.

use crate::clock::{NEVER, Seconds, or_never};
use crate::index::Index;
use crate::item::{self, Fields, flag};
use crate::key::Key;
use crate::value::Item;

use super::content::Source;
use super::{ItemBefore, Store};

/// The options of a meta read, with the flags of the protocol they are for.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetaGet {
    /// Gives the item this expiry (T); `Some(None)` for never. If there is no memory for that, it keeps the
    /// old one.
    pub touch: Option<Option<Seconds>>,
    /// If there is no item, creates an empty one with this expiry and tells this reader to fill it (N).
    pub vivify: Option<Option<Seconds>>,
    /// Tells this reader to refill the item if it expires in less than this many seconds and no other reader
    /// was told (R).
    pub recache_below_s: Option<u32>,
    /// Whether `recache_below_s` is about the expiry given by `touch`, and not the old one (T in front of R).
    pub recache_after_touch: bool,
    /// The cas unique for an item that is created (E).
    pub new_cas: Option<u64>,
    /// Assigns a cas unique if the item has none (c).
    pub with_cas: bool,
    /// Whether the access is counted and the item marked as read; false for flag u.
    pub bump: bool,
    /// Whether the client gave the key in base64. Stored with an item that is created.
    pub binary_key: bool,
}

/// The result of a meta read.
#[derive(Clone, Copy, Debug)]
pub enum MetaGot<'s> {
    /// The item was found.
    Hit(Item<'s>),
    /// There was no item; an empty one was created, and this reader is told to fill it.
    Vivified(Item<'s>),
    /// There is no item.
    Miss,
    /// There is no item, and no memory to create one.
    NoMemory,
}

impl<I: Index> Store<I> {
    /// Reads an item, with the options of the meta protocol.
    pub fn meta_get(&mut self, key: Key<'_>, ask: &MetaGet, now: Seconds) -> MetaGot<'_> {
        let found = if ask.bump { self.find_counting(key, now) } else { self.find(key, now) };
        let Some(mut at) = found else {
            let Some(expires) = ask.vivify else { return MetaGot::Miss };
            return self.vivify(key, expires, ask, now);
        };
        let mut before =
            if ask.bump { self.mark_fetched(at) } else { ItemBefore::from_record(self.record(at)) };
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

    /// Creates an empty item for this reader to fill.
    fn vivify(&mut self, key: Key<'_>, expires: Option<Seconds>, ask: &MetaGet, now: Seconds) -> MetaGot<'_> {
        if !key.fits() {
            return MetaGot::Miss;
        }
        self.pay_scan_debt(now);
        // That it is created counts as a read.
        let marks = flag::WIN_SENT
            | if ask.bump { flag::FETCHED } else { 0 }
            | if ask.binary_key { flag::BINARY_KEY } else { 0 };
        let cas = self.cas_for_write(None, ask.new_cas, ask.with_cas);
        let fields = Fields { marks, expires: or_never(expires), client_flags: 0, cas };
        match self.replace(key, None, &fields, [Source::Bytes(&[]); 2], 0, None, false, now) {
            Some(at) if self.is_indexed(key.hash, at) => {
                let before = ItemBefore { flags: 0, expires: fields.expires };
                MetaGot::Vivified(Item { win: true, ..self.item(at, before) })
            }
            // `Some`: the index had no room for the item, and it was dropped again.
            _ => {
                self.count_out_of_memory();
                MetaGot::NoMemory
            }
        }
    }
}
