//! Receive buffers that the kernel picks from by itself (`IORING_REGISTER_PBUF_RING`).
//!
//! Owns the shared ring and the buffers. A buffer is the kernel's from [`BufferRing::put`] until a completion
//! names it, and ours from then until the next `put`. Debug builds check that on every call.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};

/// Most buffers of one ring: what the kernel takes.
const COUNT_MAX: u16 = 1 << 15;

/// Buffers of equal size, lent to the kernel of one ring.
#[derive(Debug)]
pub(crate) struct BufferRing {
    entries: Mapping,
    buffers: Mapping,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    group: u16,
    /// The buffers that are ours, in debug builds; empty otherwise.
    ours: Box<[bool]>,
}

impl BufferRing {
    /// Registers `count` buffers of `buffer_bytes` each as `group`. All of them are the kernel's at first.
    ///
    /// # Errors
    /// When the kernel has no buffer rings (before 5.19) or memory is short.
    ///
    /// # Panics
    /// When `count` is not a power of two up to 32768.
    ///
    /// # Safety
    /// The value must outlive every receive that picks from `group`: while one may be under way, the caller
    /// closes the ring, or cancels its receives and calls [`BufferRing::unregister`], before it drops the
    /// value.
    pub(crate) unsafe fn register(
        ring: &IoUring,
        count: u16,
        buffer_bytes: u32,
        group: u16,
    ) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        assert!(count <= COUNT_MAX);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: the mapping is page-aligned and holds `count` entries; the caller keeps it while receives
        // use it.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.base as u64, count, group, 0)? };
        let ours = if cfg!(debug_assertions) { vec![true; usize::from(count)] } else { Vec::new() };
        let mut made = Self { entries, buffers, count, buffer_bytes, tail: 0, group, ours: ours.into() };
        for id in 0..count {
            made.put(id);
        }
        made.publish();
        Ok(made)
    }

    /// Takes the buffers back from the kernel, before they are unmapped.
    pub(crate) fn unregister(&mut self, submitter: &Submitter<'_>) {
        let _ = submitter.unregister_buf_ring(self.group);
    }

    /// The group number that a receive names to pick from these buffers.
    pub(crate) const fn group(&self) -> u16 {
        self.group
    }

    /// A completion named buffer `id`: it is ours until the next [`BufferRing::put`].
    pub(crate) fn take(&mut self, id: u16) {
        debug_assert!(id < self.count, "the kernel filled a buffer that does not exist");
        if cfg!(debug_assertions) {
            assert!(
                !std::mem::replace(&mut self.ours[usize::from(id)], true),
                "buffer {id} was not the kernel's"
            );
        }
    }

    /// The first `len` bytes of buffer `id`, which must be ours.
    pub(crate) fn bytes(&self, id: u16, len: u32) -> &[u8] {
        assert!(id < self.count && len <= self.buffer_bytes);
        debug_assert!(self.ours[usize::from(id)], "buffer {id} is the kernel's");
        // SAFETY: inside the mapping by the assertion; the kernel does not write to a buffer that is ours,
        // and `put` needs `&mut self`, so the buffer stays ours while this reference lives.
        unsafe {
            let start = self.buffers.base.add(usize::from(id) * self.buffer_bytes as usize);
            std::slice::from_raw_parts(start, len as usize)
        }
    }

    /// Queues buffer `id`, which must be ours, for the kernel; the kernel sees it after
    /// [`BufferRing::publish`].
    pub(crate) fn put(&mut self, id: u16) {
        assert!(id < self.count);
        if cfg!(debug_assertions) {
            assert!(
                std::mem::replace(&mut self.ours[usize::from(id)], false),
                "buffer {id} was recycled twice"
            );
        }
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies inside the mapping. The kernel reads entries
        // only up to the published tail, which this one is past.
        unsafe {
            let entry = self.entries.base.cast::<BufRingEntry>().add(slot);
            (*entry).set_addr(self.buffers.base as u64 + u64::from(id) * u64::from(self.buffer_bytes));
            (*entry).set_len(self.buffer_bytes);
            (*entry).set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel every buffer put so far.
    pub(crate) fn publish(&mut self) {
        // SAFETY: the tail lies inside the first entry, which the mapping holds; it is 2-byte aligned there,
        // and only this thread writes it while the kernel reads it atomically.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.base.cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous private memory, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    base: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        Ok(Self { base: base.cast(), bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.bytes) };
    }
}
