//! Keeps the whole process within its memory limit. Buffers, connections and the binary itself take memory
//! beside the stores, and the stores get so much less.
//!
//! Runs on a thread of its own, once a second. The result is one number in [`Memory`], which the shards read
//! once a second. At the start the stores get what the process is expected to leave them.

use std::time::Duration;

use corecached_shard::ServerContext;
use corecached_shard::counters;
use corecached_shard::process::resident_bytes;

use crate::memory::{Memory, STORES_FRACTION_MIN};

const PERIOD: Duration = Duration::from_secs(1);
/// The aim for resident memory is the limit plus the limit divided by this. As much again remains for memory
/// that is taken and freed between two looks.
const OVER_FRACTION: usize = 100;
/// Nothing changes while the process is above the aim by less than the limit divided by this, or below it by
/// less than twice that.
const SLACK_FRACTION: usize = 400;
/// Bytes that the process is expected to grow by when its shards start. With io_uring it grows by about as
/// much, and later by more; with epoll by less. [`run`] corrects the rest once the stores fill.
const SHARDS_BYTES: usize = 5 << 19;
/// How full the stores must be before their memory is lowered, in percent of what they are given.
const FILL_PERCENT_TO_LOWER: u64 = 85;
/// How full the stores must be before their memory is raised, in percent. Below it the process is small only
/// because they are not full yet.
const FILL_PERCENT_TO_RAISE: u64 = 98;

/// Adjusts the memory of the stores until the server stops.
pub fn run(memory: &Memory, server: &ServerContext) {
    while !server.lifecycle.is_stopping() {
        std::thread::sleep(PERIOD);
        let given = memory.stores_bytes();
        let (_, stores) = counters::sum(&server.cells);
        let used = stores.arena_bytes + stores.index_bytes + stores.ghost_bytes;
        let fill_percent = used * 100 / given.max(1) as u64;
        if fill_percent >= FILL_PERCENT_TO_LOWER
            && let Some(resident) = resident_bytes()
        {
            memory.set_stores_bytes(adjust(memory.limit_bytes(), given, fill_percent, resident));
        }
    }
}

/// Bytes for all stores together under this limit in bytes, before any shard has started.
#[must_use]
pub fn initial_stores_bytes(limit: usize) -> usize {
    stores_bytes_beside(limit, resident_bytes().unwrap_or(0) + SHARDS_BYTES)
}

/// Bytes for all stores together, of a process that takes `resident` bytes without them.
fn stores_bytes_beside(limit: usize, resident: usize) -> usize {
    (limit + limit / OVER_FRACTION).saturating_sub(resident).clamp(limit / STORES_FRACTION_MIN, limit)
}

/// The new bytes for all stores together. They have `given` bytes, are so full, and the process takes
/// `resident` bytes.
fn adjust(limit: usize, given: usize, fill_percent: u64, resident: usize) -> usize {
    let (aim, slack) = (limit + limit / OVER_FRACTION, limit / SLACK_FRACTION);
    if resident > aim + slack {
        given.saturating_sub(resident - aim).max(limit / STORES_FRACTION_MIN)
    } else if fill_percent >= FILL_PERCENT_TO_RAISE && resident + 2 * slack < aim {
        // Memory that was just freed may soon be needed again, so the stores get half of it back.
        (given + (aim - resident) / 2).min(limit)
    } else {
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_taken_beside_the_stores_is_taken_off_them() {
        assert_eq!(stores_bytes_beside(100 * MIB, 9 * MIB), 92 * MIB);
        assert_eq!(adjust(100 * MIB, 92 * MIB, 90, 107 * MIB), 86 * MIB);
        assert_eq!(adjust(100 * MIB, 86 * MIB, 99, 101 * MIB), 86 * MIB);
    }

    #[test]
    fn it_is_given_back_when_it_is_free_again() {
        assert_eq!(adjust(100 * MIB, 80 * MIB, 99, 91 * MIB), 85 * MIB);
        assert_eq!(adjust(100 * MIB, 100 * MIB, 99, 30 * MIB), 100 * MIB);
        assert_eq!(stores_bytes_beside(1000 * MIB, 9 * MIB), 1000 * MIB);
    }

    #[test]
    fn stores_that_are_not_full_yet_are_no_reason_to_give_them_more() {
        assert_eq!(adjust(100 * MIB, 92 * MIB, 90, 91 * MIB), 92 * MIB);
    }

    #[test]
    fn stores_keep_half_however_much_the_rest_takes() {
        assert_eq!(adjust(64 * MIB, 64 * MIB, 99, 500 * MIB), 32 * MIB);
        assert_eq!(stores_bytes_beside(8 * MIB, 9 * MIB), 4 * MIB);
    }
}
