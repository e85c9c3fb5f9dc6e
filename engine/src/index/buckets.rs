//! The index of every store: a flat table of one-line buckets that stretches in place.
//!
//! The hash, as a fraction, gives the home line of an entry (see `layout`). If that line is full, the entry
//! goes to one of the next 23, a page of 1.5 KiB in all. So a lookup reads one line, seldom two; and a crowd
//! of entries with similar hashes, such as an attacker would make, cannot slow down others, since its entries
//! displace each other.
//!
//! Growing turns the table into one that is 3 to 6 % larger, line by line from the top. Entries with their
//! home in the small layout below `boundary` have not moved yet; all others have their home in the large
//! layout. Growing only moves entries up, so there is always room. Shrinking does the same in the other
//! direction. Both are done in slices of one line, so that they never stop the store.
//!
//! While memory is plentiful the table is some 75 to 83 % full, and one entry in nine is not in its home
//! line. When memory is scarce it is 83 to 93 % full, and three entries in ten are not. Looking up such an
//! entry takes twice as long.

use std::io;

use super::layout::{Home, Layout};
use super::line::{Distance, IndexEntry, PASSED_MAX, SLOTS};
use super::lines::IndexLines;
use super::{Index, IndexedItem, KeyReader, Resize};
use crate::item::Location;

/// Lines an entry may be in: its home and those after it. At 94 % load one entry in 10^12 would have to go
/// further.
const PAGE_LINES: usize = 24;
// Only entries of a page go past a line of it.
const _: () = assert!(PAGE_LINES * SLOTS <= PASSED_MAX);
/// Lines searched for a vacant slot while entries replace each other. After that one is removed.
const CHAIN_LINES: usize = 512;
/// An entry goes past this many lines before keys are read to find an entry that is nearer to its home. If
/// all entries of a line are two or more lines from home, only their keys tell how far; to read ten keys
/// takes a microsecond.
const UNSORTED_LINES: usize = 12;
/// Keys of at most this many lines are read while entries replace each other. After that one is removed.
const KEY_LINES_MAX: usize = 24;
/// The table grows above this load while memory is plentiful, percent of slots.
const GROW_PERCENT: usize = 80;
/// The table grows above this load when memory is scarce, percent.
const SCARCE_GROW_PERCENT: usize = 90;
/// Above this load, percent, growing is more important than keeping items. In a full store the load stays
/// below it.
const URGENT_PERCENT: usize = 92;
/// The table shrinks below this load while memory is plentiful, percent.
const SHRINK_PERCENT: usize = 70;
/// When memory is scarce, the table shrinks as long as the load stays below this, percent.
const SCARCE_SHRINK_PERCENT: usize = 88;
/// Keys that resizing has to read are prefetched this many lines ahead.
const AHEAD_LINES: usize = 8;

/// The index that stores use: a table of lines that grows and shrinks in place.
pub struct BucketIndex {
    lines: IndexLines,
    /// The layout of entries below `boundary`.
    small: Layout,
    /// While resizing, the layout of the other entries, the next size up from `small`.
    large: Layout,
    /// Lines of the small layout that are in use: all of them unless the table is being resized.
    boundary: usize,
    /// Whether the last slice of resizing made the table larger.
    growing: bool,
    /// Whether memory is scarce.
    scarce: bool,
    /// Lines counted as resident.
    extent: usize,
    entries: usize,
    /// Items that lost their entries in resizing, because there was no room.
    orphans: Vec<Location>,
    /// Entries that move from one layout to the other, with their prefixes; empty between slices. Kept for
    /// its memory.
    moving: Vec<(u64, IndexEntry)>,
}

/// The position of an entry, and its home line.
#[derive(Clone, Copy)]
struct Found {
    home: usize,
    line: usize,
    slot: usize,
}

impl BucketIndex {
    /// The home of entries of this hash.
    #[inline]
    fn home(&self, hash: u64) -> Home {
        let home = self.small.home(self.small.prefix(hash));
        if home.line < self.boundary { home } else { self.large.home(self.large.prefix(hash)) }
    }

