//! Requests of the binary protocol without a key.

use corecached_protocol::{
    BinaryControl, BinaryControlVerb, Exptime,
    binary::{self, Envelope, Status},
};

use corecached_shard::{MEMCACHED_VERSION, State};

use crate::cache::{Cache, CacheCore, CacheSession};
use crate::execute;
use crate::task::{CacheBarrier, CacheBroadcast, CacheThen};

impl Cache {
    pub(crate) fn binary_control(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        control: &BinaryControl<'_>,
    ) {
        let BinaryControl { verb, quiet, envelope } = *control;
        match verb {
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
                self.binary_flush(core, session, expires, quiet, envelope)
            }
            BinaryControlVerb::Stat { words } => self.binary_stat(core, session, words, envelope),
            BinaryControlVerb::SaslList | BinaryControlVerb::SaslStep { .. } => {
                self.sasl(core, session, control)
            }
            BinaryControlVerb::Refused { status, swallow, close } => {
                refuse_binary(core, session, envelope, status);
                if close {
                    session.state = State::Closing;
                } else if swallow > 0 {
                    session.state = State::Swallow(u64::from(swallow));
                }
            }
        }
    }

    fn binary_flush(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        expires: u32,
        quiet: bool,
        envelope: Envelope,
    ) {
        core.counters.cmd_flush += 1;
        if !self.context.config.allow_flush {
            return refuse_binary(core, session, envelope, Status::AuthError);
        }
        let at = execute::expires(Exptime(i64::from(expires)), core.now).unwrap_or(core.now);
        let then = if quiet { CacheThen::Silence } else { CacheThen::BinaryDone(envelope) };
        core.wait_for_replies(
            session,
            CacheBarrier::Ask { what: CacheBroadcast::Flush { at_s: at.0 }, then },
        );
    }

    /// As `stats` in text, but for what memcached offers in text alone: it knows no connections and dumps no keys here.
    fn binary_stat(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        words: &[u8],
        envelope: Envelope,
    ) {
        let ask = |what, then| CacheBarrier::Ask { what, then };
        let barrier = match words {
            b"reset" => {
                core.context.network.admission.reset_counts();
                ask(CacheBroadcast::ResetCounters, CacheThen::BinaryDone(envelope))
            }
            b"detail on" => ask(CacheBroadcast::CountPrefixes { on: true }, CacheThen::BinaryDone(envelope)),
            b"detail off" => {
                ask(CacheBroadcast::CountPrefixes { on: false }, CacheThen::BinaryDone(envelope))
            }
            b"detail dump" => ask(CacheBroadcast::DescribePrefixes, CacheThen::BinaryPrefixes(envelope)),
            _ => CacheBarrier::Stats { words: words.to_vec(), binary: Some(envelope) },
        };
        core.wait_for_replies(session, barrier);
    }
}

pub(crate) fn refuse_binary(
    core: &mut CacheCore,
    session: &mut CacheSession,
    envelope: Envelope,
    status: Status,
) {
    core.reply(session, |out| binary::encode_status(out, envelope, status));
}
