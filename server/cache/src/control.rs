//! Commands without a key: what a shard answers itself, and what it asks every shard for first.

use corecached_engine::Seconds;
use corecached_protocol::{AdminVerb, Command, binary, line, text};

use super::core::Core;
use super::execute;
use super::message::{Broadcast, GATHER, ReplyTo, Request};
use crate::admin::{self, crawler::Crawl};
use crate::conn::session::{Barrier, Gather, Part, Then};
use crate::conn::{Session, State};
use crate::proxy::{self, stats::Group};

/// `-o verbosity` goes no higher, as in memcached.
const VERBOSITY_MAX: u32 = 2;

/// `refresh_certs` while more of them wait than are kept.
const CERTIFICATES_BUSY: &[u8] = b"SERVER_ERROR certificates are being refreshed\r\n";

impl Core {
    /// Of a proxy: what it answers itself, as mcrouter does.
    fn keyless_of_proxy(&mut self, session: &mut Session, command: &Command<'_>) {
        match *command {
            Command::FlushAll { .. } if !self.shared.config.allow_flush => {
                self.say(session, line::COMMAND_DISABLED);
            }
            Command::FlushAll { delay, noreply } => {
                self.after_all(session, Barrier::FlushDestinations { delay, noreply });
            }
            Command::Stats { words } => match Group::of(words) {
                Some(group) => {
                    let (what, then) = (Broadcast::DescribeRelay, Then::ProxyStats(group));
                    self.after_all(session, Barrier::Ask { what, then });
                }
                None => self.say(session, line::BAD_STATS_COMMAND),
            },
            Command::Shutdown { .. } | Command::CacheMemlimit { .. } | Command::Admin { .. } => {
                self.say(session, line::COMMAND_NOT_SUPPORTED);
            }
            _ => unreachable!("the cache answers the others in the same way"),
        }
    }

    pub(super) fn keyless(&mut self, session: &mut Session, command: &Command<'_>) {
        match *command {
            Command::MetaNoop => self.say(session, line::META_NOOP),
            Command::Version => {
                self.reply(session, |out| text::encode_version(out, crate::MEMCACHED_VERSION))
            }
            Command::Quit => session.state = State::Closing,
            Command::BinaryControl(control) => self.binary_control(session, &control),
            Command::Verbosity { level, noreply } => {
                self.shared.set_verbosity(level.min(VERBOSITY_MAX));
                self.say_unless(session, noreply, line::OK);
            }
            _ if self.relay.is_some() => self.keyless_of_proxy(session, command),
            Command::FlushAll { delay, noreply } => {
                self.counters.cmd_flush += 1;
                if !self.shared.config.allow_flush {
                    return self.say_unless(session, noreply, line::FLUSH_NOT_ALLOWED);
                }
                let at = delay.and_then(|delay| execute::expires(delay, self.now)).unwrap_or(self.now);
                let then = if noreply { Then::Silence } else { Then::Line(line::OK) };
                self.after_all(session, Barrier::Ask { what: Broadcast::Flush { at_s: at.0 }, then });
            }
            Command::CacheMemlimit { megabytes, noreply } => self.memory_limit(session, megabytes, noreply),
            Command::Stats { words } => self.stats(session, words),
            Command::Shutdown { graceful } => {
                if self.shared.config.allow_shutdown {
                    session.state = State::Closing;
                    if graceful {
                        self.shared.keep_contents();
                    }
                    self.shared.stop();
                } else {
                    self.say(session, line::SHUTDOWN_NOT_ENABLED);
                }
            }
            Command::Admin { verb: AdminVerb::RefreshCerts, .. } if self.shared.certificates.is_some() => {
                self.after_all(session, Barrier::RefreshCertificates);
            }
            Command::Admin { verb: AdminVerb::LruCrawler, words } => {
                match admin::crawler::command(words, &self.shared) {
                    Crawl::Answer(line) => self.say(session, line),
                    Crawl::List(list) => self.begin_dump(session, list),
                    Crawl::Nothing(list) => {
                        self.reply(session, |out| {
                            out.extend_from_slice(line::OK);
                            out.extend_from_slice(list.end());
                        });
                    }
                }
            }
            Command::Admin { verb: AdminVerb::DebugTime, words } if self.shared.config.debug_time => {
                let clock = &self.shared.clock;
                let ahead_s = str::from_utf8(words).ok().and_then(|digits| digits.parse::<u32>().ok());
                let answer = match (words, ahead_s) {
                    (b"p", _) => {
                        clock.stop();
                        line::OK
                    }
                    (b"r", _) => {
                        clock.go_on();
                        line::OK
                    }
                    (_, Some(seconds)) => {
                        clock.advance(seconds);
                        line::OK
                    }
                    _ => line::ERROR,
                };
                // Whatever follows is later already, in this turn too; the store's time never goes back.
                self.now = self.now.max(Seconds(clock.now_s()));
                self.say(session, answer);
            }
            Command::Admin { verb: AdminVerb::Watch, words } => self.watch(session, words),
            Command::Admin { verb, words } => {
                self.say(session, admin::tunables::answer(verb, words));
            }
            _ => unreachable!("commands with a key go to their owner"),
        }
    }

