//! The record: how an item, or a piece of a large one, lies in a segment.
//!
//! ```text
//! item    key_len u8 | flags u8 | value_len u16 | expires u32? | client_flags u32? | cas u64?
//!         | total_len u32 (large) | key | value, or piece locations u32 x value_len (large) | pad to 4
//! piece   0 u8 | 0 u8 | ordinal u16 | len u32 | key hash u64 | bytes | pad to 4
//! slack   0 u8 | 1 u8 | granules u16 | room for the item before it to grow
//! grave   0 u8 | 2 u8 | granules u16 | what is left of an item
//! ```
//!
//! Numbers are little endian. An optional field is there when its flag is. 4 bytes of header over key and
//! value in the common case. The value of a large item lies in pieces anywhere in the arena; a piece knows
//! the hash of its key, so that whoever meets it finds the item it belongs to.

use crate::arena::Arena;
use crate::clock::{NEVER, Seconds};
use crate::key::KEY_BYTES_MAX;
use crate::value::Value;

/// Records start at multiples of this many bytes.
pub(crate) const GRANULE: usize = 4;
const HEADER_BYTES: usize = 4;
/// Longest value in the record itself: its length is 16 bits.
pub(crate) const INLINE_VALUE_MAX: usize = u16::MAX as usize;
/// Bytes before the content of a piece.
pub(crate) const PIECE_HEADER_BYTES: usize = 16;

const _: () = assert!(KEY_BYTES_MAX < u8::MAX as usize);
const _: () = assert!(HEADER_BYTES.is_multiple_of(GRANULE) && PIECE_HEADER_BYTES.is_multiple_of(GRANULE));

/// Bits of the flags byte.
pub(crate) mod flag {
    /// There is an expiry.
    pub(crate) const EXPIRES: u8 = 1;
    /// There are client flags other than 0.
    pub(crate) const CLIENT_FLAGS: u8 = 2;
    /// There is a cas unique.
    pub(crate) const CAS: u8 = 4;
    /// The value lies in pieces.
    pub(crate) const LARGE: u8 = 8;
    /// Invalidated, yet served until refilled.
    pub(crate) const STALE: u8 = 16;
    /// One reader was told to refill it.
    pub(crate) const WIN_SENT: u8 = 32;
    /// Was read since it was stored.
    pub(crate) const FETCHED: u8 = 64;
    /// The client gave the key in base64.
    pub(crate) const BINARY_KEY: u8 = 128;
}

/// Bytes of optional fields for each combination of the four lowest flags.
const FIELD_BYTES: [usize; 16] = {
    let mut bytes = [0; 16];
    let mut flags = 0;
    while flags < 16 {
        let mut sum = 0;
        if flags & flag::EXPIRES as usize != 0 {
            sum += 4;
        }
        if flags & flag::CLIENT_FLAGS as usize != 0 {
            sum += 4;
        }
        if flags & flag::CAS as usize != 0 {
            sum += 8;
        }
        if flags & flag::LARGE as usize != 0 {
            sum += 4;
        }
        bytes[flags] = sum;
        flags += 1;
    }
    bytes
};

/// Where a record starts: arena offset in granules of 4 bytes, so that 32 bits reach 16 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Location(pub(crate) u32);

impl Location {
    #[inline]
    pub(crate) fn of(at: usize) -> Location {
        debug_assert!(at.is_multiple_of(GRANULE));
        Location((at / GRANULE) as u32)
    }

    /// Arena offset, bytes.
    #[inline]
    pub(crate) fn at(self) -> usize {
        self.0 as usize * GRANULE
    }
}

#[inline]
fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(GRANULE)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// What a record says beside key and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    /// Of [`flag`], the ones that are no fields: `STALE`, `WIN_SENT`, `FETCHED`, `BINARY_KEY`.
    pub(crate) marks: u8,
    pub(crate) expires: u32,
    pub(crate) client_flags: u32,
    /// `None`: no unique was handed out yet.
    pub(crate) cas: Option<u64>,
}

impl Fields {
    fn flags(&self) -> u8 {
        let mut flags = self.marks;
        if self.expires != NEVER {
            flags |= flag::EXPIRES;
        }
        if self.client_flags != 0 {
            flags |= flag::CLIENT_FLAGS;
        }
        if self.cas.is_some() {
            flags |= flag::CAS;
        }
        flags
    }

