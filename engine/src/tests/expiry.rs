//! Expiry, flush and the release of whole segments.

use super::support::{Bench, stored};
use crate::Seconds;

#[test]
fn an_item_dies_in_the_very_second_it_expires() {
    let mut bench = Bench::new(1 << 20);
    bench.set_for("k", b"v", 10);
    bench.now.0 += 9;
    assert!(bench.get("k").is_some());
    bench.now.0 += 1;
    assert!(bench.get("k").is_none());
    assert_eq!(bench.store.stats().items, 0);
}

#[test]
fn storing_with_a_past_expiry_succeeds_and_shows_nothing() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"old");
    assert!(stored(bench.set_for("k", b"new", 0)));
    assert!(bench.get("k").is_none());
}

#[test]
fn lookups_that_come_upon_the_dead_are_counted() {
    let mut bench = Bench::new(8 << 20);
    bench.set_for("short", b"v", 60);
    bench.set("long", b"v");
    bench.now.0 += 61;
    assert!(bench.get("short").is_none() && bench.get("short").is_none());
    let now = bench.now;
    bench.store.flush(now, now);
    assert!(bench.get("long").is_none() && bench.get("long").is_none());
    let stats = bench.store.stats();
    assert_eq!((stats.found_dead.expired, stats.found_dead.flushed), (1, 1));
    assert_eq!((stats.reclaimed, stats.expired_unfetched), (1, 1), "what is flushed has not expired");
}

#[test]
fn expired_segments_are_released_without_a_read() {
    let mut bench = Bench::new(8 << 20);
    for n in 0..20_000 {
        bench.set_for(&format!("short:{n}"), &[0; 100], 60);
        bench.set(&format!("never:{n}"), &[0; 20]);
    }
    assert!(bench.store.next_expiry().is_some_and(|at| at <= Seconds(bench.now.0 + 60)));
    bench.now.0 += 61;
    bench.settle();
    let stats = bench.store.stats();
    assert_eq!((stats.items, stats.reclaimed, stats.expired_unfetched), (20_000, 20_000, 20_000));
    assert_eq!((stats.moved_items, stats.evictions), (0, 0));
    assert_eq!(bench.store.next_expiry(), None);
}

#[test]
fn an_item_touched_to_live_longer_survives_its_segment() {
    let mut bench = Bench::new(8 << 20);
    for n in 0..1000 {
        bench.set_for(&format!("k:{n}"), &[0; 100], 10);
    }
    let key = bench.key(b"k:500");
    assert!(bench.store.touch(key, Some(Seconds(bench.now.0 + 1000)), bench.now));
    let key = bench.key(b"k:501");
    assert!(bench.store.touch(key, None, bench.now));
    bench.now.0 += 11;
    bench.settle();
    assert!(bench.get("k:500").is_some() && bench.get("k:501").is_some() && bench.get("k:502").is_none());
    bench.now.0 += 1000;
    bench.settle();
    assert!(bench.get("k:500").is_none() && bench.get("k:501").is_some());
}

#[test]
fn most_expired_bytes_are_free_soon_after() {
    let mut bench = Bench::new(16 << 20);
    let life = 400;
    // They are stored ten seconds apart, so that no two expire in the same second.
    for n in 0..40_000 {
        bench.set_for(&format!("k:{n}"), &[0; 100], life);
        bench.now.0 += u32::from(n % 100 == 99);
        bench.store.maintain(bench.now, 1000);
    }
    let last = bench.now.0;
    bench.now.0 = last + life + life / 5 + 1;
    bench.settle();
    assert_eq!(bench.store.stats().items, 0);
}

#[test]
fn a_flush_kills_all_that_was_stored_and_nothing_after() {
    let mut bench = Bench::new(1 << 20);
    bench.set("old", b"1");
    bench.store.flush(bench.now, bench.now);
    bench.set("new", b"2");
    assert!(bench.get("old").is_none() && bench.get("new").is_some());
    bench.settle();
    assert_eq!(bench.store.stats().items, 1);
    assert!(bench.get("new").is_some());
}

#[test]
fn a_later_flush_replaces_one_still_pending() {
    let mut bench = Bench::new(1 << 20);
    let at = |bench: &Bench, s| Seconds(bench.now.0 + s);
    bench.set("k", b"1");
    bench.store.flush(at(&bench, 5), bench.now);
    bench.store.flush(at(&bench, 10), bench.now);
    bench.now.0 += 6;
    assert!(bench.get("k").is_some());
    bench.set("later", b"1");
    bench.now.0 += 4;
    let key = bench.key(b"k");
    assert!(bench.store.peek(key, bench.now).is_none());
    assert!(bench.get("k").is_none() && bench.get("later").is_none());
    bench.set("after", b"1");
    assert!(bench.get("after").is_some());
}
