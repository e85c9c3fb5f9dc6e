//! The user data of an operation, which its completion repeats: the kind of the operation, and what it
//! belongs to.
//!
//! The top byte holds the kind. Operations on a connection have the low bits of its generation in bits 32..56
//! and the index of its slot in bits 0..32; other operations have a number in the low bits.

use crate::driver::ConnId;

/// Its completion is of no interest.
pub(super) const IGNORED: u64 = 0;
/// The low bits are the index of the listener.
pub(super) const ACCEPT: u64 = 1 << 56;
pub(super) const RECEIVE: u64 = 2 << 56;
/// A send from the arena. The low bits are its index among those of the turn.
pub(super) const ARENA_SEND: u64 = 3 << 56;
pub(super) const OUTBOX_SEND: u64 = 4 << 56;
pub(super) const WAKE_POLL: u64 = 5 << 56;
/// A message from another shard's ring: the completion itself is the wake-up.
pub(super) const MESSAGE: u64 = 6 << 56;
pub(super) const CONNECT: u64 = 7 << 56;

const KIND_MASK: u64 = 0xff << 56;
const GENERATION_MASK: u32 = 0xff_ffff;

/// User data of an operation of this kind on a connection.
pub(super) fn for_conn(kind: u64, conn: ConnId) -> u64 {
    debug_assert_eq!(kind & !KIND_MASK, 0);
    kind | u64::from(conn.generation & GENERATION_MASK) << 32 | u64::from(conn.index)
}

/// The kind of the operation.
pub(super) const fn kind(data: u64) -> u64 {
    data & KIND_MASK
}

/// The number of an operation that is not on a connection.
pub(super) const fn number(data: u64) -> usize {
    (data & !KIND_MASK) as usize
}

/// The slot of the connection that an operation is on.
pub(super) const fn slot_index(data: u64) -> u32 {
    data as u32
}

/// Whether the operation may be on a connection of this generation: the low bits are the same.
pub(super) const fn is_of_generation(data: u64, generation: u32) -> bool {
    (data >> 32) as u32 & GENERATION_MASK == generation & GENERATION_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_names_its_operation_and_its_connection() {
        let conn = ConnId { index: 0xffff_fffe, generation: 0xab00_0001 };
        let data = for_conn(OUTBOX_SEND, conn);
        assert_eq!((kind(data), slot_index(data)), (OUTBOX_SEND, conn.index));
        assert!(is_of_generation(data, conn.generation));
        assert!(!is_of_generation(data, conn.generation + 1));
        assert_eq!(number(ARENA_SEND | 1023), 1023);
    }
}
