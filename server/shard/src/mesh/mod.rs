//! The channels between shards. Each has one producer and one consumer.
//!
//! Messages for another shard are collected in a batch, which is published once a turn. Requests and replies
//! have separate channels, so that replies always get through. Both are bounded. When the request channel of
//! a peer is full and the batch for it too, connections that need that peer are not parsed any further. A
//! shard takes no more requests from a peer that does not take its replies. A peer is woken only when it
//! sleeps.

mod lock;
pub mod message;
pub(crate) mod owner;
pub mod slice;
mod spsc;

use std::sync::{Arc, OnceLock};

use corecached_net::Waker;

use self::lock::Bell;
use self::message::Batch;
use self::spsc::{Consumer, Producer, channel};
use crate::types::ServiceTypes;

/// Capacity of a channel, in batches.
const BATCHES_MAX: usize = 32;
/// Bytes collected for a peer whose channel is full. Past it, nothing more is parsed for that peer.
const PENDING_BYTES_MAX: usize = 256 * 1024;
/// Emptied batches that a shard keeps to use them again.
const SPARES_MAX: usize = 16;
/// Bytes of the largest batch that is kept to be used again.
const SPARE_BYTES_MAX: usize = 512 * 1024;

/// Whether a shard sleeps, and how to wake it. All shards share one for each shard.
#[derive(Debug)]
pub struct Presence {
    /// Armed while the shard waits for the kernel. Then a peer that publishes to it must wake it.
    bell: Bell,
    /// Empty until the driver of the shard has been made.
    waker: OnceLock<Arc<Waker>>,
}

impl Presence {
    /// Says how to wake the shard. Called once, when its driver has been made.
    pub(crate) fn set_waker(&self, waker: Arc<Waker>) {
        let first = self.waker.set(waker).is_ok();
        debug_assert!(first, "a shard has one driver");
    }

    /// Wakes the shard. For threads that are not shards.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// One shard's ends of its channels to and from all other shards.
pub struct Mesh<S: ServiceTypes> {
    me: usize,
    presence: Arc<[Presence]>,
    /// In the order of their shards, without this one.
    peers: Vec<PeerChannels<S>>,
    /// Empty batches to use again.
    spares: Vec<Batch<S>>,
}

/// This shard's ends of the four channels between it and one peer.
struct PeerChannels<S: ServiceTypes> {
    shard: usize,
    requests_out: Outgoing<S>,
    replies_out: Outgoing<S>,
    requests_in: Consumer<Batch<S>>,
    replies_in: Consumer<Batch<S>>,
}

/// An outgoing channel, and the batch that will be published on it.
struct Outgoing<S: ServiceTypes> {
    channel: Producer<Batch<S>>,
    pending: Batch<S>,
}

impl<S: ServiceTypes> Outgoing<S> {
    /// Publishes the pending batch. False when it is empty, or when the channel is full.
    fn publish(&mut self, spares: &mut Vec<Batch<S>>) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let batch = std::mem::replace(&mut self.pending, spares.pop().unwrap_or_default());
        let Err(batch) = self.channel.push(batch) else { return true };
        // The channel is full. The batch stays pending until the next turn, and its replacement, still empty,
        // goes back.
        spares.push(std::mem::replace(&mut self.pending, batch));
        false
    }
}

/// Connects `shards` shards. Returns the ends of each, in order, and how to wake each.
#[must_use]
pub fn connect<S: ServiceTypes>(shards: usize) -> (Vec<Mesh<S>>, Arc<[Presence]>) {
    let presence: Arc<[Presence]> =
        (0..shards).map(|_| Presence { bell: Bell::new(), waker: OnceLock::new() }).collect();
    let mut meshes: Vec<Mesh<S>> = (0..shards)
        .map(|me| Mesh { me, presence: Arc::clone(&presence), peers: Vec::new(), spares: Vec::new() })
        .collect();
    for one in 0..shards {
        for other in one + 1..shards {
            // Requests of `one` to `other` and the replies to them, and then the other way round.
            let (ask, asked) = channel(BATCHES_MAX);
            let (answer, answered) = channel(BATCHES_MAX);
            let (ask_back, asked_back) = channel(BATCHES_MAX);
            let (answer_back, answered_back) = channel(BATCHES_MAX);
            let peer = |shard, requests_out, replies_out, requests_in, replies_in| PeerChannels {
                shard,
                requests_out: Outgoing { channel: requests_out, pending: Batch::default() },
                replies_out: Outgoing { channel: replies_out, pending: Batch::default() },
                requests_in,
                replies_in,
            };
            meshes[one].peers.push(peer(other, ask, answer_back, asked_back, answered));
            meshes[other].peers.push(peer(one, ask_back, answer, asked, answered_back));
        }
    }
    for mesh in &mut meshes {
        mesh.peers.sort_by_key(|peer| peer.shard);
        debug_assert_eq!(mesh.peers.len(), shards - 1, "one for each other shard");
    }
    (meshes, presence)
}

