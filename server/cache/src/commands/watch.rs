//! `watch`: clients that are sent a line for each event of the classes that they chose.
//!
//! While somebody watches, each shard writes the events of a turn to a [`WatchJournal`] of its own. At the
//! end of the turn the lines are copied to the queue of each watcher, from which the watcher's shard sends
//! them. Journals and queues are bounded. Lines past the bound are dropped and counted, and the watcher gets
//! a line `skipped=N` for those that its queue had no room for. While nobody watches, none of this is
//! touched.

use std::io::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use corecached_net::ConnId;

/// Most watchers at once, as in memcached.
const WATCHERS_MAX: usize = 20;
/// Bytes of lines after which the journal of a shard takes no more in this turn: the size of memcached's
/// buffer for a worker.
pub(crate) const JOURNAL_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of lines that wait for one watcher: the size of memcached's buffer for a watcher.
pub(crate) const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Classes of events, one bit each.
pub(crate) mod class {
    /// Lookups of a key, with those that come before a write.
    pub(crate) const FETCHERS: u32 = 1;
    /// Commands that store a value, whether or not it was stored.
    pub(crate) const MUTATIONS: u32 = 1 << 1;
    /// Items that were evicted.
    pub(crate) const EVICTIONS: u32 = 1 << 2;
    /// Connections that are opened or closed.
    pub(crate) const CONNEVENTS: u32 = 1 << 3;
    /// Items that were deleted.
    pub(crate) const DELETIONS: u32 = 1 << 4;
    /// Classes of parts of memcached that this server does not have. They have no events.
    pub(crate) const SILENT: u32 = 1 << 5;
}

/// The classes that `words` name, or [`class::FETCHERS`] when they name none. `None` when a word is no class.
pub(crate) fn parse_classes(words: &[u8]) -> Option<u32> {
    let words = words.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let named = words.map(|word| match word {
        b"fetchers" => Some(class::FETCHERS),
        b"mutations" => Some(class::MUTATIONS),
        b"evictions" => Some(class::EVICTIONS),
        b"connevents" => Some(class::CONNEVENTS),
        b"deletions" => Some(class::DELETIONS),
        b"sysevents" | b"rawcmds" | b"proxyreqs" | b"proxyevents" | b"proxyuser" => Some(class::SILENT),
        _ => None,
    });
    let classes = named.collect::<Option<Vec<u32>>>()?.into_iter().fold(0, |all, one| all | one);
    Some(if classes == 0 { class::FETCHERS } else { classes })
}

/// All watchers of the server.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// The classes that at least one of them watches.
    classes: AtomicU32,
    /// The number of the last line (`gid`), over all shards.
    last_gid: AtomicU64,
    list: Mutex<Vec<Watcher>>,
    pub(crate) counters: WatchCounters,
}

/// Counters of lines.
#[derive(Debug, Default)]
pub(crate) struct WatchCounters {
    /// Lines that were written to a journal.
    pub written: AtomicU64,
    /// Lines that a journal had no room for.
    pub dropped: AtomicU64,
    /// Lines that were added to the queue of a watcher.
    pub sent: AtomicU64,
    /// Lines that the queue of a watcher had no room for.
    pub skipped: AtomicU64,
}

/// One connection that watches.
#[derive(Debug)]
struct Watcher {
    shard: usize,
    conn: ConnId,
    classes: u32,
    /// Lines that have not been sent, at most [`QUEUE_BYTES_MAX`] bytes.
    queue: Vec<u8>,
    /// Lines that the queue had no room for since the last one that it had room for.
    skipped: u64,
}

/// The lines of one turn of one shard.
#[derive(Debug, Default)]
pub(crate) struct WatchJournal {
    bytes: Vec<u8>,
    /// For each line its class, and where it ends in `bytes`.
    lines: Vec<(u32, usize)>,
    dropped: u64,
}

impl WatchJournal {
    /// Whether there is nothing to publish.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }

    /// Adds a line of this class. `write` appends its text, which comes after the time and the number.
    pub(crate) fn add_line(&mut self, class: u32, watchers: &Watchers, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.len() > JOURNAL_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let gid = watchers.last_gid.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = write!(self.bytes, "ts={}.{:06} gid={gid} ", now.as_secs(), now.subsec_micros());
        write(&mut self.bytes);
        self.bytes.push(b'\n');
        self.lines.push((class, self.bytes.len()));
    }

    /// Counts lines that were dropped before they came to this journal.
    pub(crate) fn count_dropped(&mut self, count: u64) {
        self.dropped += count;
    }
}

impl Watchers {
    /// The classes that at least one watcher watches.
    #[inline]
    pub(crate) fn classes(&self) -> u32 {
        self.classes.load(Ordering::Relaxed)
    }

    /// Number of watchers.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Has connection `conn` of `shard` watch these classes. False when too many watch already.
    pub(crate) fn add(&self, shard: usize, conn: ConnId, classes: u32) -> bool {
        let mut watchers = self.lock();
        if watchers.len() >= WATCHERS_MAX {
            return false;
        }
        watchers.push(Watcher { shard, conn, classes, queue: Vec::new(), skipped: 0 });
        self.classes.fetch_or(classes, Ordering::Relaxed);
        true
    }

