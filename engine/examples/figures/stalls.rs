//! Slices: how long a single call, or sixteen in a row, keeps the core, in a store that grows, evicts, expires
//! and is flushed at the same time.
//!
//! The thread's CPU clock is read around every call, so what other processes take is left out; what the kernel
//! does for the thread (page faults, huge pages being cleared) is in.

use corecached_engine::{Seconds, StoreHow};

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

/// Twice through: the first time all memory is new to the process, the second time it is not.
pub fn slices(mib: usize) {
    let mut subject = Subject::new(mib << 20);
    let sets = (mib << 20) as u64 / 100 * 2;
    for round in 0..2 {
        let (mut calls, mut upkeep) = (Histogram::new(), Histogram::new());
        let mut now = Seconds(START.0 + round * 100_000);
        for n in 0..sets {
            let number = u64::from(round) << 40 | n;
            let size = mix(number) as usize;
            let life = [None, None, None, Some(5), Some(60), Some(600)][size % 6];
            let expires = life.map(|life| Seconds(now.0 + life));
            let value = &[7u8; 4096][..if size.is_multiple_of(64) { size % 4096 } else { size % 160 }];
            let name = name(number);
            let key = subject.key(&name);
            let begun = now_ns();
            subject.store.store(key, value, &StoreHow { expires, ..StoreHow::default() }, now);
            let stored = now_ns();
            let older = crate::support::name(number - mix(n) % (n + 1));
            let key = subject.key(&older);
            std::hint::black_box(subject.store.get(key, now).is_some());
            let read = now_ns();
            calls.add(stored - begun);
            calls.add(read - stored);
            if n % 16 == 0 {
                let begun = now_ns();
                subject.store.maintain(now, UPKEEP_ITEMS);
                upkeep.add(now_ns() - begun);
            }
            now.0 += u32::from(n % 20_000 == 0);
            if n == sets * 3 / 4 {
                subject.store.flush(now, now);
            }
        }
        let stats = subject.store.stats();
        println!(
            "{mib} MiB, {}: {} sets, {} evictions, {} reclaimed, index {:.1} MiB",
            if round == 0 { "memory touched for the first time" } else { "memory touched before" },
            sets,
            stats.evictions,
            stats.reclaimed,
            stats.index_bytes as f64 / f64::from(1 << 20),
        );
        calls.print("  calls");
        upkeep.print("  maintain(64)");
        subject.store.flush(Seconds(START.0 + 99_000), Seconds(START.0 + 99_000));
        while subject.store.maintain(Seconds(START.0 + 99_000), 10_000) {}
    }
}
