//! The versions of each key that a read may return.
//!
//! A read must not return a version older than the newest write that was answered before the read was sent.
//! Writes of one key that were pending at the same time may take effect in any order, so they do not raise
//! this floor; the next write that is pending alone does.

use crate::payload::Stamp;

/// The writes of a run to each key.
#[derive(Debug)]
pub(super) struct Versions {
    run: u32,
    first_key: u32,
    keys: Vec<Writes>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Writes {
    /// Version of the last write that was sent; 0: none.
    sent: u32,
    /// Oldest version that a read sent now may return; 0: any.
    floor: u32,
    /// Number of writes that are not answered yet.
    under_way: u16,
    /// Whether two of them were pending at the same time.
    met: bool,
}

/// How the version of a value that was read compares with what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// The read may return this version.
    Right,
    /// This version had been overwritten before the read was sent.
    Stale,
    /// This version was never written.
    Unwritten,
}

impl Versions {
    /// Starts a run with number `run` that has written no key yet.
    #[must_use]
    pub(super) fn new(run: u32, first_key: u32, keys: u32) -> Self {
        Self { run, first_key, keys: vec![Writes::default(); keys as usize] }
    }

    fn writes(&mut self, id: u32) -> &mut Writes {
        &mut self.keys[(id - self.first_key) as usize]
    }

    /// Records that a write of this key is about to be sent, and returns its version.
    pub(super) fn sending(&mut self, id: u32) -> u32 {
        let writes = self.writes(id);
        writes.met |= writes.under_way > 0;
        writes.under_way += 1;
        writes.sent += 1;
        writes.sent
    }

    /// Records the reply to a write. A write that is never answered leaves the floor as it was.
    pub(super) fn answered(&mut self, id: u32, version: u32, stored: bool) {
        let writes = self.writes(id);
        writes.under_way -= 1;
        if stored && !writes.met {
            writes.floor = version;
        }
        writes.met &= writes.under_way > 0;
    }

    /// Returns the oldest version that a read sent now may return.
    pub(super) fn floor(&mut self, id: u32) -> u32 {
        self.writes(id).floor
    }

    /// Judges the stamp of a value that a read returned. `floor` is that of the time when the read was sent.
    pub(super) fn judge(&mut self, stamp: Stamp, floor: u32) -> Age {
        if stamp.run != self.run {
            return if floor == 0 { Age::Right } else { Age::Stale };
        }
        match stamp.version {
            version if version > self.writes(stamp.id).sent => Age::Unwritten,
            version if version < floor => Age::Stale,
            _ => Age::Right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 9;

    fn judge(versions: &mut Versions, run: u32, version: u32, floor: u32) -> Age {
        versions.judge(Stamp { id: 5, run, version }, floor)
    }

    #[test]
    fn an_answered_write_makes_older_values_stale() {
        let mut versions = Versions::new(RUN, 5, 1);
        assert_eq!(judge(&mut versions, 3, 44, 0), Age::Right, "an earlier run's, before any write");
        let first = versions.sending(5);
        assert_eq!(judge(&mut versions, RUN, first, 0), Age::Right, "under way");
        assert_eq!(versions.floor(5), 0);
        versions.answered(5, first, true);
        let floor = versions.floor(5);
        assert_eq!(judge(&mut versions, RUN, first, floor), Age::Right);
        assert_eq!(judge(&mut versions, RUN, 0, floor), Age::Stale);
        assert_eq!(judge(&mut versions, 3, 44, floor), Age::Stale, "an earlier run's, after a write");
        assert_eq!(judge(&mut versions, RUN, first + 1, floor), Age::Unwritten);
    }

    #[test]
    fn writes_that_met_may_end_in_either_order() {
        let mut versions = Versions::new(RUN, 5, 1);
        let (one, other) = (versions.sending(5), versions.sending(5));
        versions.answered(5, other, true);
        versions.answered(5, one, true);
        let floor = versions.floor(5);
        assert_eq!(judge(&mut versions, RUN, one, floor), Age::Right);
        assert_eq!(judge(&mut versions, RUN, other, floor), Age::Right);
        let third = versions.sending(5);
        versions.answered(5, third, true);
        let floor = versions.floor(5);
        assert_eq!(judge(&mut versions, RUN, other, floor), Age::Stale);
    }

    #[test]
    fn a_refused_write_is_not_awaited() {
        let mut versions = Versions::new(RUN, 5, 1);
        let first = versions.sending(5);
        versions.answered(5, first, true);
        let second = versions.sending(5);
        versions.answered(5, second, false);
        let floor = versions.floor(5);
        assert_eq!(judge(&mut versions, RUN, first, floor), Age::Right);
    }
}
