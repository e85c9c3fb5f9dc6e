//! Keeps the whole process within its memory limit: what buffers, connections and the binary itself take beside the
//! stores is taken off the stores.
//!
//! Runs on the control thread, once a second; what stores begin with makes room for the process as it will be. Shards
//! read the outcome, one number, when their clock moves.

use std::time::Duration;

use corecached_shard::ServerContext;
use corecached_shard::counters;
use corecached_shard::process::resident_bytes;

use crate::memory::Memory;

const PERIOD: Duration = Duration::from_secs(1);
/// Resident memory aimed at is the limit and this fraction of it. As much again is left for what comes and goes between
/// two looks.
const OVER_FRACTION: usize = 100;
/// The process may be this fraction of the limit beyond what is aimed at, or twice that below, before anything changes.
const SLACK_FRACTION: usize = 400;
/// What the process grows by until it serves: 5.5 MiB of it were resident before its shards started, 8 after.
const SHARDS_BYTES: usize = 5 << 19;
/// Stores keep at least this fraction of the limit, however much the rest takes.
const STORES_FRACTION_MIN: usize = 2;
/// Fill of the stores, in percent of what they are given, from which they may have to give some of it up.
const FILL_TO_LOWER: u64 = 85;
/// And from which they could use more: before, the process is small because they are not full yet.
const FILL_TO_RAISE: u64 = 98;

/// Watch until the server stops.
pub fn run(memory: &Memory, server: &ServerContext) {
    while !server.lifecycle.is_stopping() {
        std::thread::sleep(PERIOD);
        let given = memory.stores_bytes();
        let (_, stores) = counters::sum(&server.cells);
        let used = stores.arena_bytes + stores.index_bytes + stores.ghost_bytes;
        let fill_percent = used * 100 / given.max(1) as u64;
        if fill_percent >= FILL_TO_LOWER
            && let Some(resident) = resident_bytes()
        {
            memory.give_stores(adjust(memory.limit_bytes(), given, fill_percent, resident));
        }
    }
}

/// Bytes for all stores together, before any shard has started.
#[must_use]
pub fn given_at_first(limit: usize) -> usize {
    beside(limit, resident_bytes().unwrap_or(0) + SHARDS_BYTES)
}

/// Bytes for all stores together, of a process that is `resident` bytes large without them.
fn beside(limit: usize, resident: usize) -> usize {
    (limit + limit / OVER_FRACTION).saturating_sub(resident).clamp(limit / STORES_FRACTION_MIN, limit)
}

/// Bytes for all stores together, when `given`, so full, made the process `resident` bytes large.
fn adjust(limit: usize, given: usize, fill_percent: u64, resident: usize) -> usize {
    let (aim, slack) = (limit + limit / OVER_FRACTION, limit / SLACK_FRACTION);
    if resident > aim + slack {
        given.saturating_sub(resident - aim).max(limit / STORES_FRACTION_MIN)
    } else if fill_percent >= FILL_TO_RAISE && resident + 2 * slack < aim {
        // What was freed may be wanted again at once: give back half.
        (given + (aim - resident) / 2).min(limit)
    } else {
        given
    }
}

/// Bytes for all stores together under another limit, until the next look.
pub(crate) fn carry_over(limit: usize, given: usize, new_limit: usize) -> usize {
    new_limit.saturating_sub(limit.saturating_sub(given)).max(new_limit / STORES_FRACTION_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_taken_beside_the_stores_is_taken_off_them() {
        assert_eq!(beside(100 * MIB, 9 * MIB), 92 * MIB);
        assert_eq!(adjust(100 * MIB, 92 * MIB, 90, 107 * MIB), 86 * MIB);
        assert_eq!(adjust(100 * MIB, 86 * MIB, 99, 101 * MIB), 86 * MIB);
        assert_eq!(carry_over(100 * MIB, 86 * MIB, 200 * MIB), 186 * MIB);
    }

    #[test]
    fn it_is_given_back_when_it_is_free_again() {
        assert_eq!(adjust(100 * MIB, 80 * MIB, 99, 91 * MIB), 85 * MIB);
        assert_eq!(adjust(100 * MIB, 100 * MIB, 99, 30 * MIB), 100 * MIB);
        assert_eq!(beside(1000 * MIB, 9 * MIB), 1000 * MIB);
    }

    #[test]
    fn stores_that_are_not_full_yet_are_no_reason_to_give_them_more() {
        assert_eq!(adjust(100 * MIB, 92 * MIB, 90, 91 * MIB), 92 * MIB);
    }

    #[test]
    fn stores_keep_half_however_much_the_rest_takes() {
        assert_eq!(adjust(64 * MIB, 64 * MIB, 99, 500 * MIB), 32 * MIB);
        assert_eq!(beside(8 * MIB, 9 * MIB), 4 * MIB);
        assert_eq!(carry_over(64 * MIB, 40 * MIB, 16 * MIB), 8 * MIB);
    }
}
