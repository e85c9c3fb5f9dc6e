//! The order in which a `SaltedFailoverRoute` tries a pool's servers: that of the pool's hash with a salt
//! more.

use std::sync::Arc;

use crate::hash::Ring;

/// Salts that are tried, at most.
const SALTS_MAX: u32 = 64;

/// The order in which one key tries the servers of a pool.
#[derive(Debug)]
pub(in crate::route) struct SaltedOrder {
    /// The ring of the pool, to which child 0 sends; `None` when the pool has one server.
    pub own: Option<Arc<Ring>>,
    /// How many servers the pool has. Server `at` is child `at + 1`.
    pub servers: u32,
}

impl SaltedOrder {
    /// Child 0, then every server but the one it sends to: each where a salt first hits it, and those that no
    /// salt hits as they follow that one. A `ConstShard`, say, is the same with any salt.
    pub(crate) fn order(&self, key: &[u8]) -> Vec<u32> {
        let mut tried = vec![false; self.servers as usize];
        let mut order = Vec::with_capacity(self.servers as usize);
        order.push(0);
        let own = self.own.as_ref().map_or(0, |ring| ring.pick(key));
        tried.iter_mut().skip(own).take(1).for_each(|tried| *tried = true);
        let mut visit = |server: u32| {
            if tried.get_mut(server as usize).is_some_and(|tried| !std::mem::replace(tried, true)) {
                order.push(server + 1);
            }
        };
        if let Some(ring) = &self.own {
            (1..=SALTS_MAX.min(self.servers * 4))
                .for_each(|salt| visit(ring.pick_resalted(key, salt) as u32));
        }
        (1..=self.servers).for_each(|next| visit((own as u32 + next) % self.servers));
        order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use corecached_protocol::{ErrorKind, Reply};

    use crate::config::Options;
    use crate::route::tests::{Bench, TIMEOUT, error, options, value};

    const FIVE: &str = r#""pools": {"five": {"servers": ["a:1", "b:1", "c:1", "d:1", "e:1"]}}"#;

    fn bench(route: &str, options: &Options) -> Bench {
        Bench::with(&format!("{{{FIVE}, \"route\": {route}}}"), options)
    }

    /// The servers that `key` tries, all of which fail.
    fn tries(bench: &mut Bench, key: &str) -> String {
        bench.ask(&format!("get {key}"), "");
        let mut order = String::new();
        while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
            order.push_str(&sent[..1]);
            bench.reply(&sent, error(TIMEOUT));
        }
        order
    }

    #[test]
    fn a_key_goes_where_its_pool_sends_it_and_then_visits_the_other_servers_once() {
        let mut plain = bench("\"PoolRoute|five\"", &options());
        let mut salted = bench("\"SaltedFailoverRoute|five\"", &options());
        let mut seconds: HashMap<char, HashSet<char>> = HashMap::new();
        for key in 0..200 {
            let key = format!("k{key}");
            let own = tries(&mut plain, &key);
            let order = tries(&mut salted, &key);
            assert_eq!(order[..1], own);
            let mut sorted: Vec<char> = order.chars().collect();
            sorted.sort_unstable();
            assert_eq!(sorted.into_iter().collect::<String>(), "abcde");
            assert_eq!(order, tries(&mut salted, &key), "not the same twice");
            let mut order = order.chars();
            seconds.entry(order.next().unwrap()).or_default().insert(order.next().unwrap());
        }
        // What a server leaves goes to all others, not to the next one.
        assert!(seconds.len() == 5 && seconds.values().all(|seconds| seconds.len() == 4), "{seconds:?}");
        salted.done();
    }

    #[test]
    fn servers_follow_each_other_where_no_salt_makes_a_difference() {
        let route = r#"{"type": "SaltedFailoverRoute", "pool": "five", "hash": "ConstShard"}"#;
        let mut bench = bench(route, &options());
        assert_eq!(tries(&mut bench, "k:3:x"), "deabc");
        assert_eq!(tries(&mut bench, "k:0:x"), "abcde");
    }

    #[test]
    fn a_second_server_answers_in_place_of_one_that_fails() {
        let route = r#"{"type": "SaltedFailoverRoute", "pool": "five", "failover_policy": {"max_tries": 2}}"#;
        let mut bench = bench(route, &options());
        bench.get();
        let first = bench.waiting()[0].to_owned();
        assert_eq!(bench.reply(&first, error(ErrorKind::Ejected)), None);
        let second = bench.waiting()[0].to_owned();
        assert_ne!(first, second);
        assert_eq!(bench.reply(&second, value("v")), Some(value("v")));
        assert_eq!(tries(&mut bench, "k").len(), 2);
        bench.done();
    }

    #[test]
    fn a_failed_delete_is_kept_for_its_own_server_and_goes_to_no_other() {
        let mut bench = bench("\"SaltedFailoverRoute|five\"", &Options { spool_deletes: true, ..options() });
        bench.ask("delete k", "");
        let sent = bench.waiting()[0].to_owned();
        bench.reply(&sent, error(TIMEOUT));
        assert_eq!(bench.reply("spool delete k", Reply::NotFound), Some(Reply::NotFound));
        bench.done();
    }

    #[test]
    fn a_pool_of_one_has_nowhere_else_to_go_and_an_empty_one_says_so() {
        for (servers, answer) in [("\"a:1\"", Some(error(TIMEOUT))), ("", None)] {
            let text = format!(
                "{{\"pools\": {{\"p\": {{\"servers\": [{servers}]}}}}, \"route\": \"SaltedFailoverRoute|p\"}}"
            );
            let mut bench = Bench::with(&text, &options());
            let at_once = bench.get();
            match answer {
                Some(answer) => assert_eq!(bench.reply("a get k", error(TIMEOUT)), Some(answer)),
                None => assert!(matches!(at_once, Some(Reply::Error { kind: ErrorKind::Local, .. }))),
            }
            bench.done();
        }
    }
}
