//! A command on one key, with its data, that outlives the input it came in: what routes send on, as it is or changed.

use bytes::{BufMut, Bytes, BytesMut};
use corecached_protocol::{
    Arithmetic, Command, Delete, Exptime, KEY_BYTES_MAX, Meta, MetaFlags, MetaKey, MetaMode, MetaVerb,
    Retrieve, Store, StoreVerb, Touch,
};

/// A command on a key. Cloning it copies no bytes.
///
/// Whoever sends one wants its reply: `noreply` and the meta flag `q` are not kept, and the connection that received
/// the command remembers them.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedRequest {
    /// The routing prefix that the client's key began with, `/region/cluster/`; mostly empty.
    prefix: Bytes,
    /// The key that routes look at: behind the prefix, and of base64 what it stands for.
    key: Bytes,
    /// The base64 that is sent in place of `key`.
    base64: Option<Bytes>,
    data: Bytes,
    verb: Verb,
}

#[derive(Clone, Debug, PartialEq)]
enum Verb {
    Retrieve {
        with_cas: bool,
        touch: Option<Exptime>,
    },
    Store {
        verb: StoreVerb,
        client_flags: u32,
        exptime: Exptime,
        cas_unique: u64,
    },
    Delete,
    Arithmetic {
        delta: u64,
        decrement: bool,
    },
    Touch {
        exptime: Exptime,
    },
    /// Flags with empty tokens, and the tokens.
    Meta {
        verb: MetaVerb,
        flags: MetaFlags<'static>,
        tokens: Bytes,
    },
}

/// What a request does, by the names that mcrouter's configuration gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum Operation {
    Get,
    Gets,
    Gat,
    Gats,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Cas,
    Incr,
    Decr,
    Touch,
    Delete,
    /// `me`
    Metaget,
}

/// Kinds of operations that routes treat alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationClass {
    /// They show a value.
    Get,
    /// They store one.
    Update,
    /// `delete`
    Delete,
    /// `incr`, `decr`
    Arithmetic,
    /// `touch`
    Touch,
}

impl Operation {
    /// Every operation with its name in the configuration.
    pub const NAMES: [(&'static str, Self); 15] = [
        ("get", Self::Get),
        ("gets", Self::Gets),
        ("gat", Self::Gat),
        ("gats", Self::Gats),
        ("set", Self::Set),
        ("add", Self::Add),
        ("replace", Self::Replace),
        ("append", Self::Append),
        ("prepend", Self::Prepend),
        ("cas", Self::Cas),
        ("incr", Self::Incr),
        ("decr", Self::Decr),
        ("touch", Self::Touch),
        ("delete", Self::Delete),
        ("metaget", Self::Metaget),
    ];

    /// The operation of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find_map(|&(known, operation)| (known == name).then_some(operation))
    }

    /// What `command` does; `None` when it is about no key.
    #[inline]
    #[must_use]
    pub fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::Retrieve(Retrieve { with_cas, touch, .. }) => match (with_cas, touch) {
                (false, None) => Self::Get,
                (true, None) => Self::Gets,
                (false, Some(_)) => Self::Gat,
                (true, Some(_)) => Self::Gats,
            },
            Command::Store(store) => match store.verb {
                StoreVerb::Set => Self::Set,
                StoreVerb::Add => Self::Add,
                StoreVerb::Replace => Self::Replace,
                StoreVerb::Append => Self::Append,
                StoreVerb::Prepend => Self::Prepend,
                StoreVerb::Cas => Self::Cas,
            },
            Command::Delete(_) => Self::Delete,
            Command::Arithmetic(Arithmetic { decrement: false, .. }) => Self::Incr,
            Command::Arithmetic(_) => Self::Decr,
            Command::Touch(_) => Self::Touch,
            Command::Meta(meta) => Self::of_meta(meta.verb, &meta.flags),
            _ => return None,
        })
    }

    fn of_meta(verb: MetaVerb, flags: &MetaFlags) -> Self {
        match verb {
            MetaVerb::Get => match (flags.has(b'c'), flags.has(b'T')) {
                (false, false) => Self::Get,
                (true, false) => Self::Gets,
                (false, true) => Self::Gat,
                (true, true) => Self::Gats,
            },
            MetaVerb::Set if flags.has(b'C') => Self::Cas,
            MetaVerb::Set => match flags.mode {
                MetaMode::Add => Self::Add,
                MetaMode::Append => Self::Append,
                MetaMode::Prepend => Self::Prepend,
                MetaMode::Replace => Self::Replace,
                _ => Self::Set,
            },
            MetaVerb::Delete => Self::Delete,
            MetaVerb::Arithmetic if flags.mode == MetaMode::Decrement => Self::Decr,
            MetaVerb::Arithmetic => Self::Incr,
            MetaVerb::Debug => Self::Metaget,
        }
    }

    /// The kind it is of.
    #[must_use]
    pub const fn class(self) -> OperationClass {
        match self {
            Self::Get | Self::Gets | Self::Gat | Self::Gats | Self::Metaget => OperationClass::Get,
            Self::Set | Self::Add | Self::Replace | Self::Append | Self::Prepend | Self::Cas => {
                OperationClass::Update
            }
            Self::Incr | Self::Decr => OperationClass::Arithmetic,
            Self::Touch => OperationClass::Touch,
            Self::Delete => OperationClass::Delete,
        }
    }
}

