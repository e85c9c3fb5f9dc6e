//! Routing prefixes of keys, `/region/cluster/`, and those with `*`.

/// The length in bytes of the `/region/cluster/` that `key` begins with.
#[inline]
pub(super) fn prefix_len(key: &[u8]) -> Option<usize> {
    if key.first() != Some(&b'/') {
        return None;
    }
    let region = memchr::memchr(b'/', &key[1..]).filter(|&len| len > 0)?;
    let cluster = memchr::memchr(b'/', &key[region + 2..]).filter(|&len| len > 0)?;
    Some(region + cluster + 3)
}

/// `key` without its `/region/cluster/`, if it has one.
#[must_use]
pub(crate) fn without_prefix(key: &[u8]) -> &[u8] {
    &key[prefix_len(key).unwrap_or(0)..]
}

/// Whether the routing prefix `known` is that of all clusters in the region of `prefix` that are not configured:
/// `/region/fallback/`.
pub(super) fn is_fallback(known: &[u8], prefix: &[u8]) -> bool {
    let Some(region) = known.strip_suffix(b"fallback/") else { return false };
    region.len() > 2 && prefix.starts_with(region) && region.iter().filter(|&&byte| byte == b'/').count() == 2
}

/// Whether the routing prefix `known` fits `pattern`, in which `*` matches any bytes but `/`.
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

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, meta, options};

    #[test]
    fn clusters_that_are_not_configured_go_to_the_fallback_of_their_region() {
        let text = format!(
            r#"{{{POOLS}, "routes": {{"/././": "PoolRoute|a", "/r/x/": "PoolRoute|b", "/r/fallback/": "PoolRoute|c"}}}}"#
        );
        let mut bench = Bench::with(&text, &options());
        for (key, host) in [("/r/x/k", "b"), ("/r/unknown/k", "c"), ("/r/fallback/k", "c")] {
            bench.ask(&format!("get {key}"), "");
            assert_eq!(bench.reply(&format!("{host} get k"), Reply::Miss), Some(Reply::Miss));
        }
        for key in ["/rr/unknown/k", "/s/unknown/k"] {
            assert!(matches!(bench.ask(&format!("get {key}"), ""), Some(Reply::Error { .. })), "{key}");
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
