//! Warm resize: a pool's servers changed, and keys follow. A key that the new server has not got is fetched
//! from the one it was on, and copied with its flags and what is left of its life, to the second.
//!
//! # What must hold, and what holds it
//! After a write or delete through any proxy was answered, no later retrieval through any proxy shows an
//! older value. Within one proxy a key has one owning shard, and what is asked of a key here while a request
//! changes it waits for the end of that ([`ChangingKeys`]). Between proxies nothing orders anything, so these
//! could bring an old value back:
//!
//! 1. *A copy that overtakes a delete.* B misses the new server and reads `v` from the old one; A deletes the
//!    key from both; B stores `v`. Held by memcached's lease: B's look at the new server is `mg .. N2`, which
//!    leaves an empty item and shows its cas unique; the copy is `ms .. C<cas>`. Whatever A does on the new
//!    server in between takes the item away or gives it another cas unique, and the copy is refused.
//! 2. *A copy whose lease is younger than the delete.* A deletes from the new server, B takes a lease there
//!    and reads `v` from the old one, A deletes from the old one. Held by order: whatever changes a key first
//!    clears every server that may be copied from, waits for the answers, and only then works on the one that
//!    is copied to. Every lease taken before is gone then, and every lease taken after finds the sources
//!    empty.
//! 3. *A value left on the old server, copied again when the new one has lost it* to eviction or its end.
//!    Held as 2 is: writes clear the old server too, not only deletes.
//! 4. *A proxy that does not know the new ring yet* writes to and deletes from the old server only. Held by
//!    the grace: a proxy that learns of a ring goes on using the one before (reads, writes), only deletes
//!    from the new server after each write or delete; when the grace is over it uses the new ring. The grace
//!    is longer than proxies learn of a change apart, so the steps old / grace / new ring of two proxies are
//!    never more than one apart, and each pair of neighbours is right: in old + grace both read and write the
//!    old server; in grace + new the one writes old then clears new, the other clears old then writes new,
//!    and who reads finds the last write or nothing.
//! 5. *A copy towards a ring that others have left.* Held: while a ring is in its grace nothing is copied,
//!    unless the key stays where it is. Copies under way end with their lease, which the grace outlives. So
//!    at any moment all copies of a key go to one server, and the order of 2 can be kept.
//! 6. *A proxy that ended the window earlier* must not leave a value on the old server to one that has not.
//!    Held: for as long as the grace (or `invalidate_ms`) after the window nothing is fetched, and writes
//!    still clear.
//!
//! Changes in a row are taken one at a time (`config::rings`); up to four earlier rings are looked at, the
//! newest first. `model.rs` runs the code below on three proxies and servers by hand through seeded orders of
//! all single steps, with scale-out and scale-in in a row, evictions and deaths, and checks the first
//! sentence; the same check catches copies without a fence, and rings without a grace.
//!
//! # What each command does to a key that moves
//! A key that is on the same server in every ring takes the short way ([`crate::route::Routes::direct`]) as if
//! nothing were.
//!
//! | command | in the grace | in the window |
//! |---|---|---|
//! | `get` | old server | new; on a miss the earlier ones in turn, the answer goes out at once and the copy after it |
//! | `gets` | old server | the same, but the copy is waited for: the cas unique shown is the new server's |
//! | `mg` | old server | as it is; on a miss the copy first, then again as it is. With `N` the copy comes first |
//! | `gat` `touch` | old, then cleared on new | copy first, cleared on old, then touched |
//! | `set` `delete` `ms` `md` | old, then cleared on new | cleared on old, then new; a delete found the key if any server had it |
//! | `add` `ms ME` | old, then cleared on new | refused if an earlier server has the key, which is copied; else stored in place of the lease |
//! | `replace` `append` `prepend` `incr` `decr`, `ms` `ma` of these | old, then cleared on new | copy first, cleared on old, then done on condition that it is still that item; three times at most, then without condition |
//! | `cas`, `ms` `ma` `md` with `C`, `md` with `I` | old, then cleared on new | copy first, cleared on old, then as it is. A cas unique that the old server showed answers `EXISTS`: read again |
//! | `me` | old server | new server alone |
//! | `flush_all` | every server, the earlier ones too | the same. A copy under way across it may stay: send it twice |
//!
//! Binary commands are these in another form. An empty item whose token was given out (`Z`) is a lease: to
//! clients here the key is missing. Items declared stale (`X`) on an earlier server, and such as die within
//! the second, are not copied. A value that the new server refuses (too large) is shown and not copied.
//!
//! # What it costs
//! In the window, of keys that move: a miss one request for each earlier ring whose server differs (one,
//! after one change), and one that gives the lease back; a hit on the old server that and the copy, once; a
//! write or delete one round trip more. An earlier server that is gone costs what the pool's
//! `connect_timeout` and `server_timeout` let it, until it is ejected; then nothing. In the grace one that
//! left the pool and refuses connections is done without.
//!
//! # What is left
//! - Clients that ask the servers without this proxy may see a lease, an empty value, for a round trip; for 2
//!   s where a proxy died. Proxies must all have warm resize, with one grace and window.
//! - A server that some proxies reach and others do not may keep a value that was to be cleared
//!   (`resize_unreached` counts it). Such deletes are not kept for later.
//! - A list of servers that lasts shorter than proxies learn of it apart may be seen by some and not by
//!   others, and then 1 to 6 do not hold for the keys that it moved.
//! - What stays on a server that lost the key, unread until the window is over, is there when a later change
//!   gives the key back, as without warm resize. Where pools shrink again later than a window after they
//!   grew, let `invalidate_ms` be as long as values live.
//! - With memcached's `-C` there are no cas uniques, so nothing is copied.
//! - The hash function is that of now for earlier rings too: a change of it is not warm. Neither are pools
//!   with weights, tags or handles for servers, `PoolRoute`s with replicas, bounded loads or a slow warm-up,
//!   nor `Pool|A` as the children of another handle.
//! - With `--single-flight` or kept hot keys a retrieval may see what those say, in the window as at any
//!   time.

