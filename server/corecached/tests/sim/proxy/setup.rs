//! The proxy of a seed: its shards, destinations, routes and options, made by the command line and the
//! configuration that an operator would write.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::{Sender, bounded};

use super::blame::TIMEOUT_MS;
use corecached_engine::KeyHasher;
use corecached_net::endpoints::{Listen, ListenerProtocol};
use corecached_proxy::{Config, Found, Proxy, ProxyArgs, ProxyView, RelaySetup, Snapshot, Tree};
use corecached_shard::ServerContext;
use corecached_shard::clock::Clock;
use corecached_shard::mesh::{self, Mesh};
use corecached_testkit::network::Network;
use corecached_testkit::network::PORT_FIRST;
use corecached_testkit::shards::{Leftovers, Shards};

use crate::cache::context;

/// How requests are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Each key has one destination.
    Pool,
    /// Each key has one destination, and another one when that fails.
    Failover,
    /// Every destination has every key.
    AllSync,
    /// Each key has two destinations.
    Replicas,
}

/// The start of simulated time, Unix milliseconds.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// The parts of a proxy.
pub(crate) struct Setup {
    context: ServerContext,
    hasher: KeyHasher,
    meshes: Vec<Mesh<Proxy>>,
    services: Vec<Proxy>,
    /// The senders of configuration changes; shards expect none once these are dropped.
    updates: Vec<Sender<Arc<Snapshot>>>,
    pub(crate) downgrades_errors: bool,
    pub(crate) whole_value_bytes_max: usize,
    /// Milliseconds after which an unused connection is closed; 0 is never.
    pub(crate) inactive_reset_ms: u64,
}

impl Setup {
    pub(crate) fn new(
        seed: u64,
        random: &mut fastrand::Rng,
        clock_ms: &Arc<AtomicU64>,
        shards: usize,
        destinations: usize,
        route: Route,
        is_exact: bool,
    ) -> Self {
        let downgrades_errors = random.bool();
        let inactive_reset_ms = random.choice([0, 5000]).unwrap();
        let timeout_ms = if is_exact { 600_000 } else { TIMEOUT_MS };
        let mut line = vec![
            "proxy".to_owned(),
            format!("--server-timeout={timeout_ms}"),
            format!("--reset-inactive-connection-interval={inactive_reset_ms}"),
            format!("--connect-timeout-retries={}", random.u32(..2)),
            format!("--timeouts-until-tko={}", random.u32(1..4)),
            format!("--target-max-inflight-requests={}", random.choice([0, 0, 1, 5]).unwrap()),
            "--probe-timeout-initial=100".to_owned(),
            "--probe-timeout-max=400".to_owned(),
            format!("--config-str={}", config(route, destinations)),
        ];
        let mut give = |chance: u32, words: &[&str]| {
            if random.u32(..chance) == 0 {
                line.extend(words.iter().map(|&word| word.to_owned()));
            }
        };
        give(3, &["--single-flight"]);
        give(3, &["--hot-keys=8", "--hot-key-stale-ms=50"]);
        give(8, &["--disable-tko-tracking"]);
        if !downgrades_errors {
            line.push("--disable-miss-on-get-errors".to_owned());
        }
        let checked = ProxyArgs::read(line.into_iter().map(Into::into)).unwrap().check().unwrap();
        let mut upstream = checked.upstream;
        let whole_value_bytes_max = if random.bool() { upstream.limits.whole_value_bytes_max } else { 1000 };
        upstream.limits.whole_value_bytes_max = whole_value_bytes_max;
        upstream.merge.hot = upstream.merge.hot.share(shards);

        let text = config(route, destinations);
        let config = Config::parse("config", &text, &checked.options, &|_| Err("".into())).unwrap();
        let tree = Arc::new(Tree::compile(&config, &Found::default().pools).unwrap());
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
        let port = |at: &str| at.rsplit(':').next().unwrap().parse().unwrap();
        let addresses = tree.destinations().iter().map(|it| it.server.clone());
        let addresses =
            addresses.map(|server| (server.clone(), address(port(&server.address.to_string())))).collect();
        let snapshot = Arc::new(Snapshot { tree, addresses, trust: None });
        let view = Arc::new(ProxyView::new(shards));
        let (updates, services) = (0..shards)
            .map(|shard| {
                let (sender, updates) = bounded(1);
                let (snapshot, options) = (Arc::clone(&snapshot), upstream.clone());
                let seed = seed ^ (shard as u64) << 48;
                let setup = RelaySetup { snapshot, updates, options, spooler: None, seed };
                (sender, Proxy::new(setup, checked.front, Arc::clone(&view)))
            })
            .unzip();

        let (meshes, presence) = mesh::connect(shards);
        let Listen::Tcp(listen) = &checked.server.listen else { panic!("it listens on TCP") };
        let protocol = ListenerProtocol { wire: listen[0].protocol.wire, ..ListenerProtocol::default() };
        let clock = Arc::new(Clock::simulated(Arc::clone(clock_ms)));
        Self {
            context: context(presence, &clock, shards, &checked.server, protocol),
            hasher: KeyHasher::new(seed),
            meshes,
            services,
            updates,
            downgrades_errors,
            whole_value_bytes_max: whole_value_bytes_max as usize,
            inactive_reset_ms,
        }
    }

    /// The shards of the proxy on the network, and the senders of configuration changes.
    pub(crate) fn shards(
        self,
        network: &Rc<RefCell<Network>>,
    ) -> (Shards<Proxy>, Vec<Sender<Arc<Snapshot>>>) {
        let Self { context, hasher, meshes, services, updates, .. } = self;
        (Shards::new(network, 0, meshes, &context, &hasher, services, leftovers), updates)
    }
}

fn leftovers(proxy: &Proxy) -> Leftovers {
    Leftovers { connections: proxy.relay().connections(), counts: proxy.relay().left_behind() }
}

fn config(route: Route, destinations: usize) -> String {
    let servers = |range: std::ops::Range<usize>| {
        let servers: Vec<_> =
            range.map(|number| format!("\"127.0.0.1:{}\"", usize::from(PORT_FIRST) + number)).collect();
        format!("{{\"servers\": [{}]}}", servers.join(", "))
    };
    let half = destinations.div_ceil(2);
    let (a, b) = match route {
        Route::Failover => (servers(0..half), servers(half..destinations)),
        _ => (servers(0..destinations), servers(0..0)),
    };
    let route = match route {
        Route::Pool => "\"PoolRoute|A\"",
        Route::Failover => "{\"type\": \"FailoverRoute\", \"children\": [\"PoolRoute|A\", \"PoolRoute|B\"]}",
        Route::AllSync => "\"AllSyncRoute|Pool|A\"",
        Route::Replicas => "{\"type\": \"PoolRoute\", \"pool\": \"A\", \"replicas\": 2}",
    };
    format!("{{\"pools\": {{\"A\": {a}, \"B\": {b}}}, \"route\": {route}}}")
}
