//! Copies of keys over six servers in three zones.

use std::collections::HashMap;

use corecached_protocol::{ErrorKind, Reply};

use crate::config::Options;
use crate::route::tests::{Bench, TIMEOUT, error, meta, options, value};

const SIX: &str = r#"{"pools": {"six": {"servers": ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1"],
    "zones": ["x", "x", "y", "y", "z", "z"]}}, "route": {"type": "PoolRoute", "pool": "six", "replicas": 2}}"#;

fn zone(host: &str) -> &'static str {
    match host {
        "a" | "b" => "x",
        "c" | "d" => "y",
        _ => "z",
    }
}

fn bench(options: &Options) -> Bench {
    Bench::with(SIX, options)
}

/// Hosts that wait for a reply.
fn hosts(bench: &Bench) -> Vec<String> {
    bench.waiting().iter().map(|sent| sent[..1].to_owned()).collect()
}

/// The hosts of a key's copies, the first of them first.
fn copies(bench: &mut Bench, key: &str) -> (String, String) {
    bench.ask(&format!("touch {key} 5"), "");
    let hosts = hosts(bench);
    for host in &hosts {
        bench.reply(&format!("{host} touch {key} 5"), Reply::Touched);
    }
    (hosts[0].clone(), hosts[1].clone())
}

/// A bench with the copies of `k`.
fn with_copies(options: &Options) -> (Bench, String, String) {
    let mut bench = bench(options);
    let (first, second) = copies(&mut bench, "k");
    (bench, first, second)
}

#[test]
fn the_first_copy_is_where_the_key_always_was_and_the_second_in_another_zone() {
    let mut plain = Bench::with(&SIX.replace(", \"replicas\": 2", ""), &options());
    let mut replicated = bench(&options());
    let mut seconds: HashMap<String, usize> = HashMap::new();
    for key in 0..300 {
        let key = format!("k{key}");
        plain.ask(&format!("delete {key}"), "");
        let own = plain.waiting()[0].to_owned();
        plain.reply(&own, Reply::Deleted);
        let (first, second) = copies(&mut replicated, &key);
        assert_eq!(first, own[..1]);
        assert_ne!(zone(&first), zone(&second));
        *seconds.entry(second).or_default() += 1;
    }
    assert!(seconds.len() == 6 && seconds.values().all(|&keys| keys > 20), "{seconds:?}");
    replicated.done();
}

#[test]
fn without_zones_copies_are_on_different_servers_and_no_more_than_there_are() {
    let mut bench = Bench::with(
        r#"{"pools": {"p": {"servers": ["a:1", "b:1", "c:1"]}}, "route": {"type": "PoolRoute", "pool": "p", "replicas": 5}}"#,
        &options(),
    );
    for key in 0..50 {
        bench.ask(&format!("set k{key} 0 0 1"), "v");
        let mut hosts = hosts(&bench);
        hosts.sort();
        assert_eq!(hosts, ["a", "b", "c"]);
        for host in hosts {
            bench.reply(&format!("{host} set k{key} 0 v"), Reply::Stored);
        }
    }
    bench.done();
}

#[test]
fn copies_follow_each_other_where_no_salt_makes_a_difference() {
    let text = SIX.replace("\"replicas\": 2", "\"replicas\": 3, \"hash\": \"ConstShard\"");
    let mut bench = Bench::with(&text, &options());
    for (key, expected) in [("k:1:x", ["b", "c", "e"]), ("k:4:x", ["e", "a", "c"])] {
        bench.ask(&format!("delete {key}"), "");
        assert_eq!(hosts(&bench), expected);
        for host in expected {
            bench.reply(&format!("{host} delete {key}"), Reply::Deleted);
        }
    }
    bench.done();
}

#[test]
fn a_get_goes_to_the_copy_of_our_zone_first() {
    for own in ["x", "y", "z", "elsewhere"] {
        let mut bench = bench(&Options { zone: own.into(), ..options() });
        for key in 0..60 {
            let key = format!("k{key}");
            let (first, second) = copies(&mut bench, &key);
            bench.ask(&format!("get {key}"), "");
            let near = if zone(&second) == own { &second } else { &first };
            assert_eq!(bench.reply(&format!("{near} get {key}"), value("v")), Some(value("v")), "{own}");
        }
        bench.done();
    }
}

