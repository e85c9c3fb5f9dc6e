//! Saving all live items of a store, and restoring them in another process.

use crate::clock::{self, NEVER, Seconds, or_never};
use crate::index::Index;
use crate::item::{self, Fields, Location, RecordKind, flag};
use crate::key::Key;
use crate::segment::{NONE, Queue};
use crate::value::Value;

use super::Store;
use super::content::Source;

/// A saved item, without key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// The 32 bits the client stored with the item; the store gives them no meaning.
    pub client_flags: u32,
    /// When it expires; `None` for never.
    pub expires: Option<Seconds>,
    /// Its cas unique, if one was handed out.
    pub cas: Option<u64>,
    /// Whether it was invalidated; it is served until it is refilled.
    pub stale: bool,
    /// Whether a reader was told to refill it.
    pub token_sent: bool,
    /// Whether it was read since it was stored.
    pub fetched: bool,
    /// Whether the client gave the key in base64.
    pub binary_key: bool,
    /// Whether it is in the main queue.
    pub kept: bool,
    /// Its access count.
    pub frequency: u8,
}

impl Carried {
    /// The flags of its record, except those of fields.
    fn marks(&self) -> u8 {
        let mark = |is: bool, mark: u8| if is { mark } else { 0 };
        mark(self.stale, flag::STALE)
            | mark(self.token_sent, flag::WIN_SENT)
            | mark(self.fetched, flag::FETCHED)
            | mark(self.binary_key, flag::BINARY_KEY)
    }
}

impl<I: Index> Store<I> {
    /// Calls `visit` for every live item: first those of the main queue, then those of the admission queue,
    /// each in the order in which they would be evicted. Takes time in proportion to the store.
    ///
    /// # Errors
    /// The first error of `visit`, which ends the save.
    pub fn save<E>(
        &self,
        now: Seconds,
        mut visit: impl FnMut(&[u8], &Carried, Value<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // A segment that is being emptied is in no queue; the rest of its items would be evicted next.
        let scanned = self.scan.iter().map(|scan| (scan.segment, scan.queue));
        for queue in [Queue::Main, Queue::Admission] {
            for (segment, _) in scanned.clone().filter(|&(_, from)| from == queue) {
                self.save_segment(segment, queue, now, &mut visit)?;
            }
            let mut segment = self.log.segments.oldest(queue);
            while segment != NONE {
                self.save_segment(segment, queue, now, &mut visit)?;
                segment = self.log.segments[segment].next;
            }
        }
        Ok(())
    }

    fn save_segment<E>(
        &self,
        segment: u32,
        queue: Queue,
        now: Seconds,
        visit: &mut impl FnMut(&[u8], &Carried, Value<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (arena, segments) = (&self.log.arena, &self.log.segments);
        if segments[segment].live == 0 {
            return Ok(());
        }
        let start = segments.start(segment);
        let end = start + segments[segment].written as usize;
        let mut at = start;
        while at < end {
            let location = Location::from_offset(at);
            let (kind, bytes) = item::kind_and_bytes(arena, location);
            at += bytes;
            if !matches!(kind, RecordKind::Item) {
                continue;
            }
            let record = self.record(location);
            let hash = self.config.hasher.hash(record.key());
            let Some(slot) = self.index.find(hash, |other| other == location) else { continue };
            if self.is_dead(location, now) || now.0 >= self.flush_at {
                continue;
            }
            let carried = Carried {
                client_flags: record.client_flags(),
                expires: clock::from_stored(record.expires()),
                cas: record.cas(),
                stale: record.has(flag::STALE),
                token_sent: record.has(flag::WIN_SENT),
                fetched: record.has(flag::FETCHED),
                binary_key: record.has(flag::BINARY_KEY),
                kept: queue == Queue::Main,
                frequency: slot.frequency,
            };
            visit(record.key(), &carried, record.value(arena))?;
        }
        Ok(())
    }

    /// Stores an item that [`Store::save`] gave in another process. Other items may be dropped for it. False
    /// if it has expired, there is no room for it, or the store has an item with this key.
    pub fn restore(&mut self, key: Key<'_>, carried: &Carried, value: &[u8], now: Seconds) -> bool {
        self.apply_due_flush(now);
        self.pay_scan_debt(now);
        let expires = or_never(carried.expires);
        let too_long = value.len() > self.config.value_bytes_max;
        if !key.fits() || too_long || expires <= now.0 || self.find(key, now).is_some() {
            return false;
        }
        let cas = carried.cas.filter(|_| self.config.cas);
        let fields = Fields { marks: carried.marks(), expires, client_flags: carried.client_flags, cas };
        let full = self.log.segments.in_use() > self.segments_total();
        if !self.config.evict && (full || !self.index.has_room(key.hash)) {
            return false;
        }
        let queue = if carried.kept { Queue::Main } else { Queue::Admission };
        let sources = [Source::Bytes(value), Source::Bytes(&[])];
        let Some(at) = self.write_item(key, &fields, sources, value.len(), queue, now) else { return false };
        self.link(key.hash, None, at);
        self.index.relocate(key.hash, at, at, Some(carried.frequency));
        self.raise_cas(cas.unwrap_or(0));
        true
    }

    /// The cas unique that the store would hand out next.
    pub fn cas_next(&self) -> u64 {
        self.cas_next
    }

    /// Makes the store hand out only cas uniques above `cas`, unless `cas` is so high that a client must have
    /// chosen it.
    pub fn raise_cas(&mut self, cas: u64) {
        if cas < super::CHOSEN_CAS_MAX {
            self.cas_next = self.cas_next.max(cas + 1);
        }
    }

    /// The second in which a delayed flush comes due, if there is one.
    pub fn pending_flush(&self) -> Option<Seconds> {
        (self.flush_at != NEVER).then_some(Seconds(self.flush_at))
    }
}