    #[inline(always)] // each caller has a predicate of its own, and most searches end in the first line
    fn locate(&self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<Found> {
        let Home { line: home, tag } = self.home(hash);
        let line = self.lines.get(home);
        for slot in line.with_tag(tag, Distance::Home) {
            if matches(line.location(slot)) {
                return Some(Found { home, line: home, slot });
            }
        }
        if line.passed() == 0 {
            return None;
        }
        self.locate_after_home(Home { line: home, tag }, matches)
    }

    /// Searches the lines after the home line.
    #[inline(never)]
    fn locate_after_home(&self, home: Home, mut matches: impl FnMut(Location) -> bool) -> Option<Found> {
        for distance in 1..PAGE_LINES {
            let line = self.lines.get(home.line + distance);
            for slot in line.with_tag(home.tag, Distance::from_lines(distance)) {
                if matches(line.location(slot)) {
                    return Some(Found { home: home.line, line: home.line + distance, slot });
                }
            }
            if line.passed() == 0 {
                break;
            }
        }
        None
    }

    /// Adds an entry. An entry near its home is moved on in favour of one that is further from its own
    /// ("Robin Hood" hashing), so that none ends up far away.
    ///
    /// # Errors
    /// An entry for which there was no room, and its home.
    fn put(
        &mut self,
        home: usize,
        entry: IndexEntry,
        keys: &impl KeyReader,
    ) -> Result<(), (usize, IndexEntry)> {
        let (mut home, mut distance, mut entry) = (home, 0, entry);
        let mut key_lines = KEY_LINES_MAX;
        for _ in 0..CHAIN_LINES {
            if distance == PAGE_LINES {
                break;
            }
            let number = home + distance;
            let nearer = self.entry_nearer_home(number, distance, &mut key_lines, keys);
            let line = self.lines.get_mut(number);
            if let Some(slot) = line.vacant().next() {
                line.put(slot, entry, Distance::from_lines(distance));
                return Ok(());
            }
            if let Some((slot, its_distance)) = nearer {
                let other = line.entry(slot);
                line.clear(slot);
                line.put(slot, entry, Distance::from_lines(distance));
                (home, distance, entry) = (number - its_distance, its_distance, other);
            }
            line.pass();
            distance += 1;
        }
        (home..home + distance).for_each(|passed| self.lines.get_mut(passed).unpass());
        Err((home, entry))
    }

    /// Slot of an entry in line `number` that is nearer to its home than `distance` lines, and its distance.
    /// `None` if there is none, or the line is not full. Reads the keys of at most `key_lines` more lines.
    fn entry_nearer_home(
        &self,
        number: usize,
        distance: usize,
        key_lines: &mut usize,
        keys: &impl KeyReader,
    ) -> Option<(usize, usize)> {
        let line = self.lines.get(number);
        if distance == 0 || !line.vacant().is_empty() {
            return None;
        }
        if let Some(slot) = line.slots(Distance::Home).next() {
            return Some((slot, 0));
        }
        if distance < 2 {
            return None;
        }
        if let Some(slot) = line.slots(Distance::Next).next() {
            return Some((slot, 1));
        }
        // All entries are two or more lines from home, as in one line in a hundred. Only their keys tell how
        // far.
        if distance < UNSORTED_LINES || *key_lines == 0 {
            return None;
        }
        *key_lines -= 1;
        let its_distance = |slot| number - self.home(keys.hash(line.location(slot))).line;
        let nearest = line.occupied().map(|slot| (slot, its_distance(slot))).min_by_key(|&(_, d)| d);
        nearest.filter(|&(_, nearest)| nearest < distance)
    }

    /// Adds an entry. If there is no room, removes and returns another one, or does not add this one and
    /// returns it.
    fn put_or_displace(&mut self, home: usize, entry: IndexEntry, keys: &impl KeyReader) -> Option<Location> {
        let Err((home, homeless)) = self.put(home, entry, keys) else { return None };
        let Some(displaced) = self.displace(home) else { return Some(homeless.location) };
        let put = self.put(home, homeless, keys);
        debug_assert!(put.is_ok()); // into the slot that `displace` has made vacant
        Some(displaced)
    }

    /// Removes an entry.
    fn take(&mut self, found: Found) {
        debug_assert!(found.home <= found.line && found.line - found.home < PAGE_LINES);
        self.lines.get_mut(found.line).clear(found.slot);
        for passed in found.home..found.line {
            self.lines.get_mut(passed).unpass();
        }
    }

    /// Removes the least read entry in line `home` that has its home in this line or, if it has none, the
    /// line before.
    fn displace(&mut self, home: usize) -> Option<Location> {
        let line = self.lines.get(home);
        let least = |distance| line.slots(distance).min_by_key(|&slot| line.frequency(slot));
        let (from, slot) = match least(Distance::Home) {
            Some(slot) => (home, slot),
            None => (home.checked_sub(1)?, least(Distance::Next)?),
        };
        let location = line.location(slot);
        self.take(Found { home: from, line: home, slot });
        Some(location)
    }

    /// Whether no resizing is in progress.
    fn is_resting(&self) -> bool {
        self.boundary == self.small.lines()
    }

    /// Slots of the small layout.
    fn slots(&self) -> usize {
        self.small.lines() * SLOTS
    }

    /// Makes room for the lines of `layout`, and those after its last line where entries may go.
    fn use_lines(&mut self, layout: Layout) {
        self.lines.set_count(layout.lines() + PAGE_LINES - 1);
    }

    /// Grows by a slice: moves the boundary one line down, and the entries of that line to their homes in the
    /// large layout.
    fn grow_line(&mut self, keys: &impl KeyReader) {
        if self.is_resting() {
            self.large = self.small.larger();
            self.use_lines(self.large);
        }
        self.growing = true;
        let home = self.boundary - 1;
        let reads_keys = self.large.prefix_bits() != self.small.prefix_bits();
        if let Some(ahead) = home.checked_sub(AHEAD_LINES) {
            let ahead = self.lines.get(ahead);
            let read = if reads_keys { ahead.occupied() } else { ahead.slots(Distance::Far) };
            read.for_each(|slot| keys.prefetch(ahead.location(slot)));
        }
        self.collect(home, self.small, keys, |_| true);
        self.boundary = home;
        let mut moving = std::mem::take(&mut self.moving);
        for (prefix, entry) in moving.drain(..) {
            let prefix = if reads_keys { self.large.prefix(keys.hash(entry.location)) } else { prefix };
            self.settle(self.large.home(prefix), entry, keys);
        }
        self.moving = moving;
        // The lines after the old end are touched from the last one down.
        let lowest = self.large.home(self.large_prefix(self.small.prefix_from(home))).line;
        let fresh = self.large.lines() - lowest.max(self.small.lines());
        self.extent = self.extent.max(self.small.lines() + PAGE_LINES - 1 + fresh);
        if self.boundary == 0 {
            self.small = self.large;
            self.boundary = self.small.lines();
        }
    }

    /// Shrinks by a slice: moves the boundary one line up, and the entries of that line to their homes in the
    /// small layout.
    fn shrink_line(&mut self, keys: &impl KeyReader) {
        if self.is_resting() {
            let Some(smaller) = self.small.smaller() else { return };
            self.large = self.small;
            self.small = smaller;
            self.boundary = 0;
        }
        self.growing = false;
        let (home, small, large) = (self.boundary, self.small, self.large);
        let dropped_bits = large.prefix_bits() - small.prefix_bits();
        let first = large.home(self.large_prefix(small.prefix_from(home))).line;
        let last = large.home(self.large_prefix(small.prefix_from(home + 1)) - 1).line;
        if last + AHEAD_LINES < self.lines.count() {
            let ahead = self.lines.get(last + AHEAD_LINES);
            ahead.slots(Distance::Far).for_each(|slot| keys.prefetch(ahead.location(slot)));
        }
        for line in first..=last {
            self.collect(line, large, keys, |prefix| small.home(prefix >> dropped_bits).line == home);
        }
        self.boundary = home + 1;
        let mut moving = std::mem::take(&mut self.moving);
        for (prefix, entry) in moving.drain(..) {
            self.settle(small.home(prefix >> dropped_bits), entry, keys);
        }
        self.moving = moving;
        if self.is_resting() {
            self.use_lines(self.small);
        }
    }

    /// The smallest prefix of the large layout that starts with this prefix of the small one.
    fn large_prefix(&self, prefix: u64) -> u64 {
        prefix << (self.large.prefix_bits() - self.small.prefix_bits())
    }

    /// Moves the entries with home line `home` that are `wanted` by their prefix in `layout` from their lines
    /// to `moving`.
    fn collect(&mut self, home: usize, layout: Layout, keys: &impl KeyReader, wanted: impl Fn(u64) -> bool) {
        let mut distance = 0;
        loop {
            let line = self.lines.get(home + distance);
            for slot in line.slots(Distance::from_lines(distance)) {
                let entry = self.lines.get(home + distance).entry(slot);
                let prefix = if distance < 2 {
                    layout.prefix_at(Home { line: home, tag: entry.tag })
                } else {
                    // At this distance only the key tells the home of an entry.
                    let hash = keys.hash(entry.location);
                    if self.home(hash).line != home {
                        continue;
                    }
                    layout.prefix(hash)
                };
                if wanted(prefix) {
                    self.take(Found { home, line: home + distance, slot });
                    self.moving.push((prefix, entry));
                }
            }
            if self.lines.get(home + distance).passed() == 0 || distance + 1 == PAGE_LINES {
                return;
            }
            distance += 1;
        }
    }

    /// Adds a moved entry at its new home.
    fn settle(&mut self, home: Home, entry: IndexEntry, keys: &impl KeyReader) {
        if let Some(orphan) = self.put_or_displace(home.line, IndexEntry { tag: home.tag, ..entry }, keys) {
            self.entries -= 1;
            self.orphans.push(orphan);
        }
    }
}

impl Index for BucketIndex {
    fn new(memory_bytes: usize, reserve_bytes: usize, huge_pages: bool) -> io::Result<BucketIndex> {
        let small = Layout::SMALLEST;
        let mut index = BucketIndex {
            lines: IndexLines::new(reserve_bytes, memory_bytes, huge_pages)?,
            small,
            large: small,
            boundary: small.lines(),
            growing: false,
            scarce: false,
            extent: 0,
            entries: 0,
            orphans: Vec::new(),
            moving: Vec::with_capacity(PAGE_LINES * SLOTS),
        };
        index.use_lines(small);
        index.extent = index.lines.count();
        Ok(index)
    }

