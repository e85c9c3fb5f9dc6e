//! Walks over all items in steps, with other operations in between.

use std::collections::HashMap;

use super::support::Bench;
use crate::Seconds;

/// Walks over all items and does `between` after each step. Returns how often each key was visited, and the
/// steps.
fn walk(bench: &mut Bench, mut between: impl FnMut(&mut Bench)) -> (HashMap<String, usize>, usize) {
    let (mut seen, mut parts, mut from) = (HashMap::new(), 0, 0);
    loop {
        let now = bench.now;
        let next = bench.store.walk(from, now, |key, _| {
            *seen.entry(String::from_utf8(key.to_vec()).unwrap()).or_default() += 1;
        });
        parts += 1;
        between(bench);
        match next {
            Some(next) => assert!(next > std::mem::replace(&mut from, next), "a walk goes on"),
            None => return (seen, parts),
        }
    }
}

#[test]
fn every_item_is_visited_once_in_parts() {
    let mut bench = Bench::new(64 << 20);
    assert_eq!(walk(&mut bench, |_| ()), (HashMap::new(), 1));
    for n in 0..20_000 {
        bench.set(&format!("key {n}"), b"value");
    }
    let (seen, parts) = walk(&mut bench, |_| ());
    assert!(seen.len() == 20_000 && seen.values().all(|&count| count == 1));
    assert!(parts >= 50, "{parts}");
}

#[test]
fn items_that_stay_are_visited_once_while_the_table_grows_and_shrinks() {
    let mut bench = Bench::new(64 << 20);
    for n in 0..10_000 {
        bench.set(&format!("stays {n}"), b"value");
    }
    let mut made = 0;
    let (seen, _) = walk(&mut bench, |bench| {
        for _ in 0..200 {
            bench.set(&format!("new {made}"), b"value");
            made += 1;
        }
    });
    let stays = |seen: &HashMap<String, usize>| {
        seen.iter().filter(|(key, count)| key.starts_with("stays") && **count == 1).count()
    };
    assert_eq!(stays(&seen), 10_000);
    assert!(seen.values().all(|&count| count == 1));
    let (seen, _) = walk(&mut bench, |bench| {
        for _ in 0..200 {
            made -= usize::from(made > 0);
            let name = format!("new {made}");
            let key = bench.key(name.as_bytes());
            bench.store.delete(key, &crate::DeleteHow::default(), bench.now);
            bench.store.maintain(bench.now, 64);
        }
    });
    assert_eq!(stays(&seen), 10_000);
}

#[test]
fn what_has_expired_or_was_flushed_is_not_visited() {
    let mut bench = Bench::new(1 << 20);
    bench.set("a", b"value");
    bench.set("b", b"value");
    let key = bench.key(b"b");
    bench.store.touch(key, Some(Seconds(bench.now.0 + 1)), bench.now);
    assert_eq!(walk(&mut bench, |_| ()).0.len(), 2);
    bench.now = Seconds(bench.now.0 + 1);
    assert_eq!(walk(&mut bench, |_| ()).0.len(), 1);
    bench.store.flush(bench.now, bench.now);
    assert_eq!(walk(&mut bench, |_| ()).0.len(), 0);
}
