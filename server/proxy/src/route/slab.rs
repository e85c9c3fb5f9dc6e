//! Values behind numbered, generation-tagged places, of which there are only so many.

/// A place and which of its tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    index: u32,
    generation: u32,
}

/// The places. Grows up to its bound and keeps what it grew to.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    max: usize,
}

impl<T> Slab<T> {
    pub const fn new(max: usize) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), max }
    }

    /// Values held, those taken out for a moment included.
    pub const fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether so many more have room.
    pub const fn has_room(&self, more: usize) -> bool {
        self.len() + more <= self.max
    }

    /// Gives `value` back when every place is taken.
    pub fn insert(&mut self, value: T) -> Result<Place, T> {
        if let Some(index) = self.free.pop() {
            let (generation, entry) = &mut self.entries[index as usize];
            *entry = Some(value);
            return Ok(Place { index, generation: *generation });
        }
        if self.entries.len() >= self.max {
            return Err(value);
        }
        self.entries.push((0, Some(value)));
        Ok(Place { index: self.entries.len() as u32 - 1, generation: 0 })
    }

    /// Whether the tenant of `place` is still there.
    pub fn has(&self, place: Place) -> bool {
        self.entries.get(place.index as usize).is_some_and(|(generation, _)| *generation == place.generation)
    }

    /// The value at `place`; `None` while it is taken out, and of another tenant.
    pub fn get(&self, place: Place) -> Option<&T> {
        let (generation, entry) = self.entries.get(place.index as usize)?;
        if *generation == place.generation { entry.as_ref() } else { None }
    }

    /// Takes the value out and keeps its place for [`Slab::put_back`]. `None` of a place that has another tenant by now.
    pub fn take(&mut self, place: Place) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(place.index as usize)?;
        if *generation == place.generation { entry.take() } else { None }
    }

    pub fn put_back(&mut self, place: Place, value: T) {
        let (generation, entry) = &mut self.entries[place.index as usize];
        debug_assert!(*generation == place.generation && entry.is_none());
        *entry = Some(value);
    }

    /// Frees the place of a value that was taken out.
    pub fn release(&mut self, place: Place) {
        let (generation, entry) = &mut self.entries[place.index as usize];
        debug_assert!(*generation == place.generation && entry.is_none());
        *generation = generation.wrapping_add(1);
        self.free.push(place.index);
    }

    pub fn remove(&mut self, place: Place) -> Option<T> {
        let value = self.take(place)?;
        self.release(place);
        Some(value)
    }
}
