//! The record: how an item, or a piece of a large one, lies in a segment.
//!
//! ```text
//! item    key_len u8 | flags u8 | value_len u16 | expires u32? | client_flags u32? | cas u64?
//!         | total_len u32 (large) | key | value, or piece locations u32 x value_len (large) | pad to 4
//! piece   0 u8 | 0 u8 | ordinal u16 | len u32 | key hash u64 | bytes | pad to 4
//! slack   0 u8 | 1 u8 | granules u16 | room for the item before it to grow
//! grave   0 u8 | 2 u8 | granules u16 | rest of an item that was removed
//! ```
//!
//! Numbers are little endian. An optional field (`?`) is present when its flag is set; an item with none of
//! them takes 4 bytes more than key and value. The value of a large item lies in pieces anywhere in the
//! arena. A piece holds the hash of the item's key, so that a scan that comes to it can find the item. Slack
//! and graves are dead bytes that give their length, so that a scan can step over them.

use crate::arena::Arena;
use crate::clock::NEVER;
use crate::key::KEY_BYTES_MAX;

/// Records start at multiples of this many bytes, and their lengths are multiples of it.
pub(crate) const GRANULE: usize = 4;
/// Bytes of the header of an item, slack or a grave.
const HEADER_BYTES: usize = 4;
/// Longest value in the record itself: its length is 16 bits.
pub(crate) const INLINE_VALUE_MAX: usize = u16::MAX as usize;
/// Bytes before the content of a piece.
pub(crate) const PIECE_HEADER_BYTES: usize = 16;

const _: () = assert!(KEY_BYTES_MAX < u8::MAX as usize);
const _: () = assert!(HEADER_BYTES.is_multiple_of(GRANULE) && PIECE_HEADER_BYTES.is_multiple_of(GRANULE));

/// Bits of the flags byte.
pub(crate) mod flag {
    /// The record has an expiry.
    pub(crate) const EXPIRES: u8 = 1;
    /// The record has client flags, which are not 0.
    pub(crate) const CLIENT_FLAGS: u8 = 2;
    /// The record has a cas unique.
    pub(crate) const CAS: u8 = 4;
    /// The value lies in pieces.
    pub(crate) const LARGE: u8 = 8;
    /// The value was invalidated; it is served until it is refilled.
    pub(crate) const STALE: u8 = 16;
    /// A reader was told to refill the value (it won the lease).
    pub(crate) const WIN_SENT: u8 = 32;
    /// The item was read since it was stored.
    pub(crate) const FETCHED: u8 = 64;
    /// The client gave the key in base64.
    pub(crate) const BINARY_KEY: u8 = 128;
}

/// The flags that say which optional fields a record has. They change only when the record is written again.
const FIELD_FLAGS: u8 = flag::EXPIRES | flag::CLIENT_FLAGS | flag::CAS | flag::LARGE;
const _: () = assert!(FIELD_FLAGS == 15); // they index `FIELD_BYTES`

/// Bytes of optional fields for each combination of [`FIELD_FLAGS`].
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

/// Where a record starts: its arena offset in granules of 4 bytes, so that 32 bits reach 16 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Location(pub(crate) u32);

impl Location {
    #[inline]
    pub(crate) fn from_offset(offset: usize) -> Location {
        debug_assert!(offset.is_multiple_of(GRANULE));
        Location((offset / GRANULE) as u32)
    }

    /// The granule that contains arena offset `offset`: a value may start at an offset that is not a multiple
    /// of 4.
    pub(crate) fn containing(offset: usize) -> Location {
        Location((offset / GRANULE) as u32)
    }

