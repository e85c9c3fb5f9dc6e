//! What is known of one segment, a fixed-size append-only region of the arena.

/// Stands for "no segment" in links and slots.
pub(crate) const NONE: u32 = u32::MAX;

/// The first-in first-out queues segments wait in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    /// New items; the policy decides at its end who goes on.
    Admission = 0,
    /// Items that were read.
    Main = 1,
}

/// Where a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Holds nothing and waits to be taken.
    Free,
    /// In a queue.
    Queued(Queue),
    /// Out of its queue, being emptied.
    Scanned,
}

/// Bookkeeping of one segment: a cache line.
#[repr(align(64))]
pub(crate) struct Segment {
    /// Position among all segments ever taken: rises at each use of the same memory. Items of segments
    /// numbered below the last flush are dead.
    pub(crate) sequence: u64,
    /// Bytes appended.
    pub(crate) written: u32,
    /// Bytes of records that are still held.
    pub(crate) live: u32,
    /// Holders that need the bytes to stay: values being sent, uploads, operations in progress.
    pub(crate) pins: u32,
    /// Neighbours in the queue.
    pub(crate) previous: u32,
    pub(crate) next: u32,
    /// Latest expiry of any record ever put in; `NEVER` if one has none.
    pub(crate) expires_max: u32,
    /// Key under which the order of expiry knows it (may be early, never late); 0 if it does not.
    pub(crate) due: u32,
    /// Second in which it was taken.
    pub(crate) opened_s: u32,
    pub(crate) place: Place,
    /// Takes appends.
    pub(crate) open: bool,
    /// While open: which of its queue's lanes it serves.
    pub(crate) lane: u8,
    /// Bytes from its start that may be resident.
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
            place: Place::Free,
            open: false,
            lane: 0,
            resident_bytes: 0,
        }
    }
}
