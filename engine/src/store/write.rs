//! Writes: set, add, replace, append, prepend, compare and swap.

use std::cmp::Ordering;

use crate::clock::{Seconds, or_never};
use crate::index::Index;
use crate::item::{
    self, Fields, GRANULE, INLINE_VALUE_MAX, ItemHeader, Location, PIECE_HEADER_BYTES, Piece, Slack, flag,
};
use crate::key::Key;
use crate::segment::Queue;

use super::Store;
use super::content::{Chunk, Content, Mode, Source, StoreHow, Stored, UNSPLIT_FRACTION};
use super::room::Purpose;
use super::upload::Upload;

impl<I: Index> Store<I> {
    /// Writes `value` to the item of `key`.
    pub fn store(&mut self, key: Key<'_>, value: &[u8], how: &StoreHow, now: Seconds) -> Stored {
        self.apply_due_flush(now);
        self.pay_scan_debt(now);
        self.put(key, Content::Source(Source::Bytes(value), value.len()), how, now)
    }

    /// Does a write. Any pieces in `content` are pinned.
    pub(super) fn put(&mut self, key: Key<'_>, content: Content<'_>, how: &StoreHow, now: Seconds) -> Stored {
        if !key.fits() {
            return Stored::NotStored;
        }
        let found = self.look_up(key, false, now);
        let old = found.map(|(at, _)| at);
        let joins = matches!(how.mode, Mode::Append | Mode::Prepend);
        let mut fields = Fields {
            marks: if how.binary_key { flag::BINARY_KEY } else { 0 },
            expires: or_never(how.expires),
            client_flags: how.client_flags,
            cas: None,
        };
        match (old, how.mode) {
            (Some(_), Mode::Add) => {
                // An add that fails counts as an access, as in memcached.
                let _ = self.find_counting(key, now);
                return Stored::NotStored;
            }
            (Some(at), _) => {
                if let Err(refused) = self.compare(at, how, &mut fields) {
                    return refused;
                }
            }
            (None, Mode::Set | Mode::Replace) if how.compare_cas.is_some() => return Stored::NotFound,
            (None, Mode::Replace) => return Stored::NotStored,
            (None, Mode::Append | Mode::Prepend) => match how.vivify {
                Some(expires) if how.compare_cas.is_none() => fields.expires = or_never(expires),
                _ => return Stored::NotStored,
            },
            (None, Mode::Set | Mode::Add) => {}
        }

        let (source, len) = match content {
            Content::Source(source, len) => (source, len),
            Content::Pieces(pieces, len) => (Source::Pieces(pieces), len),
        };
        let mut sources = [source, Source::Bytes(&[])];
        let mut value_len = len;
        if let (Some(at), true) = (old, joins) {
            let record = self.record(at);
            value_len += record.value_len();
            fields.expires = record.expires();
            fields.client_flags = record.client_flags();
            fields.marks = record.flags() & flag::BINARY_KEY;
            sources = match how.mode {
                Mode::Append => [Source::Item(at), source],
                _ => [source, Source::Item(at)],
            };
        }
        if value_len > self.config.value_bytes_max.min(how.value_bytes_max.unwrap_or(usize::MAX)) {
            self.drop_overwritten(key.hash, old, how.mode);
            return Stored::TooLarge;
        }
        let old_cas = found.and_then(|(at, header)| header.cas(&self.log.arena, at));
        fields.cas = self.cas_for_write(old_cas, how.new_cas, how.with_cas);
        if let (Some((at, header)), Mode::Append, Content::Source(Source::Bytes(more), _)) =
            (found, how.mode, content)
            && self.lengthen(at, header, more, fields.cas)
        {
            self.counts.total_items += 1;
            let cas = fields.cas.filter(|_| how.with_cas).unwrap_or(0);
            return Stored::Stored { cas, value_len };
        }
        let adopted = match content {
            Content::Pieces(pieces, _) => Some(pieces),
            Content::Source(..) => None,
        };
        let done = self.replace(key, old, &fields, sources, value_len, adopted, joins, now);
        if done.is_none() {
            self.count_out_of_memory();
            let old = self.find(key, now);
            self.drop_overwritten(key.hash, old, how.mode);
            return Stored::NoMemory;
        }
        let cas = fields.cas.filter(|_| how.with_cas).unwrap_or(0);
        Stored::Stored { cas, value_len }
    }

