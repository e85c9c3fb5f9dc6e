//! Replays a trace into the engine alone: its hit ratio with an exact amount of memory, in the time of the
//! trace.

use std::time::Instant;

use corecached_engine::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow, Stored};

use super::{Replay, ReplayCounts, ReplayReport};
use crate::load::Progress;
use crate::payload::put_key;
use crate::rng::mix;
use crate::{Failure, process};

/// Second at which the replay begins; any that leaves room for TTLs.
const START_S: u32 = 1_000_000;
/// Upkeep as in a server: the number of items examined, and the number of requests between two times.
const UPKEEP_ITEMS: usize = 64;
const UPKEEP_REQUESTS: usize = 64;
/// Seed of key hashes; any number.
const HASH_SEED: u64 = 42;

/// Replays into a store of `memory_bytes`.
pub(super) fn run(replay: &Replay, memory_bytes: usize) -> Result<ReplayReport, Failure> {
    let hasher = KeyHasher::new(HASH_SEED);
    let mut now = Seconds(START_S);
    let mut store = Store::new(StoreConfig::new(memory_bytes, hasher.clone()), now)
        .map_err(|error| Failure::new(error.to_string()))?;
    let progress = Progress::for_requests("replaying", replay.requests as u64);
    let mut counts = ReplayCounts::default();
    let mut bytes = Vec::new();
    let (began, cpu_began) = (Instant::now(), process::cpu_ns(std::process::id()));
    for (index, &id) in replay.trace.ids()[..replay.requests].iter().enumerate() {
        now.0 += u32::from(replay.trace.gap_s(index));
        if index.is_multiple_of(UPKEEP_REQUESTS) {
            store.maintain(now, UPKEEP_ITEMS);
        }
        if index.is_multiple_of(1 << 16) {
            progress.advance(index as u64, 1 << 16);
        }
        for copy in 0..replay.copies {
            let number = replay.number(id, copy);
            let (key_len, value_len) = replay.split(number);
            bytes.clear();
            put_key(&mut bytes, number, key_len);
            let key = Key { bytes: &bytes, hash: hasher.hash(&bytes) };
            let value = replay.values.unstamped(number, value_len);
            match store.get(key, now) {
                Some(item) => counts.wrong += u64::from(!is_same(item.value.parts(), value)),
                None => {
                    counts.misses += 1;
                    let ttl_s = replay.ttl.ttl_s(mix(u64::from(number)));
                    let expires = (ttl_s > 0).then_some(Seconds(now.0 + ttl_s));
                    let how = StoreHow { expires, ..StoreHow::default() };
                    let stored = store.store(key, value, &how, now);
                    counts.refused += u64::from(!matches!(stored, Stored::Stored { .. }));
                }
            }
        }
    }
    progress.done();
    let cpu_ns = process::cpu_ns(std::process::id()) - cpu_began;
    let target = format!("engine at {:.1} MiB", memory_bytes as f64 / f64::from(1 << 20));
    let mut report = replay.report(target, counts, began.elapsed().as_secs_f64());
    report.cpu_us = Some(cpu_ns as f64 / 1000.0 / replay.total().max(1) as f64);
    report.items = Some(store.stats().items);
    Ok(report)
}

fn is_same<'v>(parts: impl Iterator<Item = &'v [u8]>, mut value: &[u8]) -> bool {
    for part in parts {
        let Some(rest) = value.strip_prefix(part) else { return false };
        value = rest;
    }
    value.is_empty()
}
