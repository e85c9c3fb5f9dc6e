//! Warm resize: a pool's servers changed, and keys follow. A key that the new server has not got is fetched from the one
//! it was on, and copied with its flags and what is left of its life.
//!
//! # What must hold, and what holds it
//! After a write or delete through any proxy was answered, no later retrieval through any proxy shows an older value.
//! Within one proxy a key has one owning shard, and what is asked of a key here while a request changes it waits for the
//! end of that ([`Busy`]). Between proxies nothing orders anything, so these could bring an old value back:
//!
//! 1. *A copy that overtakes a delete.* B misses the new server and reads `v` from the old one; A deletes the key from
//!    both; B stores `v`. Held by memcached's lease: B's look at the new server is `mg .. N2`, which leaves an empty item
//!    and shows its cas unique; the copy is `ms .. C<cas>`. Whatever A does on the new server in between takes the item
//!    away or gives it another cas unique, and the copy is refused.
//! 2. *A copy whose lease is younger than the delete.* A deletes from the new server, B takes a lease there and reads `v`
//!    from the old one, A deletes from the old one. Held by order: whatever changes a key first clears every server that
//!    may be copied from, waits for the answers, and only then works on the one that is copied to. Every lease taken
//!    before is gone then, and every lease taken after finds the sources empty.
//! 3. *A value left on the old server, copied again when the new one has lost it* to eviction or its end. Held as 2 is:
//!    writes clear the old server too, not only deletes.
//! 4. *A proxy that does not know the new ring yet* writes to and deletes from the old server only. Held by the grace: a
//!    proxy that learns of a ring goes on using the one before (reads, writes), only deletes from the new server after
//!    each write or delete; when the grace is over it uses the new ring. The grace is longer than proxies learn of a
//!    change apart, so the steps old / grace / new ring of two proxies are never more than one apart, and each pair of
//!    neighbours is right: in old + grace both read and write the old server; in grace + new the one writes old then
//!    clears new, the other clears old then writes new, and who reads finds the last write or nothing.
//! 5. *A copy towards a ring that others have left.* Held: while a ring is in its grace nothing is copied, unless the key
//!    stays where it is. Copies under way end with their lease, which the grace outlives. So at any moment all copies
//!    of a key go to one server, and the order of 2 can be kept.
//! 6. *A proxy that ended the window earlier* must not leave a value on the old server to one that has not. Held: for
//!    as long as the grace (or `invalidate_ms`) after the window nothing is fetched, and writes still clear.
//!
//! Changes in a row are taken one at a time (`config::rings`); up to four earlier rings are looked at, the newest first.
//! `model.rs` runs the code below on three proxies and servers by hand through seeded orders of all single steps, with
//! scale-out and scale-in in a row, evictions and deaths, and checks the first sentence; the same check catches copies
//! without a fence, and rings without a grace.
//!
//! # What each command does to a key that moves
//! A key that is on the same server in every ring takes the short way ([`super::Routes::direct`]) as if nothing were.
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
//! Binary commands are these in another form. An empty item whose token was given out (`Z`) is a lease: to clients here
//! the key is missing. Items declared stale (`X`) on an earlier server, and such as die within the second, are not copied.
//! A value that the new server refuses (too large) is shown and not copied.
//!
//! # What it costs
//! In the window, of keys that move: a miss one request for each earlier ring whose server differs (one, after one
//! change), and one that gives the lease back; a hit on the old server that and the copy, once; a write or delete one
//! round trip more. An earlier server that is gone costs what the pool's `connect_timeout` and `server_timeout` let it,
//! until it is ejected; then nothing. In the grace one that left the pool and refuses connections is done without.
//!
//! # What is left
//! - Clients that ask the servers without this proxy may see a lease, an empty value, for a round trip; for 2 s where a
//!   proxy died. Proxies must all have warm resize, with one grace and window.
//! - A server that some proxies reach and others do not may keep a value that was to be cleared
//!   (`resize_unreached` counts it). Such deletes are not kept for later.
//! - A list of servers that lasts shorter than proxies learn of it apart may be seen by some and not by others, and then
//!   1 to 6 do not hold for the keys that it moved.
//! - What stays on a server that lost the key, unread until the window is over, is there when a later change gives the
//!   key back, as without warm resize. Where pools shrink again later than a window after they grew, let
//!   `invalidate_ms` be as long as values live.
//! - With memcached's `-C` there are no cas uniques, so nothing is copied.
//! - The hash function is that of now for earlier rings too: a change of it is not warm. Neither are pools with weights,
//!   tags or handles for servers, nor `Pool|A` as the children of another handle.