    pub(super) fn say(&mut self, session: &mut Session, line: &'static [u8]) {
        self.reply(session, |out| out.extend_from_slice(line));
    }

    fn say_unless(&mut self, session: &mut Session, noreply: bool, line: &'static [u8]) {
        if !noreply {
            self.say(session, line);
        }
    }

    /// Do this when everything before it has been answered; parse nothing until it is done.
    pub(super) fn after_all(&mut self, session: &mut Session, barrier: Barrier) {
        session.state = State::Barrier(Box::new(barrier));
    }

    pub(super) fn pass_barrier(&mut self, session: &mut Session) {
        let State::Barrier(barrier) = std::mem::take(&mut session.state) else {
            unreachable!("the caller looked")
        };
        match *barrier {
            Barrier::Answered => {}
            Barrier::RefreshCertificates => {
                // Files are read on the control thread, which tells us when it has done so.
                let asked = self.shared.certificates.as_ref().is_some_and(|it| it.ask(self.me, session.conn));
                if asked {
                    let gather = Gather { missing: 1, answers: Vec::new(), then: Then::Told };
                    session.state = State::Gather(Box::new(gather));
                } else {
                    self.say(session, CERTIFICATES_BUSY);
                }
            }
            Barrier::FlushDestinations { delay, noreply } => {
                let sequence = session.await_reply(Part::Whole, &mut self.spares);
                let to = ReplyTo { conn: session.conn, sequence };
                if let Some(relay) = &mut self.relay {
                    relay.flush_all(to, self.me, delay, noreply);
                }
                // What follows may go to the same destinations on other shards' connections.
                self.after_all(session, Barrier::Answered);
            }
            Barrier::Stats { words, binary } => {
                let shared = std::sync::Arc::clone(&self.shared);
                self.publish_counters(); // the others published theirs before they answered
                self.reply(session, |out| match binary {
                    None => admin::stats::render(&words, &shared, out),
                    Some(envelope) => admin::stats::render_binary(&words, &shared, envelope, out),
                });
            }
            Barrier::Ask { what, then } => {
                let mut gather = Gather { missing: 0, answers: vec![self.obey(what, Some(session))], then };
                let to = ReplyTo { conn: session.conn, sequence: GATHER };
                for shard in (0..self.mesh.shards()).filter(|&shard| shard != self.me) {
                    // A few bytes past the bound, once per connection at most: nothing to wait for.
                    self.mesh.requests(shard).push_request(to, &Request::Broadcast(what));
                    gather.missing += 1;
                }
                session.state = State::Gather(Box::new(gather));
                self.finish_gather(session);
            }
        }
    }

    /// Another shard's part of a broadcast.
    pub(super) fn gathered(&mut self, session: &mut Session, answer: Vec<u8>) {
        match &mut session.state {
            State::Gather(gather) => {
                gather.missing -= 1;
                gather.answers.push(answer);
                self.finish_gather(session);
            }
            State::Dump(_) => self.dumped(session, &answer),
            _ => {}
        }
    }