    /// Appends to a value in place, if it is in its record and there is room after it. The old value may be
    /// in use by a sender: its bytes stay as they are.
    fn lengthen(&mut self, at: Location, header: ItemHeader, more: &[u8], cas: Option<u64>) -> bool {
        let Some(longer) = header.longer(more.len()) else { return false };
        let has_cas = header.flags() & flag::CAS != 0;
        let bytes = longer.bytes() - header.bytes();
        if (cas.is_some() && !has_cas) || (bytes > 0 && !self.log.lengthen(at, header.bytes(), bytes)) {
            return false;
        }
        self.add_scan_debt(bytes);
        self.counts.bytes += bytes as u64;
        header.append(&mut self.log.arena, at, more);
        if has_cas {
            let cas = cas.unwrap_or_else(|| self.next_cas());
            item::set_cas(&mut self.log.arena, at, cas);
        }
        true
    }

    /// Bytes of slack to leave after an item of `bytes` bytes that replaces `old` in an append. After the
    /// first append it is the least there can be, which marks the item; after further ones a quarter of the
    /// item.
    fn slack_for(&self, old: Location, bytes: usize) -> usize {
        let end = old.offset() + ItemHeader::read(&self.log.arena, old).bytes();
        let segment = self.log.segments.segment_of(old.offset());
        let written = self.log.segments.start(segment) + self.log.segments[segment].written as usize;
        let marked = end < written && Slack::bytes(&self.log.arena, Location::from_offset(end)) > 0;
        if marked { (bytes / SLACK_FRACTION).next_multiple_of(GRANULE) } else { GRANULE }
    }

    /// Compares the cas unique of the item with `compare_cas`, if given. If the value is stored as stale,
    /// changes `fields` accordingly.
    ///
    /// # Errors
    /// The result of the write, if it must not be done.
    fn compare(&self, at: Location, how: &StoreHow, fields: &mut Fields) -> Result<(), Stored> {
        let Some(wanted) = how.compare_cas else { return Ok(()) };
        let replaces = matches!(how.mode, Mode::Set | Mode::Replace);
        match self.compare_cas(at, wanted) {
            Ordering::Equal => Ok(()),
            Ordering::Less if how.stale_if_older && replaces => {
                let record = self.record(at);
                fields.expires = record.expires();
                fields.marks |= flag::STALE | record.flags() & flag::WIN_SENT;
                Ok(())
            }
            _ => Err(Stored::Exists),
        }
    }

    /// Compares `wanted` with the cas unique of the item. An item that has none yet compares as if it had the
    /// one it would get now: above all that were handed out, and equal to none.
    pub(super) fn compare_cas(&self, at: Location, wanted: u64) -> Ordering {
        match self.record(at).cas() {
            _ if !self.config.cas => Ordering::Greater,
            Some(cas) => wanted.cmp(&cas),
            None if wanted < self.cas_next => Ordering::Less,
            None => Ordering::Greater,
        }
    }

    /// Removes the old item after a set that failed.
    fn drop_overwritten(&mut self, hash: u64, old: Option<Location>, mode: Mode) {
        if let (Some(at), Mode::Set) = (old, mode) {
            self.unlink(hash, at);
        }
    }

