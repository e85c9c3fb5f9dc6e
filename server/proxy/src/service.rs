//! The service of a proxy: every request on a key goes to the shard that owns the key, whose [`Relay`] sends
//! it on.

use std::sync::Arc;

use corecached_net::Event;
use corecached_net::tls::SecureDriver;
use corecached_protocol::binary::{self, Envelope, Status};
use corecached_protocol::{
    BadDataChunk, BinaryControl, BinaryControlVerb, Command, CommandHead, Exptime, ParseError, Parsed,
    Rejected, Reply, data_block, line, text,
};
use corecached_shard::batch::Ready;
use corecached_shard::config::ItemLimit;
use corecached_shard::mesh::message::{ReplyTo, Request};
use corecached_shard::reply_queue::Part;
use corecached_shard::session::Gather;
use corecached_shard::types::NoTask;
use corecached_shard::{Core, MEMCACHED_VERSION, Service, ServiceTypes, Session, State, Step, owner_of};

use crate::relay::{Relay, RelaySetup};
use crate::reply_format::ReplyFormat;
use crate::route;
use crate::service_info::{self, PREFIX};
use crate::stats::{self, ShardReport, StatsGroup, Totals};
use crate::view::ProxyView;

/// The options of a proxy that concern its clients.
#[derive(Clone, Copy, Debug)]
pub struct FrontOptions {
    /// Whether clients may send `flush_all` (`--enable-flush-cmd`).
    pub allow_flush: bool,
    /// The largest item that a client may store.
    pub item_limit: ItemLimit,
}

/// One shard of a proxy.
pub struct Proxy {
    relay: Relay,
    options: FrontOptions,
    view: Arc<ProxyView>,
    /// The last round of reports that this shard took part in.
    reported: u64,
}

impl Proxy {
    /// A shard that forwards as `setup` says.
    #[must_use]
    pub fn new(setup: RelaySetup, options: FrontOptions, view: Arc<ProxyView>) -> Self {
        Self { relay: Relay::new(setup), options, view, reported: 0 }
    }

    /// The relay of this shard.
    #[must_use]
    pub const fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Carries out a command without a key, which the proxy answers itself, as mcrouter does.
    fn keyless(&self, core: &mut Core<Self>, session: &mut Session<Self>, command: &Command<'_>) {
        match *command {
            Command::MetaNoop => core.say(session, line::META_NOOP),
            Command::Version => {
                core.reply(session, |out| text::encode_version(out, MEMCACHED_VERSION));
            }
            Command::Quit => session.state = State::Closing,
            Command::Verbosity { noreply, .. } => core.say_unless(session, noreply, line::OK),
            Command::FlushAll { noreply, .. } if !self.options.allow_flush => {
                core.say_unless(session, noreply, line::COMMAND_DISABLED);
            }
            Command::FlushAll { delay, .. } => {
                let how = ReplyFormat::for_command(command);
                core.wait_for_replies(
                    session,
                    ProxyBarrier::FlushDestinations { delay, how: FlushAnswer(how) },
                );
            }
            Command::BinaryControl(control) => self.binary_control(core, session, &control),
            Command::Stats { words } => match StatsGroup::parse(words) {
                Some(group) => {
                    let then = StatsThen { group, binary: None };
                    core.wait_for_replies(session, ProxyBarrier::Stats(then));
                }
                // Agents ask a memcached for these. A proxy has nothing to list there.
                None if MEMCACHED_STATS.contains(&words) => core.say(session, line::END),
                None => core.say(session, line::BAD_STATS_COMMAND),
            },
            _ => core.say(session, line::COMMAND_NOT_SUPPORTED),
        }
    }

    /// Answers a retrieval that asks the proxy itself.
    fn admin(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, command: &Command<'_>) {
        let part = match command {
            Command::Retrieve(retrieve) if !retrieve.last => Part::Key,
            Command::Retrieve(_) => Part::LastKey,
            _ => Part::Whole,
        };
        let key = command.key().unwrap_or_default();
        let value = service_info::answer(
            key,
            self.relay.tree(),
            self.view.config_info(),
            core.context.clock.now_s().into(),
        );
        let reply = match command {
            // A meta get shows what it asks for, and a proxy has no more than the value.
            Command::Meta(_) => Reply::Meta {
                line: format!("VA {}", value.len()).into(),
                value: Some(value.into_bytes().into()),
            },
            Command::Retrieve(retrieve) => Reply::Value {
                client_flags: 0,
                cas_unique: retrieve.with_cas.then_some(0),
                value: value.into_bytes().into(),
            },
            _ => Reply::Value { client_flags: 0, cas_unique: Some(0), value: value.into_bytes().into() },
        };
        let to = core.reserve(session, part);
        self.relay.answer(core.me, to, command, reply);
    }