#[cfg(test)]
mod model;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod words;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use corecached_protocol::{ErrorKind, Reply};

use super::super::config::WarmResize;
use super::super::request::{Operation, OperationClass, OwnedRequest};
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::slab::Place;
use super::tree::{NodeId, NodeState, Tree};
use words::{Found, Kind, Met};

/// How often a request begins anew because another proxy worked on its key.
const TRIES: u8 = 3;

/// Most requests that wait at one node of a shard for others on their keys. Past it clients get `SERVER_ERROR 307 busy`.
const QUEUE_MAX: usize = 1 << 16;

/// The client's own request, and all but those below.
const MAIN: u32 = 0;
/// A delete on a server of an earlier ring.
const OTHER: u32 = 1;
/// A copy behind the client's back.
const COPY: u32 = 2;

/// A ring, and when it became known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Era {
    /// The pool's node with it.
    pub node: NodeId,
    /// Unix milliseconds.
    pub since_ms: u64,
}

/// A pool whose ring changed; see the head of the file.
#[derive(Debug)]
pub(super) struct Resize {
    /// The oldest first; at least two.
    pub eras: Box<[Era]>,
    pub times: WarmResize,
}

/// What a shard keeps of one: keys that a request is changing, with those that came after it, in their order.
#[derive(Debug, Default)]
pub(super) struct Busy(RefCell<Queues>);

#[derive(Debug, Default)]
struct Queues {
    by_key: HashMap<Bytes, Vec<(OwnedRequest, Parent)>>,
    waiting: usize,
}

/// What a shard counts of resizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResizeCounters {
    /// Looks at earlier servers, one for each key that the new one has not got.
    pub tried: u64,
    /// Of these, that an earlier server had the key.
    pub found: u64,
    /// Of these, that were copied.
    pub copied: u64,
    /// That were not, as the key was written or deleted meanwhile, or the new server did not take it.
    pub lost: u64,
    /// Deletes that an earlier server did not take.
    pub unreached: u64,
}

impl ResizeCounters {
    /// Each with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("resize_tried", self.tried),
            ("resize_found", self.found),
            ("resize_copied", self.copied),
            ("resize_lost", self.lost),
            ("resize_unreached", self.unreached),
        ]
    }
}

/// Where one key is and was, at one moment.
#[derive(Debug)]
struct Layout {
    /// Reads and writes go to it.
    authority: NodeId,
    /// Where values may still be, the newest first.
    sources: Vec<NodeId>,
    /// Where values must not stay: the sources, and servers before them.
    others: Vec<NodeId>,
    /// The authority to come.
    pending: Option<NodeId>,
    /// The authority is no longer in the pool.
    leaving: bool,
    /// What is found in a source is copied.
    copies: bool,
    /// The authority may have leases.
    careful: bool,
}

impl Resize {
    /// The destination of `key`, if it is one and the same in every ring.
    #[inline]
    pub fn only(&self, tree: &Tree, key: &[u8]) -> Option<NodeId> {
        let mut nodes = self.eras.iter().map(|era| tree.below(era.node, key));
        let first = nodes.next()??;
        nodes.all(|node| node == Some(first)).then_some(first)
    }

    /// The ring that is in use, as a place in `eras`.
    fn current(&self, now_ms: u64) -> usize {
        let promoted = |era: &Era| era.since_ms.saturating_add(self.times.grace_ms) <= now_ms;
        self.eras.iter().skip(1).rposition(promoted).map_or(0, |at| at + 1)
    }

    /// The node that stands for the pool where a request cannot be looked at more closely.
    pub fn node(&self, now_ms: u64) -> NodeId {
        self.eras[self.current(now_ms)].node
    }

    /// The node with the newest ring.
    pub fn newest(&self) -> NodeId {
        self.eras[self.eras.len() - 1].node
    }

