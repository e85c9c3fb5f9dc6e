//! The meta read: vivify, stale and early refill give exactly one winner.

use super::support::Bench;
use crate::{DeleteHow, Item, MetaGet, MetaGot, Seconds};

const READ: MetaGet = MetaGet {
    touch: None,
    vivify: None,
    recache_below_s: None,
    recache_after_touch: false,
    new_cas: None,
    with_cas: false,
    bump: true,
    binary_key: false,
};

/// The fields `stale`, `win` and `token_sent` of an item.
fn read(bench: &mut Bench, ask: MetaGet) -> Option<(bool, bool, bool)> {
    let key = bench.key(b"k");
    let seen = |item: Item<'_>| (item.stale, item.win, item.token_sent);
    match bench.store.meta_get(key, &ask, bench.now) {
        MetaGot::Hit(item) | MetaGot::Vivified(item) => Some(seen(item)),
        _ => None,
    }
}

#[test]
fn the_creator_of_an_empty_item_wins_and_others_see_its_token() {
    let mut bench = Bench::new(1 << 20);
    let ask = MetaGet { vivify: Some(Some(Seconds(bench.now.0 + 30))), ..READ };
    assert_eq!(read(&mut bench, READ), None);
    assert_eq!(read(&mut bench, ask), Some((false, true, false)));
    assert_eq!(read(&mut bench, ask), Some((false, false, true)));
    bench.set("k", b"filled");
    assert_eq!(read(&mut bench, ask), Some((false, false, false)));
}

#[test]
fn an_invalidated_item_is_served_stale_with_one_winner_per_invalidation() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"v");
    let key = bench.key(b"k");
    let how = DeleteHow { invalidate: true, ..DeleteHow::default() };
    for _ in 0..2 {
        bench.store.delete(key, &how, bench.now);
        assert_eq!(read(&mut bench, READ), Some((true, true, false)));
        assert_eq!(read(&mut bench, READ), Some((true, false, true)));
    }
    assert_eq!(bench.get("k").unwrap(), b"v");
    bench.set("k", b"w");
    assert_eq!(read(&mut bench, READ), Some((false, false, false)));
}

#[test]
fn an_item_about_to_expire_is_refilled_by_one_reader() {
    let mut bench = Bench::new(1 << 20);
    bench.set_for("k", b"v", 30);
    let ask = MetaGet { recache_below_s: Some(10), ..READ };
    assert_eq!(read(&mut bench, ask), Some((false, false, false)));
    bench.now.0 += 21;
    assert_eq!(read(&mut bench, ask), Some((false, true, false)));
    assert_eq!(read(&mut bench, ask), Some((false, false, true)));
}

#[test]
fn erasing_leaves_an_empty_item_that_keeps_its_unique() {
    let mut bench = Bench::new(1 << 20);
    bench.set_for("k", b"v", 30);
    let cas = bench.cas("k").unwrap();
    let key = bench.key(b"k");
    bench.store.delete(key, &DeleteHow { erase_value: true, ..DeleteHow::default() }, bench.now);
    let item = bench.store.peek(key, bench.now).unwrap();
    assert!(item.value.is_empty());
    assert_eq!((item.cas, item.expires, item.client_flags), (cas, None, 0));
}

#[test]
fn looking_without_a_bump_leaves_no_trace() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"v");
    let key = bench.key(b"k");
    read(&mut bench, MetaGet { bump: false, ..READ });
    assert!(!bench.store.peek(key, bench.now).unwrap().hit_before);
    read(&mut bench, READ);
    assert!(bench.store.peek(key, bench.now).unwrap().hit_before);
}
