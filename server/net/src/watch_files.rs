//! A message when a file may have changed.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crossbeam_channel::Sender;
use notify::{RecommendedWatcher, Watcher};

/// Most links in the path of a file, as in the kernel (`ELOOP`).
const LINKS_MAX: usize = 40;

/// Watches files, and every link on the way to them, until it is dropped.
///
/// Folders are watched rather than files, which finds writes, renames and the change of a ConfigMap's or Secret's
/// `..data` link alike.
#[derive(Debug)]
pub struct WatchedFiles {
    /// Where a message goes. It is left out while this is full.
    changed: Sender<()>,
    /// The names that are watched for.
    names: BTreeSet<PathBuf>,
    watcher: Option<RecommendedWatcher>,
}

impl WatchedFiles {
    /// Watches nothing yet. `changed` gets a message when a file that is then watched may have changed.
    #[must_use]
    pub const fn new(changed: Sender<()>) -> Self {
        Self { changed, names: BTreeSet::new(), watcher: None }
    }

    /// Watches `files`, as their paths lead now, and no others. Returns whether that differs from what was watched
    /// before: then they may have changed after they were read and before they were watched. What cannot be
    /// watched is logged.
    pub fn follow<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) -> bool {
        let names: BTreeSet<PathBuf> = files.into_iter().flat_map(names_on_the_way).collect();
        if names == self.names {
            return false;
        }
        // The watcher before it ends: its folders may be gone.
        self.watcher = None;
        self.names = names;
        if !self.names.is_empty() {
            self.watcher = self.watch();
        }
        true
    }

    fn watch(&self) -> Option<RecommendedWatcher> {
        let (changed, names) = (self.changed.clone(), self.names.clone());
        let folders: BTreeSet<PathBuf> = names.iter().map(|name| folder_of(name)).collect();
        let watched = folders.clone();
        let notify_change = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            // A folder that is itself moved or removed is named alone; lost events have no name.
            let is_of_ours = |path: &PathBuf| names.contains(path) || watched.contains(path);
            let concerns =
                event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(is_of_ours);
            if concerns && !event.kind.is_access() {
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
}

/// Every name that decides which file `path` is: those on its way that are links, in the folders that they are in,
/// and the last, of the file. If one does not exist, the names end with it.
fn names_on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut folder = PathBuf::new();
    // As the events name them. Without a current folder nothing relative can be read either.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = parts(&path).collect::<VecDeque<_>>();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        let name = folder.join(&part);
        match std::fs::read_link(&name) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                if target.is_absolute() {
                    folder = PathBuf::new();
                }
                for part in parts(&target).rev() {
                    rest.push_front(part);
                }
                names.push(name);
            }
            Ok(_) => {
                names.push(name);
                break;
            }
            Err(_) if rest.is_empty() || name.symlink_metadata().is_err() => {
                names.push(name);
                break;
            }
            Err(_) => folder = name,
        }
    }
    names
}

/// The parts of a path that are looked up one after the other.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let is_looked_up = |part: &Component<'_>| !matches!(part, Component::CurDir);
    path.components().filter(is_looked_up).map(|part| part.as_os_str().to_owned())
}

/// The folder that holds the file.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir_all(at("real/1")).unwrap();
        std::fs::write(at("real/1/file"), "").unwrap();
        symlink("1", at("real/now")).unwrap();
        symlink("now/file", at("real/file")).unwrap();
        symlink(at("real"), at("linked")).unwrap();
        assert_eq!(
            names_on_the_way(&at("linked/file")),
            [at("linked"), at("real/file"), at("real/now"), at("real/1/file")]
        );
        assert_eq!(names_on_the_way(&at("real/1/file")), [at("real/1/file")]);
        assert_eq!(names_on_the_way(&at("real/1/../now/file")).last().unwrap(), &at("real/1/../1/file"));
        // What does not exist is waited for where it would be.
        assert_eq!(names_on_the_way(&at("real/2/file")), [at("real/2")]);
        assert_eq!(names_on_the_way(&at("linked/none")), [at("linked"), at("real/none")]);
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(names_on_the_way(Path::new("none")).last().unwrap(), &here.join("none"));
        assert_eq!(names_on_the_way(Path::new("/")), [Path::new("/")]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("1"), folder.path().join("2"));
        symlink(&one, &other).unwrap();
        symlink(&other, &one).unwrap();
        assert!(names_on_the_way(&one).contains(&other));
    }
}
