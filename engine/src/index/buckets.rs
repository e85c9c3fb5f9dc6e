//! The index of every store: a flat table of one-line buckets that stretches in place.
//!
//! The hash, as a fraction, says where in the table an entry belongs (see `layout`); a full line's entries go
//! to the next ones, 23 at most: a page of 1.5 KiB. So a lookup reads one line, seldom two, and a crowd of
//! entries of like hash, such as an attacker would make, cannot slow down others: they drive each other out.
//!
//! Growing turns the table into one 3 to 6 % larger, line by line from the top. `boundary` tells how far that
//! is: what belongs below it in the small layout is still there, the rest is placed by the large one. Since
//! stretching moves entries up only, there is always room. Shrinking is the same way back. Both are done in
//! slices of a line and never stop the store. While memory is plentiful the table is some 75 to 83 % full, and one
//! entry in nine lies past its own line; where it is scarce 83 to 93 %, and three in ten do. To look such a one up takes
//! twice as long.

use std::io;

use super::layout::{Layout, Place};
use super::line::{Distance, Entry, SLOTS};
use super::lines::Lines;
use super::{Index, Keys, Slot, Wish};
use crate::item::Location;

/// Lines an entry may lie in: its home and the following. At 94 % load one in 10^12 would have to go further.
const PAGE_LINES: usize = 24;
/// Lines looked at for a vacant slot while entries give way to each other.
const CHAIN_LINES: usize = 512;
/// An entry goes past this many lines before keys are read to find one that lies nearer to its home: of a full
/// line whose entries are all from further off only the keys tell, and ten of them cost a microsecond.
const UNSORTED_LINES: usize = 12;
/// Lines whose keys are read while entries give way to each other. Past that one has to go.
const KEY_LINES_MAX: usize = 24;
/// Grows above this load while memory is plentiful, percent...
const GROW_PERCENT: usize = 80;
/// ...and above this where it is scarce.
const SCARCE_GROW_PERCENT: usize = 90;
/// Above this load growing is more urgent than keeping items. In a full store the load settles below it.
const URGENT_PERCENT: usize = 92;
/// Shrinks below this load.
const SHRINK_PERCENT: usize = 70;
/// Where memory is scarce, shrinks as long as the load does not get above this.
const SCARCE_SHRINK_PERCENT: usize = 88;
/// How far ahead keys are prefetched that stretching has to read, lines.
const AHEAD_LINES: usize = 8;

/// See the head of the file.
pub struct BucketIndex {
    lines: Lines,
    small: Layout,
    /// While `boundary` is inside the table: the layout above it, the next size up from `small`.
    large: Layout,
    /// Lines of the small layout that are in use; all of them when nothing is going on.
    boundary: usize,
    /// Which way the boundary went last.
    growing: bool,
    scarce: bool,
    /// Lines counted as resident.
    extent: usize,
    entries: usize,
    /// Entries for which there was no room.
    orphans: Vec<Location>,
    /// Entries on their way from one layout to the other; empty between slices.
    moving: Vec<(u64, Entry)>,
}

/// Where an entry lies.
#[derive(Clone, Copy)]
struct Found {
    home: usize,
    line: usize,
    slot: usize,
}

impl BucketIndex {
    #[inline]
    fn place(&self, hash: u64) -> Place {
        let place = self.small.place(self.small.prefix(hash));
        if place.line < self.boundary { place } else { self.large.place(self.large.prefix(hash)) }
    }

