//! A message when a file may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;
use notify::{RecommendedWatcher, Watcher};

/// Sends to `changed` when something happens in the folder of one of `files`, until the returned value is
/// dropped. A message is left out while `changed` is full. `None` when there are no files or nothing can be
/// watched, which is logged.
///
/// Folders are watched rather than files, which finds writes, renames and the change of a ConfigMap's or
/// Secret's `..data` link alike.
pub fn watch<'a>(files: impl Iterator<Item = &'a Path>, changed: Sender<()>) -> Option<RecommendedWatcher> {
    let folders: BTreeSet<PathBuf> = files.map(folder_of).collect();
    if folders.is_empty() {
        return None;
    }
    let notify_change = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(()); // full: a message is pending already
        }
    };
    let unwatched = |what: &str, error: notify::Error| {
        tracing::warn!("{what}: cannot be watched ({error}): changes need a SIGHUP");
    };
    let mut watcher =
        notify::recommended_watcher(notify_change).map_err(|error| unwatched("files", error)).ok()?;
    for folder in &folders {
        if let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
            unwatched(&folder.display().to_string(), error);
        }
    }
    Some(watcher)
}

/// The folder that holds the file.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