/// Why a request cannot have a key: it is empty, too long, or holds bytes that end a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

/// The key that `command` is about, as sent.
#[inline]
#[must_use]
pub fn key_of<'a>(command: &Command<'a>) -> Option<&'a [u8]> {
    match command {
        Command::Retrieve(retrieve) => Some(retrieve.key),
        Command::Store(store) => Some(store.key),
        Command::Delete(delete) => Some(delete.key),
        Command::Arithmetic(arithmetic) => Some(arithmetic.key),
        Command::Touch(touch) => Some(touch.key),
        Command::Meta(meta) => Some(meta.key),
        _ => None,
    }
}

impl OwnedRequest {
    /// Keeps `command` and its `data`, the value without its CRLF. `None` when the command is about no key.
    #[must_use]
    pub fn new(command: &Command, data: Bytes) -> Option<Self> {
        let key = Bytes::copy_from_slice(key_of(command)?);
        let verb = match *command {
            Command::Retrieve(Retrieve { with_cas, touch, .. }) => Verb::Retrieve { with_cas, touch },
            Command::Store(Store { verb, client_flags, exptime, cas_unique, .. }) => {
                Verb::Store { verb, client_flags, exptime, cas_unique }
            }
            Command::Delete(_) => Verb::Delete,
            Command::Arithmetic(Arithmetic { delta, decrement, .. }) => Verb::Arithmetic { delta, decrement },
            Command::Touch(Touch { exptime, .. }) => Verb::Touch { exptime },
            Command::Meta(meta) => return Some(Self::of_meta(&meta, key, data)),
            _ => return None,
        };
        Some(Self { prefix: Bytes::new(), key, base64: None, data, verb })
    }

    fn of_meta(meta: &Meta, sent: Bytes, data: Bytes) -> Self {
        let mut scratch = [0; KEY_BYTES_MAX];
        let (key, base64) = if meta.flags.has(b'b') {
            (Bytes::copy_from_slice(MetaKey::decode(meta, &mut scratch)), Some(sent))
        } else {
            (sent, None)
        };
        let present = meta.flags.present & !MetaFlags::bit(b'q');
        let flags = MetaFlags { present, tokens: b"", ..meta.flags };
        let tokens = tokens_without(&meta.flags, b'q');
        Self { prefix: Bytes::new(), key, base64, data, verb: Verb::Meta { verb: meta.verb, flags, tokens } }
    }

    /// `get KEY`
    #[must_use]
    pub fn get(&self) -> Self {
        self.with_verb(Verb::Retrieve { with_cas: false, touch: None }, Bytes::new())
    }

    /// `gat EXPTIME KEY`
    #[must_use]
    pub fn get_and_touch(&self, exptime: Exptime) -> Self {
        self.with_verb(Verb::Retrieve { with_cas: false, touch: Some(exptime) }, Bytes::new())
    }

    /// `touch KEY EXPTIME`
    #[must_use]
    pub fn touch(&self, exptime: Exptime) -> Self {
        self.with_verb(Verb::Touch { exptime }, Bytes::new())
    }

    /// `delete KEY`
    #[must_use]
    pub fn delete(&self) -> Self {
        self.with_verb(Verb::Delete, Bytes::new())
    }