    fn layout(&self, tree: &Tree, key: &[u8], now_ms: u64) -> Option<Layout> {
        let at = |era: &Era| tree.below(era.node, key);
        let current = self.current(now_ms);
        let authority = at(&self.eras[current])?;
        let pending = self.eras.get(current + 1).and_then(at).filter(|&node| node != authority);
        let WarmResize { window_ms, grace_ms, .. } = self.times;
        let (mut sources, mut others, mut careful) = (Vec::new(), Vec::new(), false);
        for earlier in (0..current).rev() {
            let ended_ms = self.eras[earlier + 1].since_ms.saturating_add(window_ms);
            if ended_ms.saturating_add(self.times.settle_ms()) <= now_ms {
                break; // those before ended earlier still
            }
            careful |= now_ms < ended_ms.saturating_add(grace_ms);
            let Some(node) = at(&self.eras[earlier]).filter(|&node| node != authority) else { continue };
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
            leaving: pending.is_some() && !tree.has_child(self.newest(), authority),
            sources,
            others,
            pending,
            careful,
        })
    }

    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let tree = Arc::clone(&step.routes.tree);
        let Some(layout) = self.layout(&tree, request.key(), step.now_ms) else {
            return step.start(self.node(step.now_ms), request, parent); // a pool that is empty says so
        };
        let plain = layout.others.is_empty() && layout.pending.is_none() && !layout.careful;
        if plain || request.operation() == Operation::Metaget {
            return step.start(layout.authority, request, parent);
        }
        let kind = Kind::of(&request);
        let routes = Rc::clone(step.routes);
        let NodeState::Resize(Busy(queues)) = &routes.states[node as usize] else { return };
        let mut queues = queues.borrow_mut();
        if queues.by_key.contains_key(request.key()) {
            if queues.waiting >= QUEUE_MAX {
                return step.answer(parent, outcome::busy());
            }
            queues.waiting += 1;
            if let Some(queue) = queues.by_key.get_mut(request.key()) {
                queue.push((request, parent));
            }
            return;
        }
        let changes = !matches!(kind, Kind::Look | Kind::LookMeta);
        let progress = Box::new(Progress {
            kind,
            layout,
            stage: Stage::Look,
            tries: 0,
            deletes: 0,
            erased: false,
            cas: None,
            met_lease: false,
            reply: None,
            found: Found::default(),
        });
        let key = request.key().clone();
        let Some(place) = step.open(node, request, parent, State::Outstanding) else { return };
        if changes {
            queues.by_key.insert(key, Vec::new());
        }
        drop(queues);
        let Some(mut frame) = step.frames.take(place) else { return };
        let mut run = Run { frame: &mut frame, step, place, progress };
        run.begin();
        frame.state = State::Resize(run.progress);
        if frame.waiting > 0 {
            step.frames.put_back(place, frame);
        } else {
            // Answered at once.
            finish(&frame, step, changes);
            step.frames.release(place);
        }
    }
}

/// What a request waits for on the [`MAIN`] way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The authority's reply to the client's own `mg`.
    First,
    /// The authority's, to what it knows of the key.
    Look,
    /// The same of a source.
    Source(usize),
    /// The authority's, to a copy.
    Fill,
    /// The authority's, to a lease given back.
    Release,
    /// The deletes on other servers.
    Others,
    /// The authority's, to what the client wants done.
    Operation,
    /// The authority's to the client's own request: the answer.
    Last,
    /// The pending authority's, to a delete.
    Pending,
}

/// Where a request stands.
#[derive(Debug)]
pub(super) struct Progress {
    kind: Kind,
    layout: Layout,
    stage: Stage,
    tries: u8,
    /// Deletes on other servers that are not answered.
    deletes: usize,
    /// One of them, or of the pending authority, had the key.
    erased: bool,
    /// Of the lease that we hold, or of the item that the request is about to change.
    cas: Option<u64>,
    /// The client's own `mg` came upon what may be a lease.
    met_lease: bool,
    /// What is to be answered, once the pending authority was told.
    reply: Option<Reply>,
    /// In a source.
    found: Found,
}

/// One step of a request.
struct Run<'a, 's> {
    frame: &'a mut Frame,
    step: &'a mut Step<'s>,
    place: Place,
    progress: Box<Progress>,
}

/// A reply to one of the frame's requests has come.
pub(super) fn replied(frame: &mut Frame, step: &mut Step, place: Place, child: u32, reply: Reply) {
    let State::Resize(progress) = std::mem::replace(&mut frame.state, State::Outstanding) else { return };
    let mut run = Run { frame, step, place, progress };
    match child {
        COPY => _ = run.filled(&reply),
        OTHER => run.deleted(&reply),
        _ => run.replied(reply),
    }
    let changes = !matches!(run.progress.kind, Kind::Look | Kind::LookMeta);
    frame.state = State::Resize(run.progress);
    if frame.waiting == 0 {
        finish(frame, step, changes);
    }
}

