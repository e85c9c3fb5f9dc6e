//! `replicas` of a pool: each key in several copies, on as many servers. What is stored or deleted goes to
//! all of them; a retrieval goes to the nearest by zone, and from there to the others while the reply is an
//! error or a miss.
//!
//! The first copy is where the pool's hash puts the key, and decides commands whose outcome depends on what
//! is there; the other copies follow it. A copy that did not take what was stored is sent a delete, which the
//! spool keeps until it is taken: it then has nothing rather than something old.

mod hedge;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use corecached_protocol::{ErrorKind, Exptime, Reply, StoreVerb};

pub(super) use self::hedge::Hedge;
use self::hedge::HedgeState;
use super::spool::Spool;
use crate::config::{ErrorSet, Member, PoolId};
use crate::hash::Ring;
use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::compile::Compiler;
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{NodeId, RingBelow};
use crate::route::outcome;
use crate::route::refused::Refused;
use crate::route::slab::SlotId;

/// Most copies of each key that a pool may keep.
pub(super) const REPLICAS_MAX: u32 = 8;

/// How a pool keeps copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replication {
    /// Copies of each key; 2 to [`REPLICAS_MAX`].
    pub replicas: u32,
    pub hedge: Option<Hedge>,
    /// Deletes that fail are kept for later.
    pub spool_deletes: bool,
}

/// Adds the node of pool `id`, whose servers are `nodes`.
pub(super) fn push(
    compiler: &mut Compiler,
    id: PoolId,
    ring: Arc<Ring>,
    nodes: &[NodeId],
    replication: Replication,
) -> NodeId {
    let config = compiler.config;
    let pool = config.pool(id);
    let resolved = compiler.resolved(id);
    let mut names: Vec<&str> = Vec::new();
    let mut zones = Vec::with_capacity(nodes.len());
    for at in 0..nodes.len() {
        let address = match (resolved, pool.members.get(at)) {
            (Some(servers), _) => servers.get(at).map(|server| &server.address),
            (None, Some(Member::Server(server))) => Some(&server.address),
            (None, _) => None,
        };
        let name = pool.zones.zone_of(at, address);
        let known = names.iter().position(|known| *known == name);
        zones.push(known.unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        }) as u32);
    }
    let own = config.options.zone.as_str();
    let own_zone = names.iter().position(|name| !own.is_empty() && *name == own).map(|zone| zone as u32);
    let server = |(&node, zone): (&NodeId, u32)| {
        let keeping = if replication.spool_deletes { compiler.push(Spool { target: node }) } else { node };
        CopyServer { node, keeping, zone }
    };
    let servers = nodes.iter().zip(zones).map(server).collect();
    compiler.push(Replicated {
        ring,
        servers,
        copies: replication.replicas as usize,
        zones: names.len(),
        own_zone,
        hedge: replication.hedge,
    })
}

/// Most copies of a key.
const COPIES_MAX: usize = REPLICAS_MAX as usize;
/// Salts that are tried for further copies.
const SALTS_MAX: u32 = 64;
/// Children from here on are deletes at copies that did not take what was stored.
const REPAIR: u32 = COPIES_MAX as u32;

/// A pool that keeps each key on several servers.
#[derive(Debug)]
pub(in crate::route) struct Replicated {
    pub ring: Arc<Ring>,
    pub servers: Box<[CopyServer]>,
    pub copies: usize,
    /// How many different zones the servers are in.
    pub zones: usize,
    /// The zone of this proxy, if a server is in it.
    pub own_zone: Option<u32>,
    /// Gets that wait are sent to the next copy.
    pub hedge: Option<Hedge>,
}

#[derive(Debug)]
pub(in crate::route) struct CopyServer {
    pub node: NodeId,
    /// The node for deletes: those that fail are kept for later.
    pub keeping: NodeId,
    pub zone: u32,
}

/// Servers of one key: the first is the one the hash chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Copies {
    servers: [u32; COPIES_MAX],
    len: usize,
}

/// One request, and what its copies said.
#[derive(Debug)]
pub(in crate::route) struct ReplicatedProgress {
    copies: Copies,
    stage: CopyStage,
    /// The best reply so far.
    best: Option<Reply>,
    /// The reply of a copy that did not take what was stored.
    failure: Option<Reply>,
    /// The answer, whatever the other copies reply.
    error: Option<Reply>,
    reading: Reading,
}

