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
    /// Carries out a binary request without a key.
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
                    session.malformed = true;
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
        core.counters.commands.cmd_flush += 1;
        if !self.context.config.allow_flush {
            return refuse_binary(core, session, envelope, Status::AuthError);
        }
        let at = execute::expires_at(Exptime(i64::from(expires)), core.now).unwrap_or(core.now);
        let then = if quiet { CacheThen::Silence } else { CacheThen::BinaryDone(envelope) };
        core.wait_for_replies(
            session,
            CacheBarrier::Broadcast { what: CacheBroadcast::Flush { at_s: at.0 }, then },
        );
    }

    /// Carries out a `STAT` request. As in memcached, `conns` and `cachedump` exist only in the text
    /// protocol.
    fn binary_stat(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        words: &[u8],
        envelope: Envelope,
    ) {
        let broadcast = |what, then| CacheBarrier::Broadcast { what, then };
        let barrier = match words {
            b"reset" => {
                core.context.network.admission.reset_counts();
                broadcast(CacheBroadcast::ResetCounters, CacheThen::BinaryDone(envelope))
            }
            b"detail on" => {
                broadcast(CacheBroadcast::CountPrefixes { on: true }, CacheThen::BinaryDone(envelope))
            }
            b"detail off" => {
                broadcast(CacheBroadcast::CountPrefixes { on: false }, CacheThen::BinaryDone(envelope))
            }
            b"detail dump" => broadcast(CacheBroadcast::ListPrefixes, CacheThen::BinaryPrefixes(envelope)),
            _ => CacheBarrier::Stats { words: words.to_vec(), binary: Some(envelope) },
        };
        core.wait_for_replies(session, barrier);
    }
}

/// Answers a binary request with an error.
pub(crate) fn refuse_binary(
    core: &mut CacheCore,
    session: &mut CacheSession,
    envelope: Envelope,
    status: Status,
) {
    core.reply(session, |out| binary::encode_status(out, envelope, status));
}
