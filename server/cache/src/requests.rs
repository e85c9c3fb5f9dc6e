//! Commands on keys. They are carried out on this shard's own slice, or on a slice that is borrowed because
//! its owner sleeps, or they are sent to the owner.

use corecached_protocol::Command;
use corecached_shard::batch::Ready;
use corecached_shard::mesh::message::Request;
use corecached_shard::owner_of;
use corecached_shard::reply_queue::Part;

use crate::cache::{Cache, CacheCore, CacheSession, pinned};
use crate::execute::{self, StoreCommand};
use crate::task::{CacheAsk, Client};

impl Cache {
    /// Carries out a command on a key, here or on its owner. False when there is no room for it in the mesh.
    #[inline]
    pub(crate) fn execute_ready(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        ready: &Ready<'_>,
    ) -> bool {
        let Ready { command, hash, data, .. } = ready;
        let owner = owner_of(*hash, core.mesh.shards());
        if owner == core.me || self.borrow(core, owner) {
            let client = (core.me, session.conn);
            if session.replies.is_caught_up() {
                core.write_now(session, |core, out| {
                    let copy_max = execute::COPY_MAX;
                    pinned(self.carry_out(core, owner, command, *hash, data, copy_max, client, out), owner)
                });
            } else {
                session.replies.enqueue(|held| {
                    let copy_max = execute::COPY_ACROSS_MAX;
                    pinned(self.carry_out(core, owner, command, *hash, data, copy_max, client, held), owner)
                });
            }
            return true;
        }
        if !core.mesh.has_room(owner) {
            return false;
        }
        let Some(parts) = command.parts() else { unreachable!("a command without a key is not ready") };
        let ask = CacheAsk::Execute(parts.head);
        let request = Request { ask, hash: *hash, key: parts.key, tokens: parts.tokens, data };
        self.forward(core, session, owner, &request);
        true
    }

    /// Whether this shard may work on the slice of `owner` itself: the owner sleeps, and has done all that
    /// this shard asked of it before.
    #[inline]
    pub(crate) fn borrow(&mut self, core: &mut CacheCore, owner: usize) -> bool {
        let other = &mut self.others[owner];
        if !other.is_held() {
            // The lock comes first: the owner has carried out what it took from the channel before it
            // released the lock.
            if !other.try_lock() {
                return false;
            }
            if !core.mesh.has_no_requests(owner) {
                other.unlock();
                return false;
            }
            self.borrowing = true;
        }
        core.counters.borrowed += 1;
        true
    }

    /// Sends a request to the shard that owns its key, and reserves the slot for its reply in the session's
    /// order.
    pub(crate) fn forward(
        &self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        owner: usize,
        request: &Request<'_, CacheAsk>,
    ) {
        debug_assert_ne!(owner, core.me, "a shard sends itself no requests");
        debug_assert!(
            !self.others[owner].is_held(),
            "the request would come after later work on the borrowed slice"
        );
        let to = core.reserve(session, Part::Whole);
        core.counters.forwarded += 1;
        core.mesh.requests(owner).push_request(to, request);
    }

    /// Carries out a command of `client` on the slice of `owner`, which is this shard's or borrowed.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what every command needs, on the hot path")]
    pub(crate) fn carry_out(
        &mut self,
        core: &mut CacheCore,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        client: Client,
        out: &mut Vec<u8>,
    ) -> execute::LargeValue {
        // One branch for both counting by prefix and watching, since both are rare.
        if self.observed {
            return self.carry_out_observed(core, owner, command, hash, data, copy_max, client, out);
        }
        self.carry_out_plain(core, owner, command, hash, data, copy_max, out)
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "as `carry_out`")]
    fn carry_out_observed(
        &mut self,
        core: &mut CacheCore,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        client: Client,
        out: &mut Vec<u8>,
    ) -> execute::LargeValue {
        let watched =
            (self.watched_classes != 0).then(|| self.observe_before(core, owner, command, hash, client));
        let before = core.counters;
        let large = self.carry_out_plain(core, owner, command, hash, data, copy_max, out);
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.count(command, &before, &core.counters);
        }
        if let Some(before) = watched {
            self.observe_after(core, owner, command, hash, data.len(), &before);
        }
        large
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "as `carry_out`")]
    fn carry_out_plain(
        &mut self,
        core: &mut CacheCore,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        out: &mut Vec<u8>,
    ) -> execute::LargeValue {
        self.on_store(core, owner, copy_max).execute(command, hash, data, out)
    }

    /// What a command needs to be carried out on the slice of `owner`, which is this shard's or borrowed.
    #[inline]
    pub(crate) fn on_store<'s>(
        &'s mut self,
        core: &'s mut CacheCore,
        owner: usize,
        copy_max: usize,
    ) -> StoreCommand<'s> {
        let Self { store, others, context, .. } = self;
        let store = if owner == core.me { &mut **store } else { &mut *others[owner] };
        StoreCommand { store, counters: &mut core.counters, config: &context.config, now: core.now, copy_max }
    }
}
