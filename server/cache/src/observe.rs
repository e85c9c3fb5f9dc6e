//! What a shard tells those that watch: see [`crate::admin::watch`].

use std::io::Write;

use corecached_engine::{KEY_BYTES_MAX, Key, Seconds};
use corecached_protocol::{Binary, BinaryVerb, Command, MetaKey, MetaMode, MetaVerb, StoreVerb, line};

use super::core::Core;
use super::execute;
use crate::admin::crawler::put_uri_encoded;
use crate::admin::watch::class;
use crate::admin::{conns, watch};
use crate::conn::session::Peer;
use crate::conn::{Session, State};
use crate::metrics::Counters;
use crate::net::ConnId;

/// What was so before a command that is watched.
pub(super) struct Watched {
    counters: Counters,
    total_items: u64,
    /// Bytes of the value there was.
    value_len: Option<usize>,
}

/// What a command does to its key, as far as it is told.
enum Deed {
    Look,
    Store(&'static str),
    Delete(&'static str),
}

impl Core {
    /// `watch CLASSES`
    pub(super) fn watch(&mut self, session: &mut Session, words: &[u8]) {
        let answer = match watch::classes(words) {
            _ if !self.shared.config.allow_watch => line::WATCH_NOT_ALLOWED,
            None => line::ERROR,
            Some(classes) if self.shared.watch.add(self.me, session.conn, classes) => {
                session.state = State::Watching;
                self.watching.push(session.conn);
                line::OK
            }
            Some(_) => line::TOO_MANY_WATCHERS,
        };
        self.say(session, answer);
    }

    /// It watches no more.
    pub(super) fn end_watch(&mut self, conn: ConnId) {
        self.shared.watch.remove(self.me, conn);
        self.watching.retain(|&watching| watching != conn);
    }

    /// At the end of a turn: what was seen goes to whoever watches.
    pub(super) fn publish_watched(&mut self) {
        let keeps = self.watched & class::EVICTIONS != 0;
        self.store.keep_journal(keeps);
        if keeps {
            let Self { store, journal, shared, now, .. } = self;
            let untold = store.take_journal(|evicted| {
                journal.line(class::EVICTIONS, &shared.watch, |out| {
                    out.extend_from_slice(b"type=eviction key=");
                    put_uri_encoded(out, evicted.key);
                    let fetch = if evicted.fetched { "yes" } else { "no" };
                    let ttl = evicted.expires.map_or(-1, |at| i64::from(at.0) - i64::from(now.0));
                    let idle_s = now.0.saturating_sub(evicted.last_access.0);
                    let size = evicted.value_len;
                    let _ = write!(out, " fetch={fetch} ttl={ttl} la={idle_s} clsid=1 size={size}");
                });
            });
            journal.drop_lines(untold);
        }
        if !self.journal.is_empty() {
            let Self { me, journal, shared, .. } = self;
            shared.watch.publish(journal, |shard| {
                if shard != *me {
                    shared.presence[shard].wake();
                }
            });
        }
    }

    /// At the end of a turn: send our watchers what waits for them, as far as they take it.
    pub(super) fn serve_watchers(&mut self) {
        for at in 0..self.watching.len() {
            let conn = self.watching[at];
            let Some(mut session) = self.take(conn) else { continue };
            if !session.behind {
                let (shared, me) = (std::sync::Arc::clone(&self.shared), self.me);
                self.reply(&mut session, |out| shared.watch.take(me, conn, out));
            }
            self.put(session);
        }
    }

    /// Before a command on the slice of `owner` that is watched.
    pub(super) fn look_before(
        &mut self,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        conn: usize,
    ) -> Watched {
        let mut scratch = [0; _];
        let Some((key, _)) = deed(command, &mut scratch) else {
            unreachable!("a command without a key has no owner")
        };
        let value_len = self.stored(owner, key, hash).map(|(len, _)| len);
        if self.watched & class::FETCHERS != 0 {
            let Self { journal, shared, .. } = self;
            journal.line(class::FETCHERS, &shared.watch, |out| {
                out.extend_from_slice(b"type=item_get key=");
                put_uri_encoded(out, key);
                let status = if value_len.is_some() { "found" } else { "not_found" };
                let class = u32::from(value_len.is_some());
                let size = value_len.unwrap_or(0);
                let _ = write!(out, " status={status} clsid={class} cfd={conn} size={size}");
            });
        }
        Watched { counters: self.counters, total_items: self.total_items(owner), value_len }
    }

    /// Behind it; its value had `data_len` bytes.
    pub(super) fn look_behind(
        &mut self,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data_len: usize,
        conn: usize,
        before: &Watched,
    ) {
        let mut scratch = [0; _];
        let Some((key, deed)) = deed(command, &mut scratch) else { return };
        match deed {
            Deed::Store(verb) if self.watched & class::MUTATIONS != 0 => {
                let counted = |count: fn(&Counters) -> u64| count(&self.counters) > count(&before.counters);
                let status = match () {
                    () if self.total_items(owner) > before.total_items => "stored",
                    () if counted(|counters| counters.cas_badval) => "exists",
                    () if counted(|counters| counters.cas_misses) => "not_found",
                    () if counted(|counters| counters.store_no_memory) => "no_memory",
                    () => "not_stored",
                };
                let found = (status == "stored").then(|| self.stored(owner, key, hash)).flatten();
                let (size, ttl) = found.unwrap_or_else(|| (data_len, asked_ttl(command, self.now)));
                let Self { journal, shared, .. } = self;
                journal.line(class::MUTATIONS, &shared.watch, |out| {
                    out.extend_from_slice(b"type=item_store key=");
                    put_uri_encoded(out, key);
                    let _ =
                        write!(out, " status={status} cmd={verb} ttl={ttl} clsid=1 cfd={conn} size={size}");
                });
            }
            Deed::Delete(verb)
                if self.watched & class::DELETIONS != 0
                    && self.counters.delete_hits > before.counters.delete_hits =>
            {
                let Self { journal, shared, .. } = self;
                journal.line(class::DELETIONS, &shared.watch, |out| {
                    out.extend_from_slice(b"type=deleted key=");
                    put_uri_encoded(out, key);
                    let size = before.value_len.unwrap_or(0);
                    let _ = write!(out, " cmd={verb} clsid=1 cfd={conn} size={size}");
                });
            }
            _ => {}
        }
    }

    /// A value that was too large to be stored.
    pub(super) fn tell_too_large(&mut self, key: &[u8], conn: ConnId) {
        if self.watched & class::MUTATIONS != 0 {
            let conn = conns::number(self.me, conn);
            let Self { journal, shared, .. } = self;
            journal.line(class::MUTATIONS, &shared.watch, |out| {
                out.extend_from_slice(b"type=item_store key=");
                put_uri_encoded(out, key);
                let _ = write!(out, " status=too_large cmd=set ttl=0 clsid=1 cfd={conn} size=0");
            });
        }
    }

    /// Bytes of the value that is stored under the key, and seconds it has left; 0 is for ever.
    fn stored(&self, owner: usize, key: &[u8], hash: u64) -> Option<(usize, u32)> {
        let store = if owner == self.me { &*self.store } else { &*self.others[owner] };
        let item = store.peek(Key { bytes: key, hash }, self.now)?;
        Some((item.value.len(), item.expires.map_or(0, |at| at.0.saturating_sub(self.now.0))))
    }

    /// A connection came, or went for `reason`.
    pub(super) fn tell_conn(&mut self, peer: &Peer, conn: ConnId, reason: Option<&str>) {
        if self.watched & class::CONNEVENTS == 0 {
            return;
        }
        let cfd = conns::number(self.me, conn);
        let Self { journal, shared, .. } = self;
        journal.line(class::CONNEVENTS, &shared.watch, |out| {
            let kind = if reason.is_some() { "conn_close" } else { "conn_new" };
            let _ = match peer {
                Peer::Unix => write!(out, "type={kind} rip=unix rport=0 transport=local"),
                Peer::V4(at) => write!(out, "type={kind} rip={} rport={} transport=tcp", at.ip(), at.port()),
                Peer::V6(at) => write!(out, "type={kind} rip={} rport={} transport=tcp", at.ip(), at.port()),
            };
            if let Some(reason) = reason {
                let _ = write!(out, " reason={reason}");
            }
            let _ = write!(out, " cfd={cfd}");
        });
    }

    fn total_items(&self, owner: usize) -> u64 {
        let store = if owner == self.me { &*self.store } else { &*self.others[owner] };
        store.stats().total_items
    }
}

/// Seconds a storage command gives its item; 0 is for ever.
fn asked_ttl(command: &Command<'_>, now: Seconds) -> u32 {
    let exptime = match command {
        Command::Store(store) => store.exptime,
        Command::Binary(binary) => binary.exptime(),
        Command::Meta(meta) if meta.flags.has(b'T') => meta.flags.exptime,
        _ => return 0,
    };
    execute::expires(exptime, now).map_or(0, |at| at.0.saturating_sub(now.0))
}

/// A command's key, and what it does to it.
fn deed<'k>(command: &Command<'k>, scratch: &'k mut [u8; KEY_BYTES_MAX]) -> Option<(&'k [u8], Deed)> {
    Some(match *command {
        Command::Retrieve(retrieve) => (retrieve.key, Deed::Look),
        Command::Touch(touch) => (touch.key, Deed::Look),
        Command::Arithmetic(arithmetic) => (arithmetic.key, Deed::Look),
        Command::Delete(delete) => (delete.key, Deed::Delete("delete")),
        Command::Store(store) => (
            store.key,
            Deed::Store(match store.verb {
                StoreVerb::Set => "set",
                StoreVerb::Add => "add",
                StoreVerb::Replace => "replace",
                StoreVerb::Append => "append",
                StoreVerb::Prepend => "prepend",
                StoreVerb::Cas => "cas",
            }),
        ),
        Command::Binary(Binary { verb, key, .. }) => (
            key,
            match verb {
                BinaryVerb::Set => Deed::Store("set"),
                BinaryVerb::Add => Deed::Store("add"),
                BinaryVerb::Replace => Deed::Store("replace"),
                BinaryVerb::Append => Deed::Store("append"),
                BinaryVerb::Prepend => Deed::Store("prepend"),
                BinaryVerb::Delete => Deed::Delete("delete"),
                _ => Deed::Look,
            },
        ),
        Command::Meta(ref meta) => {
            let deed = match (meta.verb, meta.flags.mode) {
                (MetaVerb::Set, MetaMode::Add) => Deed::Store("add"),
                (MetaVerb::Set, MetaMode::Append) => Deed::Store("append"),
                (MetaVerb::Set, MetaMode::Prepend) => Deed::Store("prepend"),
                (MetaVerb::Set, MetaMode::Replace) => Deed::Store("replace"),
                (MetaVerb::Set, _) => Deed::Store("set"),
                (MetaVerb::Delete, _) => Deed::Delete("md"),
                (MetaVerb::Get | MetaVerb::Arithmetic | MetaVerb::Debug, _) => Deed::Look,
            };
            (MetaKey::decode(meta, scratch), deed)
        }
        _ => return None,
    })
}
