//! Uploads: large values that are written in pieces as they arrive.
//!
//! The pieces are appended to the lane of uploads (or to the item's lane, if the value arrives as a whole)
//! and pinned until the item is stored. Slow uploads share segments, so that each takes the memory of what it
//! has received and one piece.

use std::fmt;

use crate::arena::View;
use crate::clock::{NEVER, Seconds};
use crate::index::Index;
use crate::item::{Location, PIECE_HEADER_BYTES, Piece};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::log::Lane;

use super::content::{Chunk, Content, Mode, Source, UNSPLIT_FRACTION};
use super::room::Purpose;
use super::{Store, StoreHow, Stored};

/// The error of an upload for which there is no memory, and none can be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store has no memory for this value")
    }
}

impl std::error::Error for NoMemory {}

/// A value that is being received. It has to be given back to its store by [`Store::upload_commit`] or
/// [`Store::upload_abort`]; if it is dropped, its memory stays in use.
#[must_use = "dropping an upload leaks its memory: commit or abort it"]
pub struct Upload {
    pub(super) pieces: Vec<Location>,
    /// Identifies the store: in another one the pieces would be bytes of other values.
    arena: View,
    /// Length of the whole value, bytes.
    len: usize,
    /// Bytes received.
    written: usize,
    /// Bytes received of the last piece.
    filled: usize,
    /// Length of the last piece, bytes.
    piece_len: usize,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} of {} bytes)", self.written, self.len)
    }
}

impl Upload {
    pub(super) fn new(len: usize, arena: View) -> Upload {
        Upload { pieces: Vec::new(), arena, len, written: 0, filled: 0, piece_len: 0 }
    }

    /// Bytes of the value that were not received yet.
    pub fn remaining(&self) -> usize {
        self.len - self.written
    }

    /// Arena offset and length of the unfilled rest of the last piece.
    fn window(&self, last: Location) -> (usize, usize) {
        (last.offset() + PIECE_HEADER_BYTES + self.filled, self.piece_len - self.filled)
    }
}

/// Smallest piece, bytes, unless the rest of its value is smaller.
const PIECE_BYTES_MIN: usize = 512;
/// A piece is at least the rest of its value divided by this, or a segment divided by
/// [`PIECE_SEGMENT_FRACTION`] if that is less. So a value that takes n segments has at most about 16 + 4 n
/// pieces, and their list fits into a record.
const PIECE_FRACTION: usize = 16;
const PIECE_SEGMENT_FRACTION: usize = 4;
/// The values of all uploads in progress may together be as long as the memory limit divided by this.
const UPLOADS_FRACTION: usize = 2;
/// More bytes than the header and the optional fields of a record take.
const RECORD_OVERHEAD_MAX: usize = 64;

impl<I: Index> Store<I> {
    /// Begins an upload of a value of `value_len` bytes.
    ///
    /// # Errors
    /// If the value is longer than `value_bytes_max`, or all uploads in progress together would be longer
    /// than half of the store's memory.
    pub fn upload_begin(&mut self, value_len: usize, now: Seconds) -> Result<Upload, NoMemory> {
        self.apply_due_flush(now);
        let promised = self.upload_bytes.saturating_add(value_len);
        if value_len > self.config.value_bytes_max || promised > self.config.memory_bytes / UPLOADS_FRACTION {
            self.count_out_of_memory();
            return Err(NoMemory);
        }
        self.upload_bytes = promised;
        self.counts.uploads += 1;
        Ok(Upload::new(value_len, self.log.arena.view()))
    }

    /// Appends bytes to the value. Bytes in excess of its length are ignored. Panics if the upload is of
    /// another store.
    ///
    /// # Errors
    /// If there is no memory. The upload can only be aborted then.
    pub fn upload_write(&mut self, upload: &mut Upload, bytes: &[u8], now: Seconds) -> Result<(), NoMemory> {
        self.assert_own(upload);
        self.apply_due_flush(now);
        self.pay_scan_debt(now);
        let bytes = &bytes[..bytes.len().min(upload.remaining())];
        let done = self.fill(upload, Chunk::Bytes(bytes), Lane::UPLOADS, NEVER, now);
        if done.is_none() {
            self.count_out_of_memory();
        }
        done.ok_or(NoMemory)
    }

    /// Memory for the next bytes of the value: for all that were not received yet, or fewer.
    /// [`Store::upload_filled`] says how many were written there. Panics if the upload is of another store.
    ///
    /// # Errors
    /// If there is no memory. The upload can only be aborted then.
    pub fn upload_window(&mut self, upload: &mut Upload, now: Seconds) -> Result<&mut [u8], NoMemory> {
        self.assert_own(upload);
        self.apply_due_flush(now);
        self.pay_scan_debt(now);
        if upload.remaining() == 0 {
            return Ok(&mut []);
        }
        if upload.filled == upload.piece_len && self.cut_piece(upload, Lane::UPLOADS, NEVER, now).is_none() {
            self.count_out_of_memory();
            return Err(NoMemory);
        }
        let last = *upload.pieces.last().ok_or(NoMemory)?;
        let (at, len) = upload.window(last);
        Ok(self.log.arena.bytes_mut(at, len))
    }

