//! `failover_policy`: in what order a failover tries its children.

use std::sync::Arc;

use super::hashed_order::HashedOrder;
use super::node::Order;
use crate::config::{Builder, Checked, Hash, Json, WrittenHash};
use crate::hash::{Ring, rendezvous};
use crate::route::compile::{Compiled, Compiler};
use crate::route::node_set::NodeId;

/// In what order a failover tries its children.
#[derive(Clone, Debug)]
pub(super) enum FailoverPolicy {
    /// As written.
    InOrder {
        /// Errors at most, ejected destinations not counted.
        max_tries: usize,
    },
    /// The first, then those with the fewest failures of late.
    LeastFailures {
        /// Children tried at most.
        max_tries: usize,
    },
    /// The first, then by hash of the key with one salt after the other.
    Deterministic {
        /// Children tried at most.
        max_tries: usize,
        /// Errors at most, ejected destinations not counted.
        max_error_tries: usize,
        /// How the key is hashed.
        hash: Hash,
        /// The server that the first child sends to may be tried again: the others are not the servers of its pool.
        ignore_normal_reply_index: bool,
    },
    /// The first, then by rendezvous of the key and these tags.
    Rendezvous {
        /// One for each child but the first.
        tags: Vec<String>,
    },
}

/// A policy for the children of one failover.
pub(super) struct CompiledPolicy {
    pub order: Order,
    pub tries_max: usize,
    pub error_tries_max: usize,
}

impl FailoverPolicy {
    /// All children, as written.
    pub(super) const IN_ORDER: Self = Self::InOrder { max_tries: usize::MAX };

    /// Reads `failover_policy` of a handle.
    pub(super) fn parse(builder: &Builder, json: &Json) -> Checked<Self> {
        let Some(policy) = json.get("failover_policy") else { return Ok(Self::IN_ORDER) };
        let tries = |key: &str, default: usize| -> Checked<usize> {
            Ok(builder.int_at(policy, key, 1, 100_000)?.map_or(default, |tries| tries as usize))
        };
        Ok(match builder.text_at(policy, "type")?.as_deref() {
            None | Some("InOrderPolicy") => Self::InOrder { max_tries: tries("max_tries", usize::MAX)? },
            Some("LeastFailuresPolicy") => Self::LeastFailures { max_tries: tries("max_tries", usize::MAX)? },
            Some("DeterministicOrderPolicy") => Self::Deterministic {
                max_tries: tries("max_tries", usize::MAX)?,
                max_error_tries: tries("max_error_tries", usize::MAX)?,
                // That of the handle comes first, as in mcrouter.
                hash: match json.get("hash").or_else(|| policy.get("hash")) {
                    Some(hash) => builder.hash(hash)?,
                    None => builder.check_hash(WrittenHash::default(), policy)?,
                },
                ignore_normal_reply_index: builder.flag_at(policy, "ignore_normal_reply_index", false)?,
            },
            Some("RendezvousPolicy") => {
                let at = if json.get("tags").is_some() { json } else { policy };
                Self::Rendezvous { tags: builder.texts_at(at, "tags")? }
            }
            Some(other) => {
                let remedy = "must be InOrderPolicy, LeastFailuresPolicy, DeterministicOrderPolicy or RendezvousPolicy";
                return Err(builder.fault(policy, "failover_policy.type", other, remedy));
            }
        })
    }

    /// The order of `children`, which are those of a handle of type `name`.
    pub(super) fn compile(
        &self,
        compiler: &Compiler,
        children: &[NodeId],
        name: &str,
    ) -> Compiled<CompiledPolicy> {
        let (mut tries_max, mut error_tries_max) = (usize::MAX, usize::MAX);
        let own = || children.first().and_then(|&first| compiler.ring_below(first));
        let order = match self {
            Self::InOrder { max_tries } => {
                error_tries_max = *max_tries;
                Order::Written
            }
            Self::LeastFailures { max_tries } => {
                tries_max = *max_tries;
                Order::LeastFailures
            }
            Self::Deterministic { max_tries, max_error_tries, hash, ignore_normal_reply_index } => {
                (tries_max, error_tries_max) = (*max_tries, *max_error_tries);
                let own = if *ignore_normal_reply_index { None } else { own() };
                Order::Hashed(Self::hashed(compiler, hash, children, own, name)?)
            }
            Self::Rendezvous { tags } => {
                let tag = |at: usize| match tags.get(at) {
                    Some(tag) => rendezvous::tag_hash(tag.as_bytes()),
                    None => rendezvous::tag_hash(at.to_string().as_bytes()),
                };
                Order::Rendezvous {
                    tags: (0..children.len().saturating_sub(1)).map(tag).collect(),
                    own: own(),
                }
            }
        };
        Ok(CompiledPolicy { order, tries_max, error_tries_max })
    }

    /// The order by `hash` over all `children`, of which the first is a pool with the ring `own`.
    pub(super) fn hashed(
        compiler: &Compiler,
        hash: &Hash,
        children: &[NodeId],
        own: Option<Arc<Ring>>,
        name: &str,
    ) -> Compiled<HashedOrder> {
        // Its salts are numbers alone.
        let hash = Hash { salt: String::new(), ..hash.clone() };
        let ring = compiler.ring(&hash, &compiler.ring_servers(&hash, children), name)?;
        Ok(HashedOrder { ring, children: children.len(), own })
    }
}
