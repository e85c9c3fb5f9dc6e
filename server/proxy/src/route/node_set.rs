//! The names by which the files below the list of route handles know what the list makes.
//!
//! A tree holds nodes, and a frame holds what a waiting request remembers; both are enums over all handles,
//! made by the list in `handles/mod.rs`. The list implements [`NodeSet`] for [`Nodes`], so that the files
//! here can hold those enums without importing a handle, and without being generic.

use std::fmt::Debug;
use std::sync::Arc;

use crate::hash::Ring;

/// The index of a node in [`super::tree::Tree::nodes`].
pub(super) type NodeId = u32;

/// A destination of a tree: its index in [`super::tree::Tree::destinations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(pub u32);

/// The enums that the list makes.
pub(super) trait NodeSet {
    /// One compiled handle.
    type Node: Debug;
    /// What one shard keeps of a node.
    type NodeState: Debug;
    /// What a request remembers that waits at a node.
    type Progress: Debug;
}

/// The list of all nodes implements [`NodeSet`] for it.
#[derive(Debug)]
pub(super) struct Nodes;

pub(super) type Node = <Nodes as NodeSet>::Node;
pub(super) type NodeState = <Nodes as NodeSet>::NodeState;
pub(super) type NodeProgress = <Nodes as NodeSet>::Progress;

/// Where a request goes from a node, as far as its key and its operation alone decide that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Destination(DestinationId),
    Node(NodeId),
    /// More than the key decides, or more than one node is sent to.
    Undecided,
}

/// The ring by which a pool's keys are laid out, as seen from a node at or above the pool.
#[derive(Debug)]
pub(super) enum RingBelow {
    Ring(Arc<Ring>),
    /// Whatever this node says.
    At(NodeId),
    /// There is none, or several.
    None,
}
