//! Receive buffers that the kernel picks from by itself (`IORING_REGISTER_PBUF_RING`).
//!
//! Owns the shared ring and the buffers. A buffer belongs to the kernel from `recycle` until a completion names it,
//! and to us from then until the next `recycle`.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};

/// Buffers of equal size, lent to the kernel of one ring.
#[derive(Debug)]
pub struct BufferRing {
    entries: Mapping,
    buffers: Mapping,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    group: u16,
}

impl BufferRing {
    /// Register `count` (a power of two) buffers of `buffer_bytes` each as `group`, all of them the kernel's.
    ///
    /// # Errors
    /// When the kernel has no buffer rings (before 5.19) or memory is short.
    pub fn register(ring: &IoUring, count: u16, buffer_bytes: u32, group: u16) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and is unmapped only after `unregister`, which
        // the owner calls before dropping this, or after the ring itself is gone.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.base as u64, count, group, 0)? };
        let mut made = Self { entries, buffers, count, buffer_bytes, tail: 0, group };
        for id in 0..count {
            made.put(id);
        }
        made.publish();
        Ok(made)
    }

    /// Take the buffers back from the kernel, before they are unmapped.
    pub fn unregister(&mut self, submitter: &Submitter<'_>) {
        let _ = submitter.unregister_buf_ring(self.group);
    }

    /// Group number that receives name.
    pub const fn group(&self) -> u16 {
        self.group
    }

    /// The first `len` bytes of buffer `id`, which a completion has named and `put` has not given back yet.
    pub fn bytes(&self, id: u16, len: u32) -> &[u8] {
        assert!(id < self.count && len <= self.buffer_bytes);
        // SAFETY: inside the mapping by the assertion; the kernel does not write to a buffer it handed out, and `put`
        // needs `&mut self`, so the buffer stays ours while this reference lives.
        unsafe {
            let start = self.buffers.base.add(usize::from(id) * self.buffer_bytes as usize);
            std::slice::from_raw_parts(start, len as usize)
        }
    }

    /// Queue buffer `id` for the kernel; it sees it after [`BufferRing::publish`].
    pub fn put(&mut self, id: u16) {
        assert!(id < self.count);
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies inside the mapping. The kernel reads entries only up to
        // the published tail, which this one is past.
        unsafe {
            let entry = self.entries.base.cast::<BufRingEntry>().add(slot);
            (*entry).set_addr(self.buffers.base as u64 + u64::from(id) * u64::from(self.buffer_bytes));
            (*entry).set_len(self.buffer_bytes);
            (*entry).set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Show the kernel every buffer put so far.
    pub fn publish(&mut self) {
        // SAFETY: the tail lies inside the first entry, which the mapping holds; it is 2-byte aligned there, and only
        // this thread writes it while the kernel reads it atomically.
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
