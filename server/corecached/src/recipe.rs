//! What the shards of a cache and of a proxy are made from. A shard is made in three steps, of which the first and the last
//! run on its own thread: prepare, assemble what all have prepared, build.

use std::sync::Arc;

use corecached_cache::{Cache, CacheContext};
use corecached_engine::{KeyHasher, Seconds, Store, StoreConfig};
use corecached_proxy::{Forwarding, FrontOptions, Proxy, ProxyView, RelaySetup};
use corecached_shard::Service;
use corecached_shard::clock::Clock;
use corecached_shard::mesh::slice::{SliceHandle, Slices};

use crate::error::LaunchError;

/// How the services of all shards are made.
pub trait Recipe: Send + Sync + 'static {
    /// The service.
    type Service: Service;
    /// What a shard's thread prepares.
    type Prepared: Send + 'static;
    /// What a shard's thread builds its service from.
    type Parts: Send + 'static;

    /// Drivers receive values of several KiB rather than requests: better received whole.
    const RECEIVES_VALUES: bool;

    /// On the thread of `shard`, before any other part of it is made.
    ///
    /// # Errors
    /// What cannot be had.
    fn prepare(&self, shard: usize) -> Result<Self::Prepared, LaunchError>;

    /// Once all shards have prepared: the parts of each, in order.
    ///
    /// # Errors
    /// What cannot be had.
    fn assemble(&self, prepared: Vec<Self::Prepared>) -> Result<Vec<Self::Parts>, LaunchError>;

    /// On the thread of the shard.
    fn build(&self, parts: Self::Parts) -> Self::Service;
}

/// How the shards of a cache are made.
pub struct CacheRecipe {
    /// What they share.
    pub context: Arc<CacheContext>,
    /// The hasher of every store.
    pub hasher: KeyHasher,
    /// The time at which stores begin.
    pub clock: Arc<Clock>,
    /// How many.
    pub shards: usize,
}

impl Recipe for CacheRecipe {
    type Service = Cache;
    type Prepared = Store;
    /// The shard's own slice, and its ways to the others'.
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
        // Refused when the largest item would not fit any more: then it keeps all.
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
pub struct ProxyRecipe {
    /// What they forward with.
    pub forwarding: Arc<Forwarding>,
    /// Towards clients.
    pub front: FrontOptions,
    /// What other threads read of them.
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
