//! `watch`: what happens, line by line, to clients that asked for it.
//!
//! A shard writes what it sees in a turn to a [`Journal`] of its own, if somebody watches; at the end of the turn the
//! lines go to each watcher's queue, from where the watcher's shard sends them. Journal and queues have bounds: what is
//! over is counted and, to the watcher, named in a line `skipped=N`. While nobody watches, none of this is touched.

use std::io::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use corecached_net::ConnId;

/// Watchers at once, as in memcached.
const WATCHERS_MAX: usize = 20;
/// Bytes of lines a shard keeps in one turn: memcached's buffer of a worker.
pub const JOURNAL_BYTES_MAX: usize = 64 * 1024;
/// Bytes of lines kept for one watcher: memcached's buffer of a watcher.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Classes of lines, a bit each.
pub mod class {
    /// Reads, and looks before a write.
    pub const FETCHERS: u32 = 1;
    /// Values stored, or not.
    pub const MUTATIONS: u32 = 1 << 1;
    /// Items dropped to make room.
    pub const EVICTIONS: u32 = 1 << 2;
    /// Connections that come and go.
    pub const CONNEVENTS: u32 = 1 << 3;
    /// Items deleted.
    pub const DELETIONS: u32 = 1 << 4;
    /// Of machinery that does not exist here: nothing is ever said of these.
    pub const SILENT: u32 = 1 << 5;
}

