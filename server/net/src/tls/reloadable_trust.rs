//! What a proxy trusts among its destinations, and what it shows them: read at start, and again when one of
//! the files changes or a SIGHUP asks for it. On the control thread alone; shards are handed the result, and
//! connections keep what they began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::TlsError;
use super::files::fingerprint;
use super::trust::{Trust, TrustOptions};

/// A [`Trust`] that is read again when its files change.
#[derive(Clone, Debug)]
pub struct ReloadableTrust {
    options: TrustOptions,
    trust: Arc<Trust>,
    /// Hash of what the files held when they were last read, good or not.
    fingerprint: u64,
}

impl ReloadableTrust {
    /// Reads the files that `options` name.
    ///
    /// # Errors
    /// As [`Trust::load`].
    pub fn load(options: TrustOptions) -> Result<Self, TlsError> {
        let fingerprint = fingerprint(files(&options));
        Ok(Self { trust: Arc::new(Trust::load(&options)?), options, fingerprint })
    }

    /// What was read last, of files that were good.
    #[must_use]
    pub const fn current(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The files it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        files(&self.options)
    }

    /// Reads the files again if they changed, and returns whether they did.
    ///
    /// # Errors
    /// As [`Trust::load`], once for each change; what was read before stays.
    pub fn reload(&mut self) -> Result<bool, TlsError> {
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
