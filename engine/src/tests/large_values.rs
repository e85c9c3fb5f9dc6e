//! Values larger than a segment: pieces, uploads, pins.

use super::support::{Bench, stored};
use crate::{NoMemory, Seconds, StoreHow, Stored};

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 253 + seed) as u8).collect()
}

#[test]
fn values_of_any_size_come_back() {
    let mut bench = Bench::new(64 << 20);
    for len in [0, 1, 4_000, 4_096, 60_000, 65_535, 65_536, 65_537, 200_000, 1_000_000, 1 << 20] {
        let value = bytes(len, len);
        assert!(stored(bench.set(&format!("k{len}"), &value)), "{len}");
        assert!(bench.get(&format!("k{len}")).unwrap() == value, "{len}");
    }
    bench.store.check_invariants();
}

#[test]
fn one_byte_past_the_limit_is_too_large_and_drops_the_old_value() {
    let mut bench = Bench::new(8 << 20);
    bench.set("k", b"old");
    assert_eq!(bench.set("k", &bytes((1 << 20) + 1, 0)), Stored::TooLarge);
    assert!(bench.get("k").is_none());
    assert_eq!(bench.store.upload_begin((1 << 20) + 1, bench.now).err(), Some(NoMemory));
}

#[test]
fn an_upload_becomes_visible_when_it_is_committed() {
    let mut bench = Bench::new(16 << 20);
    let value = bytes(700_000, 1);
    let mut upload = bench.store.upload_begin(value.len(), bench.now).unwrap();
    for part in value.chunks(9_999) {
        bench.store.upload_write(&mut upload, part, bench.now).unwrap();
        assert!(bench.get("k").is_none());
    }
    let key = bench.key(b"k");
    assert!(stored(bench.store.upload_commit(upload, key, &StoreHow::default(), bench.now)));
    assert!(bench.get("k").unwrap() == value);
    bench.store.check_invariants();
}

#[test]
fn an_incomplete_upload_is_not_stored_and_leaves_nothing() {
    let mut bench = Bench::new(16 << 20);
    let mut upload = bench.store.upload_begin(300_000, bench.now).unwrap();
    bench.store.upload_write(&mut upload, &bytes(299_999, 1), bench.now).unwrap();
    let key = bench.key(b"k");
    let answer = bench.store.upload_commit(upload, key, &StoreHow::default(), bench.now);
    assert_eq!(answer, Stored::NotStored);
    bench.store.check_invariants();
    let stats = bench.store.stats();
    assert_eq!((stats.uploads, stats.segments_pinned, stats.bytes), (0, 0, 0));
}

#[test]
fn uploads_may_hold_half_of_memory_and_no_more() {
    let mut bench = Bench::with(8 << 20, |config| config.value_bytes_max = 4 << 20);
    let first = bench.store.upload_begin(3 << 20, bench.now).unwrap();
    assert_eq!(bench.store.upload_begin((1 << 20) + 1, bench.now).err(), Some(NoMemory));
    bench.store.upload_abort(first);
    let second = bench.store.upload_begin(4 << 20, bench.now).unwrap();
    bench.store.upload_abort(second);
}

#[test]
fn a_pinned_value_outlives_its_item_and_its_store() {
    let mut bench = Bench::new(2 << 20);
    let value = bytes(200_000, 9);
    bench.set("k", &value);
    let key = bench.key(b"k");
    let handle = bench.store.get(key, bench.now).unwrap().handle();
    let pinned = bench.store.pin(handle).unwrap();
    for n in 0..100 {
        bench.set(&format!("other:{n}"), &bytes(100_000, n));
    }
    bench.store.delete(key, &Default::default(), bench.now);
    bench.store.check_invariants();
    drop(bench);
    let read = std::thread::spawn(move || pinned.parts().flatten().copied().collect::<Vec<u8>>());
    assert!(read.join().unwrap() == value);
}

#[test]
fn more_than_half_of_the_segments_cannot_be_pinned() {
    let mut bench = Bench::with(2 << 20, |config| config.value_bytes_max = 1 << 20);
    let mut pins = Vec::new();
    for n in 0..12 {
        let name = format!("k{n}");
        bench.set(&name, &bytes(150_000, n));
        let key = bench.key(name.as_bytes());
        let Some(item) = bench.store.get(key, bench.now) else { continue };
        let handle = item.handle();
        pins.extend(bench.store.pin(handle));
    }
    let stats = bench.store.stats();
    assert!(stats.segments_pinned * 2 <= stats.segments_total && pins.len() < 12);
    pins.into_iter().for_each(|pinned| bench.store.unpin(pinned));
    assert_eq!(bench.store.stats().segments_pinned, 0);
}

