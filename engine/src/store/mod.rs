//! The store: one core's slice of the cache, and its operations.
//!
//! This file has the store itself, plain reads, and what the other operations share. Writes, meta reads,
//! arithmetic, uploads, pins, eviction (`room`) and upkeep (`maintain`) have a file each.

mod arithmetic;
mod check;
mod content;
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
use crate::clock::{self, NEVER, Seconds, or_never};
use crate::config::{ConfigError, MEMORY_BYTES_MAX, RESERVE_FACTOR, StoreConfig};
use crate::eviction::{Ghosts, Policy};
use crate::index::{BucketIndex, HASHES, Index, KeyReader, Resize};
use crate::item::{self, ItemHeader, Location, Piece, Record, flag};
use crate::key::{Key, KeyHasher};
use crate::log::Log;
use crate::segment::{Queue, Segment, SegmentState};
use crate::stats::StoreStats;
use crate::value::{Item, Value};

pub use arithmetic::{ArithmeticHow, Counted};
pub use content::{Mode, StoreHow, Stored};
pub use delete::{DeleteHow, Deleted};
pub use journal::Evicted;
pub use meta::{MetaGet, MetaGot};
pub use pin::PinnedValue;
pub use save::Carried;
pub use upload::{NoMemory, Upload};

use room::{RESERVE_SEGMENTS, SegmentScan};

/// About the number of items that one step of [`Store::walk`] visits, which takes a tenth of a millisecond.
const WALK_ITEMS: usize = 256;

/// One core's slice of the cache. It may move to another thread, but two threads cannot use it at a time.
///
/// `I` is the kind of index. [`Store::new`] makes the default; tests have others.
pub struct Store<I: Index = BucketIndex> {
    config: StoreConfig,
    log: Log,
    index: I,
    ghosts: Ghosts,
    policy: Policy,
    /// The segment being emptied, if any.
    scan: Option<SegmentScan>,
    /// Scan debt, in tenths of bytes: appends add to it, and scanning pays it off (see [`room`]).
    debt: usize,
    /// Items in segments with a sequence number below this were flushed. 0 when none of them is left.
    flushed_below: u64,
    /// Number of the segment at which upkeep goes on to look for flushed ones.
    flush_cursor: u32,
    /// Segments with a number below this hold nothing that was flushed.
    flush_gone: u32,
    /// Number of the segment at which the search for a sparse one goes on.
    sparse_cursor: u32,
    /// Second in which a delayed flush comes due; `NEVER` for none.
    flush_at: u32,
    /// The next cas unique.
    cas_next: u64,
    /// Bytes of the values of all uploads in progress.
    upload_bytes: usize,
    counts: StoreStats,
    /// Evicted items that the caller has not taken yet, if it wants to know of them.
    journal: Option<Box<journal::Journal>>,
    /// Hashes of all evicted items, in order.
    #[cfg(test)]
    pub(crate) evicted: Vec<u64>,
    /// Makes the store `Send` and not `Sync`.
    not_sync: PhantomData<Cell<()>>,
}

impl Store {
    /// An empty store. Reserves address space; memory is taken when items are stored.
    ///
    /// # Errors
    /// The setting that is out of range, or `memory_bytes` if the kernel refuses the address space.
    pub fn new(config: StoreConfig, now: Seconds) -> Result<Store, ConfigError> {
        Store::with_index(config, now)
    }
}

impl<I: Index> Store<I> {
    /// [`Store::new`], for any kind of index.
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

    /// Starts loading the index line that an operation on a key of this hash will read. For a batch of keys,
    /// call this for all of them, then `prefetch_item` for all, then do the operations. Batches of sixteen
    /// are enough.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Starts loading the first three cache lines of the item of this hash, if there seems to be one. Reads
    /// the index line, which `prefetch` should have started to load.
    #[inline]
    pub fn prefetch_item(&self, hash: u64) {
        let arena = &self.log.arena;
        self.index.candidates(hash, |at| {
            arena.prefetch(at.offset());
            arena.prefetch(at.offset() + CACHE_LINE_BYTES);
            arena.prefetch(at.offset() + 2 * CACHE_LINE_BYTES);
        });
    }

