//! Whom a proxy trusts among its destinations, and what it shows them: read at start, and again when a file of it
//! changes or a SIGHUP says so. On the control thread alone; shards are handed what it comes to, and connections keep
//! what they began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::fingerprint;
use super::trust::{Trust, TrustOptions};

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Trusted {
    options: TrustOptions,
    trust: Arc<Trust>,
    /// Of what the files held when they were last read, good or not.
    fingerprint: u64,
}

impl Trusted {
    /// What `options` name.
    ///
    /// # Errors
    /// As [`Trust::load`].
    pub fn load(options: TrustOptions) -> Result<Self, String> {
        let fingerprint = fingerprint(files(&options));
        Ok(Self { trust: Arc::new(Trust::load(&options)?), options, fingerprint })
    }

    /// As it was last read and good.
    #[must_use]
    pub const fn current(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The files it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        files(&self.options)
    }

    /// Reads the files again, if they changed; whether they did.
    ///
    /// # Errors
    /// As [`Trust::load`]: what was read before stays. Told once for each change.
    pub fn reload(&mut self) -> Result<bool, String> {
        let fingerprint = fingerprint(self.files());
        if fingerprint == std::mem::replace(&mut self.fingerprint, fingerprint) {
            return Ok(false);
        }
        self.trust = Arc::new(Trust::load(&self.options)?);
        Ok(true)
    }
}

fn files(options: &TrustOptions) -> impl Iterator<Item = &Path> {
    let identity = options.identity.iter().flat_map(|(chain, key)| [chain, key]);
    std::iter::once(&options.authorities).chain(identity).map(PathBuf::as_path)
}
