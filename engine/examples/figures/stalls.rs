//! Slices: how long a single call, or sixteen in a row, keeps the core, in a store that grows, evicts, expires
//! and is flushed at the same time.
//!
//! The thread's CPU clock is read around every call, and the least of several identical runs is taken for each,
//! so what other processes and interrupts take is left out; what the kernel does for the store (page faults,
//! huge pages being cleared) is in. A helper thread has the kernel provide
//! memory ahead of the store, and take back what it gives up, as a server should.

use std::sync::mpsc::Sender;

use corecached_engine::{PageWork, Seconds, StoreHow};

use crate::support::{START, Subject, mix, name};

/// Counts of slices by length in nanoseconds: 16 steps per octave.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest_ns: u64,
}

impl Histogram {
    fn new() -> Histogram {
        Histogram { counts: vec![0; 64 * 16], total: 0, longest_ns: 0 }
    }

    fn add(&mut self, ns: u64) {
        let ns = ns.max(16);
        let octave = ns.ilog2();
        self.counts[(octave * 16 + (ns >> (octave - 4)) as u32 - 16) as usize] += 1;
        self.total += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    /// Microseconds below which this part of the slices lies.
    fn quantile_us(&self, part: f64) -> f64 {
        let mut left = (self.total as f64 * part) as u64;
        for (bin, &count) in self.counts.iter().enumerate() {
            if count > left {
                let (octave, step) = (bin / 16, bin % 16);
                return ((16 + step) as f64) * 2f64.powi(octave as i32 - 4) / 1e3;
            }
            left -= count;
        }
        self.longest_ns as f64 / 1e3
    }

    fn over(&self, us: u64) -> u64 {
        let limit = us * 1000;
        let octave = limit.ilog2();
        let bin = (octave * 16 + (limit >> (octave - 4)) as u32 - 16) as usize;
        self.counts[bin + 1..].iter().sum()
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} slices, median {:.2} us, p99 {:.2}, p99.9 {:.2}, p99.99 {:.2}, longest {:.1}; over 20 us: {}",
            self.total,
            self.quantile_us(0.5),
            self.quantile_us(0.99),
            self.quantile_us(0.999),
            self.quantile_us(0.9999),
            self.longest_ns as f64 / 1e3,
            self.over(20),
        );
    }
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Records per call of maintain: what a shard affords between batches.
const UPKEEP_ITEMS: usize = 64;

/// Times everything is repeated.
const REPEATS: usize = 5;

/// The shortest time of each slice over all repeats: whatever else the machine does hits other slices each time,
/// while what the store does is the same.
#[derive(Default)]
struct Slices {
    ns: Vec<u32>,
    next: usize,
}

impl Slices {
    fn add(&mut self, ns: u64) {
        let ns = u32::try_from(ns).unwrap_or(u32::MAX);
        match self.ns.get_mut(self.next) {
            Some(least) => *least = ns.min(*least),
            None => self.ns.push(ns),
        }
        self.next += 1;
    }

    fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::new();
        self.ns.iter().for_each(|&ns| histogram.add(u64::from(ns)));
        histogram
    }
}

/// Twice through: the first time all memory is new to the store, the second time it is not.
pub fn slices(mib: usize) {
    let mut rounds: [[Slices; 3]; 2] = Default::default();
    let (helped, work) = std::sync::mpsc::channel::<PageWork>();
    let helper = std::thread::spawn(move || work.iter().for_each(PageWork::carry_out));
    for _ in 0..REPEATS {
        let mut subject = Subject::new(mib << 20);
        for (round, kinds) in rounds.iter_mut().enumerate() {
            kinds.iter_mut().for_each(|slices| slices.next = 0);
            pass(&mut subject, mib, round as u32, kinds, &helped);
        }
    }
    drop(helped);
    helper.join().expect("the helper");
    for (round, kinds) in rounds.iter().enumerate() {
        println!("{mib} MiB, {}", ["memory touched for the first time", "memory touched before"][round]);
        for (slices, what) in kinds.iter().zip(["  store", "  get", "  maintain(64)"]) {
            slices.histogram().print(what);
        }
    }
}

/// Sets, gets and upkeep, with growth, eviction, expiry and a flush; then all of it flushed.
fn pass(
    subject: &mut Subject,
    mib: usize,
    round: u32,
    [sets, gets, upkeep]: &mut [Slices; 3],
    helped: &Sender<PageWork>,
) {
    let count = (mib << 20) as u64 / 100 * 2;
    let mut now = Seconds(START.0 + round * 100_000);
    for n in 0..count {
        let number = u64::from(round) << 40 | n;
        let size = mix(number) as usize;
        let life = [None, None, None, Some(5), Some(60), Some(600)][size % 6];
        let expires = life.map(|life| Seconds(now.0 + life));
        let value = &[7u8; 4096][..if size.is_multiple_of(64) { size % 4096 } else { size % 160 }];
        let own = name(number);
        let key = subject.key(&own);
        let begun = now_ns();
        subject.store.store(key, value, &StoreHow { expires, ..StoreHow::default() }, now);
        let stored = now_ns();
        let older = name(number - mix(n) % (n + 1));
        let key = subject.key(&older);
        let read_from = now_ns();
        std::hint::black_box(subject.store.get(key, now).is_some());
        gets.add(now_ns() - read_from);
        sets.add(stored - begun);
        if n % 16 == 0 {
            let begun = now_ns();
            subject.store.maintain(now, UPKEEP_ITEMS);
            upkeep.add(now_ns() - begun);
            if let Some(work) = subject.store.next_page_work() {
                helped.send(work).expect("the helper");
            }
        }
        now.0 += u32::from(n % 20_000 == 0);
        if n == count * 3 / 4 {
            subject.store.flush(now, now);
        }
    }
    let end = Seconds(START.0 + round * 100_000 + 99_000);
    subject.store.flush(end, end);
    while subject.store.maintain(end, 10_000) {}
}
