//! The store: one core's slice and its operations.
//!
//! This file has the store itself, reads and the basics the other operations share. Writes, meta reads,
//! numbers, uploads, pins, room-making and upkeep have a file each.

mod arithmetic;
mod check;
mod delete;
mod journal;
mod maintain;
mod meta;
mod pin;
mod room;
mod save;
mod upload;
mod write;

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use crate::arena::Arena;
use crate::clock::{NEVER, Seconds, or_never};
use crate::config::{ConfigError, MEMORY_BYTES_MAX, RESERVE_FACTOR, StoreConfig};
use crate::eviction::{Ghosts, Policy};
use crate::index::{BucketIndex, HASHES, Index, Keys, Wish};
use crate::item::{self, Head, Location, Piece, Record, flag};
use crate::key::{Key, KeyHasher};
use crate::log::Log;
use crate::segment::{Place, Queue, Segment};
use crate::stats::StoreStats;
use crate::value::{Item, Value};

pub use arithmetic::{ArithmeticHow, Counted};
pub use delete::{DeleteHow, Deleted};
pub use journal::Evicted;
pub use meta::{MetaGet, MetaGot};
pub use pin::PinnedValue;
pub use save::Carried;
pub use upload::{NoMemory, Upload};
pub use write::{Mode, StoreHow, Stored};

use room::{RESERVE_SEGMENTS, Scan};

/// Items visited by one step of [`Store::walk`], about: a tenth of a millisecond.
const WALK_ITEMS: usize = 256;

/// One core's slice of the cache. May move to another thread, never be used by two.
///
/// `I` is the index; the one stores are made with is the default.
pub struct Store<I: Index = BucketIndex> {
    config: StoreConfig,
    log: Log,
    index: I,
    ghosts: Ghosts,
    policy: Policy,
    /// The segment being emptied, if any.
    scan: Option<Scan>,
    /// Tenths of bytes that appends owe to scanning.
    debt: usize,
    /// Items in segments numbered below this were flushed; 0 once all of them are gone.
    flushed_below: u64,
    /// Segment number from which maintenance looks for flushed ones.
    flush_cursor: u32,
    /// Segments below this number are known to hold nothing flushed.
    flush_gone: u32,
    /// Segment number from which the next sparse one is looked for.
    sparse_cursor: u32,
    /// When a delayed flush comes due; `NEVER` for none.
    flush_at: u32,
    /// The next cas unique.
    cas_next: u64,
    /// Bytes of values promised to uploads that are not finished.
    upload_bytes: usize,
    counts: StoreStats,
    /// What is dropped while it lives, if somebody wants to know.
    journal: Option<Box<journal::Journal>>,
    /// Hashes of what was dropped while it lived, in order.
    #[cfg(test)]
    pub(crate) evicted: Vec<u64>,
    /// `Send`, not `Sync`: one thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl Store {
    /// A store with no items. Reserves address space, not memory. Errors name the setting to change.
    pub fn new(config: StoreConfig, now: Seconds) -> Result<Store, ConfigError> {
        Store::with_index(config, now)
    }
}

impl<I: Index> Store<I> {
    /// `new`, for any kind of index.
    pub(crate) fn with_index(config: StoreConfig, now: Seconds) -> Result<Store<I>, ConfigError> {
        config.check()?;
        debug_assert!(now.0 < NEVER);
        let memory_bytes = config.memory_bytes;
        let huge_pages = config.wants_huge_pages();
        let reserve_bytes = (memory_bytes * RESERVE_FACTOR).min(MEMORY_BYTES_MAX);
        let ghosts_for = if config.policy.ghosts { memory_bytes } else { 0 };
        let make = |bytes: usize| -> io::Result<(Arena, I, Ghosts)> {
            Ok((Arena::new(bytes)?, I::new(memory_bytes, bytes, huge_pages)?, Ghosts::new(ghosts_for)?))
        };
        let made = make(reserve_bytes).or_else(|_| make(memory_bytes));
        let (arena, index, ghosts) = made.map_err(|_| ConfigError {
            key: "memory_bytes",
            value: memory_bytes as u64,
            remedy: "the kernel refuses this much address space: raise RLIMIT_AS or lower memory_bytes",
        })?;
        let segment_bytes = config.segment_bytes();
        Ok(Store {
            log: Log::new(arena, segment_bytes, memory_bytes / segment_bytes, huge_pages),
            index,
            ghosts,
            policy: Policy::new(&config.policy, memory_bytes),
            scan: None,
            debt: 0,
            flushed_below: 0,
            flush_cursor: 0,
            flush_gone: 0,
            sparse_cursor: 0,
            flush_at: NEVER,
            cas_next: 1,
            upload_bytes: 0,
            counts: StoreStats::default(),
            journal: None,
            #[cfg(test)]
            evicted: Vec::new(),
            not_sync: PhantomData,
            config,
        })
    }

