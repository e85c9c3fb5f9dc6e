//! The channels between shards: rings with one producer and one consumer each.
//!
//! Messages for another shard gather in a batch and are published once a turn, requests and replies apart, so that
//! replies always get through. Both directions are bounded: when a peer's request channel is full and the batch for
//! it too, connections that need that peer stop parsing; a shard takes no more requests from a peer that does not take
//! its replies. A peer is woken only when it is parked.

pub mod lock;
pub mod message;
pub mod owner;
pub mod slice;
pub mod spsc;

use std::sync::{Arc, OnceLock};

use corecached_net::Waker;

use self::lock::Bell;
use self::message::Batch;
use self::spsc::{Consumer, Producer, ring};
use crate::types::ServiceTypes;

/// Batches under way from one shard to another.
const BATCHES_MAX: usize = 32;
/// Bytes gathered for a peer that has no room, before parsing for it stops.
const PENDING_BYTES_MAX: usize = 256 * 1024;
/// Emptied batches kept for use again.
const SPARES_MAX: usize = 16;
/// Bytes of a batch kept for use again; a larger one is dropped.
const SPARE_BYTES_MAX: usize = 512 * 1024;

/// What all shards know of each.
#[derive(Debug)]
pub struct Presence {
    /// Armed while it waits for the kernel: whoever publishes to it then must wake it.
    bell: Bell,
    /// How; set once its driver is up.
    waker: OnceLock<Arc<Waker>>,
}

impl Presence {
    /// Its driver is up.
    pub fn set_waker(&self, waker: Arc<Waker>) {
        let _ = self.waker.set(waker);
    }

    /// Wake it from outside the mesh.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// One shard's ends of all its channels.
pub struct Mesh<S: ServiceTypes> {
    me: usize,
    presence: Arc<[Presence]>,
    peers: Vec<Peer<S>>,
    spares: Vec<Batch<S>>,
}

struct Peer<S: ServiceTypes> {
    shard: usize,
    requests_out: Lane<S>,
    replies_out: Lane<S>,
    requests_in: Consumer<Batch<S>>,
    replies_in: Consumer<Batch<S>>,
}

/// An outgoing channel and what waits to be published on it.
struct Lane<S: ServiceTypes> {
    published: Producer<Batch<S>>,
    pending: Batch<S>,
}

impl<S: ServiceTypes> Lane<S> {
    /// Publish what waits; true when something was.
    fn publish(&mut self, spares: &mut Vec<Batch<S>>) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let batch = std::mem::replace(&mut self.pending, spares.pop().unwrap_or_default());
        let Err(batch) = self.published.push(batch) else { return true };
        // Full. Nothing was added to the replacement: it goes back, and the batch waits for the next turn.
        spares.push(std::mem::replace(&mut self.pending, batch));
        false
    }
}

/// The ends of every shard among `shards`, and what they know of each other.
#[must_use]
pub fn connect<S: ServiceTypes>(shards: usize) -> (Vec<Mesh<S>>, Arc<[Presence]>) {
    let presence: Arc<[Presence]> =
        (0..shards).map(|_| Presence { bell: Bell::silent(), waker: OnceLock::new() }).collect();
    let mut meshes: Vec<Mesh<S>> = (0..shards)
        .map(|me| Mesh { me, presence: Arc::clone(&presence), peers: Vec::new(), spares: Vec::new() })
        .collect();
    for one in 0..shards {
        for other in one + 1..shards {
            let (ask, asked) = ring(BATCHES_MAX);
            let (answer, answered) = ring(BATCHES_MAX);
            let (ask_back, asked_back) = ring(BATCHES_MAX);
            let (answer_back, answered_back) = ring(BATCHES_MAX);
            let peer = |shard, ask, answer, requests_in, replies_in| Peer {
                shard,
                requests_out: Lane { published: ask, pending: Batch::default() },
                replies_out: Lane { published: answer, pending: Batch::default() },
                requests_in,
                replies_in,
            };
            meshes[one].peers.push(peer(other, ask, answer_back, asked_back, answered));
            meshes[other].peers.push(peer(one, ask_back, answer, asked, answered_back));
        }
    }
    for mesh in &mut meshes {
        mesh.peers.sort_by_key(|peer| peer.shard);
    }
    (meshes, presence)
}

