//! What a route handle of the configuration is.

use std::fmt::Debug;

use serde_json::Value;

use super::compile::{Compiled, Compiler};
use super::node_set::NodeId;
use crate::config::{Builder, Checked, Child, Config, HandleId, PoolUse, WrittenHandle};

/// One kind of route handle, as it was parsed. The list in `handles/mod.rs` makes one enum of all of them,
/// and passes every call on. A handle is compiled into one or more nodes of the tree, or into none of its
/// own.
pub(super) trait RouteHandle: Clone + Debug + Sized {
    /// The values of `"type"` that mean this handle; no other handle has them.
    const NAMES: &'static [&'static str];

    /// `"Name|text"` is short for `{"type": "Name", SHORT_KEY: "text"}`.
    const SHORT_KEY: &'static str = "target";

    /// Reads a handle of one of [`RouteHandle::NAMES`], and adds it to `builder` after its children.
    ///
    /// # Errors
    /// What is written cannot be used.
    fn parse(builder: &mut Builder, written: &WrittenHandle) -> Checked<HandleId>;

    /// The name that it is shown by.
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }

    /// Everything it may send to.
    fn children(&self) -> Vec<Child>;

    /// What it is, as a JSON object, for `check-config`.
    fn show(&self, config: &Config) -> Value;

    /// Adds its nodes to the tree; the one that requests go to.
    ///
    /// # Errors
    /// Its children cannot make a ring.
    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId>;

    /// The pool whose keys it lays out, if it does.
    fn pool_use(&self) -> Option<PoolUse<'_>> {
        None
    }
}
