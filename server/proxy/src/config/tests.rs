//! Configurations as they are found in the world, and what is said of wrong ones.

use super::*;

fn no_import(path: &str) -> Result<String, ImportError> {
    match path {
        "pool.json" => Ok(r#"{"servers": ["imported:1", /* the last */ "imported:2",]}"#.into()),
        "macros.json" => Ok(r#"{"c": {"type": "constDef", "result": "!"}, "m": {"type": "macroDef", "params": ["x"], "result": "%x%%c%"}}"#.into()),
        "self.json" => Ok("\"@import(self.json)\"".into()),
        _ => Err("no such file".into()),
    }
}

fn parse(text: &str) -> Result<Config, super::error::ConfigError> {
    Config::parse("config.json", text, &Options::default(), &no_import)
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn addresses(config: &Config, pool: &str) -> Vec<String> {
    let pool = config.pools.iter().find(|known| known.name == pool).unwrap();
    let address = |member: &Member| match member {
        Member::Server(server) => server.address.to_string(),
        Member::Handle(_) => "handle".into(),
    };
    pool.members.iter().map(address).collect()
}

fn root(config: &Config) -> &Handle {
    config.handle(config.routes[0].1)
}

#[test]
fn the_configuration_of_the_tutorials_chart_is_read() {
    let config = config(
        r#"{
          "pools": {
            "A": {
              "servers": [
                "mycache-memcached-0.mycache-memcached.default.svc.cluster.local:11211",
                "mycache-memcached-1.mycache-memcached.default.svc.cluster.local:11211",
                "mycache-memcached-2.mycache-memcached.default.svc.cluster.local:11211",
              ]
            }
          },
          "route": "PoolRoute|A"
        }"#,
    );
    assert_eq!(config.routes, [("/././".to_owned(), HandleId(0))]);
    assert_eq!(addresses(&config, "A").len(), 3);
    let Handle::Pool(route) = root(&config) else { panic!("{:?}", root(&config)) };
    assert!(route.spool_deletes);
    assert_eq!(route.hash.distribution, crate::hash::Distribution::Ch3);
    let Member::Server(server) = &config.pools[0].members[0] else { panic!() };
    assert_eq!((server.reply_timeout_ms, server.connect_timeout_ms, server.tls), (1000, 1000, false));
}

#[test]
fn comments_of_both_kinds_and_trailing_commas_are_overlooked() {
    let text =
        "// a\n{ /* b */ \"pools\": {\"A\": {\"servers\": [\"h:1\",],},}, \"route\": \"PoolRoute|A\", }";
    assert_eq!(addresses(&config(text), "A"), ["h:1"]);
}

#[test]
fn short_forms_nest() {
    let pools = r#""pools": {"A": {"servers": ["a:1", "b:1"]}}"#;
    for (route, kind, children) in [
        ("\"AllSyncRoute|Pool|A\"", "AllSyncRoute", 1),
        ("\"HashRoute|ErrorRoute\"", "HashRoute", 1),
        ("\"NullRoute\"", "NullRoute", 0),
        ("\"ErrorRoute|gone\"", "ErrorRoute", 0),
        (
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|A", [["Pool|A"], "NullRoute"]]}"#,
            "FailoverRoute",
            3,
        ),
    ] {
        let config = config(&format!("{{{pools}, \"route\": {route}}}"));
        assert_eq!(root(&config).name(), kind);
        assert_eq!(root(&config).children().len(), children, "{route}");
    }
}

#[test]
fn a_named_handle_is_the_same_handle_wherever_it_is_used() {
    let config = config(
        r#"{"pools": {"A": {"servers": ["a:1"]}},
            "named_handles": [{"type": "PoolRoute", "name": "shared", "pool": "A"}],
            "route": {"type": "AllSyncRoute", "children": ["shared", "shared"]}}"#,
    );
    let children = root(&config).children();
    assert_eq!(children.len(), 2);
    assert_eq!(children[0], children[1]);
}

#[test]
fn a_pool_inherits_what_it_does_not_say() {
    let config = config(
        r#"{"pools": {"base": {"servers": ["a:1"], "server_timeout": 7, "use_ssl": true},
                      "own": {"inherit": "base", "servers": ["b:2"]},
                      "same": {"inherit": "base"}},
            "route": "PoolRoute|own"}"#,
    );
    assert_eq!(addresses(&config, "own"), ["b:2"]);
    assert_eq!(addresses(&config, "same"), ["a:1"]);
    for pool in &config.pools {
        let Member::Server(server) = &pool.members[0] else { panic!() };
        assert_eq!((server.reply_timeout_ms, server.tls), (7, true), "{}", pool.name);
    }
}

