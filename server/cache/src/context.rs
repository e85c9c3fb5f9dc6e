//! What the shards of a cache share with its other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use corecached_net::tls::Certificates;

use crate::commands::crawler::Crawler;
use crate::commands::watch::Watchers;
use crate::config::CacheConfig;
use crate::memory::Memory;
use crate::paging::Paging;
use crate::users::Users;
use crate::warm::Warm;

/// What the shards of a cache share with each other and with the other threads. Nothing in it is written on
/// the data path.
#[derive(Debug)]
pub struct CacheContext {
    /// The configuration.
    pub config: CacheConfig,
    /// The memory limit, and how much of it the stores have.
    pub memory: Memory,
    /// Memory that the kernel provides before its first use.
    pub paging: Paging,
    /// Whether clients may ask for lists of all items, and whether one is being made.
    pub(crate) crawler: Crawler,
    /// Clients that watch events.
    pub(crate) watchers: Watchers,
    /// Users and their passwords. `None` when no client has to authenticate.
    pub users: Option<Arc<Users>>,
    /// The file in which contents outlive a graceful stop (`-e`).
    pub warm: Option<Arc<Warm>>,
    /// Certificates of TLS connections. `None` without `-Z`.
    pub certificates: Option<Arc<Certificates>>,
    /// `-v`, or what the command `verbosity` set.
    verbosity: AtomicU32,
    /// `-D`, or what the command `stats detail` set.
    counts_prefixes: AtomicBool,
}

impl CacheContext {
    /// The context of a cache with this configuration and so many shards, without users, files or
    /// certificates.
    #[must_use]
    pub fn new(config: CacheConfig, shards: usize) -> Self {
        Self {
            memory: Memory::new(config.memory_bytes, shards),
            verbosity: AtomicU32::new(config.server.verbosity),
            counts_prefixes: AtomicBool::new(config.count_prefixes),
            paging: Paging::default(),
            crawler: Crawler::new(config.crawler),
            watchers: Watchers::default(),
            users: None,
            warm: None,
            certificates: None,
            config,
        }
    }

    /// Whether `stats detail` counts.
    pub(crate) fn counts_prefixes(&self) -> bool {
        self.counts_prefixes.load(Ordering::Relaxed)
    }

    /// Takes note of whether `stats detail` counts. The shards are told by a broadcast.
    pub(crate) fn set_counts_prefixes(&self, on: bool) {
        self.counts_prefixes.store(on, Ordering::Relaxed);
    }

    /// Has the coming stop save the contents for the next start, if there is a file for them.
    pub fn keep_contents(&self) {
        if let Some(warm) = &self.warm {
            warm.keep_contents();
        }
    }

    /// Reads users and certificates again. A file that cannot be read leaves them unchanged.
    pub fn reload(&self) {
        if let Some(users) = &self.users {
            match users.reload() {
                Ok(()) => tracing::info!("read {} again", users.file().display()),
                Err(error) => tracing::warn!("{}: {error}: users stay as they were", users.file().display()),
            }
        }
        if let Some(certificates) = &self.certificates {
            certificates.reload_or_warn();
        }
    }

    /// `-v`, or what the command `verbosity` set.
    pub(crate) fn verbosity(&self) -> u32 {
        self.verbosity.load(Ordering::Relaxed)
    }

    pub(crate) fn set_verbosity(&self, level: u32) {
        self.verbosity.store(level, Ordering::Relaxed);
    }
}
