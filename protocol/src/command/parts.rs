//! The parts that commands have in common, and the forms of a keyed command that outlive the bytes it was
//! parsed from.
//!
//! This is the one place that matches every keyed variant only to reach its key. A keyed command comes apart
//! into a [`CommandHead`] and the bytes it borrows ([`Command::parts`]), and [`CommandHead::with_bytes`] puts
//! it together again over other bytes. Neither allocates.

use bytes::Bytes;

use super::{Arithmetic, Command, Delete, Meta, MetaFlags, MetaVerb, Retrieve, Store, Touch};
use crate::binary::{Binary, BinaryVerb};

/// A keyed command taken apart: see [`Command::parts`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CommandParts<'a> {
    /// Everything of the command but its bytes.
    pub head: CommandHead,
    /// The key as sent.
    pub key: &'a [u8],
    /// The flags of a meta command as sent, [`MetaFlags::tokens`]; empty for other commands.
    pub tokens: &'a [u8],
}

/// A keyed command without its bytes: a `Copy` value of numbers that can travel between threads beside a byte
/// buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CommandHead(Command<'static>);

/// Most bytes of a head: two cache lines, since heads are copied from shard to shard.
const HEAD_BYTES_MAX: usize = 128;

const _: () = assert!(size_of::<CommandHead>() <= HEAD_BYTES_MAX);

/// A keyed command and its value, with bytes of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedCommand {
    head: CommandHead,
    key: Bytes,
    tokens: Bytes,
    data: Bytes,
}

impl<'a> Command<'a> {
    /// The key as sent, which for a meta command with the flag `b` is base64 ([`crate::MetaKey`] decodes it).
    /// `None` for commands without a key.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Retrieve(Retrieve { key, .. })
            | Self::Store(Store { key, .. })
            | Self::Delete(Delete { key, .. })
            | Self::Arithmetic(Arithmetic { key, .. })
            | Self::Touch(Touch { key, .. })
            | Self::Meta(Meta { key, .. })
            | Self::Binary(Binary { key, .. }) => Some(*key),
            Self::BinaryControl(_)
            | Self::MetaNoop
            | Self::FlushAll { .. }
            | Self::Verbosity { .. }
            | Self::Version
            | Self::Quit
            | Self::Stats { .. }
            | Self::Shutdown { .. }
            | Self::CacheMemlimit { .. }
            | Self::Admin { .. } => None,
        }
    }

    /// Bytes of the value that follows the command, which may be 0; `None` for commands that no value
    /// follows.
    ///
    /// After the value of a text or meta command comes CRLF, which is not counted; after one of the binary
    /// protocol comes nothing.
    #[inline]
    #[must_use]
    pub const fn value_len(&self) -> Option<u32> {
        match self {
            Self::Store(Store { value_len, .. })
            | Self::Meta(Meta { verb: MetaVerb::Set, value_len, .. }) => Some(*value_len),
            Self::Binary(Binary { verb, value_len, .. }) if verb.has_value() => Some(*value_len),
            _ => None,
        }
    }

    /// Whether the client sent `noreply`: the command is not answered, neither with its result nor with an
    /// error.
    ///
    /// The meta flag `q` and the quiet requests of the binary protocol are something else and yield `false`:
    /// they hide the expected result only, so that the command has to be carried out before anyone can say
    /// whether it is answered. See [`crate::meta::is_hidden`] and [`Binary::quiet`].
    #[inline]
    #[must_use]
    pub const fn noreply(&self) -> bool {
        match self {
            Self::Store(Store { noreply, .. })
            | Self::Delete(Delete { noreply, .. })
            | Self::Arithmetic(Arithmetic { noreply, .. })
            | Self::Touch(Touch { noreply, .. })
            | Self::FlushAll { noreply, .. }
            | Self::Verbosity { noreply, .. }
            | Self::CacheMemlimit { noreply, .. } => *noreply,
            _ => false,
        }
    }

    /// Whether a keyed command changes neither the value of an item nor its TTL, and creates none: `get`,
    /// `gets`, `mg` without the flags `T` and `N`, `me`, and the `GET` requests of the binary protocol.
    /// `false` for commands without a key.
    ///
    /// A read may still change what an item says about its use: its last access, or with the flag `R` of `mg`
    /// which client is to renew it.
    #[inline]
    #[must_use]
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Retrieve(retrieve) => retrieve.touch.is_none(),
            Self::Meta(Meta { verb, flags, .. }) => match verb {
                MetaVerb::Get => !flags.has(b'T') && !flags.has(b'N'),
                MetaVerb::Debug => true,
                MetaVerb::Set | MetaVerb::Delete | MetaVerb::Arithmetic => false,
            },
            Self::Binary(binary) => matches!(binary.verb, BinaryVerb::Get),
            _ => false,
        }
    }

    /// Splits a keyed command into a head without bytes and the bytes it borrows; `None` for commands without
    /// a key.
    #[inline]
    #[must_use]
    pub const fn parts(&self) -> Option<CommandParts<'a>> {
        const NONE: &[u8] = &[];
        let (head, key, tokens) = match *self {
            Self::Retrieve(from) => (Command::Retrieve(Retrieve { key: NONE, ..from }), from.key, NONE),
            Self::Store(from) => (Command::Store(Store { key: NONE, ..from }), from.key, NONE),
            Self::Delete(from) => (Command::Delete(Delete { key: NONE, ..from }), from.key, NONE),
            Self::Arithmetic(from) => (Command::Arithmetic(Arithmetic { key: NONE, ..from }), from.key, NONE),
            Self::Touch(from) => (Command::Touch(Touch { key: NONE, ..from }), from.key, NONE),
            Self::Meta(from) => {
                let flags = MetaFlags { tokens: NONE, ..from.flags };
                (Command::Meta(Meta { key: NONE, flags, ..from }), from.key, from.flags.tokens)
            }
            Self::Binary(from) => (Command::Binary(Binary { key: NONE, ..from }), from.key, NONE),
            _ => return None,
        };
        Some(CommandParts { head: CommandHead(head), key, tokens })
    }
}

