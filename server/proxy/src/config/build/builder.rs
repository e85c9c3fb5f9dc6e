//! The state of one build.

use std::collections::{HashMap, HashSet};

use crate::config::error::ConfigError;
use crate::config::handle::{Handle, HandleId, PoolId};
use crate::config::json::{Json, Sources};
use crate::config::options::Options;
use crate::config::pool::Pool;

/// What was read, or what is wrong with it.
pub(crate) type Checked<T> = Result<T, ConfigError>;

/// Builds one configuration.
pub(crate) struct Builder<'a> {
    pub(super) sources: &'a Sources,
    pub options: &'a Options,
    pub(super) pools_written: HashMap<String, Json>,
    pub(super) pool_ids: HashMap<String, PoolId>,
    /// Pools being read, so that one that contains itself is noticed.
    pub(super) pools_open: HashSet<String>,
    pub(super) pools: Vec<Option<Pool>>,
    pub(super) named_written: HashMap<String, Json>,
    pub(super) named_open: HashSet<String>,
    pub(super) names: HashMap<String, HandleId>,
    pub(super) names_in_order: Vec<(String, HandleId)>,
    pub(super) handles: Vec<Handle>,
    pub(super) depth: usize,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(sources: &'a Sources, options: &'a Options) -> Self {
        Self {
            sources,
            options,
            pools_written: HashMap::new(),
            pool_ids: HashMap::new(),
            pools_open: HashSet::new(),
            pools: Vec::new(),
            named_written: HashMap::new(),
            named_open: HashSet::new(),
            names: HashMap::new(),
            names_in_order: Vec::new(),
            handles: Vec::new(),
            depth: 0,
        }
    }
}
