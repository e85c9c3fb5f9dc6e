//! Writes the events of a shard to its journal, and sends watchers their lines. See
//! [`crate::commands::watch`].

use std::io::Write;

use corecached_engine::{KEY_BYTES_MAX, Key, Seconds, Store};
use corecached_protocol::{Binary, BinaryVerb, Command, MetaKey, MetaMode, MetaVerb, StoreVerb, line};

use corecached_net::ConnId;
use corecached_shard::State;
use corecached_shard::counters::Counters;
use corecached_shard::session::PeerAddress;

use crate::cache::{Cache, CacheCore, CacheSession};
use crate::commands::crawler::put_uri_encoded;
use crate::commands::watch::class;
use crate::commands::{conns, watch};
use crate::execute;
use crate::task::{CacheTask, Client};

/// What has to be known from before a command to describe its effect.
pub(crate) struct StateBefore {
    counters: Counters,
    total_items: u64,
    /// Length in bytes of the value that the key had. `None` when it had none.
    value_len: Option<usize>,
    /// The number of the client's connection.
    conn: usize,
}

/// What a command does to its key, as watchers see it. The text is the name of the command.
enum WatchedEffect {
    /// A lookup, or a change that watchers are not told.
    Lookup,
    Store(&'static str),
    Delete(&'static str),
    /// Creates the item if there is none.
    Create,
}

impl Cache {
    /// Carries out `watch CLASSES`.
    pub(crate) fn watch(&mut self, core: &mut CacheCore, session: &mut CacheSession, words: &[u8]) {
        let answer = match watch::parse_classes(words) {
            _ if !self.context.config.allow_watch => line::WATCH_NOT_ALLOWED,
            None => line::ERROR,
            Some(classes) if self.context.watchers.add(core.me, session.conn, classes) => {
                session.state = State::Task(CacheTask::Watch);
                self.watching.push(session.conn);
                line::OK
            }
            Some(_) => line::TOO_MANY_WATCHERS,
        };
        core.say(session, answer);
    }

    /// Connection `conn` watches no more.
    pub(crate) fn end_watch(&mut self, core: &CacheCore, conn: ConnId) {
        self.context.watchers.remove(core.me, conn);
        self.watching.retain(|&watching| watching != conn);
    }

    /// At the end of a turn, gives the events of this shard to the watchers.
    pub(crate) fn publish_events(&mut self, core: &CacheCore) {
        let keeps = self.watched_classes & class::EVICTIONS != 0;
        self.store.keep_journal(keeps);
        if keeps {
            let now = core.now;
            let Self { store, journal, context, .. } = self;
            let dropped = store.take_journal(|evicted| {
                journal.add_line(class::EVICTIONS, &context.watchers, |out| {
                    out.extend_from_slice(b"type=eviction key=");
                    put_uri_encoded(out, evicted.key);
                    let fetch = if evicted.fetched { "yes" } else { "no" };
                    let ttl = evicted.expires.map_or(-1, |at| i64::from(at.0) - i64::from(now.0));
                    let idle_s = now.0.saturating_sub(evicted.last_access.0);
                    let size = evicted.value_len;
                    let _ = write!(out, " fetch={fetch} ttl={ttl} la={idle_s} clsid=1 size={size}");
                });
            });
            journal.count_dropped(dropped);
        }
        if !self.journal.is_empty() {
            let Self { journal, context, .. } = self;
            context.watchers.publish(journal, |shard| {
                if shard != core.me {
                    core.context.lifecycle.presence()[shard].wake();
                }
            });
        }
    }

    /// At the end of a turn, sends the watchers of this shard the lines that wait for them. A watcher that
    /// has not taken its earlier lines gets none.
    pub(crate) fn serve_watchers(&mut self, core: &mut CacheCore) {
        for at in 0..self.watching.len() {
            let conn = self.watching[at];
            let Some(mut session) = core.take(conn) else { continue };
            if !session.lags {
                let me = core.me;
                core.reply(&mut session, |out| self.context.watchers.take(me, conn, out));
            }
            core.put(session);
        }
    }

    /// Called before a command on the slice of `owner` while somebody watches. Writes the event of its
    /// lookup.
    pub(crate) fn observe_before(
        &mut self,
        core: &CacheCore,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        client: Client,
    ) -> StateBefore {
        let mut scratch = [0; _];
        let Some((key, _)) = effect_of(command, &mut scratch) else {
            unreachable!("a command without a key has no owner")
        };
        let value_len = self.stored_value(core, owner, key, hash).map(|(len, _)| len);
        let conn = conns::conn_number(client.0, client.1);
        if self.watched_classes & class::FETCHERS != 0 {
            let Self { journal, context, .. } = self;
            journal.add_line(class::FETCHERS, &context.watchers, |out| {
                out.extend_from_slice(b"type=item_get key=");
                put_uri_encoded(out, key);
                let status = if value_len.is_some() { "found" } else { "not_found" };
                let class = u32::from(value_len.is_some());
                let size = value_len.unwrap_or(0);
                let _ = write!(out, " status={status} clsid={class} cfd={conn} size={size}");
            });
        }
        StateBefore { counters: core.counters, total_items: self.total_items(core, owner), value_len, conn }
    }

    /// Called after a command on the slice of `owner` while somebody watches. Writes the event of its effect.
    /// The value that it carried had `data_len` bytes.
    pub(crate) fn observe_after(
        &mut self,
        core: &CacheCore,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data_len: usize,
        before: &StateBefore,
    ) {
        let mut scratch = [0; _];
        let Some((key, effect)) = effect_of(command, &mut scratch) else { return };
        let conn = before.conn;
        let effect = match effect {
            WatchedEffect::Create
                if self.total_items(core, owner) > before.total_items && before.value_len.is_none() =>
            {
                WatchedEffect::Store("add")
            }
            effect => effect,
        };
        match effect {
            WatchedEffect::Store(verb) if self.watched_classes & class::MUTATIONS != 0 => {
                let counted = |count: fn(&Counters) -> u64| count(&core.counters) > count(&before.counters);
                let status = match () {
                    () if self.total_items(core, owner) > before.total_items => "stored",
                    () if counted(|counters| counters.commands.cas_badval) => "exists",
                    () if counted(|counters| counters.commands.cas_misses) => "not_found",
                    () if counted(|counters| counters.store_no_memory) => "no_memory",
                    () => "not_stored",
                };
                let found = (status == "stored").then(|| self.stored_value(core, owner, key, hash)).flatten();
                let (size, ttl) = found.unwrap_or_else(|| (data_len, requested_ttl_s(command, core.now)));
                let Self { journal, context, .. } = self;
                journal.add_line(class::MUTATIONS, &context.watchers, |out| {
                    out.extend_from_slice(b"type=item_store key=");
                    put_uri_encoded(out, key);
                    let _ =
                        write!(out, " status={status} cmd={verb} ttl={ttl} clsid=1 cfd={conn} size={size}");
                });
            }
            WatchedEffect::Delete(verb)
                if self.watched_classes & class::DELETIONS != 0
                    && core.counters.commands.delete_hits > before.counters.commands.delete_hits =>
            {
                let Self { journal, context, .. } = self;
                journal.add_line(class::DELETIONS, &context.watchers, |out| {
                    out.extend_from_slice(b"type=deleted key=");
                    put_uri_encoded(out, key);
                    let size = before.value_len.unwrap_or(0);
                    let _ = write!(out, " cmd={verb} clsid=1 cfd={conn} size={size}");
                });
            }
            _ => {}
        }
    }

    /// Writes the event of a value that was too large to be stored.
    pub(crate) fn observe_too_large(&mut self, core: &CacheCore, key: &[u8], conn: ConnId) {
        if self.watched_classes & class::MUTATIONS != 0 {
            let conn = conns::conn_number(core.me, conn);
            let Self { journal, context, .. } = self;
            journal.add_line(class::MUTATIONS, &context.watchers, |out| {
                out.extend_from_slice(b"type=item_store key=");
                put_uri_encoded(out, key);
                let _ = write!(out, " status=too_large cmd=set ttl=0 clsid=1 cfd={conn} size=0");
            });
        }
    }

    /// Length in bytes of the value that is stored under the key, and its TTL in seconds. 0 is for ever.
    fn stored_value(&self, core: &CacheCore, owner: usize, key: &[u8], hash: u64) -> Option<(usize, u32)> {
        let item = self.store_of(core, owner).peek(Key { bytes: key, hash }, core.now)?;
        Some((item.value.len(), item.expires.map_or(0, |at| at.0.saturating_sub(core.now.0))))
    }

    /// Writes the event of a new connection, or of one that was closed for `reason`.
    pub(crate) fn observe_connection(
        &mut self,
        core: &CacheCore,
        peer: &PeerAddress,
        conn: ConnId,
        reason: Option<&str>,
    ) {
        if self.watched_classes & class::CONNEVENTS == 0 {
            return;
        }
        let cfd = conns::conn_number(core.me, conn);
        let Self { journal, context, .. } = self;
        journal.add_line(class::CONNEVENTS, &context.watchers, |out| {
            let kind = if reason.is_some() { "conn_close" } else { "conn_new" };
            let _ = match peer {
                PeerAddress::Unix => write!(out, "type={kind} rip=unix rport=0 transport=local"),
                PeerAddress::V4(at) => {
                    write!(out, "type={kind} rip={} rport={} transport=tcp", at.ip(), at.port())
                }
                PeerAddress::V6(at) => {
                    write!(out, "type={kind} rip={} rport={} transport=tcp", at.ip(), at.port())
                }
            };
            if let Some(reason) = reason {
                let _ = write!(out, " reason={reason}");
            }
            let _ = write!(out, " cfd={cfd}");
        });
    }

    /// The slice of `owner`, which is this shard's or borrowed.
    fn store_of(&self, core: &CacheCore, owner: usize) -> &Store {
        if owner == core.me { &self.store } else { &self.others[owner] }
    }

    /// Items ever stored in the slice of `owner`.
    fn total_items(&self, core: &CacheCore, owner: usize) -> u64 {
        self.store_of(core, owner).stats().total_items
    }
}

/// The TTL in seconds that a storage command gives its item. 0 is for ever.
fn requested_ttl_s(command: &Command<'_>, now: Seconds) -> u32 {
    let exptime = match command {
        Command::Store(store) => store.exptime,
        Command::Binary(binary) => binary.exptime(),
        Command::Meta(meta) if meta.flags.has(b'T') => meta.flags.exptime,
        _ => return 0,
    };
    execute::expires_at(exptime, now).map_or(0, |at| at.0.saturating_sub(now.0))
}

/// The key of a command, and what the command does to it. `None` for a command without a key.
fn effect_of<'k>(
    command: &Command<'k>,
    scratch: &'k mut [u8; KEY_BYTES_MAX],
) -> Option<(&'k [u8], WatchedEffect)> {
    Some(match *command {
        Command::Retrieve(retrieve) => (retrieve.key, WatchedEffect::Lookup),
        Command::Touch(touch) => (touch.key, WatchedEffect::Lookup),
        Command::Arithmetic(arithmetic) => (arithmetic.key, WatchedEffect::Lookup),
        Command::Delete(delete) => (delete.key, WatchedEffect::Delete("delete")),
        Command::Store(store) => (
            store.key,
            WatchedEffect::Store(match store.verb {
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
                BinaryVerb::Set => WatchedEffect::Store("set"),
                BinaryVerb::Add => WatchedEffect::Store("add"),
                BinaryVerb::Replace => WatchedEffect::Store("replace"),
                BinaryVerb::Append => WatchedEffect::Store("append"),
                BinaryVerb::Prepend => WatchedEffect::Store("prepend"),
                BinaryVerb::Delete => WatchedEffect::Delete("delete"),
                _ => WatchedEffect::Lookup,
            },
        ),
        Command::Meta(ref meta) => {
            let effect = match (meta.verb, meta.flags.mode) {
                (MetaVerb::Set, MetaMode::Set) if meta.flags.has(b'C') => WatchedEffect::Store("cas"),
                (MetaVerb::Set, MetaMode::Add) => WatchedEffect::Store("add"),
                (MetaVerb::Set, MetaMode::Append) => WatchedEffect::Store("append"),
                (MetaVerb::Set, MetaMode::Prepend) => WatchedEffect::Store("prepend"),
                (MetaVerb::Set, MetaMode::Replace) => WatchedEffect::Store("replace"),
                (MetaVerb::Set, _) => WatchedEffect::Store("set"),
                // The item stays, stale.
                (MetaVerb::Delete, _) if meta.flags.has(b'I') => WatchedEffect::Lookup,
                (MetaVerb::Delete, _) => WatchedEffect::Delete("md"),
                (MetaVerb::Arithmetic, _) if meta.flags.has(b'N') => WatchedEffect::Create,
                (MetaVerb::Get | MetaVerb::Arithmetic | MetaVerb::Debug, _) => WatchedEffect::Lookup,
            };
            (MetaKey::decode(meta, scratch), effect)
        }
        _ => return None,
    })
}
