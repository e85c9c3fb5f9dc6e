//! `BigValueRoute`: a value above a threshold is stored in chunks, `key:i:hash`, and under its key an index,
//! `1-n-hash`, with a flag set that says so. A retrieval puts it together again.
//!
//! `hash` is of the whole value, so that chunks of two values of one key are not mixed up, and what was put
//! together is hashed again: a chunk that is missing, or another's, makes it a miss and never a wrong value.
//! Chunks are stored before the index, which alone says whether the command did what it was to do; a chunk
//! bears the client's flags as they are. A key that is too long for its chunks' names, or that no classic
//! command can name, is left as it is.

use bytes::{BufMut, Bytes, BytesMut};
use corecached_protocol::{Exptime, KEY_BYTES_MAX, Reply, StoreVerb};
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, Options, WrittenHandle};
use crate::hash::spooky;
use crate::request::VALUE_BYTES_MAX;
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId};
use crate::route::outcome;
use crate::route::slab::SlotId;

/// `BigValueRoute`.
#[derive(Clone, Debug)]
pub(crate) struct BigValueRoute {
    target: HandleId,
    /// Bytes of a chunk, and of the largest value that is stored whole; at least 1.
    threshold: u32,
    /// Chunks sent for at a time; 0: all.
    batch: u32,
}

impl RouteHandle for BigValueRoute {
    const NAMES: &'static [&'static str] = &["BigValueRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let missing = || builder.fault(json, "BigValueRoute.split_threshold", "", "is missing: bytes");
        let threshold = builder.int_at(json, "split_threshold", 1, 64 << 20)?.ok_or_else(missing)?;
        let batch = builder.int_at(json, "batch_size", 0, 1 << 16)?;
        let route = Self {
            target: builder.handle_at(json, name, Builder::target_part(json))?,
            threshold: threshold as u32,
            batch: batch.map_or(Options::BIG_VALUE_BATCH, |batch| batch as u32),
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "target": config.child_json(self.target),
            "split_threshold": self.threshold,
            "batch_size": self.batch,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        Ok(compiler.push(BigValue { target, threshold: self.threshold, batch: self.batch }))
    }
}

/// The flag of an index, as mcrouter's.
const INDEX_FLAG: u32 = 0x8000;
/// Chunks of one value at most. A value of more is refused, an index of more is a miss.
const CHUNKS_MAX: u32 = 1 << 16;
/// Bytes that the name of a chunk has more than its key: two colons, 5 and 10 digits.
const NAME_BYTES_MAX: usize = 2 + 5 + 10;

/// Stores large values in chunks.
#[derive(Clone, Copy, Debug)]
pub(in crate::route) struct BigValue {
    pub target: NodeId,
    /// Bytes of a chunk, and of the largest value that is stored whole.
    pub threshold: u32,
    /// Chunks sent for at a time; 0: all.
    pub batch: u32,
}

/// The chunks of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) struct Index {
    count: u32,
    hash: u32,
}

/// What a request waits for.
#[derive(Debug)]
pub(in crate::route) enum BigValueStage {
    /// What is under the key itself.
    Lookup,
    /// Chunks that are stored, before the index.
    Storing { chunks: Chunks, worst: Option<Reply> },
    /// Chunks of a value that is retrieved.
    Fetching(Fetching),
    /// Chunks that are touched.
    Touching { chunks: Chunks, exptime: Exptime, worst: Option<Reply> },
    /// The index is stored.
    Last,
}

/// A value that is put together.
#[derive(Debug)]
pub(in crate::route) struct Fetching {
    chunks: Chunks,
    found: Vec<Option<Bytes>>,
    /// The length of all values in `found`.
    bytes: usize,
    /// The client's, as the first chunk has them.
    client_flags: u32,
    /// To the index.
    reply: Reply,
    error: Option<Reply>,
}

/// How far a value's chunks have come.
#[derive(Clone, Copy, Debug)]
pub(in crate::route) struct Chunks {
    index: Index,
    sent: u32,
}

impl Index {
    fn from_value(value: &[u8], threshold: u32) -> Self {
        let count = value.len().div_ceil(threshold as usize).max(1) as u32;
        Self { count, hash: spooky::spooky32(value, 0) }
    }

    /// `1-n-hash`, in decimal.
    fn written(self) -> Bytes {
        format!("1-{}-{}", self.count, self.hash).into()
    }

    fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.strip_prefix("1-")?.split('-');
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| plain)
        };
        let (count, hash) = (number(parts.next()?)?, number(parts.next()?)?);
        (parts.next().is_none() && (1..=CHUNKS_MAX).contains(&count)).then_some(Self { count, hash })
    }
}

/// Whether values of its key are stored in chunks at all: the same for all who name it.
fn has_chunks(request: &OwnedRequest) -> bool {
    request.key().len() + NAME_BYTES_MAX <= KEY_BYTES_MAX && request.has_classic_key()
}

impl RouteNode for BigValue {
    type State = ();
    type Progress = BigValueStage;

    fn state(&self) {
        assert!(self.threshold > 0, "a chunk has at least a byte");
    }

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        if !has_chunks(&request) {
            return step.start(self.target, request, parent);
        }
        match request.operation() {
            Operation::Set | Operation::Add | Operation::Replace | Operation::Cas => {
                self.store(step, node, request, parent);
            }
            Operation::Get | Operation::Gets | Operation::Gat | Operation::Gats | Operation::Touch => {
                let lookup = match request.operation() {
                    // Only a retrieval tells an index from a value; chunks must live as long as it does.
                    Operation::Touch => request.get_and_touch(request.exptime().unwrap_or(Exptime(0))),
                    _ => looked_up(&request),
                };
                let sent = [(self.target, lookup)];
                step.open_with(node, &request, parent, Self::waiting(BigValueStage::Lookup), sent);
            }
            // What is put after or in front of an index makes it one of other chunks, or none: a miss.
            // Arithmetic on it is refused by the server. A delete leaves chunks that nothing refers to.
            Operation::Append
            | Operation::Prepend
            | Operation::Incr
            | Operation::Decr
            | Operation::Delete
            | Operation::Metaget => step.start(self.target, request, parent),
        }
    }

    fn replied(&self, (): &(), frame: &mut Frame, step: &mut Step, slot: SlotId, child: u32, reply: Reply) {
        let Some(stage) = Self::in_progress(&mut frame.progress) else { return };
        match stage {
            BigValueStage::Lookup => return looked(self, frame, step, slot, reply),
            BigValueStage::Last => {
                let value = Shown {
                    client_flags: frame.request.client_flags(),
                    value: Some(frame.request.data().clone()),
                };
                let answer = shown(&frame.request, reply, Some(value));
                return frame.answer(step, answer);
            }
            BigValueStage::Storing { worst, .. } | BigValueStage::Touching { worst, .. } => {
                if worst.as_ref().is_none_or(|worst| outcome::rank(&reply) > outcome::rank(worst)) {
                    *worst = Some(reply);
                }
            }
            BigValueStage::Fetching(fetching) => fetching.came(child, reply),
        }
        if frame.waiting == 0 {
            finish(self, frame, step, slot);
        }
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.target)
    }
}

impl BigValue {
    fn store(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let flags = request.client_flags();
        // A client's own flag that says "index" would be taken for ours.
        if request.data().len() <= self.threshold as usize && flags & INDEX_FLAG == 0 {
            return step.start(self.target, request, parent);
        }
        let index = Index::from_value(request.data(), self.threshold);
        if index.count > CHUNKS_MAX {
            return step.answer(parent, outcome::local_error("object too large for cache"));
        }
        let chunks = Chunks { index, sent: 0 };
        let progress = Self::waiting(BigValueStage::Storing { chunks, worst: None });
        let Some(slot) = step.open(node, request, parent, progress) else { return };
        if let Some(mut frame) = step.frames.take(slot) {
            self.send_on(&mut frame, step, slot);
            step.frames.put_back(slot, frame);
        }
    }