#[test]
fn a_get_goes_on_after_an_error_or_a_miss() {
    let (mut bench, first, second) = with_copies(&options());
    for (one, other, answer) in [
        (error(TIMEOUT), value("v"), value("v")),
        (Reply::Miss, value("v"), value("v")),
        (Reply::Miss, error(TIMEOUT), Reply::Miss),
        (error(TIMEOUT), Reply::Miss, Reply::Miss),
        (error(TIMEOUT), error(ErrorKind::Ejected), error(TIMEOUT)),
    ] {
        bench.get();
        assert_eq!(bench.reply(&format!("{first} get k"), one), None);
        assert_eq!(bench.reply(&format!("{second} get k"), other), Some(answer));
    }
    bench.done();
}

#[test]
fn a_copy_that_is_not_stored_is_deleted_and_the_delete_kept() {
    let (mut bench, first, second) = with_copies(&Options { spool_deletes: true, ..options() });
    for (failed, stored) in [(&first, &second), (&second, &first)] {
        bench.ask("set k 0 0 1", "v");
        assert_eq!(bench.reply(&format!("{failed} set k 0 v"), error(TIMEOUT)), None);
        assert_eq!(bench.reply(&format!("{failed} delete k"), error(ErrorKind::Ejected)), None);
        assert_eq!(bench.reply(&format!("{stored} set k 0 v"), Reply::Stored), None);
        assert_eq!(bench.reply("spool delete k", Reply::NotFound), Some(Reply::Stored));
    }
    bench.done();
}

#[test]
fn a_copy_that_may_be_stale_is_an_error_to_who_stored_or_deleted() {
    let (mut bench, first, second) = with_copies(&options());
    bench.ask("set k 0 0 1", "v");
    bench.reply(&format!("{first} set k 0 v"), Reply::Stored);
    bench.reply(&format!("{second} set k 0 v"), error(TIMEOUT));
    let delete = format!("{second} delete k");
    assert_eq!(bench.reply(&delete, error(ErrorKind::Ejected)), Some(error(TIMEOUT)));
    for (one, other, answer) in [
        (Reply::Deleted, error(TIMEOUT), error(TIMEOUT)),
        (Reply::NotFound, Reply::Deleted, Reply::Deleted),
        (Reply::NotFound, Reply::NotFound, Reply::NotFound),
    ] {
        bench.ask("delete k", "");
        assert_eq!(bench.reply(&format!("{first} delete k"), one), None);
        assert_eq!(bench.reply(&delete, other), Some(answer));
    }
    bench.done();
}

#[test]
fn the_first_copy_decides_and_the_others_are_given_the_same() {
    let (mut bench, first, second) = with_copies(&options());
    for line in ["add k 5 9 1", "replace k 5 9 1", "cas k 5 9 1 7", "ms k 1 C7 T9 F5"] {
        bench.ask(line, "v");
        let sent = bench.waiting()[0].to_owned();
        assert!(sent.starts_with(&first), "{line}");
        let stored = if line.starts_with("ms") { meta("HD") } else { Reply::Stored };
        assert_eq!(bench.reply(&sent, stored.clone()), None);
        let set = format!("{second} set k 9 v");
        assert_eq!(bench.request(&set).client_flags(), 5);
        assert_eq!(bench.reply(&set, Reply::Stored), Some(stored), "{line}");
        bench.ask(line, "v");
        assert_eq!(bench.reply(&sent, Reply::NotStored), Some(Reply::NotStored), "{line}");
        bench.ask(line, "v");
        assert_eq!(bench.reply(&sent, error(TIMEOUT)), None);
        let delete = format!("{first} delete k");
        assert_eq!(bench.reply(&delete, Reply::Deleted), Some(error(TIMEOUT)), "{line}");
        bench.done();
    }
}

#[test]
fn what_only_the_first_copy_can_know_is_deleted_in_the_others() {
    let (mut bench, first, second) = with_copies(&options());
    let delete = format!("{second} delete k");
    for line in ["incr k 1", "append k 0 0 1", "ma k"] {
        bench.ask(line, "v");
        let sent = bench.waiting()[0].to_owned();
        assert!(sent.starts_with(&first), "{line}");
        assert_eq!(bench.reply(&sent, Reply::Number(2)), None);
        assert_eq!(bench.reply(&delete, error(TIMEOUT)), Some(Reply::Number(2)), "{line}");
        bench.ask(line, "v");
        assert_eq!(bench.reply(&sent, Reply::NotFound), Some(Reply::NotFound), "{line}");
        bench.ask(line, "v");
        assert_eq!(bench.reply(&sent, error(TIMEOUT)), None); // it may have been done
        assert_eq!(bench.reply(&delete, Reply::Deleted), Some(error(TIMEOUT)), "{line}");
        bench.done();
    }
}