    /// Carries out a request of the binary protocol without a key.
    fn binary_control(
        &self,
        core: &mut Core<Self>,
        session: &mut Session<Self>,
        control: &BinaryControl<'_>,
    ) {
        let BinaryControl { verb, quiet, envelope } = *control;
        let mut refuse = |session: &mut Session<Self>, status| {
            core.reply(session, |out| binary::encode_status(out, envelope, status));
        };
        match verb {
            // The proxy asks for no password.
            BinaryControlVerb::SaslList | BinaryControlVerb::SaslStep { .. } => {
                refuse(session, Status::UnknownCommand);
            }
            BinaryControlVerb::Flush { .. } if !self.options.allow_flush => {
                refuse(session, Status::AuthError)
            }
            BinaryControlVerb::Refused { status, swallow, close } => {
                refuse(session, status);
                if close {
                    session.malformed = true;
                    session.state = State::Closing;
                } else if swallow > 0 {
                    session.state = State::Swallow(u64::from(swallow));
                }
            }
            BinaryControlVerb::Noop => core.reply(session, |out| binary::encode_done(out, envelope, 0)),
            BinaryControlVerb::Version => core.reply(session, |out| {
                binary::encode_value(out, envelope, Status::Ok, MEMCACHED_VERSION.as_bytes());
            }),
            BinaryControlVerb::Quit => {
                if !quiet {
                    core.reply(session, |out| binary::encode_done(out, envelope, 0));
                }
                session.state = State::Closing;
            }
            BinaryControlVerb::Flush { expires } => {
                let delay = (expires > 0).then_some(Exptime(expires.into()));
                let how = FlushAnswer(ReplyFormat::for_binary_flush(quiet, envelope));
                core.wait_for_replies(session, ProxyBarrier::FlushDestinations { delay, how });
            }
            BinaryControlVerb::Stat { words } => match StatsGroup::parse(words) {
                Some(group) => {
                    let then = StatsThen { group, binary: Some(envelope) };
                    core.wait_for_replies(session, ProxyBarrier::Stats(then));
                }
                None if MEMCACHED_STATS.contains(&words) => {
                    core.reply(session, |out| binary::encode_stat(out, envelope, b"", b""));
                }
                None => core.reply(session, |out| binary::encode_status(out, envelope, Status::NotFound)),
            },
        }
    }

    /// Handles a value that is too large, that has not come whole, or that does not end with CRLF. `after` is
    /// the input after the line of `command`.
    fn value(
        &self,
        core: &mut Core<Self>,
        session: &mut Session<Self>,
        command: &Command<'_>,
        value_len: u32,
        after: &[u8],
    ) -> Step {
        /// Bytes of the CRLF after a value.
        const CRLF_BYTES: u64 = 2;
        let (key_len, client_flags) = match command {
            Command::Binary(request)
                if value_len as usize > self.value_bytes_max(request.key.len(), request.client_flags) =>
            {
                core.counters.commands.cmd_set += 1;
                core.counters.store_too_large += 1;
                core.reply(session, |out| binary::encode_status(out, request.envelope, Status::TooLarge));
                session.state = State::Swallow(value_len.into());
                return Step::Took(0);
            }
            Command::Binary(_) => return Step::NeedMore,
            Command::Store(store) => (store.key.len(), store.client_flags),
            Command::Meta(meta) => (meta.key.len(), meta.flags.client_flags),
            _ => unreachable!("no value follows other commands of the text protocol"),
        };
        if value_len as usize > self.value_bytes_max(key_len, client_flags) {
            core.counters.commands.cmd_set += 1;
            core.counters.store_too_large += 1;
            core.say_unless(session, command.noreply(), line::TOO_LARGE);
            session.state = State::Swallow(u64::from(value_len) + CRLF_BYTES);
            return Step::Took(0);
        }
        match data_block(after, value_len) {
            Parsed::Complete { value: Ok(_), .. } => {
                unreachable!("a command that has come whole was carried out")
            }
            Parsed::Complete { value: Err(BadDataChunk), consumed } => {
                core.say(session, line::MALFORMED_REQUEST);
                session.state = State::Closing;
                Step::Took(consumed)
            }
            // The value is sent on when it is all there.
            Parsed::NeedMore => Step::NeedMore,
        }
    }
}

