//! A simple index that tests check the other one against: a directory of small hash tables, in safe code.

use std::io;

use hashbrown::HashTable;

use super::{FREQUENCY_MAX, Index, IndexedItem, KeyReader, Resize};
use crate::item::Location;

/// An entry: the location in the low half; access count (3 bits) and hash tag (29 bits) in the high half. A
/// table needs no more of the hash than the tag, so that growing one never reads keys from the log.
#[derive(Clone, Copy)]
struct Entry8(u64);

const _: () = assert!(size_of::<Entry8>() == 8);

const TAG_BITS: u32 = 29;

impl Entry8 {
    fn new(tag: u32, slot: IndexedItem) -> Entry8 {
        Entry8(u64::from(slot.location.0) | u64::from(tag << 3 | u32::from(slot.frequency)) << 32)
    }

    #[inline]
    fn location(self) -> Location {
        Location(self.0 as u32)
    }

    #[inline]
    fn tag(self) -> u32 {
        (self.0 >> 35) as u32
    }

    #[inline]
    fn frequency(self) -> u8 {
        (self.0 >> 32) as u8 & FREQUENCY_MAX
    }

    fn slot(self) -> IndexedItem {
        IndexedItem { location: self.location(), frequency: self.frequency() }
    }
}

/// Bytes of store for each table of the directory: some 300 items of 200 bytes, at most 3,900 of the
/// smallest.
const MEMORY_PER_TABLE: usize = 64 << 10;
/// Most entries of a table for so much memory: twice as many as there can be of the smallest items, so that
/// an ordinary load never reaches it. Keys that were chosen to collide do: they displace each other, which
/// costs hits in their own table, but neither memory nor the time of other tables.
const TABLE_ENTRIES_MAX: usize = 7168;
/// A table with fewer entries than slots divided by this gives memory back.
const SHRINK_BELOW: usize = 8;

/// A directory of hashbrown tables. Their number is fixed by the memory limit at start.
pub(crate) struct TableIndex {
    tables: Vec<HashTable<Entry8>>,
    entries_max: usize,
    entries: usize,
    /// Bytes of all tables' allocations.
    allocated: usize,
}

/// The low 29 bits of the hash.
#[inline]
fn tag_of(hash: u64) -> u32 {
    hash as u32 & ((1 << TAG_BITS) - 1)
}

/// The hash for hashbrown, which uses the low bits as the slot and the top 7 as a control byte. Those are
/// different bits of the tag as long as a table has less than 2^22 slots.
#[inline]
fn table_hash(tag: u32) -> u64 {
    u64::from(tag) | u64::from(tag) << (64 - TAG_BITS)
}

impl TableIndex {
    #[inline]
    fn number(&self, hash: u64) -> usize {
        (hash >> TAG_BITS) as usize & (self.tables.len() - 1)
    }
}

impl Index for TableIndex {
    fn new(memory_bytes: usize, _reserve_bytes: usize, _huge_pages: bool) -> io::Result<TableIndex> {
        let tables = (memory_bytes / MEMORY_PER_TABLE).next_power_of_two();
        // Bits 29 to 47 of the hash choose the table.
        assert!(tables <= 1 << (48 - TAG_BITS));
        let mut index = TableIndex {
            tables: std::iter::repeat_with(HashTable::new).take(tables).collect(),
            entries_max: 0,
            entries: 0,
            allocated: 0,
        };
        index.set_memory_bytes(memory_bytes);
        Ok(index)
    }

    fn set_memory_bytes(&mut self, memory_bytes: usize) {
        let scale = memory_bytes.div_ceil(MEMORY_PER_TABLE * self.tables.len()).max(1);
        self.entries_max = TABLE_ENTRIES_MAX * scale;
    }

