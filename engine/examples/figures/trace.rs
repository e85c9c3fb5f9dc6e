//! Replay of a trace: get, and set what was missed.
//!
//! CTR1, little endian: "CTR1", u32 version, u64 requests, u64 objects, u32 bytes of key and value an object,
//! u32 object a request, u8 seconds since the request before.

use std::collections::hash_map::HashMap;

use corecached_engine::StoreHow;

use crate::support::{START, Subject, cpu_s, mix, resident};

struct Trace {
    /// Bytes of key and value, per object.
    bytes: Vec<u32>,
    /// Objects, in order of request.
    requests: Vec<u32>,
}

impl Trace {
    fn read(file: &str) -> Trace {
        let content = std::fs::read(file).expect("a readable trace");
        assert_eq!(&content[..4], b"CTR1");
        let count = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().expect("8 bytes")) as usize;
        let (requests, objects) = (count(8), count(16));
        let numbers = |at: usize, count: usize| -> Vec<u32> {
            let words = content[at..at + 4 * count].chunks_exact(4);
            words.map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes"))).collect()
        };
        Trace { bytes: numbers(24, objects), requests: numbers(24 + 4 * objects, requests) }
    }

    /// Objects in order of request, each asked for in every copy.
    fn interleaved(&self, copies: usize) -> impl Iterator<Item = (u32, usize)> {
        self.requests.iter().flat_map(move |&id| (0..copies).map(move |copy| (id, copy)))
    }
}

/// The key of object `id` of copy `copy`: 20 bytes, fewer where the object is smaller.
fn name(id: u32, copy: usize, object_bytes: u32, name: &mut [u8; 20]) -> usize {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let bits = mix(u64::from(id) + 1);
    name[0] = b'a' + (id % 16) as u8 + 16 * copy as u8;
    for place in 1..8 {
        name[place] = DIGITS[(id >> (5 * (place - 1))) as usize & 31];
    }
    for place in 8..20 {
        name[place] = DIGITS[(bits >> (place * 3)) as usize & 31];
    }
    20.min((object_bytes as usize).saturating_sub(2).max(8))
}

/// Miss ratios at limits in MiB, of so many copies of the trace with keys of their own, interleaved.
pub fn bytes(file: &str, mib: &[usize], copies: usize) {
    assert!((1..=8).contains(&copies));
    let trace = Trace::read(file);
    let value = vec![7; 1 << 20];
    for &mib in mib {
        let before = resident();
        let mut subject = Subject::new(mib << 20);
        let (mut misses, mut written) = (0u64, 0u64);
        let mut key = [0; 20];
        let start = cpu_s();
        for (id, copy) in trace.interleaved(copies) {
            let object_bytes = trace.bytes[id as usize];
            let len = name(id, copy, object_bytes, &mut key);
            let key = subject.key(&key[..len]);
            if subject.store.get(key, START).is_none() {
                misses += 1;
                let value = &value[..(object_bytes as usize).saturating_sub(len)];
                subject.store.store(key, value, &StoreHow::default(), START);
                written += u64::from(object_bytes);
            }
        }
        let requests = (trace.requests.len() * copies) as f64;
        let ns = (cpu_s() - start) * 1e9 / requests;
        let rss = resident() - before;
        let stats = subject.store.stats();
        println!(
            "{mib} MiB, {copies} copies: miss {:.4}, {} items of {:.0} bytes, index {:.2} bytes an item, moved {:.2} \
             times what was written, {ns:.0} ns a request, resident {:.2} % of the limit, admission {:.1} %",
            misses as f64 / requests,
            stats.items,
            stats.bytes as f64 / stats.items as f64,
            stats.index_bytes as f64 / stats.items as f64,
            stats.moved_bytes as f64 / written as f64,
            rss as f64 * 100.0 / (mib << 20) as f64,
            subject.store.admission_permille() as f64 / 10.0,
        );
    }
}

/// Bytes of an item where all are equal: eight to a segment of 64 KiB.
const UNIT_BYTES: usize = 8192;

/// Miss ratios where every object is of one size and the store holds a percentage of them, beside that of LRU of as many
/// items; of so many copies of the trace, interleaved. The limit is set so that the store holds that many items on average.
pub fn units(file: &str, percent: &[usize], copies: usize) {
    assert!((1..=8).contains(&copies));
    let trace = Trace::read(file);
    for &percent in percent {
        let capacity = trace.bytes.len() * copies * percent / 100;
        let mut limit = capacity * UNIT_BYTES * 21 / 20;
        let (mut misses, mut held, mut permille) = (0, 0.0, 0);
        for _ in 0..6 {
            (misses, held, permille) = replay_units(&trace, copies, limit);
            if (held / capacity as f64 - 1.0).abs() < 0.003 {
                break;
            }
            limit = (limit as f64 + (capacity as f64 - held) * UNIT_BYTES as f64) as usize;
        }
        let requests = (trace.requests.len() * copies) as f64;
        println!(
            "{percent} % of the objects, {copies} copies, {capacity} items ({held:.0} held on average): miss {:.4}, LRU {:.4}, admission {:.1} %",
            misses as f64 / requests,
            lru_misses(&trace, copies, capacity) as f64 / requests,
            permille as f64 / 10.0,
        );
    }
}

fn replay_units(trace: &Trace, copies: usize, limit: usize) -> (u64, f64, usize) {
    let mut subject = Subject::new(limit.max(1 << 20));
    let value = vec![7; UNIT_BYTES - 24];
    let (mut misses, mut samples, mut sum) = (0, 0, 0);
    let mut key = [0; 20];
    for (number, (id, copy)) in trace.interleaved(copies).enumerate() {
        let len = name(id, copy, 100, &mut key);
        let key = subject.key(&key[..len]);
        if subject.store.get(key, START).is_none() {
            misses += 1;
            subject.store.store(key, &value, &StoreHow::default(), START);
        }
        if number % 64 == 0 && subject.store.stats().evictions > 0 {
            samples += 1;
            sum += subject.store.stats().items;
        }
    }
    (misses, sum as f64 / f64::from(samples.max(1)), subject.store.admission_permille())
}

/// Misses of a list in order of use.
fn lru_misses(trace: &Trace, copies: usize, capacity: usize) -> u64 {
    let mut at: HashMap<(u32, usize), u64> = HashMap::new();
    let mut order = std::collections::BTreeMap::new();
    let mut misses = 0;
    for (now, id) in (0u64..).zip(trace.interleaved(copies)) {
        match at.insert(id, now) {
            Some(before) => drop(order.remove(&before)),
            None => misses += 1,
        }
        order.insert(now, id);
        if order.len() > capacity
            && let Some((_, oldest)) = order.pop_first()
        {
            at.remove(&oldest);
        }
    }
    misses
}
