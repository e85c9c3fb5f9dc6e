//! The index: key hash -> where the item lies and how often it was read.
//!
//! Owns no keys: whoever asks brings a predicate that reads the log. [`TableIndex`] is the plain one, a fixed
//! directory of small hash tables, so that growth never stops the store for long.

use hashbrown::HashTable;

use crate::item::Location;

/// Highest access count; it saturates there.
pub(crate) const FREQUENCY_MAX: u8 = 7;

/// What the index knows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) location: Location,
    /// Accesses since it was stored or last judged, 0 to [`FREQUENCY_MAX`].
    pub(crate) frequency: u8,
}

/// Key hash -> item. One entry per key; `matches` decides among entries of like hash.
pub(crate) trait Index {
    /// The entry of this hash that `matches`.
    fn find(&self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Slot>;
    /// The same, counting one access.
    fn find_counting(&mut self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Location>;
    /// Adds an entry of frequency 0. At the bound of its table another entry has to go: it is taken out and
    /// returned, and the caller forgets that item.
    fn insert(&mut self, hash: u64, location: Location) -> Option<Location>;
    /// Points the entry of `old` at `new`, its frequency kept or replaced. False if there is none.
    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool;
    /// Takes the entry of `location` out. False if there is none.
    fn remove(&mut self, hash: u64, location: Location) -> bool;
    /// Starts loading what `find` of this hash will need.
    fn prefetch(&self, hash: u64);
    /// Entries.
    fn len(&self) -> usize;
    /// Bytes allocated.
    fn bytes(&self) -> usize;
    /// Calls `visit` for every entry. Walks everything.
    fn for_each(&self, visit: impl FnMut(Location));
}

/// Location in the low half; access count (3 bits) and hash tag (29 bits) in the high half. The tag is all
/// the hash a table needs, so growing one never reads keys from the log.
#[derive(Clone, Copy)]
struct Entry8(u64);

const _: () = assert!(size_of::<Entry8>() == 8);

const TAG_BITS: u32 = 29;

impl Entry8 {
    fn new(tag: u32, slot: Slot) -> Entry8 {
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

    fn slot(self) -> Slot {
        Slot { location: self.location(), frequency: self.frequency() }
    }
}

/// Memory per table of the directory, bytes: some 300 items of 200 bytes, at most 3,900 of the smallest.
const MEMORY_PER_TABLE: usize = 64 << 10;
/// Most entries of a table at that memory: twice what the smallest items can come to, so that an honest
/// load never meets it. Keys chosen to collide end here: they drive each other out, and cost hits in their
/// own table but neither memory nor other tables' time.
const TABLE_ENTRIES_MAX: usize = 7168;
/// A table emptier than one in this many slots gives memory back.
const SHRINK_BELOW: usize = 8;

/// A directory of hashbrown tables, its size fixed at start from the memory limit.
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

/// The hash hashbrown sees: low bits place the entry, the top 7 are its control byte; here disjoint bits of
/// the tag as long as a table has less than 2^22 slots.
#[inline]
fn table_hash(tag: u32) -> u64 {
    u64::from(tag) | u64::from(tag) << (64 - TAG_BITS)
}

impl TableIndex {
    pub(crate) fn new(memory_bytes: usize) -> TableIndex {
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
        index
    }

    /// The memory limit changed: so does the bound of a table.
    pub(crate) fn set_memory_bytes(&mut self, memory_bytes: usize) {
        let scale = memory_bytes.div_ceil(MEMORY_PER_TABLE * self.tables.len()).max(1);
        self.entries_max = TABLE_ENTRIES_MAX * scale;
    }

    #[inline]
    fn number(&self, hash: u64) -> usize {
        (hash >> TAG_BITS) as usize & (self.tables.len() - 1)
    }
}

impl Index for TableIndex {
    #[inline]
    fn find(&self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<Slot> {
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
        // Written only when it changes: a hot item's line stays clean.
        if entry.frequency() < FREQUENCY_MAX {
            entry.0 += 1 << 32;
        }
        Some(entry.location())
    }

    fn insert(&mut self, hash: u64, location: Location) -> Option<Location> {
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
        let entry = Entry8::new(tag, Slot { location, frequency: 0 });
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
        *entry = Entry8::new(tag, Slot { location: new, frequency });
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

    #[inline]
    fn prefetch(&self, _hash: u64) {
        // hashbrown shows no addresses; the one-line buckets to come will.
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
}
