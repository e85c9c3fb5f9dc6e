//! The service of a cache: one shard's store, and what it does with the requests for its keys.

use std::collections::HashMap;
use std::sync::Arc;

use corecached_engine::{PinnedValue, Seconds, Store};
use corecached_net::tls::SecureDriver;
use corecached_net::{ConnId, Pinned};
use corecached_protocol::{Command, ParseError, Rejected, line};
use corecached_shard::batch::Ready;
use corecached_shard::mesh::message::{Piece, ReplyTo, Request};
use corecached_shard::mesh::slice::Lent;
use corecached_shard::session::Gather;
use corecached_shard::{Core, Service, ServiceTypes, Session, State, Step};

use crate::commands::prefixes::Prefixes;
use crate::commands::watch::Journal;
use crate::commands::{cachedump, conns, crawler};
use crate::context::CacheContext;
use crate::execute;
use crate::task::{CacheAsk, CacheBarrier, CacheBroadcast, CacheTask, CacheThen, Client};

/// The chassis of a cache's shard.
pub(crate) type CacheCore = Core<Cache>;
/// A connection of a cache's client.
pub(crate) type CacheSession = Session<Cache>;

/// Items that expiry and other upkeep look at in one turn.
const UPKEEP_ITEMS: usize = 64;

/// One shard of a cache.
pub struct Cache {
    pub(crate) context: Arc<CacheContext>,
    /// This shard's own slice; held except while the shard sleeps.
    pub(crate) store: Lent<Store>,
    /// The others' slices, by shard; held for the rest of a batch at most.
    pub(crate) others: Vec<Lent<Store>>,
    /// Some of `others` are held.
    pub(crate) borrowing: bool,
    /// Counters by prefix of the key, while they are switched on.
    pub(crate) prefixes: Option<Box<Prefixes>>,
    /// The classes of events that somebody watches in this turn.
    pub(crate) watched: u32,
    /// What was seen of them.
    pub(crate) journal: Journal,
    /// Connections of this shard that watch.
    pub(crate) watching: Vec<ConnId>,
    /// Commands are counted by prefix, or watched.
    pub(crate) observed: bool,
    /// Values that are being stored piece by piece. `None` once there was no room: the rest is skipped.
    pub(crate) uploads: HashMap<Client, Option<corecached_engine::Upload>>,
    /// Buffer for what comes after a value that is received straight to its place; empty until there is one.
    pub(crate) after_value: Vec<u8>,
    /// The store's memory limit, as last set.
    slice_bytes: usize,
    /// The upkeep of the store was cut short.
    upkeep_left: bool,
}

impl Cache {
    /// A shard that owns `store`, which it holds, and may borrow the stores of `others`, by shard.
    ///
    /// # Panics
    /// When `store` is not held.
    #[must_use]
    pub fn new(context: Arc<CacheContext>, store: Lent<Store>, others: Vec<Lent<Store>>) -> Self {
        assert!(store.held(), "a shard starts with its own slice");
        let config = &context.config;
        let prefixes = config.count_prefixes.then(|| Box::new(Prefixes::new(config.prefix_delimiter)));
        Self {
            slice_bytes: context.memory.slice_bytes(),
            observed: prefixes.is_some(),
            context,
            store,
            others,
            borrowing: false,
            prefixes,
            watched: 0,
            journal: Journal::default(),
            watching: Vec::new(),
            uploads: HashMap::new(),
            after_value: Vec::new(),
            upkeep_left: false,
        }
    }

    /// Once a second: the store gets what the memory limit leaves it.
    fn resize_store(&mut self, now: Seconds) {
        let bytes = self.context.memory.slice_bytes();
        if bytes != self.slice_bytes {
            self.slice_bytes = bytes;
            // Refused when the largest item would not fit any more: then the old limit stays.
            let _ = self.store.set_memory_bytes(bytes, now);
        }
    }

    fn publish_own_store(&self, core: &CacheCore) {
        core.context.cells[core.me].publish_store(&self.store.stats());
    }
}

impl ServiceTypes for Cache {
    type Task = CacheTask;
    type Barrier = CacheBarrier;
    type Then = CacheThen;
    type Ask = CacheAsk;
    type Broadcast = CacheBroadcast;
    /// Lines of text, or nothing.
    type Answer = Vec<u8>;

    fn answer_bytes(answer: &Vec<u8>) -> usize {
        answer.capacity()
    }
}

impl Service for Cache {
    fn has_work(&self) -> bool {
        self.upkeep_left
    }

    fn park(&mut self) {
        self.store.give_up();
    }

    fn unpark(&mut self) {
        self.store.take();
    }

