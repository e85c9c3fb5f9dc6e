//! The arena: the one memory mapping that holds every record of a store.
//!
//! Owns the address space and lends ranges of it; knows nothing of segments or records. Its safety rests on
//! three rules, of which this file enforces the first and `segments` the other two:
//!
//! - The mapping is readable, writable and zeroed at first, and is unmapped when its last `Arc` is dropped.
//! - A range that another thread may read (a [`View`] of a pinned value) is neither lent mutably nor
//!   discarded while the value is pinned: nothing writes to the values of a pinned segment.
//! - A range that another thread asks the kernel to take back ([`PageWork`]) is not lent at all until that
//!   has ended: `segments` keeps its segment out of every list.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Bytes of a huge page, and alignment of the mapping.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Bytes given back to the kernel in one call. It takes 5 microseconds, or 20 where a huge page has to be
/// split first.
pub(crate) const DISCARD_BYTES: usize = 8 << 10;
const ALIGN: usize = HUGE_PAGE_BYTES;

/// The mapping itself, unmapped when its last user is dropped.
struct Mapping {
    /// First usable byte, aligned to [`ALIGN`].
    base: NonNull<u8>,
    /// Usable bytes from `base` on.
    bytes: usize,
    /// Start of the whole mapping, as `munmap` needs it.
    mapped: NonNull<u8>,
    mapped_bytes: usize,
}

// SAFETY: the mapping is plain memory, tied to no thread. Which bytes may be touched is decided by `Arena`,
// which is not shared, and by pins for `View`s (see the rules at the top of this file).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Advises the kernel about the bytes `at..at + len`. A refusal is ignored: it costs memory or speed,
    /// never contents.
    ///
    /// # Safety
    /// The range lies inside the usable bytes. With `LinuxDontNeed`, nothing refers to it.
    unsafe fn advise(&self, at: usize, len: usize, advice: Advice) {
        debug_assert!(at <= self.bytes && len <= self.bytes - at);
        // SAFETY: in range, as the caller promises. Of the kinds of advice used here only `LinuxDontNeed`
        // changes contents, and then nothing refers to them.
        let _ = unsafe { madvise(self.base.add(at).as_ptr().cast(), len, advice) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range `mmap` returned; the last owner is being dropped, so nothing refers to
        // it.
        let unmapped = unsafe { munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Starts loading the cache line at an address, which need not be mapped.
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
        std::arch::asm!(
            "prfm pldl1keep, [{line}]",
            line = in(reg) line,
            options(nostack, readonly, preserves_flags)
        )
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

/// Exclusive access to the mapping.
pub(crate) struct Arena {
    /// Copies of the fields of `mapping`, to spare a pointer on every access.
    base: NonNull<u8>,
    bytes: usize,
    mapping: Arc<Mapping>,
}

// SAFETY: `base` points into the mapping, which may go to another thread.
unsafe impl Send for Arena {}

impl Arena {
    /// Reserves address space; memory is taken page by page when it is first written.
    ///
    /// # Errors
    /// The kernel's, when it refuses that much address space.
    pub(crate) fn new(bytes: usize) -> io::Result<Arena> {
        let mapped_bytes = bytes.checked_add(ALIGN).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), mapped_bytes, access, flags)? };
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = mapped.as_ptr().align_offset(ALIGN);
        assert!(skip < ALIGN);
        // SAFETY: `skip` is less than the `ALIGN` bytes mapped in addition to `bytes`.
        let base = unsafe { mapped.add(skip) };
        let mapping = Arc::new(Mapping { base, bytes, mapped, mapped_bytes });
        // Small pages unless `advise_huge` asks for others, so that only what was touched is resident.
        // SAFETY: the whole of the usable bytes; this advice changes no contents.
        unsafe { mapping.advise(0, bytes, Advice::LinuxNoHugepage) };
        Ok(Arena { base, bytes, mapping })
    }

    /// Usable bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// First byte, aligned to a huge page. For `index::lines`, which lays out an arena of its own.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.base
    }

    /// Asks for huge pages in a range of whole huge pages, before it is first touched. Where the kernel has
    /// none, the range gets small ones.
    pub(crate) fn advise_huge(&mut self, at: usize, len: usize) {
        if len == 0 {
            return;
        }
        assert!(at.is_multiple_of(ALIGN) && len.is_multiple_of(ALIGN));
        self.range(at, len);
        // SAFETY: in range, as `range` asserts; this advice changes no contents.
        unsafe { self.mapping.advise(at, len, Advice::LinuxHugepage) };
    }

    /// Starts loading the cache line at offset `at`, which may be past the end.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize) {
        prefetch_line(self.base.as_ptr().wrapping_add(at));
    }

    /// Address of the bytes `at..at + len`; panics if they do not all lie in the arena.
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

    /// The bytes `at..at + len`, to be written. Callers must not ask for bytes of a pinned value, which
    /// another thread may be reading.
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

    /// Gives the pages of a range back to the kernel; it reads as zeroes afterwards. Only for segments that
    /// are free.
    pub(crate) fn discard(&mut self, at: usize, len: usize) {
        self.range(at, len);
        // SAFETY: in range, as `range` asserts. The segment is free, so no view refers to it, and `&mut self`
        // excludes every other borrow.
        unsafe { self.mapping.advise(at, len, Advice::LinuxDontNeed) };
    }

    /// Work for another thread: let the kernel provide memory for the bytes `at..at + len`.
    pub(crate) fn provide(&self, at: usize, len: usize) -> PageWork {
        self.page_work(at, len, PageWorkKind::Provide)
    }

    /// Work for another thread: let the kernel take back the bytes `at..at + len`. Only for a free segment,
    /// of which nothing may be lent until there is an outcome.
    pub(crate) fn take_back(&self, at: usize, len: usize) -> (PageWork, Arc<TakenBack>) {
        let taken_back = Arc::new(TakenBack::default());
        (self.page_work(at, len, PageWorkKind::TakeBack(Arc::clone(&taken_back))), taken_back)
    }

    fn page_work(&self, at: usize, len: usize, kind: PageWorkKind) -> PageWork {
        assert!(at <= self.bytes && len <= self.bytes - at);
        PageWork { mapping: Arc::clone(&self.mapping), at, len, kind }
    }

    /// Read access from any thread to values in segments that the caller pins for as long as the view is
    /// read.
    pub(crate) fn view(&self) -> View {
        View { mapping: Arc::clone(&self.mapping) }
    }

    /// Whether `view` was made by this arena. Its locations mean nothing in another one.
    #[inline]
    pub(crate) fn is_source_of(&self, view: &View) -> bool {
        Arc::ptr_eq(&self.mapping, &view.mapping)
    }
}