impl CommandHead {
    /// The command over these bytes. `key` is within the bounds that the parser keeps: 1 to
    /// [`crate::KEY_BYTES_MAX`] bytes. `tokens` are the flags of a meta command that the head was parsed
    /// with, and empty for other commands.
    #[inline]
    #[must_use]
    pub fn with_bytes<'b>(self, key: &'b [u8], tokens: &'b [u8]) -> Command<'b> {
        let mut command: Command<'b> = self.0;
        match &mut command {
            Command::Retrieve(retrieve) => retrieve.key = key,
            Command::Store(store) => store.key = key,
            Command::Delete(delete) => delete.key = key,
            Command::Arithmetic(arithmetic) => arithmetic.key = key,
            Command::Touch(touch) => touch.key = key,
            Command::Meta(meta) => (meta.key, meta.flags.tokens) = (key, tokens),
            Command::Binary(binary) => binary.key = key,
            _ => unreachable!("only `Command::parts` makes a head, and only of a keyed command"),
        }
        debug_assert!(tokens.is_empty() || matches!(command, Command::Meta(_)));
        command
    }
}

impl OwnedCommand {
    /// Copies a keyed command; `None` for commands without a key. `data` is the value that follows it, as
    /// long as [`Command::value_len`] says, or empty where the value is kept elsewhere.
    #[must_use]
    pub fn new(command: &Command<'_>, data: Bytes) -> Option<Self> {
        debug_assert!(data.is_empty() || command.value_len().is_some_and(|len| len as usize == data.len()));
        let CommandParts { head, key, tokens } = command.parts()?;
        let (key, tokens) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(tokens));
        Some(Self { head, key, tokens, data })
    }

    /// The command, borrowed from this.
    #[inline]
    #[must_use]
    pub fn command(&self) -> Command<'_> {
        self.head.with_bytes(&self.key, &self.tokens)
    }

    /// The key as sent; see [`Command::key`].
    #[inline]
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        &self.key
    }

    /// The value, without its CRLF; empty for commands without one.
    #[inline]
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::{BinaryControl, BinaryControlVerb, Envelope};
    use crate::{AdminVerb, Exptime, Limits, Parsed, Parser, StoreVerb};

    /// The results of the methods of [`Command`] that are not about its parts.
    #[derive(Debug, PartialEq)]
    struct Facts {
        key: Option<&'static [u8]>,
        value_len: Option<u32>,
        noreply: bool,
        is_read: bool,
    }

    /// A read of the key `k`; the constants after it differ from it as their names say.
    const READ: Facts = Facts { key: Some(b"k"), value_len: None, noreply: false, is_read: true };
    const WRITE: Facts = Facts { is_read: false, ..READ };
    const KEYLESS: Facts = Facts { key: None, ..WRITE };

    fn parse(line: &'static str) -> Command<'static> {
        match Parser::new().parse(line.as_bytes(), &Limits::default()) {
            Ok(Parsed::Complete { value, .. }) => value,
            other => panic!("{line:?} was read as {other:?}"),
        }
    }

    fn binary(verb: BinaryVerb, value_len: u32) -> Command<'static> {
        Command::Binary(Binary {
            verb,
            quiet: true,
            with_key: true,
            envelope: Envelope { opcode: 0x0d, opaque: 1 },
            key: b"k",
            compare_cas: 2,
            client_flags: 3,
            expires: 4,
            delta: 5,
            initial: 6,
            value_len,
        })
    }

    /// Commands with every field set to something that another field of the same type does not hold.
    fn commands() -> Vec<(Command<'static>, Facts)> {
        let noreply = || Facts { noreply: true, ..WRITE };
        let stores = |value_len| Facts { value_len: Some(value_len), ..WRITE };
        let key = b"k";
        let store = |noreply| {
            let (verb, client_flags, exptime) = (StoreVerb::Cas, 1, Exptime(2));
            Command::Store(Store { verb, key, client_flags, exptime, value_len: 3, cas_unique: 4, noreply })
        };
        let control = BinaryControl {
            verb: BinaryControlVerb::Stat { words: b"k" },
            quiet: true,
            envelope: Envelope { opcode: 0x10, opaque: 1 },
        };
        let mut commands = vec![
            (store(false), stores(3)),
            (store(true), Facts { noreply: true, ..stores(3) }),
            (parse("set k 7 8 0\r\n"), stores(0)),
            (Command::BinaryControl(control), KEYLESS),
            (parse("flush_all 1 noreply\r\n"), Facts { noreply: true, ..KEYLESS }),
            (parse("verbosity 1 noreply\r\n"), Facts { noreply: true, ..KEYLESS }),
            (parse("cache_memlimit 64 noreply\r\n"), Facts { noreply: true, ..KEYLESS }),
            (Command::Admin { verb: AdminVerb::Slabs, words: b"k" }, KEYLESS),
        ];
        for (line, facts) in [
            ("get k\r\n", READ),
            ("gets k other\r\n", READ),
            ("gat 9 k\r\n", WRITE),
            ("gats 9 k\r\n", WRITE),
            ("delete k\r\n", WRITE),
            ("delete k noreply\r\n", noreply()),
            ("incr k 9\r\n", WRITE),
            ("decr k 9 noreply\r\n", noreply()),
            ("touch k 9\r\n", WRITE),
            ("touch k 9 noreply\r\n", noreply()),
            ("mg k\r\n", READ),
            ("mg k q v R5 c Oabc k\r\n", READ),
            ("mg k v T30\r\n", WRITE),
            ("mg k v N30\r\n", WRITE),
            ("me k\r\n", READ),
            ("ms k 0\r\n", stores(0)),
            ("ms k 4 q T1 F2 C3 E4 MA I\r\n", stores(4)),
            ("md k q I T3\r\n", WRITE),
            ("ma k q N1 J2 D3 T4 MD\r\n", WRITE),
            ("mn\r\n", KEYLESS),
            ("version\r\n", KEYLESS),
            ("quit\r\n", KEYLESS),
            ("stats items\r\n", KEYLESS),
            ("shutdown\r\n", KEYLESS),
        ] {
            commands.push((parse(line), facts));
        }
        for (verb, facts) in [
            (BinaryVerb::Get, READ),
            (BinaryVerb::Touch, WRITE),
            (BinaryVerb::GetAndTouch, WRITE),
            (BinaryVerb::Set, stores(0)),
            (BinaryVerb::Add, stores(0)),
            (BinaryVerb::Replace, stores(0)),
            (BinaryVerb::Append, stores(0)),
            (BinaryVerb::Prepend, stores(0)),
            (BinaryVerb::Delete, WRITE),
            (BinaryVerb::Increment, WRITE),
            (BinaryVerb::Decrement, WRITE),
        ] {
            commands.push((binary(verb, 0), facts));
        }
        commands.push((binary(BinaryVerb::Set, 7), stores(7)));
        commands
    }

    #[test]
    fn a_command_knows_its_key_its_value_and_whether_it_is_answered() {
        for (command, facts) in commands() {
            let found = Facts {
                key: command.key(),
                value_len: command.value_len(),
                noreply: command.noreply(),
                is_read: command.is_read(),
            };
            assert_eq!(found, facts, "{command:?}");
        }
    }

    #[test]
    fn the_key_of_a_meta_command_is_as_it_was_sent() {
        assert_eq!(parse("mg Zm9v b\r\n").key(), Some(&b"Zm9v"[..]));
    }

    #[test]
    fn a_keyed_command_is_the_same_after_it_was_taken_apart() {
        for (command, _) in commands() {
            let Some(CommandParts { head, key, tokens }) = command.parts() else {
                assert_eq!(command.key(), None, "{command:?}");
                continue;
            };
            assert_eq!(Some(key), command.key());
            let (key, tokens) = (key.to_vec(), tokens.to_vec()); // other bytes
            assert_eq!(head.with_bytes(&key, &tokens), command);
            assert_ne!(head.with_bytes(b"", b""), command);
        }
    }

    #[test]
    fn a_head_holds_no_bytes_and_may_travel_between_threads() {
        fn travels<T: Copy + Send + Sync + 'static>(_: T) {}
        for (command, _) in commands() {
            if let Some(CommandParts { head, .. }) = command.parts() {
                travels(head);
                let empty = head.with_bytes(b"", b"").parts().unwrap();
                assert_eq!((empty.head, empty.key, empty.tokens), (head, &b""[..], &b""[..]));
            }
        }
    }

    #[test]
    fn an_owned_command_is_the_command_it_copied_with_its_value() {
        for (command, _) in commands() {
            let data = Bytes::from(vec![b'x'; command.value_len().unwrap_or(0) as usize]);
            let Some(owned) = OwnedCommand::new(&command, data.clone()) else {
                assert_eq!(command.key(), None, "{command:?}");
                continue;
            };
            assert_eq!(owned.command(), command);
            assert_eq!((Some(&owned.key()[..]), owned.data()), (command.key(), &data));
            assert_eq!(owned.clone(), owned);
        }
    }
}