    /// Writes an item that replaces `old`, or a new one, and returns its location. `None` if there is no
    /// memory; `old` is as it was then, or removed if it was large and not needed for the new value.
    #[allow(clippy::too_many_arguments)] // private, and the common part of all writes
    pub(super) fn replace(
        &mut self,
        key: Key<'_>,
        old: Option<Location>,
        fields: &Fields,
        sources: [Source<'_>; 2],
        value_len: usize,
        adopted: Option<&[Location]>,
        needs_old: bool,
        now: Seconds,
    ) -> Option<Location> {
        let mut old = old;
        if let Some(at) = old
            && !needs_old
            && ItemHeader::read(&self.log.arena, at).is_large()
        {
            // An old and a new large value together could be more than the store can hold.
            self.unlink(key.hash, at);
            old = None;
        }
        // Without eviction the index must not grow into memory of items.
        let full = self.log.segments.in_use() > self.segments_total();
        if old.is_none() && !self.config.evict && (full || !self.index.has_room(key.hash)) {
            return None;
        }
        let queue = if old.is_none() { self.queue_for_new(key.hash) } else { Queue::Admission };
        if adopted.is_none()
            && let Some(new) = self.write_in_open_segment(key, fields, sources, value_len, queue, now)
        {
            if let (Some(old), [Source::Item(_), _]) = (old, sources) {
                let slack = self.slack_for(old, ItemHeader::read(&self.log.arena, new).bytes());
                let lane = self.log.lane(queue, fields.expires, now.0);
                self.log.leave_slack(lane, slack);
            }
            self.link(key.hash, old, new);
            self.counts.total_items += 1;
            return Some(new);
        }
        if let Some(at) = old {
            self.pin_item(at);
        }
        let new = match adopted {
            Some(pieces) => self.write_head(key, fields, value_len, pieces, queue, now),
            None => self.write_item(key, fields, sources, value_len, queue, now),
        };
        if let Some(new) = new {
            self.link(key.hash, old, new);
            self.counts.total_items += 1;
        }
        if let Some(at) = old {
            self.unpin_item(at);
        }
        new
    }

    /// The queue for a new item: the main queue if it was recently dropped from the admission queue.
    fn queue_for_new(&mut self, hash: u64) -> Queue {
        let items = self.counts.items;
        if self.ghosts.take(hash, items) { Queue::Main } else { Queue::Admission }
    }

    /// Writes a record into the open segment of its lane, and returns its location; it is not in the index
    /// yet. Nothing moves meanwhile, so nothing has to be pinned. `None` if the segment has no room for it.
    #[inline]
    fn write_in_open_segment(
        &mut self,
        key: Key<'_>,
        fields: &Fields,
        sources: [Source<'_>; 2],
        value_len: usize,
        queue: Queue,
        now: Seconds,
    ) -> Option<Location> {
        let lane = self.log.lane(queue, fields.expires, now.0);
        let bytes = fields.inline_bytes(key.bytes.len(), value_len);
        if value_len > INLINE_VALUE_MAX || bytes > self.log.room(lane) {
            return None;
        }
        let at = self.append(bytes, lane, fields.expires, Purpose::Write);
        self.write_inline(at, key, fields, sources, value_len);
        Some(at)
    }

    /// Writes all of the record at `at`, which was appended just before.
    #[inline]
    fn write_inline(
        &mut self,
        at: Location,
        key: Key<'_>,
        fields: &Fields,
        sources: [Source<'_>; 2],
        value_len: usize,
    ) {
        let to = fields.write_inline(&mut self.log.arena, at, key.bytes, value_len);
        match sources {
            [Source::Bytes(bytes), Source::Bytes(&[])] => {
                self.log.arena.bytes_mut(to, bytes.len()).copy_from_slice(bytes)
            }
            _ => self.copy_in(to, sources),
        }
    }

    /// Copies a value in parts to arena offset `to`.
    fn copy_in(&mut self, mut to: usize, sources: [Source<'_>; 2]) {
        for source in sources {
            let mut ordinal = 0;
            while let Some(chunk) = self.chunk(source, ordinal) {
                match chunk {
                    Chunk::Bytes(bytes) => self.log.arena.bytes_mut(to, bytes.len()).copy_from_slice(bytes),
                    Chunk::Arena { at, len } => self.log.arena.copy(at, to, len),
                }
                to += chunk.len();
                ordinal += 1;
            }
        }
    }

    /// Writes a record and, if its value does not fit into it, pieces. Returns the location of the record,
    /// which is not in the index yet. `None` if there is no memory.
    pub(super) fn write_item(
        &mut self,
        key: Key<'_>,
        fields: &Fields,
        sources: [Source<'_>; 2],
        value_len: usize,
        queue: Queue,
        now: Seconds,
    ) -> Option<Location> {
        let lane = self.log.lane(queue, fields.expires, now.0);
        let bytes = fields.inline_bytes(key.bytes.len(), value_len);
        let segment_bytes = self.log.segments.segment_bytes();
        let room = self.log.room(lane);
        // The record contains the value if there is room, or if little is lost by closing the open segment
        // early.
        let fits = bytes <= room
            || bytes <= segment_bytes / UNSPLIT_FRACTION
            || (room < SPLIT_ROOM_MIN && bytes <= segment_bytes);
        if fits && value_len <= INLINE_VALUE_MAX {
            let at = self.reserve(bytes, lane, fields.expires, Purpose::Write, now)?;
            self.write_inline(at, key, fields, sources, value_len);
            return Some(at);
        }
        let mut upload = Upload::new(value_len, self.log.arena.view());
        let mut written = Some(());
        for source in sources {
            let mut ordinal = 0;
            while let (Some(()), Some(chunk)) = (written, self.chunk(source, ordinal)) {
                written = self.fill(&mut upload, chunk, lane, fields.expires, now);
                ordinal += 1;
            }
        }
        let head = match written {
            Some(()) => self.write_head(key, fields, value_len, &upload.pieces, queue, now),
            None => None,
        };
        self.release_pieces(upload.pieces, head.is_some());
        head
    }

    /// Writes the record of a large item; its pieces are written and pinned before. `None` if there is no
    /// memory.
    fn write_head(
        &mut self,
        key: Key<'_>,
        fields: &Fields,
        value_len: usize,
        pieces: &[Location],
        queue: Queue,
        now: Seconds,
    ) -> Option<Location> {
        let lane = self.log.lane(queue, fields.expires, now.0);
        let bytes = fields.large_bytes(key.bytes.len(), pieces.len());
        let head = self.reserve(bytes, lane, fields.expires, Purpose::Write, now)?;
        fields.write_large(&mut self.log.arena, head, (key.bytes, key.hash), value_len, pieces);
        self.raise_expiry(head, fields.expires);
        Some(head)
    }

    /// Chunk number `ordinal` of a source; `None` after the last.
    fn chunk<'a>(&self, source: Source<'a>, ordinal: usize) -> Option<Chunk<'a>> {
        let content = |piece: Location| {
            let len = Piece::read(&self.log.arena, piece).len;
            Chunk::Arena { at: piece.offset() + PIECE_HEADER_BYTES, len }
        };
        match source {
            Source::Bytes(bytes) => (ordinal == 0).then_some(Chunk::Bytes(bytes)),
            Source::Pieces(pieces) => pieces.get(ordinal).copied().map(content),
            Source::Item(at) => {
                let record = self.record(at);
                if record.is_large() {
                    return (ordinal < record.piece_count()).then(|| content(record.piece(ordinal)));
                }
                let at = at.offset() + record.value_at();
                (ordinal == 0).then_some(Chunk::Arena { at, len: record.value_len() })
            }
        }
    }
}

/// The slack after an item that is appended to again and again is the size of the item divided by this.
const SLACK_FRACTION: usize = 4;
/// Bytes of room in an open segment below which it is closed instead of filled with a piece.
const SPLIT_ROOM_MIN: usize = 1024;