mod layout;
#[cfg(test)]
mod model;
mod queues;
mod run;
#[cfg(test)]
mod tests;
mod words;

use corecached_protocol::Reply;

use self::layout::Layout;
use self::queues::ChangingKeys;
use self::run::ResizeProgress;
use self::words::ResizeKind;
use super::destination::DestinationNode;
use super::hash::{HashNode, push_pool};
use crate::config::{Hash, PoolId, Ring, WarmResize};
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId, RingBelow};
use crate::route::slab::SlotId;
use crate::route::tree::Tree;

/// Adds the node of pool `id`, which goes from ring to ring.
pub(super) fn push(
    compiler: &mut Compiler,
    id: PoolId,
    hash: &Hash,
    times: WarmResize,
    rings: &[Ring],
) -> Compiled<NodeId> {
    let pool = compiler.config.pool(id);
    let mut generations = Vec::new();
    for ring in rings {
        let children: Vec<NodeId> =
            ring.members.iter().map(|server| compiler.destination(id, server)).collect();
        let servers = hash.ring_servers(pool, Some(&ring.members));
        let node = push_pool(compiler, pool, hash, children, &servers)?;
        generations.push(RingGeneration { node, since_ms: ring.since_ms });
    }
    Ok(match generations[..] {
        [only] => only.node,
        _ => compiler.push(Resize { generations: generations.into(), times }),
    })
}

/// One of the rings of a pool.
#[derive(Clone, Copy, Debug)]
pub(in crate::route) struct RingGeneration {
    /// The pool's node with this ring.
    pub node: NodeId,
    /// When the ring became known, unix milliseconds.
    pub since_ms: u64,
}

/// A pool whose ring changed.
#[derive(Debug)]
pub(in crate::route) struct Resize {
    /// The oldest first; at least two.
    pub generations: Box<[RingGeneration]>,
    pub times: WarmResize,
}

/// The child of a pool's node that `key` belongs to; `None` when the pool has none.
#[inline]
fn pool_child(tree: &Tree, node: NodeId, key: &[u8]) -> Option<NodeId> {
    let pool = &tree.nodes[node as usize];
    if DestinationNode::in_node(pool).is_some() {
        return Some(node);
    }
    HashNode::in_node(pool).map(|hash| hash.child(key))
}

/// Whether keys may belong to `child` at a pool's `node`.
fn has_pool_child(tree: &Tree, node: NodeId, child: NodeId) -> bool {
    match HashNode::in_node(&tree.nodes[node as usize]) {
        Some(hash) => hash.children.contains(&child),
        None => node == child,
    }
}

impl Resize {
    /// The destination of `key`, if it is one and the same in every ring.
    #[inline]
    fn only(&self, tree: &Tree, key: &[u8]) -> Option<NodeId> {
        let mut nodes = self.generations.iter().map(|generation| pool_child(tree, generation.node, key));
        let first = nodes.next()??;
        nodes.all(|node| node == Some(first)).then_some(first)
    }

