//! The bookkeeping of one segment, a fixed-size append-only region of the arena.

/// "No segment", where a segment number is expected.
pub(crate) const NONE: u32 = u32::MAX;

/// The first-in first-out queues of segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    /// New items. At its end the policy decides which of them go on to the main queue.
    Admission = 0,
    /// Items that were read in the admission queue, or stored again soon after they were dropped from it.
    Main = 1,
}

/// Which list a segment is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentState {
    /// It holds nothing, and may be opened.
    Free,
    /// It is in a queue.
    Queued(Queue),
    /// It was taken out of its queue and is being emptied.
    Scanned,
}

/// The numbers of one segment, in one cache line.
#[repr(align(64))]
pub(crate) struct Segment {
    /// Rises with every segment opened in the store, so that each use of the same memory has another one.
    /// Items in segments with a sequence number below that of the last flush are dead.
    pub(crate) sequence: u64,
    /// Bytes appended since it was opened.
    pub(crate) written: u32,
    /// Bytes of records that are in use; the other written bytes are dead.
    pub(crate) live: u32,
    /// Users that need the bytes to stay as they are: values being sent, uploads, operations in progress.
    pub(crate) pins: u32,
    /// Neighbours in the queue.
    pub(crate) previous: u32,
    pub(crate) next: u32,
    /// Latest expiry of any record written since it was opened; `NEVER` if one has none.
    pub(crate) expires_max: u32,
    /// Its key in the order of expiry, which may be too early and never too late; 0 if it is not in that
    /// order.
    pub(crate) due: u32,
    /// Second in which it was opened.
    pub(crate) opened_s: u32,
    pub(crate) state: SegmentState,
    /// Whether records may be appended.
    pub(crate) open: bool,
    /// Number of the lane of its queue that appends to it while it is open.
    pub(crate) lane: u8,
    /// Bytes from its start that may be resident; the rest were given back to the kernel.
    pub(crate) resident_bytes: u32,
}

const _: () = assert!(size_of::<Segment>() == 64);

impl Segment {
    pub(crate) fn new() -> Segment {
        Segment {
            sequence: 0,
            written: 0,
            live: 0,
            pins: 0,
            previous: NONE,
            next: NONE,
            expires_max: 0,
            due: 0,
            opened_s: 0,
            state: SegmentState::Free,
            open: false,
            lane: 0,
            resident_bytes: 0,
        }
    }
}