    /// A classic storage command with this value.
    #[must_use]
    pub fn store(&self, verb: StoreVerb, client_flags: u32, exptime: Exptime, value: Bytes) -> Self {
        self.with_verb(Verb::Store { verb, client_flags, exptime, cas_unique: 0 }, value)
    }

    fn with_verb(&self, verb: Verb, data: Bytes) -> Self {
        Self { prefix: self.prefix.clone(), key: self.key.clone(), base64: None, data, verb }
    }

    /// Whether a classic command can name this key: one that came in base64 may hold any bytes.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.base64.is_none()
    }

    /// The key that routes look at: without routing prefix, decoded from base64.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        &self.key
    }

    /// The routing prefix, `/region/cluster/`, or nothing.
    #[must_use]
    pub const fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The value, without its CRLF.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// The command to send.
    ///
    /// # Panics
    /// Never: the length of a value was an `u32` when it came in.
    #[must_use]
    pub fn command(&self) -> Command<'_> {
        let key = self.base64.as_ref().unwrap_or(&self.key).as_ref();
        let value_len = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        match self.verb {
            Verb::Retrieve { with_cas, touch } => {
                Command::Retrieve(Retrieve { key, with_cas, touch, last: true })
            }
            Verb::Store { verb, client_flags, exptime, cas_unique } => Command::Store(Store {
                verb,
                key,
                client_flags,
                exptime,
                value_len,
                cas_unique,
                noreply: false,
            }),
            Verb::Delete => Command::Delete(Delete { key, noreply: false }),
            Verb::Arithmetic { delta, decrement } => {
                Command::Arithmetic(Arithmetic { key, delta, decrement, noreply: false })
            }
            Verb::Touch { exptime } => Command::Touch(Touch { key, exptime, noreply: false }),
            Verb::Meta { verb, flags, ref tokens } => {
                Command::Meta(Meta { verb, key, value_len, flags: MetaFlags { tokens, ..flags } })
            }
        }
    }

    /// What it does.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match &self.verb {
            Verb::Meta { verb, flags, .. } => Operation::of_meta(*verb, flags),
            _ => Operation::of(&self.command()).unwrap_or(Operation::Get),
        }
    }

    /// The kind of what it does.
    #[must_use]
    pub fn class(&self) -> OperationClass {
        self.operation().class()
    }

    /// The meta flags, and the verb; `None` of a classic command.
    #[must_use]
    pub fn meta(&self) -> Option<(MetaVerb, MetaFlags<'_>)> {
        match &self.verb {
            Verb::Meta { verb, flags, tokens } => Some((*verb, MetaFlags { tokens, ..*flags })),
            _ => None,
        }
    }

    /// The same with its routing prefix, the first `len` bytes of the key, set apart.
    ///
    /// # Errors
    /// Nothing would be left of the key.
    pub fn split_prefix(&self, len: usize) -> Result<Self, BadKey> {
        if len >= self.key.len() {
            return Err(BadKey);
        }
        let mut split = self.with_key(self.key.slice(len..))?;
        split.prefix = self.key.slice(..len);
        Ok(split)
    }

    /// The same with its routing prefix in the key that is sent.
    ///
    /// # Errors
    /// The key would be too long.
    pub fn join_prefix(&self) -> Result<Self, BadKey> {
        if self.prefix.is_empty() {
            return Ok(self.clone());
        }
        let mut joined = self.with_key([&self.prefix[..], &self.key].concat().into())?;
        joined.prefix = Bytes::new();
        Ok(joined)
    }

    /// The same with another routing prefix.
    #[must_use]
    pub fn with_prefix(&self, prefix: Bytes) -> Self {
        Self { prefix, ..self.clone() }
    }

    /// The same on another key.
    ///
    /// # Errors
    /// The key is empty, too long, or holds blanks or control bytes and did not come in base64.
    pub fn with_key(&self, key: Bytes) -> Result<Self, BadKey> {
        let base64 = self.base64.is_some().then(|| encode_base64(&key));
        let sent = base64.as_ref().unwrap_or(&key);
        let foreign = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
        if sent.is_empty() || sent.len() > KEY_BYTES_MAX || sent.iter().any(foreign) {
            return Err(BadKey);
        }
        Ok(Self { key, base64, ..self.clone() })
    }

    /// When what it stores or touches is to die; `None` when it says nothing about that.
    #[must_use]
    pub fn exptime(&self) -> Option<Exptime> {
        match &self.verb {
            Verb::Retrieve { touch, .. } => *touch,
            Verb::Store { verb: StoreVerb::Append | StoreVerb::Prepend, .. } => None,
            Verb::Store { exptime, .. } | Verb::Touch { exptime } => Some(*exptime),
            Verb::Meta { verb: MetaVerb::Set, flags, .. } => {
                (!matches!(flags.mode, MetaMode::Append | MetaMode::Prepend)).then_some(flags.exptime)
            }
            Verb::Meta { flags, .. } => flags.has(b'T').then_some(flags.exptime),
            Verb::Delete | Verb::Arithmetic { .. } => None,
        }
    }

    /// The same with another exptime; unchanged where [`OwnedRequest::exptime`] is `None`.
    #[must_use]
    pub fn with_exptime(&self, exptime: Exptime) -> Self {
        let mut changed = self.clone();
        if self.exptime().is_none() {
            return changed;
        }
        match &mut changed.verb {
            Verb::Retrieve { touch, .. } => *touch = Some(exptime),
            Verb::Store { exptime: old, .. } | Verb::Touch { exptime: old } => *old = exptime,
            Verb::Meta { flags, tokens, .. } => {
                let mut without = BytesMut::from(&tokens_without(&MetaFlags { tokens, ..*flags }, b'T')[..]);
                if !without.is_empty() {
                    without.put_u8(b' ');
                }
                without.put_slice(format!("T{}", exptime.0).as_bytes());
                flags.exptime = exptime;
                flags.present |= MetaFlags::bit(b'T');
                *tokens = without.freeze();
            }
            Verb::Delete | Verb::Arithmetic { .. } => {}
        }
        changed
    }
}

