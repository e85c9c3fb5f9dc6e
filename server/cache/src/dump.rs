//! `lru_crawler metadump` and `mgdump`: a list of all items that is asked of one shard after the other, a piece at a
//! time, and goes on only while the client takes it.

use super::core::Core;
use super::message::{Broadcast, GATHER, ReplyTo, Request};
use crate::admin::crawler::{self, ItemList};
use crate::conn::session::Dump;
use crate::conn::{Session, State};
use crate::net::outbox;
use corecached_protocol::line;

impl Core {
    /// Begin a list, unless another is being made.
    pub(super) fn begin_dump(&mut self, session: &mut Session, list: ItemList) {
        if !self.shared.crawler.begin_dump() {
            return self.say(session, crawler::BUSY);
        }
        self.say(session, line::OK);
        session.state = State::Dump(Box::new(Dump { list, shard: 0, from: 0, asked: false }));
    }

    /// Go on with a list. False when it has to wait: for its client, for another shard, or for the next turn, since
    /// others want theirs too.
    pub(super) fn dump(&mut self, session: &mut Session) -> bool {
        let State::Dump(dump) = &mut session.state else { unreachable!("the caller looked") };
        let Dump { list, shard, from, asked } = **dump;
        if asked || !session.is_caught_up() {
            return false; // what is waited for brings us back
        }
        if self.output_len(session) >= outbox::HIGH_WATER_BYTES {
            self.list(session);
            return false;
        }
        let what = Broadcast::ListItems { from, list };
        if shard == self.me {
            let answer = self.obey(what, None);
            self.dumped(session, &answer);
            if matches!(session.state, State::Dump(_)) {
                self.list(session);
                return false;
            }
            return true;
        }
        if let State::Dump(dump) = &mut session.state {
            dump.asked = true;
        }
        let to = ReplyTo { conn: session.conn, sequence: GATHER };
        // A few bytes past the bound, for one connection of the server: nothing to wait for.
        self.mesh.requests(shard).push_request(to, &Request::Broadcast(what));
        false
    }

    /// A piece of the list has come.
    pub(super) fn dumped(&mut self, session: &mut Session, answer: &[u8]) {
        let State::Dump(dump) = &mut session.state else { return };
        let (next, lines) = crawler::piece(answer);
        dump.asked = false;
        dump.from = next.unwrap_or(0);
        dump.shard += usize::from(next.is_none());
        let (is_last, end) = (dump.shard == self.mesh.shards(), dump.list.end());
        if is_last {
            session.state = State::Command;
            self.shared.crawler.end_dump();
        }
        self.reply(session, |out| {
            out.extend_from_slice(lines);
            if is_last {
                out.extend_from_slice(end);
            }
        });
    }
}
