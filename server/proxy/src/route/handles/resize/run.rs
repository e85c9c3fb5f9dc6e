//! One request on a key that moves, from step to step. The order of the steps, and the reasons, are explained
//! in `mod.rs`.

use corecached_protocol::{ErrorKind, Reply};

use super::layout::Layout;
use super::words::{self, Found, Met, ResizeKind};
use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::route::slab::SlotId;

/// How often a request begins anew because another proxy worked on its key.
const TRIES: u8 = 3;

/// The child number of the client's own request, and of all but those below.
const MAIN: u32 = 0;
/// A delete on a server of an earlier ring.
const OTHER: u32 = 1;
/// A copy that the client does not wait for.
const COPY: u32 = 2;

/// What a request waits for on the [`MAIN`] way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResizeStage {
    /// The authority's reply to the client's own `mg`.
    First,
    /// The authority's, to what it knows of the key.
    Look,
    /// A source's, to what it knows of the key.
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

/// One request on a key that moves.
#[derive(Debug)]
pub(in crate::route) struct ResizeProgress {
    kind: ResizeKind,
    layout: Layout,
    stage: ResizeStage,
    tries: u8,
    /// Deletes on other servers that are not answered.
    deletes: usize,
    /// One of them, or of the pending authority, had the key.
    erased: bool,
    /// The cas unique of the lease that we hold, or of the item that the request is about to change.
    cas: Option<u64>,
    /// The client's own `mg` came upon what may be a lease.
    met_lease: bool,
    /// The answer, once the pending authority has replied.
    reply: Option<Reply>,
    /// In a source.
    found: Found,
}

/// One step of a request.
struct Run<'a, 's> {
    frame: &'a mut Frame,
    step: &'a mut Step<'s>,
    slot: SlotId,
    progress: Box<ResizeProgress>,
}

impl ResizeProgress {
    /// Whether the request may change its key.
    pub(super) const fn changes(&self) -> bool {
        self.kind.changes()
    }
}

/// A reply to one of the requests of `frame` has come.
pub(super) fn replied(
    frame: &mut Frame,
    step: &mut Step,
    slot: SlotId,
    child: u32,
    reply: Reply,
    progress: Box<ResizeProgress>,
) -> Box<ResizeProgress> {
    let mut run = Run { frame, step, slot, progress };
    match child {
        COPY => _ = run.filled(&reply),
        OTHER => run.deleted(&reply),
        _ => run.replied(reply),
    }
    run.progress
}