impl OwnedRequest {
    /// Whether a classic command can name its key, however it came.
    #[must_use]
    pub fn has_classic_key(&self) -> bool {
        self.key.len() <= KEY_BYTES_MAX && !self.key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
    }

    /// The client flags of what it stores.
    #[must_use]
    pub const fn client_flags(&self) -> u32 {
        match &self.verb {
            Verb::Store { client_flags, .. } => *client_flags,
            Verb::Meta { flags, .. } => flags.client_flags,
            _ => 0,
        }
    }

    /// The same with another value and other client flags; unchanged where it stores none.
    #[must_use]
    pub fn with_value(&self, client_flags: u32, value: Bytes) -> Self {
        let mut changed = self.clone();
        match &mut changed.verb {
            Verb::Store { client_flags: old, .. } => *old = client_flags,
            Verb::Meta { verb: MetaVerb::Set, flags, tokens } => {
                let without = tokens_without(&MetaFlags { tokens, ..*flags }, b'F');
                *tokens = with_token(&without, format!("F{client_flags}").as_bytes());
                flags.client_flags = client_flags;
                flags.present |= MetaFlags::bit(b'F');
            }
            _ => return changed,
        }
        changed.data = value;
        changed
    }

    /// The same with these meta flags, which take no token, behind its own; unchanged unless it is a meta command.
    #[must_use]
    pub fn with_meta_flags(&self, letters: &[u8]) -> Self {
        let mut changed = self.clone();
        if let Verb::Meta { flags, tokens, .. } = &mut changed.verb {
            for letter in letters {
                *tokens = with_token(tokens, &[*letter]);
                flags.present |= MetaFlags::bit(*letter);
            }
        }
        changed
    }
}

/// `tokens` and one more.
fn with_token(tokens: &[u8], token: &[u8]) -> Bytes {
    if tokens.is_empty() { Bytes::copy_from_slice(token) } else { [tokens, b" ", token].concat().into() }
}

/// The tokens of `flags` but `letter`.
pub(super) fn tokens_without(flags: &MetaFlags, letter: u8) -> Bytes {
    let mut kept = BytesMut::with_capacity(flags.tokens.len());
    for (flag, token) in flags.iter().filter(|&(flag, _)| flag != letter) {
        if !kept.is_empty() {
            kept.put_u8(b' ');
        }
        kept.put_u8(flag);
        kept.put_slice(token);
    }
    kept.freeze()
}

/// `bytes` in base64, padded.
pub(super) fn encode_base64(bytes: &[u8]) -> Bytes {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = BytesMut::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            encoded.put_u8(if at <= group.len() { digit } else { b'=' });
        }
    }
    encoded.freeze()
}

#[cfg(test)]
mod tests;