    #[inline]
    fn find(&self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<IndexedItem> {
        let tag = tag_of(hash);
        let same = |entry: &Entry8| entry.tag() == tag && matches(entry.location());
        self.tables[self.number(hash)].find(table_hash(tag), same).map(|entry| entry.slot())
    }

    #[inline]
    fn find_counting(&mut self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<Location> {
        let tag = tag_of(hash);
        let number = self.number(hash);
        let same = |entry: &Entry8| entry.tag() == tag && matches(entry.location());
        let entry = self.tables[number].find_mut(table_hash(tag), same)?;
        // As in the other index, a count at its maximum is not written again.
        if entry.frequency() < FREQUENCY_MAX {
            entry.0 += 1 << 32;
        }
        Some(entry.location())
    }

    fn has_room(&self, hash: u64) -> bool {
        self.tables[self.number(hash)].len() < self.entries_max
    }

    fn insert(&mut self, hash: u64, location: Location, _keys: &impl KeyReader) -> Option<Location> {
        let tag = tag_of(hash);
        let number = self.number(hash);
        let table = &mut self.tables[number];
        let mut displaced = None;
        if table.len() >= self.entries_max
            && let Some(&victim) = table.iter().next()
        {
            let gone = table.find_entry(table_hash(victim.tag()), |entry| entry.0 == victim.0);
            if let Ok(gone) = gone {
                gone.remove();
                self.entries -= 1;
                displaced = Some(victim.location());
            }
        }
        let before = table.allocation_size();
        let entry = Entry8::new(tag, IndexedItem { location, frequency: 0 });
        table.insert_unique(table_hash(tag), entry, |entry| table_hash(entry.tag()));
        self.allocated = self.allocated + table.allocation_size() - before;
        self.entries += 1;
        displaced
    }

    #[inline]
    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool {
        let tag = tag_of(hash);
        let number = self.number(hash);
        let same = |entry: &Entry8| entry.location() == old;
        let Some(entry) = self.tables[number].find_mut(table_hash(tag), same) else { return false };
        let frequency = frequency.unwrap_or(entry.frequency());
        *entry = Entry8::new(tag, IndexedItem { location: new, frequency });
        true
    }

    fn remove(&mut self, hash: u64, location: Location) -> bool {
        let tag = tag_of(hash);
        let number = self.number(hash);
        let table = &mut self.tables[number];
        let same = |entry: &Entry8| entry.location() == location;
        let Ok(entry) = table.find_entry(table_hash(tag), same) else {
            return false;
        };
        entry.remove();
        self.entries -= 1;
        if table.len() * SHRINK_BELOW < table.capacity() && table.capacity() > SHRINK_BELOW * 4 {
            let before = table.allocation_size();
            table.shrink_to(table.len() * 2, |entry| table_hash(entry.tag()));
            self.allocated = self.allocated + table.allocation_size() - before;
        }
        true
    }

    /// Does nothing: the tables grow and shrink by themselves.
    fn adapt(&mut self, _slices: usize, _keys: &impl KeyReader) -> bool {
        false
    }

    fn set_scarce(&mut self, _scarce: bool) {}

    fn wanted_resize(&self) -> Resize {
        Resize::NotWanted
    }

    fn orphan(&mut self) -> Option<Location> {
        None
    }

    /// Does nothing: hashbrown does not tell addresses.
    fn prefetch(&self, _hash: u64) {}

    fn candidates(&self, hash: u64, mut visit: impl FnMut(Location)) {
        let tag = tag_of(hash);
        let same = |entry: &Entry8| entry.tag() == tag;
        if let Some(entry) = self.tables[self.number(hash)].find(table_hash(tag), same) {
            visit(entry.location());
        }
    }

    fn len(&self) -> usize {
        self.entries
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.allocated + self.tables.len() * size_of::<HashTable<Entry8>>()
    }

    fn for_each(&self, mut visit: impl FnMut(Location)) {
        for entry in self.tables.iter().flat_map(|table| table.iter()) {
            visit(entry.location());
        }
    }

    fn in_range(&self, _from: u64, _until: u64, visit: impl FnMut(Location)) {
        self.for_each(visit);
    }

    fn check_invariants(&self, keys: &impl KeyReader) {
        self.for_each(|at| assert!(self.find(keys.hash(at), |other| other == at).is_some()));
    }
}
