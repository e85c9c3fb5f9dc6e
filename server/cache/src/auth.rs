//! Connections that have not authenticated yet. No command is carried out for them.
//!
//! With `-Y` a client authenticates by a `set` of any key whose value is `user password`, and with `-S` by
//! SASL in the binary protocol. Then the session is in [`State::Command`], where nothing checks again.

use corecached_protocol::{
    BinaryControl, BinaryControlVerb, Command, Parsed,
    binary::{self, Envelope, Status},
    line,
};

use corecached_shard::State;

use crate::binary::refuse_binary;
use crate::cache::{Cache, CacheCore, CacheSession};
use crate::task::CacheTask;
use crate::users::Users;

/// Shortest line that could be a command, with its line end. A shorter one closes the connection, as in
/// memcached.
const LINE_BYTES_MIN: usize = 7;
/// Most bytes of a line whose end has not arrived. More close the connection.
const LINE_BYTES_MAX: usize = 2048;
/// Longest `user password` in bytes. A longer one is refused before it has arrived, and what follows is taken for
/// lines, as in memcached.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The only SASL mechanism of this server.
const MECHANISM: &[u8] = b"PLAIN";

impl Cache {
    /// Handles input of a connection that has not authenticated. Returns how many bytes were taken: 0 when
    /// more input is needed.
    pub(crate) fn authenticate(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        input: &[u8],
    ) -> usize {
        if self.context.config.sasl {
            self.authenticate_binary(core, session, input)
        } else {
            self.authenticate_text(core, session, input)
        }
    }

    /// Handles a command before authentication with `-Y`.
    fn authenticate_text(&mut self, core: &mut CacheCore, session: &mut CacheSession, input: &[u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() > LINE_BYTES_MAX {
                session.malformed = true;
                session.state = State::Closing;
            }
            return 0;
        };
        let consumed = end + 1;
        if consumed < LINE_BYTES_MIN {
            session.malformed = true;
            session.state = State::Closing;
            return consumed;
        }
        // The key, flags and exptime do not matter.
        let mut words = input[..end].split(|&byte| b" \r".contains(&byte)).filter(|word| !word.is_empty());
        let (verb, len) = (words.next(), words.nth(3));
        let len = len.and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let Some(len) = len.filter(|_| verb == Some(b"set")) else {
            core.say(session, line::UNAUTHENTICATED);
            return consumed;
        };
        if len > TOKEN_BYTES_MAX {
            core.say(session, line::AUTHENTICATION_TOKEN_TOO_LONG);
            return consumed;
        }
        let Some(token) = input[consumed..].get(..len + 2) else { return 0 };
        let consumed = consumed + token.len();
        let Some(token) = token.strip_suffix(b"\r\n") else {
            core.say(session, line::BAD_TERMINATION);
            return consumed;
        };
        let Some(blank) = memchr::memchr(b' ', token) else {
            core.say(session, line::BAD_AUTHENTICATION_TOKEN);
            return consumed;
        };
        let (user, password) = (&token[..blank], &token[blank + 1..]);
        if self.admits(core, |users| users.admit(user, password)) {
            session.state = State::Command;
            core.say(session, line::STORED);
        } else {
            core.say(session, line::AUTHENTICATION_FAILURE);
        }
        consumed
    }

    /// Whether `admit` lets a client in. Counts the attempt.
    fn admits(&self, core: &mut CacheCore, admit: impl FnOnce(&Users) -> bool) -> bool {
        let admitted = self.context.users.as_deref().is_some_and(admit);
        core.counters.auth_cmds += 1;
        core.counters.auth_errors += u64::from(!admitted);
        admitted
    }

    /// Handles a request before authentication with `-S`. All but `VERSION` and those of SASL close the
    /// connection.
    fn authenticate_binary(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        input: &[u8],
    ) -> usize {
        let (command, consumed) = match session.parser.parse(input, &core.limits) {
            Ok(Parsed::Complete { value, consumed }) => (value, consumed),
            Ok(Parsed::NeedMore) => return 0,
            Err(rejected) => {
                session.malformed = true;
                session.state = State::Closing;
                return rejected.consumed;
            }
        };
        let envelope = match command {
            Command::BinaryControl(control) => match control.verb {
                BinaryControlVerb::Version
                | BinaryControlVerb::SaslList
                | BinaryControlVerb::SaslStep { .. } => {
                    self.binary_control(core, session, &control);
                    return consumed;
                }
                BinaryControlVerb::Refused { status: Status::UnknownCommand, close: true, .. } => {
                    self.binary_control(core, session, &control);
                    return consumed;
                }
                _ => control.envelope,
            },
            Command::Binary(request) => request.envelope,
            _ => unreachable!("-S goes with the binary protocol alone"),
        };
        refuse_binary(core, session, envelope, Status::AuthError);
        session.malformed = true;
        session.state = State::Closing;
        consumed
    }

    /// Handles a SASL request, before or after authentication.
    pub(crate) fn sasl(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        control: &BinaryControl<'_>,
    ) {
        let envelope = control.envelope;
        match control.verb {
            _ if !self.context.config.sasl => refuse_binary(core, session, envelope, Status::UnknownCommand),
            BinaryControlVerb::SaslStep { mechanism, data } => {
                let status = self.sasl_step(core, session, mechanism, data);
                let text = if status == Status::Ok { b"Authenticated" } else { status.text() };
                sasl_reply(core, session, envelope, status, text);
            }
            _ => sasl_reply(core, session, envelope, Status::Ok, MECHANISM),
        }
    }

    /// Checks the message of a SASL request.
    fn sasl_step(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        mechanism: &[u8],
        message: &[u8],
    ) -> Status {
        if mechanism == MECHANISM && message.is_empty() {
            return Status::AuthContinue;
        }
        if mechanism == MECHANISM && self.admits(core, |users| users.admit_plain(message)) {
            session.state = State::Command;
            return Status::Ok;
        }
        session.state = State::Task(CacheTask::Authenticate);
        Status::AuthError
    }
}

fn sasl_reply(
    core: &mut CacheCore,
    session: &mut CacheSession,
    envelope: Envelope,
    status: Status,
    text: &[u8],
) {
    core.reply(session, |out| binary::encode_value(out, envelope, status, text));
}
