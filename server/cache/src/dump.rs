//! `lru_crawler metadump` and `mgdump`: lists of all items. The shards are asked one after the other for a
//! piece at a time, and only while the client takes what it is sent.

use corecached_net::outbox;
use corecached_protocol::line;
use corecached_shard::{Service, State};

use crate::cache::{Cache, CacheCore, CacheSession};
use crate::commands::crawler::{self, ItemList};
use crate::task::{CacheBroadcast, CacheTask, Dump};

impl Cache {
    /// Begins a list, unless another is being made.
    pub(crate) fn begin_dump(&mut self, core: &mut CacheCore, session: &mut CacheSession, list: ItemList) {
        if !self.context.crawler.begin_dump() {
            return core.say(session, crawler::BUSY);
        }
        core.say(session, line::OK);
        session.state =
            State::Task(CacheTask::Dump(Box::new(Dump { list, shard: 0, from: 0, asked: false })));
    }

    /// Continues a list. False when it has to wait for its client, for another shard, or for the next turn,
    /// so that other clients are served.
    pub(crate) fn continue_dump(&mut self, core: &mut CacheCore, session: &mut CacheSession) -> bool {
        let State::Task(CacheTask::Dump(dump)) = &mut session.state else {
            unreachable!("the session is sent a list")
        };
        let Dump { list, shard, from, asked } = **dump;
        if asked || !session.replies.is_caught_up() {
            return false; // the answer of the shard, or the end of the reply, continues it
        }
        if core.output_len(session) >= outbox::HIGH_WATER_BYTES {
            core.list(session);
            return false;
        }
        let what = CacheBroadcast::ListItemsPiece { from, list };
        if shard == core.me {
            let answer = self.obey(core, what, None);
            self.add_dump_piece(core, session, &answer);
            if matches!(session.state, State::Task(CacheTask::Dump(_))) {
                core.list(session);
                return false;
            }
            return true;
        }
        if let State::Task(CacheTask::Dump(dump)) = &mut session.state {
            dump.asked = true;
        }
        // A few bytes past the bound of the mesh, for a single connection of the server.
        core.mesh.requests(shard).push_broadcast(session.conn, what);
        false
    }

    /// Sends the client a piece of the list that a shard has answered with.
    pub(crate) fn add_dump_piece(&mut self, core: &mut CacheCore, session: &mut CacheSession, answer: &[u8]) {
        let State::Task(CacheTask::Dump(dump)) = &mut session.state else { return };
        debug_assert!(dump.shard < core.mesh.shards(), "a list ends with the last shard");
        let (next, lines) = crawler::split_piece(answer);
        dump.asked = false;
        dump.from = next.unwrap_or(0);
        dump.shard += usize::from(next.is_none());
        let (is_last, end) = (dump.shard == core.mesh.shards(), dump.list.end());
        if is_last {
            session.state = State::Command;
            self.context.crawler.end_dump();
        }
        core.reply(session, |out| {
            out.extend_from_slice(lines);
            if is_last {
                out.extend_from_slice(end);
            }
        });
    }
}