    /// Bytes of a record with the value inline.
    #[inline]
    pub(crate) fn inline_bytes(&self, key_len: usize, value_len: usize) -> usize {
        padded(HEADER_BYTES + FIELD_BYTES[(self.flags() & 15) as usize] + key_len + value_len)
    }

    /// Bytes of a record that points at pieces.
    pub(crate) fn large_bytes(&self, key_len: usize, pieces: usize) -> usize {
        self.inline_bytes(key_len, 4 + pieces * 4)
    }

    /// Writes header, fields and key; returns the arena offset of what follows the key.
    #[inline]
    fn write(&self, arena: &mut Arena, location: Location, key: &[u8], flags: u8, short: u16) -> usize {
        let fields = FIELD_BYTES[(flags & 15) as usize];
        let bytes = arena.bytes_mut(location.at(), HEADER_BYTES + fields + key.len());
        let [low, high] = short.to_le_bytes();
        bytes[..HEADER_BYTES].copy_from_slice(&[key.len() as u8, flags, low, high]);
        let mut at = HEADER_BYTES;
        if flags & flag::EXPIRES != 0 {
            bytes[at..at + 4].copy_from_slice(&self.expires.to_le_bytes());
            at += 4;
        }
        if flags & flag::CLIENT_FLAGS != 0 {
            bytes[at..at + 4].copy_from_slice(&self.client_flags.to_le_bytes());
            at += 4;
        }
        if let Some(cas) = self.cas {
            bytes[at..at + 8].copy_from_slice(&cas.to_le_bytes());
        }
        bytes[HEADER_BYTES + fields..].copy_from_slice(key);
        location.at() + HEADER_BYTES + fields + key.len()
    }

    /// Writes all but the value of an inline item; returns the arena offset where the value goes.
    #[inline]
    pub(crate) fn write_inline(
        &self,
        arena: &mut Arena,
        location: Location,
        key: &[u8],
        value_len: usize,
    ) -> usize {
        assert!(value_len <= INLINE_VALUE_MAX);
        self.write(arena, location, key, self.flags(), value_len as u16)
    }

    /// Writes an item whose value of `total_len` bytes lies in `pieces`, and tells these whose they are.
    pub(crate) fn write_large(
        &self,
        arena: &mut Arena,
        location: Location,
        (key, hash): (&[u8], u64),
        total_len: usize,
        pieces: &[Location],
    ) {
        assert!(pieces.len() <= u16::MAX as usize);
        let flags = self.flags() | flag::LARGE;
        let list = self.write(arena, location, key, flags, pieces.len() as u16);
        let total_at = list - key.len() - 4;
        arena.bytes_mut(total_at, 4).copy_from_slice(&(total_len as u32).to_le_bytes());
        for (ordinal, piece) in pieces.iter().enumerate() {
            arena.bytes_mut(list + ordinal * 4, 4).copy_from_slice(&piece.0.to_le_bytes());
            let header = arena.bytes_mut(piece.at(), PIECE_HEADER_BYTES);
            header[2..4].copy_from_slice(&(ordinal as u16).to_le_bytes());
            header[8..16].copy_from_slice(&hash.to_le_bytes());
        }
    }
}

/// Header of an item: all it takes to find one's way in the record.
#[derive(Clone, Copy, Default)]
pub(crate) struct Head([u8; HEADER_BYTES]);

