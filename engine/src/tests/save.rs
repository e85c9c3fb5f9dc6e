//! Save and restore of all items, from one store to another.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::model::Choices;
use super::random::Seeded;
use super::support::Bench;
use crate::{Carried, Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};

type Contents = BTreeMap<Vec<u8>, (Carried, Vec<u8>)>;

fn saved(store: &Store, now: Seconds) -> Vec<(Vec<u8>, Carried, Vec<u8>)> {
    let mut all = Vec::new();
    let outcome: Result<(), Infallible> = store.save(now, |key, carried, value| {
        let mut bytes = Vec::new();
        value.copy_to(&mut bytes);
        all.push((key.to_vec(), *carried, bytes));
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
    all
}

fn contents(store: &Store, now: Seconds) -> Contents {
    let all = saved(store, now);
    let count = all.len();
    let contents: Contents = all.into_iter().map(|(key, carried, value)| (key, (carried, value))).collect();
    assert_eq!(contents.len(), count, "a key was saved twice");
    contents
}

/// Another store with the items of `from`, which has another hasher.
fn carry(from: &Store, now: Seconds, memory_bytes: usize) -> (Store, KeyHasher) {
    let hasher = KeyHasher::new(7);
    let mut store = Store::new(StoreConfig::new(memory_bytes, hasher.clone()), now).unwrap();
    for (key, carried, value) in saved(from, now) {
        let key = Key { bytes: &key, hash: hasher.hash(&key) };
        assert!(store.restore(key, &carried, &value, now));
    }
    store.check_invariants();
    (store, hasher)
}

#[test]
fn what_is_restored_is_what_was_saved() {
    let mut bench = Bench::new(8 << 20);
    let mut random = Seeded::new(3);
    for number in 0..6000 {
        let key = format!("key{}", random.below(3000));
        let len = match random.below(40) {
            0 => random.below(200_000),
            1..6 => random.below(5000),
            _ => random.below(200),
        };
        let value = vec![number as u8; len as usize];
        let how = StoreHow {
            client_flags: random.below(3),
            expires: (random.below(2) == 0).then(|| Seconds(bench.now.0 + 1 + random.below(200))),
            with_cas: random.below(2) == 0,
            binary_key: random.below(9) == 0,
            ..StoreHow::default()
        };
        bench.store_how(&key, &value, how);
        bench.get(&format!("key{}", random.below(3000)));
    }
    bench.now.0 += 100;
    let before = contents(&bench.store, bench.now);
    let is_live = |number: &u32| {
        let key = format!("key{number}");
        bench.store.peek(bench.key(key.as_bytes()), bench.now).is_some()
    };
    assert_eq!(before.len(), (0..3000).filter(is_live).count());
    assert!(before.values().any(|(carried, _)| carried.kept && carried.frequency > 0));
    assert!(before.values().any(|(_, value)| value.len() > 100_000));
    let (after, hasher) = carry(&bench.store, bench.now, 16 << 20);
    assert_eq!(contents(&after, bench.now), before);
    for (key, (carried, value)) in &before {
        let item = after.peek(Key { bytes: key, hash: hasher.hash(key) }, bench.now).unwrap();
        let mut bytes = Vec::new();
        item.value.copy_to(&mut bytes);
        assert_eq!((&bytes, item.client_flags, item.expires), (value, carried.client_flags, carried.expires));
    }
}

#[test]
fn what_is_dead_is_not_carried() {
    let mut bench = Bench::new(1 << 20);
    bench.set("flushed", b"v");
    bench.store.flush(bench.now, bench.now);
    bench.now.0 += 1;
    bench.set("lives", b"v");
    bench.set_for("expires", b"v", 10);
    assert_eq!(contents(&bench.store, bench.now).len(), 2);
    bench.now.0 += 10;
    let keys: Vec<Vec<u8>> = contents(&bench.store, bench.now).into_keys().collect();
    assert_eq!(keys, [b"lives".to_vec()]);
    let hasher = KeyHasher::new(1);
    let mut other = Store::new(StoreConfig::new(1 << 20, hasher.clone()), bench.now).unwrap();
    let key = Key { bytes: b"k", hash: hasher.hash(b"k") };
    let gone = Carried { expires: Some(bench.now), ..Carried::default() };
    assert!(!other.restore(key, &gone, b"v", bench.now));
    assert!(!other.restore(key, &Carried::default(), &vec![0; 1 << 20], bench.now));
    assert!(other.restore(key, &Carried::default(), b"v", bench.now));
    assert!(!other.restore(key, &Carried::default(), b"again", bench.now), "it is there already");
    bench.store.flush(Seconds(bench.now.0 + 5), bench.now);
    assert_eq!(bench.store.pending_flush(), Some(Seconds(bench.now.0 + 5)));
}

#[test]
fn uniques_go_on_rising() {
    let mut bench = Bench::new(1 << 20);
    for number in 0..50 {
        bench.set(&format!("k{number}"), b"v");
        bench.cas(&format!("k{number}"));
    }
    let shown = bench.cas("k7").unwrap();
    let (mut after, hasher) = carry(&bench.store, bench.now, 1 << 20);
    after.raise_cas(bench.store.cas_next() - 1);
    let key = Key { bytes: b"k7", hash: hasher.hash(b"k7") };
    assert_eq!(after.get_with_cas(key, bench.now).unwrap().cas, shown);
    after.store(key, b"w", &StoreHow::default(), bench.now);
    assert!(after.get_with_cas(key, bench.now).unwrap().cas >= bench.store.cas_next());
}

#[test]
fn a_smaller_store_keeps_what_was_to_be_dropped_last() {
    let mut bench = Bench::new(8 << 20);
    for number in 0..50_000 {
        bench.set(&format!("{number}"), &[0; 100]);
    }
    bench.settle();
    let before = saved(&bench.store, bench.now);
    let (after, _) = {
        let hasher = KeyHasher::new(7);
        let mut store = Store::new(StoreConfig::new(2 << 20, hasher.clone()), bench.now).unwrap();
        for (key, carried, value) in &before {
            assert!(store.restore(Key { bytes: key, hash: hasher.hash(key) }, carried, value, bench.now));
        }
        (store, hasher)
    };
    after.check_invariants();
    let kept = contents(&after, bench.now);
    let last = &before[before.len() - kept.len() / 2..];
    assert!(kept.len() > 8000 && kept.len() < before.len(), "{} of {}", kept.len(), before.len());
    assert!(last.iter().all(|(key, ..)| kept.contains_key(key)));
}
