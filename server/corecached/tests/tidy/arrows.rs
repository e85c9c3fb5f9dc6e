//! A crate depends only on crates below it.

use super::{nothing_of, read, root};

/// Each crate, with the crates of the workspace that it may depend on.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("corecached-protocol", "protocol", &[]),
    ("corecached-engine", "engine", &[]),
    ("corecached-net", "server/net", &["engine", "protocol"]),
    ("corecached-shard", "server/shard", &["net", "engine", "protocol"]),
    ("corecached-cache", "server/cache", &["shard", "net", "engine", "protocol"]),
    ("corecached-proxy", "server/proxy", &["shard", "net", "engine", "protocol"]),
    ("corecached-admin", "server/admin", &["cache", "proxy", "shard", "net", "engine", "protocol"]),
    ("corecached", "server/corecached", &["admin", "cache", "proxy", "shard", "net", "engine", "protocol"]),
    ("corecached-testkit", "server/testkit", &["shard", "net", "engine", "protocol"]),
    ("corecached-bench", "bench", &["net", "engine", "protocol"]),
];

/// The names in one table of dependencies of a manifest.
fn dependencies(manifest: &str, table: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == format!("[{table}]");
        } else if inside && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn crates_depend_on_those_below_alone() {
    let mut wrong = Vec::new();
    for (name, folder, below) in ARROWS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder} is {name}");
        for dependency in dependencies(&manifest, "dependencies") {
            let ours = dependency.strip_prefix("corecached-");
            if ours.is_some_and(|ours| !below.contains(&ours)) || dependency == "corecached" {
                wrong.push(format!("{folder}/Cargo.toml: {name} depends on {dependency}"));
            }
        }
    }
    nothing_of(
        &wrong,
        "Arrows go down only: corecached -> admin -> {cache, proxy} -> shard -> net -> {engine, protocol}. Move what both \
         need to the lower crate, or hand it over as an argument; server/README.md says what belongs where.",
    );
}

#[test]
fn every_crate_of_the_workspace_has_its_arrows() {
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let (members, _) = members.expect("the workspace has members");
    let missing: Vec<String> = members
        .split(',')
        .map(|member| member.trim().trim_matches('"'))
        .filter(|member| !member.is_empty() && !ARROWS.iter().any(|(_, folder, _)| folder == member))
        .map(str::to_owned)
        .collect();
    nothing_of(&missing, "Say in tests/tidy/arrows.rs what each new crate may depend on.");
}