/// The groups of statistics that only a memcached has.
const MEMCACHED_STATS: [&[u8]; 5] = [b"items", b"slabs", b"sizes", b"settings", b"conns"];

/// Whether what follows a line that was refused for `error` may belong to the same request.
const fn leaves_its_end_open(error: ParseError) -> bool {
    matches!(
        error,
        ParseError::UnknownCommand
            | ParseError::LineTooShort
            | ParseError::MissingArgument
            | ParseError::BadValueLen
            | ParseError::LineTooLong
            | ParseError::Http
    )
}

/// What a session does once all of its earlier replies have been sent.
#[derive(Clone, Copy, Debug)]
pub enum ProxyBarrier {
    /// `stats`: asks every shard for its report.
    Stats(StatsThen),
    /// `flush_all`: sends it to every destination. The session waits until all of them have answered.
    FlushDestinations {
        /// Seconds from now, or unix time.
        delay: Option<Exptime>,
        /// How it is answered.
        how: FlushAnswer,
    },
    /// Nothing more: it was enough that all earlier replies have been sent.
    Answered,
}

/// The format of the answer to a `flush_all`.
#[derive(Clone, Copy, Debug)]
pub struct FlushAnswer(ReplyFormat);

/// What is answered once every shard has reported.
#[derive(Clone, Copy, Debug)]
pub struct StatsThen {
    group: StatsGroup,
    /// The request that is answered, if it is one of the binary protocol.
    binary: Option<Envelope>,
}

/// What one shard asks of all others.
#[derive(Clone, Copy, Debug)]
pub enum ProxyBroadcast {
    /// Their reports.
    Report,
}

impl ServiceTypes for Proxy {
    type Task = NoTask;
    type Barrier = ProxyBarrier;
    type Then = StatsThen;
    /// A command on a key.
    type Ask = CommandHead;
    type Broadcast = ProxyBroadcast;
    type Answer = Box<ShardReport>;

    fn answer_bytes(answer: &Box<ShardReport>) -> usize {
        answer.len_bytes()
    }
}

impl Service for Proxy {
    fn deadline_ms(&self) -> Option<u64> {
        Some(self.relay.next_deadline_ms())
    }

    fn begin_turn(&mut self, core: &mut Core<Self>, _: bool) {
        let now_ms = core.context.clock.now_ms();
        self.relay.begin_turn(now_ms, core);
        let Self { relay, view, reported, .. } = self;
        let round = view.reports.round();
        if round != *reported && view.reports.store(core.me, round, || ShardReport::new(relay)) {
            *reported = round;
        }
    }

    fn event(
        &mut self,
        core: &mut Core<Self>,
        driver: &mut impl SecureDriver,
        event: Event,
    ) -> Option<Event> {
        let relay = &mut self.relay;
        match event {
            Event::Connected { conn } => relay.connected(conn),
            Event::Received { conn, buffer } if relay.owns(conn) => {
                relay.received(conn, driver.received(&buffer), core);
                driver.recycle(buffer);
            }
            Event::Ended { conn } if relay.owns(conn) => relay.ended(conn, driver, core),
            Event::Closed { conn } if relay.owns(conn) => relay.closed(conn, core),
            Event::Drained { conn } if relay.owns(conn) => relay.drained(conn),
            event => return Some(event),
        }
        None
    }

    fn finish_turn(&mut self, core: &mut Core<Self>, driver: &mut impl SecureDriver) {
        self.relay.finish_turn(driver, core);
    }

    /// The hash of a key does not depend on its routing prefix.
    #[inline]
    fn hash_of(&self, core: &Core<Self>, key: &[u8]) -> u64 {
        if key.first() == Some(&b'/') {
            return core.hasher.hash(route::without_prefix(key));
        }
        core.hasher.hash(key)
    }

    #[inline]
    fn value_bytes_max(&self, key_len: usize, client_flags: u32) -> usize {
        self.options.item_limit.value_bytes_max(key_len, client_flags)
    }