/// The request is done: those that waited for it begin, in their order.
fn finish(frame: &Frame, step: &mut Step, changes: bool) {
    let NodeState::Resize(Busy(queues)) = &frame.routes.states[frame.node as usize] else { return };
    if !changes {
        return;
    }
    let mut queues = queues.borrow_mut();
    let waited = queues.by_key.remove(frame.request.key()).unwrap_or_default();
    queues.waiting -= waited.len();
    for (request, parent) in waited {
        step.start(frame.node, request, parent);
    }
}

/// The server is not there, as far as one can tell.
const fn is_gone(reply: &Reply) -> bool {
    matches!(
        outcome::error_kind(reply),
        Some(ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::Ejected)
    )
}

impl Run<'_, '_> {
    fn begin(&mut self) {
        let Progress { kind, layout, .. } = &*self.progress;
        match kind {
            Kind::Overwrite => self.others(),
            Kind::Look | Kind::LookMeta if !layout.careful => self.own(Stage::Last),
            // Its own lease would keep it from what the sources have.
            Kind::LookMeta if !self.leases() => self.own(Stage::First),
            _ if !layout.careful => self.others(),
            _ => self.look(),
        }
    }

    /// The client's `mg` takes leases itself.
    fn leases(&self) -> bool {
        self.frame.request.meta().is_some_and(|(_, flags)| flags.has(b'N'))
    }

    fn answer(&mut self, reply: Reply) {
        self.frame.answer(self.step, reply);
    }

    /// What a server without the key would say.
    fn answer_missing(&mut self) {
        let reply = outcome::null(&self.frame.request);
        self.answer(reply);
    }

    /// Sends `request` to `node`; one that no line can hold ends it all.
    fn send(&mut self, stage: Stage, node: NodeId, request: Option<OwnedRequest>) {
        self.progress.stage = stage;
        match request {
            Some(request) => self.frame.start_child(self.step, self.place, node, request, MAIN),
            None => self.answer(outcome::bad_key()),
        }
    }

    /// The client's own request to the authority.
    fn own(&mut self, stage: Stage) {
        let request = self.frame.request.clone();
        self.send(stage, self.progress.layout.authority, Some(request));
    }

    fn look(&mut self) {
        self.progress.cas = None;
        let layout = &self.progress.layout;
        let (authority, copies) = (layout.authority, layout.copies);
        let look = words::look(&self.frame.request, self.progress.kind == Kind::Look, copies);
        self.send(Stage::Look, authority, look);
    }

    /// Begins anew, as another proxy works on the key; not for ever.
    fn again(&mut self) -> bool {
        self.progress.tries += 1;
        let again = self.progress.tries < TRIES;
        if again {
            self.look();
        }
        again
    }

    fn replied(&mut self, reply: Reply) {
        let left = matches!(self.progress.stage, Stage::First | Stage::Look | Stage::Operation | Stage::Last);
        if left && self.progress.layout.leaving && is_gone(&reply) && self.move_on() {
            return;
        }
        match self.progress.stage {
            Stage::First => self.first(reply),
            Stage::Look => self.looked(reply),
            Stage::Source(at) => match words::met(&reply) {
                Met::Item(found) => self.found_there(found),
                _ => self.source(at + 1),
            },
            Stage::Fill => {
                if self.filled(&reply) {
                    self.copied(words::stored_cas(&reply));
                } else if !self.again() {
                    self.nowhere();
                }
            }
            Stage::Release => self.released(),
            Stage::Others => {}
            Stage::Operation => self.done(reply),
            Stage::Last if words::may_be_lease(&reply) && self.progress.layout.careful && !self.leases() => {
                self.answer_missing();
            }
            Stage::Last => self.answer(reply),
            Stage::Pending => {
                self.cleared(&reply);
                if let Some(reply) = self.progress.reply.take() {
                    let reply = self.as_erased(reply);
                    self.answer(reply);
                }
            }
        }
    }

    /// The authority is gone and no longer in the pool: the one to come takes its place now.
    fn move_on(&mut self) -> bool {
        let Some(next) = self.progress.layout.pending.take() else { return false };
        let layout = &mut self.progress.layout;
        layout.sources.retain(|&node| node != next);
        layout.others.retain(|&node| node != next);
        (layout.authority, layout.leaving, layout.careful) = (next, false, true);
        self.begin();
        true
    }

    // --- looking ---