    /// Arena offset, bytes.
    #[inline]
    pub(crate) fn offset(self) -> usize {
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

/// The contents of a record except key and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    /// The flags other than [`FIELD_FLAGS`]: `STALE`, `WIN_SENT`, `FETCHED`, `BINARY_KEY`.
    pub(crate) marks: u8,
    /// Second of expiry, or [`NEVER`].
    pub(crate) expires: u32,
    pub(crate) client_flags: u32,
    /// `None` if no unique was handed out yet.
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

    /// Bytes of a record that contains its value.
    #[inline]
    pub(crate) fn inline_bytes(&self, key_len: usize, value_len: usize) -> usize {
        padded(HEADER_BYTES + FIELD_BYTES[(self.flags() & FIELD_FLAGS) as usize] + key_len + value_len)
    }

    /// Bytes of a record with its value in this many pieces.
    pub(crate) fn large_bytes(&self, key_len: usize, pieces: usize) -> usize {
        self.inline_bytes(key_len, 4 + pieces * 4)
    }

    /// Writes header, fields and key; returns the arena offset of what follows the key. `short` is the
    /// header's 16-bit number.
    #[inline]
    fn write(&self, arena: &mut Arena, location: Location, key: &[u8], flags: u8, short: u16) -> usize {
        debug_assert!((1..=KEY_BYTES_MAX).contains(&key.len())); // a first byte of 0 would not be an item
        debug_assert!(self.marks & FIELD_FLAGS == 0);
        let fields = FIELD_BYTES[(flags & FIELD_FLAGS) as usize];
        let bytes = arena.bytes_mut(location.offset(), HEADER_BYTES + fields + key.len());
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
        location.offset() + HEADER_BYTES + fields + key.len()
    }

    /// Writes a record that will contain its value, except the value; returns the arena offset where that
    /// goes.
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

    /// Writes the record of an item with a value of `total_len` bytes in `pieces`, and writes ordinal and
    /// key hash into the header of each piece.
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
            let header = arena.bytes_mut(piece.offset(), PIECE_HEADER_BYTES);
            header[2..4].copy_from_slice(&(ordinal as u16).to_le_bytes());
            header[8..16].copy_from_slice(&hash.to_le_bytes());
        }
    }
}

/// A copy of an item's header, from which the offsets of all fields of its record follow.
#[derive(Clone, Copy, Default)]
pub(crate) struct ItemHeader([u8; HEADER_BYTES]);

impl ItemHeader {
    /// The header of the item at `location`, where an item (not a piece, slack or a grave) must be.
    #[inline]
    pub(crate) fn read(arena: &Arena, location: Location) -> ItemHeader {
        let bytes = arena.bytes(location.offset(), HEADER_BYTES);
        ItemHeader([bytes[0], bytes[1], bytes[2], bytes[3]])
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

    /// Whether the record has no optional fields.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.flags() & (flag::EXPIRES | flag::CLIENT_FLAGS | flag::CAS | flag::LARGE) == 0
    }

    /// The value of the item with this header, which [is plain](Self::is_plain), at `location`.
    #[inline]
    pub(crate) fn plain_value(self, arena: &Arena, location: Location) -> &[u8] {
        debug_assert!(self.is_plain());
        arena.bytes(location.offset() + HEADER_BYTES + self.key_len(), self.short())
    }

    /// Length of the value, or number of pieces of a large one.
    #[inline]
    fn short(self) -> usize {
        usize::from(u16::from_le_bytes([self.0[2], self.0[3]]))
    }

    /// The header of the same item with a value longer by `more`. `None` if that is too long to be in the
    /// record.
    pub(crate) fn longer(self, more: usize) -> Option<ItemHeader> {
        let len = self.short().checked_add(more).filter(|&len| len <= INLINE_VALUE_MAX)?;
        let [low, high] = (len as u16).to_le_bytes();
        (!self.is_large()).then_some(ItemHeader([self.0[0], self.0[1], low, high]))
    }

    /// Appends `more` to the value of the item with this header at `location`, and marks the item as
    /// never read. The caller has made room for it after the value.
    pub(crate) fn append(self, arena: &mut Arena, location: Location, more: &[u8]) {
        let end = location.offset() + self.value_at() + self.short();
        arena.bytes_mut(end, more.len()).copy_from_slice(more);
        let mut longer = self.longer(more.len()).expect("the caller has checked `longer`").0;
        longer[1] &= !(flag::STALE | flag::WIN_SENT | flag::FETCHED);
        arena.bytes_mut(location.offset(), HEADER_BYTES).copy_from_slice(&longer);
    }

