//! A configuration that was read, expanded and checked.

use super::handle::{Handle, HandleId, PoolId};
use super::options::Options;
use super::pool::Pool;

/// A configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pools.
    pub pools: Vec<Pool>,
    /// The handles; children come before their parents.
    pub(crate) handles: Vec<Handle>,
    /// Names under which handles are used again.
    pub names: Vec<(String, HandleId)>,
    /// Routing prefixes, `/region/cluster/`, with their handles. The default one is among them.
    pub routes: Vec<(String, HandleId)>,
    /// What the command line said.
    pub options: Options,
}

impl Config {
    /// The pool of that id.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[id.0 as usize]
    }

    /// The handle of that id.
    #[must_use]
    pub(crate) fn handle(&self, id: HandleId) -> &Handle {
        &self.handles[id.0 as usize]
    }
}
