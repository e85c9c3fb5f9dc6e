//! Failover: the first child, and others while the reply is an error. LatestRoute is one whose children were chosen
//! when it was compiled.

use std::cell::Cell;

use corecached_protocol::{ErrorKind, Reply};

use super::super::config::{FailoverErrors, Limit};
use super::super::hash::{Ring, rendezvous};
use super::super::request::OwnedRequest;
use super::bucket::Bucket;
use super::frame::{Frame, Parent, State as FrameState, Step};
use super::outcome;
use super::slab::Place;
use super::tree::{Node, NodeId, NodeState, shorter};

/// See [`super::super::config::Handle::Failover`].
#[derive(Debug)]
pub(super) struct Failover {
    pub children: Box<[NodeId]>,
    pub errors: FailoverErrors,
    pub order: Order,
    /// Requests sent to others than ejected destinations, at most.
    pub tries_max: usize,
    /// Of those with errors, at most.
    pub error_tries_max: usize,
    pub limit: Option<Limit>,
    pub exptime_max_s: Option<i64>,
}

/// In what order the children are tried.
#[derive(Debug)]
pub(super) enum Order {
    Written,
    /// The first, then those with the fewest errors since their last success.
    LeastFailures,
    /// The first, then by a hash of the key with salts 1, 2, 3: one ring for each salt.
    Hashed(Box<[Ring]>),
    /// By rendezvous of the key and these tags' hashes.
    Rendezvous(Box<[u64]>),
}

/// What a shard remembers of a failover.
#[derive(Debug)]
pub(super) struct State {
    /// Errors of each child since its last success.
    failures: Box<[Cell<u32>]>,
    bucket: Option<Bucket>,
}

/// Where one request's failover stands.
#[derive(Debug)]
pub(super) struct Progress {
    /// Children in the order they are tried; empty until the first failure, when it is as written up to there.
    order: Vec<u32>,
    tried: usize,
    tries: usize,
    error_tries: usize,
}

impl Failover {
    pub fn state(&self) -> State {
        State {
            failures: self.children.iter().map(|_| Cell::new(0)).collect(),
            bucket: self.limit.map(Bucket::full),
        }
    }

    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        if let (NodeState::Failover(State { bucket: Some(bucket), .. }), Some(limit)) =
            (step.state(node), self.limit)
        {
            bucket.fill(limit.rate, limit); // tokens come with requests
        }
        let mut order = Vec::new();
        if let Order::Rendezvous(tags) = &self.order {
            rendezvous::rendezvous_order(request.key(), tags, &mut order);
        }
        let first = order.first().copied().unwrap_or(0);
        let state = FrameState::Failover(Progress { order, tried: 1, tries: 0, error_tries: 0 });
        let Some(place) = step.open(node, request.clone(), parent, state) else { return };
        let request = self.request_for(first, &request);
        if let Some(mut frame) = step.frames.take(place) {
            frame.start_child(step, place, self.children[first as usize], request, first);
            step.frames.put_back(place, frame);
        }
    }

    /// What `child` gets: of others than the first, a shorter life for what they store.
    fn request_for(&self, child: u32, request: &OwnedRequest) -> OwnedRequest {
        match (self.exptime_max_s, request.exptime()) {
            (Some(max_s), Some(own)) if child > 0 => request.with_exptime(shorter(own, max_s)),
            _ => request.clone(),
        }
    }

    /// All children in the order they are tried after the first failed.
    fn full_order(&self, key: &[u8], failures: Option<&[Cell<u32>]>) -> Vec<u32> {
        let count = self.children.len() as u32;
        let mut order: Vec<u32> = (0..count).collect();
        match (&self.order, failures) {
            (Order::LeastFailures, Some(failures)) => {
                order[1..].sort_by_key(|&child| failures[child as usize].get());
            }
            (Order::Hashed(rings), _) => {
                order.truncate(1);
                for ring in rings {
                    let child = ring.pick(key) as u32;
                    if !order.contains(&child) {
                        order.push(child);
                    }
                }
                // What no salt has hit stays in the order written.
                let missed: Vec<u32> = (0..count).filter(|child| !order.contains(child)).collect();
                order.extend(missed);
            }
            _ => {}
        }
        order
    }
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, place: Place, child: u32, reply: Reply) {
    let routes = std::rc::Rc::clone(&frame.routes);
    let node = frame.node as usize;
    let (Node::Failover(failover), NodeState::Failover(state)) =
        (&routes.tree.nodes[node], &routes.states[node])
    else {
        return frame.answer(step, reply);
    };
    let class = frame.request.class();
    let failures = &state.failures[child as usize];
    if !outcome::fails_over(&failover.errors, class, &reply) {
        failures.set(0);
        return frame.answer(step, reply);
    }
    failures.set(failures.get().saturating_add(1));
    let FrameState::Failover(progress) = &mut frame.state else { return };
    // A request to an ejected destination was none: nothing was sent.
    if outcome::error_kind(&reply) != Some(ErrorKind::Ejected) {
        progress.tries += 1;
        progress.error_tries += 1;
    }
    if progress.order.is_empty() {
        progress.order = failover.full_order(frame.request.key(), Some(&state.failures));
    }
    let exhausted = progress.tried >= progress.order.len()
        || progress.tries >= failover.tries_max
        || progress.error_tries >= failover.error_tries_max;
    if exhausted || state.bucket.as_ref().is_some_and(|bucket| !bucket.take()) {
        return frame.answer(step, reply);
    }
    let next = progress.order[progress.tried];
    progress.tried += 1;
    let request = failover.request_for(next, &frame.request);
    frame.start_child(step, place, failover.children[next as usize], request, next);
}
