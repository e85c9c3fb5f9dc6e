//! No two files of a crate import each other, directly or through other files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{files, nothing_of, read, root, shown};

/// The folders of the crates that are checked.
const CRATES: &[&str] = &[
    "protocol",
    "engine",
    "server/net",
    "server/shard",
    "server/cache",
    "server/proxy",
    "server/admin",
    "server/corecached",
    "server/testkit",
    "bench",
];

/// A module: the names of its path from the root of the crate.
type Module = Vec<String>;

/// The module of a file in the source folder `source`.
fn module_of(file: &Path, source: &Path) -> Module {
    let relative = file.strip_prefix(source).expect("a file of the crate").with_extension("");
    let mut names: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

/// Appends the paths that one `use` names: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, out: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((head, rest)) => {
                expand(&format!("{prefix}{head}"), rest.strip_suffix('}').unwrap_or(rest), out);
            }
            None => out.push(format!("{prefix}{part}")),
        }
    }
}

/// The modules of the crate that the text of module `me` imports. A re-export (`pub use`) does not count as
/// an import.
fn imports(text: &str, me: &Module, modules: &BTreeMap<Module, PathBuf>) -> BTreeSet<Module> {
    let text = text.split("\nmod tests {").next().unwrap_or_default();
    let mut paths = Vec::new();
    for line in text.split(';') {
        let line = line.trim_start();
        let line =
            line.rsplit_once('\n').map_or(line, |(_, last)| if line.contains("use ") { line } else { last });
        let Some(at) =
            line.find("use crate::").or_else(|| line.find("use super::")).or_else(|| line.find("use self::"))
        else {
            continue;
        };
        let before = line[..at].rsplit('\n').next().unwrap_or_default().trim();
        if before.is_empty() {
            let tree: String = line[at + 4..].split_whitespace().collect();
            expand("", &tree, &mut paths);
        }
    }
    let mut found = BTreeSet::new();
    for path in paths {
        let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
        let mut base: Module = Vec::new();
        if parts[0] == "crate" {
            parts.remove(0);
        } else {
            base.clone_from(me);
            while parts.first().is_some_and(|part| part == "super") {
                parts.remove(0);
                base.pop();
            }
            if parts.first().is_some_and(|part| part == "self") {
                parts.remove(0);
            }
        }
        base.extend(parts);
        let module =
            (0..=base.len()).rev().map(|len| base[..len].to_vec()).find(|part| modules.contains_key(part));
        found.extend(module.filter(|module| module != me));
    }
    found
}

/// Whether a chain of imports leads from `from` to `to`.
fn reaches(arrows: &BTreeMap<Module, BTreeSet<Module>>, from: &Module, to: &Module) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(module) = left.pop() {
        for next in arrows.get(module).into_iter().flatten() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                left.push(next);
            }
        }
    }
    false
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for folder in CRATES {
        let source = root().join(folder).join("src");
        let is_code = |path: &PathBuf| {
            let name = shown(path);
            !["tests.rs", "sim.rs", "model.rs"].iter().any(|end| name.ends_with(end))
                && !name.contains("/tests/")
        };
        let modules: BTreeMap<Module, PathBuf> = files(&source, ".rs")
            .into_iter()
            .filter(is_code)
            .map(|path| (module_of(&path, &source), path))
            .collect();
        let arrows: BTreeMap<Module, BTreeSet<Module>> = modules
            .iter()
            .map(|(module, path)| (module.clone(), imports(&read(path), module, &modules)))
            .collect();
        for module in modules.keys().filter(|module| reaches(&arrows, module, module)) {
            let with: Vec<String> = arrows[module]
                .iter()
                .filter(|next| reaches(&arrows, next, module))
                .map(|next| next.join("::"))
                .collect();
            wrong.push(format!("{folder}: {} imports {}", module.join("::"), with.join(", ")));
        }
    }
    nothing_of(
        &wrong,
        "Each of these can be reached from itself. Move what both need to a file below them, or hand it over as an \
         argument.",
    );
}

#[test]
fn imports_are_read_as_written() {
    let modules = ["a", "a::b", "c"]
        .map(|name| (name.split("::").map(str::to_owned).collect::<Module>(), PathBuf::new()));
    let modules = BTreeMap::from(modules);
    let text = "use std::io;\nuse crate::{\n    c::Thing,\n    a::{self, b::Other as Another},\n};\npub use super::c;\nuse super::a::X;\n";
    let found = imports(text, &vec!["d".to_owned()], &modules);
    let names: Vec<String> = found.iter().map(|module| module.join("::")).collect();
    assert_eq!(names, ["a", "a::b", "c"]);
}