    /// Starts loading the index line an operation on a key of this hash will read. With a batch of keys: this
    /// for all of them, then `prefetch_item` for all, then the operations. Sixteen at a time are enough.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Starts loading the first three cache lines of the item of this hash, if there seems to be one. Reads the
    /// index line, which `prefetch` should have begun to load.
    #[inline]
    pub fn prefetch_item(&self, hash: u64) {
        let arena = &self.log.arena;
        self.index.candidates(hash, |at| {
            arena.prefetch(at.at());
            arena.prefetch(at.at() + CACHE_LINE_BYTES);
            arena.prefetch(at.at() + 2 * CACHE_LINE_BYTES);
        });
    }

    /// The item, counting one access.
    #[inline(always)] // so that what the caller does not look at is not made
    pub fn get(&mut self, key: Key<'_>, now: Seconds) -> Option<Item<'_>> {
        let (at, head) = self.look_up(key, true, now)?;
        // Written only when it changes: a hot item's line stays clean.
        if head.flags() & flag::FETCHED == 0 {
            item::set_flags(&mut self.log.arena, at, head.flags() | flag::FETCHED);
        }
        if head.is_plain() {
            return Some(self.plain_item(at, head));
        }
        let record = Record::of(&self.log.arena, at, head);
        Some(self.item_of(at, record, Before::of(record)))
    }

    /// The item with a cas unique: one is assigned if it has none yet. Should memory for that be missing, the
    /// item comes with cas 0, which compares with nothing.
    pub fn get_with_cas(&mut self, key: Key<'_>, now: Seconds) -> Option<Item<'_>> {
        let at = self.find_counting(key, now)?;
        let before = self.mark_fetched(at);
        let at = self.assign_cas(key, at, now).unwrap_or(at);
        Some(self.item(at, before))
    }

    /// The item, given a new expiry (`None` never). Should memory for that be missing, it keeps the old one.
    pub fn get_and_touch(
        &mut self,
        key: Key<'_>,
        expires: Option<Seconds>,
        with_cas: bool,
        now: Seconds,
    ) -> Option<Item<'_>> {
        let at = self.find_counting(key, now)?;
        let mut before = self.mark_fetched(at);
        before.expires = self.record(at).expires();
        let at = self.set_expires(key.hash, at, or_never(expires), now).unwrap_or(at);
        let at = if with_cas { self.assign_cas(key, at, now).unwrap_or(at) } else { at };
        Some(self.item(at, before))
    }

    /// The item, as if nobody had looked: no access counted, nothing marked.
    pub fn peek(&self, key: Key<'_>, now: Seconds) -> Option<Item<'_>> {
        let arena = &self.log.arena;
        let slot = self.index.find(key.hash, |at| item::has_key(arena, at, key.bytes))?;
        if self.is_dead(slot.location, now) || now.0 >= self.flush_at {
            return None;
        }
        Some(self.item(slot.location, Before::of(self.record(slot.location))))
    }

    /// Gives the item a new expiry (`None` never). False when there is none, or no memory for the change.
    pub fn touch(&mut self, key: Key<'_>, expires: Option<Seconds>, now: Seconds) -> bool {
        let Some(at) = self.find_counting(key, now) else { return false };
        self.mark_fetched(at);
        self.set_expires(key.hash, at, or_never(expires), now).is_some()
    }

    /// Everything stored before `at` is dead from `at` on: at once, in constant time, when `at` is not later
    /// than `now`, including what was stored in this second. A later call replaces one still pending.
    pub fn flush(&mut self, at: Seconds, now: Seconds) {
        self.turn(now);
        if at > now {
            self.flush_at = at.0;
            return;
        }
        self.flush_now();
    }

    fn flush_now(&mut self) {
        self.flush_at = NEVER;
        self.log.close_all();
        self.flushed_below = self.log.segments.sequence_next();
        self.flush_cursor = 0;
        self.flush_gone = 0;
    }

    /// What every operation that takes `&mut self` does first: a delayed flush may be due.
    #[inline]
    fn turn(&mut self, now: Seconds) {
        if now.0 >= self.flush_at {
            self.flush_now();
        }
    }

    /// Gives key and item to `visit`, of the live items whose hashes lie in a part of the range that begins at `from`,
    /// some [`WALK_ITEMS`] of them; returns where the next part begins, `None` behind the last. From 0 to there each
    /// item that was stored all the while is visited once, whatever the store does in between.
    pub fn walk(&self, from: u64, now: Seconds, mut visit: impl FnMut(&[u8], &Item<'_>)) -> Option<u64> {
        let parts = (self.index.len() / WALK_ITEMS + 1) as u64;
        let until = from.saturating_add(HASHES.div_ceil(parts)).min(HASHES);
        if from < until && now.0 < self.flush_at {
            self.index.in_range(from, until, |at| {
                let record = self.record(at);
                let hash = self.config.hasher.hash(record.key()) & (HASHES - 1);
                if (from..until).contains(&hash) && !self.is_dead(at, now) {
                    visit(record.key(), &self.item(at, Before::of(record)));
                }
            });
        }
        (until < HASHES).then_some(until)
    }

    /// Counters and sizes, in constant time.
    pub fn stats(&self) -> StoreStats {
        let segments = &self.log.segments;
        let total = self.segments_total();
        let segment_bytes = segments.segment_bytes();
        StoreStats {
            segments_total: total as u64,
            segments_free: total.saturating_sub(segments.in_use()) as u64,
            segments_pinned: segments.pinned() as u64,
            segment_bytes: segment_bytes as u64,
            index_bytes: self.index.bytes() as u64,
            ghost_bytes: self.ghosts.bytes() as u64,
            arena_bytes: (segments.in_use() * segment_bytes) as u64,
            memory_bytes: self.config.memory_bytes as u64,
            ..self.counts
        }
    }

    /// Share of segments that new items pass before they have to have been read, in thousandths.
    pub fn admission_permille(&self) -> usize {
        self.policy.admission_permille()
    }

    /// Segments the memory limit allows, what index, ghosts and bookkeeping take subtracted.
    #[inline]
    fn segments_total(&self) -> usize {
        let kept = size_of::<Segment>() * self.log.segments.count() as usize;
        let other = self.index.bytes() + self.ghosts.bytes() + self.policy.rehearsal.bytes() + kept;
        let shift = self.log.segments.segment_bytes().ilog2();
        (self.config.memory_bytes.saturating_sub(other) >> shift).max(SEGMENTS_MIN)
    }

    #[inline]
    fn record(&self, at: Location) -> Record<'_> {
        Record::read(&self.log.arena, at)
    }

    /// The live item of this key. A dead one is forgotten on the way.
    fn find(&mut self, key: Key<'_>, now: Seconds) -> Option<Location> {
        Some(self.look_up(key, false, now)?.0)
    }

    /// The same, counting one access.
    fn find_counting(&mut self, key: Key<'_>, now: Seconds) -> Option<Location> {
        Some(self.look_up(key, true, now)?.0)
    }

    /// The live item of this key and its header; with `counting`, one access is counted. A dead one is forgotten.
    #[inline(always)]
    fn look_up(&mut self, key: Key<'_>, counting: bool, now: Seconds) -> Option<(Location, Head)> {
        self.turn(now);
        let arena = &self.log.arena;
        let mut head = Head::default();
        let matches = |at| {
            head = Head::read(arena, at);
            head.has_key(arena, at, key.bytes)
        };
        let at = match counting {
            true => self.index.find_counting(key.hash, matches),
            false => self.index.find(key.hash, matches).map(|slot| slot.location),
        };
        if counting && self.policy.rehearsal.has(key.hash) {
            let bytes = at.map(|at| self.stored_bytes(at) as u32);
            self.policy.rehearsal.looked(key.hash, bytes);
        }
        let at = at?;
        if head.expires(arena, at) <= now.0 || self.is_flushed(at) {
            self.reclaim(key.hash, at);
            self.adapt_index(SHRINK_SLICES);
            return None;
        }
        Some((at, head))
    }

    /// Whether the item has expired or was flushed.
    #[inline]
    fn is_dead(&self, at: Location, now: Seconds) -> bool {
        let arena = &self.log.arena;
        Head::read(arena, at).expires(arena, at) <= now.0 || self.is_flushed(at)
    }

    #[inline]
    fn is_flushed(&self, at: Location) -> bool {
        self.flushed_below != 0 && {
            let segments = &self.log.segments;
            segments[segments.holding(at.at())].sequence < self.flushed_below
        }
    }

    /// Forgets a dead item.
    #[cold]
    fn reclaim(&mut self, hash: u64, at: Location) {
        self.counts.reclaimed += 1;
        self.counts.expired_unfetched += u64::from(!self.record(at).has(flag::FETCHED));
        self.unlink(hash, at);
    }

    /// Takes an item out of index and log. Who does so for many calls `adapt_index` once for all.
    fn unlink(&mut self, hash: u64, at: Location) {
        let found = self.index.remove(hash, at);
        assert!(found); // or the index would keep pointing at a segment about to be reused
        self.release(at);
    }

    /// The record at `at`, no longer in the index, is dead; so are its pieces.
    fn release(&mut self, at: Location) {
        let head = Head::read(&self.log.arena, at);
        let bytes = head.bytes();
        self.counts.items -= 1;
        self.counts.bytes -= bytes as u64;
        if !head.is_large() {
            return self.log.bury(at, bytes);
        }
        // The list stays readable: its own record is forgotten last.
        for ordinal in 0..self.record(at).piece_count() {
            let piece = self.record(at).piece(ordinal);
            self.release_piece(piece);
        }
        self.log.forget(at, bytes);
    }

    fn release_piece(&mut self, piece: Location) {
        let bytes = Piece::bytes(Piece::read(&self.log.arena, piece).len);
        self.counts.bytes -= bytes as u64;
        self.log.forget(piece, bytes);
    }

    /// Bytes of an item in the log, pieces included.
    #[inline]
    fn stored_bytes(&self, at: Location) -> usize {
        let head = Head::read(&self.log.arena, at);
        if head.is_large() { self.stored_bytes_large(at) } else { head.bytes() }
    }

    fn stored_bytes_large(&self, at: Location) -> usize {
        let record = self.record(at);
        let piece_bytes = |piece| Piece::bytes(Piece::read(&self.log.arena, piece).len);
        record.bytes() + record.pieces().map(piece_bytes).sum::<usize>()
    }

    /// The index points at `new`, a record just written, instead of `old`, which is released.
    fn link(&mut self, hash: u64, old: Option<Location>, new: Location) {
        let bytes = self.stored_bytes(new);
        self.counts.items += 1;
        self.counts.bytes += bytes as u64;
        if self.policy.rehearsal.has(hash) {
            self.policy.rehearsal.stored(hash, bytes as u32);
        }
        match old {
            Some(old) => {
                let found = self.index.relocate(hash, old, new, None);
                assert!(found); // `old` was found under this hash and pinned since
                self.release(old);
            }
            None => {
                let keys = LogKeys { arena: &self.log.arena, hasher: &self.config.hasher };
                if let Some(displaced) = self.index.insert(hash, new, &keys) {
                    self.count_eviction(displaced);
                    self.release(displaced);
                }
                self.adapt_index(GROW_SLICES);
            }
        }
    }

    /// An item is dropped while it lives.
    fn count_eviction(&mut self, at: Location) {
        self.counts.evictions += 1;
        if self.journal.is_some() {
            self.note_eviction(at);
        }
        #[cfg(test)]
        self.evicted.push(self.config.hasher.hash(self.record(at).key()));
        self.counts.evicted_unfetched += u64::from(!self.record(at).has(flag::FETCHED));
    }

    /// Lets the index grow or shrink a little. A full store keeps its index fuller before it
    /// gives up items for it.
    #[inline]
    fn adapt_index(&mut self, slices: usize) -> bool {
        let (available, total) = (self.available(), self.segments_total());
        if available * SCARCE_FRACTION <= total {
            self.index.set_scarce(true);
        } else if available * PLENTY_FRACTION >= total {
            self.index.set_scarce(false);
        }
        match self.index.wish() {
            Wish::Rest => return false,
            Wish::Grow if available <= RESERVE_SEGMENTS => return false,
            Wish::Grow | Wish::GrowNow | Wish::Shrink => {}
        }
        let keys = LogKeys { arena: &self.log.arena, hasher: &self.config.hasher };
        let more = self.index.adapt(slices, &keys);
        while let Some(orphan) = self.index.orphan() {
            self.count_eviction(orphan);
            self.release(orphan);
        }
        more
    }

    /// The queue an item is in; the one its segment came from while that is being emptied.
    fn queue_of(&self, at: Location) -> Queue {
        let segment = self.log.segments.holding(at.at());
        match (self.log.segments[segment].place, &self.scan) {
            (Place::Queued(queue), _) => queue,
            (_, Some(scan)) => scan.queue,
            _ => Queue::Main,
        }
    }

    /// Marks the item as read; how it was before.
    fn mark_fetched(&mut self, at: Location) -> Before {
        let before = Before::of(self.record(at));
        // Written only when it changes: a hot item's line stays clean.
        if before.flags & flag::FETCHED == 0 {
            item::set_flags(&mut self.log.arena, at, before.flags | flag::FETCHED);
        }
        before
    }

    /// Rewrites the expiry, in place if the record has room for it. `None`: no memory for another record.
    fn set_expires(&mut self, hash: u64, at: Location, expires: u32, now: Seconds) -> Option<Location> {
        if !item::set_expires(&mut self.log.arena, at, expires) {
            let mut fields = self.record(at).fields();
            fields.expires = expires;
            return self.rewrite(hash, at, fields, now);
        }
        self.raise_expiry(at, expires);
        Some(at)
    }

    /// The segments that hold this item hold something that expires then.
    fn raise_expiry(&mut self, at: Location, expires: u32) {
        let segments = &mut self.log.segments;
        segments.expires(segments.holding(at.at()), expires);
        for piece in Record::read(&self.log.arena, at).pieces() {
            segments.expires(segments.holding(piece.at()), expires);
        }
    }

    /// Gives the item a cas unique if it has none. `None`: no memory for another record.
    fn assign_cas(&mut self, key: Key<'_>, at: Location, now: Seconds) -> Option<Location> {
        let mut fields = self.record(at).fields();
        if fields.cas.is_some() || !self.config.cas {
            return Some(at);
        }
        fields.cas = Some(self.next_cas());
        self.rewrite(key.hash, at, fields, now)
    }

    fn next_cas(&mut self) -> u64 {
        let cas = self.cas_next;
        self.cas_next += 1; // 580 years at 1e9 a second
        cas
    }

    /// The cas unique of the record that follows one with `old`. `None`: nobody asked, none is stored.
    fn following_cas(&mut self, old: Option<u64>, wish: Option<u64>, asked: bool) -> Option<u64> {
        if !self.config.cas {
            return None;
        }
        match (wish, old) {
            (Some(wish), _) => Some(self.chosen_cas(wish)),
            // A client's own number may be ahead of the counter; per key uniques only rise.
            (None, Some(old)) if old >= self.cas_next => Some(old.saturating_add(1)),
            // Without eviction there may be no room to add the field later.
            (None, _) if asked || !self.config.evict => Some(self.next_cas()),
            _ => None,
        }
    }

    /// A client's own number. The counter goes past it, so that uniques only rise for this key even if the item
    /// goes and comes back; but not past half of all numbers, which would leave none to count with: above that
    /// they rise while the item lives.
    fn chosen_cas(&mut self, wish: u64) -> u64 {
        if wish < CHOSEN_CAS_MAX {
            self.cas_next = self.cas_next.max(wish + 1);
        }
        wish
    }

    /// What a client sees of the record at `at`.
    fn item(&self, at: Location, before: Before) -> Item<'_> {
        self.item_of(at, self.record(at), before)
    }

    /// The same of an item without optional fields, as most are: nothing more is read for it.
    #[inline(always)]
    fn plain_item(&self, at: Location, head: Head) -> Item<'_> {
        Item {
            client_flags: 0,
            expires: None,
            expires_before: None,
            cas: 0,
            value: Value::whole(head.plain_value(&self.log.arena, at)),
            hit_before: head.flags() & flag::FETCHED != 0,
            stale: head.flags() & flag::STALE != 0,
            win: false,
            token_sent: head.flags() & flag::WIN_SENT != 0,
            binary_key: head.flags() & flag::BINARY_KEY != 0,
            stored_bytes: head.bytes() as u32,
            at,
            segments: &self.log.segments,
        }
    }

