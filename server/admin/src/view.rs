//! What the admin server reads of the server it belongs to.

use std::sync::Arc;

use corecached_cache::CacheContext;
use corecached_net::tls::Certificates;
use corecached_proxy::ProxyView;
use corecached_shard::ServerContext;

/// A plain view of a running server.
#[derive(Clone, Debug)]
pub struct AdminView {
    /// What every server has.
    pub server: ServerContext,
    /// Most clients at once, over all shards.
    pub connections_max: usize,
    /// Bytes of memory that the control group grants; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// Cores' worth of time that the control group grants; `None` without a limit.
    pub cpu_limit_cores: Option<f64>,
    /// Certificates of secured connections, if there are any.
    pub certificates: Option<Arc<Certificates>>,
    /// What the server is, with what only such a server has.
    pub role: Role,
}

/// What a server is.
#[derive(Clone, Debug)]
pub enum Role {
    /// It stores items.
    Cache(Arc<CacheContext>),
    /// It sends requests on.
    Proxy(Arc<ProxyView>),
}

impl Role {
    /// The name of the role, as metrics and pages show it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Cache(_) => "cache",
            Self::Proxy(_) => "proxy",
        }
    }
}

impl AdminView {
    /// Asks the shards of a proxy for new reports, and waits for them for a moment.
    pub(crate) async fn refresh(&self) {
        if let Role::Proxy(proxy) = &self.role {
            proxy.reports.refresh(self.server.lifecycle.presence()).await;
        }
    }
}