/// How far a retrieval has come.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    /// How many copies it was sent to, the nearest first.
    asked: u32,
    /// When each of them was, milliseconds after the first.
    asked_ms: [u32; COPIES_MAX],
    begun_ms: u64,
    /// The copy that was asked while another had not answered.
    hedge: Option<u32>,
    answered: bool,
    refused: Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyStage {
    Reading,
    /// The first copy decides.
    Deciding,
    /// All copies, or those after the first, do it.
    Doing,
}

impl Copies {
    fn as_slice(&self) -> &[u32] {
        &self.servers[..self.len]
    }

    fn push(&mut self, server: u32) {
        self.servers[self.len] = server;
        self.len += 1;
    }
}

impl Replicated {
    /// Copies are in different zones as far as there are such; further ones are where a salt more puts the
    /// key.
    fn copies(&self, key: &[u8]) -> Copies {
        let mut copies = Copies::default();
        let own = self.ring.pick(key) as u32;
        copies.push(own);
        let count = self.servers.len() as u32;
        // What no salt hits, as under a `ConstShard`: those that follow.
        let following = (1..=count).map(|next| (own + next) % count);
        let wanted = self.copies.min(self.servers.len());
        let zone = |server: u32| self.servers[server as usize].zone;
        for apart in [true, false] {
            let salts = (1..=SALTS_MAX).map(|salt| self.ring.pick_resalted(key, salt) as u32);
            for server in salts.chain(following.clone()) {
                if copies.len >= if apart { wanted.min(self.zones) } else { wanted } {
                    break;
                }
                let taken = |&other: &u32| other == server || apart && zone(other) == zone(server);
                if !copies.as_slice().iter().any(taken) {
                    copies.push(server);
                }
            }
        }
        copies
    }

    /// The copies of our zone first, else in their order.
    fn nearest_first(&self, copies: Copies) -> Copies {
        let mut sorted = Copies::default();
        let near = |server: &&u32| Some(self.servers[**server as usize].zone) == self.own_zone;
        let all = copies.as_slice();
        for server in all.iter().filter(near).chain(all.iter().filter(|server| !near(server))) {
            sorted.push(*server);
        }
        sorted
    }
}

impl RouteNode for Replicated {
    /// `None` for a pool without hedges.
    type State = Option<HedgeState>;
    type Progress = ReplicatedProgress;

    fn state(&self) -> Option<HedgeState> {
        debug_assert!((2..=COPIES_MAX).contains(&self.copies) && self.servers.len() > 1);
        self.hedge.map(|hedge| HedgeState::new(hedge, self.servers.len()))
    }

    fn start(
        &self,
        hedge: &Option<HedgeState>,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        let copies = self.copies(request.key());
        let first = &self.servers[copies.servers[0] as usize];
        if !request.has_classic_key() {
            return step.start(first.keeping, request, parent); // no command can name the key to the other copies
        }
        let reading = Reading::default();
        let mut progress = ReplicatedProgress {
            copies,
            stage: CopyStage::Doing,
            best: None,
            failure: None,
            error: None,
            reading,
        };
        let server = |at: &u32| &self.servers[*at as usize];
        match request.operation() {
            Operation::Get if outcome::only_shows(&request) => {
                progress.stage = CopyStage::Reading;
                progress.copies = self.nearest_first(copies);
                progress.reading.asked = 1;
                progress.reading.begun_ms = step.now_ms;
                let copies = progress.copies;
                let nearest = server(&copies.servers[0]).node;
                let progress = Self::waiting(progress);
                let Some(slot) = step.open(node, request.clone(), parent, progress) else { return };
                step.start(nearest, request, Parent::Frame { frame: slot, child: 0 });
                step.expect(slot, 1);
                if let Some(hedge) = hedge
                    && parent != Parent::Nobody
                    && let &[asked, next, ..] = copies.as_slice()
                    && let Some(delay_ms) = hedge.delay_ms(asked, next)
                {
                    step.wake(step.now_ms.saturating_add(delay_ms), slot);
                }
            }
            // Their replies are numbers of one server, or what they do there is its own.
            Operation::Get | Operation::Gets | Operation::Metaget => step.start(first.node, request, parent),
            Operation::Gats => {
                let touch = request.touch(request.exptime().unwrap_or(Exptime(0)));
                step.start(first.node, request, parent);
                for at in &copies.as_slice()[1..] {
                    step.start(server(at).node, touch.clone(), Parent::Nobody);
                }
            }
            Operation::Set | Operation::Touch | Operation::Gat => {
                let sent = copies.as_slice().iter().map(|at| (server(at).node, request.clone()));
                step.open_with(node, &request, parent, Self::waiting(progress), sent);
            }
            Operation::Delete => {
                let sent = copies.as_slice().iter().map(|at| (server(at).keeping, request.clone()));
                step.open_with(node, &request, parent, Self::waiting(progress), sent);
            }
            Operation::Add
            | Operation::Replace
            | Operation::Cas
            | Operation::Append
            | Operation::Prepend
            | Operation::Incr
            | Operation::Decr => {
                progress.stage = CopyStage::Deciding;
                let sent = [(first.node, request.clone())];
                step.open_with(node, &request, parent, Self::waiting(progress), sent);
            }
        }
    }

