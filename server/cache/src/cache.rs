//! The service of a cache on one shard: its store, and what it does with the requests for its keys.

use std::collections::HashMap;
use std::sync::Arc;

use corecached_engine::{PinnedValue, Seconds, Store};
use corecached_net::tls::SecureDriver;
use corecached_net::{ConnId, Pinned};
use corecached_protocol::{Command, ParseError, Rejected, line};
use corecached_shard::batch::Ready;
use corecached_shard::mesh::message::{Piece, ReplyTo, Request};
use corecached_shard::mesh::slice::SliceHandle;
use corecached_shard::session::Gather;
use corecached_shard::{Core, Service, ServiceTypes, Session, State, Step};

use crate::commands::prefixes::Prefixes;
use crate::commands::watch::WatchJournal;
use crate::commands::{cachedump, conns, crawler};
use crate::context::CacheContext;
use crate::execute;
use crate::task::{CacheAsk, CacheBarrier, CacheBroadcast, CacheTask, CacheThen, Client};

/// The chassis of a shard of a cache.
pub(crate) type CacheCore = Core<Cache>;
/// A session of a cache.
pub(crate) type CacheSession = Session<Cache>;

/// Items that the upkeep of the store, such as expiry, looks at in one turn.
const UPKEEP_ITEMS: usize = 64;

/// The service of a cache on one shard.
pub struct Cache {
    pub(crate) context: Arc<CacheContext>,
    /// This shard's own slice. Held except while the shard sleeps.
    pub(crate) store: SliceHandle<Store>,
    /// The slices of all shards, by shard. Held until the end of a batch at most; the one of this shard is
    /// never held.
    pub(crate) others: Vec<SliceHandle<Store>>,
    /// At least one of `others` is held.
    pub(crate) borrowing: bool,
    /// Counters by prefix of the key. `None` while they are switched off.
    pub(crate) prefixes: Option<Box<Prefixes>>,
    /// The classes of events that are watched in this turn.
    pub(crate) watched_classes: u32,
    /// The events of this turn.
    pub(crate) journal: WatchJournal,
    /// Connections of this shard that watch.
    pub(crate) watching: Vec<ConnId>,
    /// Commands are counted by prefix, or events are watched.
    pub(crate) observed: bool,
    /// Values that clients of all shards upload to this store. `None` when there was no memory for one: its
    /// rest is skipped.
    pub(crate) uploads: HashMap<Client, Option<corecached_engine::Upload>>,
    /// Buffer for what is received after a value that is received straight into the store. Empty until there
    /// is such a value.
    pub(crate) after_value: Vec<u8>,
    /// The memory limit of the store in bytes, as it was set last.
    slice_bytes: usize,
    /// The upkeep of the store has more to do.
    upkeep_left: bool,
}