#[test]
fn routes_are_given_by_aliases_or_by_prefix() {
    for routes in [
        r#"[{"aliases": ["/a/b/", "/a/c"], "route": "NullRoute"}, {"aliases": ["/././"], "route": "ErrorRoute"}]"#,
        r#"{"/a/b": "NullRoute", "/a/c/": "NullRoute", "/././": "ErrorRoute"}"#,
    ] {
        let config = config(&format!("{{\"routes\": {routes}}}"));
        let prefixes: Vec<&str> = config.routes.iter().map(|(prefix, _)| prefix.as_str()).collect();
        assert_eq!(prefixes, ["/a/b/", "/a/c/", "/././"]);
        assert_eq!(config.routes[0].1, config.routes[1].1);
    }
}

#[test]
fn macros_constants_and_calls_are_expanded() {
    let config = config(
        r#"{
          "macros": {
            "servers": {"type": "macroDef", "params": ["host", {"name": "port", "default": 11211}],
                        "result": ["%host%:%port%"]},
            "port": {"type": "constDef", "result": "@add(11000,@int(\"5\"))"},
          },
          "consts": [{"type": "constDef", "name": "host", "result": "cache"}],
          "pools": {
            "default": {"servers": "@servers(a)"},
            "given": {"servers": "@servers(%host%,7)"},
            "object": {"servers": {"type": "servers", "host": "o", "port": "%port%"}},
            "merged": {"servers": "@merge(@servers(a),@servers(b))"},
            "if": {"servers": {"type": "if", "condition": "@equals(%host%,cache)", "is_true": ["yes:1"], "is_false": "@fail(no)"}},
            "imported": "@import(pool.json)",
            "fallback": {"servers": {"type": "import", "path": "none.json", "default": ["d:1"]}},
            "chosen": {"servers": {"type": "select", "dictionary": {"x": ["x:1"], "y": ["y:1"]}, "key": "y"}},
            "scoped": {"vars": {"n": 9}, "servers": ["v:%n%"]},
          },
          "route": "NullRoute"
        }"#
        .replace("@int(\\\"5\\\")", "@int(5)")
        .as_str(),
    );
    for (pool, expected) in [
        ("default", &["a:11211"][..]),
        ("given", &["cache:7"]),
        ("object", &["o:11005"]),
        ("merged", &["a:11211", "b:11211"]),
        ("if", &["yes:1"]),
        ("imported", &["imported:1", "imported:2"]),
        ("fallback", &["d:1"]),
        ("chosen", &["y:1"]),
        ("scoped", &["v:9"]),
    ] {
        assert_eq!(addresses(&config, pool), expected, "{pool}");
    }
}

#[test]
fn every_fault_names_line_key_value_and_remedy() {
    let pools = "\"pools\": {\"A\": {\"servers\": [\"a:1\"]}}";
    for (text, line, said) in [
        ("{".to_owned(), 1, ""),
        ("[]".to_owned(), 1, "must be an object"),
        ("{\"route\": \"NullRoute\",\n \"routes\": []}".to_owned(), 1, "either"),
        ("{}".to_owned(), 1, "route: is missing"),
        ("{\n\"route\": \"PoolRoute|B\"}".to_owned(), 2, "pool = B: there is no such pool"),
        (format!("{{{pools},\n\"route\": \"PoolRuote|A\"}}"), 2, "PoolRuote: no route handle"),
        (
            "{\"pools\": {\"A\": {\n\"servers\": [\n\"a:1\",\n\"a:99999\"]}}, \"route\": \"PoolRoute|A\"}"
                .to_owned(),
            4,
            "pools.A.servers[1] = \"a:99999\": the port",
        ),
        (
            "{\"pools\": {\"A\": {\"inherit\": \"A\"}}, \"route\": \"NullRoute\"}".to_owned(),
            1,
            "inherits from itself",
        ),
        (
            "{\"named_handles\": {\"x\": \"AllSyncRoute|x\"}, \"route\": \"x\"}".to_owned(),
            1,
            "contains itself",
        ),
        ("{\"route\": \"@nothing(1)\"}".to_owned(), 1, "@nothing: there is no such call"),
        ("{\"route\": \"@process(1)\"}".to_owned(), 1, "@process: there is no such call"),
        ("{\"route\": \"%x%\"}".to_owned(), 1, "nothing is called \"x\""),
        ("{\"route\": \"@import(none)\"}".to_owned(), 1, "@import = none: no such file"),
        ("{\"route\": \"@import(self.json)\"}".to_owned(), 1, "nested"),
        ("{\"route\": \"@fail(because)\"}".to_owned(), 1, "because"),
        ("{\"route\": \"@div(1,0)\"}".to_owned(), 1, "cannot be done"),
        (
            format!(
                "{{{pools},\n\"route\": {{\"type\": \"PoolRoute\", \"pool\": \"A\",\n \"hash\": {{\"hash_func\": \"Ch9\"}}}}}}"
            ),
            3,
            "hash_func = Ch9: must be one of Ch3",
        ),
        (
            format!(
                "{{{pools}, \"route\": {{\"type\": \"AllSyncRoute\", \"children\": {{\"type\": \"PrefixSelectorRoute\"}}}}}}"
            ),
            1,
            "directly under",
        ),
        ("{\"routes\": {\"/a/b/\": \"NullRoute\"}}".to_owned(), 1, "/././: needs a route"),
        ("{\"routes\": {\"/a/\": \"NullRoute\"}}".to_owned(), 1, "/a/: must be"),
        ("[".repeat(100_000), 1, "nested"),
    ] {
        match parse(&text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => {
                assert!(error.to_string().contains(said), "{error}\n{text}");
                assert_eq!(error.line, line, "{error}\n{text}");
            }
        }
    }
}

