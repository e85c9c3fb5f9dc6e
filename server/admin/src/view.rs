//! What the admin server reads of the server it belongs to.

use std::sync::Arc;

use corecached_cache::CacheContext;
use corecached_net::tls::Certificates;
use corecached_proxy::ProxyView;
use corecached_shard::ServerContext;

/// What the admin server reads of a running server. It is a set of shared references and numbers, cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct AdminView {
    /// The state that every server has: clock, counters, lifecycle and network.
    pub server: ServerContext,
    /// Most connections of clients at once, over all shards (`-c`).
    pub connections_max: usize,
    /// Memory that the control group allows, bytes; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// CPU time that the control group allows, in cores; `None` without a limit.
    pub cpu_limit_cores: Option<f64>,
    /// The certificates that clients are shown; `None` when no listening socket is secured.
    pub certificates: Option<Arc<Certificates>>,
    /// The role of the server, with the state that only this role has.
    pub role: Role,
}

/// The role of a server, with its state.
#[derive(Clone, Debug)]
pub enum Role {
    /// A cache: it stores items.
    Cache(Arc<CacheContext>),
    /// A proxy: it forwards requests to caches.
    Proxy(Arc<ProxyView>),
}

impl Role {
    /// The name of the role as metrics and pages show it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Cache(_) => "cache",
            Self::Proxy(_) => "proxy",
        }
    }
}

impl AdminView {
    /// Asks the shards of a proxy for new reports, and waits a moment for them. It does nothing for a cache.
    pub(crate) async fn refresh(&self) {
        if let Role::Proxy(proxy) = &self.role {
            proxy.reports.refresh(self.server.lifecycle.presence()).await;
        }
    }
}