    /// Sends for the next chunks; false when there are none left.
    fn send_on(&self, frame: &mut Frame, step: &mut Step, slot: SlotId) -> bool {
        let request = frame.request.clone();
        let Some(stage) = Self::in_progress(&mut frame.progress) else { return false };
        let (stores, touches) = match stage {
            BigValueStage::Storing { .. } => (true, None),
            BigValueStage::Touching { exptime, .. } => (false, Some(*exptime)),
            _ => (false, None),
        };
        let (BigValueStage::Storing { chunks, .. }
        | BigValueStage::Fetching(Fetching { chunks, .. })
        | BigValueStage::Touching { chunks, .. }) = stage
        else {
            return false;
        };
        let Chunks { index, sent } = *chunks;
        let batch = if self.batch == 0 { CHUNKS_MAX } else { self.batch };
        let until = index.count.min(sent.saturating_add(batch));
        chunks.sent = until;
        for at in sent..until {
            let chunk = match (stores, touches, request.exptime()) {
                (true, _, exptime) => {
                    let from = at as usize * self.threshold as usize;
                    let value =
                        request.data().slice(from..request.data().len().min(from + self.threshold as usize));
                    let exptime = exptime.unwrap_or(Exptime(0));
                    request.store(StoreVerb::Set, request.client_flags(), exptime, value)
                }
                (false, Some(exptime), _) => request.touch(exptime),
                (false, None, Some(exptime)) => request.get_and_touch(exptime),
                (false, None, None) => request.get(),
            };
            // There is room for it, see `has_chunks`.
            let name = [&request.key()[..], format!(":{at}:{}", index.hash).as_bytes()].concat();
            if let Ok(chunk) = chunk.with_key(name.into()) {
                frame.start_child(step, slot, self.target, chunk, at);
            }
        }
        until > sent
    }
}

/// What is asked in place of a retrieval, so that its reply tells whether it is of an index: meta commands
/// show flags, and where they show a size they show the value.
fn looked_up(request: &OwnedRequest) -> OwnedRequest {
    let Some((_, flags)) = request.meta() else { return request.clone() };
    let mut more = Vec::new();
    if !flags.has(b'f') {
        more.push(b'f');
    }
    if flags.has(b's') && !flags.has(b'v') {
        more.push(b'v');
    }
    request.with_meta_flags(&more)
}

/// The client flags of what was found, and its value where it is there.
fn found(reply: &Reply) -> Option<(u32, Option<&Bytes>)> {
    match reply {
        Reply::Value { client_flags, value, .. } => Some((*client_flags, Some(value))),
        Reply::Meta { line, value } => {
            let text = line.split(|&byte| byte == b' ').skip(1 + usize::from(line.starts_with(b"VA")));
            let mut flags = text.filter_map(|word| word.strip_prefix(b"f"));
            let flags = std::str::from_utf8(flags.next()?).ok()?.parse().ok()?;
            Some((flags, value.as_ref()))
        }
        _ => None,
    }
}

impl Fetching {
    fn came(&mut self, child: u32, reply: Reply) {
        match reply {
            Reply::Value { value, client_flags, .. } if self.bytes + value.len() <= VALUE_BYTES_MAX => {
                if child == 0 {
                    self.client_flags = client_flags;
                }
                self.bytes += value.len();
                self.found[child as usize] = Some(value);
            }
            reply => {
                self.chunks.sent = self.chunks.index.count; // the rest is not worth sending for
                if outcome::error_kind(&reply).is_some() {
                    self.error = Some(reply);
                }
            }
        }
    }

    /// The value; `None` unless every chunk is there and of it.
    fn whole(&self) -> Option<Bytes> {
        let mut whole = BytesMut::with_capacity(self.bytes);
        for chunk in &self.found {
            whole.put_slice(chunk.as_ref()?);
        }
        (spooky::spooky32(&whole, 0) == self.chunks.index.hash).then(|| whole.freeze())
    }
}

/// What was under the key has come.
fn looked(big: &BigValue, frame: &mut Frame, step: &mut Step, slot: SlotId, reply: Reply) {
    let request = &frame.request;
    let touch = request.operation() == Operation::Touch;
    let (client_flags, value) = match found(&reply) {
        Some((flags, value)) if flags & INDEX_FLAG != 0 => (flags & !INDEX_FLAG, value),
        _ => {
            let answer = match reply {
                Reply::Value { .. } if touch => Reply::Touched,
                Reply::Miss if touch => Reply::NotFound,
                reply => shown(request, reply, None),
            };
            return frame.answer(step, answer);
        }
    };
    let Some(value) = value else {
        // The client asked for no value, and need not know that there is an index.
        let answer = shown(request, reply, Some(Shown { client_flags, value: None }));
        return frame.answer(step, answer);
    };
    let Some(index) = Index::read(value) else {
        let answer = outcome::null(request);
        return frame.answer(step, answer);
    };
    let chunks = Chunks { index, sent: 0 };
    let stage = match request.exptime() {
        Some(exptime) if touch => BigValueStage::Touching { chunks, exptime, worst: None },
        _ => {
            let found = vec![None; index.count as usize];
            BigValueStage::Fetching(Fetching { chunks, found, bytes: 0, client_flags, reply, error: None })
        }
    };
    frame.progress = BigValue::waiting(stage);
    big.send_on(frame, step, slot);
}

