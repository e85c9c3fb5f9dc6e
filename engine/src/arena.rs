//! The arena: one mapping in which every item of a store lives.
//!
//! Owns the address space and lends ranges of it. It knows nothing of segments or records. It rests
//! on two facts:
//!
//! - The mapping is readable, writable and zeroed from start to end, and lives until the last `Arc` goes.
//! - Ranges that another thread may read (a [`View`] of a pinned value) are never lent mutably nor discarded
//!   meanwhile. The pin counts of `segments` see to that: nothing in a pinned segment's values is written.
//!   Ranges that another thread has the kernel take back ([`PageWork`]) are not lent at all until that is over: `segments`
//!   keeps them out of its lists.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes of a huge page, and alignment of the mapping.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Bytes to be given back to the kernel at a time: 5 microseconds of its work, and 20 where it has to split a huge page.
pub(crate) const DISCARD_BYTES: usize = 8 << 10;
const ALIGN: usize = HUGE_PAGE_BYTES;

/// The mapping itself, unmapped when its last user is gone.
struct Mapping {
    /// First usable byte, aligned to [`ALIGN`].
    base: NonNull<u8>,
    bytes: usize,
    /// What `mmap` gave, for `munmap`.
    mapped: NonNull<u8>,
    mapped_bytes: usize,
}

// SAFETY: the mapping is plain memory, tied to no thread; who may touch which bytes is ruled by `Arena`,
// which is not shared, and by pins for `View`s (see the head of the file).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range `mmap` returned; the last owner is going, so nothing refers to it.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

/// Starts loading the cache line of an address, whatever lies there.
#[inline]
pub(crate) fn prefetch_line(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: it neither faults nor changes anything; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast())
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint: it neither faults nor changes anything.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, readonly, preserves_flags))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

/// Exclusive access to the mapping.
pub(crate) struct Arena {
    /// Of `mapping`, at hand.
    base: NonNull<u8>,
    bytes: usize,
    mapping: Arc<Mapping>,
}

// SAFETY: `base` points into the mapping, which may go to another thread.
unsafe impl Send for Arena {}

impl Arena {
    /// Reserves address space; memory comes page by page when it is first written.
    pub(crate) fn new(bytes: usize) -> io::Result<Arena> {
        let mapped_bytes = bytes + ALIGN;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = mapped.as_ptr().align_offset(ALIGN);
        assert!(skip < ALIGN);
        // SAFETY: `skip` is less than the `ALIGN` bytes mapped beyond `bytes`.
        let base = unsafe { mapped.add(skip) };
        // Small pages until told otherwise: what is resident is then what was touched.
        // SAFETY: a range inside the mapping; advice changes no contents. Refusal only costs memory.
        unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
        Ok(Arena { base, bytes, mapping: Arc::new(Mapping { base, bytes, mapped, mapped_bytes }) })
    }

    /// Usable bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// First byte, aligned to a huge page. For whoever lays out a whole arena of their own.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.base
    }

    /// Asks for huge pages in a range of whole ones, before it is first touched. Where the kernel has none,
    /// it stays with small ones.
    pub(crate) fn advise_huge(&mut self, at: usize, len: usize) {
        if len == 0 {
            return;
        }
        assert!(at.is_multiple_of(ALIGN) && len.is_multiple_of(ALIGN));
        let start = self.range(at, len);
        // SAFETY: in range; advice changes no contents. Refusal only costs speed.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }

    /// Starts loading the cache line at `at`; past the end, whatever lies there.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize) {
        prefetch_line(self.base.as_ptr().wrapping_add(at));
    }

    #[inline]
    fn range(&self, at: usize, len: usize) -> NonNull<u8> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.bytes));
        // SAFETY: `at` lies within the mapping, as just asserted.
        unsafe { self.base.add(at) }
    }

    /// The bytes `at..at + len`.
    #[inline]
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let start = self.range(at, len);
        // SAFETY: in range and initialised (anonymous memory is zeroed); writers need `&mut self`, which
        // the returned borrow excludes.
        unsafe { slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// The bytes `at..at + len`, to be written. Never called for bytes of a pinned value.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        let start = self.range(at, len);
        // SAFETY: in range and initialised; `&mut self` excludes other borrows from this arena, and `View`s
        // cover pinned values only, which are not written.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Copies `len` bytes between ranges that do not overlap.
    #[inline]
    pub(crate) fn copy(&mut self, from: usize, to: usize, len: usize) {
        assert!(from + len <= to || to + len <= from);
        let (source, target) = (self.range(from, len), self.range(to, len));
        // SAFETY: both in range and, as asserted, disjoint; `&mut self` excludes other borrows of the target.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), target.as_ptr(), len) };
    }

    /// Gives the pages of a range back to the kernel. Only for segments that hold nothing and have no pin.
    pub(crate) fn discard(&mut self, at: usize, len: usize) {
        let start = self.range(at, len);
        // SAFETY: in range, private and anonymous: it reads as zeroes afterwards; nothing refers to it.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED) };
    }

    /// Has another thread wait for the bytes `at..at + len` to be provided.
    pub(crate) fn provide(&self, at: usize, len: usize) -> PageWork {
        self.page_work(at, len, PageWorkKind::Provide)
    }

    /// Has another thread wait for the bytes `at..at + len` to be taken back. Only for segments that hold nothing and have
    /// no pin; nothing of them is lent until there is an outcome.
    pub(crate) fn take_back(&self, at: usize, len: usize) -> (PageWork, Arc<TakenBack>) {
        let taken_back = Arc::new(TakenBack::default());
        (self.page_work(at, len, PageWorkKind::TakeBack(Arc::clone(&taken_back))), taken_back)
    }

    fn page_work(&self, at: usize, len: usize, kind: PageWorkKind) -> PageWork {
        assert!(at <= self.bytes && len <= self.bytes - at);
        PageWork { mapping: Arc::clone(&self.mapping), at, len, kind }
    }

    /// A window on a value whose segment the caller has pinned.
    pub(crate) fn view(&self) -> View {
        View { mapping: Arc::clone(&self.mapping) }
    }
}