    /// Offset of the key in the record.
    #[inline]
    fn key_at(self) -> usize {
        HEADER_BYTES + FIELD_BYTES[(self.flags() & FIELD_FLAGS) as usize]
    }

    /// Offset of the value or the piece list.
    #[inline]
    fn value_at(self) -> usize {
        self.key_at() + self.key_len()
    }

    /// Bytes of the record, without pieces.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        padded(self.value_at() + if self.is_large() { self.short() * 4 } else { self.short() })
    }

    /// Whether the item with this header at `location` has this key. Reads only the key.
    #[inline]
    pub(crate) fn has_key(self, arena: &Arena, location: Location, key: &[u8]) -> bool {
        self.key_len() == key.len()
            && are_equal(arena.bytes(location.offset() + self.key_at(), key.len()), key)
    }

    /// The second in which the item with this header at `location` expires, or [`NEVER`].
    #[inline]
    pub(crate) fn expires(self, arena: &Arena, location: Location) -> u32 {
        if self.flags() & flag::EXPIRES == 0 {
            return NEVER;
        }
        u32_at(arena.bytes(location.offset() + HEADER_BYTES, 4), 0)
    }

    /// The cas unique of the item with this header at `location`, if it has one.
    #[inline]
    pub(crate) fn cas(self, arena: &Arena, location: Location) -> Option<u64> {
        let has_one = self.flags() & flag::CAS != 0;
        has_one.then(|| u64_at(arena.bytes(location.offset() + cas_at(self.flags()), 8), 0))
    }
}

/// The record of an item, borrowed from the arena.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    /// The whole record, from the header to the padding.
    bytes: &'a [u8],
    header: ItemHeader,
}

impl<'a> Record<'a> {
    /// The record at `location`, where an item (not a piece, slack or a grave) must be.
    #[inline]
    pub(crate) fn read(arena: &'a Arena, location: Location) -> Record<'a> {
        Record::with_header(arena, location, ItemHeader::read(arena, location))
    }

    /// The record at `location`, with its header, which was read before.
    #[inline]
    pub(crate) fn with_header(arena: &'a Arena, location: Location, header: ItemHeader) -> Record<'a> {
        let bytes = arena.bytes(location.offset(), header.bytes());
        debug_assert!(bytes[0] != 0 && bytes[2..4] == header.0[2..4]);
        Record { bytes, header }
    }

    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        self.header.flags()
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
        &self.bytes[self.header.key_at()..self.header.value_at()]
    }

    /// Bytes of the record itself, without pieces.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_large(&self) -> bool {
        self.header.is_large()
    }

    #[inline]
    pub(crate) fn value_len(&self) -> usize {
        if self.is_large() {
            u32_at(self.bytes, self.header.key_at() - 4) as usize
        } else {
            self.header.short()
        }
    }

    /// Offset of the value in a record that contains it.
    #[inline]
    pub(crate) fn value_at(&self) -> usize {
        debug_assert!(!self.is_large());
        self.header.value_at()
    }

    /// Locations of the pieces, in order; none if the record contains the value.
    pub(crate) fn pieces(&self) -> impl ExactSizeIterator<Item = Location> + use<'a> {
        let list: &'a [u8] = if self.is_large() {
            &self.bytes[self.header.value_at()..][..self.header.short() * 4]
        } else {
            &[]
        };
        list.chunks_exact(4).map(|at| Location(u32_at(at, 0)))
    }

    /// Number of pieces; 0 if the record contains the value.
    #[inline]
    pub(crate) fn piece_count(&self) -> usize {
        if self.is_large() { self.header.short() } else { 0 }
    }

    /// Location of piece number `ordinal`.
    pub(crate) fn piece(&self, ordinal: usize) -> Location {
        assert!(ordinal < self.piece_count());
        Location(u32_at(self.bytes, self.header.value_at() + ordinal * 4))
    }

    /// The bytes after the key: the value, or of a value in pieces the list of their locations, 4 bytes each.
    #[inline(always)] // two bounds checks and no call for a value in the record
    pub(crate) fn after_key(&self) -> &'a [u8] {
        let len = self.header.short() * if self.is_large() { 4 } else { 1 };
        &self.bytes[self.header.value_at()..][..len]
    }

    /// Whether piece number `ordinal` of this item is at `piece`.
    pub(crate) fn owns(&self, ordinal: usize, piece: Location) -> bool {
        ordinal < self.piece_count() && self.piece(ordinal) == piece
    }
}