    /// The ring that is in use, as an index in `generations`.
    fn current(&self, now_ms: u64) -> usize {
        let promoted =
            |generation: &RingGeneration| generation.since_ms.saturating_add(self.times.grace_ms) <= now_ms;
        self.generations.iter().skip(1).rposition(promoted).map_or(0, |at| at + 1)
    }

    /// The node that stands for the pool where a request cannot be looked at more closely.
    fn node(&self, now_ms: u64) -> NodeId {
        self.generations[self.current(now_ms)].node
    }

    /// The node with the newest ring.
    fn newest(&self) -> NodeId {
        self.generations[self.generations.len() - 1].node
    }

    fn layout(&self, tree: &Tree, key: &[u8], now_ms: u64) -> Option<Layout> {
        let at = |generation: &RingGeneration| pool_child(tree, generation.node, key);
        let current = self.current(now_ms);
        let authority = at(&self.generations[current])?;
        let pending = self.generations.get(current + 1).and_then(at).filter(|&node| node != authority);
        let WarmResize { window_ms, grace_ms, .. } = self.times;
        let (mut sources, mut others, mut careful) = (Vec::new(), Vec::new(), false);
        for earlier in (0..current).rev() {
            let ended_ms = self.generations[earlier + 1].since_ms.saturating_add(window_ms);
            if ended_ms.saturating_add(self.times.settle_ms()) <= now_ms {
                break; // those before ended earlier still
            }
            careful |= now_ms < ended_ms.saturating_add(grace_ms);
            let Some(node) = at(&self.generations[earlier]).filter(|&node| node != authority) else {
                continue;
            };
            if now_ms < ended_ms && !sources.contains(&node) {
                sources.push(node);
            }
            if !others.contains(&node) {
                others.push(node);
            }
        }
        Some(Layout {
            authority,
            copies: pending.is_none() && !sources.is_empty(),
            leaving: pending.is_some() && !has_pool_child(tree, self.newest(), authority),
            sources,
            others,
            pending,
            careful,
        })
    }
}

impl RouteNode for Resize {
    type State = ChangingKeys;
    /// `None` while a step of it is under way.
    type Progress = Option<Box<ResizeProgress>>;

    fn state(&self) -> ChangingKeys {
        assert!(self.generations.len() > 1, "a pool that resizes has several rings");
        debug_assert!(self.generations.is_sorted_by_key(|generation| generation.since_ms));
        ChangingKeys::default()
    }

    fn start(
        &self,
        changing: &ChangingKeys,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        let Some(layout) = self.layout(&step.routes.tree, request.key(), step.now_ms) else {
            return step.start(self.node(step.now_ms), request, parent); // a pool that is empty says so
        };
        let plain = layout.others.is_empty() && layout.pending.is_none() && !layout.careful;
        if plain || request.operation() == Operation::Metaget {
            return step.start(layout.authority, request, parent);
        }
        let kind = ResizeKind::from_request(&request);
        let Some((request, parent)) = changing.wait(step, request, parent) else { return };
        let key = request.key().clone();
        let Some(slot) = step.open(node, request, parent, Self::waiting(None)) else { return };
        if kind.changes() {
            changing.begin(key);
        }
        let Some(mut frame) = step.frames.take(slot) else { return };
        frame.progress = Self::waiting(Some(run::begin(&mut frame, step, slot, kind, layout)));
        if frame.waiting > 0 {
            step.frames.put_back(slot, frame);
        } else {
            // Answered at once.
            if kind.changes() {
                changing.end(&frame, step);
            }
            step.frames.release(slot);
        }
    }

    fn replied(
        &self,
        changing: &ChangingKeys,
        frame: &mut Frame,
        step: &mut Step,
        slot: SlotId,
        child: u32,
        reply: Reply,
    ) {
        let Some(progress) = Self::in_progress(&mut frame.progress).and_then(Option::take) else { return };
        let progress = run::replied(frame, step, slot, child, reply, progress);
        let changes = progress.changes();
        frame.progress = Self::waiting(Some(progress));
        if frame.waiting == 0 && changes {
            changing.end(frame, step);
        }
    }

    #[inline]
    fn direct(&self, tree: &Tree, key: &[u8], _: Operation) -> Next {
        self.only(tree, key).map_or(Next::Undecided, Next::Node)
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.newest())
    }

    fn late_delete(&self, _: &[u8], now_ms: u64) -> Next {
        Next::Node(self.node(now_ms))
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::At(self.newest())
    }
}