    fn first(&mut self, reply: Reply) {
        let lease = words::may_be_lease(&reply);
        let missing = words::met(&reply) == Met::Nothing;
        if !lease && (!missing || self.progress.layout.sources.is_empty()) {
            return self.answer(reply);
        }
        self.progress.met_lease = lease;
        self.look();
    }

    fn looked(&mut self, reply: Reply) {
        match words::met(&reply) {
            Met::Failure => self.answer(reply),
            Met::Item(found) | Met::Stale(found) => self.found_here(found),
            Met::Nothing => self.source(0),
            Met::Lease { won, cas } => {
                self.progress.cas = (won && cas != 0).then_some(cas);
                // The client's own `mg` may have made it live longer than a lease.
                if self.progress.met_lease && self.frame.request.exptime().is_some() {
                    self.drop_item();
                }
                self.source(0);
            }
        }
    }

    fn source(&mut self, at: usize) {
        let Some(&node) = self.progress.layout.sources.get(at) else { return self.nowhere() };
        self.step.resize.tried += u64::from(at == 0);
        let look = words::look(&self.frame.request, true, false);
        self.send(Stage::Source(at), node, look);
    }

    fn value(&self, found: &Found) -> Reply {
        let with_cas = matches!(self.frame.request.operation(), Operation::Gets | Operation::Gats);
        Reply::Value {
            client_flags: found.client_flags,
            cas_unique: with_cas.then_some(found.cas),
            value: found.value.clone().unwrap_or_default(),
        }
    }

    fn found_here(&mut self, found: Found) {
        match self.progress.kind {
            Kind::Look => {
                let value = self.value(&found);
                self.answer(value);
            }
            Kind::LookMeta => self.own(Stage::Last),
            Kind::Add => self.answer_missing(),
            Kind::Overwrite | Kind::Change | Kind::Touch | Kind::Checked => {
                self.progress.cas = Some(found.cas).filter(|&cas| cas != 0);
                self.others();
            }
        }
    }

    fn found_there(&mut self, found: Found) {
        self.step.resize.found += 1;
        let authority = self.progress.layout.authority;
        let fill = self.progress.cas.and_then(|cas| {
            words::fill(&self.frame.request, &found, cas, self.step.now_ms).map(|fill| (cas, fill))
        });
        if fill.is_none() && self.progress.layout.copies {
            self.step.resize.lost += u64::from(self.progress.cas.is_some());
            self.release();
        }
        let told = match self.progress.kind {
            Kind::Look if self.frame.request.operation() == Operation::Get => Some(self.value(&found)),
            Kind::Add => Some(outcome::null(&self.frame.request)),
            _ => None,
        };
        match (told, fill) {
            (Some(reply), fill) => {
                self.answer(reply);
                if let Some((_, fill)) = fill {
                    self.frame.start_child(self.step, self.place, authority, fill, COPY);
                }
            }
            (None, Some((_, fill))) => {
                self.progress.found = found;
                self.send(Stage::Fill, authority, Some(fill));
            }
            (None, None) if self.progress.layout.copies && self.again() => {}
            // Its cas unique is not the authority's: a `cas` with it is refused.
            (None, None) if self.progress.kind == Kind::Look => {
                let value = self.value(&found);
                self.answer(value);
            }
            (None, None) => self.nowhere(),
        }
    }

    /// Whether a copy was taken.
    fn filled(&mut self, reply: &Reply) -> bool {
        let taken = words::stored_cas(reply).is_some();
        self.step.resize.copied += u64::from(taken);
        self.step.resize.lost += u64::from(!taken);
        self.progress.cas = None;
        taken
    }

    /// The authority has what was found; go on as if it had been there.
    fn copied(&mut self, cas: Option<u64>) {
        let mut found = std::mem::take(&mut self.progress.found);
        found.cas = cas.unwrap_or_default();
        self.found_here(found);
    }

    /// The key is nowhere, or where we may not take it from.
    fn nowhere(&mut self) {
        let held = self.progress.cas;
        match self.progress.kind {
            Kind::Look => {
                self.release();
                self.answer_missing();
            }
            Kind::Add if held.is_some() || !self.progress.layout.copies => self.others(),
            Kind::Add => {
                if !self.again() {
                    self.answer_missing();
                }
            }
            // It may make what is missing: without our lease.
            Kind::LookMeta | Kind::Change if self.leases() => self.release_first(),
            Kind::Checked => self.release_first(),
            Kind::LookMeta => {
                self.release();
                self.answer_missing();
            }
            _ => {
                if held.is_none() && self.progress.layout.copies && self.again() {
                    return;
                }
                self.release();
                self.answer_missing();
            }
        }
    }