    #[inline(always)] // with a predicate of one caller each, and most searches end in the first line
    fn locate(&self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<Found> {
        let Place { line: home, tag } = self.place(hash);
        let line = self.lines.get(home);
        for slot in line.matching(tag, Distance::Home) {
            if matches(line.location(slot)) {
                return Some(Found { home, line: home, slot });
            }
        }
        if line.passed() == 0 {
            return None;
        }
        self.locate_past(Place { line: home, tag }, matches)
    }

    /// Goes on where the line an entry belongs to has not got it, and some went past it.
    #[inline(never)]
    fn locate_past(&self, place: Place, mut matches: impl FnMut(Location) -> bool) -> Option<Found> {
        for distance in 1..PAGE_LINES {
            let line = self.lines.get(place.line + distance);
            for slot in line.matching(place.tag, Distance::of(distance)) {
                if matches(line.location(slot)) {
                    return Some(Found { home: place.line, line: place.line + distance, slot });
                }
            }
            if line.passed() == 0 {
                break;
            }
        }
        None
    }

    /// Puts an entry in. Who lies nearest to home gives way to who comes from further off ("Robin Hood"), so that
    /// nobody ends up far away. The error is an entry for which there was no room, and its home.
    fn put(&mut self, home: usize, entry: Entry, keys: &impl Keys) -> Result<(), (usize, Entry)> {
        let (mut home, mut distance, mut entry) = (home, 0, entry);
        let mut key_lines = KEY_LINES_MAX;
        for _ in 0..CHAIN_LINES {
            if distance == PAGE_LINES {
                break;
            }
            let number = home + distance;
            let giving = self.giving_way(number, distance, &mut key_lines, keys);
            let line = self.lines.get_mut(number);
            if let Some(slot) = line.vacant().next() {
                line.put(slot, entry, Distance::of(distance));
                return Ok(());
            }
            if let Some((slot, its_distance)) = giving {
                let other = line.entry(slot);
                line.clear(slot);
                line.put(slot, entry, Distance::of(distance));
                (home, distance, entry) = (number - its_distance, its_distance, other);
            }
            line.pass();
            distance += 1;
        }
        (home..home + distance).for_each(|passed| self.lines.get_mut(passed).unpass());
        Err((home, entry))
    }

    /// The entry of a full line that gives way to one this far from home, and how far it is itself.
    /// Reads keys of at most `key_lines` more lines.
    fn giving_way(
        &self,
        number: usize,
        distance: usize,
        key_lines: &mut usize,
        keys: &impl Keys,
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
        // All of them are far: one line in a hundred. Only their keys tell how far.
        if distance < UNSORTED_LINES || *key_lines == 0 {
            return None;
        }
        *key_lines -= 1;
        let its_distance = |slot| number - self.place(keys.hash(line.location(slot))).line;
        let nearest = line.occupied().map(|slot| (slot, its_distance(slot))).min_by_key(|&(_, d)| d);
        nearest.filter(|&(_, nearest)| nearest < distance)
    }

    /// Puts an entry in; where there is no room, another goes, or this one.
    fn put_or_displace(&mut self, home: usize, entry: Entry, keys: &impl Keys) -> Option<Location> {
        let Err((home, homeless)) = self.put(home, entry, keys) else { return None };
        let Some(displaced) = self.displace(home) else { return Some(homeless.location) };
        let put = self.put(home, homeless, keys);
        debug_assert!(put.is_ok()); // in the slot just vacated
        Some(displaced)
    }

    fn take(&mut self, found: Found) {
        self.lines.get_mut(found.line).clear(found.slot);
        for passed in found.home..found.line {
            self.lines.get_mut(passed).unpass();
        }
    }

    /// Takes the least read entry that belongs to line `home` or the one before out of it.
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

    fn is_resting(&self) -> bool {
        self.boundary == self.small.lines()
    }

    fn slots(&self) -> usize {
        self.small.lines() * SLOTS
    }

    fn use_lines(&mut self, layout: Layout) {
        self.lines.set_count(layout.lines() + PAGE_LINES - 1);
    }

    /// Moves the boundary one line down: what belonged to that line is placed by the large layout.
    fn grow_line(&mut self, keys: &impl Keys) {
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
            self.settle(self.large.place(prefix), entry, keys);
        }
        self.moving = moving;
        // The lines past the old end are the first to be touched, from the last down.
        let lowest = self.large.place(self.large_prefix(self.small.prefix_from(home))).line;
        let fresh = self.large.lines() - lowest.max(self.small.lines());
        self.extent = self.extent.max(self.small.lines() + PAGE_LINES - 1 + fresh);
        if self.boundary == 0 {
            self.small = self.large;
            self.boundary = self.small.lines();
        }
    }

