//! Clients of the binary protocol: their requests become commands that destinations know, and the replies to
//! these are written as the protocol says.
//!
//! Retrievals, `TOUCH`, and `DELETE` without a cas unique become classic commands, so that routes treat them as they
//! treat those of text clients. Stores and arithmetic become meta commands, which alone return the cas unique and
//! create numbers. A key that no text line can name goes in base64.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corecached_protocol::binary::{DO_NOT_CREATE, Envelope, Status};
use corecached_protocol::{
    Binary, BinaryVerb, Command, Delete, ErrorKind, Exptime, KEY_BYTES_MAX, Meta, MetaFlags, MetaMode,
    MetaVerb, Reply, Retrieve, Touch, binary,
};

/// Longest flags of a translated request: six, of which four have a number of up to 20 digits.
const TOKENS_BYTES_MAX: usize = 112;
/// Bytes of a key of the greatest length in base64.
const BASE64_BYTES_MAX: usize = KEY_BYTES_MAX.div_ceil(3) * 4;
/// The latest exptime that text commands can name, 19 January 2038. Later ones mean this one.
const EXPTIME_MAX: u32 = i32::MAX as u32;

/// Where a translated request has its bytes.
pub(crate) struct Scratch {
    key: [u8; BASE64_BYTES_MAX],
    tokens: [u8; TOKENS_BYTES_MAX],
}

impl Scratch {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { key: [0; BASE64_BYTES_MAX], tokens: [0; TOKENS_BYTES_MAX] }
    }

    /// The command that is sent for `request`. `None` if its key cannot be named: it has bytes that text cannot have,
    /// and is too long in base64.
    pub(crate) fn translate<'a>(&'a mut self, request: &Binary<'a>) -> Option<Command<'a>> {
        let is_foreign = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
        let plain = !request.key.iter().any(is_foreign);
        let exptime = Exptime(request.expires.min(EXPTIME_MAX).into());
        let key = request.key;
        if plain {
            let retrieve = |touch| Command::Retrieve(Retrieve { key, with_cas: true, touch, last: true });
            match request.verb {
                BinaryVerb::Get => return Some(retrieve(None)),
                BinaryVerb::GetAndTouch => return Some(retrieve(Some(exptime))),
                BinaryVerb::Touch => return Some(Command::Touch(Touch { key, exptime, noreply: false })),
                BinaryVerb::Delete if request.compare_cas == 0 => {
                    return Some(Command::Delete(Delete { key, noreply: false }));
                }
                _ => {}
            }
        }
        let Self { key: base64, tokens } = self;
        let key = if plain {
            key
        } else {
            let len = STANDARD.encode_slice(key, base64).ok().filter(|&len| len <= KEY_BYTES_MAX)?;
            &base64[..len]
        };
        let mut flags = Flags { letters: 0, tokens, len: 0 };
        if !plain {
            flags.put(b'b', None);
        }
        let verb = flags.put_verb(request, exptime);
        if request.compare_cas != 0 && verb != MetaVerb::Get {
            flags.put(b'C', Some(request.compare_cas));
        }
        let Flags { letters, tokens, len } = flags;
        let tokens = &tokens[..len];
        Some(Command::Meta(Meta {
            verb,
            key,
            value_len: request.value_len,
            flags: MetaFlags {
                present: letters,
                tokens,
                exptime,
                vivify: exptime,
                compare_cas: request.compare_cas,
                client_flags: request.client_flags,
                delta: request.delta,
                initial: request.initial,
                mode: mode(request),
                ..MetaFlags::default()
            },
        }))
    }
}

/// The flags of a meta command, as they are written.
struct Flags<'a> {
    letters: u64,
    tokens: &'a mut [u8; TOKENS_BYTES_MAX],
    len: usize,
}

