//! `failover_policy`: in what order a failover tries its children.

use super::node::Order;
use crate::config::{Builder, Checked, Hash, Json, WrittenHash};
use crate::hash::rendezvous;
use crate::route::compile::{Compiled, Compiler};
use crate::route::node_set::NodeId;

/// Salts that a failover by hash tries, at most.
const SALTS_MAX: usize = 64;

/// In what order a failover tries its children.
#[derive(Clone, Debug)]
pub(super) enum FailoverPolicy {
    /// As written.
    InOrder {
        /// Requests sent at most.
        max_tries: usize,
    },
    /// The first, then those with the fewest failures of late.
    LeastFailures {
        /// Requests sent at most.
        max_tries: usize,
    },
    /// The first, then by hash of the key with salts 1, 2, 3.
    Deterministic {
        /// Requests sent at most.
        max_tries: usize,
        /// Errors at most, ejected destinations not counted.
        max_error_tries: usize,
        /// How the key is hashed.
        hash: Hash,
    },
    /// By rendezvous of the key and these tags.
    Rendezvous {
        /// One for each child.
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
                hash: match policy.get("hash") {
                    Some(hash) => builder.hash(hash)?,
                    None => builder.check_hash(WrittenHash::default(), policy)?,
                },
            },
            Some("RendezvousPolicy") => Self::Rendezvous { tags: builder.texts_at(policy, "tags")? },
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
        let order = match self {
            Self::InOrder { max_tries } => {
                tries_max = *max_tries;
                Order::Written
            }
            Self::LeastFailures { max_tries } => {
                tries_max = *max_tries;
                Order::LeastFailures
            }
            Self::Deterministic { max_tries, max_error_tries, hash } => {
                (tries_max, error_tries_max) = (*max_tries, *max_error_tries);
                let servers = compiler.ring_servers(hash, children);
                let salts = 1..=(children.len() * 4).min(SALTS_MAX);
                let ring = |salt: usize| {
                    let hash = Hash { salt: format!("{}{salt}", hash.salt), ..hash.clone() };
                    compiler.ring(&hash, &servers, name)
                };
                Order::Hashed(salts.map(ring).collect::<Compiled<_>>()?)
            }
            Self::Rendezvous { tags } => {
                let tag = |at: usize| match tags.get(at) {
                    Some(tag) => rendezvous::tag_hash(tag.as_bytes()),
                    None => rendezvous::tag_hash(at.to_string().as_bytes()),
                };
                Order::Rendezvous((0..children.len()).map(tag).collect())
            }
        };
        Ok(CompiledPolicy { order, tries_max, error_tries_max })
    }
}