    /// Moves the boundary one line up: what belongs to that line in the small layout is placed by it.
    fn shrink_line(&mut self, keys: &impl Keys) {
        if self.is_resting() {
            let Some(smaller) = self.small.smaller() else { return };
            self.large = self.small;
            self.small = smaller;
            self.boundary = 0;
        }
        self.growing = false;
        let (home, small, large) = (self.boundary, self.small, self.large);
        let dropped_bits = large.prefix_bits() - small.prefix_bits();
        let first = large.place(self.large_prefix(small.prefix_from(home))).line;
        let last = large.place(self.large_prefix(small.prefix_from(home + 1)) - 1).line;
        if last + AHEAD_LINES < self.lines.count() {
            let ahead = self.lines.get(last + AHEAD_LINES);
            ahead.slots(Distance::Far).for_each(|slot| keys.prefetch(ahead.location(slot)));
        }
        for line in first..=last {
            self.collect(line, large, keys, |prefix| small.place(prefix >> dropped_bits).line == home);
        }
        self.boundary = home + 1;
        let mut moving = std::mem::take(&mut self.moving);
        for (prefix, entry) in moving.drain(..) {
            self.settle(small.place(prefix >> dropped_bits), entry, keys);
        }
        self.moving = moving;
        if self.is_resting() {
            self.use_lines(self.small);
        }
    }

    /// The first prefix of the large layout that a prefix of the small one begins.
    fn large_prefix(&self, prefix: u64) -> u64 {
        prefix << (self.large.prefix_bits() - self.small.prefix_bits())
    }

