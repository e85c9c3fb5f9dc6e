//! Each kind of write, once where it stores and once where it does not.

use super::support::{Bench, stored};
use crate::{ArithmeticHow, Counted, Mode, StoreHow, Stored};

fn how(mode: Mode) -> StoreHow {
    StoreHow { mode, ..StoreHow::default() }
}

#[test]
fn a_value_comes_back_with_its_client_flags() {
    let mut bench = Bench::new(1 << 20);
    assert!(stored(bench.store_how("k", b"hello", StoreHow { client_flags: 7, ..StoreHow::default() })));
    assert_eq!(bench.get("k").unwrap(), b"hello");
    let key = bench.key(b"k");
    let item = bench.store.peek(key, bench.now).unwrap();
    assert_eq!((item.client_flags, item.cas, item.expires), (7, 0, None));
    assert_eq!(bench.get("other"), None);
}

#[test]
fn each_mode_applies_to_present_or_missing_items() {
    let mut bench = Bench::new(1 << 20);
    assert_eq!(bench.store_how("k", b"x", how(Mode::Replace)), Stored::NotStored);
    assert_eq!(bench.store_how("k", b"x", how(Mode::Append)), Stored::NotStored);
    assert!(stored(bench.store_how("k", b"b", how(Mode::Add))));
    assert_eq!(bench.store_how("k", b"x", how(Mode::Add)), Stored::NotStored);
    assert_eq!(bench.store_how("k", b"c", how(Mode::Append)), Stored::Stored { cas: 0, value_len: 2 });
    assert_eq!(bench.store_how("k", b"a", how(Mode::Prepend)), Stored::Stored { cas: 0, value_len: 3 });
    assert_eq!(bench.get("k").unwrap(), b"abc");
    assert!(stored(bench.store_how("k", b"new", how(Mode::Replace))));
    assert_eq!(bench.get("k").unwrap(), b"new");
    bench.store.check_invariants();
}

#[test]
fn keys_outside_1_to_250_bytes_are_not_stored() {
    let mut bench = Bench::new(1 << 20);
    assert_eq!(bench.set("", b"x"), Stored::NotStored);
    assert_eq!(bench.set(&"k".repeat(251), b"x"), Stored::NotStored);
    let longest = "k".repeat(250);
    assert!(stored(bench.set(&longest, b"x")));
    assert_eq!(bench.get(&longest).unwrap(), b"x");
    assert_eq!(bench.get(""), None);
}

#[test]
fn a_small_store_keeps_working_however_much_is_stored() {
    for memory_bytes in [1 << 20, 3 << 20, 8 << 20] {
        let mut bench = Bench::new(memory_bytes);
        for n in 0..200_000 {
            let key = format!("key:{n}");
            assert!(stored(bench.set_for(&key, &[n as u8; 90][..(n % 91) as usize], 1 + n % 1000)));
            assert_eq!(bench.get(&key).unwrap().len(), (n % 91) as usize);
            if n % 5_000 == 0 {
                bench.store.check_invariants();
                bench.now.0 += 1;
            }
        }
        let stats = bench.store.stats();
        assert!(stats.evictions > 0);
        assert!(stats.arena_bytes + stats.index_bytes + stats.ghost_bytes <= memory_bytes as u64);
    }
}

#[test]
fn counting_takes_the_number_a_value_begins_with_as_memcached_does() {
    let mut bench = Bench::new(1 << 20);
    // These are the answers of memcached 1.6.18.
    let mut check = |value: &[u8], expected: Option<u64>| {
        bench.store_how("n", value, StoreHow::default());
        let key = bench.key(b"n");
        let how = ArithmeticHow { delta: 1, ..ArithmeticHow::default() };
        let got = match bench.store.arithmetic(key, &how, bench.now) {
            Counted::Value { value, .. } => Some(value),
            _ => None,
        };
        assert_eq!(got, expected, "{:?}", value.escape_ascii().to_string());
    };
    check(b"12", Some(13));
    check(b"12 abc", Some(13));
    check(b"12\t3", Some(13));
    check(b"12\0a", Some(13));
    check(b" 12", Some(13));
    check(b"\t\n9", Some(10));
    check(b"+12", Some(13));
    check(b"00000000000000000012", Some(13));
    check(b"12abc", None);
    check(b"-12", None);
    check(b"- ", None);
    check(b"", None);
    check(b" ", None);
    check(b"18446744073709551615", Some(0));
    check(b"18446744073709551616", None);

    check(b"000000000000000000012", Some(13));
}
