//! Storing: set, add, replace, append, prepend, compare and swap.

use std::cmp::Ordering;

use crate::clock::{Seconds, or_never};
use crate::index::Index;
use crate::item::{
    self, Fields, GRANULE, Head, INLINE_VALUE_MAX, Location, PIECE_HEADER_BYTES, Piece, Slack, flag,
};
use crate::key::Key;
use crate::segment::Queue;

use super::Store;
use super::room::Purpose;
use super::upload::Upload;

/// Which items a store applies to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Any.
    #[default]
    Set,
    /// Only where there is none.
    Add,
    /// Only where there is one.
    Replace,
    /// Adds to the end of one; keeps its client flags and expiry.
    Append,
    /// Adds to the front of one; keeps its client flags and expiry.
    Prepend,
}

/// How to store a value. The default is a plain set that never expires.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreHow {
    /// Which items this applies to.
    pub mode: Mode,
    /// The client's opaque 32 bits.
    pub client_flags: u32,
    /// `None` never. A second that has come is allowed: stored, and dead at once.
    pub expires: Option<Seconds>,
    /// Store only over an item of this cas unique. With `Add` it has no effect.
    pub compare_cas: Option<u64>,
    /// The cas unique to give; otherwise the store counts.
    pub new_cas: Option<u64>,
    /// A compare with an older unique than the item's stores all the same, but stale: the expiry and a sent
    /// win token stay. `Set` and `Replace` only.
    pub stale_if_older: bool,
    /// `Append` and `Prepend` create a missing item with this expiry.
    pub vivify: Option<Option<Seconds>>,
    /// The caller wants to know the unique: assign one.
    pub with_cas: bool,
    /// The client gave the key in base64.
    pub binary_key: bool,
    /// Longest value to come to, joined with the old one if need be, where that depends on the key; never more
    /// than the store's own `value_bytes_max`.
    pub value_bytes_max: Option<usize>,
}

/// What became of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// Done.
    Stored {
        /// The item's unique; 0 unless asked for or known anyway.
        cas: u64,
        /// Bytes of the whole value, after append or prepend.
        value_len: usize,
    },
    /// The mode did not allow it.
    NotStored,
    /// The unique differs.
    Exists,
    /// There is none to compare with.
    NotFound,
    /// Longer than `value_bytes_max`. A `Set` has dropped the old item, so that it is not taken for this one.
    TooLarge,
    /// There is no room and none can be made. A `Set` has dropped the old item.
    NoMemory,
}

/// Bytes to be copied into the log.
#[derive(Clone, Copy)]
pub(super) enum Chunk<'a> {
    Bytes(&'a [u8]),
    /// In a pinned segment.
    Arena {
        at: usize,
        len: usize,
    },
}

impl Chunk<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Arena { len, .. } => *len,
        }
    }
}

/// Where bytes of a value come from, in one or more chunks.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    /// The value of a pinned item.
    Item(Location),
    /// Pieces of an upload.
    Pieces(&'a [Location]),
}