impl Head {
    /// Of the item at `location`, which must be one (not a piece).
    #[inline]
    pub(crate) fn read(arena: &Arena, location: Location) -> Head {
        let bytes = arena.bytes(location.at(), HEADER_BYTES);
        Head([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    #[inline]
    fn key_len(self) -> usize {
        usize::from(self.0[0])
    }

    #[inline]
    pub(crate) fn flags(self) -> u8 {
        self.0[1]
    }

    #[inline]
    pub(crate) fn is_large(self) -> bool {
        self.flags() & flag::LARGE != 0
    }

    /// Whether nothing but key and value follows.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.flags() & (flag::EXPIRES | flag::CLIENT_FLAGS | flag::CAS | flag::LARGE) == 0
    }

    /// The value of the plain item of this header, at `location`.
    #[inline]
    pub(crate) fn plain_value(self, arena: &Arena, location: Location) -> &[u8] {
        arena.bytes(location.at() + HEADER_BYTES + self.key_len(), self.short())
    }

    /// Length of the value, or number of pieces.
    #[inline]
    fn short(self) -> usize {
        usize::from(u16::from_le_bytes([self.0[2], self.0[3]]))
    }

    /// The header of the same item with a longer inline value. `None`: too long for that.
    pub(crate) fn longer(self, more: usize) -> Option<Head> {
        let len = self.short().checked_add(more).filter(|&len| len <= INLINE_VALUE_MAX)?;
        let [low, high] = (len as u16).to_le_bytes();
        (!self.is_large()).then_some(Head([self.0[0], self.0[1], low, high]))
    }

    /// Appends `more` to the value of the item of this header, at `location`, which has room for it there, and makes it
    /// one that nobody has read.
    pub(crate) fn append(self, arena: &mut Arena, location: Location, more: &[u8]) {
        let end = location.at() + self.value_at() + self.short();
        arena.bytes_mut(end, more.len()).copy_from_slice(more);
        let mut longer = self.longer(more.len()).expect("room for it").0;
        longer[1] &= !(flag::STALE | flag::WIN_SENT | flag::FETCHED);
        arena.bytes_mut(location.at(), HEADER_BYTES).copy_from_slice(&longer);
    }

    /// Offset of the key in the record.
    #[inline]
    fn key_at(self) -> usize {
        HEADER_BYTES + FIELD_BYTES[(self.flags() & 15) as usize]
    }

    /// Offset of the value or the piece list.
    #[inline]
    fn value_at(self) -> usize {
        self.key_at() + self.key_len()
    }

    /// Bytes of the record, pieces not counted.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        padded(self.value_at() + if self.is_large() { self.short() * 4 } else { self.short() })
    }

    /// Whether the item of this header, at `location`, has this key. Touches nothing but the key.
    #[inline]
    pub(crate) fn has_key(self, arena: &Arena, location: Location, key: &[u8]) -> bool {
        self.key_len() == key.len() && are_equal(arena.bytes(location.at() + self.key_at(), key.len()), key)
    }

    /// When the item of this header, at `location`, expires.
    #[inline]
    pub(crate) fn expires(self, arena: &Arena, location: Location) -> u32 {
        if self.flags() & flag::EXPIRES == 0 {
            return NEVER;
        }
        u32_at(arena.bytes(location.at() + HEADER_BYTES, 4), 0)
    }

    /// The cas unique of the item of this header, at `location`, if it has one.
    #[inline]
    pub(crate) fn cas(self, arena: &Arena, location: Location) -> Option<u64> {
        let has_one = self.flags() & flag::CAS != 0;
        has_one.then(|| u64_at(arena.bytes(location.at() + cas_at(self.flags()), 8), 0))
    }
}

/// An item's record, as it lies there.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    /// From the header to the padding.
    bytes: &'a [u8],
    head: Head,
}

impl<'a> Record<'a> {
    /// The item at `location`, which must be one (not a piece).
    #[inline]
    pub(crate) fn read(arena: &'a Arena, location: Location) -> Record<'a> {
        Record::of(arena, location, Head::read(arena, location))
    }

    /// The item of this header at `location`.
    #[inline]
    pub(crate) fn of(arena: &'a Arena, location: Location, head: Head) -> Record<'a> {
        let bytes = arena.bytes(location.at(), head.bytes());
        debug_assert!(bytes[0] != 0 && bytes[2..4] == head.0[2..4]);
        Record { bytes, head }
    }

    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        self.head.flags()
    }

    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    #[inline]
    pub(crate) fn expires(&self) -> u32 {
        if self.has(flag::EXPIRES) { u32_at(self.bytes, HEADER_BYTES) } else { NEVER }
    }

    #[inline]
    pub(crate) fn client_flags(&self) -> u32 {
        if !self.has(flag::CLIENT_FLAGS) {
            return 0;
        }
        u32_at(self.bytes, HEADER_BYTES + FIELD_BYTES[(self.flags() & flag::EXPIRES) as usize])
    }

    #[inline]
    pub(crate) fn cas(&self) -> Option<u64> {
        self.has(flag::CAS).then(|| u64_at(self.bytes, cas_at(self.flags())))
    }

    pub(crate) fn fields(&self) -> Fields {
        Fields {
            marks: self.flags() & (flag::STALE | flag::WIN_SENT | flag::FETCHED | flag::BINARY_KEY),
            expires: self.expires(),
            client_flags: self.client_flags(),
            cas: self.cas(),
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        &self.bytes[self.head.key_at()..self.head.value_at()]
    }

    /// Bytes of the record itself, pieces not counted.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_large(&self) -> bool {
        self.head.is_large()
    }

    #[inline]
    pub(crate) fn value_len(&self) -> usize {
        if self.is_large() { u32_at(self.bytes, self.head.key_at() - 4) as usize } else { self.head.short() }
    }

    /// Offset of an inline value in the record.
    #[inline]
    pub(crate) fn value_at(&self) -> usize {
        debug_assert!(!self.is_large());
        self.head.value_at()
    }

    /// Locations of the pieces, in order; none for an inline value.
    pub(crate) fn pieces(&self) -> impl ExactSizeIterator<Item = Location> + use<'a> {
        let list: &'a [u8] =
            if self.is_large() { &self.bytes[self.head.value_at()..][..self.head.short() * 4] } else { &[] };
        list.chunks_exact(4).map(|at| Location(u32_at(at, 0)))
    }