/// Work of the kernel on pages of a store, for another thread to wait for: to provide some that nobody touched yet, a huge
/// page in a fifth of a millisecond, or to take back some of a segment no longer in use, for which it may have to split a
/// huge page. Dropped without being carried out, it is left to the store.
pub struct PageWork {
    mapping: Arc<Mapping>,
    at: usize,
    len: usize,
    kind: PageWorkKind,
}

enum PageWorkKind {
    Provide,
    TakeBack(Arc<TakenBack>),
}

/// How far pages are that the kernel takes back. The store uses them for nothing until it has read that it is over.
#[derive(Default)]
pub(crate) struct TakenBack(AtomicU8);

impl TakenBack {
    const PENDING: u8 = 0;
    const DONE: u8 = 1;
    const NOT_DONE: u8 = 2;

    /// `None` while it is pending; then whether the pages are gone.
    pub(crate) fn outcome(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            Self::PENDING => None,
            state => Some(state == Self::DONE),
        }
    }

    /// The first to say so decides.
    fn end(&self, state: u8) {
        let _ = self.0.compare_exchange(Self::PENDING, state, Ordering::Release, Ordering::Relaxed);
    }
}

impl PageWork {
    /// Has the kernel do it now, from any thread, while the store goes on. Where the kernel cannot provide pages (before
    /// Linux 5.14, or short of memory), first touch does it as ever.
    pub fn carry_out(self) {
        assert!(self.at <= self.mapping.bytes && self.len <= self.mapping.bytes - self.at);
        // SAFETY: in range, as just asserted, of a mapping kept alive by `self`. To provide faults pages in as a write would
        // and changes no contents, whoever else reads, writes or discards them meanwhile. What is taken back nobody
        // refers to: the store lends it to nobody until it has read the outcome, which is written below.
        unsafe {
            let start = self.mapping.base.add(self.at);
            let advice = match self.kind {
                PageWorkKind::Provide => libc::MADV_POPULATE_WRITE,
                PageWorkKind::TakeBack(_) => libc::MADV_DONTNEED,
            };
            libc::madvise(start.as_ptr().cast(), self.len, advice)
        };
        if let PageWorkKind::TakeBack(taken_back) = &self.kind {
            // Locked memory is kept by the kernel, whoever asks.
            taken_back.end(TakenBack::DONE);
        }
    }
}

#[cfg(test)]
impl PageWork {
    pub(crate) fn provides(&self) -> bool {
        matches!(self.kind, PageWorkKind::Provide)
    }
}

impl Drop for PageWork {
    fn drop(&mut self) {
        if let PageWorkKind::TakeBack(taken_back) = &self.kind {
            taken_back.end(TakenBack::NOT_DONE);
        }
    }
}

impl std::fmt::Debug for PageWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            PageWorkKind::Provide => "provide",
            PageWorkKind::TakeBack(_) => "take back",
        };
        write!(f, "PageWork({kind} {} bytes)", self.len)
    }
}

/// Read access to pinned values from any thread; keeps the mapping alive.
pub(crate) struct View {
    mapping: Arc<Mapping>,
}

impl View {
    /// The bytes `at..at + len` of a pinned value.
    #[inline]
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at <= self.mapping.bytes && len <= self.mapping.bytes - at);
        // SAFETY: in range and initialised, and the pin this view stands for keeps writers away.
        unsafe { slice::from_raw_parts(self.mapping.base.add(at).as_ptr(), len) }
    }
}
