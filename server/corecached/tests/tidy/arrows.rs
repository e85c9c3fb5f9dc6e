//! A crate depends only on crates below it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::{nothing_of, root};

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

/// The crates that this workspace's crates depend on, as cargo understands the manifests: name, kind ("dev", "build" or null)
/// and dependency.
fn dependencies() -> Vec<(String, Option<String>, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(asked.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&asked.stderr));
    let metadata: Value = serde_json::from_slice(&asked.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("a list of packages") {
        for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
            let names = text(package, "name").zip(text(dependency, "name"));
            let (package, dependency_name) = names.expect("packages have names");
            found.push((package, text(dependency, "kind"), dependency_name));
        }
    }
    found
}

#[test]
fn crates_depend_on_those_below_alone() {
    let mut wrong = Vec::new();
    for (package, kind, dependency) in dependencies() {
        let Some((_, folder, below)) = ARROWS.iter().find(|(name, ..)| *name == package) else { continue };
        let is_ours = ARROWS.iter().any(|(name, ..)| *name == dependency);
        let is_below = dependency.strip_prefix("corecached-").is_some_and(|short| below.contains(&short));
        // Tests may use the testkit; those of the benchmarks measure the mesh.
        let is_for_tests = kind.as_deref() == Some("dev")
            && (dependency == "corecached-testkit"
                || package == "corecached-bench" && dependency == "corecached-shard");
        if is_ours && !is_below && !is_for_tests {
            wrong.push(format!("{folder}/Cargo.toml: {package} depends on {dependency}"));
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
    let missing: BTreeSet<String> = dependencies()
        .into_iter()
        .map(|(package, ..)| package)
        .filter(|package| !ARROWS.iter().any(|(name, ..)| name == package))
        .collect();
    let missing: Vec<String> = missing.into_iter().collect();
    nothing_of(&missing, "Say in tests/tidy/arrows.rs what each new crate may depend on.");
}