#[test]
fn a_cas_unique_is_always_the_first_copys_and_every_copy_is_touched() {
    let (mut bench, first, second) = with_copies(&options());
    for line in ["gets k", "mg k v c", "mg k v N9", "me k"] {
        bench.ask(line, "");
        let sent = bench.waiting()[0].to_owned();
        assert!(sent.starts_with(&first), "{line}");
        assert_eq!(bench.reply(&sent, error(TIMEOUT)), Some(error(TIMEOUT)), "{line}");
    }
    bench.ask("gats 5 k", "");
    bench.reply(&format!("{second} touch k 5"), Reply::Touched);
    assert_eq!(bench.reply(&format!("{first} gats k 5"), value("v")), Some(value("v")));
    bench.ask("gat 5 k", "");
    bench.reply(&format!("{second} gat k 5"), Reply::Miss);
    assert_eq!(bench.reply(&format!("{first} gat k 5"), value("v")), Some(value("v")));
    bench.ask("touch k 5", "");
    bench.reply(&format!("{second} touch k 5"), Reply::Touched);
    assert_eq!(bench.reply(&format!("{first} touch k 5"), error(TIMEOUT)), Some(Reply::Touched));
    bench.done();
}

#[test]
fn a_key_that_only_base64_names_has_one_copy() {
    let mut bench = bench(&options());
    for line in ["ms YSBi 1 b", "mg YSBi b v", "md YSBi b"] {
        bench.ask(line, "v");
        let sent = bench.waiting().into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(sent.len(), 1, "{line}");
        bench.reply(&sent[0], meta("HD"));
    }
    bench.done();
}

/// Servers whose requests are sometimes done and not answered, or neither.
#[derive(Default)]
struct Servers {
    held: HashMap<(char, String), String>,
    /// Requests that were not answered as they should.
    failed: usize,
}

impl Servers {
    /// Serves what waits, in any order, until the client has its answer and nothing is left.
    fn serve(&mut self, bench: &mut Bench, random: &mut fastrand::Rng, failing: u8) -> Option<Reply> {
        let mut answer = None;
        while let Some(sent) = random.choice(bench.waiting()).map(str::to_owned) {
            let fails = random.u8(..100) < failing;
            let reply = if fails && random.bool() { Reply::Miss } else { self.reply(bench, &sent) };
            self.failed += usize::from(fails);
            answer = answer.or(bench.reply(&sent, if fails { error(TIMEOUT) } else { reply }));
        }
        answer
    }

    fn reply(&mut self, bench: &Bench, sent: &str) -> Reply {
        let request = bench.request(sent);
        let key = (sent.chars().next().unwrap(), String::from_utf8(request.key().to_vec()).unwrap());
        let data = String::from_utf8(request.data().to_vec()).unwrap();
        let held = self.held.get(&key).cloned();
        match (sent.split(' ').nth(1).unwrap(), held) {
            ("get", held) => held.map_or(Reply::Miss, |held| value(&held)),
            ("set", _) | ("add", None) => {
                self.held.insert(key, data);
                Reply::Stored
            }
            ("append", Some(held)) => {
                self.held.insert(key, held + &data);
                Reply::Stored
            }
            ("add" | "append", _) => Reply::NotStored,
            ("touch", held) => held.map_or(Reply::NotFound, |_| Reply::Touched),
            ("delete", _) => self.held.remove(&key).map_or(Reply::NotFound, |_| Reply::Deleted),
            other => panic!("{other:?}"),
        }
    }
}