/// A value to store and its length.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    /// To be copied.
    Source(Source<'a>, usize),
    /// Pieces to be taken over as they are.
    Pieces(&'a [Location], usize),
}

impl<I: Index> Store<I> {
    /// Stores `value` under `key`.
    pub fn store(&mut self, key: Key<'_>, value: &[u8], how: &StoreHow, now: Seconds) -> Stored {
        self.turn(now);
        self.pay(now);
        self.put(key, Content::Source(Source::Bytes(value), value.len()), how, now)
    }

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
                // A failing add counts as an access, as in memcached.
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
        let old_cas = found.and_then(|(at, head)| head.cas(&self.log.arena, at));
        fields.cas = self.following_cas(old_cas, how.new_cas, how.with_cas);
        if let (Some((at, head)), Mode::Append, Content::Source(Source::Bytes(more), _)) =
            (found, how.mode, content)
            && self.lengthen(at, head, more, fields.cas)
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

    /// Appends to an inline value where it lies, if there is room behind it. Whoever sends the old value is not
    /// disturbed: its bytes stay as they are.
    fn lengthen(&mut self, at: Location, head: Head, more: &[u8], cas: Option<u64>) -> bool {
        let Some(longer) = head.longer(more.len()) else { return false };
        let has_cas = head.flags() & flag::CAS != 0;
        let bytes = longer.bytes() - head.bytes();
        if (cas.is_some() && !has_cas) || (bytes > 0 && !self.log.lengthen(at, head.bytes(), bytes)) {
            return false;
        }
        self.owe(bytes);
        self.counts.bytes += bytes as u64;
        head.append(&mut self.log.arena, at, more);
        if has_cas {
            let cas = cas.unwrap_or_else(|| self.next_cas());
            item::set_cas(&mut self.log.arena, at, cas);
        }
        true
    }

    /// Bytes of slack to leave behind an item that is appended to: a mark the first time, a quarter of its bytes from
    /// then on.
    fn slack_for(&self, old: Location, bytes: usize) -> usize {
        let end = old.at() + Head::read(&self.log.arena, old).bytes();
        let segment = self.log.segments.holding(old.at());
        let written = self.log.segments.start(segment) + self.log.segments[segment].written as usize;
        let marked = end < written && Slack::bytes(&self.log.arena, Location::of(end)) > 0;
        if marked { (bytes / SLACK_FRACTION).next_multiple_of(GRANULE) } else { GRANULE }
    }

    /// Compares the item's unique with the one wanted, if any; on a stale match `fields` become stale.
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

    /// How `wanted` relates to the item's unique. An item whose unique nobody asked for has, in effect, the
    /// one it would get now: above all handed out, equal to none.
    pub(super) fn compare_cas(&self, at: Location, wanted: u64) -> Ordering {
        match self.record(at).cas() {
            _ if !self.config.cas => Ordering::Greater,
            Some(cas) => wanted.cmp(&cas),
            None if wanted < self.cas_next => Ordering::Less,
            None => Ordering::Greater,
        }
    }

    fn drop_overwritten(&mut self, hash: u64, old: Option<Location>, mode: Mode) {
        if let (Some(at), Mode::Set) = (old, mode) {
            self.unlink(hash, at);
        }
    }

    /// Writes an item over `old` or as a new one; its location. `None`: no memory; `old` is as it was, or
    /// dropped when it was large and its bytes were not needed.
    #[allow(clippy::too_many_arguments)] // private, and the one place where all of it meets
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
            && Head::read(&self.log.arena, at).is_large()
        {
            // Old and new large value side by side could be more than the store can hold.
            self.unlink(key.hash, at);
            old = None;
        }
        // Without eviction a growing index must not take what items occupy.
        let full = self.log.segments.in_use() > self.segments_total();
        if old.is_none() && !self.config.evict && (full || !self.index.has_room(key.hash)) {
            return None;
        }
        let queue = if old.is_none() { self.queue_for_new(key.hash) } else { Queue::Admission };
        if adopted.is_none()
            && let Some(new) = self.write_at_once(key, fields, sources, value_len, queue, now)
        {
            if let (Some(old), [Source::Item(_), _]) = (old, sources) {
                let slack = self.slack_for(old, Head::read(&self.log.arena, new).bytes());
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

    /// Where a new item goes: to the main queue if it was dropped from admission lately.
    fn queue_for_new(&mut self, hash: u64) -> Queue {
        let items = self.counts.items;
        if self.ghosts.take(hash, items) { Queue::Main } else { Queue::Admission }
    }

    /// Writes a record where there is room for it, in an open segment: nothing moves, so that nothing has to be pinned
    /// meanwhile. Not in the index yet. `None`: there is more to do for it.
    #[inline]
    fn write_at_once(
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

    /// Fills the record at `at`.
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

    /// Copies a value to arena offset `to`.
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

    /// Writes a record and, for a value that does not fit where it goes, its pieces. Not in the index yet.
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
        // Inline where it fits, or where closing the open segment early wastes little of it.
        let fits =
            bytes <= room || bytes <= segment_bytes / 16 || (room < SPLIT_ROOM_MIN && bytes <= segment_bytes);
        if fits && value_len <= INLINE_VALUE_MAX {
            let at = self.reserve(bytes, lane, fields.expires, Purpose::Write, now)?;
            self.write_inline(at, key, fields, sources, value_len);
            return Some(at);
        }
        let mut upload = Upload::new(value_len);
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
        self.let_go(upload.pieces, head.is_some());
        head
    }

    /// Writes the record of an item whose pieces are written and pinned.
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

    /// One chunk of a source; `None` past the last.
    fn chunk<'a>(&self, source: Source<'a>, ordinal: usize) -> Option<Chunk<'a>> {
        let content = |piece: Location| {
            let len = Piece::read(&self.log.arena, piece).len;
            Chunk::Arena { at: piece.at() + PIECE_HEADER_BYTES, len }
        };
        match source {
            Source::Bytes(bytes) => (ordinal == 0).then_some(Chunk::Bytes(bytes)),
            Source::Pieces(pieces) => pieces.get(ordinal).copied().map(content),
            Source::Item(at) => {
                let record = self.record(at);
                if record.is_large() {
                    return (ordinal < record.piece_count()).then(|| content(record.piece(ordinal)));
                }
                let at = at.at() + record.value_at();
                (ordinal == 0).then_some(Chunk::Arena { at, len: record.value_len() })
            }
        }
    }
}

/// One in this many bytes of an item that is appended to again and again is left behind it as room.
const SLACK_FRACTION: usize = 4;
/// An open segment with less room than this is closed rather than filled with a piece, bytes.
const SPLIT_ROOM_MIN: usize = 1024;