    fn finish_gather(&mut self, session: &mut Session) {
        if !matches!(&session.state, State::Gather(gather) if gather.missing == 0) {
            return;
        }
        let State::Gather(gather) = std::mem::take(&mut session.state) else { unreachable!("just looked") };
        match gather.then {
            Then::Silence => {}
            Then::Told => self.reply(session, |out| {
                gather.answers.iter().for_each(|answer| out.extend_from_slice(answer));
            }),
            Then::Line(line) => self.say(session, line),
            Then::BinaryDone(envelope) => self.reply(session, |out| binary::encode_done(out, envelope, 0)),
            Then::BinaryPrefixes(envelope) => {
                self.reply(session, |out| {
                    let mut list = Vec::new();
                    admin::prefixes::render(&gather.answers, &mut list);
                    binary::encode_stat(out, envelope, b"detailed", &list);
                    binary::encode_stat(out, envelope, b"", b"");
                });
            }
            Then::Items(limit) => {
                self.reply(session, |out| admin::cachedump::render(&gather.answers, limit, out));
            }
            Then::Conns => {
                let shared = std::sync::Arc::clone(&self.shared);
                self.reply(session, |out| admin::conns::render(&gather.answers, &shared.listens, out));
            }
            Then::ProxyStats(group) => {
                let shared = std::sync::Arc::clone(&self.shared);
                self.reply(session, |out| proxy::stats::render(&gather.answers, group, &shared, out));
            }
            Then::Prefixes => self.reply(session, |out| admin::prefixes::render(&gather.answers, out)),
        }
        self.list(session);
    }

    fn memory_limit(&mut self, session: &mut Session, megabytes: u64, noreply: bool) {
        let bytes = usize::try_from(megabytes).ok().and_then(|megabytes| megabytes.checked_mul(1 << 20));
        let slice = bytes.map(|bytes| bytes / self.mesh.shards());
        match slice {
            _ if megabytes < 8 => self.say_unless(session, noreply, line::MEMLIMIT_TOO_SMALL),
            Some(slice) if self.shared.config.slice_limit_fits(slice) => {
                self.shared.set_memory_bytes(slice * self.mesh.shards());
                let then = if noreply { Then::Silence } else { Then::Line(line::OK) };
                let bytes = self.shared.slice_bytes.load(std::sync::atomic::Ordering::Relaxed);
                self.after_all(session, Barrier::Ask { what: Broadcast::MemoryLimit { bytes }, then });
            }
            _ => self.say_unless(session, noreply, admin::tunables::MEMLIMIT_ADJUST_FAILED),
        }
    }

    fn stats(&mut self, session: &mut Session, words: &[u8]) {
        let ask = |what, then| Barrier::Ask { what, then };
        let barrier = match admin::stats::topic(words) {
            admin::stats::Topic::Reset => {
                self.shared.admission.reset_counts();
                self.shared.certificates.iter().for_each(|it| it.counts.reset());
                ask(Broadcast::ResetCounters, Then::Line(line::RESET))
            }
            admin::stats::Topic::CacheDump { limit } if self.shared.config.allow_dump => {
                ask(Broadcast::DescribeItems { limit }, Then::Items(limit))
            }
            admin::stats::Topic::CacheDump { .. } => {
                return self.say(session, line::STATS_CACHEDUMP_NOT_ALLOWED);
            }
            admin::stats::Topic::Conns => ask(Broadcast::DescribeConns, Then::Conns),
            admin::stats::Topic::DetailOn => ask(Broadcast::CountPrefixes { on: true }, Then::Line(line::OK)),
            admin::stats::Topic::DetailOff => {
                ask(Broadcast::CountPrefixes { on: false }, Then::Line(line::OK))
            }
            admin::stats::Topic::DetailDump => ask(Broadcast::DescribePrefixes, Then::Prefixes),
            admin::stats::Topic::Rendered => Barrier::Stats { words: words.to_vec(), binary: None },
        };
        self.after_all(session, barrier);
    }
}
