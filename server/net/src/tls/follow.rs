//! Certificates that are replaced while the server runs: their files are watched and read again, so that what is on disk is
//! what is shown, without a signal. For a thread of its own.

use std::time::Duration;

use crossbeam_channel::{bounded, never, select};

use super::certificates::Certificates;
use crate::watch_files::watch;

/// Word under way that a file changed.
const CHANGES_MAX: usize = 1;
/// From a change to the reading: certificate and key are two files, and whoever writes them needs a moment.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the files are read without word of a change: where a folder above them is a link to another one, or the file
/// system is one that tells nothing.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps `certificates` as the files are, for ever. What cannot be used is named once, and those before stay.
pub fn follow(certificates: &Certificates) {
    let (changed, changes) = bounded(CHANGES_MAX);
    let watcher = watch(certificates.options().files(), changed);
    let changes = if watcher.is_some() { changes } else { never() };
    loop {
        // At first too: they may have changed since they were read and before they were watched.
        match certificates.reload_changed() {
            Ok(true) => tracing::info!("the certificates changed, and were read again"),
            Ok(false) => {}
            Err(error) => tracing::warn!("{error}: the certificates stay as they were"),
        }
        select! {
            recv(changes) -> _ => {
                std::thread::sleep(SETTLE);
                changes.try_iter().for_each(drop);
            }
            default(LOOK_EVERY) => {}
        }
    }
}
