//! Connections that have not authenticated yet: nothing is carried out for them.
//!
//! With `-Y` the first command is a `set` of any key whose value is `user password`; with `-S` it is the SASL exchange
//! of the binary protocol. A connection that has passed is in [`State::Command`], where nobody asks again.

use corecached_protocol::{
    BinaryControl, BinaryControlVerb, Command, Parsed,
    binary::{self, Envelope, Status},
    line,
};

use super::core::Core;
use crate::conn::{Session, State};

/// Shortest line, with its line end, that could be a command; a shorter one closes, as in memcached.
const LINE_BYTES_MIN: usize = 6;
/// Longest line.
const LINE_BYTES_MAX: usize = 2048;
/// Longest `user password`.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The one mechanism of SASL.
const MECHANISM: &[u8] = b"PLAIN";

impl Core {
    /// What a connection that has not authenticated says; the bytes done with, none when more is needed.
    pub(super) fn authenticate(&mut self, session: &mut Session, input: &[u8]) -> usize {
        if self.shared.config.sasl { self.sasl_first(session, input) } else { self.token(session, input) }
    }

    fn token(&mut self, session: &mut Session, input: &[u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() > LINE_BYTES_MAX {
                session.state = State::Closing;
            }
            return 0;
        };
        let consumed = end + 1;
        if consumed < LINE_BYTES_MIN || end > LINE_BYTES_MAX {
            session.state = State::Closing;
            return consumed;
        }
        // Key, flags and exptime may be anything.
        let mut words = input[..end].split(|&byte| b" \r".contains(&byte)).filter(|word| !word.is_empty());
        let (verb, len) = (words.next(), words.nth(3));
        let len = len.and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let Some(len) = len.filter(|_| verb == Some(b"set")) else {
            self.say(session, line::UNAUTHENTICATED);
            return consumed;
        };
        if len > TOKEN_BYTES_MAX {
            self.say(session, line::AUTHENTICATION_TOKEN_TOO_LONG);
            session.state = State::Closing;
            return consumed;
        }
        let Some(token) = input[consumed..].get(..len + 2) else { return 0 };
        let consumed = consumed + token.len();
        let Some(token) = token.strip_suffix(b"\r\n") else {
            self.say(session, line::BAD_TERMINATION);
            return consumed;
        };
        let mut words = token.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            self.say(session, line::BAD_AUTHENTICATION_TOKEN);
            return consumed;
        };
        if self.admits(|users| users.admit(user, password)) {
            session.state = State::Command;
            self.say(session, line::STORED);
        } else {
            self.say(session, line::AUTHENTICATION_FAILURE);
        }
        consumed
    }

    fn admits(&mut self, admit: impl FnOnce(&crate::conn::users::Users) -> bool) -> bool {
        let admitted = self.shared.users.as_deref().is_some_and(admit);
        self.counters.auth_cmds += 1;
        self.counters.auth_errors += u64::from(!admitted);
        admitted
    }

    /// A request before the password; all but `VERSION` and those of SASL end the connection.
    fn sasl_first(&mut self, session: &mut Session, input: &[u8]) -> usize {
        let (command, consumed) = match session.parser.parse(input, &self.limits) {
            Ok(Parsed::Complete { value, consumed }) => (value, consumed),
            Ok(Parsed::NeedMore) => return 0,
            Err(rejected) => {
                session.state = State::Closing;
                return rejected.consumed;
            }
        };
        let envelope = match command {
            Command::BinaryControl(control) => match control.verb {
                BinaryControlVerb::Version
                | BinaryControlVerb::SaslList
                | BinaryControlVerb::SaslStep { .. } => {
                    self.binary_control(session, &control);
                    return consumed;
                }
                BinaryControlVerb::Refused { status: Status::UnknownCommand, close: true, .. } => {
                    self.binary_control(session, &control);
                    return consumed;
                }
                _ => control.envelope,
            },
            Command::Binary(request) => request.envelope,
            _ => unreachable!("-S goes with the binary protocol alone"),
        };
        self.refuse_binary(session, envelope, Status::AuthError);
        session.state = State::Closing;
        consumed
    }

    /// A request of SASL, before authentication or once more behind it.
    pub(super) fn sasl(&mut self, session: &mut Session, control: &BinaryControl<'_>) {
        let envelope = control.envelope;
        match control.verb {
            _ if !self.shared.config.sasl => self.refuse_binary(session, envelope, Status::UnknownCommand),
            BinaryControlVerb::SaslStep { mechanism, data } => {
                let status = self.sasl_step(session, mechanism, data);
                let text = if status == Status::Ok { b"Authenticated" } else { status.text() };
                self.sasl_reply(session, envelope, status, text);
            }
            _ => self.sasl_reply(session, envelope, Status::Ok, MECHANISM),
        }
    }

    fn sasl_step(&mut self, session: &mut Session, mechanism: &[u8], message: &[u8]) -> Status {
        if mechanism == MECHANISM && message.is_empty() {
            return Status::AuthContinue;
        }
        if mechanism == MECHANISM && self.admits(|users| users.admit_plain(message)) {
            session.state = State::Command;
            return Status::Ok;
        }
        session.state = State::Unauthenticated;
        Status::AuthError
    }

    fn sasl_reply(&mut self, session: &mut Session, envelope: Envelope, status: Status, text: &[u8]) {
        self.reply(session, |out| binary::encode_value(out, envelope, status, text));
    }
}