/// Whether two keys of equal length are equal. Compares usual lengths without a call to `memcmp`.
#[inline]
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    debug_assert_eq!(one.len(), other.len());
    match one.len() {
        16..=32 => {
            one.first_chunk::<16>() == other.first_chunk() && one.last_chunk::<16>() == other.last_chunk()
        }
        8..16 => one.first_chunk::<8>() == other.first_chunk() && one.last_chunk::<8>() == other.last_chunk(),
        _ => one == other,
    }
}

/// Offset of the cas unique in a record with these flags.
fn cas_at(flags: u8) -> usize {
    HEADER_BYTES + FIELD_BYTES[(flags & (flag::EXPIRES | flag::CLIENT_FLAGS)) as usize]
}

/// Whether the item at `location` has this key. Reads only header and key.
#[inline]
pub(crate) fn has_key(arena: &Arena, location: Location, key: &[u8]) -> bool {
    ItemHeader::read(arena, location).has_key(arena, location, key)
}

/// Overwrites the flags byte. [`FIELD_FLAGS`] must stay as they are, since the layout of the record follows
/// from them.
#[inline]
pub(crate) fn set_flags(arena: &mut Arena, location: Location, flags: u8) {
    let byte = &mut arena.bytes_mut(location.offset(), 2)[1];
    debug_assert!(*byte & FIELD_FLAGS == flags & FIELD_FLAGS);
    *byte = flags;
}

/// Sets the expiry in place; it may be [`NEVER`]. False if the record has no field for it.
pub(crate) fn set_expires(arena: &mut Arena, location: Location, expires: u32) -> bool {
    let record = Record::read(arena, location);
    if record.has(flag::EXPIRES) {
        arena.bytes_mut(location.offset() + HEADER_BYTES, 4).copy_from_slice(&expires.to_le_bytes());
        return true;
    }
    expires == record.expires()
}

/// Sets the cas unique in place. False if the record has no field for it.
pub(crate) fn set_cas(arena: &mut Arena, location: Location, cas: u64) -> bool {
    let flags = arena.bytes(location.offset(), HEADER_BYTES)[1];
    if flags & flag::CAS != 0 {
        arena.bytes_mut(location.offset() + cas_at(flags), 8).copy_from_slice(&cas.to_le_bytes());
    }
    flags & flag::CAS != 0
}

/// The header of a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Position among the pieces of its item.
    pub(crate) ordinal: usize,
    /// Bytes of content.
    pub(crate) len: usize,
    /// Hash of the item's key; 0 before the item is written.
    pub(crate) hash: u64,
}

impl Piece {
    /// The header at `location`, where a piece must be.
    pub(crate) fn read(arena: &Arena, location: Location) -> Piece {
        let header = arena.bytes(location.offset(), PIECE_HEADER_BYTES);
        debug_assert!(header[0] == 0);
        Piece {
            ordinal: usize::from(u16::from_le_bytes([header[2], header[3]])),
            len: u32_at(header, 4) as usize,
            hash: u64_at(header, 8),
        }
    }

    /// Bytes of the record of a piece with `len` bytes of content.
    pub(crate) fn bytes(len: usize) -> usize {
        padded(PIECE_HEADER_BYTES + len)
    }

    /// Writes the header of a piece of `len` bytes that belongs to no item yet.
    pub(crate) fn write(arena: &mut Arena, location: Location, len: usize) {
        let header = arena.bytes_mut(location.offset(), PIECE_HEADER_BYTES);
        header.fill(0);
        header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    }

