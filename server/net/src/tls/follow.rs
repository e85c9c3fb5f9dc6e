//! Certificates that are replaced while the server runs: their files are watched and read again, so that
//! clients are shown what is on disk without a signal. For a thread of its own.

use std::time::Duration;

use crossbeam_channel::bounded;

use super::certificates::Certificates;
use crate::watch_files::WatchedFiles;

/// Messages about changes that may be pending: one stands for all.
const CHANGES_MAX: usize = 1;
/// From a change to the reading: certificate and key are two files, which are not written at the same moment.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the files are read without a message: some file systems report no changes.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps `certificates` as the files are, for ever. Files that cannot be used are logged once, and the
/// certificates before them stay.
pub fn follow(certificates: &Certificates) {
    let (changed, changes) = bounded(CHANGES_MAX);
    let mut watched = WatchedFiles::new(changed);
    loop {
        // Watched before they are read: a change in between is not missed.
        watched.follow(certificates.options().files());
        match certificates.reload_changed() {
            Ok(true) => tracing::info!("the certificates changed, and were read again"),
            Ok(false) => {}
            Err(error) => tracing::warn!("{error}: the certificates stay as they were"),
        }
        if changes.recv_timeout(LOOK_EVERY).is_ok() {
            std::thread::sleep(SETTLE);
            changes.try_iter().for_each(drop);
        }
    }
}