    /// Does nothing: the table follows the number of entries.
    fn set_memory_bytes(&mut self, _memory_bytes: usize) {}

    #[inline]
    fn find(&self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<IndexedItem> {
        let found = self.locate(hash, matches)?;
        let entry = self.lines.get(found.line).entry(found.slot);
        Some(IndexedItem { location: entry.location, frequency: entry.frequency })
    }

    #[inline(always)]
    fn find_counting(&mut self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Location> {
        let found = self.locate(hash, matches)?;
        let line = self.lines.get_mut(found.line);
        line.count(found.slot);
        Some(line.location(found.slot))
    }

    fn has_room(&self, hash: u64) -> bool {
        let home = self.home(hash).line;
        let chain = home..self.lines.count().min(home + CHAIN_LINES);
        chain.into_iter().any(|number| !self.lines.get(number).vacant().is_empty())
    }

    fn insert(&mut self, hash: u64, location: Location, keys: &impl KeyReader) -> Option<Location> {
        let Home { line: home, tag } = self.home(hash);
        let displaced = self.put_or_displace(home, IndexEntry { tag, frequency: 0, location }, keys);
        self.entries += usize::from(displaced.is_none());
        displaced
    }

    #[inline]
    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool {
        let Some(found) = self.locate(hash, |at| at == old) else { return false };
        let line = self.lines.get_mut(found.line);
        line.set_location(found.slot, new);
        if let Some(frequency) = frequency {
            line.set_frequency(found.slot, frequency);
        }
        true
    }

    fn remove(&mut self, hash: u64, location: Location) -> bool {
        let Some(found) = self.locate(hash, |at| at == location) else { return false };
        self.take(found);
        self.entries -= 1;
        true
    }

    fn adapt(&mut self, slices: usize, keys: &impl KeyReader) -> bool {
        for _ in 0..slices {
            match self.wanted_resize() {
                Resize::Grow | Resize::GrowNow => self.grow_line(keys),
                Resize::Shrink if self.is_resting() && self.lines.has_surplus() => {
                    self.lines.discard_some();
                    self.extent = self.extent.min(self.lines.top());
                    // This takes the kernel as long as all the slices of a call take here.
                    break;
                }
                Resize::Shrink => self.shrink_line(keys),
                Resize::NotWanted => return false,
            }
        }
        self.wanted_resize() != Resize::NotWanted
    }

    fn set_scarce(&mut self, scarce: bool) {
        self.scarce = scarce;
    }

    #[inline]
    fn wanted_resize(&self) -> Resize {
        let slots = self.slots();
        let resting = self.is_resting();
        let wanted = self.entries * 100;
        if wanted > slots * if self.scarce { SCARCE_GROW_PERCENT } else { GROW_PERCENT } {
            let possible = !resting || self.small.larger().lines() + PAGE_LINES <= self.lines.count_max();
            return match possible {
                false => Resize::NotWanted,
                true if wanted > slots * URGENT_PERCENT => Resize::GrowNow,
                true => Resize::Grow,
            };
        }
        if resting {
            let shrinks = |smaller: Layout| match self.scarce {
                true => wanted <= smaller.lines() * SLOTS * SCARCE_SHRINK_PERCENT,
                false => wanted < slots * SHRINK_PERCENT,
            };
            let low = self.small.smaller().is_some_and(shrinks);
            return if low || self.lines.has_surplus() { Resize::Shrink } else { Resize::NotWanted };
        }
        // A resize is in progress: go on with it, unless the load has changed meanwhile.
        let least = if self.scarce { SCARCE_SHRINK_PERCENT } else { SHRINK_PERCENT };
        if self.growing && wanted >= slots * least { Resize::Grow } else { Resize::Shrink }
    }

    fn orphan(&mut self) -> Option<Location> {
        self.orphans.pop()
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        self.lines.prefetch(self.home(hash).line);
    }

    #[inline]
    fn candidates(&self, hash: u64, mut visit: impl FnMut(Location)) {
        let Home { line: home, tag } = self.home(hash);
        let line = self.lines.get(home);
        let at_home = line.with_tag(tag, Distance::Home);
        at_home.for_each(|slot| visit(line.location(slot)));
        if at_home.is_empty() && line.passed() > 0 {
            let line = self.lines.get(home + 1);
            line.with_tag(tag, Distance::Next).for_each(|slot| visit(line.location(slot)));
        }
    }

    fn len(&self) -> usize {
        self.entries
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.lines.bytes_of(self.extent)
    }

    fn for_each(&self, mut visit: impl FnMut(Location)) {
        for line in (0..self.lines.count()).map(|number| self.lines.get(number)) {
            line.occupied().for_each(|slot| visit(line.location(slot)));
        }
    }

    fn in_range(&self, from: u64, until: u64, mut visit: impl FnMut(Location)) {
        // Homes are in the order of hashes, also while resizing, and an entry is at most a page after its
        // home.
        let end = self.home(until - 1).line + PAGE_LINES;
        for line in (self.home(from).line..end.min(self.lines.count())).map(|number| self.lines.get(number)) {
            line.occupied().for_each(|slot| visit(line.location(slot)));
        }
    }

    fn check_invariants(&self, keys: &impl KeyReader) {
        let mut passed = vec![0; self.lines.count()];
        let mut entries = 0;
        for number in 0..self.lines.count() {
            let line = self.lines.get(number);
            for slot in line.occupied() {
                let home = self.home(keys.hash(line.location(slot)));
                assert!(home.line <= number && number - home.line < PAGE_LINES, "an entry outside its page");
                assert_eq!(home.tag, line.tag(slot), "an entry with a wrong tag");
                let distance = Distance::from_lines(number - home.line);
                assert!(line.slots(distance).any(|other| other == slot), "an entry at another distance");
                passed[home.line..number].iter_mut().for_each(|passed| *passed += 1);
                entries += 1;
            }
        }
        assert_eq!(entries, self.entries);
        for (number, passed) in passed.into_iter().enumerate() {
            assert_eq!(
                self.lines.get(number).passed(),
                passed,
                "line {number} miscounts the entries that went past it"
            );
        }
        assert!(self.moving.is_empty() && self.orphans.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that are numbers: the location is the number, the hash is made from it.
    struct Numbers;

    impl KeyReader for Numbers {
        fn hash(&self, at: Location) -> u64 {
            let mixed = u64::from(at.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
        }
        fn prefetch(&self, _at: Location) {}
    }

    /// Ordinary keys, and an attacker's, which all have the same hash.
    struct Flooded {
        keys_read: std::cell::Cell<usize>,
    }

    /// Locations from here on are the attacker's.
    const FLOOD_FROM: u32 = 1 << 30;

    impl KeyReader for Flooded {
        fn hash(&self, at: Location) -> u64 {
            self.keys_read.set(self.keys_read.get() + 1);
            if at.0 < FLOOD_FROM { Numbers.hash(at) } else { 0x1234_5678_9abc }
        }
        fn prefetch(&self, _at: Location) {}
    }

    #[test]
    fn keys_of_one_hash_drive_out_each_other_and_cost_others_neither_place_nor_time() {
        let keys = Flooded { keys_read: Default::default() };
        let mut index = BucketIndex::new(64 << 20, 512 << 20, false).unwrap();
        for n in 0..20_000 {
            assert_eq!(index.insert(keys.hash(Location(n)), Location(n), &keys), None);
            index.adapt(3, &keys);
        }
        while index.adapt(64, &keys) {}
        let bytes = index.bytes();
        let (mut honest_lost, mut held) = (0, 0);
        for n in FLOOD_FROM..FLOOD_FROM + 20_000 {
            let hash = keys.hash(Location(n));
            keys.keys_read.set(0);
            let displaced = index.insert(hash, Location(n), &keys);
            assert!(keys.keys_read.get() <= 3 * KEY_LINES_MAX * SLOTS, "{} keys read", keys.keys_read.get());
            held += usize::from(displaced.is_none());
            honest_lost += usize::from(displaced.is_some_and(|at| at.0 < FLOOD_FROM));
            index.adapt(3, &keys);
        }
        // What they hold is a page, not the index.
        assert!(held <= PAGE_LINES * SLOTS, "{held} held");
        assert!(honest_lost <= 2 * SLOTS, "{honest_lost} honest ones lost");
        assert!(index.bytes() <= bytes * 11 / 10);
        index.check_invariants(&keys);
        let found = (0..20_000).filter(|&n| index.find(keys.hash(Location(n)), |at| at.0 == n).is_some());
        assert_eq!(found.count(), 20_000 - honest_lost);
    }

    #[test]
    fn it_shrinks_while_memory_is_scarce_and_grows_back_when_it_is_not() {
        let mut index = BucketIndex::new(64 << 20, 512 << 20, false).unwrap();
        let load = |index: &BucketIndex| index.entries * 100 / index.slots();
        for n in 0..100_000 {
            index.insert(Numbers.hash(Location(n)), Location(n), &Numbers);
            index.adapt(3, &Numbers);
        }
        for (scarce, loads) in [(true, 82..89), (false, 74..81), (true, 82..89)] {
            index.set_scarce(scarce);
            while index.adapt(8, &Numbers) {}
            assert!(index.is_resting() && loads.contains(&load(&index)), "{} %, {scarce}", load(&index));
            index.check_invariants(&Numbers);
        }
        // What comes and goes at the limit does not move it back and forth.
        let bytes = index.bytes();
        for n in 100_000..100_500 {
            index.insert(Numbers.hash(Location(n)), Location(n), &Numbers);
            assert!(index.remove(Numbers.hash(Location(n - 100_000)), Location(n - 100_000)));
            assert_eq!(index.wanted_resize(), Resize::NotWanted);
        }
        assert_eq!(index.bytes(), bytes);
    }

    #[test]
    fn growing_keeps_the_load_even_and_every_entry_found() {
        for (scarce, loads) in [(false, 72..84), (true, 82..95)] {
            let mut index = BucketIndex::new(64 << 20, 512 << 20, false).unwrap();
            index.set_scarce(scarce);
            for n in 0..300_000u32 {
                let hash = Numbers.hash(Location(n));
                assert_eq!(index.insert(hash, Location(n), &Numbers), None, "at {n} {:?}", index.small);
                index.adapt(3, &Numbers);
                if n % 10_000 == 0 || n < 2000 && n % 50 == 0 {
                    index.check_invariants(&Numbers);
                }
                let load = index.entries * 100 / (index.bytes() / 64 * SLOTS).max(1);
                assert!(n < 50_000 || loads.contains(&load), "{load} % at {n}");
            }
        }
    }
}