/// One client, servers that fail and evict: what it was told is stored is what it reads, or nothing; what it
/// was told is deleted is gone. After an error either may be.
#[test]
fn whatever_a_client_was_told_holds_in_every_copy() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut found, mut failed) = (0, 0);
    for round in 0..200 {
        let (mut bench, mut servers) = (bench(&options()), Servers::default());
        let failing = if round % 2 == 0 { 10 } else { 0 };
        // What may be read, beside a miss.
        let mut may: Vec<String> = Vec::new();
        for step in 0..60 {
            let failed_before = servers.failed;
            let text = format!("<{step}>");
            let kind = random.choice(["get", "get", "set", "add", "append", "touch", "delete"]).unwrap();
            let line = match kind {
                "set" | "add" | "append" => format!("{kind} k 0 0 {}", text.len()),
                "touch" => "touch k 9".into(),
                _ => format!("{kind} k"),
            };
            let at_once = bench.ask(&line, &text);
            let answer = at_once.or(servers.serve(&mut bench, &mut random, failing)).expect("an answer");
            let unsure =
                servers.failed > failed_before && kind == "append" || matches!(answer, Reply::Error { .. });
            let before = may.clone();
            match (kind, &answer) {
                ("get", Reply::Value { value, .. }) => {
                    found += 1;
                    let value = std::str::from_utf8(value).unwrap();
                    assert!(
                        may.iter().any(|may| may == value),
                        "round {round} step {step}: {value} of {may:?}"
                    );
                }
                ("set", Reply::Stored | Reply::Error { .. })
                | ("add", Reply::Stored | Reply::Error { .. }) => {
                    may = vec![text];
                }
                ("append", Reply::Stored | Reply::Error { .. }) => {
                    may.iter_mut().for_each(|may| may.push_str(&text));
                }
                ("delete", Reply::Deleted | Reply::NotFound) => may.clear(),
                _ => {}
            }
            if unsure {
                may.extend(before);
            }
            if random.u8(..20) == 0 {
                let evicted = random.choice(servers.held.keys()).cloned();
                evicted.map(|key| servers.held.remove(&key));
            }
        }
        failed += servers.failed;
        bench.done();
    }
    println!("{found} found, {failed} requests failed");
    assert!(found > 1000 && failed > 100, "{found} {failed}");
}

// --- hedged gets ---

/// Three servers, two copies, and hedges as `hedge` says.
fn hedging(hedge: &str) -> Bench {
    Bench::with(
        &format!(
            r#"{{"pools": {{"p": {{"servers": ["a:1", "b:1", "c:1"]}}}},
                "route": {{"type": "PoolRoute", "pool": "p", "replicas": 2, "hedge": {hedge}}}}}"#
        ),
        &options(),
    )
}

/// Gets of many keys, each answered after so many milliseconds.
fn learn(bench: &mut Bench, took_ms: u64) {
    for key in 0..400 {
        bench.ask(&format!("get learn{key}"), "");
        let sent = bench.waiting()[0].to_owned();
        // Longer than a get waits would make a hedge.
        assert_eq!(bench.pass(took_ms), None);
        assert_eq!(bench.reply(&sent, value("v")), Some(value("v")));
    }
}

/// A bench that knows that replies take a millisecond, and where `k` is.
fn hedging_with_copies(hedge: &str) -> (Bench, String, String) {
    let mut bench = hedging(hedge);
    let (first, second) = copies(&mut bench, "k");
    learn(&mut bench, 1);
    (bench, first, second)
}

#[test]
fn a_get_that_waits_longer_than_usual_goes_to_the_second_copy_and_the_first_value_is_the_answer() {
    for slow_answers in [value("late"), Reply::Miss, error(TIMEOUT)] {
        let (mut bench, first, second) = hedging_with_copies("{}");
        bench.get();
        assert_eq!(bench.pass(1), None);
        assert_eq!(hosts(&bench), std::slice::from_ref(&first));
        assert_eq!(bench.pass(1), None);
        assert_eq!(hosts(&bench), [first.clone(), second.clone()]);
        assert_eq!(bench.reply(&format!("{second} get k"), value("v")), Some(value("v")));
        assert_eq!(bench.reply(&format!("{first} get k"), slow_answers), None);
        let counters = bench.execution.tail_counters();
        assert_eq!((counters.hedges_sent, counters.hedges_won, counters.hedges_denied), (1, 1, 0));
        bench.done();
    }
}

#[test]
fn a_first_copy_that_is_sooner_wins_and_the_hedge_is_overlooked() {
    let (mut bench, first, second) = hedging_with_copies("{}");
    bench.get();
    bench.pass(2);
    assert_eq!(bench.reply(&format!("{first} get k"), value("v")), Some(value("v")));
    assert_eq!(bench.reply(&format!("{second} get k"), Reply::Miss), None);
    assert_eq!(bench.execution.tail_counters().hedges_won, 0);
    bench.done();
}