    /// Brings a command to the shard that holds the upstream connections for its key.
    fn execute(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, ready: &Ready<'_>) -> bool {
        let Ready { command, hash, data, .. } = ready;
        if command.key().is_some_and(|key| key.first() == Some(&PREFIX[0]) && key.starts_with(PREFIX))
            && command.is_read()
        {
            self.admin(core, session, command);
            return true;
        }
        let part = match command {
            Command::Retrieve(retrieve) if !retrieve.last => Part::Key,
            Command::Retrieve(_) => Part::LastKey,
            _ => Part::Whole,
        };
        let owner = owner_of(*hash, core.mesh.shards());
        debug_assert!(owner < core.mesh.shards());
        if owner == core.me {
            let to = core.reserve(session, part);
            self.relay.submit(core.me, to, command, *hash, data);
            return true;
        }
        if !core.mesh.has_room(owner) {
            return false;
        }
        let Some(parts) = command.parts() else { unreachable!("a command without a key is not ready") };
        let request = Request { ask: parts.head, hash: *hash, key: parts.key, tokens: parts.tokens, data };
        let to = core.reserve(session, part);
        core.counters.forwarded += 1;
        core.mesh.requests(owner).push_request(to, &request);
        true
    }

    fn command(
        &mut self,
        core: &mut Core<Self>,
        session: &mut Session<Self>,
        command: &Command<'_>,
        _line: &[u8],
        after: &[u8],
    ) -> Step {
        match command.value_len() {
            Some(value_len) => self.value(core, session, command, value_len, after),
            None => {
                self.keyless(core, session, command);
                Step::Took(0)
            }
        }
    }

    /// Answers what is wrong with a line and goes on behind it. When that is not known to be the end of the
    /// request, because the line is no command or its value has no length, the connection closes, as in mcrouter.
    fn reject(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, rejected: &Rejected) {
        let answer = match rejected.error {
            ParseError::RestOfLine => return,
            // memcached closes without an answer too: none can be read.
            ParseError::BadMagic => {
                session.malformed = true;
                session.state = State::Closing;
                return;
            }
            ParseError::KeyTooLong => line::BAD_KEY,
            error if rejected.swallow == 0 && leaves_its_end_open(error) => {
                core.say(session, line::MALFORMED_REQUEST);
                session.malformed = true;
                session.state = State::Closing;
                return;
            }
            error => error.line(),
        };
        core.say_unless(session, rejected.noreply, answer);
        if rejected.swallow > 0 {
            session.state = State::Swallow(rejected.swallow);
        }
    }

    fn resume(&mut self, _: &mut Core<Self>, session: &mut Session<Self>, _: &[u8]) -> Step {
        match &session.state {
            State::Task(task) => match *task {},
            _ => Step::NeedMore,
        }
    }

    fn pass_barrier(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, barrier: ProxyBarrier) {
        match barrier {
            ProxyBarrier::Answered => {}
            ProxyBarrier::FlushDestinations { delay, how: FlushAnswer(format) } => {
                let to = core.reserve(session, Part::Whole);
                self.relay.flush_all(to, core.me, delay, format);
                // What follows may go to the same destinations on other shards' connections.
                core.wait_for_replies(session, ProxyBarrier::Answered);
            }
            ProxyBarrier::Stats(then) => {
                let own = Box::new(ShardReport::new(&self.relay));
                core.broadcast(session, ProxyBroadcast::Report, own, then);
            }
        }
    }

    fn gathered(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, gather: Gather<Self>) {
        let totals = Totals::new(gather.answers.iter().map(|report| &**report));
        let server = core.context.clone();
        let StatsThen { group, binary } = gather.then;
        core.reply(session, |out| match binary {
            None => stats::render(&totals, group, self.view.config_failures(), &server, out),
            Some(envelope) => {
                let mut list = Vec::new();
                stats::render(&totals, group, self.view.config_failures(), &server, &mut list);
                binary::encode_stats(out, envelope, &list);
            }
        });
    }

    fn serve(&mut self, _: &mut Core<Self>, from: usize, to: ReplyTo, request: &Request<'_, CommandHead>) {
        let Request { ask, hash, key, tokens, data } = *request;
        self.relay.submit(from, to, &ask.with_bytes(key, tokens), hash, data);
    }

    fn obey(
        &mut self,
        _: &mut Core<Self>,
        what: ProxyBroadcast,
        _: Option<&Session<Self>>,
    ) -> Box<ShardReport> {
        match what {
            ProxyBroadcast::Report => Box::new(ShardReport::new(&self.relay)),
        }
    }
}
