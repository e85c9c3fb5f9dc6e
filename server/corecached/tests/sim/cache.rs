//! A cache on the simulated network.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use corecached_cache::config::{CacheArgs, check};
use corecached_cache::{Cache, CacheContext};
use corecached_engine::{KeyHasher, Seconds, Store, StoreConfig};
use corecached_net::endpoints::ListenerProtocol;
use corecached_net::listen::Admission;
use corecached_shard::ServerContext;
use corecached_shard::clock::Clock;
use corecached_shard::config::ServerConfig;
use corecached_shard::counters::Cells;
use corecached_shard::lifecycle::Lifecycle;
use corecached_shard::mesh::slice::Slices;
use corecached_shard::mesh::{self, Presence};
use corecached_shard::network::Network as Listening;
use corecached_testkit::network::Network;
use corecached_testkit::shards::{Leftovers, Shards};

/// What the shards of a simulated server share.
pub(crate) fn context(
    presence: Arc<[Presence]>,
    clock: &Arc<Clock>,
    shards: usize,
    config: &ServerConfig,
    protocol: ListenerProtocol,
) -> ServerContext {
    ServerContext {
        clock: Arc::clone(clock),
        lifecycle: Arc::new(Lifecycle::new(presence, std::time::Duration::ZERO, false)),
        network: Arc::new(Listening {
            admission: Arc::new(Admission::new(config.connections_max)),
            listeners: [protocol].into(),
            addresses: [String::new()].into(),
            backend: "simulated".to_owned(),
            idle_timeout_s: config.idle_timeout_s,
        }),
        cells: (0..shards).map(|_| Cells::default()).collect(),
    }
}

/// A cache of `shards` shards, numbered from `first` on the network. `args` are those of its command line.
pub(crate) fn cache(
    network: &Rc<RefCell<Network>>,
    first: usize,
    shards: usize,
    seed: u64,
    clock: &Arc<Clock>,
    args: &[&str],
) -> Shards<Cache> {
    let argv = ["corecached", "-m", "64"].iter().chain(args).map(Into::into);
    let args = CacheArgs::read(argv).unwrap();
    let config = check(&args).unwrap();
    let (meshes, presence) = mesh::connect(shards);
    let server = context(presence, clock, shards, &config.server, ListenerProtocol::default());
    let hasher = KeyHasher::new(seed);
    let store = || {
        let config = StoreConfig::new(config.memory_bytes / shards, hasher.clone());
        Store::new(config, Seconds(clock.now_s())).unwrap()
    };
    let (slices, owners) = Slices::new((0..shards).map(|_| store()));
    let shared = Arc::new(CacheContext::new(config.clone(), shards));
    let others = || (0..shards).map(|shard| slices.handle(shard)).collect();
    let services = owners.into_iter().map(|own| Cache::new(Arc::clone(&shared), own, others())).collect();
    Shards::new(network, first, meshes, &server, &hasher, services, |_| Leftovers::default())
}
