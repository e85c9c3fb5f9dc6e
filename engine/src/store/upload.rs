//! Large values, written piece by piece as they arrive.
//!
//! Pieces are cut from an open segment of their own lane (or, for values that come whole, of the item's) and
//! pinned until the item exists. Slow uploads share segments, so each costs what it has received, and a piece.

use crate::clock::{NEVER, Seconds};
use crate::index::Index;
use crate::item::{Location, PIECE_HEADER_BYTES, Piece};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::log::Lane;

use super::room::Purpose;
use super::write::{Chunk, Content, Mode, Source};
use super::{Store, StoreHow, Stored};

/// There is no room, and none can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// A value on its way in. To be given back by `upload_commit` or `upload_abort`; merely dropped, its memory
/// stays taken.
#[must_use = "dropping an upload leaks its memory: commit or abort it"]
#[derive(Debug)]
pub struct Upload {
    pub(super) pieces: Vec<Location>,
    /// Bytes promised.
    len: usize,
    /// Bytes received.
    written: usize,
    /// Bytes received of the last piece, and its size.
    filled: usize,
    piece_len: usize,
}

impl Upload {
    pub(super) fn new(len: usize) -> Upload {
        Upload { pieces: Vec::new(), len, written: 0, filled: 0, piece_len: 0 }
    }

    /// Bytes of the value still to come.
    pub fn remaining(&self) -> usize {
        self.len - self.written
    }

    /// The place and length of what is left of the last piece.
    fn window(&self, last: Location) -> (usize, usize) {
        (last.at() + PIECE_HEADER_BYTES + self.filled, self.piece_len - self.filled)
    }
}

/// Smallest piece worth its header, bytes.
const PIECE_BYTES_MIN: usize = 512;
/// A piece is at least this fraction of what is left of its value, up to a quarter segment: so a value has at
/// most some 16 + 4 n pieces for its n segments, and its list fits in a record.
const PIECE_FRACTION: usize = 16;

impl<I: Index> Store<I> {
    /// Begins a value of `value_len` bytes. It may hold up to half of the store's memory together with other
    /// unfinished ones; past that, or over `value_bytes_max`, there is no memory.
    pub fn upload_begin(&mut self, value_len: usize, now: Seconds) -> Result<Upload, NoMemory> {
        self.turn(now);
        let promised = self.upload_bytes.saturating_add(value_len);
        if value_len > self.config.value_bytes_max || promised > self.config.memory_bytes / 2 {
            self.count_out_of_memory();
            return Err(NoMemory);
        }
        self.upload_bytes = promised;
        self.counts.uploads += 1;
        Ok(Upload::new(value_len))
    }

    /// Appends bytes to the value; what exceeds its promised length is ignored. After an error the upload can
    /// only be aborted.
    pub fn upload_write(&mut self, upload: &mut Upload, bytes: &[u8], now: Seconds) -> Result<(), NoMemory> {
        self.turn(now);
        self.pay(now);
        let bytes = &bytes[..bytes.len().min(upload.remaining())];
        let done = self.fill(upload, Chunk::Bytes(bytes), Lane::UPLOADS, NEVER, now);
        if done.is_none() {
            self.count_out_of_memory();
        }
        done.ok_or(NoMemory)
    }

    /// Where the next bytes of an unfinished value belong: all that is left of it, or less where its memory ends. What
    /// is written there counts once [`Store::upload_filled`] says so. After an error the upload can only be aborted.
    pub fn upload_window(&mut self, upload: &mut Upload, now: Seconds) -> Result<&mut [u8], NoMemory> {
        self.turn(now);
        self.pay(now);
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

    /// The first `len` bytes of the window given out last are the next of the value.
    pub fn upload_filled(&mut self, upload: &mut Upload, len: usize) {
        assert!(len <= upload.piece_len - upload.filled); // past it lie another record's bytes
        upload.filled += len;
        upload.written += len;
    }

    /// Stores the value under `key`, as `store` does; conditions are judged now. Every answer but `Stored`
    /// drops it. An incomplete one answers `NotStored`.
    pub fn upload_commit(&mut self, upload: Upload, key: Key<'_>, how: &StoreHow, now: Seconds) -> Stored {
        self.turn(now);
        self.pay(now);
        if upload.remaining() > 0 {
            self.upload_abort(upload);
            return Stored::NotStored;
        }
        let joined = matches!(how.mode, Mode::Append | Mode::Prepend);
        // A small value is copied into its record: one place, whoever reads it.
        let small = upload.len <= self.log.segments.segment_bytes() / PIECE_FRACTION - KEY_BYTES_MAX - 64;
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

    /// Drops an unfinished value.
    pub fn upload_abort(&mut self, upload: Upload) {
        self.upload_end(upload, false);
    }

    fn upload_end(&mut self, upload: Upload, kept: bool) {
        self.upload_bytes -= upload.len;
        self.counts.uploads -= 1;
        self.let_go(upload.pieces, kept);
    }

    /// Unpins pieces that an item took over (`kept`), or forgets them.
    pub(super) fn let_go(&mut self, pieces: Vec<Location>, kept: bool) {
        for piece in pieces {
            if !kept {
                let bytes = Piece::bytes(Piece::read(&self.log.arena, piece).len);
                self.log.forget(piece, bytes);
            }
            self.log.unpin(piece);
        }
    }

    /// Appends a chunk to the value, cutting pieces from `lane`. `None`: no memory.
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

    /// Takes the next piece: what is left of the open segment, or of the value.
    fn cut_piece(&mut self, upload: &mut Upload, lane: Lane, expires: u32, now: Seconds) -> Option<()> {
        let remaining = upload.remaining();
        let segment_bytes = self.log.segments.segment_bytes();
        let least = (remaining / PIECE_FRACTION).clamp(PIECE_BYTES_MIN, segment_bytes / 4).min(remaining);
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
