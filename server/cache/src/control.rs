//! Commands without a key. A shard answers some of them itself; for the others it first asks every shard.

use corecached_engine::Seconds;
use corecached_protocol::{AdminVerb, Command, binary, line, text};

use corecached_shard::session::Gather;
use corecached_shard::{MEMCACHED_VERSION, Service, State};

use crate::cache::{Cache, CacheCore, CacheSession};
use crate::commands::crawler::{self, CrawlerAction};
use crate::commands::stats::{self, StatsTopic};
use crate::commands::{cachedump, conns, prefixes, tunables};
use crate::execute;
use crate::task::{CacheBarrier, CacheBroadcast, CacheThen};

/// The highest level that the command `verbosity` sets, as in memcached.
const VERBOSITY_MAX: u32 = 2;

/// The reply to `refresh_certs` while too many of them wait already.
const CERTIFICATES_BUSY: &[u8] = b"SERVER_ERROR certificates are being refreshed\r\n";

impl Cache {
    /// Carries out a command without a key.
    pub(crate) fn keyless(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        command: &Command<'_>,
    ) {
        match *command {
            Command::MetaNoop => core.say(session, line::META_NOOP),
            Command::Version => core.reply(session, |out| text::encode_version(out, MEMCACHED_VERSION)),
            Command::Quit => session.state = State::Closing,
            Command::BinaryControl(control) => self.binary_control(core, session, &control),
            Command::Verbosity { level, noreply } => {
                self.context.set_verbosity(level.min(VERBOSITY_MAX));
                core.say_unless(session, noreply, line::OK);
            }
            Command::FlushAll { delay, noreply } => {
                core.counters.commands.cmd_flush += 1;
                if !self.context.config.allow_flush {
                    return core.say_unless(session, noreply, line::FLUSH_NOT_ALLOWED);
                }
                let at = delay.and_then(|delay| execute::expires_at(delay, core.now)).unwrap_or(core.now);
                let then = if noreply { CacheThen::Silence } else { CacheThen::Line(line::OK) };
                core.wait_for_replies(
                    session,
                    CacheBarrier::Broadcast { what: CacheBroadcast::Flush { at_s: at.0 }, then },
                );
            }
            Command::CacheMemlimit { megabytes, noreply } => {
                self.memory_limit(core, session, megabytes, noreply)
            }
            Command::Stats { words } => self.stats(core, session, words),
            Command::Shutdown { graceful } => {
                if self.context.config.allow_shutdown {
                    session.state = State::Closing;
                    if graceful {
                        self.context.keep_contents();
                    }
                    core.context.lifecycle.stop();
                } else {
                    core.say(session, line::SHUTDOWN_NOT_ENABLED);
                }
            }
            Command::Admin { verb: AdminVerb::RefreshCerts, .. } if self.context.certificates.is_some() => {
                core.wait_for_replies(session, CacheBarrier::RefreshCertificates);
            }
            Command::Admin { verb: AdminVerb::LruCrawler, words } => {
                match crawler::command(words, &self.context.crawler, self.context.config.allow_dump) {
                    CrawlerAction::Answer(line) => core.say(session, line),
                    CrawlerAction::List(list) => self.begin_dump(core, session, list),
                    CrawlerAction::EmptyList(list) => {
                        core.reply(session, |out| {
                            out.extend_from_slice(line::OK);
                            out.extend_from_slice(list.end());
                        });
                    }
                }
            }
            Command::Admin { verb: AdminVerb::DebugTime, words } if self.context.config.debug_time => {
                let clock = &core.context.clock;
                let ahead_s = str::from_utf8(words).ok().and_then(|digits| digits.parse::<u32>().ok());
                let answer = match (words, ahead_s) {
                    (b"p", _) => {
                        clock.stop();
                        line::OK
                    }
                    (b"r", _) => {
                        clock.resume();
                        line::OK
                    }
                    (_, Some(seconds)) => {
                        clock.advance(seconds);
                        line::OK
                    }
                    _ => line::ERROR,
                };
                // The new time holds at once, for the rest of this turn too. The time of the store never goes
                // back.
                core.now = core.now.max(Seconds(clock.now_s()));
                core.say(session, answer);
            }
            Command::Admin { verb: AdminVerb::Watch, words } => self.watch(core, session, words),
            Command::Admin { verb, words } => {
                let answer = tunables::answer(verb, words);
                core.say_unless(session, answer.is_empty(), answer);
            }
            _ => unreachable!("commands with a key go to their owner"),
        }
    }

