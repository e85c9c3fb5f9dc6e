//! Requests of the binary protocol without a key.

use corecached_protocol::{
    BinaryControl, BinaryControlVerb, Exptime,
    binary::{self, Envelope, Status},
};

use super::core::Core;
use super::execute;
use super::message::Broadcast;
use crate::conn::session::{Barrier, Then};
use crate::conn::{Session, State};

impl Core {
    pub(super) fn binary_control(&mut self, session: &mut Session, control: &BinaryControl<'_>) {
        let BinaryControl { verb, quiet, envelope } = *control;
        match verb {
            BinaryControlVerb::Noop => self.reply(session, |out| binary::encode_done(out, envelope, 0)),
            BinaryControlVerb::Version => self.reply(session, |out| {
                binary::encode_value(out, envelope, Status::Ok, crate::MEMCACHED_VERSION.as_bytes());
            }),
            BinaryControlVerb::Quit => {
                if !quiet {
                    self.reply(session, |out| binary::encode_done(out, envelope, 0));
                }
                session.state = State::Closing;
            }
            BinaryControlVerb::Flush { expires } => self.binary_flush(session, expires, quiet, envelope),
            BinaryControlVerb::Stat { words } => self.binary_stat(session, words, envelope),
            BinaryControlVerb::SaslList | BinaryControlVerb::SaslStep { .. } => self.sasl(session, control),
            BinaryControlVerb::Refused { status, swallow, close } => {
                self.refuse_binary(session, envelope, status);
                if close {
                    session.state = State::Closing;
                } else if swallow > 0 {
                    session.state = State::Swallow(u64::from(swallow));
                }
            }
        }
    }

    pub(super) fn refuse_binary(&mut self, session: &mut Session, envelope: Envelope, status: Status) {
        self.reply(session, |out| binary::encode_status(out, envelope, status));
    }

    fn binary_flush(&mut self, session: &mut Session, expires: u32, quiet: bool, envelope: Envelope) {
        self.counters.cmd_flush += 1;
        if !self.shared.config.allow_flush {
            return self.refuse_binary(session, envelope, Status::AuthError);
        }
        let at = execute::expires(Exptime(i64::from(expires)), self.now).unwrap_or(self.now);
        let then = if quiet { Then::Silence } else { Then::BinaryDone(envelope) };
        self.after_all(session, Barrier::Ask { what: Broadcast::Flush { at_s: at.0 }, then });
    }

    /// As `stats` in text, but for what memcached offers in text alone: it knows no connections and dumps no keys here.
    fn binary_stat(&mut self, session: &mut Session, words: &[u8], envelope: Envelope) {
        let ask = |what, then| Barrier::Ask { what, then };
        let barrier = match words {
            b"reset" => {
                self.shared.admission.reset_counts();
                ask(Broadcast::ResetCounters, Then::BinaryDone(envelope))
            }
            b"detail on" => ask(Broadcast::CountPrefixes { on: true }, Then::BinaryDone(envelope)),
            b"detail off" => ask(Broadcast::CountPrefixes { on: false }, Then::BinaryDone(envelope)),
            b"detail dump" => ask(Broadcast::DescribePrefixes, Then::BinaryPrefixes(envelope)),
            _ => Barrier::Stats { words: words.to_vec(), binary: Some(envelope) },
        };
        self.after_all(session, barrier);
    }
}