/// Work that the kernel should do on the pages of a store and that another thread can wait for: provide pages
/// that were never touched (a fifth of a millisecond for a huge page), or take back those of a segment no
/// longer in use, for which it may have to split a huge page. If this is dropped instead of carried out, the
/// store does the work itself.
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

/// Progress of pages that the kernel takes back. The store does not touch them until it has read an outcome.
#[derive(Default)]
pub(crate) struct TakenBack(AtomicU8);

impl TakenBack {
    const PENDING: u8 = 0;
    const DONE: u8 = 1;
    const NOT_DONE: u8 = 2;

    /// `None` while the work is pending, then whether the pages are gone.
    pub(crate) fn outcome(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            Self::PENDING => None,
            state => Some(state == Self::DONE),
        }
    }

    /// Sets the outcome; only the first call has an effect.
    fn end(&self, state: u8) {
        let _ = self.0.compare_exchange(Self::PENDING, state, Ordering::Release, Ordering::Relaxed);
    }
}

impl PageWork {
    /// Lets the kernel do the work now, from any thread, while the store goes on. Where the kernel cannot
    /// provide pages (before Linux 5.14, or short of memory), they are provided at the first touch instead.
    pub fn carry_out(self) {
        assert!(self.at <= self.mapping.bytes && self.len <= self.mapping.bytes - self.at);
        let advice = match self.kind {
            PageWorkKind::Provide => Advice::LinuxPopulateWrite,
            PageWorkKind::TakeBack(_) => Advice::LinuxDontNeed,
        };
        // Providing pages changes no contents, even if they are read, written or discarded meanwhile.
        // SAFETY: in range, as asserted, of a mapping kept alive by `self`. Pages are faulted in as by a write;
        // or nothing refers to what is taken back, since the store does not lend it until it has read the
        // outcome, which is written below.
        unsafe { self.mapping.advise(self.at, self.len, advice) };
        if let PageWorkKind::TakeBack(taken_back) = &self.kind {
            // Also after a refusal: the kernel keeps locked memory whatever the store does, so it need not
            // try again.
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

/// Read access to pinned values from any thread. Keeps the mapping alive.
pub(crate) struct View {
    mapping: Arc<Mapping>,
}

impl View {
    /// The bytes `at..at + len` of a pinned value.
    #[inline]
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at <= self.mapping.bytes && len <= self.mapping.bytes - at);
        // SAFETY: in range, as just asserted, and initialised. The caller of `Arena::view` has pinned the
        // segments it reads, and nothing writes to values of a pinned segment.
        unsafe { slice::from_raw_parts(self.mapping.base.add(at).as_ptr(), len) }
    }
}