impl Cache {
    /// The service of a shard that owns `store`. `others` are handles to the stores of all shards, by shard.
    ///
    /// # Panics
    /// When the handle does not hold `store`.
    #[must_use]
    pub fn new(
        context: Arc<CacheContext>,
        store: SliceHandle<Store>,
        others: Vec<SliceHandle<Store>>,
    ) -> Self {
        assert!(store.is_held(), "a shard holds its own slice");
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
            watched_classes: 0,
            journal: WatchJournal::default(),
            watching: Vec::new(),
            uploads: HashMap::new(),
            after_value: Vec::new(),
            upkeep_left: false,
        }
    }

    /// Gives the store the memory that the limit leaves it now. Called once a second.
    fn resize_store(&mut self, now: Seconds) {
        let bytes = self.context.memory.slice_bytes();
        if bytes != self.slice_bytes {
            self.slice_bytes = bytes;
            // Refused when the largest item would not fit any more. Then the old limit stays.
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
    /// Lines of text. Empty when the broadcast asks for none.
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
        self.store.unlock();
    }

    fn unpark(&mut self) {
        self.store.lock();
    }

    fn begin_turn(&mut self, core: &mut CacheCore, is_new_second: bool) {
        let classes = self.context.watchers.classes();
        if classes != self.watched_classes {
            self.watched_classes = classes;
            self.observed = classes != 0 || self.prefixes.is_some();
        }
        if is_new_second {
            self.resize_store(core.now);
        }
    }

    /// Gives the answers to `refresh_certs` to the connections that sent it.
    fn take_news(&mut self, core: &mut CacheCore) -> bool {
        let mut any = false;
        while let Some((conn, answer)) = self
            .context
            .certificates
            .as_ref()
            .and_then(|certificates| certificates.take_reload_result(core.me))
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
        if self.watched_classes != 0 || self.store.keeps_journal() {
            self.publish_events(core);
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
        self.observe_connection(core, &session.peer, session.conn, None);
    }

    fn closed(&mut self, core: &mut CacheCore, session: &CacheSession, reason: &str) {
        self.observe_connection(core, &session.peer, session.conn, Some(reason));
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
            Command::Store(_) | Command::Meta(_) => self.handle_value(core, session, command, line, after),
            Command::Binary(binary) => self.handle_binary_value(core, session, binary, line, after),
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
            session.malformed = true;
            session.state = State::Closing;
        } else if rejected.swallow > 0 {
            session.state = State::Swallow(rejected.swallow);
        }
    }

    fn resume(&mut self, core: &mut CacheCore, session: &mut CacheSession, input: &[u8]) -> Step {
        let State::Task(task) = &session.state else { unreachable!("the session has a task") };
        match task {
            CacheTask::Dump(_) => {
                if self.continue_dump(core, session) {
                    Step::Took(0)
                } else {
                    Step::Stalled
                }
            }
            _ if input.is_empty() => Step::NeedMore,
            CacheTask::Watch => Step::Took(input.len()),
            CacheTask::Upload(_) => self.continue_upload(core, session, input).map_or(Step::Full, Step::Took),
            CacheTask::Authenticate => match self.authenticate(core, session, input) {
                0 if matches!(session.state, State::Task(CacheTask::Authenticate)) => Step::NeedMore,
                taken => Step::Took(taken),
            },
        }
    }

    fn pass_barrier(&mut self, core: &mut CacheCore, session: &mut CacheSession, barrier: CacheBarrier) {
        self.handle_barrier(core, session, barrier);
    }

    fn gathered(&mut self, core: &mut CacheCore, session: &mut CacheSession, gather: Gather<Self>) {
        self.answer_gathered(core, session, gather);
    }

    fn answered(&mut self, core: &mut CacheCore, session: &mut CacheSession, answer: Vec<u8>) {
        if matches!(session.state, State::Task(CacheTask::Dump(_))) {
            self.add_dump_piece(core, session, &answer);
        }
        if session.stalled {
            core.list(session);
        }
    }

    /// Releases the slices that were borrowed for the commands of one session. Their owners may be waiting
    /// for them. Publishes the numbers of these stores, since a sleeping owner does not.
    fn end_batch(&mut self, core: &mut CacheCore) {
        if !std::mem::take(&mut self.borrowing) {
            return;
        }
        for (shard, other) in self.others.iter_mut().enumerate() {
            if other.is_held() {
                core.context.cells[shard].publish_store(&other.stats());
                other.unlock();
            }
        }
    }

    fn serve(&mut self, core: &mut CacheCore, from: usize, to: ReplyTo, request: &Request<'_, CacheAsk>) {
        let Request { ask, hash, key, tokens, data } = *request;
        let client = (from, to.conn);
        match ask {
            CacheAsk::Execute(head) => {
                let command = head.with_bytes(key, tokens);
                // The batch is taken out so that the command can write into it.
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
            CacheAsk::UploadBegin { value_len } => self.open_upload(core, client, value_len),
            CacheAsk::UploadPiece => self.append_upload(core, client, data),
            CacheAsk::UploadAbort => self.drop_upload(client),
            CacheAsk::UploadCommit(head) => {
                let command = head.with_bytes(key, tokens);
                let mut answer = Vec::new();
                self.commit_upload(core, client, &command, hash, &mut answer);
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
                // The limit was checked before it was sent to the shards.
                let _ = self.store.set_memory_bytes(bytes, core.now);
            }
            CacheBroadcast::ResetCounters => {
                core.counters = corecached_shard::counters::Counters::default();
                core.context.cells[core.me].reset_store(&self.store.stats());
                if let Some(prefixes) = &mut self.prefixes {
                    prefixes.reset();
                }
            }
            CacheBroadcast::CountPrefixes { on } => {
                self.context.set_counts_prefixes(on);
                let delimiter = self.context.config.prefix_delimiter;
                self.prefixes = on.then(|| Box::new(Prefixes::new(delimiter)));
                self.observed = on || self.watched_classes != 0;
            }
            CacheBroadcast::ListSomeItems { limit } => {
                return cachedump::list(&self.store, limit, core.now);
            }
            CacheBroadcast::ListItemsPiece { from, list } => {
                return crawler::list_piece(&self.context.crawler, &self.store, from, list, core.now);
            }
            CacheBroadcast::ListPrefixes => {
                return self.prefixes.as_ref().map_or_else(Vec::new, |prefixes| prefixes.encode());
            }
            CacheBroadcast::ListConns => {
                let all = core.sessions().chain(asking);
                let asks = asking.map(|session| session.conn);
                return conns::list(core, asks, all);
            }
        }
        Vec::new()
    }

    fn take_back(&mut self, value: PinnedValue) {
        self.store.unpin(value);
    }
}

/// Adds to a large value that it belongs to the store of `owner`.
pub(crate) fn pinned(large: execute::LargeValue, owner: usize) -> Option<(usize, Pinned)> {
    large.map(|(at, value)| (at, Pinned { value, owner }))
}
