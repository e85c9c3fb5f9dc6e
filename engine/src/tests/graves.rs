//! Graves: marks over removed items, which scans of a segment step over.

use super::support::Bench;
use crate::item::{Location, RecordKind};
use crate::{DeleteHow, Mode, StoreHow};

fn at(bench: &Bench, key: &str) -> Location {
    bench.store.peek(bench.key(key.as_bytes()), bench.now).unwrap().at
}

/// Whether a grave or slack is at `at`, and the bytes to the next record.
fn is_grave(bench: &Bench, at: Location) -> (bool, usize) {
    let (kind, bytes) = bench.store.kind_and_bytes(at);
    (matches!(kind, RecordKind::Dead), bytes)
}

#[test]
fn an_item_leaves_a_grave_of_its_size_however_it_went() {
    let mut bench = Bench::new(1 << 20);
    let keys = ["overwritten", "deleted", "expired"];
    keys.iter().for_each(|key| assert!(super::support::stored(bench.set_for(key, &[7; 101], 10))));
    bench.set("kept", &[8; 101]);
    let locations = keys.map(|key| at(&bench, key));
    let sizes = locations.map(|location| is_grave(&bench, location));
    bench.set("overwritten", b"new");
    let (key, now) = (bench.key(b"deleted"), bench.now);
    bench.store.delete(key, &DeleteHow::default(), now);
    bench.now.0 += 11;
    assert_eq!(bench.get("expired"), None);
    for (location, (was_grave, bytes)) in locations.into_iter().zip(sizes) {
        assert!(!was_grave);
        assert_eq!(is_grave(&bench, location), (true, bytes));
    }
    assert_eq!(bench.get("overwritten"), Some(b"new".to_vec()));
    assert_eq!(bench.get("kept"), Some(vec![8; 101]));
    bench.settle();
}

#[test]
fn nothing_is_written_into_a_pinned_segment_and_nothing_appended_into_a_grave() {
    let mut bench = Bench::new(1 << 20);
    bench.set("before", b"12345678");
    bench.set("pinned", &[7; 100]);
    let location = at(&bench, "pinned");
    let key = bench.key(b"pinned");
    let handle = bench.store.get(key, bench.now).unwrap().handle();
    let pinned = bench.store.pin(handle).unwrap();
    bench.set("pinned", b"new");
    assert!(!is_grave(&bench, location).0);
    let old_location = at(&bench, "before");
    bench.store_how("before", &[9; 40], StoreHow { mode: Mode::Append, ..StoreHow::default() });
    assert_ne!(at(&bench, "before"), old_location);
    assert_eq!(pinned.parts().flatten().copied().collect::<Vec<u8>>(), [7; 100]);
    bench.store.unpin(pinned);
    bench.settle();
    // Without a pin: an append must not use the grave after an item, which another reader may still be
    // reading.
    for key in ["a", "b"] {
        bench.set(key, b"12345678");
    }
    let (location, next) = (at(&bench, "a"), at(&bench, "b"));
    bench.set("b", b"new");
    assert!(is_grave(&bench, next).0);
    bench.store_how("a", &[9; 40], StoreHow { mode: Mode::Append, ..StoreHow::default() });
    assert_ne!(at(&bench, "a"), location);
    assert_eq!(bench.get("a").unwrap().len(), 48);
    bench.settle();
}