    fn replied(
        &self,
        hedge: &Option<HedgeState>,
        frame: &mut Frame,
        step: &mut Step,
        slot: SlotId,
        child: u32,
        reply: Reply,
    ) {
        let Some(progress) = Self::in_progress(&mut frame.progress) else { return };
        debug_assert!((child % REPAIR) < progress.copies.len as u32, "a child is a copy");
        match progress.stage {
            CopyStage::Reading => read(self, hedge.as_ref(), frame, step, slot, child, reply),
            CopyStage::Deciding => decided(self, frame, step, slot, reply),
            CopyStage::Doing => done(self, frame, step, slot, child, reply),
        }
    }

    /// A retrieval has waited for so long that the next copy is asked as well.
    fn woken(&self, hedge: &Option<HedgeState>, frame: &mut Frame, step: &mut Step, slot: SlotId) {
        let (Some(hedge), Some(progress)) = (hedge, Self::in_progress(&mut frame.progress)) else { return };
        let reading = &mut progress.reading;
        if reading.answered || reading.asked as usize >= progress.copies.len {
            return;
        }
        if !hedge.may_send() {
            step.tails.hedges_denied += 1;
            return;
        }
        reading.hedge = Some(reading.asked);
        step.tails.hedges_sent += 1;
        ask_next(self, frame, step, slot);
    }

    fn has_another(&self, progress: &ReplicatedProgress, _: &OwnedRequest) -> bool {
        progress.stage == CopyStage::Reading && (progress.reading.asked as usize) < progress.copies.len
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::Ring(Arc::clone(&self.ring))
    }
}

/// Whether the command alone says what is stored: then other copies can be given the same.
fn is_whole_value(operation: Operation) -> bool {
    matches!(operation, Operation::Set | Operation::Add | Operation::Replace | Operation::Cas)
}

fn is_failure(reply: &Reply) -> bool {
    outcome::error_kind(reply).is_some_and(|kind| ErrorSet::DEFAULT.has(kind))
}

/// Keeps the better of what was said and `reply`.
fn better(best: &mut Option<Reply>, reply: Reply) {
    if best.as_ref().is_none_or(|best| outcome::rank(&reply) < outcome::rank(best)) {
        *best = Some(reply);
    }
}

fn read(
    replicated: &Replicated,
    hedge: Option<&HedgeState>,
    frame: &mut Frame,
    step: &mut Step,
    slot: SlotId,
    child: u32,
    reply: Reply,
) {
    let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return };
    let reading = &mut progress.reading;
    let server = progress.copies.servers[child as usize];
    if let Some(hedge) = hedge
        && matches!(outcome::error_kind(&reply), None | Some(ErrorKind::Timeout))
    {
        let asked_ms = reading.begun_ms + u64::from(reading.asked_ms[child as usize]);
        hedge.answered(server, step.now_ms.saturating_sub(asked_ms));
    }
    if reading.answered {
        return; // by another copy
    }
    if outcome::is_hit(&reply) || outcome::error_kind(&reply).is_some() && !is_failure(&reply) {
        reading.answered = true;
        step.tails.hedges_won += u64::from(reading.hedge == Some(child));
        return frame.answer(step, reply);
    }
    reading.refused.heard(child, &reply);
    better(&mut progress.best, reply);
    if frame.waiting > 0 {
        return; // another copy may still have it
    }
    if !ask_next(replicated, frame, step, slot) {
        let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return };
        let failed = progress.best.as_ref().is_none_or(is_failure);
        let again = if failed { progress.reading.refused.ask_again() } else { None };
        if let Some(child) = again {
            progress.best = None; // what it says now counts
            return ask(replicated, frame, step, slot, child);
        }
        let answer = progress.best.take().unwrap_or_else(|| outcome::local_error(""));
        frame.answer(step, answer);
    }
}

