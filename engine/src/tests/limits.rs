//! The memory limit, and what happens when it is reached.

use super::support::{Bench, stored};
use crate::{KeyHasher, Seconds, Store, StoreConfig, Stored};

#[test]
fn a_bad_setting_is_named_with_its_remedy() {
    let check = |adjust: fn(&mut StoreConfig), key: &str| {
        let mut config = StoreConfig::new(8 << 20, KeyHasher::new(1));
        adjust(&mut config);
        let error = Store::new(config, Seconds(1)).err().unwrap();
        assert_eq!(error.key, key);
        assert!(error.to_string().starts_with(key) && !error.remedy.is_empty());
    };
    check(|config| config.memory_bytes = 1000, "memory_bytes");
    check(|config| config.memory_bytes = 17 << 30, "memory_bytes");
    check(|config| config.value_bytes_max = 5 << 20, "value_bytes_max");
    check(|config| config.value_bytes_max = 0, "value_bytes_max");
    check(|config| config.policy.admission_percent = 0, "policy.admission_percent");
}

#[test]
fn a_store_that_may_not_evict_refuses_when_full_and_takes_again_after_deletes() {
    let mut bench = Bench::with(1 << 20, |config| config.evict = false);
    let mut held = 0;
    while stored(bench.set(&format!("k:{held}"), &[1; 100])) {
        held += 1;
    }
    assert!(held > 5_000, "{held}");
    assert_eq!(bench.set("more", &[1; 100]), Stored::NoMemory);
    assert!((0..held).all(|n| bench.get(&format!("k:{n}")).is_some()));
    for n in (0..held).step_by(2) {
        let name = format!("k:{n}");
        let key = bench.key(name.as_bytes());
        bench.store.delete(key, &Default::default(), bench.now);
    }
    // Half of each segment is dead, so that only compaction can make room.
    let mut more = 0;
    while stored(bench.set(&format!("m:{more}"), &[1; 100])) {
        more += 1;
    }
    assert!(more > held / 4, "{more} of {held}");
    assert!((1..held).step_by(2).all(|n| bench.get(&format!("k:{n}")).is_some()));
    assert_eq!(bench.store.stats().evictions, 0);
    bench.store.check_invariants();
}

#[test]
fn values_overwritten_for_ever_stay_within_a_few_times_their_size() {
    for (values, value_bytes) in [(40_000, 100), (64, 64 << 10)] {
        let mut bench = Bench::new(64 << 20);
        let mut random = 7u64;
        let mut written = 0;
        while written < 200 << 20 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 33) % values;
            assert!(stored(bench.set(&format!("k:{number}"), &vec![number as u8; value_bytes])));
            written += value_bytes;
        }
        let stats = bench.store.stats();
        assert_eq!((stats.items, stats.evictions), (values, 0));
        assert!(stats.arena_bytes < 3 * stats.bytes, "{stats:?}");
        assert!(stats.moved_bytes < written as u64 / 3, "{stats:?}");
        for number in 0..values {
            assert_eq!(bench.get(&format!("k:{number}")), Some(vec![number as u8; value_bytes]));
        }
        bench.store.check_invariants();
    }
}

#[test]
fn a_lowered_limit_is_reached_by_upkeep_and_a_raised_one_used() {
    let mut bench = Bench::new(8 << 20);
    let fill = |bench: &mut Bench| {
        for n in 0..100_000 {
            bench.set(&format!("k:{n}"), &[1; 100]);
        }
    };
    fill(&mut bench);
    let items = bench.store.stats().items;
    bench.store.set_memory_bytes(4 << 20, bench.now).unwrap();
    bench.settle();
    let stats = bench.store.stats();
    assert!(stats.arena_bytes + stats.index_bytes + stats.ghost_bytes <= 4 << 20);
    bench.store.set_memory_bytes(32 << 20, bench.now).unwrap();
    fill(&mut bench);
    assert!(bench.store.stats().items > items);
    bench.store.check_invariants();
    let error = bench.store.set_memory_bytes(65 << 20, bench.now).unwrap_err();
    assert_eq!(error.key, "memory_bytes");
}