impl<S: ServiceTypes> Mesh<S> {
    /// The index of the shard that these ends belong to.
    #[must_use]
    pub const fn me(&self) -> usize {
        self.me
    }

    /// Number of shards in the mesh, with this one.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.presence.len()
    }

    /// The position of `shard` in `peers`.
    fn peer_index(&self, shard: usize) -> usize {
        debug_assert_ne!(shard, self.me, "a shard has no channel to itself");
        let index = shard - usize::from(shard > self.me);
        debug_assert_eq!(self.peers.get(index).map(|peer| peer.shard), Some(shard));
        index
    }

    fn peer(&mut self, shard: usize) -> &mut PeerChannels<S> {
        let index = self.peer_index(shard);
        &mut self.peers[index]
    }

    /// Whether a request to `shard` may be added.
    #[must_use]
    pub fn has_room(&self, shard: usize) -> bool {
        let peer = &self.peers[self.peer_index(shard)];
        peer.requests_out.pending.len_bytes() < PENDING_BYTES_MAX
    }

    /// Whether `shard` has taken every request of this shard. If its slice is free as well, it has carried
    /// them out.
    #[must_use]
    pub fn has_no_requests(&self, shard: usize) -> bool {
        let outgoing = &self.peers[self.peer_index(shard)].requests_out;
        outgoing.pending.is_empty() && outgoing.channel.is_empty()
    }

    /// The batch of requests to `shard` that is published at the end of this turn.
    pub fn requests(&mut self, shard: usize) -> &mut Batch<S> {
        &mut self.peer(shard).requests_out.pending
    }

    /// The batch of replies and returned values to `shard` that is published at the end of this turn.
    pub fn replies(&mut self, shard: usize) -> &mut Batch<S> {
        &mut self.peer(shard).replies_out.pending
    }

    /// The next batch of replies from any peer, with the index of that peer.
    pub fn take_replies(&mut self) -> Option<(usize, Batch<S>)> {
        self.peers.iter_mut().find_map(|peer| Some((peer.shard, peer.replies_in.pop()?)))
    }

    /// The next batch of requests from a peer that takes the replies of this shard, with the index of that
    /// peer.
    pub fn take_requests(&mut self) -> Option<(usize, Batch<S>)> {
        self.peers.iter_mut().find_map(|peer| {
            if peer.replies_out.pending.len_bytes() >= PENDING_BYTES_MAX {
                return None;
            }
            Some((peer.shard, peer.requests_in.pop()?))
        })
    }

    /// Keeps an emptied batch to use it again.
    pub fn recycle(&mut self, batch: Batch<S>) {
        debug_assert!(batch.is_empty());
        if self.spares.len() < SPARES_MAX && batch.capacity_bytes() <= SPARE_BYTES_MAX {
            self.spares.push(batch);
        }
    }

    /// Publishes the pending batches. Calls `wake` for each peer that sleeps and has something to take now.
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

    /// Whether a batch has come, or could not be published yet.
    fn has_work(&self) -> bool {
        self.peers.iter().any(|peer| {
            !peer.replies_in.is_empty()
                || !peer.requests_in.is_empty()
                || !peer.replies_out.pending.is_empty()
                || !peer.requests_out.pending.is_empty()
        })
    }

    /// Called before this shard waits for the kernel: from now on peers wake it. False when there is work
    /// after all.
    #[must_use]
    pub(crate) fn park(&self) -> bool {
        self.presence[self.me].bell.arm();
        if self.has_work() {
            self.unpark();
            return false;
        }
        true
    }

    /// Called when this shard is awake again.
    pub(crate) fn unpark(&self) {
        self.presence[self.me].bell.disarm();
    }
}