    /// Counts the first `len` bytes of the last [`Store::upload_window`] as received. Panics if it was
    /// shorter, or the upload is of another store.
    pub fn upload_filled(&mut self, upload: &mut Upload, len: usize) {
        self.assert_own(upload);
        assert!(len <= upload.piece_len - upload.filled); // past it are bytes of another record
        upload.filled += len;
        upload.written += len;
    }

    /// Ends an upload with a write of its value to the item of `key`, as [`Store::store`] does. With any
    /// result but `Stored` the value is dropped. The result for an incomplete upload is `NotStored`. Panics
    /// if the upload is of another store.
    pub fn upload_commit(&mut self, upload: Upload, key: Key<'_>, how: &StoreHow, now: Seconds) -> Stored {
        self.assert_own(&upload);
        self.apply_due_flush(now);
        self.pay_scan_debt(now);
        if upload.remaining() > 0 {
            self.upload_abort(upload);
            return Stored::NotStored;
        }
        let joined = matches!(how.mode, Mode::Append | Mode::Prepend);
        // A small value is copied into its record, so that it is in one part.
        let unsplit_bytes = self.log.segments.segment_bytes() / UNSPLIT_FRACTION;
        let small = upload.len <= unsplit_bytes - KEY_BYTES_MAX - RECORD_OVERHEAD_MAX;
        let adopted = !joined && !small;
        let content = match adopted {
            true => Content::Pieces(&upload.pieces, upload.len),
            false => Content::Source(Source::Pieces(&upload.pieces), upload.len),
        };
        let stored = self.put(key, content, how, now);
        let kept = adopted && matches!(stored, Stored::Stored { .. });
        self.upload_end(upload, kept);
        stored
    }

    /// Ends an upload and drops its value. Panics if the upload is of another store.
    pub fn upload_abort(&mut self, upload: Upload) {
        self.assert_own(&upload);
        self.upload_end(upload, false);
    }

    /// Panics unless `upload` was begun in this store.
    fn assert_own(&self, upload: &Upload) {
        assert!(self.log.arena.is_source_of(&upload.arena), "an upload of another store");
    }

    fn upload_end(&mut self, upload: Upload, kept: bool) {
        self.upload_bytes -= upload.len;
        self.counts.uploads -= 1;
        self.release_pieces(upload.pieces, kept);
    }

    /// Unpins the pieces of an upload. Unless an item has taken them over (`kept`), counts them as dead.
    pub(super) fn release_pieces(&mut self, pieces: Vec<Location>, kept: bool) {
        for piece in pieces {
            if !kept {
                let bytes = Piece::bytes(Piece::read(&self.log.arena, piece).len);
                self.log.mark_dead(piece, bytes);
            }
            self.log.unpin(piece);
        }
    }

    /// Appends a chunk to the value, in pieces from `lane`. `None` if there is no memory.
    pub(super) fn fill(
        &mut self,
        upload: &mut Upload,
        chunk: Chunk<'_>,
        lane: Lane,
        expires: u32,
        now: Seconds,
    ) -> Option<()> {
        let mut done = 0;
        while done < chunk.len() {
            if upload.filled == upload.piece_len {
                self.cut_piece(upload, lane, expires, now)?;
            }
            let last = upload.pieces.last()?;
            let (to, room) = upload.window(*last);
            let len = room.min(chunk.len() - done);
            match chunk {
                Chunk::Bytes(bytes) => {
                    self.log.arena.bytes_mut(to, len).copy_from_slice(&bytes[done..done + len]);
                }
                Chunk::Arena { at, .. } => self.log.arena.copy(at + done, to, len),
            }
            done += len;
            upload.filled += len;
            upload.written += len;
        }
        Some(())
    }

    /// Appends the next piece to `lane`: as long as the rest of the value, or of the open segment if that is
    /// shorter. `None` if there is no memory.
    fn cut_piece(&mut self, upload: &mut Upload, lane: Lane, expires: u32, now: Seconds) -> Option<()> {
        let remaining = upload.remaining();
        let segment_bytes = self.log.segments.segment_bytes();
        let least = (remaining / PIECE_FRACTION)
            .clamp(PIECE_BYTES_MIN, segment_bytes / PIECE_SEGMENT_FRACTION)
            .min(remaining);
        let room = self.log.room(lane);
        let len = if room >= Piece::bytes(least) {
            remaining.min(room - PIECE_HEADER_BYTES)
        } else {
            remaining.min(segment_bytes - PIECE_HEADER_BYTES)
        };
        let at = self.reserve(Piece::bytes(len), lane, expires, Purpose::Write, now)?;
        Piece::write(&mut self.log.arena, at, len);
        self.log.pin(at);
        upload.pieces.push(at);
        upload.piece_len = len;
        upload.filled = 0;
        Some(())
    }
}