/// Begins a request: what it waits for.
pub(super) fn begin(
    frame: &mut Frame,
    step: &mut Step,
    slot: SlotId,
    kind: ResizeKind,
    layout: Layout,
) -> Box<ResizeProgress> {
    let progress = Box::new(ResizeProgress {
        kind,
        layout,
        stage: ResizeStage::Look,
        tries: 0,
        deletes: 0,
        erased: false,
        cas: None,
        met_lease: false,
        reply: None,
        found: Found::default(),
    });
    let mut run = Run { frame, step, slot, progress };
    run.begin();
    run.progress
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
        let ResizeProgress { kind, layout, .. } = &*self.progress;
        match kind {
            ResizeKind::Overwrite => self.others(),
            ResizeKind::Look | ResizeKind::LookMeta if !layout.careful => self.own(ResizeStage::Last),
            // Its own lease would keep it from what the sources have.
            ResizeKind::LookMeta if !self.leases() => self.own(ResizeStage::First),
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
    fn send(&mut self, stage: ResizeStage, node: NodeId, request: Option<OwnedRequest>) {
        self.progress.stage = stage;
        match request {
            Some(request) => self.frame.start_child(self.step, self.slot, node, request, MAIN),
            None => self.answer(outcome::bad_key()),
        }
    }

    /// The client's own request to the authority.
    fn own(&mut self, stage: ResizeStage) {
        let request = self.frame.request.clone();
        self.send(stage, self.progress.layout.authority, Some(request));
    }

    fn look(&mut self) {
        self.progress.cas = None;
        let layout = &self.progress.layout;
        let (authority, copies) = (layout.authority, layout.copies);
        let look = words::look(&self.frame.request, self.progress.kind == ResizeKind::Look, copies);
        self.send(ResizeStage::Look, authority, look);
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
        let left = matches!(
            self.progress.stage,
            ResizeStage::First | ResizeStage::Look | ResizeStage::Operation | ResizeStage::Last
        );
        if left && self.progress.layout.leaving && is_gone(&reply) && self.move_on() {
            return;
        }
        match self.progress.stage {
            ResizeStage::First => self.first(reply),
            ResizeStage::Look => self.looked(reply),
            ResizeStage::Source(at) => match words::met(&reply) {
                Met::Item(found) => self.found_there(found),
                _ => self.source(at + 1),
            },
            ResizeStage::Fill => {
                if self.filled(&reply) {
                    self.copied(words::stored_cas(&reply));
                } else if !self.again() {
                    self.nowhere();
                }
            }
            ResizeStage::Release => self.released(),
            ResizeStage::Others => {}
            ResizeStage::Operation => self.done(reply),
            ResizeStage::Last
                if words::may_be_lease(&reply) && self.progress.layout.careful && !self.leases() =>
            {
                self.answer_missing();
            }
            ResizeStage::Last => self.answer(reply),
            ResizeStage::Pending => {
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
        self.send(ResizeStage::Source(at), node, look);
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
            ResizeKind::Look => {
                let value = self.value(&found);
                self.answer(value);
            }
            ResizeKind::LookMeta => self.own(ResizeStage::Last),
            ResizeKind::Add => self.answer_missing(),
            ResizeKind::Overwrite | ResizeKind::Change | ResizeKind::Touch | ResizeKind::Checked => {
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
            ResizeKind::Look if self.frame.request.operation() == Operation::Get => Some(self.value(&found)),
            ResizeKind::Add => Some(outcome::null(&self.frame.request)),
            _ => None,
        };
        match (told, fill) {
            (Some(reply), fill) => {
                self.answer(reply);
                if let Some((_, fill)) = fill {
                    self.frame.start_child(self.step, self.slot, authority, fill, COPY);
                }
            }
            (None, Some((_, fill))) => {
                self.progress.found = found;
                self.send(ResizeStage::Fill, authority, Some(fill));
            }
            (None, None) if self.progress.layout.copies && self.again() => {}
            // Its cas unique is not the authority's: a `cas` with it is refused.
            (None, None) if self.progress.kind == ResizeKind::Look => {
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
            ResizeKind::Look => {
                self.release();
                self.answer_missing();
            }
            ResizeKind::Add if held.is_some() || !self.progress.layout.copies => self.others(),
            ResizeKind::Add => {
                if !self.again() {
                    self.answer_missing();
                }
            }
            // It may make what is missing: without our lease.
            ResizeKind::LookMeta | ResizeKind::Change if self.leases() => self.release_first(),
            ResizeKind::Checked => self.release_first(),
            ResizeKind::LookMeta => {
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

    /// Gives our lease back; the client does not wait for that.
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
                self.send(ResizeStage::Release, self.progress.layout.authority, release);
            }
            None => self.released(),
        }
    }

    fn released(&mut self) {
        if self.progress.kind == ResizeKind::LookMeta { self.own(ResizeStage::Last) } else { self.others() }
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
        self.progress.stage = ResizeStage::Others;
        self.progress.deletes = self.progress.layout.others.len();
        if self.progress.deletes == 0 {
            return self.operate();
        }
        let Some(delete) = words::delete(&self.frame.request) else { return self.answer(outcome::bad_key()) };
        for at in 0..self.progress.deletes {
            let node = self.progress.layout.others[at];
            self.frame.start_child(self.step, self.slot, node, delete.clone(), OTHER);
        }
    }

    fn cleared(&mut self, reply: &Reply) {
        self.progress.erased |= outcome::is_hit(reply);
        self.step.resize.unreached += u64::from(outcome::error_kind(reply).is_some());
    }

    /// A delete succeeded if the key was anywhere.
    fn as_erased(&self, reply: Reply) -> Reply {
        let is_delete = self.frame.request.class() == OperationClass::Delete;
        if !is_delete || !self.progress.erased || self.progress.kind != ResizeKind::Overwrite {
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
        debug_assert!(self.progress.deletes > 0);
        self.progress.deletes -= 1;
        if self.progress.deletes == 0 {
            self.operate();
        }
    }

    fn operate(&mut self) {
        let request = &self.frame.request;
        let request = match (self.progress.kind, self.progress.cas) {
            (ResizeKind::Add | ResizeKind::Change, Some(cas)) => words::fenced(request, cas),
            (ResizeKind::Touch, _) if self.progress.layout.careful => words::touch(request),
            _ => Some(request.clone()),
        };
        self.send(ResizeStage::Operation, self.progress.layout.authority, request);
    }

    /// The authority did what the client wants, or not.
    fn done(&mut self, reply: Reply) {
        let classic = self.frame.request.meta().is_none();
        let reply = match self.progress.kind {
            ResizeKind::Add | ResizeKind::Change if self.progress.cas.is_some() => {
                if words::is_refused(&reply) {
                    if !self.again() {
                        self.own(ResizeStage::Operation); // many change it at a time: then it is no lease
                        self.progress.cas = None;
                    }
                    return;
                }
                if classic { words::classic(&self.frame.request, reply) } else { reply }
            }
            ResizeKind::Touch if self.progress.layout.careful => match words::met(&reply) {
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
                self.send(ResizeStage::Pending, pending, delete);
            }
            None => {
                let reply = self.as_erased(reply);
                self.answer(reply);
            }
        }
    }
}