/// Sends the retrieval to the next copy, if there is one.
fn ask_next(replicated: &Replicated, frame: &mut Frame, step: &mut Step, slot: SlotId) -> bool {
    let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return false };
    let child = progress.reading.asked;
    if child as usize >= progress.copies.len {
        return false;
    }
    progress.reading.asked += 1;
    ask(replicated, frame, step, slot, child);
    true
}

fn ask(replicated: &Replicated, frame: &mut Frame, step: &mut Step, slot: SlotId, child: u32) {
    let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return };
    let reading = &mut progress.reading;
    reading.asked_ms[child as usize] = step.now_ms.saturating_sub(reading.begun_ms) as u32;
    let server = progress.copies.servers[child as usize];
    let request = frame.request.clone();
    frame.start_child(step, slot, replicated.servers[server as usize].node, request, child);
}

/// The first copy has said what becomes of it.
fn decided(replicated: &Replicated, frame: &mut Frame, step: &mut Step, slot: SlotId, reply: Reply) {
    let request = frame.request.clone();
    let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return };
    let (hit, failure) = (outcome::is_hit(&reply), is_failure(&reply));
    if !hit && !failure {
        return frame.answer(step, reply);
    }
    progress.stage = CopyStage::Doing;
    let copies = progress.copies;
    let whole = is_whole_value(request.operation());
    if hit {
        progress.best = Some(reply);
    } else {
        progress.error = Some(reply);
        if whole {
            // It may have been stored all the same, which the other copies know nothing of.
            let keeping = replicated.servers[copies.servers[0] as usize].keeping;
            frame.start_child(step, slot, keeping, request.delete(), REPAIR);
            return;
        }
    }
    for (at, &server) in copies.as_slice().iter().enumerate().skip(1) {
        let server = &replicated.servers[server as usize];
        if whole {
            let exptime = request.exptime().unwrap_or(Exptime(0));
            let value = request.data().clone();
            let set = request.store(StoreVerb::Set, request.client_flags(), exptime, value);
            frame.start_child(step, slot, server.node, set, at as u32);
        } else {
            frame.start_child(step, slot, server.keeping, request.delete(), REPAIR + at as u32);
        }
    }
    finish(frame, step);
}

/// A copy has done it, or not.
fn done(replicated: &Replicated, frame: &mut Frame, step: &mut Step, slot: SlotId, child: u32, reply: Reply) {
    let request = frame.request.clone();
    let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return };
    let operation = request.operation();
    if child >= REPAIR {
        // For arithmetic and the like the first copy's reply is the answer: after an error a client would do
        // it again.
        if outcome::error_kind(&reply).is_some() && is_whole_value(operation) && progress.error.is_none() {
            progress.error = Some(progress.failure.clone().unwrap_or(reply));
        }
    } else if is_failure(&reply) && is_whole_value(operation) {
        let server = progress.copies.servers[child as usize];
        progress.failure = Some(reply);
        let keeping = replicated.servers[server as usize].keeping;
        frame.start_child(step, slot, keeping, request.delete(), REPAIR + child);
    } else if outcome::error_kind(&reply).is_some() && operation.class() == OperationClass::Delete {
        progress.error = Some(reply);
    } else {
        better(&mut progress.best, reply);
    }
    finish(frame, step);
}

fn finish(frame: &mut Frame, step: &mut Step) {
    if frame.waiting > 0 {
        return;
    }
    let Some(progress) = Replicated::in_progress(&mut frame.progress) else { return };
    let answer = progress.error.take().or(progress.best.take()).or(progress.failure.take());
    frame.answer(step, answer.unwrap_or_else(|| outcome::local_error("")));
}
