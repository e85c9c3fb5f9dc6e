//! The handle over a store that is asked one item at a time.

use std::collections::HashMap;

use corecached_protocol::{ErrorKind, Reply};

use super::{INDEX_FLAG, Index};
use crate::config::Options;
use crate::route::tests::{Bench, POOLS, TIMEOUT, error, meta, options};

fn bench() -> Bench {
    Bench::new(r#"{"type": "BigValueRoute", "target": "PoolRoute|a", "split_threshold": 4, "batch_size": 2}"#)
}

/// What a server has: value and client flags by key.
#[derive(Default)]
struct Store(HashMap<String, (String, u32)>);

impl Store {
    /// The reply to what the bench was sent first; sets and touches are noted in `log`.
    fn serve(&mut self, bench: &mut Bench, log: &mut Vec<String>) -> Option<Option<Reply>> {
        let sent = bench.waiting().first()?.to_string();
        log.push(sent.clone());
        Some(self.answer(bench, &sent))
    }

    /// What the client gets once the server has answered `sent`.
    fn answer(&mut self, bench: &mut Bench, sent: &str) -> Option<Reply> {
        let request = bench.request(sent);
        let key = String::from_utf8_lossy(request.key()).into_owned();
        let words: Vec<&str> = sent.split(' ').collect();
        let held = self.0.get(&key).cloned();
        let reply = match (words[1], held) {
            ("set" | "replace", _) => {
                let data = String::from_utf8_lossy(request.data()).into_owned();
                self.0.insert(key, (data, request.client_flags()));
                Reply::Stored
            }
            ("add", Some(_)) => Reply::NotStored,
            ("add", None) => {
                let data = String::from_utf8_lossy(request.data()).into_owned();
                self.0.insert(key, (data, request.client_flags()));
                Reply::Stored
            }
            ("get" | "gets" | "gat" | "gats", Some((value, client_flags))) => {
                let cas_unique = words[1].contains('s').then_some(7);
                Reply::Value { client_flags, cas_unique, value: value.into() }
            }
            ("get" | "gets" | "gat" | "gats", None) => Reply::Miss,
            ("touch", held) => held.map_or(Reply::NotFound, |_| Reply::Touched),
            ("delete", held) => {
                self.0.remove(&key);
                held.map_or(Reply::NotFound, |_| Reply::Deleted)
            }
            other => panic!("{other:?}"),
        };
        bench.reply(sent, reply)
    }

    /// The answer to a client's line, and what was sent for it.
    fn ask(&mut self, bench: &mut Bench, line: &str, data: &str) -> (Reply, Vec<String>) {
        let mut log = Vec::new();
        let mut answer = bench.ask(line, data);
        while let Some(more) = self.serve(bench, &mut log) {
            answer = answer.or(more);
        }
        (answer.expect("an answer"), log)
    }
}

fn value(client_flags: u32, cas_unique: Option<u64>, text: &str) -> Reply {
    Reply::Value { client_flags, cas_unique, value: text.to_owned().into() }
}

#[test]
fn a_big_value_is_stored_in_chunks_then_its_index_and_comes_back_whole() {
    let (mut bench, mut store) = (bench(), Store::default());
    let Index { hash, .. } = Index::from_value(b"0123456789", 4);
    let (answer, sent) = store.ask(&mut bench, "set k 5 60 10", "0123456789");
    assert_eq!(answer, Reply::Stored);
    let expected = [
        format!("a set k:0:{hash} 60 0123"),
        format!("a set k:1:{hash} 60 4567"),
        format!("a set k:2:{hash} 60 89"),
        format!("a set k 60 1-3-{hash}"),
    ];
    assert_eq!(sent, expected);
    assert_eq!(store.0["k"].1, 5 | INDEX_FLAG);
    assert_eq!(store.ask(&mut bench, "get k", "").0, value(5, None, "0123456789"));
    assert_eq!(store.ask(&mut bench, "gets k", "").0, value(5, Some(7), "0123456789"));
    let (answer, sent) = store.ask(&mut bench, "gat 9 k", "");
    assert_eq!(answer, value(5, None, "0123456789"));
    assert_eq!(sent[3], format!("a gat k:2:{hash} 9"), "chunks live as long as their index");
    bench.done();
}

#[test]
fn what_is_not_big_is_stored_and_found_as_it_is() {
    let (mut bench, mut store) = (bench(), Store::default());
    assert_eq!(store.ask(&mut bench, "set k 5 0 4", "0123").1, ["a set k 0 0123"]);
    assert_eq!(store.ask(&mut bench, "get k", ""), (value(5, None, "0123"), vec!["a get k".to_owned()]));
    assert_eq!(store.ask(&mut bench, "touch k 5", "").0, Reply::Touched);
    assert_eq!(store.ask(&mut bench, "touch none 5", "").0, Reply::NotFound);
    assert_eq!(store.ask(&mut bench, "get none", "").0, Reply::Miss);
    assert_eq!(store.ask(&mut bench, "delete k", "").0, Reply::Deleted);
    let long = "k".repeat(234); // no room for the name of a chunk
    let line = format!("set {long} 32773 0 10");
    assert_eq!(store.ask(&mut bench, &line, "0123456789").1.len(), 1);
    assert_eq!(store.ask(&mut bench, &format!("get {long}"), "").0, value(32773, None, "0123456789"));
    bench.done();
}

#[test]
fn a_chunk_that_is_missing_or_anothers_makes_a_miss() {
    let (mut bench, mut store) = (bench(), Store::default());
    let Index { hash, .. } = Index::from_value(b"0123456789", 4);
    for (at, wrong) in [
        (format!("k:2:{hash}"), None),
        (format!("k:0:{hash}"), None),
        (format!("k:1:{hash}"), Some("4568")),
        (format!("k:1:{hash}"), Some("45")),
        ("k".into(), Some("1-4-1")),
        ("k".into(), Some("1-3-")),
        ("k".into(), Some("2-3-5")),
        ("k".into(), Some("1-0-5")),
        ("k".into(), Some("1-99999999-5")),
        ("k".into(), Some("1-3-+5")),
        ("k".into(), Some("x")),
    ] {
        store.ask(&mut bench, "set k 5 60 10", "0123456789");
        assert_eq!(store.ask(&mut bench, "get k", "").0, value(5, None, "0123456789"));
        match wrong {
            Some(wrong) => store.0.get_mut(&at).unwrap().0 = wrong.into(),
            None => drop(store.0.remove(&at)),
        }
        assert_eq!(store.ask(&mut bench, "get k", "").0, Reply::Miss, "{at} {wrong:?}");
        assert_eq!(store.ask(&mut bench, "gat 3 k", "").0, Reply::Miss, "{at} {wrong:?}");
    }
    bench.done();
}

#[test]
fn a_value_over_another_is_seen_whole_or_not_at_all() {
    let (mut bench, mut store) = (bench(), Store::default());
    store.ask(&mut bench, "set k 0 0 10", "aaaaaaaaaa");
    // Another client's store stops at each step; then somebody reads.
    for steps in 0..=4 {
        let mut other = self::bench();
        other.ask("set k 0 0 12", "bbbbbbbbbbbb");
        for _ in 0..steps {
            store.serve(&mut other, &mut Vec::new());
        }
        let expected = if steps < 4 { "aaaaaaaaaa" } else { "bbbbbbbbbbbb" };
        assert_eq!(store.ask(&mut bench, "get k", "").0, value(0, None, expected), "{steps}");
    }
    bench.done();
}

#[test]
fn a_chunk_that_is_not_stored_is_the_answer_and_leaves_the_index_alone() {
    let mut bench = bench();
    let Index { hash, .. } = Index::from_value(b"0123456789", 4);
    for (line, answer) in [("set k 0 60 10", error(TIMEOUT)), ("ms k 10 T60", error(TIMEOUT))] {
        bench.ask(line, "0123456789");
        assert_eq!(bench.reply(&format!("a set k:0:{hash} 60 0123"), error(TIMEOUT)), None);
        assert_eq!(bench.reply(&format!("a set k:1:{hash} 60 4567"), Reply::Stored), Some(answer));
        bench.done();
    }
    bench.get();
    let index = Index::from_value(b"0123456789", 4).written();
    let index = Reply::Value { client_flags: INDEX_FLAG, cas_unique: None, value: index };
    bench.reply("a get k", index);
    bench.reply(&format!("a get k:0:{hash}"), error(TIMEOUT));
    assert_eq!(bench.reply(&format!("a get k:1:{hash}"), Reply::Miss), Some(error(TIMEOUT)));
    bench.done();
}

#[test]
fn the_index_decides_of_add_and_a_delete_needs_no_more_than_it() {
    let (mut bench, mut store) = (bench(), Store::default());
    assert_eq!(store.ask(&mut bench, "add k 0 0 10", "0123456789").0, Reply::Stored);
    assert_eq!(store.ask(&mut bench, "add k 0 0 10", "9876543210").0, Reply::NotStored);
    assert_eq!(store.ask(&mut bench, "get k", "").0, value(0, None, "0123456789"));
    assert_eq!(store.ask(&mut bench, "delete k", ""), (Reply::Deleted, vec!["a delete k".to_owned()]));
    assert_eq!(store.ask(&mut bench, "get k", "").0, Reply::Miss);
    bench.done();
}

#[test]
fn a_touch_reaches_every_chunk_and_misses_where_one_is_gone() {
    let (mut bench, mut store) = (bench(), Store::default());
    let Index { hash, .. } = Index::from_value(b"0123456789", 4);
    store.ask(&mut bench, "set k 0 0 10", "0123456789");
    let (answer, sent) = store.ask(&mut bench, "touch k 9", "");
    assert_eq!(answer, Reply::Touched);
    assert_eq!(sent[0], "a gat k 9");
    assert_eq!(sent[3], format!("a touch k:2:{hash} 9"));
    store.0.remove(&format!("k:1:{hash}"));
    assert_eq!(store.ask(&mut bench, "touch k 9", "").0, Reply::NotFound);
    bench.done();
}

#[test]
fn a_client_may_use_the_flag_of_an_index_itself() {
    let (mut bench, mut store) = (bench(), Store::default());
    for text in ["1-3-5", "x", ""] {
        let line = format!("set k {} 0 {}", INDEX_FLAG | 3, text.len());
        store.ask(&mut bench, &line, text);
        assert_eq!(store.ask(&mut bench, "get k", "").0, value(INDEX_FLAG | 3, None, text));
    }
    bench.done();
}

#[test]
fn meta_commands_store_and_show_a_big_value_as_any_other() {
    let mut bench = bench();
    let Index { hash, .. } = Index::from_value(b"0123456789", 4);
    bench.ask("ms k 10 F5 T60 s O1", "0123456789");
    for (at, chunk) in ["0123", "4567", "89"].iter().enumerate() {
        bench.reply(&format!("a set k:{at}:{hash} 60 {chunk}"), Reply::Stored);
    }
    let sent = format!("a meta-set k T60 s O1 F{} 1-3-{hash}", 5 | INDEX_FLAG);
    assert_eq!(bench.reply(&sent, meta("HD s12 O1")), Some(meta("HD s10 O1")));
    bench.done();

    let index: String = format!("1-3-{hash}");
    let flags = 5 | INDEX_FLAG;
    for (line, sent, reply, answer, chunks) in [
        ("mg k v", "v f", format!("VA {} f{flags}", index.len()), "VA 10", true),
        (
            "mg k s t f v k",
            "s t f v k",
            format!("VA {} s12 t-1 f{flags} kk", index.len()),
            "VA 10 s10 t-1 f5 kk",
            true,
        ),
        ("mg k s", "s f v", format!("VA {} s12 f{flags}", index.len()), "HD s10", true),
        ("mg k t", "t f", format!("HD t-1 f{flags}"), "HD t-1", false),
        ("mg k f", "f", format!("HD f{flags}"), "HD f5", false),
    ] {
        bench.ask(line, "");
        let value = reply.starts_with("VA").then(|| index.clone().into());
        let mut answered =
            bench.reply(&format!("a meta-get k {sent}"), Reply::Meta { line: reply.into(), value });
        for (at, chunk) in ["0123", "4567", "89"].iter().enumerate().filter(|_| chunks) {
            assert_eq!(answered, None);
            let chunk = Reply::Value { client_flags: 5, cas_unique: None, value: (*chunk).into() };
            answered = bench.reply(&format!("a get k:{at}:{hash}"), chunk);
        }
        let value = answer.starts_with("VA").then(|| "0123456789".into());
        assert_eq!(answered, Some(Reply::Meta { line: answer.into(), value }), "{line}");
    }
    bench.ask("mg k v", "");
    assert_eq!(bench.reply("a meta-get k v f", meta("EN")), Some(meta("EN")));
    bench.ask("mg k v s", "");
    let small = |line: &'static str| Reply::Meta { line: line.into(), value: Some("ab".into()) };
    assert_eq!(bench.reply("a meta-get k v s f", small("VA 2 s2 f1")), Some(small("VA 2 s2")));
    bench.done();
}

#[test]
fn a_value_of_too_many_chunks_is_refused() {
    let mut bench = Bench::new(
        r#"{"type": "BigValueRoute", "target": "PoolRoute|a", "split_threshold": 1, "batch_size": 0}"#,
    );
    let answer = bench.ask("set k 0 0 65537", &"x".repeat(65537));
    assert!(matches!(answer, Some(Reply::Error { kind: ErrorKind::Local, .. })), "{answer:?}");
    assert_eq!(bench.ask("set k 0 0 65536", &"x".repeat(65536)), None);
    assert_eq!(bench.waiting().len(), 65536);
}

#[test]
fn the_option_splits_under_every_route() {
    let text = format!("{{{POOLS}, \"route\": \"PoolRoute|a\"}}");
    let mut bench = Bench::with(&text, &Options { big_value_threshold: 4, ..options() });
    let mut store = Store::default();
    assert_eq!(store.ask(&mut bench, "set /././k 0 0 5", "01234").1.len(), 3);
    assert_eq!(store.ask(&mut bench, "get k", "").0, value(0, None, "01234"));
    bench.done();
}

/// Writers and readers of two keys at once, whose requests are served in any order, while items are evicted:
/// a value that is found is one that somebody stored, whole.
#[test]
fn whatever_is_found_was_stored_so() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut found, mut missed) = (0, 0);
    for _ in 0..100 {
        let (mut bench, mut store) = (bench(), Store::default());
        let mut stored = std::collections::HashSet::new();
        for _ in 0..200 {
            let key = random.choice(["k", "l"]).unwrap();
            let answer = if random.u8(..3) == 0 && bench.waiting().len() < 20 {
                // Many share their chunks' contents, and their number.
                let text: String =
                    (0..random.usize(1..14)).map(|_| random.choice(["a", "b"]).unwrap()).collect();
                match random.u8(..6) {
                    0 => bench.ask(&format!("set {key} 0 0 {}", text.len()), {
                        stored.insert(text.clone());
                        &text
                    }),
                    1 => bench.ask(&format!("touch {key} 9"), ""),
                    2 => bench.ask(&format!("delete {key}"), ""),
                    _ => bench.ask(&format!("get {key}"), ""),
                }
            } else if random.u8(..30) == 0 {
                let evicted = random.choice(store.0.keys()).cloned();
                evicted.and_then(|key| store.0.remove(&key));
                None
            } else {
                let sent = random.choice(bench.waiting()).map(str::to_owned);
                sent.and_then(|sent| store.answer(&mut bench, &sent))
            };
            match answer {
                Some(Reply::Value { value, .. }) => {
                    found += 1;
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    assert!(stored.contains(&value), "{value} of {stored:?}");
                }
                Some(Reply::Miss) => missed += 1,
                _ => {}
            }
        }
    }
    println!("{found} found, {missed} missed");
    assert!(found > 50, "{found}");
}