#[test]
fn cold_memory_is_offered_once_a_huge_page_ahead_and_within_the_limit() {
    let mut bench = Bench::new(64 << 20);
    let (mut offered, mut helpers) = (0, Vec::new());
    for n in 0..600_000 {
        if let Some(work) = bench.store.next_page_work() {
            offered += u64::from(work.provides());
            helpers.push(std::thread::spawn(|| work.carry_out()));
            assert!(bench.store.next_page_work().is_none_or(|work| !work.provides()) || offered < 3);
        }
        bench.set(&format!("k:{n}"), &[n as u8; 100]);
        assert!(offered >= bench.store.stats().arena_bytes >> 21);
    }
    helpers.into_iter().for_each(|helper| helper.join().unwrap());
    assert!((25..=32).contains(&offered), "{offered} of 32 huge pages");
    let present = (0..600_000u32).filter_map(|n| bench.get(&format!("k:{n}")).map(|value| (n, value)));
    assert!(present.map(|(n, value)| assert_eq!(value, [n as u8; 100])).count() > 300_000);
    let mut small = Bench::new(8 << 20);
    assert!(small.store.next_page_work().is_none());
}

#[test]
fn what_an_index_takes_is_offered_to_be_given_back_one_segment_at_a_time() {
    let mut bench = Bench::new(16 << 20);
    let (mut given_back, mut helpers) = (0, Vec::new());
    // Smaller and smaller items: the index grows while the store is full.
    for n in 0..600_000u32 {
        bench.set(&format!("k:{n}"), &vec![n as u8; if n < 100_000 { 400 } else { 10 }]);
        while let Some(work) = bench.store.next_page_work() {
            if work.provides() {
                continue;
            }
            assert!(bench.store.next_page_work().is_none(), "one at a time");
            match n % 3 {
                // Work that is not carried out is offered again.
                0 => drop(work),
                1 => work.carry_out(),
                _ => helpers.push(std::thread::spawn(|| work.carry_out())),
            }
            given_back += 1;
            break;
        }
        if n % 10_000 == 0 {
            bench.store.check_invariants();
        }
    }
    helpers.into_iter().for_each(|helper| helper.join().unwrap());
    assert!(given_back > 10, "{given_back}");
    let present = (0..600_000u32).filter_map(|n| bench.get(&format!("k:{n}")).map(|value| (n, value)));
    assert!(present.map(|(n, value)| assert!(value.iter().all(|&byte| byte == n as u8))).count() > 100_000);
    bench.settle();
}

#[test]
fn after_a_shift_in_value_size_the_new_size_fits_at_once() {
    let mut bench = Bench::new(64 << 20);
    for n in 0..400_000 {
        bench.set(&format!("small:{n}"), &[1; 100]);
    }
    for n in 0..50_000 {
        bench.set(&format!("large:{n}"), &[1; 1000]);
    }
    let present = (0..50_000).filter(|n| bench.get(&format!("large:{n}")).is_some()).count();
    assert!(present >= 49_500, "{present} of 50000");
}

#[test]
fn keys_read_often_survive_a_scan() {
    let mut bench = Bench::new(4 << 20);
    for n in 0..1000 {
        bench.set(&format!("hot:{n}"), &[1; 100]);
    }
    for n in 0..200_000 {
        bench.set(&format!("cold:{n}"), &[1; 100]);
        bench.get(&format!("hot:{}", n % 1000));
    }
    let present = (0..1000).filter(|n| bench.get(&format!("hot:{n}")).is_some()).count();
    assert!(present > 990, "{present} of 1000");
}

#[test]
fn evictions_past_the_bound_of_the_journal_go_untold_and_are_counted() {
    let mut bench = Bench::new(1 << 20);
    bench.store.keep_journal(true);
    for number in 0..20_000 {
        bench.set(&format!("{number:0200}"), &[0; 100]);
    }
    let evicted = bench.store.stats().evictions;
    let (mut told, mut bytes) = (0, 0);
    let untold = bench.store.take_journal(|evicted| {
        told += 1;
        bytes += evicted.key.len();
    });
    assert!(
        told > 100 && untold > 1000 && told + untold == evicted,
        "{told} told, {untold} untold of {evicted}"
    );
    assert!(bytes <= 32 * 1024);
    assert_eq!(bench.store.take_journal(|_| panic!("told twice")), 0);
    bench.store.keep_journal(false);
    bench.set("more", &[0; 100]);
    assert!(!bench.store.keeps_journal());
}
