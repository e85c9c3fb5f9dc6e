//! A bounded slab: values in numbered slots, each with a generation that tells its tenants apart.

/// A slot of a [`Slab`], and which of its tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId {
    index: u32,
    generation: u32,
}

/// The slots. Grows up to its bound and never shrinks.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    max: usize,
}

impl<T> Slab<T> {
    pub(super) const fn new(max: usize) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), max }
    }

    /// Values held, those taken out for a moment included.
    pub(super) const fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether `more` further values have room.
    pub(super) const fn has_room(&self, more: usize) -> bool {
        self.len() + more <= self.max
    }

    /// Gives `value` back when every slot is taken.
    pub(super) fn insert(&mut self, value: T) -> Result<SlotId, T> {
        if let Some(index) = self.free.pop() {
            let (generation, entry) = &mut self.entries[index as usize];
            debug_assert!(entry.is_none(), "slot {index} is free and holds a value");
            *entry = Some(value);
            return Ok(SlotId { index, generation: *generation });
        }
        if self.entries.len() >= self.max {
            return Err(value);
        }
        self.entries.push((0, Some(value)));
        debug_assert!(self.entries.len() <= self.max);
        Ok(SlotId { index: self.entries.len() as u32 - 1, generation: 0 })
    }

    /// Whether the tenant of `slot` is still there.
    pub(super) fn has(&self, slot: SlotId) -> bool {
        self.entries.get(slot.index as usize).is_some_and(|(generation, _)| *generation == slot.generation)
    }

    /// The value in `slot`; `None` while it is taken out, and when the slot has another tenant by now.
    pub(super) fn get(&self, slot: SlotId) -> Option<&T> {
        let (generation, entry) = self.entries.get(slot.index as usize)?;
        if *generation == slot.generation { entry.as_ref() } else { None }
    }

    /// Takes the value out and keeps its slot for [`Slab::put_back`] or [`Slab::release`]. `None` when the
    /// slot has another tenant by now.
    pub(super) fn take(&mut self, slot: SlotId) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(slot.index as usize)?;
        if *generation == slot.generation { entry.take() } else { None }
    }

    pub(super) fn put_back(&mut self, slot: SlotId, value: T) {
        let (generation, entry) = &mut self.entries[slot.index as usize];
        assert_eq!(*generation, slot.generation, "the slot has another tenant");
        debug_assert!(entry.is_none(), "the value was not taken out");
        *entry = Some(value);
    }

    /// Frees the slot of a value that was taken out.
    pub(super) fn release(&mut self, slot: SlotId) {
        let (generation, entry) = &mut self.entries[slot.index as usize];
        assert_eq!(*generation, slot.generation, "the slot has another tenant");
        debug_assert!(entry.is_none(), "the value was not taken out");
        *generation = generation.wrapping_add(1);
        self.free.push(slot.index);
        debug_assert!(self.free.len() <= self.entries.len());
    }

    pub(super) fn remove(&mut self, slot: SlotId) -> Option<T> {
        let value = self.take(slot)?;
        self.release(slot);
        Some(value)
    }
}