    /// Takes the entries that belong to line `home`, and are `wanted` by their prefix in `layout`, to `moving`.
    fn collect(&mut self, home: usize, layout: Layout, keys: &impl Keys, wanted: impl Fn(u64) -> bool) {
        let mut distance = 0;
        loop {
            let line = self.lines.get(home + distance);
            for slot in line.slots(Distance::of(distance)) {
                let entry = self.lines.get(home + distance).entry(slot);
                let prefix = if distance < 2 {
                    layout.prefix_at(Place { line: home, tag: entry.tag })
                } else {
                    // Too far to tell from the tag alone where it belongs.
                    let hash = keys.hash(entry.location);
                    if self.place(hash).line != home {
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

    /// Puts an entry in its new place.
    fn settle(&mut self, place: Place, entry: Entry, keys: &impl Keys) {
        if let Some(orphan) = self.put_or_displace(place.line, Entry { tag: place.tag, ..entry }, keys) {
            self.entries -= 1;
            self.orphans.push(orphan);
        }
    }
}

impl Index for BucketIndex {
    fn new(memory_bytes: usize, reserve_bytes: usize, huge_pages: bool) -> io::Result<BucketIndex> {
        let small = Layout::SMALLEST;
        let mut index = BucketIndex {
            lines: Lines::new(reserve_bytes, memory_bytes, huge_pages)?,
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

    fn set_memory_bytes(&mut self, _memory_bytes: usize) {}

    #[inline]
    fn find(&self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Slot> {
        let found = self.locate(hash, matches)?;
        let entry = self.lines.get(found.line).entry(found.slot);
        Some(Slot { location: entry.location, frequency: entry.frequency })
    }

    #[inline(always)]
    fn find_counting(&mut self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Location> {
        let found = self.locate(hash, matches)?;
        let line = self.lines.get_mut(found.line);
        line.count(found.slot);
        Some(line.location(found.slot))
    }

    fn has_room(&self, hash: u64) -> bool {
        let home = self.place(hash).line;
        let chain = home..self.lines.count().min(home + CHAIN_LINES);
        chain.into_iter().any(|number| !self.lines.get(number).vacant().is_empty())
    }

    fn insert(&mut self, hash: u64, location: Location, keys: &impl Keys) -> Option<Location> {
        let Place { line: home, tag } = self.place(hash);
        let displaced = self.put_or_displace(home, Entry { tag, frequency: 0, location }, keys);
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

    fn adapt(&mut self, slices: usize, keys: &impl Keys) -> bool {
        for _ in 0..slices {
            match self.wish() {
                Wish::Grow | Wish::GrowNow => self.grow_line(keys),
                Wish::Shrink if self.is_resting() && self.lines.has_surplus() => {
                    self.lines.discard_some();
                    self.extent = self.extent.min(self.lines.top());
                    // The kernel's work for it is as much as all the slices of a call.
                    break;
                }
                Wish::Shrink => self.shrink_line(keys),
                Wish::Rest => return false,
            }
        }
        self.wish() != Wish::Rest
    }

    fn set_scarce(&mut self, scarce: bool) {
        self.scarce = scarce;
    }

    #[inline]
    fn wish(&self) -> Wish {
        let slots = self.slots();
        let resting = self.is_resting();
        let wanted = self.entries * 100;
        if wanted > slots * if self.scarce { SCARCE_GROW_PERCENT } else { GROW_PERCENT } {
            let possible = !resting || self.small.larger().lines() + PAGE_LINES <= self.lines.count_max();
            return match possible {
                false => Wish::Rest,
                true if wanted > slots * URGENT_PERCENT => Wish::GrowNow,
                true => Wish::Grow,
            };
        }
        if resting {
            let shrinks = |smaller: Layout| match self.scarce {
                true => wanted <= smaller.lines() * SLOTS * SCARCE_SHRINK_PERCENT,
                false => wanted < slots * SHRINK_PERCENT,
            };
            let low = self.small.smaller().is_some_and(shrinks);
            return if low || self.lines.has_surplus() { Wish::Shrink } else { Wish::Rest };
        }
        // On the way: go on, unless there is no point any more.
        let least = if self.scarce { SCARCE_SHRINK_PERCENT } else { SHRINK_PERCENT };
        if self.growing && wanted >= slots * least { Wish::Grow } else { Wish::Shrink }
    }

    fn orphan(&mut self) -> Option<Location> {
        self.orphans.pop()
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        self.lines.prefetch(self.place(hash).line);
    }

    #[inline]
    fn candidates(&self, hash: u64, mut visit: impl FnMut(Location)) {
        let Place { line: home, tag } = self.place(hash);
        let line = self.lines.get(home);
        let at_home = line.matching(tag, Distance::Home);
        at_home.for_each(|slot| visit(line.location(slot)));
        if at_home.is_empty() && line.passed() > 0 {
            let line = self.lines.get(home + 1);
            line.matching(tag, Distance::Next).for_each(|slot| visit(line.location(slot)));
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
        // Places rise with hashes, whatever is going on, and an entry lies on the page that begins at its place.
        let end = self.place(until - 1).line + PAGE_LINES;
        for line in (self.place(from).line..end.min(self.lines.count())).map(|number| self.lines.get(number))
        {
            line.occupied().for_each(|slot| visit(line.location(slot)));
        }
    }

    fn check_invariants(&self, keys: &impl Keys) {
        let mut passed = vec![0; self.lines.count()];
        let mut entries = 0;
        for number in 0..self.lines.count() {
            let line = self.lines.get(number);
            for slot in line.occupied() {
                let place = self.place(keys.hash(line.location(slot)));
                assert!(place.line <= number && number - place.line < PAGE_LINES, "an entry off its page");
                assert_eq!(place.tag, line.tag(slot), "an entry with another's tag");
                let distance = Distance::of(number - place.line);
                assert!(line.slots(distance).any(|other| other == slot), "an entry at another distance");
                passed[place.line..number].iter_mut().for_each(|passed| *passed += 1);
                entries += 1;
            }
        }
        assert_eq!(entries, self.entries);
        for (number, passed) in passed.into_iter().enumerate() {
            assert_eq!(self.lines.get(number).passed(), passed, "line {number} miscounts who went past");
        }
        assert!(self.moving.is_empty() && self.orphans.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The location is the number of the key; its hash a scrambled one.
    struct Numbers;

    impl Keys for Numbers {
        fn hash(&self, at: Location) -> u64 {
            let mixed = u64::from(at.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
        }
        fn prefetch(&self, _at: Location) {}
    }

    /// Keys whose hashes differ only where the index does not look, beside honest ones.
    struct Flooded {
        keys_read: std::cell::Cell<usize>,
    }

    /// Locations from here on are the attacker's.
    const FLOOD_FROM: u32 = 1 << 30;

    impl Keys for Flooded {
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
            assert_eq!(index.wish(), Wish::Rest);
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
