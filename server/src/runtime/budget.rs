//! Keeps the whole process within its memory limit: what buffers, connections and the binary itself take beside the
//! stores is taken off the stores.
//!
//! Runs on the control thread, once a second. Shards read the outcome, one number, when their clock moves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::metrics;
use crate::server::Shared;

const PERIOD: Duration = Duration::from_secs(1);
/// The process may be this fraction of the limit away from it before anything is changed.
const SLACK_FRACTION: usize = 100;
/// Stores keep at least this fraction of the limit, however much the rest takes.
const STORES_FRACTION_MIN: usize = 2;
/// Below this fill of the stores, in percent of the limit, there is nothing to look at.
const FILL_PERCENT_MIN: u64 = 85;

/// Watch until the server stops.
pub fn run(shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::Relaxed) {
        std::thread::sleep(PERIOD);
        let limit = shared.memory_bytes();
        let (_, stores) = metrics::sum(&shared.cells);
        let used = stores.arena_bytes + stores.index_bytes + stores.ghost_bytes;
        if used * 100 < limit as u64 * FILL_PERCENT_MIN {
            continue;
        }
        if let Some(resident) = resident_bytes() {
            let shards = shared.cells.len();
            let given = shared.slice_bytes.load(Ordering::Relaxed) * shards;
            shared.slice_bytes.store(adjust(limit, given, resident) / shards, Ordering::Relaxed);
        }
    }
}

/// Bytes for all stores together, when `given` made the process `resident` bytes large.
fn adjust(limit: usize, given: usize, resident: usize) -> usize {
    let slack = limit / SLACK_FRACTION;
    if resident > limit + slack / 2 {
        given.saturating_sub(resident - limit).max(limit / STORES_FRACTION_MIN)
    } else if resident + 2 * slack < limit {
        // What was freed may be wanted again at once: give back half.
        (given + (limit - resident) / 2).min(limit)
    } else {
        given
    }
}

/// Resident memory of this process, bytes.
pub(crate) fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_taken_beside_the_stores_is_taken_off_them() {
        assert_eq!(adjust(64 * MIB, 64 * MIB, 70 * MIB), 58 * MIB);
        assert_eq!(adjust(64 * MIB, 58 * MIB, 64 * MIB), 58 * MIB);
    }

    #[test]
    fn it_is_given_back_when_it_is_free_again() {
        assert_eq!(adjust(64 * MIB, 50 * MIB, 56 * MIB), 54 * MIB);
        assert_eq!(adjust(64 * MIB, 64 * MIB, 30 * MIB), 64 * MIB);
    }

    #[test]
    fn stores_keep_half_however_many_connections_there_are() {
        assert_eq!(adjust(64 * MIB, 64 * MIB, 500 * MIB), 32 * MIB);
    }

    #[test]
    fn this_process_is_resident() {
        assert!(resident_bytes().unwrap() > 100_000);
    }
}
