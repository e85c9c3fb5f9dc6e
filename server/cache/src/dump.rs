//! `lru_crawler metadump` and `mgdump`: a list of all items that is asked of one shard after the other, a piece at a
//! time, and goes on only while the client takes it.

use corecached_net::outbox;
use corecached_protocol::line;
use corecached_shard::{Service, State};

use crate::cache::{Cache, CacheCore, CacheSession};
use crate::commands::crawler::{self, ItemList};
use crate::task::{CacheBroadcast, CacheTask, Dump};

impl Cache {
    /// Begin a list, unless another is being made.
    pub(crate) fn begin_dump(&mut self, core: &mut CacheCore, session: &mut CacheSession, list: ItemList) {
        if !self.context.crawler.begin_dump() {
            return core.say(session, crawler::BUSY);
        }
        core.say(session, line::OK);
        session.state =
            State::Task(CacheTask::Dump(Box::new(Dump { list, shard: 0, from: 0, asked: false })));
    }

    /// Go on with a list. False when it has to wait: for its client, for another shard, or for the next turn, since
    /// others want theirs too.
    pub(crate) fn dump(&mut self, core: &mut CacheCore, session: &mut CacheSession) -> bool {
        let State::Task(CacheTask::Dump(dump)) = &mut session.state else {
            unreachable!("the caller looked")
        };
        let Dump { list, shard, from, asked } = **dump;
        if asked || !session.replies.is_caught_up() {
            return false; // what is waited for brings us back
        }
        if core.output_len(session) >= outbox::HIGH_WATER_BYTES {
            core.list(session);
            return false;
        }
        let what = CacheBroadcast::ListItems { from, list };
        if shard == core.me {
            let answer = self.obey(core, what, None);
            self.dumped(core, session, &answer);
            if matches!(session.state, State::Task(CacheTask::Dump(_))) {
                core.list(session);
                return false;
            }
            return true;
        }
        if let State::Task(CacheTask::Dump(dump)) = &mut session.state {
            dump.asked = true;
        }
        // A few bytes past the bound of the mesh, for one connection of the whole server.
        core.mesh.requests(shard).push_broadcast(session.conn, what);
        false
    }

    /// A piece of the list has come.
    pub(crate) fn dumped(&mut self, core: &mut CacheCore, session: &mut CacheSession, answer: &[u8]) {
        let State::Task(CacheTask::Dump(dump)) = &mut session.state else { return };
        let (next, lines) = crawler::piece(answer);
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
