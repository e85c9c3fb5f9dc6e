//! Output of one connection that its socket has not taken yet: owned copies and pinned values, in order.
//!
//! Drivers make one when a socket does not take everything, and drop it when it is empty again. It never
//! sends: drivers gather from it and tell it how many bytes went out.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::driver::Pinned;

/// Above this many bytes of output the shard stops parsing the connection.
pub const HIGH_WATER_BYTES: usize = 64 * 1024;
/// At or below this many bytes the shard parses the connection again.
pub const LOW_WATER_BYTES: usize = 16 * 1024;
/// Most pieces gathered into one send: enough for a 1 MiB value in 64 KiB pieces and its two frames.
pub(crate) const GATHER_MAX: usize = 18;

/// The output that one socket has not taken yet.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

#[derive(Debug)]
enum Chunk {
    /// `bytes[sent..]` is left to send. Frozen once the kernel may be reading it: then it must not grow, and
    /// so move.
    Owned { bytes: Vec<u8>, sent: usize, frozen: bool },
    /// All but the first `sent` bytes of the value are left to send.
    Pinned { pinned: Pinned, sent: usize },
}

impl Outbox {
    /// Bytes left to send, those of pinned values included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends a copy of `bytes`.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        match self.chunks.back_mut() {
            Some(Chunk::Owned { bytes: last, frozen: false, .. }) => last.extend_from_slice(bytes),
            _ => self.chunks.push_back(Chunk::Owned { bytes: bytes.to_vec(), sent: 0, frozen: false }),
        }
    }

    /// Appends a pinned value.
    pub fn push_pinned(&mut self, pinned: Pinned) {
        self.bytes += pinned.value.len();
        self.chunks.push_back(Chunk::Pinned { pinned, sent: 0 });
    }

    /// Appends the next bytes to send to `pieces`, until those are [`GATHER_MAX`]. The bytes stay where they
    /// are in memory, whatever is pushed, until [`Outbox::advance`] or [`Outbox::clear`].
    pub fn gather<'a>(&'a mut self, pieces: &mut Vec<IoSlice<'a>>) {
        for chunk in &mut self.chunks {
            if let Chunk::Owned { frozen, .. } = chunk {
                *frozen = true;
            }
            if pieces.len() >= GATHER_MAX {
                return;
            }
            match &*chunk {
                Chunk::Owned { bytes, sent, .. } => pieces.push(IoSlice::new(&bytes[*sent..])),
                Chunk::Pinned { pinned, sent } => {
                    let mut skip = *sent;
                    for part in pinned.value.parts() {
                        if skip >= part.len() {
                            skip -= part.len();
                            continue;
                        }
                        if pieces.len() >= GATHER_MAX {
                            return;
                        }
                        pieces.push(IoSlice::new(&part[skip..]));
                        skip = 0;
                    }
                }
            }
        }
    }

    /// Removes the first `count` bytes, which the socket took; values that were sent whole go to `released`.
    ///
    /// # Panics
    /// When fewer bytes are left.
    pub fn advance(&mut self, mut count: usize, mut released: impl FnMut(Pinned)) {
        assert!(count <= self.bytes, "a socket took more than it was given");
        self.bytes -= count;
        while let Some(front) = self.chunks.front_mut() {
            let (left, sent) = match front {
                Chunk::Owned { bytes, sent, .. } => (bytes.len() - *sent, sent),
                Chunk::Pinned { pinned, sent } => (pinned.value.len() - *sent, sent),
            };
            if count < left {
                *sent += count;
                return;
            }
            count -= left;
            if let Some(Chunk::Pinned { pinned, .. }) = self.chunks.pop_front() {
                released(pinned);
            }
        }
    }

    /// Removes everything, because the connection ends; pinned values go to `released`.
    pub fn clear(&mut self, mut released: impl FnMut(Pinned)) {
        self.bytes = 0;
        for chunk in self.chunks.drain(..) {
            if let Chunk::Pinned { pinned, .. } = chunk {
                released(pinned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(outbox: &mut Outbox) -> Vec<u8> {
        let mut pieces = Vec::new();
        outbox.gather(&mut pieces);
        pieces.iter().flat_map(|piece| piece.iter().copied()).collect()
    }

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut outbox = Outbox::default();
        outbox.push_bytes(b"abc");
        outbox.push_bytes(b"def");
        assert_eq!(outbox.len(), 6);
        assert_eq!(gathered(&mut outbox), b"abcdef");
        outbox.advance(2, |_| ());
        outbox.push_bytes(b"ghi");
        assert_eq!(gathered(&mut outbox), b"cdefghi");
        outbox.advance(7, |_| ());
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_was_gathered_never_moves_while_more_is_pushed() {
        let mut outbox = Outbox::default();
        outbox.push_bytes(b"first");
        let before = {
            let mut pieces = Vec::new();
            outbox.gather(&mut pieces);
            pieces[0].as_ptr()
        };
        for _ in 0..1000 {
            outbox.push_bytes(&[b'x'; 100]);
        }
        let mut pieces = Vec::new();
        outbox.gather(&mut pieces);
        assert_eq!(pieces[0].as_ptr(), before);
        assert_eq!(&*pieces[0], b"first");
    }
}