impl Flags<'_> {
    /// Appends a flag.
    fn put(&mut self, letter: u8, number: Option<u64>) {
        self.letters |= MetaFlags::bit(letter);
        let mut rest = &mut self.tokens[self.len..];
        let before = rest.len();
        let blank = if self.len == 0 { "" } else { " " };
        let letter = char::from(letter);
        let written = match number {
            Some(number) => write!(rest, "{blank}{letter}{number}"),
            None => write!(rest, "{blank}{letter}"),
        };
        debug_assert!(written.is_ok(), "flags are bounded");
        let left = rest.len();
        self.len += before - left;
    }

    /// Appends the mode `M`.
    fn put_mode(&mut self, mode: u8) {
        self.put(b'M', None);
        self.tokens[self.len] = mode;
        self.len += 1;
    }

    /// Appends the flags that `request` asks for. Returns the verb that goes with them.
    fn put_verb(&mut self, request: &Binary<'_>, exptime: Exptime) -> MetaVerb {
        let seconds = exptime.0.unsigned_abs();
        match request.verb {
            BinaryVerb::Get | BinaryVerb::GetAndTouch | BinaryVerb::Touch => {
                if request.verb != BinaryVerb::Get {
                    self.put(b'T', Some(seconds));
                }
                if request.verb != BinaryVerb::Touch {
                    self.put(b'v', None);
                }
                self.put(b'f', None);
                self.put(b'c', None);
                MetaVerb::Get
            }
            BinaryVerb::Delete => MetaVerb::Delete,
            BinaryVerb::Increment | BinaryVerb::Decrement => {
                self.put_mode(if request.verb == BinaryVerb::Decrement { b'D' } else { b'I' });
                self.put(b'D', Some(request.delta));
                if request.expires != DO_NOT_CREATE {
                    self.put(b'N', Some(seconds));
                    self.put(b'J', Some(request.initial));
                }
                self.put(b'v', None);
                self.put(b'c', None);
                MetaVerb::Arithmetic
            }
            BinaryVerb::Set
            | BinaryVerb::Add
            | BinaryVerb::Replace
            | BinaryVerb::Append
            | BinaryVerb::Prepend => {
                self.put(b'c', None);
                match mode(request) {
                    MetaMode::Append => self.put_mode(b'A'),
                    MetaMode::Prepend => self.put_mode(b'P'),
                    mode => {
                        self.put(b'T', Some(seconds));
                        self.put(b'F', Some(request.client_flags.into()));
                        match mode {
                            MetaMode::Add => self.put_mode(b'E'),
                            MetaMode::Replace => self.put_mode(b'R'),
                            _ => {}
                        }
                    }
                }
                MetaVerb::Set
            }
        }
    }
}

/// The mode of the meta command for `request`. `ADD` with a cas unique is a compare and swap, as in memcached.
const fn mode(request: &Binary<'_>) -> MetaMode {
    match request.verb {
        BinaryVerb::Add if request.compare_cas == 0 => MetaMode::Add,
        BinaryVerb::Replace => MetaMode::Replace,
        BinaryVerb::Append => MetaMode::Append,
        BinaryVerb::Prepend => MetaMode::Prepend,
        BinaryVerb::Increment => MetaMode::Increment,
        BinaryVerb::Decrement => MetaMode::Decrement,
        _ => MetaMode::Set,
    }
}

/// The reply format of a binary request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BinaryFormat {
    verb: BinaryVerb,
    quiet: bool,
    with_key: bool,
    envelope: Envelope,
}

impl BinaryFormat {
    /// The format of the reply to `request`.
    pub(crate) const fn new(request: &Binary<'_>) -> Self {
        let Binary { verb, quiet, with_key, envelope, .. } = *request;
        Self { verb, quiet, with_key, envelope }
    }

    /// The format of the reply to `FLUSH`, which succeeds or fails as a store does.
    pub(crate) const fn for_flush(quiet: bool, envelope: Envelope) -> Self {
        Self { verb: BinaryVerb::Set, quiet, with_key: false, envelope }
    }

    /// Appends a reply to a read up to its value, of `value_len` bytes. `key` is the key as the client sent it.
    pub(crate) fn render_hit(
        self,
        key: &[u8],
        client_flags: u32,
        cas_unique: u64,
        value_len: usize,
        out: &mut Vec<u8>,
    ) {
        binary::encode_hit(out, self.envelope, client_flags, self.shown(key), value_len, cas_unique);
    }

    /// Appends the reply up to a value of `value_len` bytes, if there is one, for the `line` of a meta reply that is
    /// no error.
    pub(crate) fn render_meta_head(self, key: &[u8], line: &[u8], value_len: usize, out: &mut Vec<u8>) {
        let flags = ReplyFlags::parse(line);
        self.render_hit(key, flags.client_flags, flags.cas_unique, value_len, out);
    }