#[test]
fn a_large_value_that_is_read_stays_and_one_that_is_not_goes() {
    let mut bench = Bench::new(16 << 20);
    let value = bytes(900_000, 3);
    bench.set("read", &value);
    bench.set("unread", &value);
    for n in 0..400 {
        for _ in 0..2 {
            assert!(bench.get("read").is_some_and(|got| got == value), "gone after {n}");
        }
        bench.set(&format!("other:{n}"), &bytes(100_000, n));
    }
    assert!(bench.get("unread").is_none());
    bench.store.check_invariants();
}

/// Stores the value as a server does that receives it in parts.
fn upload(bench: &mut Bench, key: &str, value: &[u8], life_s: Option<u32>) {
    let mut upload = bench.store.upload_begin(value.len(), bench.now).unwrap();
    for part in value.chunks(16 << 10) {
        bench.store.upload_write(&mut upload, part, bench.now).unwrap();
    }
    let expires = life_s.map(|life_s| Seconds(bench.now.0 + life_s));
    let (key, how) = (bench.key(key.as_bytes()), StoreHow { expires, ..StoreHow::default() });
    assert!(stored(bench.store.upload_commit(upload, key, &how, bench.now)));
}

/// Fills a store four times over and returns the fewest bytes of it, in percent, that items took at any time
/// after the first eviction. `small` items of 100 bytes go before each value; every `read`th value is read
/// three times, if `read` is not 0.
fn least_percent(len: usize, small: usize, read: usize, life_s: Option<u32>) -> u64 {
    let memory_bytes = 32 << 20;
    let mut bench = Bench::new(memory_bytes);
    let (value, mut least) = (bytes(len, 1), 100);
    for n in 0..4 * memory_bytes / (len + 150 * small) {
        for other in 0..small {
            bench.set_for(&format!("small:{n}:{other}"), &[7; 100], 1 << 20);
        }
        upload(&mut bench, &format!("k{n}"), &value, life_s.map(|life_s| life_s + (n % 7) as u32 * 3_600));
        for _ in 0..if read > 0 && n % read == 0 { 3 } else { 0 } {
            let _ = bench.get(&format!("k{n}"));
        }
        let stats = bench.store.stats();
        if stats.evictions > 0 {
            least = least.min(stats.bytes * 100 / memory_bytes as u64);
        }
    }
    bench.store.check_invariants();
    least
}

#[test]
fn making_room_for_a_large_value_leaves_the_others() {
    for len in [5_000, 8_000, 16_000, 50_000, 100_000, 900_000] {
        for (small, read, life_s) in
            [(0, 0, None), (0, 2, None), (0, 1, None), (30, 0, None), (30, 3, Some(60)), (0, 0, Some(86_400))]
        {
            let least = least_percent(len, small, read, life_s);
            assert!(least >= 70, "{len} bytes, {small} small, every {read}th read, {life_s:?}: {least} %");
        }
    }
}

/// Two stores with an item "k" of 200,000 bytes each, at the same location.
fn two_stores() -> [Bench; 2] {
    [1, 2].map(|seed| {
        let mut bench = Bench::new(2 << 20);
        bench.set("k", &bytes(200_000, seed));
        bench
    })
}

#[test]
#[should_panic(expected = "a pinned value of another store")]
fn a_pinned_value_cannot_be_given_back_to_another_store() {
    let [mut one, mut other] = two_stores();
    let handle = one.store.get(one.key(b"k"), one.now).unwrap().handle();
    let pinned = one.store.pin(handle).unwrap();
    other.store.unpin(pinned);
}

#[test]
#[should_panic(expected = "stale handle")]
fn an_item_that_was_deleted_cannot_be_pinned() {
    let [mut bench, _] = two_stores();
    let key = bench.key(b"k");
    let handle = bench.store.get(key, bench.now).unwrap().handle();
    bench.store.delete(key, &Default::default(), bench.now);
    let _pinned = bench.store.pin(handle);
}

#[test]
#[should_panic(expected = "stale handle")]
fn an_item_of_another_store_cannot_be_pinned() {
    let [mut one, mut other] = two_stores();
    let handle = one.store.get(one.key(b"k"), one.now).unwrap().handle();
    other.store.delete(other.key(b"k"), &Default::default(), other.now);
    let _pinned = other.store.pin(handle);
}

#[test]
#[should_panic(expected = "an upload of another store")]
fn an_upload_cannot_be_written_into_another_store() {
    let [mut one, mut other] = two_stores();
    let mut upload = one.store.upload_begin(100_000, one.now).unwrap();
    one.store.upload_write(&mut upload, &[1; 50_000], one.now).unwrap();
    let _ = other.store.upload_window(&mut upload, other.now);
}