    /// Number of pieces; 0 for an inline value.
    #[inline]
    pub(crate) fn piece_count(&self) -> usize {
        if self.is_large() { self.head.short() } else { 0 }
    }

    /// Location of one piece.
    pub(crate) fn piece(&self, ordinal: usize) -> Location {
        assert!(ordinal < self.piece_count());
        Location(u32_at(self.bytes, self.head.value_at() + ordinal * 4))
    }

    #[inline(always)] // two bounds and no call for a value in the record itself
    pub(crate) fn value(&self, arena: &'a Arena) -> Value<'a> {
        if !self.is_large() {
            return Value::whole(&self.bytes[self.head.value_at()..][..self.head.short()]);
        }
        self.value_in_pieces(arena)
    }

    #[inline(never)]
    fn value_in_pieces(&self, arena: &'a Arena) -> Value<'a> {
        let list = &self.bytes[self.head.value_at()..][..self.head.short() * 4];
        Value::in_pieces(arena, list, self.value_len())
    }

    /// Whether piece number `ordinal` of this item lies at `piece`.
    pub(crate) fn owns(&self, ordinal: usize, piece: Location) -> bool {
        ordinal < self.piece_count() && self.piece(ordinal) == piece
    }
}

/// Whether two keys of one length are equal. Of usual lengths without a call.
#[inline]
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    match one.len() {
        16..=32 => {
            one.first_chunk::<16>() == other.first_chunk() && one.last_chunk::<16>() == other.last_chunk()
        }
        8..16 => one.first_chunk::<8>() == other.first_chunk() && one.last_chunk::<8>() == other.last_chunk(),
        _ => one == other,
    }
}

fn cas_at(flags: u8) -> usize {
    HEADER_BYTES + FIELD_BYTES[(flags & (flag::EXPIRES | flag::CLIENT_FLAGS)) as usize]
}

/// Whether the item at `location` has this key. Touches nothing but header and key.
#[inline]
pub(crate) fn has_key(arena: &Arena, location: Location, key: &[u8]) -> bool {
    Head::read(arena, location).has_key(arena, location, key)
}

/// Overwrites the flags byte; the field flags must stay as they are.
#[inline]
pub(crate) fn set_flags(arena: &mut Arena, location: Location, flags: u8) {
    let byte = &mut arena.bytes_mut(location.at(), 2)[1];
    debug_assert!(*byte & 15 == flags & 15);
    *byte = flags;
}

/// Rewrites the expiry in place, `NEVER` too. False when the record has no room for it.
pub(crate) fn set_expires(arena: &mut Arena, location: Location, expires: u32) -> bool {
    let record = Record::read(arena, location);
    if record.has(flag::EXPIRES) {
        arena.bytes_mut(location.at() + HEADER_BYTES, 4).copy_from_slice(&expires.to_le_bytes());
        return true;
    }
    expires == record.expires()
}

/// Rewrites the cas unique in place. False when the record has no field for it.
pub(crate) fn set_cas(arena: &mut Arena, location: Location, cas: u64) -> bool {
    let flags = arena.bytes(location.at(), HEADER_BYTES)[1];
    if flags & flag::CAS != 0 {
        arena.bytes_mut(location.at() + cas_at(flags), 8).copy_from_slice(&cas.to_le_bytes());
    }
    flags & flag::CAS != 0
}

/// Header of a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Position among the pieces of its item.
    pub(crate) ordinal: usize,
    /// Bytes of content.
    pub(crate) len: usize,
    /// Of the item's key; meaningless before the item exists.
    pub(crate) hash: u64,
}