    /// Appends the reply for a meta reply that is no error.
    pub(crate) fn render_meta(self, key: &[u8], line: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
        let is_read = self.is_read();
        match (line.get(..2).unwrap_or_default(), value) {
            (b"VA" | b"HD", value) if is_read => {
                let value = value.unwrap_or_default();
                self.render_meta_head(key, line, value.len(), out);
                out.extend_from_slice(value);
            }
            (b"VA", Some(number)) => {
                match std::str::from_utf8(number).ok().and_then(|text| text.trim().parse().ok()) {
                    Some(_) if self.quiet => {}
                    Some(number) => {
                        binary::encode_number(out, self.envelope, number, ReplyFlags::parse(line).cas_unique);
                    }
                    None => self.status(Status::InternalError, out),
                }
            }
            (b"HD", _) => self.done(ReplyFlags::parse(line).cas_unique, out),
            (b"EN", _) => self.miss(key, out),
            (b"NF", _) => self.status(Status::NotFound, out),
            (b"EX", _) => self.status(Status::Exists, out),
            (b"NS", _) => self.status(self.not_stored(), out),
            _ => self.status(Status::InternalError, out),
        }
    }

    /// Appends the reply for a whole reply.
    pub(crate) fn render(self, key: &[u8], reply: &Reply, out: &mut Vec<u8>) {
        match reply {
            Reply::Value { client_flags, cas_unique, value } => {
                self.render_hit(key, *client_flags, cas_unique.unwrap_or(0), value.len(), out);
                out.extend_from_slice(value);
            }
            Reply::Meta { line, value } => self.render_meta(key, line, value.as_deref(), out),
            Reply::Touched => self.render_hit(key, 0, 0, 0, out),
            Reply::Stored | Reply::Deleted | Reply::Done => self.done(0, out),
            Reply::Number(_) if self.quiet => {}
            Reply::Number(number) => binary::encode_number(out, self.envelope, *number, 0),
            Reply::Miss => self.miss(key, out),
            Reply::NotFound if self.is_read() => self.miss(key, out),
            Reply::NotFound => self.status(Status::NotFound, out),
            Reply::Exists => self.status(Status::Exists, out),
            Reply::NotStored => self.status(self.not_stored(), out),
            Reply::Error { kind, line } => match (status_of(*kind, line), self.verb) {
                (Status::TooLarge, BinaryVerb::Append | BinaryVerb::Prepend) => {
                    self.status(Status::NotStored, out);
                }
                (status @ (Status::NonNumeric | Status::TooLarge | Status::OutOfMemory), _) => {
                    self.status(status, out);
                }
                // The text says more than the status.
                (status, _) => binary::encode_value(out, self.envelope, status, line),
            },
        }
    }

    const fn is_read(self) -> bool {
        matches!(self.verb, BinaryVerb::Get | BinaryVerb::GetAndTouch | BinaryVerb::Touch)
    }

    const fn shown(self, key: &[u8]) -> &[u8] {
        if self.with_key { key } else { &[] }
    }

    fn miss(self, key: &[u8], out: &mut Vec<u8>) {
        if !self.quiet {
            binary::encode_miss(out, self.envelope, self.shown(key));
        }
    }

    fn done(self, cas_unique: u64, out: &mut Vec<u8>) {
        if !self.quiet {
            // memcached shows none of an item that is gone.
            let cas_unique = if self.verb == BinaryVerb::Delete { 0 } else { cas_unique };
            binary::encode_done(out, self.envelope, cas_unique);
        }
    }

    fn status(self, status: Status, out: &mut Vec<u8>) {
        binary::encode_status(out, self.envelope, status);
    }

    /// Why a store was refused that the item decided.
    const fn not_stored(self) -> Status {
        match self.verb {
            BinaryVerb::Add => Status::Exists,
            BinaryVerb::Replace => Status::NotFound,
            _ => Status::NotStored,
        }
    }
}

/// The flags in the line of a meta reply that replies of the binary protocol show.
#[derive(Default)]
struct ReplyFlags {
    client_flags: u32,
    cas_unique: u64,
}