    fn begin_turn(&mut self, core: &mut CacheCore, is_new_second: bool) {
        let watched = self.context.watch.watched();
        if watched != self.watched {
            self.watched = watched;
            self.observed = watched != 0 || self.prefixes.is_some();
        }
        if is_new_second {
            self.resize_store(core.now);
        }
    }

    /// Tells connections that asked for the certificates to be read again what the control thread says.
    fn take_news(&mut self, core: &mut CacheCore) -> bool {
        let mut any = false;
        while let Some((conn, answer)) =
            self.context.certificates.as_ref().and_then(|certificates| certificates.answer(core.me))
        {
            any = true;
            core.answered(self, conn, answer);
        }
        any
    }

    fn upkeep(&mut self, core: &mut CacheCore, driver: &mut impl SecureDriver) -> bool {
        self.receive_values(core, driver);
        self.upkeep_left = self.store.maintain(core.now, UPKEEP_ITEMS);
        if let Some(work) = self.store.next_page_work() {
            self.context.paging.offer(work);
        }
        self.upkeep_left
    }

    fn finish_turn(&mut self, core: &mut CacheCore, _: &mut impl SecureDriver) {
        debug_assert!(!self.borrowing);
        if self.watched != 0 || self.store.keeps_journal() {
            self.publish_watched(core);
        }
        if !self.watching.is_empty() {
            self.serve_watchers(core);
        }
    }

    fn publish(&self, core: &CacheCore) {
        self.publish_own_store(core);
    }

    fn stopped(&mut self, core: &mut CacheCore) {
        if let Some(warm) = &self.context.warm {
            warm.save(core.me, &self.store, core.now);
        }
    }

    fn accepted(&mut self, core: &mut CacheCore, session: &mut CacheSession) {
        if self.context.users.is_some() {
            session.state = State::Task(CacheTask::Authenticate);
        }
        self.tell_conn(core, &session.peer, session.conn, None);
    }

    fn closed(&mut self, core: &mut CacheCore, session: &CacheSession, reason: &str) {
        self.tell_conn(core, &session.peer, session.conn, Some(reason));
        match &session.state {
            State::Task(CacheTask::Upload(upload)) => self.abort_upload(core, session.conn, upload.owner),
            State::Task(CacheTask::Dump(_)) => self.context.crawler.end_dump(),
            State::Task(CacheTask::Watch) => self.end_watch(core, session.conn),
            _ => {}
        }
    }

    #[inline]
    fn value_bytes_max(&self, key_len: usize, client_flags: u32) -> usize {
        self.context.config.item_limit.value_bytes_max(key_len, client_flags)
    }

    const PREFETCHES: bool = true;

    #[inline]
    fn prefetch(&self, hash: u64) {
        self.store.prefetch(hash);
    }

    #[inline]
    fn prefetch_item(&self, hash: u64) {
        self.store.prefetch_item(hash);
    }

    #[inline]
    fn execute(&mut self, core: &mut CacheCore, session: &mut CacheSession, ready: &Ready<'_>) -> bool {
        self.execute_ready(core, session, ready)
    }

    fn command(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        command: &Command<'_>,
        line: &[u8],
        after: &[u8],
    ) -> Step {
        match command {
            Command::Store(_) | Command::Meta(_) => self.value(core, session, command, line, after),
            Command::Binary(binary) => self.binary_value(core, session, binary, line, after),
            _ => {
                self.keyless(core, session, command);
                Step::Took(0)
            }
        }
    }

    fn reject(&mut self, core: &mut CacheCore, session: &mut CacheSession, rejected: &Rejected) {
        let answer = match rejected.error {
            ParseError::BadShutdownMode if !self.context.config.allow_shutdown => line::SHUTDOWN_NOT_ENABLED,
            error => error.line(),
        };
        if !rejected.noreply && !answer.is_empty() {
            core.say(session, answer);
        }
        if rejected.close {
            session.state = State::Closing;
        } else if rejected.swallow > 0 {
            session.state = State::Swallow(rejected.swallow);
        }
    }

    fn resume(&mut self, core: &mut CacheCore, session: &mut CacheSession, input: &[u8]) -> Step {
        let State::Task(task) = &session.state else { unreachable!("the chassis has looked") };
        match task {
            CacheTask::Dump(_) => {
                if self.dump(core, session) {
                    Step::Took(0)
                } else {
                    Step::Stalled
                }
            }
            _ if input.is_empty() => Step::NeedMore,
            CacheTask::Watch => Step::Took(input.len()),
            CacheTask::Upload(_) => self.upload(core, session, input).map_or(Step::Full, Step::Took),
            CacheTask::Authenticate => match self.authenticate(core, session, input) {
                0 if matches!(session.state, State::Task(CacheTask::Authenticate)) => Step::NeedMore,
                taken => Step::Took(taken),
            },
        }
    }

