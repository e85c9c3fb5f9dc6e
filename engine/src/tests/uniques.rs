//! Cas uniques: assigned when asked for, never the same, and rising for each key.

use super::support::{Bench, stored};
use crate::{ArithmeticHow, Mode, StoreHow, Stored};

fn compare(cas: u64) -> StoreHow {
    StoreHow { compare_cas: Some(cas), ..StoreHow::default() }
}

#[test]
fn a_unique_costs_nothing_until_someone_asks() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"1234");
    let before = bench.store.stats().bytes;
    let cas = bench.cas("k").unwrap();
    assert!(cas > 0 && bench.store.stats().bytes == before + 8);
    assert_eq!(bench.cas("k"), Some(cas));
}

#[test]
fn a_compare_stores_over_its_own_version_only() {
    let mut bench = Bench::new(1 << 20);
    assert_eq!(bench.store_how("k", b"a", compare(1)), Stored::NotFound);
    bench.set("k", b"a");
    assert_eq!(bench.store_how("k", b"b", compare(1)), Stored::Exists);
    let cas = bench.cas("k").unwrap();
    assert!(stored(bench.store_how("k", b"b", compare(cas))));
    assert_eq!(bench.store_how("k", b"c", compare(cas)), Stored::Exists);
    bench.set("k", b"d");
    assert!(bench.cas("k").unwrap() > cas);
}

#[test]
fn counting_in_place_changes_a_unique_that_was_seen() {
    let mut bench = Bench::new(1 << 20);
    bench.set("n", b"10");
    let cas = bench.cas("n").unwrap();
    let key = bench.key(b"n");
    let how = ArithmeticHow { delta: 1, decrement: true, ..ArithmeticHow::default() };
    bench.store.arithmetic(key, &how, bench.now);
    assert_eq!(bench.get("n").unwrap(), b"9 ");
    assert!(bench.cas("n").unwrap() > cas);
}

#[test]
fn a_client_chosen_unique_is_followed_by_a_higher_one() {
    let mut bench = Bench::new(1 << 20);
    let chosen = StoreHow { new_cas: Some(5_000), with_cas: true, ..StoreHow::default() };
    assert_eq!(bench.store_how("k", b"a", chosen), Stored::Stored { cas: 5_000, value_len: 1 });
    bench.set("k", b"b");
    assert_eq!(bench.cas("k"), Some(5_001));
}

#[test]
fn uniques_rise_past_a_chosen_one_even_if_the_item_goes_in_between() {
    let mut bench = Bench::new(1 << 20);
    let check = |bench: &mut Bench, chosen: u64, rises: bool| {
        let how = StoreHow { new_cas: Some(chosen), with_cas: true, ..StoreHow::default() };
        assert_eq!(bench.store_how("k", b"a", how), Stored::Stored { cas: chosen, value_len: 1 });
        let key = bench.key(b"k");
        bench.store.delete(key, &Default::default(), bench.now);
        bench.set("k", b"b");
        assert_eq!(bench.cas("k").unwrap() > chosen, rises, "{chosen}");
    };
    check(&mut bench, 1 << 40, true);
    check(&mut bench, 7, true);
    // Uniques of 2^62 and more rise only as long as the item lives.
    check(&mut bench, 1 << 62, false);
    check(&mut bench, 1 << 63, false);
    check(&mut bench, u64::MAX, false);
    check(&mut bench, (1 << 62) - 1, true);
}

#[test]
fn without_uniques_every_one_reads_0_and_compares_with_none() {
    let mut bench = Bench::with(1 << 20, |config| config.cas = false);
    let how = StoreHow { with_cas: true, ..StoreHow::default() };
    assert_eq!(bench.store_how("k", b"a", how), Stored::Stored { cas: 0, value_len: 1 });
    assert_eq!(bench.cas("k"), Some(0));
    assert_eq!(bench.store_how("k", b"a", compare(1)), Stored::Exists);
}

#[test]
fn an_older_unique_stores_stale_where_that_is_allowed() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"a");
    let cas = bench.cas("k").unwrap();
    let stale = |cas| StoreHow { stale_if_older: true, ..compare(cas) };
    assert_eq!(bench.store_how("k", b"b", stale(cas + 1)), Stored::Exists);
    let append = StoreHow { mode: Mode::Append, ..stale(cas - 1) };
    assert_eq!(bench.store_how("k", b"b", append), Stored::Exists);
    assert!(stored(bench.store_how("k", b"b", stale(cas - 1))));
    let key = bench.key(b"k");
    assert!(bench.store.peek(key, bench.now).unwrap().stale);
    bench.set("k", b"c");
    assert!(!bench.store.peek(key, bench.now).unwrap().stale);
}