    #[inline(always)] // whoever reads by `get` uses a few fields of it
    fn item_of<'s>(&'s self, at: Location, record: Record<'s>, before: Before) -> Item<'s> {
        Item {
            client_flags: record.client_flags(),
            expires: item::seconds(record.expires()),
            expires_before: item::seconds(before.expires),
            cas: record.cas().unwrap_or(0),
            value: record.value(&self.log.arena),
            hit_before: before.flags & flag::FETCHED != 0,
            stale: record.has(flag::STALE),
            win: false,
            token_sent: before.flags & flag::WIN_SENT != 0,
            binary_key: record.has(flag::BINARY_KEY),
            stored_bytes: if record.is_large() { self.stored_bytes(at) } else { record.bytes() } as u32,
            at,
            segments: &self.log.segments,
        }
    }
}

/// Fewest segments the limit is taken to allow: open ones of both queues, and one to move items to.
const SEGMENTS_MIN: usize = 8;

/// Numbers chosen by clients below this move the counter.
const CHOSEN_CAS_MAX: u64 = 1 << 63;

/// Memory is scarce to the index once only this part of the segments may still be taken: time enough to shrink before
/// items have to go for it...
const SCARCE_FRACTION: usize = 8;
/// ...and is so no more when this part may be.
const PLENTY_FRACTION: usize = 4;
/// Slices of index growth per item that comes: at 3 a growth by a sixteenth is done within a thirtieth more items.
const GROW_SLICES: usize = 3;
/// Slices of shrinking per item a client deletes, or step of a scan. Nothing waits for it; upkeep does the rest.
const SHRINK_SLICES: usize = 1;
const CACHE_LINE_BYTES: usize = 64;

/// The keys of the log's items, for the index.
struct LogKeys<'s> {
    arena: &'s Arena,
    hasher: &'s KeyHasher,
}

impl Keys for LogKeys<'_> {
    #[inline]
    fn hash(&self, at: Location) -> u64 {
        self.hasher.hash(Record::read(self.arena, at).key())
    }

    #[inline]
    fn prefetch(&self, at: Location) {
        // Header and key, which may lie across two lines.
        self.arena.prefetch(at.at());
        self.arena.prefetch(at.at() + CACHE_LINE_BYTES / 2);
    }
}

/// An item before the operation that returns it.
#[derive(Clone, Copy)]
struct Before {
    flags: u8,
    expires: u32,
}

impl Before {
    #[inline]
    fn of(record: Record<'_>) -> Before {
        Before { flags: record.flags(), expires: record.expires() }
    }
}
