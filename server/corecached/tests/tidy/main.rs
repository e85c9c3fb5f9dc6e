//! Rules for the source tree: which crates may depend on which, which files may have `unsafe`, how long a
//! file may be, which words are not used, and that the documentation names everything that a user can set.
//! Every message says how to fix the lines that it lists.

#![allow(unreachable_pub, reason = "a test binary has no face")]

mod arrows;
mod circles;
mod documented;
mod source;
mod words;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Every file under `folder` whose name ends with `suffix`, in order. Build output and hidden folders are
/// left out.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if name.ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `path` as it is written in messages: relative to the root of the workspace.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Asserts that `wrong` is empty. The message lists it, and `mend` says how to fix it.
#[track_caller]
fn nothing_of(wrong: &[String], mend: &str) {
    assert!(wrong.is_empty(), "{}\n\n{mend}", wrong.join("\n"));
}