    /// Looks an item up, counts one access and marks it as read.
    #[inline(always)] // so that fields of the item that the caller does not use are not computed
    pub fn get(&mut self, key: Key<'_>, now: Seconds) -> Option<Item<'_>> {
        let (at, header) = self.look_up(key, true, now)?;
        // Written only if it changes, so that the cache line of an item that is read often is not written.
        if header.flags() & flag::FETCHED == 0 {
            item::set_flags(&mut self.log.arena, at, header.flags() | flag::FETCHED);
        }
        if header.is_plain() {
            return Some(self.plain_item(at, header));
        }
        let record = Record::with_header(&self.log.arena, at, header);
        Some(self.item_of(at, record, ItemBefore::from_record(record)))
    }

    /// `get`, and assigns a cas unique if the item has none yet. If there is no memory for that, the item is
    /// returned with cas 0, which is equal to no unique.
    pub fn get_with_cas(&mut self, key: Key<'_>, now: Seconds) -> Option<Item<'_>> {
        let at = self.find_counting(key, now)?;
        let before = self.mark_fetched(at);
        let at = self.assign_cas(key, at, now).unwrap_or(at);
        Some(self.item(at, before))
    }

    /// `get`, and sets a new expiry (`None` for never). If there is no memory for that, the item keeps the
    /// old one. With `with_cas`, assigns a cas unique as `get_with_cas` does.
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

    /// Looks an item up without counting the access or marking the item as read.
    pub fn peek(&self, key: Key<'_>, now: Seconds) -> Option<Item<'_>> {
        let arena = &self.log.arena;
        let slot = self.index.find(key.hash, |at| item::has_key(arena, at, key.bytes))?;
        if self.is_dead(slot.location, now) || now.0 >= self.flush_at {
            return None;
        }
        Some(self.item(slot.location, ItemBefore::from_record(self.record(slot.location))))
    }

    /// Looks an item up as [`peek`](Self::peek) does, and gives it a cas unique if it has none. Also returns its
    /// last access, which that may change. Without memory for the unique it stays 0.
    pub fn inspect(&mut self, key: Key<'_>, now: Seconds) -> Option<(Item<'_>, Seconds)> {
        let item = self.peek(key, now)?;
        let (at, last_access) = (item.at, item.last_access());
        let at = self.assign_cas(key, at, now).unwrap_or(at);
        Some((self.item(at, ItemBefore::from_record(self.record(at))), last_access))
    }

    /// Sets a new expiry (`None` for never), as an access. False if there is no item, or no memory for the
    /// change.
    pub fn touch(&mut self, key: Key<'_>, expires: Option<Seconds>, now: Seconds) -> bool {
        let Some(at) = self.find_counting(key, now) else { return false };
        self.mark_fetched(at);
        self.set_expires(key.hash, at, or_never(expires), now).is_some()
    }

    /// Flushes all items that are stored before `at`: none is found from `at` on. If `at` is not later than
    /// `now`, that is at once and includes items stored in this second. Takes constant time; their memory is
    /// freed by `maintain`. A later call replaces a flush that is still pending.
    pub fn flush(&mut self, at: Seconds, now: Seconds) {
        self.apply_due_flush(now);
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

    /// Carries out a delayed flush that is due. Operations that take `&mut self` do this first.
    #[inline]
    fn apply_due_flush(&mut self, now: Seconds) {
        if now.0 >= self.flush_at {
            self.flush_now();
        }
    }

    /// One step of a walk over all items. Calls `visit` with key and item for about 256 live items, and
    /// returns the `from` of the next step, or `None` after the last. The first step has `from` 0. A walk
    /// visits each item that is stored all the time exactly once, whatever operations are done between its
    /// steps.
    pub fn walk(&self, from: u64, now: Seconds, mut visit: impl FnMut(&[u8], &Item<'_>)) -> Option<u64> {
        let parts = (self.index.len() / WALK_ITEMS + 1) as u64;
        let until = from.saturating_add(HASHES.div_ceil(parts)).min(HASHES);
        if from < until && now.0 < self.flush_at {
            self.index.in_range(from, until, |at| {
                let record = self.record(at);
                let hash = self.config.hasher.hash(record.key()) & (HASHES - 1);
                if (from..until).contains(&hash) && !self.is_dead(at, now) {
                    visit(record.key(), &self.item(at, ItemBefore::from_record(record)));
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

    /// Share of the segments that the admission queue should have, in thousandths.
    pub fn admission_permille(&self) -> usize {
        self.policy.admission_permille()
    }

    /// Segments that the memory limit allows in addition to index, ghosts and bookkeeping.
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

    /// The live item of this key. A dead one is removed.
    fn find(&mut self, key: Key<'_>, now: Seconds) -> Option<Location> {
        Some(self.look_up(key, false, now)?.0)
    }

    /// The live item of this key; counts one access. A dead one is removed.
    fn find_counting(&mut self, key: Key<'_>, now: Seconds) -> Option<Location> {
        Some(self.look_up(key, true, now)?.0)
    }

    /// The live item of this key, and its header; with `counting`, counts one access. A dead one is removed.
    #[inline(always)]
    fn look_up(&mut self, key: Key<'_>, counting: bool, now: Seconds) -> Option<(Location, ItemHeader)> {
        self.apply_due_flush(now);
        let arena = &self.log.arena;
        let mut header = ItemHeader::default();
        let matches = |at| {
            header = ItemHeader::read(arena, at);
            header.has_key(arena, at, key.bytes)
        };
        let at = match counting {
            true => self.index.find_counting(key.hash, matches),
            false => self.index.find(key.hash, matches).map(|slot| slot.location),
        };
        if counting && self.policy.rehearsal.samples(key.hash) {
            let bytes = at.map(|at| self.stored_bytes(at) as u32);
            self.policy.rehearsal.note_lookup(key.hash, bytes);
        }
        let at = at?;
        if header.expires(arena, at) <= now.0 || self.is_flushed(at) {
            let flushed = self.is_flushed(at);
            let found = &mut self.counts.found_dead;
            *if flushed { &mut found.flushed } else { &mut found.expired } += 1;
            self.reclaim(key.hash, at);
            self.adapt_index(SHRINK_SLICES);
            return None;
        }
        Some((at, header))
    }

    /// Whether the item has expired or was flushed.
    #[inline]
    fn is_dead(&self, at: Location, now: Seconds) -> bool {
        let arena = &self.log.arena;
        ItemHeader::read(arena, at).expires(arena, at) <= now.0 || self.is_flushed(at)
    }

    /// Whether the item at `at`, with a key of this hash, is in the index.
    fn is_indexed(&self, hash: u64, at: Location) -> bool {
        self.index.find(hash, |other| other == at).is_some()
    }

    /// Whether the item was stored before the last flush.
    #[inline]
    fn is_flushed(&self, at: Location) -> bool {
        self.flushed_below != 0 && {
            let segments = &self.log.segments;
            segments[segments.segment_of(at.offset())].sequence < self.flushed_below
        }
    }

    /// Removes a dead item.
    #[cold]
    fn reclaim(&mut self, hash: u64, at: Location) {
        if !self.is_flushed(at) {
            self.counts.reclaimed += 1;
            self.counts.expired_unfetched += u64::from(!self.record(at).has(flag::FETCHED));
        }
        self.unlink(hash, at);
    }

    /// Removes an item from index and log. The caller should call `adapt_index` afterwards, once for any
    /// number of items.
    fn unlink(&mut self, hash: u64, at: Location) {
        let found = self.index.remove(hash, at);
        assert!(found); // otherwise the index would keep a location in a segment that may be reused
        self.release(at);
    }

    /// Counts the record at `at`, which is not in the index any more, and its pieces as dead.
    fn release(&mut self, at: Location) {
        let header = ItemHeader::read(&self.log.arena, at);
        let bytes = header.bytes();
        self.counts.items -= 1;
        self.counts.bytes -= bytes as u64;
        if !header.is_large() {
            return self.log.bury(at, bytes);
        }
        // Last comes the record itself, which contains the list of pieces.
        for ordinal in 0..self.record(at).piece_count() {
            let piece = self.record(at).piece(ordinal);
            self.release_piece(piece);
        }
        self.log.mark_dead(at, bytes);
    }

    fn release_piece(&mut self, piece: Location) {
        let bytes = Piece::bytes(Piece::read(&self.log.arena, piece).len);
        self.counts.bytes -= bytes as u64;
        self.log.mark_dead(piece, bytes);
    }

    /// Bytes of an item in the log, including pieces.
    #[inline]
    fn stored_bytes(&self, at: Location) -> usize {
        let header = ItemHeader::read(&self.log.arena, at);
        if header.is_large() { self.stored_bytes_large(at) } else { header.bytes() }
    }

    fn stored_bytes_large(&self, at: Location) -> usize {
        let record = self.record(at);
        let piece_bytes = |piece| Piece::bytes(Piece::read(&self.log.arena, piece).len);
        record.bytes() + record.pieces().map(piece_bytes).sum::<usize>()
    }

    /// Adds `new`, a record just written, to the index, or puts it in the place of `old`, which is released.
    fn link(&mut self, hash: u64, old: Option<Location>, new: Location) {
        let bytes = self.stored_bytes(new);
        self.counts.items += 1;
        self.counts.bytes += bytes as u64;
        if self.policy.rehearsal.samples(hash) {
            self.policy.rehearsal.note_store(hash, bytes as u32);
        }
        match old {
            Some(old) => {
                let found = self.index.relocate(hash, old, new, None);
                assert!(found); // `old` was found by this hash and has been pinned since
                self.release(old);
            }
            None => {
                let keys = LogKeyReader { arena: &self.log.arena, hasher: &self.config.hasher };
                if let Some(displaced) = self.index.insert(hash, new, &keys) {
                    self.count_eviction(displaced);
                    self.release(displaced);
                }
                self.adapt_index(GROW_SLICES);
            }
        }
    }

    /// Counts the item at `at`, which is alive and about to be dropped, as evicted.
    fn count_eviction(&mut self, at: Location) {
        self.counts.evictions += 1;
        if self.journal.is_some() {
            self.note_eviction(at);
        }
        #[cfg(test)]
        self.evicted.push(self.config.hasher.hash(self.record(at).key()));
        self.counts.evicted_unfetched += u64::from(!self.record(at).has(flag::FETCHED));
    }

    /// Lets the index grow or shrink by at most `slices`; true if there is more to do. When memory is scarce
    /// the index is kept fuller, so that fewer items are dropped for it.
    #[inline]
    fn adapt_index(&mut self, slices: usize) -> bool {
        let (available, total) = (self.available(), self.segments_total());
        if available * SCARCE_FRACTION <= total {
            self.index.set_scarce(true);
        } else if available * PLENTY_FRACTION >= total {
            self.index.set_scarce(false);
        }
        match self.index.wanted_resize() {
            Resize::NotWanted => return false,
            Resize::Grow if available <= RESERVE_SEGMENTS => return false,
            Resize::Grow | Resize::GrowNow | Resize::Shrink => {}
        }
        let keys = LogKeyReader { arena: &self.log.arena, hasher: &self.config.hasher };
        let more = self.index.adapt(slices, &keys);
        while let Some(orphan) = self.index.orphan() {
            self.count_eviction(orphan);
            self.release(orphan);
        }
        more
    }

    /// The queue that an item is in; while its segment is being emptied, the one the segment was in.
    fn queue_of(&self, at: Location) -> Queue {
        let segment = self.log.segments.segment_of(at.offset());
        match (self.log.segments[segment].state, &self.scan) {
            (SegmentState::Queued(queue), _) => queue,
            (_, Some(scan)) => scan.queue,
            _ => Queue::Main,
        }
    }

    /// Marks the item as read, and returns how it was before.
    fn mark_fetched(&mut self, at: Location) -> ItemBefore {
        let before = ItemBefore::from_record(self.record(at));
        // Written only if it changes, as in `get`.
        if before.flags & flag::FETCHED == 0 {
            item::set_flags(&mut self.log.arena, at, before.flags | flag::FETCHED);
        }
        before
    }

    /// Sets the expiry, in place if the record has a field for it; returns the location of the item then.
    /// `None` if there is no memory for a new record.
    fn set_expires(&mut self, hash: u64, at: Location, expires: u32, now: Seconds) -> Option<Location> {
        if !item::set_expires(&mut self.log.arena, at, expires) {
            let mut fields = self.record(at).fields();
            fields.expires = expires;
            return self.rewrite(hash, at, fields, now);
        }
        self.raise_expiry(at, expires);
        Some(at)
    }

    /// Notes the expiry of an item with all segments that contain it or its pieces.
    fn raise_expiry(&mut self, at: Location, expires: u32) {
        let segments = &mut self.log.segments;
        segments.note_expiry(segments.segment_of(at.offset()), expires);
        for piece in Record::read(&self.log.arena, at).pieces() {
            segments.note_expiry(segments.segment_of(piece.offset()), expires);
        }
    }

    /// Assigns a cas unique if the item has none, and returns the location of the item then. `None` if there
    /// is no memory for a new record.
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
        self.cas_next += 1; // does not overflow for 580 years at 1e9 a second
        cas
    }

    /// The cas unique for a record that replaces one with `old`: `requested` if the client chose one. `None`
    /// if none is to be stored, because the caller does not ask for it.
    fn cas_for_write(&mut self, old: Option<u64>, requested: Option<u64>, asked: bool) -> Option<u64> {
        if !self.config.cas {
            return None;
        }
        match (requested, old) {
            (Some(requested), _) => Some(self.chosen_cas(requested)),
            // A number that a client chose may be above the counter; the uniques of a key only rise.
            (None, Some(old)) if old >= self.cas_next => Some(old.saturating_add(1)),
            // Without eviction there may be no room to add the field later.
            (None, _) if asked || !self.config.evict => Some(self.next_cas()),
            _ => None,
        }
    }

    /// Takes a unique that a client chose, and raises the counter above it, so that the uniques of this key
    /// rise even if the item is removed and stored again. A number of [`CHOSEN_CAS_MAX`] or more does not
    /// raise the counter: the uniques of all other keys would rise past what clients read that use signed
    /// numbers. There uniques rise only as long as the item lives.
    fn chosen_cas(&mut self, requested: u64) -> u64 {
        if requested < CHOSEN_CAS_MAX {
            self.cas_next = self.cas_next.max(requested + 1);
        }
        requested
    }

    /// The item at `at`, as the caller sees it.
    fn item(&self, at: Location, before: ItemBefore) -> Item<'_> {
        self.item_of(at, self.record(at), before)
    }

    /// The item at `at`, which has no optional fields. Most have none; this reads nothing but the header.
    #[inline(always)]
    fn plain_item(&self, at: Location, header: ItemHeader) -> Item<'_> {
        Item {
            client_flags: 0,
            expires: None,
            expires_before: None,
            cas: 0,
            value: Value::contiguous(header.plain_value(&self.log.arena, at)),
            hit_before: header.flags() & flag::FETCHED != 0,
            stale: header.flags() & flag::STALE != 0,
            win: false,
            token_sent: header.flags() & flag::WIN_SENT != 0,
            binary_key: header.flags() & flag::BINARY_KEY != 0,
            stored_bytes: header.bytes() as u32,
            at,
            segments: &self.log.segments,
        }
    }

    /// The item of a record, as the caller sees it.
    #[inline(always)] // callers of `get` use only some fields of it
    fn item_of<'s>(&'s self, at: Location, record: Record<'s>, before: ItemBefore) -> Item<'s> {
        Item {
            client_flags: record.client_flags(),
            expires: clock::from_stored(record.expires()),
            expires_before: clock::from_stored(before.expires),
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

/// A store uses so many segments even if the memory limit allows fewer: open ones of both queues, and one to
/// move items to.
const SEGMENTS_MIN: usize = 8;

/// A cas unique that a client chose raises the counter if it is below this.
const CHOSEN_CAS_MAX: u64 = 1 << 62;

/// Memory is scarce to the index once no more than the segments divided by this may still be opened. That
/// leaves time to shrink before items have to be dropped for it.
const SCARCE_FRACTION: usize = 8;
/// Memory is plentiful again once the segments divided by this may be opened.
const PLENTY_FRACTION: usize = 4;
/// Slices of index growth for each new item. With 3 the index has grown by a sixteenth when the items are a
/// thirtieth more.
const GROW_SLICES: usize = 3;
/// Slices of shrinking for each item that a client deletes, and each step of a scan. Upkeep does the rest.
const SHRINK_SLICES: usize = 1;
const CACHE_LINE_BYTES: usize = 64;

/// Reads the keys of items in the log, for the index.
struct LogKeyReader<'s> {
    arena: &'s Arena,
    hasher: &'s KeyHasher,
}

impl KeyReader for LogKeyReader<'_> {
    #[inline]
    fn hash(&self, at: Location) -> u64 {
        self.hasher.hash(Record::read(self.arena, at).key())
    }

    #[inline]
    fn prefetch(&self, at: Location) {
        // Header and key, which may be in two cache lines.
        self.arena.prefetch(at.offset());
        self.arena.prefetch(at.offset() + CACHE_LINE_BYTES / 2);
    }
}

/// An item as it was before the operation that returns it.
#[derive(Clone, Copy)]
struct ItemBefore {
    flags: u8,
    expires: u32,
}

impl ItemBefore {
    #[inline]
    fn from_record(record: Record<'_>) -> ItemBefore {
        ItemBefore { flags: record.flags(), expires: record.expires() }
    }
}