/// The classes that `words` name; `None` when one is none.
#[must_use]
pub fn classes(words: &[u8]) -> Option<u32> {
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

/// Who watches, and what.
#[derive(Debug, Default)]
pub struct Watch {
    /// What any of them watches.
    classes: AtomicU32,
    gid: AtomicU64,
    watchers: Mutex<Vec<Watcher>>,
    /// See [`Counts`].
    pub counts: Counts,
}

/// What became of lines.
#[derive(Debug, Default)]
pub struct Counts {
    /// Written to a journal.
    pub written: AtomicU64,
    /// Not written for want of room in a journal.
    pub dropped: AtomicU64,
    /// Given to a watcher.
    pub sent: AtomicU64,
    /// Not given to one for want of room in its queue.
    pub skipped: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    shard: usize,
    conn: ConnId,
    classes: u32,
    lines: Vec<u8>,
    skipped: u64,
}

/// Lines of one shard's turn.
#[derive(Debug, Default)]
pub struct Journal {
    bytes: Vec<u8>,
    /// Class and end of each line.
    lines: Vec<(u32, usize)>,
    dropped: u64,
}

impl Journal {
    /// Whether there is nothing to publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }

    /// Add a line of this class; `write` appends what stands behind the time and the number.
    pub fn line(&mut self, class: u32, watch: &Watch, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.len() > JOURNAL_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let gid = watch.gid.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = write!(self.bytes, "ts={}.{:06} gid={gid} ", now.as_secs(), now.subsec_micros());
        write(&mut self.bytes);
        self.bytes.push(b'\n');
        self.lines.push((class, self.bytes.len()));
    }

    /// So many lines could not even be made.
    pub fn drop_lines(&mut self, count: u64) {
        self.dropped += count;
    }
}

impl Watch {
    /// What anybody watches.
    #[inline]
    pub fn watched(&self) -> u32 {
        self.classes.load(Ordering::Relaxed)
    }

    /// Watchers now.
    pub fn watchers(&self) -> usize {
        self.lock().len()
    }

    /// Have `conn` of `shard` watch these classes; false when too many watch already.
    pub fn add(&self, shard: usize, conn: ConnId, classes: u32) -> bool {
        let mut watchers = self.lock();
        if watchers.len() >= WATCHERS_MAX {
            return false;
        }
        watchers.push(Watcher { shard, conn, classes, lines: Vec::new(), skipped: 0 });
        self.classes.fetch_or(classes, Ordering::Relaxed);
        true
    }

    /// It watches no more.
    pub fn remove(&self, shard: usize, conn: ConnId) {
        let mut watchers = self.lock();
        watchers.retain(|watcher| (watcher.shard, watcher.conn) != (shard, conn));
        let classes = watchers.iter().fold(0, |all, watcher| all | watcher.classes);
        self.classes.store(classes, Ordering::Relaxed);
    }

    /// Give the lines of a turn to whom they are for; `wake` is called with the shards of watchers that had none.
    pub fn publish(&self, journal: &mut Journal, mut wake: impl FnMut(usize)) {
        for watcher in self.lock().iter_mut() {
            let had_none = watcher.lines.is_empty();
            let (mut start, mut sent) = (0, 0);
            for &(class, end) in &journal.lines {
                let line = &journal.bytes[start..end];
                start = end;
                if watcher.classes & class == 0 {
                    continue;
                }
                if watcher.lines.len() + line.len() > QUEUE_BYTES_MAX {
                    watcher.skipped += 1;
                    self.counts.skipped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                if watcher.skipped > 0 {
                    let _ = writeln!(watcher.lines, "skipped={}", std::mem::take(&mut watcher.skipped));
                }
                watcher.lines.extend_from_slice(line);
                sent += 1;
            }
            self.counts.sent.fetch_add(sent, Ordering::Relaxed);
            if had_none && !watcher.lines.is_empty() {
                wake(watcher.shard);
            }
        }
        self.counts.written.fetch_add(journal.lines.len() as u64, Ordering::Relaxed);
        self.counts.dropped.fetch_add(std::mem::take(&mut journal.dropped), Ordering::Relaxed);
        journal.lines.clear();
        journal.bytes.clear();
    }

    /// Append what waits for a watcher to `out`.
    pub fn take(&self, shard: usize, conn: ConnId, out: &mut Vec<u8>) {
        let mut watchers = self.lock();
        let watcher = watchers.iter_mut().find(|watcher| (watcher.shard, watcher.conn) == (shard, conn));
        if let Some(watcher) = watcher {
            out.append(&mut watcher.lines);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { index: 1, generation: 1 };

    fn taken(watch: &Watch) -> String {
        let mut out = Vec::new();
        watch.take(0, CONN, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_past_the_bounds_are_counted_and_named() {
        let (watch, mut journal) = (Watch::default(), Journal::default());
        assert!(watch.add(0, CONN, class::FETCHERS));
        let mut woken = 0;
        for turn in 0..6 {
            for _ in 0..2000 {
                journal.line(class::FETCHERS, &watch, |out| out.extend_from_slice(&[b'x'; 60]));
                journal.line(class::MUTATIONS, &watch, |_| ());
            }
            watch.publish(&mut journal, |_| woken += 1);
            assert!(journal.is_empty() && journal.bytes.capacity() < 2 * JOURNAL_BYTES_MAX, "turn {turn}");
        }
        assert_eq!(woken, 1, "whoever has lines is awake");
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (written, dropped) = (load(&watch.counts.written), load(&watch.counts.dropped));
        assert!(written > 0 && dropped > 0 && written + dropped == 6 * 4000);
        let first = taken(&watch);
        assert!(first.len() <= QUEUE_BYTES_MAX && !first.contains("skipped="));
        let skipped = load(&watch.counts.skipped);
        assert!(skipped > 0 && first.lines().count() as u64 == load(&watch.counts.sent));
        journal.line(class::FETCHERS, &watch, |out| out.extend_from_slice(b"type=x"));
        watch.publish(&mut journal, |_| ());
        let second = taken(&watch);
        assert!(
            second.starts_with(&format!("skipped={skipped}\nts=")) && second.ends_with(" type=x\n"),
            "{second}"
        );
    }

    #[test]
    fn twenty_may_watch_and_the_last_to_go_ends_it() {
        let watch = Watch::default();
        let conn = |index| ConnId { index, generation: 1 };
        assert!((0..20).all(|index| watch.add(0, conn(index), class::EVICTIONS)));
        assert!(!watch.add(1, conn(0), class::FETCHERS));
        assert_eq!(watch.watched(), class::EVICTIONS);
        (0..20).for_each(|index| watch.remove(0, conn(index)));
        assert_eq!((watch.watched(), watch.watchers()), (0, 0));
    }

    #[test]
    fn classes_are_known_by_name() {
        assert_eq!(classes(b""), Some(class::FETCHERS));
        assert_eq!(classes(b"mutations  evictions"), Some(class::MUTATIONS | class::EVICTIONS));
        assert_eq!(classes(b"fetchers bogus"), None);
        assert_eq!(classes(b"proxyreqs sysevents"), Some(class::SILENT));
    }
}
