//! Where one key is and was.

use crate::route::node_set::NodeId;

/// Where one key is and was, at one moment.
#[derive(Debug)]
pub(super) struct Layout {
    /// Reads and writes go to it.
    pub authority: NodeId,
    /// Where values may still be, the newest first.
    pub sources: Vec<NodeId>,
    /// Where values must not stay: the sources, and servers before them.
    pub others: Vec<NodeId>,
    /// The authority to come.
    pub pending: Option<NodeId>,
    /// The authority is no longer in the pool.
    pub leaving: bool,
    /// What is found in a source is copied.
    pub copies: bool,
    /// The authority may have leases.
    pub careful: bool,
}
