//! Word that files may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;
use notify::{RecommendedWatcher, Watcher};

/// Has `changed` told, with room for it, when something happens beside one of `files`; until the value is dropped. `None`
/// where nothing can be watched, and the log says so.
///
/// Folders are watched rather than files: that sees writes, renames and the flip of a ConfigMap's or Secret's `..data`
/// alike.
pub fn watch<'a>(files: impl Iterator<Item = &'a Path>, changed: Sender<()>) -> Option<RecommendedWatcher> {
    let folders: BTreeSet<PathBuf> = files.map(folder_of).collect();
    if folders.is_empty() {
        return None;
    }
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(()); // full: one is on its way already
        }
    };
    let unwatched = |what: &str, error: notify::Error| {
        tracing::warn!("{what}: cannot be watched ({error}): changes need a SIGHUP");
    };
    let mut watcher = notify::recommended_watcher(tell).map_err(|error| unwatched("files", error)).ok()?;
    for folder in &folders {
        if let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
            unwatched(&folder.display().to_string(), error);
        }
    }
    Some(watcher)
}

/// Where a file is.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
