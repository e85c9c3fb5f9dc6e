//! Choosing by key prefix, and routing prefixes with `*`.

use super::tree::NodeId;

/// The node of the longest prefix that `key` begins with; `policies` has the longest first.
#[inline]
pub(super) fn by_prefix(policies: &[(Box<[u8]>, NodeId)], wildcard: NodeId, key: &[u8]) -> NodeId {
    policies.iter().find_map(|(prefix, node)| key.starts_with(prefix).then_some(*node)).unwrap_or(wildcard)
}

/// Whether the routing prefix `known` fits `pattern`, in which `*` stands for any bytes but `/`.
pub(super) fn glob(pattern: &[u8], known: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit: the star takes one byte more.
    let (mut at, mut from, mut retry) = (0, 0, None);
    while from < known.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, from));
        } else if pattern.get(at) == Some(&known[from]) {
            at += 1;
            from += 1;
        } else {
            match retry {
                Some((star, taken)) if known[taken] != b'/' => {
                    at = star;
                    from = taken + 1;
                    retry = Some((star, taken + 1));
                }
                _ => return false,
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::super::config::Options;
    use super::super::tests::{Bench, POOLS, meta, options};

    #[test]
    fn operations_are_selected_by_name() {
        let mut bench = Bench::new(
            r#"{"type": "OperationSelectorRoute", "default_policy": "PoolRoute|a",
                "operation_policies": {"set": "PoolRoute|b", "delete": "PoolRoute|c", "gets": "PoolRoute|d"}}"#,
        );
        for (line, data, sent) in [
            ("get k", "", "a get k"),
            ("set k 0 0 1", "x", "b set k 0 x"),
            ("ms k 1", "x", "b meta-set k x"),
            ("add k 0 0 1", "x", "a add k 0 x"),
            ("delete k", "", "c delete k"),
            ("md k", "", "c meta-delete k"),
            ("gets k", "", "d gets k"),
            ("mg k c", "", "d meta-gets k c"),
        ] {
            bench.ask(line, data);
            bench.reply(sent, Reply::Miss);
        }
        bench.done();
    }

    #[test]
    fn operations_are_selected_by_class() {
        let mut bench = Bench::new(
            r#"{"type": "RoutingGroupRoute", "default_policy": "PoolRoute|a",
                "routing_group_policies": {"update_like": "PoolRoute|b", "arithmetic_like": "PoolRoute|c"}}"#,
        );
        for (line, data, sent) in [
            ("get k", "", "a get k"),
            ("cas k 0 0 1 5", "x", "b cas k 0 x"),
            ("decr k 1", "", "c decr k"),
            ("touch k 1", "", "a touch k 1"),
        ] {
            bench.ask(line, data);
            bench.reply(sent, Reply::Miss);
        }
        bench.done();
    }

    #[test]
    fn the_longest_key_prefix_wins() {
        let mut bench = Bench::new(
            r#"{"type": "PrefixSelectorRoute", "policies": {"a": "PoolRoute|a", "ab": "PoolRoute|b"}, "wildcard": "PoolRoute|c"}"#,
        );
        for (key, host) in [("a", "a"), ("ax", "a"), ("ab", "b"), ("abc", "b"), ("b", "c")] {
            bench.ask(&format!("get {key}"), "");
            bench.reply(&format!("{host} get {key}"), Reply::Miss);
        }
        bench.done();
    }

    #[test]
    fn a_routing_prefix_chooses_the_route_and_is_not_sent() {
        let text = format!(
            r#"{{{POOLS}, "routes": {{"/././": "PoolRoute|a", "/r/x/": "PoolRoute|b", "/r/y/": "PoolRoute|c", "/s/y/": "PoolRoute|d"}}}}"#
        );
        let mut bench = Bench::with(&text, &options());
        for (key, host) in [("k", "a"), ("/././k", "a"), ("/r/x/k", "b"), ("/s/y/k", "d")] {
            bench.ask(&format!("get {key}"), "");
            assert_eq!(bench.reply(&format!("{host} get k"), Reply::Miss), Some(Reply::Miss));
        }
        let unknown = bench.ask("get /no/where/k", "");
        assert!(
            matches!(unknown, Some(Reply::Error { ref line, .. }) if line == "SERVER_ERROR RootRoute: No rh found")
        );
        assert!(matches!(bench.ask("get /r/x/", ""), Some(Reply::Error { kind: ErrorKind::BadKey, .. })));
        bench.ask("get /one", ""); // one part alone is a key like any other
        bench.reply("a get /one", Reply::Miss);
        for (key, hosts, answers) in
            [("/*/*/k", "abcd", "a"), ("/r/*/k", "bc", "b"), ("/*/y/k", "cd", "c"), ("/r/*x/k", "b", "b")]
        {
            bench.ask(&format!("delete {key}"), "");
            let mut sent: Vec<String> = bench.waiting().into_iter().map(str::to_owned).collect();
            sent.sort();
            let expected: Vec<String> = hosts.chars().map(|host| format!("{host} delete k")).collect();
            assert_eq!(sent, expected, "{key}");
            for sent in sent.iter().rev() {
                assert_eq!(
                    bench.reply(sent, Reply::Deleted).is_some(),
                    sent.starts_with(answers),
                    "{key} {sent}"
                );
            }
        }
        bench.done();
        let default = Options { send_invalid_route_to_default: true, ..options() };
        let mut bench = Bench::with(&text, &default);
        bench.ask("get /no/where/k", "");
        bench.reply("a get k", Reply::Miss);
        bench.done();
    }

    #[test]
    fn a_pool_may_keep_routing_prefixes_and_meta_replies_show_the_clients_key() {
        let text =
            r#"{"pools": {"a": {"servers": ["a:1"], "keep_routing_prefix": true}}, "route": "PoolRoute|a"}"#;
        let mut bench = Bench::with(text, &options());
        bench.ask("get /././k", "");
        bench.reply("a get /././k", Reply::Miss);
        bench.ask("get k", "");
        bench.reply("a get k", Reply::Miss);
        bench.done();
        let mut bench = Bench::new("\"PoolRoute|a\"");
        bench.ask("mg /././k k v", "");
        assert_eq!(bench.reply("a meta-get k k v", meta("VA 1 kk")), Some(meta("VA 1 k/././k")));
        bench.ask("me /././k", "");
        assert_eq!(bench.reply("a meta-metaget k", meta("ME k exp=-1")), Some(meta("ME /././k exp=-1")));
        bench.done();
    }
}