/// `json` as the preprocessor expands it, or its error.
fn expanded(macros: &str, json: &str) -> Result<String, String> {
    let text = format!("{{\"macros\": {macros}, \"json\": {json}}}");
    let mut sources = super::json::Sources::default();
    let read = sources.read("config.json", &text).map_err(|error| error.to_string())?;
    let globals = std::collections::HashMap::new();
    let done = super::macros::Preprocessor::new(&mut sources, &no_import, globals).run(&read);
    Ok(done.map_err(|error| error.to_string())?.get("json").map_or("null".to_owned(), ToString::to_string))
}

#[test]
fn definitions_come_in_every_form_and_order() {
    for macros in [
        r#"{"m": {"type": "macroDef", "params": ["x"], "result": "%x%%c%"}, "c": {"type": "constDef", "result": "%d%"}, "d": {"type": "constDef", "result": "!"}}"#,
        // A list of objects from names to definitions, as mcrouter's documentation has it.
        r#"[{"m": {"type": "macroDef", "params": ["x"], "result": "%x%%c%"}}, {"c": {"type": "constDef", "result": "%d%"}, "d": {"type": "constDef", "result": "!"}}]"#,
        r#"[{"type": "macroDef", "name": "m", "params": ["x"], "result": "%x%%c%"}, [{"c": {"type": "constDef", "result": "!"}}]]"#,
        r#""@import(macros.json)""#,
        r#"["@import(macros.json)", {"unused": {"type": "constDef", "result": "%nothing%"}}]"#,
        // A constant may use a macro.
        r#"{"c": {"type": "constDef", "result": "@bang()"}, "bang": {"type": "macroDef", "result": "!"}, "m": {"type": "macroDef", "params": ["x"], "result": "%x%%c%"}}"#,
    ] {
        assert_eq!(expanded(macros, r#""@m(a)""#).as_deref(), Ok(r#""a!""#), "{macros}");
    }
    for (macros, said) in [
        (r#"{"c": {"type": "constDef", "result": "%c%"}}"#, "defined by itself"),
        (
            r#"{"c": {"type": "macroDef", "params": [{"name": "a", "default": 1}, "b"], "result": 1}}"#,
            "come last",
        ),
        (
            r#"{"c": {"type": "macroDef", "params": [{"name": "a", "default": 1, "optional": false}], "result": 1}}"#,
            "optional",
        ),
        (r#"{"c": {"type": "other", "result": 1}}"#, "macroDef"),
        ("7", "list or an object"),
    ] {
        let error = expanded(macros, r#""%c%""#).unwrap_err();
        assert!(error.contains(said), "{macros}: {error}");
    }
}

#[test]
fn calls_come_to_what_mcrouters_come_to() {
    let macros = r#"{"two": {"type": "macroDef", "params": ["a", {"name": "b", "default": "@x"}], "result": ["%a%", "%b%"]},
        "name": {"type": "constDef", "result": "two"}, "wrong": {"type": "constDef", "result": "@fail(because)"}}"#;
    for (json, expected) in [
        // Arguments, and names of calls.
        (r#""@two(,b)""#, r#"["","b"]"#),
        (r#""@two()""#, r#"["","@x"]"#),
        (r#""@two(a,)""#, r#"["a",""]"#),
        (r#""@%name%(a,b)""#, r#"["a","b"]"#),
        (r#"{"type": "%name%", "a": 1, "b": 2, "other": 3}"#, "[1,2]"),
        // Variables may use each other.
        (r#"{"vars": {"a": "%b%1", "b": "%c%2", "c": "3"}, "x": "%a%"}"#, r#"{"x":"321"}"#),
        (r#"{"type": "define", "vars": {"a": {"k": [1]}}, "result": "%a%"}"#, r#"{"k":[1]}"#),
        (r#"{"type": "if", "vars": {"a": 1}, "condition": "@defined(a)", "is_true": 1, "is_false": 2}"#, "1"),
        (r#""@defined(name)""#, "true"),
        (r#""@defined(nothing)""#, "false"),
        // What is not needed is not expanded.
        (r#""@and(@bool(false),@fail(x))""#, "false"),
        (r#""@or(@bool(true),@fail(x))""#, "true"),
        (r#""@and(@bool(true),@bool(yes))""#, "true"),
        (r#"{"type": "select", "dictionary": {"a": 1}, "key": "a", "default": "@fail(x)"}"#, "1"),
        (
            r#"{"type": "import", "path": "macros.json", "default": "@fail(x)"}"#,
            r#"{"c":{"type":"constDef","result":"!"},"m":{"type":"macroDef","params":["x"],"result":"%x%%c%"}}"#,
        ),
        (r#"{"type": "import", "path": "self.json", "default": "d"}"#, r#""d""#),
        // Values.
        (r#"{"type": "select", "dictionary": [1, 2, 3], "key": -1}"#, "3"),
        (
            r#"{"type": "slice", "dictionary": {"a": 1, "b": 2, "c": 3}, "from": "b", "to": "c"}"#,
            r#"{"b":2,"c":3}"#,
        ),
        (r#"{"type": "slice", "dictionary": "abcdef", "from": 1, "to": 3}"#, r#""bcd""#),
        (r#"{"type": "equals", "A": 1, "B": 1.0}"#, "true"),
        (r#"{"type": "contains", "dictionary": [1, "a"], "key": 1.0}"#, "true"),
        (r#"{"type": "less", "A": [1, 2], "B": [1, 3]}"#, "true"),
        (r#"{"type": "less", "A": 5, "B": "a"}"#, "true"),
        (r#"{"type": "sort", "dictionary": ["b", 2, "a", 1]}"#, r#"[1,2,"a","b"]"#),
        (r#""@split(a.b.,.)""#, r#"["a","b",""]"#),
        (r#"{"type": "range", "from": 2, "to": 4}"#, "[2,3,4]"),
        (r#""@isLocalIp(127.0.0.1)""#, "true"),
        (r#""@isLocalIp(192.0.2.1)""#, "false"),
        (r#""@isLocalIp(0.0.0.0)""#, "false"),
        (r#""@isLocalIp(blah)""#, "false"),
        (r#"{"type": "weightedHash", "dictionary": {"a": 0.0, "b": 1.0}, "key": 5}"#, r#""b""#),
        // Loops.
        (
            r#"{"type": "transform", "dictionary": ["a", "b"], "itemTransform": "%key%%item%"}"#,
            r#"["0a","1b"]"#,
        ),
        (
            r#"{"type": "transform", "dictionary": {"a": 1, "b": 2}, "keyTransform": "k%key%", "itemTransform": ["%item%"]}"#,
            r#"{"ka":[1],"kb":[2]}"#,
        ),
        (
            r#"{"type": "transform", "dictionary": {"a": 1, "b": 2}, "keyTransform": {"type": "if", "condition": "@equals(%key%,a)", "is_true": [], "is_false": ["x", "y"]}}"#,
            r#"{"x":2,"y":2}"#,
        ),
        (r#"{"type": "transform", "dictionary": [], "itemTransform": 1}"#, "[]"),
        (
            r#"{"type": "process", "dictionary": [1, 2, 3], "initialValue": 10, "transform": "@add(%value%,%item%)"}"#,
            "16",
        ),
        (
            r#"{"type": "process", "dictionary": {"a": 1}, "initialValue": "", "keyName": "k", "itemName": "i", "valueName": "v", "transform": "%v%%k%%i%"}"#,
            r#""a1""#,
        ),
        (
            r#"{"type": "foreach", "from": {"a": 1, "b": 2, "c": 3}, "where": "@less(@int(1),%item%)", "top": 1}"#,
            r#"{"b":2}"#,
        ),
        (
            r#"{"type": "foreach", "from": {"a": 1, "b": 2}, "use": ["%key%"], "noMatchResult": []}"#,
            r#"["a","b"]"#,
        ),
        (r#"{"type": "foreach", "from": [1], "where": "@bool(0)", "noMatchResult": "none"}"#, r#""none""#),
        (r#"{"type": "foreach", "from": [1], "where": "@bool(0)"}"#, "[]"),
    ] {
        assert_eq!(expanded(macros, json).as_deref(), Ok(expected), "{json}");
    }
    for (json, said) in [
        (r#""@two(1,2,3)""#, "takes 2 arguments"),
        (r#"{"type": "two", "b": 2}"#, "\"a\" is missing"),
        (r#"{"type": "foreach", "from": 7}"#, "list or an object"),
        (r#"{"type": "foreach", "from": [1], "top": -1}"#, "at least 0"),
        (
            r#"{"type": "foreach", "from": [1, 2], "use": {"type": "if", "condition": "@equals(%item%,@int(1))", "is_true": [], "is_false": {}}}"#,
            "lists alone",
        ),
        (r#"{"type": "transform", "dictionary": [1]}"#, "itemTransform"),
        (r#"{"type": "process", "dictionary": [1], "initialValue": 1}"#, "transform"),
        (r#"{"vars": {"a": "%b%", "b": "%a%"}, "x": 1}"#, "nothing is called"),
        (r#"{"vars": {"a": 1, "b": "%wrong%", "c": "%a%"}, "x": 1}"#, "because"),
        (r#"{"vars": 7, "x": 1}"#, "must be an object"),
        (r#"{"type": "weightedHash", "dictionary": {"a": 0.0}, "key": 5}"#, "cannot be done"),
        (r#""@and(a,b)""#, "true or false"),
    ] {
        let error = expanded(macros, json).unwrap_err();
        assert!(error.contains(said), "{json}: {error}");
    }
}

/// A shuffle with a seed is the same on every host; one without is some order of the same elements.
#[test]
fn a_seed_decides_a_shuffle() {
    let shuffled = |seed: &str| {
        expanded("{}", &format!(r#"{{"type": "shuffle", "dictionary": [1, 2, 3, 4, 5, 6, 7] {seed}}}"#))
            .unwrap()
    };
    assert_eq!(shuffled(r#", "seed": 3"#), shuffled(r#", "seed": 3"#));
    assert_ne!(shuffled(r#", "seed": 3"#), shuffled(r#", "seed": 4"#));
    let mut one: Vec<char> = shuffled("").chars().filter(char::is_ascii_digit).collect();
    one.sort_unstable();
    assert_eq!(one.into_iter().collect::<String>(), "1234567");
}

#[test]
fn macros_that_multiply_stop_at_a_bound() {
    let mut macros = String::from("\"m0\": {\"type\": \"macroDef\", \"params\": [], \"result\": [1, 1]}");
    for at in 1..60 {
        let inner = at - 1;
        macros += &format!(
            ", \"m{at}\": {{\"type\": \"macroDef\", \"params\": [], \"result\": [\"@m{inner}()\", \"@m{inner}()\"]}}"
        );
    }
    let error = parse(&format!("{{\"macros\": {{{macros}}}, \"route\": \"@m59()\"}}")).unwrap_err();
    assert!(error.to_string().contains("1000000"), "{error}");
}

#[test]
fn the_resolved_tree_is_shown_as_json_that_reads_back() {
    let text = r#"{"pools": {"A": {"servers": ["a:1"]}},
        "named_handles": {"n": {"type": "PoolRoute", "pool": "A"}},
        "route": {"type": "WarmUpRoute", "cold": "n", "warm": "PoolRoute|A"}}"#;
    let shown: serde_json::Value = serde_json::from_str(&config(text).to_string()).unwrap();
    assert_eq!(shown["routes"]["/././"]["cold"], "n");
    assert_eq!(shown["routes"]["/././"]["warm"]["pool"], "A");
    assert_eq!(shown["pools"]["A"]["servers"][0]["address"], "a:1");
}

#[test]
fn what_a_handle_was_given_is_shown_and_what_it_was_not_is_filled_in() {
    for (route, pointer, value) in [
        (r#""SaltedFailoverRoute|A""#, "/route/pool", "\"A\""),
        (
            r#"{"type": "SaltedFailoverRoute", "pool": "A", "failover_policy": {"max_tries": 3}}"#,
            "/max_tries",
            "3",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "slow_warmup": {"failoverTarget": "NullRoute", "settings": {"step": 2}}}"#,
            "/slow_warmup/settings",
            r#"{"enable_threshold": 0.7, "disable_threshold": 0.9, "start": 0.1, "step": 2.0, "min_requests": 100}"#,
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "shard_splits": {"07": 3}}"#,
            "/shard_splits/07/new_split_size",
            "3",
        ),
        (
            r#"{"type": "LatencyInjectionRoute", "child": "NullRoute", "before_latency_ms": 5}"#,
            "/before_latency_ms",
            "5",
        ),
        (r#""LoadBalancerRoute|Pool|A""#, "/algorithm", "\"weighted-hashing\""),
        (
            r#"{"type": "HashRoute", "hash_func": "LoadBalancer", "children": "Pool|A"}"#,
            "/load_ttl_ms",
            "100",
        ),
        (r#"{"type": "BigValueRoute", "child": "NullRoute", "split_threshold": 99}"#, "/batch_size", "10"),
        (r#"{"type": "PoolRoute", "pool": "A", "replicas": 2}"#, "/replicas", "2"),
        (
            r#"{"type": "PoolRoute", "pool": "A", "replicas": 2, "hedge": {}}"#,
            "/hedge",
            r#"{"percentile": 95.0, "budget_percent": 5.0, "min_delay_ms": 1}"#,
        ),
        (r#"{"type": "PoolRoute", "pool": "A", "bounded_load": 1.25}"#, "/bounded_load", "1.25"),
        (r#""BlackholeRoute""#, "/timeout_ms", "1000"),
        (r#""LoggingRoute|NullRoute""#, "/lines_rate", "10.0"),
    ] {
        let text = format!(r#"{{"pools": {{"A": {{"servers": ["a:1"]}}}}, "route": {route}}}"#);
        let shown: serde_json::Value = serde_json::from_str(&config(&text).to_string()).unwrap();
        let found = shown["routes"]["/././"].pointer(pointer).unwrap_or_else(|| panic!("{route}: {shown:#}"));
        assert_eq!(*found, serde_json::from_str::<serde_json::Value>(value).unwrap(), "{route}");
    }
}

#[test]
fn a_handle_that_is_not_taken_is_refused_by_name_and_part() {
    for (route, said) in [
        (r#""HashStopAllowListRoute|NullRoute""#, "HashStopAllowListRoute: is not supported: name its child"),
        (
            r#""OriginalClientHashRoute|NullRoute""#,
            "OriginalClientHashRoute: is not supported: name its child",
        ),
        (
            r#"{"type": "SaltedFailoverRoute", "pool": "A", "failover_policy": {"type": "LeastFailuresPolicy"}}"#,
            "SaltedFailoverRoute.failover_policy.type",
        ),
        (
            r#"{"type": "LoadBalancerRoute", "children": "Pool|A", "algorithm": "none"}"#,
            "must be weighted-hashing or two-random-choices",
        ),
        (r#""BigValueRoute|NullRoute""#, "BigValueRoute.split_threshold: is missing: bytes"),
        (r#"{"type": "PoolRoute", "pool": "A", "replicas": 9}"#, "from 1 to 8"),
        (r#"{"type": "PoolRoute", "pool": "A", "hedge": {}}"#, "hedge = {}: needs a second copy to ask"),
        (
            r#"{"type": "PoolRoute", "pool": "A", "replicas": 2, "hedge": {"percentil": 9}}"#,
            "hedge.percentil = 9: must be one of percentile budget_percent min_delay_ms",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "replicas": 2, "hedge": {"percentile": 100}}"#,
            "percentile = 100: must be a number from 50 to 99.9",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "replicas": 2, "hedge": {"budget_percent": 0}}"#,
            "budget_percent = 0: must be a number from 0.1 to 100",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "replicas": 2, "hedge": {"min_delay_ms": 0}}"#,
            "min_delay_ms = 0: must be a whole number from 1",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "bounded_load": 1}"#,
            "bounded_load = 1: must be a number from 1.05 to 100",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "replicas": 2, "bounded_load": 2}"#,
            "is not to be had with replicas",
        ),
        (
            r#"{"type": "SaltedFailoverRoute", "pool": "A", "bounded_load": 2}"#,
            "SaltedFailoverRoute.bounded_load = 2: stands in a PoolRoute",
        ),
        (
            r#"{"type": "SaltedFailoverRoute", "pool": "A", "replicas": 2}"#,
            "stands in a PoolRoute, which fails over within its copies",
        ),
        (r#"{"type": "SaltedFailoverRoute"}"#, "SaltedFailoverRoute.pool: is missing"),
        (
            r#"{"type": "PoolRoute", "pool": "A", "slow_warmup": {}}"#,
            "slow_warmup.failoverTarget: is missing",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "slow_warmup": {"failoverTarget": "NullRoute", "settings": {"start": 0}}}"#,
            "a server that gets nothing never fills",
        ),
        (
            r#"{"type": "PoolRoute", "pool": "A", "slow_warmup": {"failoverTarget": "NullRoute", "settings": {"disable_threshold": 0.5}}}"#,
            "must be more than enable_threshold",
        ),
        (r#"{"type": "PoolRoute", "pool": "A", "shard_splits": {"x": 3}}"#, "must be the number of a shard"),
        (r#"{"type": "PoolRoute", "pool": "A", "shard_splits": {"7": 0}}"#, "from 1 to 677"),
        (r#"{"type": "PoolRoute", "pool": "A", "shard_splits": {"7": {}}}"#, "old_split_size: is missing"),
    ] {
        let text = format!(r#"{{"pools": {{"A": {{"servers": ["a:1"]}}}}, "route": {route}}}"#);
        let error = parse(&text).map(drop).expect_err(route).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn zones_are_given_by_place_or_by_name_and_wrong_ones_are_refused() {
    let pool = |more: &str| {
        format!(r#"{{"pools": {{"A": {{"servers": ["a:1", "b:1"], {more}}}}}, "route": "PoolRoute|A"}}"#)
    };
    let shown: serde_json::Value =
        serde_json::from_str(&config(&pool(r#""zones": ["x", "y"]"#)).to_string()).unwrap();
    assert_eq!(shown["pools"]["A"]["zones"][1], "y");
    assert!(
        config(&pool(r#""zone_pattern": "c-{zone}-*", "resolve": true"#)).to_string().contains("c-{zone}-*")
    );
    for (more, said) in [
        (r#""zones": ["x"]"#, "must have a zone for each"),
        (r#""zones": ["x", "y"], "resolve": true"#, "give a \"zone_pattern\""),
        (r#""zones": ["x", "y"], "zone_pattern": "{zone}""#, "either"),
        (r#""zone_pattern": "c-*""#, "must have one {zone}"),
    ] {
        let error = parse(&pool(more)).map(drop).expect_err(more).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn options_and_parameters_are_names_in_the_configuration() {
    let options = Options { params: vec![("port".into(), "77".into())], ..Options::default() };
    let text = r#"{"pools": {"A": {"servers": ["%default-region%x:%port%"]}}, "route": "PoolRoute|A"}"#;
    let config = Config::parse("c", text, &options, &no_import).unwrap();
    assert_eq!(addresses(&config, "A"), [".x:77"]);
}

/// Bytes of a sound configuration changed, cut and doubled at random: whatever comes of it is a configuration
/// or an error.
#[test]
fn broken_configurations_are_errors_and_nothing_worse() {
    let sound = r#"{"macros": {"m": {"type": "macroDef", "params": ["x"], "result": ["@merge(%x%,:,@str(@add(1,2)))"]}},
        "pools": {"A": {"servers": "@m(a)", "weights": [1, 0.5]}, "B": {"inherit": "A", "servers": ["[::1]:1", "unix:/x"]}},
        "named_handles": [{"name": "n", "type": "PoolRoute", "pool": "A", "hash": {"hash_func": "Ketama", "salt": "s"}}],
        "routes": [{"aliases": ["/././"], "route": {"type": "FailoverRoute", "children": ["n", "Pool|B", "HashRoute|Pool|A"],
        "failover_errors": ["tko"], "failover_limit": {"rate": 0.1}, "failover_policy": {"type": "LeastFailuresPolicy", "max_tries": 2}}}]}"#;
    config(sound);
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut accepted = 0;
    for _ in 0..5000 {
        let mut text = sound.as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            if text.is_empty() {
                break;
            }
            let at = random.usize(..text.len());
            let end = (at + random.usize(1..20)).min(text.len());
            match random.u8(..4) {
                0 => text[at] = *random.choice(b"{}[]\",:@%|()\\/*-0919eE \n".iter()).unwrap(),
                1 => drop(text.drain(at..end)),
                2 => text.truncate(at.max(1)),
                _ => text = [&text[..end], &text[at..]].concat(),
            }
        }
        if let Ok(text) = std::str::from_utf8(&text)
            && let Ok(config) = parse(text)
        {
            accepted += 1;
            let _ = config.to_string();
            let _ = super::super::route::Tree::compile(&config, &ResolvedPools::new());
        }
    }
    println!("{accepted} of 5000 were sound all the same");
}

#[test]
fn a_pool_may_name_the_service_whose_endpoints_it_follows() {
    let pool = |rest: &str| format!(r#"{{"pools": {{"A": {{{rest}}}}}, "route": "PoolRoute|A"}}"#);
    let text = pool(r#""servers": ["cache.n.svc:7"], "resolve": true, "endpoint_slices": "n/cache-0""#);
    let service = config(&text).pools[0].endpoint_slices.clone().unwrap();
    assert_eq!((service.namespace.as_str(), service.name.as_str()), ("n", "cache-0"));
    assert!(config(&text).to_string().contains("n/cache-0"));
    let needs = "needs \"resolve\": true and one server";
    for (rest, remedy) in [
        (r#""servers": ["c:7"], "endpoint_slices": "n/c""#, needs),
        (r#""servers": ["c:7", "d:7"], "resolve": true, "endpoint_slices": "n/c""#, needs),
        (r#""servers": ["10.0.0.1:7"], "resolve": true, "endpoint_slices": "n/c""#, needs),
        (r#""servers": ["unix:/c"], "resolve": true, "endpoint_slices": "n/c""#, needs),
        (r#""servers": ["c:7"], "resolve": true, "endpoint_slices": "c""#, "must be \"NAMESPACE/SERVICE\""),
        (
            r#""servers": ["c:7"], "resolve": true, "endpoint_slices": "n/c/d""#,
            "must be \"NAMESPACE/SERVICE\"",
        ),
        (
            r#""servers": ["c:7"], "resolve": true, "endpoint_slices": "n/c&x""#,
            "must be \"NAMESPACE/SERVICE\"",
        ),
        (r#""servers": ["c:7"], "resolve": true, "endpoint_slices": "/c""#, "must be \"NAMESPACE/SERVICE\""),
        (r#""servers": ["c:7"], "resolve": true, "endpoint_slices": 7"#, "pools.A.endpoint_slices"),
    ] {
        let error = parse(&pool(rest)).unwrap_err().to_string();
        assert!(error.contains(remedy) && error.contains("endpoint_slices"), "{rest}: {error}");
    }
}

#[test]
fn adaptive_concurrency_of_a_pool_is_shown_and_checked() {
    let text = |written: &str| {
        format!(
            r#"{{"pools": {{"A": {{"servers": ["a:1"], "adaptive_concurrency": {written}}}}}, "route": "PoolRoute|A"}}"#
        )
    };
    for (written, min, max) in [("{}", 1, 1000), (r#"{"min": 2000}"#, 2000, 2000), (r#"{"max": 9}"#, 1, 9)] {
        let shown: serde_json::Value = serde_json::from_str(&config(&text(written)).to_string()).unwrap();
        let found = &shown["pools"]["A"]["adaptive_concurrency"];
        assert_eq!(*found, serde_json::json!({"min": min, "max": max}), "{written}");
    }
    for (written, said) in [
        ("true", "must be an object"),
        (r#"{"mx": 1}"#, "pools.A.adaptive_concurrency.mx = 1: must be one of min max"),
        (r#"{"min": 0}"#, "min = 0: must be a whole number from 1"),
        (r#"{"min": 3, "max": 2}"#, "pools.A.adaptive_concurrency.min"),
    ] {
        let error = parse(&text(written)).map(drop).expect_err(written).to_string();
        assert!(error.contains(said), "{written}: {error}");
    }
}

#[test]
fn a_pool_that_says_where_it_is_has_the_timeout_of_its_distance() {
    let options = Options {
        route_prefix: "/here/one/".into(),
        distance_timeouts: DistanceTimeouts {
            within_cluster_ms: 10,
            cross_cluster_ms: 20,
            cross_region_ms: 30,
        },
        ..Options::default()
    };
    let timeouts = |options: &Options, place: &str| {
        let text = format!(
            r#"{{"pools": {{"p": {{"servers": ["a:1"], "server_timeout": 7 {place}}}}}, "route": "PoolRoute|p"}}"#
        );
        let config = Config::parse("c", &text, options, &no_import).unwrap();
        match &config.pools[0].members[0] {
            Member::Server(server) => (server.reply_timeout_ms, server.connect_timeout_ms),
            Member::Handle(_) => unreachable!("a server is written"),
        }
    };
    for (place, ms) in [
        (r#", "region": "here", "cluster": "one""#, 10),
        (r#", "region": "here", "cluster": "two""#, 20),
        (r#", "region": "there", "cluster": "one""#, 30),
        (r#", "region": "there""#, 7),
        (r#", "cluster": "one""#, 7),
        ("", 7),
    ] {
        assert_eq!(timeouts(&options, place), (ms, 7), "{place}");
        assert_eq!(
            timeouts(&Options { route_prefix: "/here/one/".into(), ..Options::default() }, place),
            (7, 7)
        );
    }
}

#[test]
fn a_key_that_no_pool_has_is_left_out() {
    let config =
        parse(r#"{"pools": {"p": {"servers": ["a:1"], "comment": "ours"}}, "route": "PoolRoute|p"}"#);
    assert_eq!(config.unwrap().pools[0].members.len(), 1);
}

#[test]
fn what_mcrouter_takes_is_taken() {
    for route in [
        r#"{"type": "AllSyncRoute", "children": []}"#,
        r#"{"type": "FailoverRoute", "children": ""}"#,
        // The one server of a pool is a handle.
        r#""Pool|p""#,
        r#"{"type": "HashRoute", "children": ["Pool|p"]}"#,
        r#"{"type": "ModifyKeyRoute", "target": "Pool|p", "set_key_suffix": "s", "modify_inplace": true}"#,
        r#"{"type": "ModifyExptimeRoute", "target": "PoolRoute|p", "exptime": -1}"#,
        r#"{"type": "WarmUpRoute", "cold": "PoolRoute|p", "warm": "PoolRoute|p", "exptime": -1}"#,
        r#"{"type": "PoolRoute", "pool": "p", "shard_splits": {"7": 678}}"#,
        r#"{"type": "PoolRoute", "pool": "p", "comment": "ours"}"#,
        r#"{"type": "PoolRoute", "pool": "p", "hash": "Latest"}"#,
    ] {
        let text = format!(r#"{{"pools": {{"p": {{"servers": ["a:1"]}}}}, "route": {route}}}"#);
        assert!(parse(&text).is_ok(), "{route}: {}", parse(&text).unwrap_err());
    }
    let two = r#"{"pools": {"p": {"servers": ["a:1", "b:1"]}}, "route": "Pool|p"}"#;
    assert!(parse(two).unwrap_err().to_string().contains("PoolRoute|NAME"));
}

#[test]
fn errors_and_the_tree_are_short_and_readable() {
    let text = r#"{"pools": {"p": {"servers": ["a:1", "b:1"], "weights": [1e300]}}, "route": "PoolRoute|p"}"#;
    let error = parse(text).unwrap_err().to_string();
    assert!(error.len() < 200 && error.contains("1e300"), "{error}");
    let text = r#"{"pools": {"p": {"servers": ["a:1", "b:1"]}}, "route": "PoolRoute|p"}"#;
    let shown = parse(text).unwrap().to_string();
    assert!(shown.contains("\"key_part\": \"before |#|\""), "{shown}");
}
