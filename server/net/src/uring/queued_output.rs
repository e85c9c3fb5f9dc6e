//! The output of a connection whose socket did not take everything, with the message header that the kernel
//! sends it by.

use std::io::IoSlice;

use crate::outbox::{self, Outbox};

/// An outbox, and room for a message over its first pieces. Boxed, and not changed while a send is under way
/// except for pushes to the outbox: the kernel may read all of it until the send completes.
pub(super) struct QueuedOutput {
    /// What is left to send.
    pub(super) outbox: Outbox,
    /// The turn in which the first of it came: the socket has not been offered it in that turn.
    pub(super) since_turn: u64,
    pieces: [libc::iovec; outbox::GATHER_MAX],
    header: libc::msghdr,
}

impl QueuedOutput {
    pub(super) fn boxed(since_turn: u64) -> Box<Self> {
        // SAFETY: both are plain C structures for which all zeroes means empty.
        let (pieces, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Self { outbox: Outbox::default(), since_turn, pieces, header })
    }

    /// A message header over the next bytes to send. It points into `self` and the outbox: valid while the
    /// value is not moved and the outbox is neither advanced nor cleared.
    pub(super) fn gather(&mut self) -> *const libc::msghdr {
        let mut gathered: Vec<IoSlice<'_>> = Vec::with_capacity(outbox::GATHER_MAX);
        self.outbox.gather(&mut gathered);
        let count = gathered.len();
        debug_assert!(count <= self.pieces.len());
        for (slot, piece) in self.pieces.iter_mut().zip(&gathered) {
            *slot = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count;
        &raw const self.header
    }
}

impl std::fmt::Debug for QueuedOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuedOutput").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}