    /// The part of the value in the piece at `location`.
    pub(crate) fn content(arena: &Arena, location: Location) -> &[u8] {
        let len = Piece::read(arena, location).len;
        arena.bytes(location.offset() + PIECE_HEADER_BYTES, len)
    }
}

/// Free room after an item, kept for bytes that clients append to it. Not part of any record: it counts as
/// dead.
pub(crate) struct Slack;

impl Slack {
    /// Second byte of the header; that of a piece is 0.
    const MARK: u8 = 1;
    /// Most bytes of slack, header included.
    pub(crate) const BYTES_MAX: usize = u16::MAX as usize * GRANULE;

    /// Bytes of slack at `location`, where a record must start; 0 if that is of another kind.
    #[inline]
    pub(crate) fn bytes(arena: &Arena, location: Location) -> usize {
        match *arena.bytes(location.offset(), HEADER_BYTES) {
            [0, Slack::MARK, low, high] => usize::from(u16::from_le_bytes([low, high])) * GRANULE,
            _ => 0,
        }
    }

    /// Marks `bytes` bytes, a multiple of the granule and not 0, as slack.
    pub(crate) fn write(arena: &mut Arena, location: Location, bytes: usize) {
        let [low, high] = granules(bytes);
        arena.bytes_mut(location.offset(), HEADER_BYTES).copy_from_slice(&[0, Slack::MARK, low, high]);
    }
}

/// The mark over an item that was removed. A scan of the segment steps over it without a look in the index.
pub(crate) struct Grave;

impl Grave {
    /// Second byte of the header.
    const MARK: u8 = 2;

    /// Marks a record of `bytes` bytes, which contains its value, as a grave.
    #[inline]
    pub(crate) fn write(arena: &mut Arena, location: Location, bytes: usize) {
        let [low, high] = granules(bytes);
        arena.bytes_mut(location.offset(), HEADER_BYTES).copy_from_slice(&[0, Grave::MARK, low, high]);
    }
}

/// A length in bytes, a multiple of the granule, in the form that slack and graves store.
#[inline]
fn granules(bytes: usize) -> [u8; 2] {
    assert!(bytes.is_multiple_of(GRANULE) && (GRANULE..=Slack::BYTES_MAX).contains(&bytes));
    ((bytes / GRANULE) as u16).to_le_bytes()
}

/// Stores the new location of a piece in the list of the large item at `head`.
pub(crate) fn relink_piece(arena: &mut Arena, head: Location, ordinal: usize, piece: Location) {
    let header = ItemHeader::read(arena, head);
    assert!(header.is_large() && ordinal < header.short()); // past the list is another record
    let list = header.value_at();
    arena.bytes_mut(head.offset() + list + ordinal * 4, 4).copy_from_slice(&piece.0.to_le_bytes());
}

/// The kind of a record, for scans of a segment.
pub(crate) enum RecordKind {
    Item,
    Piece(Piece),
    /// Slack or a grave: nothing that is in use.
    Dead,
}

/// Whether an item is at `location`, where a record must start.
pub(crate) fn is_item(arena: &Arena, location: Location) -> bool {
    arena.bytes(location.offset(), HEADER_BYTES)[0] != 0
}

/// The kind of the record at `location`, where a record must start, and its length in bytes.
#[inline]
pub(crate) fn kind_and_bytes(arena: &Arena, location: Location) -> (RecordKind, usize) {
    match *arena.bytes(location.offset(), HEADER_BYTES) {
        [0, Slack::MARK | Grave::MARK, low, high] => {
            (RecordKind::Dead, usize::from(u16::from_le_bytes([low, high])) * GRANULE)
        }
        [0, ..] => {
            let piece = Piece::read(arena, location);
            (RecordKind::Piece(piece), Piece::bytes(piece.len))
        }
        _ => (RecordKind::Item, ItemHeader::read(arena, location).bytes()),
    }
}