impl<S: ServiceTypes> Mesh<S> {
    /// The shard these ends belong to.
    #[must_use]
    pub const fn me(&self) -> usize {
        self.me
    }

    /// Shards in the mesh, this one included.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.presence.len()
    }

    fn peer(&mut self, shard: usize) -> &mut Peer<S> {
        debug_assert_ne!(shard, self.me);
        debug_assert!(shard < self.shards());
        &mut self.peers[shard - usize::from(shard > self.me)]
    }

    /// Whether a request for `shard` may be added.
    #[must_use]
    pub fn has_room(&self, shard: usize) -> bool {
        let peer = &self.peers[shard - usize::from(shard > self.me)];
        peer.requests_out.pending.len_bytes() < PENDING_BYTES_MAX
    }

    /// Whether everything asked of `shard` has been taken by it: with its slice free, it has been done.
    #[must_use]
    pub fn is_quiet(&self, shard: usize) -> bool {
        let lane = &self.peers[shard - usize::from(shard > self.me)].requests_out;
        lane.pending.is_empty() && lane.published.is_empty()
    }

    /// Requests for `shard`, published with the rest of this turn.
    pub fn requests(&mut self, shard: usize) -> &mut Batch<S> {
        &mut self.peer(shard).requests_out.pending
    }

    /// Replies and returned values for `shard`, published with the rest of this turn.
    pub fn replies(&mut self, shard: usize) -> &mut Batch<S> {
        &mut self.peer(shard).replies_out.pending
    }

    /// The next batch of replies from any peer, with its shard.
    pub fn take_replies(&mut self) -> Option<(usize, Batch<S>)> {
        self.peers.iter_mut().find_map(|peer| Some((peer.shard, peer.replies_in.pop()?)))
    }

    /// The next batch of requests from a peer that takes our replies, with its shard.
    pub fn take_requests(&mut self) -> Option<(usize, Batch<S>)> {
        self.peers.iter_mut().find_map(|peer| {
            if peer.replies_out.pending.len_bytes() >= PENDING_BYTES_MAX {
                return None;
            }
            Some((peer.shard, peer.requests_in.pop()?))
        })
    }

    /// Give back an emptied batch.
    pub fn recycle(&mut self, batch: Batch<S>) {
        debug_assert!(batch.is_empty());
        if self.spares.len() < SPARES_MAX && batch.capacity_bytes() <= SPARE_BYTES_MAX {
            self.spares.push(batch);
        }
    }

    /// Show the peers what was added since; `wake` is called for those that sleep.
    pub fn publish(&mut self, mut wake: impl FnMut(&Waker)) {
        for peer in &mut self.peers {
            let replied = peer.replies_out.publish(&mut self.spares);
            let asked = peer.requests_out.publish(&mut self.spares);
            if replied || asked {
                let presence = &self.presence[peer.shard];
                if presence.bell.must_ring()
                    && let Some(waker) = presence.waker.get()
                {
                    wake(waker);
                }
            }
        }
    }

    /// Whether something waits that this shard could work on.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.peers.iter().any(|peer| {
            !peer.replies_in.is_empty()
                || !peer.requests_in.is_empty()
                || !peer.replies_out.pending.is_empty()
                || !peer.requests_out.pending.is_empty()
        })
    }

    /// About to wait for the kernel: peers wake us from now on. False when there is work after all.
    #[must_use]
    pub fn park(&self) -> bool {
        self.presence[self.me].bell.arm();
        if self.pending() {
            self.unpark();
            return false;
        }
        true
    }

    /// Awake again.
    pub fn unpark(&self) {
        self.presence[self.me].bell.disarm();
    }
}