    /// Connection `conn` of `shard` watches no more.
    pub(crate) fn remove(&self, shard: usize, conn: ConnId) {
        let mut watchers = self.lock();
        watchers.retain(|watcher| (watcher.shard, watcher.conn) != (shard, conn));
        let classes = watchers.iter().fold(0, |all, watcher| all | watcher.classes);
        self.classes.store(classes, Ordering::Relaxed);
    }

    /// Copies the lines of a turn to the queues of the watchers of their class, and empties the journal.
    /// Calls `wake` with the shard of each watcher whose queue was empty before.
    pub(crate) fn publish(&self, journal: &mut WatchJournal, mut wake: impl FnMut(usize)) {
        for watcher in self.lock().iter_mut() {
            let was_empty = watcher.queue.is_empty();
            let (mut start, mut sent) = (0, 0);
            for &(class, end) in &journal.lines {
                let line = &journal.bytes[start..end];
                start = end;
                if watcher.classes & class == 0 {
                    continue;
                }
                if watcher.queue.len() + line.len() > QUEUE_BYTES_MAX {
                    watcher.skipped += 1;
                    self.counters.skipped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                if watcher.skipped > 0 {
                    let _ = writeln!(watcher.queue, "skipped={}", std::mem::take(&mut watcher.skipped));
                }
                watcher.queue.extend_from_slice(line);
                sent += 1;
            }
            self.counters.sent.fetch_add(sent, Ordering::Relaxed);
            if was_empty && !watcher.queue.is_empty() {
                wake(watcher.shard);
            }
        }
        self.counters.written.fetch_add(journal.lines.len() as u64, Ordering::Relaxed);
        self.counters.dropped.fetch_add(std::mem::take(&mut journal.dropped), Ordering::Relaxed);
        journal.lines.clear();
        journal.bytes.clear();
    }

    /// Moves the lines that wait for connection `conn` of `shard` to `out`.
    pub(crate) fn take(&self, shard: usize, conn: ConnId, out: &mut Vec<u8>) {
        let mut watchers = self.lock();
        let watcher = watchers.iter_mut().find(|watcher| (watcher.shard, watcher.conn) == (shard, conn));
        if let Some(watcher) = watcher {
            out.append(&mut watcher.queue);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { index: 1, generation: 1 };

    fn taken(watchers: &Watchers) -> String {
        let mut out = Vec::new();
        watchers.take(0, CONN, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_past_the_bounds_are_counted_and_named() {
        let (watchers, mut journal) = (Watchers::default(), WatchJournal::default());
        assert!(watchers.add(0, CONN, class::FETCHERS));
        let mut woken = 0;
        for turn in 0..6 {
            for _ in 0..2000 {
                journal.add_line(class::FETCHERS, &watchers, |out| out.extend_from_slice(&[b'x'; 60]));
                journal.add_line(class::MUTATIONS, &watchers, |_| ());
            }
            watchers.publish(&mut journal, |_| woken += 1);
            assert!(journal.is_empty() && journal.bytes.capacity() < 2 * JOURNAL_BYTES_MAX, "turn {turn}");
        }
        assert_eq!(woken, 1, "a watcher with lines is awake");
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (written, dropped) = (load(&watchers.counters.written), load(&watchers.counters.dropped));
        assert!(written > 0 && dropped > 0 && written + dropped == 6 * 4000);
        let first = taken(&watchers);
        assert!(first.len() <= QUEUE_BYTES_MAX && !first.contains("skipped="));
        let skipped = load(&watchers.counters.skipped);
        assert!(skipped > 0 && first.lines().count() as u64 == load(&watchers.counters.sent));
        journal.add_line(class::FETCHERS, &watchers, |out| out.extend_from_slice(b"type=x"));
        watchers.publish(&mut journal, |_| ());
        let second = taken(&watchers);
        assert!(
            second.starts_with(&format!("skipped={skipped}\nts=")) && second.ends_with(" type=x\n"),
            "{second}"
        );
    }

    #[test]
    fn twenty_may_watch_and_nothing_is_watched_after_the_last() {
        let watchers = Watchers::default();
        let conn = |index| ConnId { index, generation: 1 };
        assert!((0..20).all(|index| watchers.add(0, conn(index), class::EVICTIONS)));
        assert!(!watchers.add(1, conn(0), class::FETCHERS));
        assert_eq!(watchers.classes(), class::EVICTIONS);
        (0..20).for_each(|index| watchers.remove(0, conn(index)));
        assert_eq!((watchers.classes(), watchers.count()), (0, 0));
    }

    #[test]
    fn classes_are_known_by_name() {
        assert_eq!(parse_classes(b""), Some(class::FETCHERS));
        assert_eq!(parse_classes(b"mutations  evictions"), Some(class::MUTATIONS | class::EVICTIONS));
        assert_eq!(parse_classes(b"fetchers bogus"), None);
        assert_eq!(parse_classes(b"proxyreqs sysevents"), Some(class::SILENT));
    }
}