    /// Gives our lease back behind the client's back.
    fn release(&mut self) {
        if let Some(request) =
            self.progress.cas.take().and_then(|cas| words::release(&self.frame.request, cas))
        {
            self.step.start(self.progress.layout.authority, request, Parent::Nobody);
        }
    }

    fn release_first(&mut self) {
        match self.progress.cas.take() {
            Some(cas) => {
                let release = words::release(&self.frame.request, cas);
                self.send(Stage::Release, self.progress.layout.authority, release);
            }
            None => self.released(),
        }
    }

    fn released(&mut self) {
        if self.progress.kind == Kind::LookMeta { self.own(Stage::Last) } else { self.others() }
    }

    /// Takes an item away that a client's request may have made of a lease.
    fn drop_item(&mut self) {
        self.progress.cas = None;
        if let Some(request) = words::delete(&self.frame.request) {
            self.step.start(self.progress.layout.authority, request, Parent::Nobody);
        }
    }

    // --- changing ---

    /// Deletes the key wherever it must not stay, and waits for that.
    fn others(&mut self) {
        self.progress.stage = Stage::Others;
        self.progress.deletes = self.progress.layout.others.len();
        if self.progress.deletes == 0 {
            return self.operate();
        }
        let Some(delete) = words::delete(&self.frame.request) else { return self.answer(outcome::bad_key()) };
        for at in 0..self.progress.deletes {
            let node = self.progress.layout.others[at];
            self.frame.start_child(self.step, self.place, node, delete.clone(), OTHER);
        }
    }

    fn cleared(&mut self, reply: &Reply) {
        self.progress.erased |= outcome::is_hit(reply);
        self.step.resize.unreached += u64::from(outcome::error_kind(reply).is_some());
    }

    /// A delete succeeded if the key was anywhere.
    fn as_erased(&self, reply: Reply) -> Reply {
        let is_delete = self.frame.request.class() == OperationClass::Delete;
        if !is_delete || !self.progress.erased || self.progress.kind != Kind::Overwrite {
            return reply;
        }
        match reply {
            Reply::NotFound => Reply::Deleted,
            Reply::Meta { line, value } if line.starts_with(b"NF") => {
                Reply::Meta { line: [b"HD", &line[2..]].concat().into(), value }
            }
            reply => reply,
        }
    }

    fn deleted(&mut self, reply: &Reply) {
        self.cleared(reply);
        self.progress.deletes -= 1;
        if self.progress.deletes == 0 {
            self.operate();
        }
    }

    fn operate(&mut self) {
        let request = &self.frame.request;
        let request = match (self.progress.kind, self.progress.cas) {
            (Kind::Add | Kind::Change, Some(cas)) => words::fenced(request, cas),
            (Kind::Touch, _) if self.progress.layout.careful => words::touch(request),
            _ => Some(request.clone()),
        };
        self.send(Stage::Operation, self.progress.layout.authority, request);
    }

    /// The authority did what the client wants, or not.
    fn done(&mut self, reply: Reply) {
        let classic = self.frame.request.meta().is_none();
        let reply = match self.progress.kind {
            Kind::Add | Kind::Change if self.progress.cas.is_some() => {
                if words::is_refused(&reply) {
                    if !self.again() {
                        self.own(Stage::Operation); // many change it at a time: then it is no lease
                        self.progress.cas = None;
                    }
                    return;
                }
                if classic { words::classic(&self.frame.request, reply) } else { reply }
            }
            Kind::Touch if self.progress.layout.careful => match words::met(&reply) {
                Met::Item(_) | Met::Stale(_) if self.frame.request.operation() == Operation::Touch => {
                    Reply::Touched
                }
                Met::Item(found) | Met::Stale(found) => self.value(&found),
                Met::Failure => reply,
                Met::Nothing => outcome::null(&self.frame.request),
                Met::Lease { .. } => {
                    self.drop_item();
                    if !self.again() {
                        self.answer_missing();
                    }
                    return;
                }
            },
            _ => reply,
        };
        match self.progress.layout.pending {
            Some(pending) => {
                self.progress.reply = Some(reply);
                let delete = words::delete(&self.frame.request);
                self.send(Stage::Pending, pending, delete);
            }
            None => {
                let reply = self.as_erased(reply);
                self.answer(reply);
            }
        }
    }
}
