//! How the shards of a cache and of a proxy are made, in three steps: every shard prepares on its own thread,
//! the starting thread assembles what all have prepared, and every shard builds its service on its own
//! thread.

use std::sync::Arc;

use corecached_cache::{Cache, CacheContext};
use corecached_engine::{KeyHasher, Seconds, Store, StoreConfig};
use corecached_proxy::{Forwarding, FrontOptions, Proxy, ProxyView, RelaySetup};
use corecached_shard::Service;
use corecached_shard::clock::Clock;
use corecached_shard::mesh::slice::{SliceHandle, Slices};

use crate::error::LaunchError;

/// How the services of all shards are made.
pub(crate) trait Recipe: Send + Sync + 'static {
    /// The service that a shard runs.
    type Service: Service;
    /// What the thread of a shard prepares.
    type Prepared: Send + 'static;
    /// What the thread of a shard builds the service from.
    type Parts: Send + 'static;

    /// Whether most of what drivers receive are values of several KiB, which are better received whole, and
    /// not requests.
    const RECEIVES_VALUES: bool;

    /// Prepares the service of `shard`, on its thread and before any other part of the shard is made.
    ///
    /// # Errors
    /// A part of the service cannot be made.
    fn prepare(&self, shard: usize) -> Result<Self::Prepared, LaunchError>;

    /// Makes the parts of each shard, in order, once all shards have prepared.
    ///
    /// # Errors
    /// Something that the shards share cannot be made.
    fn assemble(&self, prepared: Vec<Self::Prepared>) -> Result<Vec<Self::Parts>, LaunchError>;

    /// Builds the service of a shard, on its thread.
    fn build(&self, parts: Self::Parts) -> Self::Service;
}

/// How the shards of a cache are made.
pub(crate) struct CacheRecipe {
    /// The state that all shards of the cache share.
    pub context: Arc<CacheContext>,
    /// The hasher of every store.
    pub hasher: KeyHasher,
    /// The clock, for the time at which stores begin.
    pub clock: Arc<Clock>,
    /// The number of shards.
    pub shards: usize,
}

impl Recipe for CacheRecipe {
    type Service = Cache;
    type Prepared = Store;
    /// The handle of the shard's own slice, and handles of the slices of all shards.
    type Parts = (SliceHandle<Store>, Vec<SliceHandle<Store>>);

    const RECEIVES_VALUES: bool = false;

    fn prepare(&self, shard: usize) -> Result<Store, LaunchError> {
        let config = &self.context.config;
        let mut store = StoreConfig::new(config.memory_bytes / self.shards, self.hasher.clone());
        store.value_bytes_max = config.item_limit.item_bytes_max;
        store.evict = config.evict;
        store.policy.weight = config.policy_weight;
        store.cas = config.item_limit.cas;
        let now = Seconds(self.clock.now_s());
        let mut store = Store::new(store, now).map_err(LaunchError::Store)?;
        // Refused when the largest item would not fit any more; the store keeps its size in that case.
        let _ = store.set_memory_bytes(self.context.memory.slice_bytes(), now);
        if let Some(warm) = &self.context.warm {
            warm.load(shard, self.shards, &self.hasher, &mut store, now);
        }
        Ok(store)
    }

    fn assemble(&self, stores: Vec<Store>) -> Result<Vec<Self::Parts>, LaunchError> {
        if let Some(warm) = &self.context.warm {
            warm.begin_serving(self.shards).map_err(LaunchError::Warm)?;
        }
        let (slices, owners) = Slices::new(stores);
        let others = || (0..self.shards).map(|shard| slices.handle(shard)).collect();
        Ok(owners.into_iter().map(|own| (own, others())).collect())
    }

    fn build(&self, (own, others): Self::Parts) -> Cache {
        Cache::new(Arc::clone(&self.context), own, others)
    }
}

/// How the shards of a proxy are made.
pub(crate) struct ProxyRecipe {
    /// The settings and connections that requests are forwarded with.
    pub forwarding: Arc<Forwarding>,
    /// The options of connections of clients.
    pub front: FrontOptions,
    /// What other threads read of the proxy.
    pub view: Arc<ProxyView>,
}

impl Recipe for ProxyRecipe {
    type Service = Proxy;
    type Prepared = ();
    type Parts = RelaySetup;

    const RECEIVES_VALUES: bool = true;

    fn prepare(&self, _: usize) -> Result<(), LaunchError> {
        Ok(())
    }

    fn assemble(&self, prepared: Vec<()>) -> Result<Vec<RelaySetup>, LaunchError> {
        let shards = prepared.len();
        Ok(prepared
            .into_iter()
            .map(|()| self.forwarding.relay(crate::process::random_seed(), shards))
            .collect())
    }

    fn build(&self, setup: RelaySetup) -> Proxy {
        Proxy::new(setup, self.front, Arc::clone(&self.view))
    }
}
