//! The documentation names everything that a user can set.

use clap::CommandFactory;
use corecached_cache::config::{CacheArgs, suboption_names};
use corecached_proxy::ProxyArgs;

use super::{files, nothing_of, read, root, shown};

/// The names that the page does not have as `` `name` ``.
fn missing(page: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let text = read(&root().join("server/docs").join(page));
    let is_missing =
        |name: &String| !text.contains(&format!("`{name}`")) && !text.contains(&format!("`{name} "));
    names.into_iter().filter(is_missing).map(|name| format!("server/docs/{page}: {name}")).collect()
}

fn flags(command: &clap::Command) -> Vec<String> {
    let options = command.get_arguments().filter(|argument| argument.get_id() != "help");
    options
        .filter_map(|argument| match (argument.get_long(), argument.get_short()) {
            (Some(long), _) => Some(format!("--{long}")),
            (None, Some(short)) => Some(format!("-{short}")),
            (None, None) => None,
        })
        .collect()
}

#[test]
fn every_flag_and_suboption_stands_in_the_documentation() {
    let mut wrong = missing("flags.md", flags(&CacheArgs::command()));
    wrong.extend(missing("flags.md", flags(&ProxyArgs::command())));
    wrong.extend(missing("flags.md", suboption_names().map(str::to_owned)));
    nothing_of(&wrong, "Write a line on each of them into the page: what it sets, its unit, its default.");
}

#[test]
fn every_route_handle_has_its_section_in_the_documentation() {
    let text = read(&root().join("server/docs/routes.md"));
    let is_missing = |name: &&str| !text.lines().any(|line| line == format!("### {name}"));
    let wrong: Vec<String> = corecached_proxy::handle_names().filter(is_missing).map(str::to_owned).collect();
    nothing_of(
        &wrong,
        "Write a section with this heading into server/docs/routes.md: keys, defaults, an example.",
    );
}

/// The calls that read a key of the configuration, up to the key.
const KEY_READERS: &[&str] = &[
    ".get(\"",
    "_at(json, \"",
    "_at(written, \"",
    "_at(settings, \"",
    "_at(value, \"",
    "_at(json, kind, \"",
    "_at(json, name, \"",
    "part(\"",
];

#[test]
fn every_key_of_the_configuration_stands_in_the_documentation() {
    let source = root().join("server/proxy/src");
    let pages: String = ["routes.md", "configuration.md"]
        .iter()
        .map(|page| read(&root().join("server/docs").join(page)))
        .collect();
    let mut wrong = Vec::new();
    for folder in ["config", "route/handles"] {
        for path in files(&source.join(folder), ".rs") {
            let text = read(&path);
            let code = text.split("\nmod tests {").next().unwrap_or_default();
            if shown(&path).ends_with("tests.rs") {
                continue;
            }
            for reader in KEY_READERS {
                for (at, _) in code.match_indices(reader) {
                    let key = code[at + reader.len()..].split('"').next().unwrap_or_default();
                    if !pages.contains(&format!("`{key}`")) && !pages.contains(&format!("\"{key}\"")) {
                        wrong.push(format!("{}: {key}", shown(&path)));
                    }
                }
            }
        }
    }
    nothing_of(
        &wrong,
        "Say in server/docs/configuration.md, or with its handle in routes.md, what the key sets.",
    );
}
