//! Which child of a request refused it, so that the request need not wait for a slow server. That child is
//! asked again when no other can answer: a refusal is of use only while there is another.

use corecached_protocol::Reply;

use crate::upstream;

/// Whether a child of a request refused it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Refused {
    #[default]
    Nobody,
    /// The first child that refused.
    By(u32),
    /// That child was asked again; it is not asked once more.
    AskedAgain,
}

impl Refused {
    /// `child` has said `reply`.
    pub(super) fn heard(&mut self, child: u32, reply: &Reply) {
        if matches!(self, Self::Nobody) && *reply == upstream::failure::slow() {
            *self = Self::By(child);
        }
    }

    /// No other child can answer: the child to ask again, if one refused.
    pub(super) fn ask_again(&mut self) -> Option<u32> {
        let Self::By(child) = *self else { return None };
        *self = Self::AskedAgain;
        Some(child)
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::upstream::failure::slow;
    use crate::config::Options;
    use crate::route::tests::{Bench, TIMEOUT, error, options, value};

    /// `route` over `two` of `a` and `b`, `a` and `b` alone, all of which may refuse, and `c`, which may not.
    fn bench(route: &str) -> Bench {
        let pool = |name: &str, servers: &str| {
            format!(r#""{name}": {{"servers": [{servers}], "adaptive_concurrency": {{}}}}"#)
        };
        let two = pool("two", r#""a:1", "b:1""#);
        let (a, b) = (pool("a", r#""a:1""#), pool("b", r#""b:1""#));
        let text =
            format!(r#"{{"pools": {{{two}, {a}, {b}, "c": {{"servers": ["c:1"]}}}}, "route": {route}}}"#);
        Bench::with(&text, &Options { zone: "near".into(), ..options() })
    }

    /// What was sent last, and whether it may be refused.
    fn sent(bench: &Bench) -> (String, bool) {
        (bench.waiting().last().unwrap()[..1].to_owned(), bench.may_be_refused)
    }

    const COPIES: &str = r#"{"type": "PoolRoute", "pool": "two", "replicas": 2}"#;
    const FAILOVER: &str = r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"]}"#;

    /// The server that `key` is sent to first, and the other one.
    fn first_and_last(bench: &mut Bench) -> (String, String) {
        bench.get();
        let (first, may_be_refused) = sent(bench);
        assert!(may_be_refused);
        let last = if first == "a" { "b" } else { "a" };
        (first, last.to_owned())
    }

    #[test]
    fn every_server_but_the_last_may_refuse_a_get() {
        for route in [COPIES, FAILOVER] {
            let mut bench = bench(route);
            let (first, last) = first_and_last(&mut bench);
            assert_eq!(bench.reply(&format!("{first} get k"), slow()), None);
            assert_eq!(sent(&bench), (last.clone(), false), "{route}");
            assert_eq!(bench.reply(&format!("{last} get k"), value("v")), Some(value("v")));
            bench.done();
        }
    }

    #[test]
    fn a_server_that_refused_is_asked_again_when_no_other_answers() {
        for route in [COPIES, FAILOVER] {
            let mut bench = bench(route);
            for answer in [value("v"), Reply::Miss, error(TIMEOUT)] {
                let (first, last) = first_and_last(&mut bench);
                bench.reply(&format!("{first} get k"), slow());
                assert_eq!(bench.reply(&format!("{last} get k"), error(ErrorKind::Ejected)), None);
                assert_eq!(sent(&bench), (first.clone(), false), "{route}");
                assert_eq!(bench.reply(&format!("{first} get k"), answer.clone()), Some(answer));
            }
            // The reply of another server that answers is the answer.
            let (first, last) = first_and_last(&mut bench);
            bench.reply(&format!("{first} get k"), slow());
            assert_eq!(bench.reply(&format!("{last} get k"), Reply::Miss), Some(Reply::Miss));
            bench.done();
        }
    }

    #[test]
    fn the_only_server_may_not_refuse() {
        for route in [
            r#""PoolRoute|a""#,
            r#"{"type": "PoolRoute", "pool": "a", "replicas": 2}"#,
            r#""FailoverRoute|PoolRoute|a""#,
            r#""AllSyncRoute|Pool|two""#,
            // Busy is no reason to go on, or there may be no token left.
            &FAILOVER.replace("}", r#", "failover_errors": ["tko"]}"#),
            &FAILOVER.replace("}", r#", "failover_limit": {"rate": 1, "burst": 10}}"#),
        ] {
            let mut bench = bench(route);
            bench.get();
            assert!(!bench.may_be_refused, "{route}");
        }
        // A cas unique is the first copy's alone.
        let mut bench = bench(COPIES);
        bench.ask("gets k", "");
        assert!(!bench.may_be_refused);
    }

    #[test]
    fn a_server_without_adaptive_concurrency_is_not_asked_whether_it_refuses() {
        let mut bench = bench(r#"{"type": "FailoverRoute", "children": ["PoolRoute|c", "PoolRoute|a"]}"#);
        bench.get();
        assert_eq!(sent(&bench), ("c".to_owned(), false));
    }

    #[test]
    fn the_last_copy_may_refuse_while_a_failover_has_another_pool_and_not_after_it() {
        let mut bench =
            bench(&format!(r#"{{"type": "FailoverRoute", "children": [{COPIES}, "PoolRoute|c"]}}"#));
        let (first, last) = first_and_last(&mut bench);
        bench.reply(&format!("{first} get k"), slow());
        assert_eq!(sent(&bench), (last.clone(), true));
        bench.reply(&format!("{last} get k"), slow());
        assert_eq!(sent(&bench), (first.clone(), true)); // asked again, and still another may answer
        bench.reply(&format!("{first} get k"), slow());
        bench.reply("c get k", error(TIMEOUT));
        assert_eq!(sent(&bench), (first.clone(), true)); // the copies from the start, the last time
        bench.reply(&format!("{first} get k"), slow());
        assert_eq!(sent(&bench), (last.clone(), false));
        assert_eq!(bench.reply(&format!("{last} get k"), value("v")), Some(value("v")));
        bench.done();
    }

    #[test]
    fn what_nobody_waits_for_may_be_refused() {
        let mut bench = bench(
            r#"{"type": "ShadowRoute", "target": "PoolRoute|c", "shadows": [{"target": "PoolRoute|a", "index_range": [0, 1], "key_fraction_range": [0, 1]}]}"#,
        );
        bench.get();
        assert_eq!(sent(&bench), ("a".to_owned(), true));
    }
}