impl Piece {
    /// The piece at `location`, which must be one.
    pub(crate) fn read(arena: &Arena, location: Location) -> Piece {
        let header = arena.bytes(location.at(), PIECE_HEADER_BYTES);
        debug_assert!(header[0] == 0);
        Piece {
            ordinal: usize::from(u16::from_le_bytes([header[2], header[3]])),
            len: u32_at(header, 4) as usize,
            hash: u64_at(header, 8),
        }
    }

    /// Bytes of a piece record with `len` bytes of content.
    pub(crate) fn bytes(len: usize) -> usize {
        padded(PIECE_HEADER_BYTES + len)
    }

    /// Writes the header of a piece that belongs to no item yet.
    pub(crate) fn write(arena: &mut Arena, location: Location, len: usize) {
        let header = arena.bytes_mut(location.at(), PIECE_HEADER_BYTES);
        header.fill(0);
        header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    }

    /// The content of a piece.
    pub(crate) fn content(arena: &Arena, location: Location) -> &[u8] {
        let len = Piece::read(arena, location).len;
        arena.bytes(location.at() + PIECE_HEADER_BYTES, len)
    }
}

/// Room behind an item, kept for what is appended to it: dead bytes for everybody else.
pub(crate) struct Slack;

impl Slack {
    /// Second byte of the header; that of a piece is 0.
    const MARK: u8 = 1;
    /// Most bytes of slack, header included.
    pub(crate) const BYTES_MAX: usize = u16::MAX as usize * GRANULE;

    /// Bytes of slack at `location`, where a record begins; 0 if it is another kind.
    #[inline]
    pub(crate) fn bytes(arena: &Arena, location: Location) -> usize {
        match *arena.bytes(location.at(), HEADER_BYTES) {
            [0, Slack::MARK, low, high] => usize::from(u16::from_le_bytes([low, high])) * GRANULE,
            _ => 0,
        }
    }

    /// Makes slack of `bytes`, a multiple of the granule, not 0.
    pub(crate) fn write(arena: &mut Arena, location: Location, bytes: usize) {
        let [low, high] = granules(bytes);
        arena.bytes_mut(location.at(), HEADER_BYTES).copy_from_slice(&[0, Slack::MARK, low, high]);
    }
}

/// An item that is gone: whoever walks its segment need not ask the index for it.
pub(crate) struct Grave;

impl Grave {
    /// Second byte of the header.
    const MARK: u8 = 2;

    /// Makes a grave of an item of `bytes` whose value is inline.
    #[inline]
    pub(crate) fn write(arena: &mut Arena, location: Location, bytes: usize) {
        let [low, high] = granules(bytes);
        arena.bytes_mut(location.at(), HEADER_BYTES).copy_from_slice(&[0, Grave::MARK, low, high]);
    }
}

/// A length, a multiple of the granule, as slack and graves tell it.
#[inline]
fn granules(bytes: usize) -> [u8; 2] {
    assert!(bytes.is_multiple_of(GRANULE) && (GRANULE..=Slack::BYTES_MAX).contains(&bytes));
    ((bytes / GRANULE) as u16).to_le_bytes()
}

/// Points the large item at `head` at a piece that moved.
pub(crate) fn relink_piece(arena: &mut Arena, head: Location, ordinal: usize, piece: Location) {
    let list = Head::read(arena, head).value_at();
    arena.bytes_mut(head.at() + list + ordinal * 4, 4).copy_from_slice(&piece.0.to_le_bytes());
}

/// What lies at a location, for whoever walks a segment.
pub(crate) enum Met {
    Item,
    Piece(Piece),
    /// Slack or a grave.
    Nothing,
}

/// Kind of the record at `location` and its bytes.
#[inline]
pub(crate) fn meet(arena: &Arena, location: Location) -> (Met, usize) {
    match *arena.bytes(location.at(), HEADER_BYTES) {
        [0, Slack::MARK | Grave::MARK, low, high] => {
            (Met::Nothing, usize::from(u16::from_le_bytes([low, high])) * GRANULE)
        }
        [0, ..] => {
            let piece = Piece::read(arena, location);
            (Met::Piece(piece), Piece::bytes(piece.len))
        }
        _ => (Met::Item, Head::read(arena, location).bytes()),
    }
}

/// The stored form of an expiry, as clients of the crate see it.
pub(crate) fn seconds(expires: u32) -> Option<Seconds> {
    (expires != NEVER).then_some(Seconds(expires))
}
