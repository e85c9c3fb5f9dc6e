//! Commands on keys: carried out on this shard's own slice, on a slice that its owner lends while it sleeps, or sent to the
//! owner.

use corecached_protocol::Command;
use corecached_shard::batch::Ready;
use corecached_shard::mesh::message::Request;
use corecached_shard::owner_of;
use corecached_shard::reply_queue::Part;

use crate::cache::{Cache, CacheCore, CacheSession, pinned};
use crate::execute::{self, StoreCommand};
use crate::task::{CacheAsk, Client};

impl Cache {
    /// Carries out a command on a key, here or through the mesh. False when there is no room on the way.
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

    /// Whether this shard may work on the slice of `owner` itself: the owner sleeps, and has done all that this shard asked
    /// of it before.
    #[inline]
    pub(crate) fn borrow(&mut self, core: &mut CacheCore, owner: usize) -> bool {
        let other = &mut self.others[owner];
        if !other.held() {
            // The lock first: what was taken from the channel before it was free has been done.
            if !other.try_take() {
                return false;
            }
            if !core.mesh.is_quiet(owner) {
                other.give_up();
                return false;
            }
            self.borrowing = true;
        }
        core.counters.borrowed += 1;
        true
    }

    /// Sends a request to the shard that owns its key. Its reply has its place in the session's order.
    pub(crate) fn forward(
        &self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        owner: usize,
        request: &Request<'_, CacheAsk>,
    ) {
        // The request would come after what is done on the borrowed slice.
        debug_assert!(!self.others[owner].held());
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
    ) -> execute::Large {
        // One branch for counting by prefix and for watching, since both are rare.
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
    ) -> execute::Large {
        let watched = (self.watched != 0).then(|| self.look_before(core, owner, command, hash, client));
        let before = core.counters;
        let large = self.carry_out_plain(core, owner, command, hash, data, copy_max, out);
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.count(command, &before, &core.counters);
        }
        if let Some(before) = watched {
            self.look_after(core, owner, command, hash, data.len(), client, &before);
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
    ) -> execute::Large {
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