impl ReplyFlags {
    /// What is missing or is no number is 0.
    fn parse(line: &[u8]) -> Self {
        let mut flags = Self::default();
        for word in line.split(|&byte| byte == b' ').skip(1) {
            let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
            match word {
                [b'c', digits @ ..] => flags.cas_unique = number(digits).unwrap_or(0),
                [b'f', digits @ ..] => {
                    flags.client_flags =
                        number(digits).and_then(|flags| u32::try_from(flags).ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        flags
    }
}

/// The status that says to clients what an error means to them: whether they may try again.
fn status_of(kind: ErrorKind, line: &[u8]) -> Status {
    let says = |part: &[u8]| line.windows(part.len()).any(|window| window == part);
    match kind {
        _ if says(b"non-numeric") => Status::NonNumeric,
        _ if says(b"too large") => Status::TooLarge,
        _ if says(b"out of memory") => Status::OutOfMemory,
        ErrorKind::BadKey => Status::Invalid,
        ErrorKind::Busy | ErrorKind::TryAgain => Status::Busy,
        ErrorKind::Timeout
        | ErrorKind::ConnectTimeout
        | ErrorKind::Connect
        | ErrorKind::Ejected
        | ErrorKind::Shutdown => Status::TemporaryFailure,
        ErrorKind::Remote | ErrorKind::Local | ErrorKind::Client => Status::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::client::encode;
    use corecached_protocol::{Limits, Parsed, Parser};

    use super::*;

    fn request(verb: BinaryVerb, key: &[u8]) -> Binary<'_> {
        Binary {
            verb,
            quiet: false,
            with_key: false,
            envelope: Envelope { opcode: 0, opaque: 0 },
            key,
            compare_cas: 0,
            client_flags: 7,
            expires: 100,
            delta: 3,
            initial: 5,
            value_len: 0,
        }
    }

    #[test]
    fn requests_become_the_commands_that_routes_know() {
        use BinaryVerb::*;
        for (verb, plain, foreign) in [
            (Get, "gets key\r\n", "mg ayA= b v f c\r\n"),
            (GetAndTouch, "gats 100 key\r\n", "mg ayA= b T100 v f c\r\n"),
            (Touch, "touch key 100\r\n", "mg ayA= b T100 f c\r\n"),
            (Delete, "delete key\r\n", "md ayA= b\r\n"),
            (Set, "ms key 0 c T100 F7\r\n\r\n", "ms ayA= 0 b c T100 F7\r\n\r\n"),
            (Add, "ms key 0 c T100 F7 ME\r\n\r\n", "ms ayA= 0 b c T100 F7 ME\r\n\r\n"),
            (Replace, "ms key 0 c T100 F7 MR\r\n\r\n", "ms ayA= 0 b c T100 F7 MR\r\n\r\n"),
            (Append, "ms key 0 c MA\r\n\r\n", "ms ayA= 0 b c MA\r\n\r\n"),
            (Prepend, "ms key 0 c MP\r\n\r\n", "ms ayA= 0 b c MP\r\n\r\n"),
            (Increment, "ma key MI D3 N100 J5 v c\r\n", "ma ayA= b MI D3 N100 J5 v c\r\n"),
            (Decrement, "ma key MD D3 N100 J5 v c\r\n", "ma ayA= b MD D3 N100 J5 v c\r\n"),
        ] {
            for (key, expected) in [(&b"key"[..], plain), (b"k ", foreign)] {
                let mut scratch = Scratch::new();
                let mut out = Vec::new();
                encode(&scratch.translate(&request(verb, key)).unwrap(), b"", &mut out);
                assert_eq!(String::from_utf8_lossy(&out), expected);
            }
        }
    }

    #[test]
    fn the_largest_numbers_fit_and_are_read_as_they_were_meant() {
        use BinaryVerb::*;
        for verb in
            [Get, GetAndTouch, Touch, Delete, Set, Add, Replace, Append, Prepend, Increment, Decrement]
        {
            for expires in [0, u32::MAX - 1, u32::MAX] {
                for key in [&b"k"[..], b"\0"] {
                    let most = Binary {
                        compare_cas: u64::MAX,
                        client_flags: u32::MAX,
                        expires,
                        delta: u64::MAX,
                        initial: u64::MAX,
                        ..request(verb, key)
                    };
                    let mut scratch = Scratch::new();
                    let sent = scratch.translate(&most).unwrap();
                    let mut out = Vec::new();
                    encode(&sent, b"", &mut out);
                    let Ok(Parsed::Complete { value: read, .. }) =
                        Parser::new().parse(&out, &Limits::default())
                    else {
                        panic!("{verb:?} is refused: {}", String::from_utf8_lossy(&out));
                    };
                    match (read, sent) {
                        // What a route reads of a request must be what its destination reads.
                        (Command::Meta(read), Command::Meta(sent)) => {
                            let (read, sent) = (read.flags, sent.flags);
                            assert_eq!((read.present, read.mode), (sent.present, sent.mode), "{verb:?}");
                            assert_eq!(read.compare_cas, if sent.has(b'C') { u64::MAX } else { 0 });
                            assert_eq!(read.exptime, if sent.has(b'T') { sent.exptime } else { Exptime(0) });
                        }
                        (read, sent) => assert_eq!(read, sent),
                    }
                }
            }
        }
    }
}