    /// Does what waited for a barrier: all earlier replies have been sent.
    pub(crate) fn handle_barrier(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        barrier: CacheBarrier,
    ) {
        match barrier {
            CacheBarrier::RefreshCertificates => {
                // Another thread reads the files, and tells this shard when it has done so.
                let certificates = self.context.certificates.as_ref();
                if certificates.is_some_and(|certificates| certificates.request_reload(core.me, session.conn))
                {
                    let gather = Gather { missing: 1, answers: Vec::new(), then: CacheThen::Relay };
                    session.state = State::Gather(Box::new(gather));
                } else {
                    core.say(session, CERTIFICATES_BUSY);
                }
            }
            CacheBarrier::Stats { words, binary } => {
                self.publish(core); // the others published theirs before they answered
                core.publish_counters();
                let (cache, server) = (&*self.context, core.context.clone());
                core.reply(session, |out| match binary {
                    None => stats::render(&words, cache, &server, out),
                    Some(envelope) => stats::render_binary(&words, cache, &server, envelope, out),
                });
            }
            CacheBarrier::Broadcast { what, then } => {
                let own = self.obey(core, what, Some(session));
                core.broadcast(session, what, own, then);
            }
        }
    }

    /// Replies to a command whose broadcast all shards have answered.
    pub(crate) fn answer_gathered(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        gather: Gather<Self>,
    ) {
        let Gather { answers, then, .. } = gather;
        match then {
            CacheThen::Silence => {}
            CacheThen::Relay => core.reply(session, |out| {
                answers.iter().for_each(|answer| out.extend_from_slice(answer));
            }),
            CacheThen::Line(line) => core.say(session, line),
            CacheThen::BinaryDone(envelope) => {
                core.reply(session, |out| binary::encode_done(out, envelope, 0))
            }
            CacheThen::BinaryPrefixes(envelope) => {
                core.reply(session, |out| {
                    let mut list = Vec::new();
                    prefixes::render(&answers, &mut list);
                    binary::encode_stat(out, envelope, b"detailed", &list);
                    binary::encode_stat(out, envelope, b"", b"");
                });
            }
            CacheThen::Items(limit) => core.reply(session, |out| cachedump::render(&answers, limit, out)),
            CacheThen::Conns => {
                let network = std::sync::Arc::clone(&core.context.network);
                let datagrams = &self.context.config.shown.udp_addresses;
                core.reply(session, |out| conns::render(&answers, &network.addresses, datagrams, out));
            }
            CacheThen::Prefixes => core.reply(session, |out| prefixes::render(&answers, out)),
        }
    }

    /// Carries out `cache_memlimit`.
    fn memory_limit(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        megabytes: u64,
        noreply: bool,
    ) {
        let bytes = usize::try_from(megabytes).ok().and_then(|megabytes| megabytes.checked_mul(1 << 20));
        let slice = bytes.map(|bytes| bytes / core.mesh.shards());
        match slice {
            _ if megabytes < 8 => core.say_unless(session, noreply, line::MEMLIMIT_TOO_SMALL),
            Some(slice)
                if self.context.config.slice_limit_fits(slice) && slice <= self.store.memory_bytes_max() =>
            {
                tracing::warn!(
                    "cache_memlimit: the memory limit is {megabytes} MB now, until the next start"
                );
                self.context.memory.set_limit_bytes(slice * core.mesh.shards());
                let then = if noreply { CacheThen::Silence } else { CacheThen::Line(line::OK) };
                let bytes = self.context.memory.slice_bytes();
                core.wait_for_replies(
                    session,
                    CacheBarrier::Broadcast { what: CacheBroadcast::MemoryLimit { bytes }, then },
                );
            }
            _ => core.say_unless(session, noreply, tunables::MEMLIMIT_ADJUST_FAILED),
        }
    }

    /// Carries out `stats WORDS`.
    fn stats(&mut self, core: &mut CacheCore, session: &mut CacheSession, words: &[u8]) {
        let broadcast = |what, then| CacheBarrier::Broadcast { what, then };
        let barrier = match StatsTopic::parse(words) {
            StatsTopic::Reset => {
                core.context.network.admission.reset_counts();
                self.context.certificates.iter().for_each(|certificates| certificates.counters.reset());
                broadcast(CacheBroadcast::ResetCounters, CacheThen::Line(line::RESET))
            }
            StatsTopic::CacheDump { limit } if self.context.config.allow_dump => {
                broadcast(CacheBroadcast::ListSomeItems { limit }, CacheThen::Items(limit))
            }
            StatsTopic::CacheDump { .. } => {
                return core.say(session, line::STATS_CACHEDUMP_NOT_ALLOWED);
            }
            StatsTopic::NoSuchClass => return core.say(session, line::ILLEGAL_SLAB_CLASS),
            StatsTopic::Conns => broadcast(CacheBroadcast::ListConns, CacheThen::Conns),
            StatsTopic::DetailOn => {
                broadcast(CacheBroadcast::CountPrefixes { on: true }, CacheThen::Line(line::OK))
            }
            StatsTopic::DetailOff => {
                broadcast(CacheBroadcast::CountPrefixes { on: false }, CacheThen::Line(line::OK))
            }
            StatsTopic::DetailDump => broadcast(CacheBroadcast::ListPrefixes, CacheThen::Prefixes),
            StatsTopic::Rendered => CacheBarrier::Stats { words: words.to_vec(), binary: None },
        };
        core.wait_for_replies(session, barrier);
    }
}