/// Nothing is waited for: the next chunks, or the end.
fn finish(big: &BigValue, frame: &mut Frame, step: &mut Step, slot: SlotId) {
    if let Some(BigValueStage::Storing { worst: Some(worst), .. }) =
        BigValue::in_progress(&mut frame.progress)
        && *worst != Reply::Stored
    {
        let is_said = frame.request.meta().is_none() || outcome::error_kind(worst).is_some();
        let answer = if is_said { worst.clone() } else { outcome::null(&frame.request) };
        return frame.answer(step, answer);
    }
    if big.send_on(frame, step, slot) {
        return;
    }
    let Some(stage) = BigValue::in_progress(&mut frame.progress) else { return };
    match std::mem::replace(stage, BigValueStage::Last) {
        BigValueStage::Storing { chunks, .. } => {
            let flags = frame.request.client_flags() | INDEX_FLAG;
            let index = frame.request.with_value(flags, chunks.index.written());
            frame.start_child(step, slot, big.target, index, 0);
        }
        BigValueStage::Touching { worst, .. } => frame.answer(step, worst.unwrap_or(Reply::NotFound)),
        BigValueStage::Fetching(Fetching { error: Some(error), .. }) => frame.answer(step, error),
        BigValueStage::Fetching(fetching) => {
            let answer = match fetching.whole() {
                Some(value) => {
                    let value = Shown { client_flags: fetching.client_flags, value: Some(value) };
                    shown(&frame.request, fetching.reply, Some(value))
                }
                None => outcome::null(&frame.request),
            };
            frame.answer(step, answer);
        }
        BigValueStage::Lookup | BigValueStage::Last => {}
    }
}

/// What a client sees in place of what an index says.
struct Shown {
    client_flags: u32,
    value: Option<Bytes>,
}

/// `reply` as the client of `request` is to see it: with this value, if one is given, and without the flags
/// that it did not ask for.
fn shown(request: &OwnedRequest, reply: Reply, other: Option<Shown>) -> Reply {
    match (reply, other) {
        (Reply::Value { cas_unique, .. }, Some(Shown { client_flags, value: Some(value) })) => {
            Reply::Value { client_flags, cas_unique, value }
        }
        (Reply::Meta { line, value }, other) if line.starts_with(b"VA ") || line.starts_with(b"HD") => {
            shown_meta(request, &line, value, other)
        }
        (reply, _) => reply,
    }
}

fn shown_meta(request: &OwnedRequest, line: &[u8], value: Option<Bytes>, other: Option<Shown>) -> Reply {
    let asked = |letter: u8| request.meta().is_some_and(|(_, flags)| flags.has(letter));
    let (client_flags, new_value) = match other {
        Some(Shown { client_flags, value }) => (Some(client_flags), value),
        None => (None, None),
    };
    let new_len = new_value.as_ref().map(Bytes::len);
    let value = new_value.or(value).filter(|_| asked(b'v'));
    let mut shown = BytesMut::with_capacity(line.len() + 16);
    match &value {
        Some(value) => shown.put_slice(format!("VA {}", value.len()).as_bytes()),
        None => shown.put_slice(b"HD"),
    }
    let words = line.split(|&byte| byte == b' ').skip(1 + usize::from(line.starts_with(b"VA")));
    for word in words.filter(|word| !word.is_empty()) {
        match (word[0], client_flags, new_len) {
            (b'f', ..) if !asked(b'f') => {}
            (b'f', Some(flags), _) => shown.put_slice(format!(" f{flags}").as_bytes()),
            (b's', _, Some(len)) => shown.put_slice(format!(" s{len}").as_bytes()),
            _ => {
                shown.put_u8(b' ');
                shown.put_slice(word);
            }
        }
    }
    Reply::Meta { line: shown.freeze(), value }
}

#[cfg(test)]
mod tests;