    fn pass_barrier(&mut self, core: &mut CacheCore, session: &mut CacheSession, barrier: CacheBarrier) {
        self.passed(core, session, barrier);
    }

    fn gathered(&mut self, core: &mut CacheCore, session: &mut CacheSession, gather: Gather<Self>) {
        self.answer_gathered(core, session, gather);
    }

    fn answered(&mut self, core: &mut CacheCore, session: &mut CacheSession, answer: Vec<u8>) {
        if matches!(session.state, State::Task(CacheTask::Dump(_))) {
            self.dumped(core, session, &answer);
        }
        if session.stalled {
            core.list(session);
        }
    }

    /// Ends the loans of one session's commands: their owners may be waiting to wake up. What borrowing changed in a store
    /// cannot be published by its owner while that sleeps.
    fn end_batch(&mut self, core: &mut CacheCore) {
        if !std::mem::take(&mut self.borrowing) {
            return;
        }
        for (shard, other) in self.others.iter_mut().enumerate() {
            if other.held() {
                core.context.cells[shard].publish_store(&other.stats());
                other.give_up();
            }
        }
    }

    fn serve(&mut self, core: &mut CacheCore, from: usize, to: ReplyTo, request: &Request<'_, CacheAsk>) {
        let Request { ask, hash, key, tokens, data } = *request;
        let client = (from, to.conn);
        match ask {
            CacheAsk::Execute(head) => {
                let command = head.with_bytes(key, tokens);
                // The batch is taken out to write into it while the store is at work.
                let mut batch = std::mem::take(core.mesh.replies(from));
                batch.push_reply(to, Piece::Last, |out| {
                    self.carry_out(core, core.me, &command, hash, data, execute::COPY_ACROSS_MAX, client, out)
                });
                *core.mesh.replies(from) = batch;
            }
            CacheAsk::Unlink { base64 } => {
                self.unlink(core, core.me, key, hash, base64);
                core.mesh.replies(from).push_reply(to, Piece::Last, |_| None);
            }
            CacheAsk::UploadBegin { value_len } => self.upload_begin(core, client, value_len),
            CacheAsk::UploadPiece => self.upload_piece(core, client, data),
            CacheAsk::UploadAbort => self.upload_abort(client),
            CacheAsk::UploadCommit(head) => {
                let command = head.with_bytes(key, tokens);
                let mut answer = Vec::new();
                self.upload_commit(core, client, &command, hash, &mut answer);
                core.mesh.replies(from).push_reply(to, Piece::Last, |out| {
                    out.extend_from_slice(&answer);
                    None
                });
            }
        }
    }

    fn obey(&mut self, core: &mut CacheCore, what: CacheBroadcast, asking: Option<&CacheSession>) -> Vec<u8> {
        match what {
            CacheBroadcast::Flush { at_s } => self.store.flush(Seconds(at_s), core.now),
            CacheBroadcast::MemoryLimit { bytes } => {
                // Checked before it was sent to the shards.
                let _ = self.store.set_memory_bytes(bytes, core.now);
            }
            CacheBroadcast::ResetCounters => {
                core.counters = corecached_shard::counters::Counters::default();
                core.context.cells[core.me].reset_store(&self.store.stats());
            }
            CacheBroadcast::CountPrefixes { on } => {
                let delimiter = self.context.config.prefix_delimiter;
                self.prefixes = on.then(|| Box::new(Prefixes::new(delimiter)));
                self.observed = on || self.watched != 0;
            }
            CacheBroadcast::DescribeItems { limit } => {
                return cachedump::describe(&self.store, limit, core.now);
            }
            CacheBroadcast::ListItems { from, list } => {
                return crawler::list(&self.store, from, list, core.now);
            }
            CacheBroadcast::DescribePrefixes => {
                return self.prefixes.as_ref().map_or_else(Vec::new, |prefixes| prefixes.encode());
            }
            CacheBroadcast::DescribeConns => {
                let all = core.sessions().chain(asking);
                return conns::describe(core.me, all, &core.context.network.addresses, core.now.0);
            }
        }
        Vec::new()
    }

    fn take_back(&mut self, value: PinnedValue) {
        self.store.unpin(value);
    }
}

/// `large` as a reply of a shard carries it: the value is lent by `owner`.
pub(crate) fn pinned(large: execute::Large, owner: usize) -> Option<(usize, Pinned)> {
    large.map(|(at, value)| (at, Pinned { value, owner }))
}
