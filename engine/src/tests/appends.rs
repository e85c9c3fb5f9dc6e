//! Appending where the value lies: at the end of an open segment, and into the slack of what is appended to
//! often.

use super::support::{Bench, stored};
use crate::item::Location;
use crate::{Mode, StoreHow, Stored};

const APPEND: StoreHow = StoreHow {
    mode: Mode::Append,
    client_flags: 0,
    expires: None,
    compare_cas: None,
    new_cas: None,
    stale_if_older: false,
    vivify: None,
    with_cas: false,
    binary_key: false,
    value_bytes_max: None,
};

fn location(bench: &Bench, key: &str) -> Location {
    bench.store.peek(bench.key(key.as_bytes()), bench.now).unwrap().at
}

#[test]
fn the_last_item_of_an_open_segment_grows_where_it_is() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"");
    let (at, before) = (location(&bench, "k"), bench.store.stats().bytes);
    let mut expected = Vec::new();
    for n in 0..500u32 {
        let more = n.to_string();
        expected.extend_from_slice(more.as_bytes());
        let answer = bench.store_how("k", more.as_bytes(), APPEND);
        assert_eq!(answer, Stored::Stored { cas: 0, value_len: expected.len() });
        bench.store.check_invariants();
    }
    assert_eq!((location(&bench, "k"), bench.get("k").unwrap()), (at, expected.clone()));
    assert!(bench.store.stats().bytes - before <= expected.len() as u64 + 4);
}

#[test]
fn what_is_appended_to_again_and_again_among_others_moves_seldom() {
    let mut bench = Bench::new(8 << 20);
    bench.set("log", b"");
    let (mut at, mut moves, mut expected) = (location(&bench, "log"), 0, Vec::new());
    for n in 0..1000 {
        assert!(stored(bench.set(&format!("other {n}"), b"value")));
        expected.extend_from_slice(b"0123456789");
        assert!(stored(bench.store_how("log", b"0123456789", APPEND)));
        moves += u32::from(location(&bench, "log") != at);
        at = location(&bench, "log");
        if n % 100 == 0 {
            bench.store.check_invariants();
        }
    }
    assert_eq!(bench.get("log").unwrap(), expected);
    // The item grows by a quarter each time it is moved: from 10 bytes to 10,000 in 31 moves.
    assert!(moves <= 40, "{moves}");
    assert!((0..1000).all(|n| bench.get(&format!("other {n}")).unwrap() == b"value"));
}

#[test]
fn one_append_leaves_no_more_than_a_mark_behind() {
    let mut bench = Bench::new(8 << 20);
    for n in 0..1000 {
        bench.set(&format!("key {n}"), &[7; 1000]);
    }
    let free = bench.store.stats().segments_free;
    for n in 0..1000 {
        bench.store_how(&format!("key {n}"), b"x", APPEND);
    }
    bench.settle();
    // A megabyte twice, for the old record and the new one, without slack of a quarter.
    let (stats, segment_bytes) = (bench.store.stats(), bench.store.stats().segment_bytes);
    let taken = (free - stats.segments_free) * segment_bytes;
    assert!(taken <= 1000 * 1032 + 2 * segment_bytes, "{taken}");
}

#[test]
fn an_append_in_place_gives_a_new_unique_and_an_item_nobody_has_read() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"a");
    let cas = bench.cas("k").unwrap();
    let at = location(&bench, "k");
    assert!(stored(bench.store_how("k", b"b", StoreHow { compare_cas: Some(cas), ..APPEND })));
    let key = bench.key(b"k");
    assert!(!bench.store.peek(key, bench.now).unwrap().hit_before);
    let answer = bench.store_how("k", b"c", StoreHow { with_cas: true, ..APPEND });
    let Stored::Stored { cas: asked, value_len: 3 } = answer else { panic!("{answer:?}") };
    assert!(asked > cas && bench.cas("k") == Some(asked));
    assert_eq!((location(&bench, "k"), bench.get("k").unwrap()), (at, b"abc".to_vec()));
    assert_eq!(bench.store_how("k", b"d", StoreHow { compare_cas: Some(cas), ..APPEND }), Stored::Exists);
}

#[test]
fn a_value_being_sent_stays_as_it_was_while_its_item_grows() {
    let mut bench = Bench::new(1 << 20);
    bench.set("k", b"hello");
    let key = bench.key(b"k");
    let handle = bench.store.get(key, bench.now).unwrap().handle();
    let pinned = bench.store.pin(handle).unwrap();
    for _ in 0..100 {
        assert!(stored(bench.store_how("k", b" and more", APPEND)));
    }
    assert_eq!(pinned.parts().collect::<Vec<_>>().concat(), b"hello");
    bench.store.unpin(pinned);
    assert_eq!(bench.get("k").unwrap().len(), 905);
    bench.store.check_invariants();
}

#[test]
fn slack_goes_when_its_segment_is_emptied() {
    let mut bench = Bench::new(2 << 20);
    for round in 0..200 {
        for n in 0..50 {
            let key = format!("log {n}");
            if !stored(bench.store_how(&key, &[round as u8; 40], APPEND)) {
                bench.set(&key, b"");
            }
            bench.set(&format!("fill {round} {n}"), &[1; 300]);
            bench.get(&key);
        }
        bench.store.check_invariants();
    }
    bench.settle();
    bench.store.flush(bench.now, bench.now);
    bench.settle();
    let stats = bench.store.stats();
    assert_eq!((stats.items, stats.bytes), (0, 0));
}