#[test]
fn a_miss_of_one_copy_is_no_answer_while_the_other_may_have_the_key() {
    for (one, other, answer) in [
        (Reply::Miss, value("v"), value("v")),
        (error(TIMEOUT), value("v"), value("v")),
        (Reply::Miss, Reply::Miss, Reply::Miss),
        (error(TIMEOUT), Reply::Miss, Reply::Miss),
        (error(TIMEOUT), error(TIMEOUT), error(TIMEOUT)),
    ] {
        for hedge_first in [true, false] {
            let (mut bench, first, second) = hedging_with_copies("{}");
            bench.get();
            bench.pass(2);
            let (sooner, later) = if hedge_first { (second, first) } else { (first, second) };
            assert_eq!(bench.reply(&format!("{sooner} get k"), one.clone()), None);
            assert_eq!(bench.reply(&format!("{later} get k"), other.clone()), Some(answer.clone()));
            bench.done();
        }
    }
}

#[test]
fn what_does_more_than_show_a_value_is_never_sent_twice() {
    let (mut bench, _, _) = hedging_with_copies("{}");
    for (line, data) in [
        ("gets k", ""),
        ("gat 5 k", ""),
        ("mg k v N30", ""),
        ("mg k v T30", ""),
        ("mg k v E5", ""),
        ("mg k v R30", ""),
        ("set k 0 0 1", "v"),
        ("incr k 1", ""),
        ("delete k", ""),
    ] {
        bench.ask(line, data);
        let before: Vec<String> = bench.waiting().iter().map(|sent| (*sent).to_owned()).collect();
        assert_eq!(bench.pass(500), None, "{line}");
        assert_eq!(bench.waiting(), before, "{line}");
    }
    assert_eq!(bench.execution.tail_counters().hedges_sent, 0);
}

#[test]
fn a_plain_meta_get_is_hedged() {
    let (mut bench, first, second) = hedging_with_copies("{}");
    bench.ask("mg k v", "");
    bench.pass(2);
    assert_eq!(hosts(&bench), [first.clone(), second.clone()]);
    bench.reply(&format!("{second} meta-get k v"), meta("VA 1"));
    bench.reply(&format!("{first} meta-get k v"), meta("VA 1"));
    bench.done();
}

#[test]
fn a_budget_bounds_hedges_when_all_servers_are_slow() {
    let (mut bench, _, _) = hedging_with_copies(r#"{"budget_percent": 10}"#);
    let gets = 1000;
    for key in 0..gets {
        bench.ask(&format!("get slow{key}"), "");
        bench.pass(3);
    }
    let counters = *bench.execution.tail_counters();
    assert!((100..=111).contains(&counters.hedges_sent), "{counters:?}");
    assert_eq!(counters.hedges_sent + counters.hedges_denied, gets);
}

#[test]
fn a_get_waits_as_long_as_the_next_copy_usually_takes_however_slow_the_first_is() {
    let mut bench = hedging(r#"{"budget_percent": 100}"#);
    // One server of three answers after 50 ms: the first copy of a third of the keys.
    for key in 0..600 {
        bench.ask(&format!("get k{key}"), "");
        let mut answered_ms = None;
        for ms in 1..=60 {
            let mut answer = bench.pass(1);
            let waiting: Vec<String> = bench.waiting().iter().map(|sent| (*sent).to_owned()).collect();
            for sent in waiting.iter().filter(|sent| !sent.starts_with('a') || ms >= 50) {
                answer = bench.reply(sent, value("v")).or(answer);
            }
            answered_ms = answered_ms.or(answer.map(|_| ms));
        }
        assert!(key < 300 || answered_ms.is_some_and(|ms| ms <= 4), "k{key}: {answered_ms:?}");
    }
    bench.done();
}

#[test]
fn with_little_known_nothing_is_hedged() {
    let mut bench = hedging("{}");
    bench.get();
    assert_eq!(bench.pass(900), None);
    assert_eq!(bench.waiting().len(), 1);
    let sent = bench.waiting()[0].to_owned();
    bench.reply(&sent, Reply::Miss);
    let sent = bench.waiting()[0].to_owned();
    assert_eq!(bench.reply(&sent, Reply::Miss), Some(Reply::Miss));
    bench.done();
}

#[test]
fn a_get_is_hedged_no_sooner_than_it_is_told() {
    let (mut bench, _, second) = hedging_with_copies(r#"{"min_delay_ms": 20}"#);
    bench.get();
    bench.pass(19);
    assert_eq!(bench.waiting().len(), 1);
    bench.pass(1);
    assert_eq!(hosts(&bench)[1], second);
}
