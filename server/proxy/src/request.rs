//! A command on one key, with its value, that outlives the input it was parsed from: what routes send,
//! unchanged or changed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use corecached_protocol::{
    Arithmetic, Command, Delete, Exptime, KEY_BYTES_MAX, Meta, MetaFlags, MetaKey, MetaMode, MetaVerb,
    Retrieve, Store, StoreVerb, Touch,
};

/// Largest value that is accepted from a client, bytes: it is held in memory until it has come whole.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;

/// A command on a key, with its value. To clone it copies no bytes.
///
/// Every reply of a destination is needed, so `noreply` and the meta flag `q` are not kept: the reply format
/// of the client's request remembers them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedRequest {
    /// The routing prefix that the client's key began with, `/region/cluster/`; mostly empty.
    prefix: Bytes,
    /// The key that routes look at: without the prefix, and decoded from base64.
    key: Bytes,
    /// The base64 that is sent in place of `key`, if the key came so.
    base64: Option<Bytes>,
    data: Bytes,
    verb: RequestVerb,
}

#[derive(Clone, Debug, PartialEq)]
enum RequestVerb {
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
    /// A meta command. The flags have no tokens: these are apart.
    Meta {
        verb: MetaVerb,
        flags: MetaFlags<'static>,
        tokens: Bytes,
    },
}

/// What a request does, by the names that mcrouter's configuration uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
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

/// The kinds of operations that routes treat alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OperationClass {
    /// Operations that return a value.
    Get,
    /// Operations that store a value.
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
    pub(crate) const NAMES: [(&'static str, Self); 15] = [
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

    /// The operation with this name.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find_map(|&(known, operation)| (known == name).then_some(operation))
    }

    /// What `command` does; `None` for commands without a key.
    #[inline]
    #[must_use]
    pub(crate) fn from_command(command: &Command) -> Option<Self> {
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
            Command::Meta(meta) => Self::from_meta(meta.verb, &meta.flags),
            _ => return None,
        })
    }

    fn from_meta(verb: MetaVerb, flags: &MetaFlags) -> Self {
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

    /// The kind of this operation.
    #[must_use]
    pub(crate) const fn class(self) -> OperationClass {
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

/// The error of a key that cannot be sent: it is empty, too long, or contains blanks or control bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadKey;

impl OwnedRequest {
    /// Copies `command`. `data` is its value, without CRLF. `None` for commands without a key.
    #[must_use]
    pub(crate) fn new(command: &Command, data: Bytes) -> Option<Self> {
        let key = command.key()?;
        debug_assert!(key.len() <= KEY_BYTES_MAX, "the parser lets no longer key through");
        let key = Bytes::copy_from_slice(key);
        let verb = match *command {
            Command::Retrieve(Retrieve { with_cas, touch, .. }) => RequestVerb::Retrieve { with_cas, touch },
            Command::Store(Store { verb, client_flags, exptime, cas_unique, .. }) => {
                RequestVerb::Store { verb, client_flags, exptime, cas_unique }
            }
            Command::Delete(_) => RequestVerb::Delete,
            Command::Arithmetic(Arithmetic { delta, decrement, .. }) => {
                RequestVerb::Arithmetic { delta, decrement }
            }
            Command::Touch(Touch { exptime, .. }) => RequestVerb::Touch { exptime },
            Command::Meta(meta) => return Some(Self::from_meta(&meta, key, data)),
            _ => return None,
        };
        Some(Self { prefix: Bytes::new(), key, base64: None, data, verb })
    }

    fn from_meta(meta: &Meta, sent: Bytes, data: Bytes) -> Self {
        let mut scratch = [0; KEY_BYTES_MAX];
        let (key, base64) = if meta.flags.has(b'b') {
            (Bytes::copy_from_slice(MetaKey::decode(meta, &mut scratch)), Some(sent))
        } else {
            (sent, None)
        };
        let present = meta.flags.present & !MetaFlags::bit(b'q');
        let flags = MetaFlags { present, tokens: b"", ..meta.flags };
        let tokens = tokens_without(&meta.flags, b'q');
        Self {
            prefix: Bytes::new(),
            key,
            base64,
            data,
            verb: RequestVerb::Meta { verb: meta.verb, flags, tokens },
        }
    }

    /// `get` of the same key.
    #[must_use]
    pub(crate) fn get(&self) -> Self {
        self.with_verb(RequestVerb::Retrieve { with_cas: false, touch: None }, Bytes::new())
    }

    /// `gat` of the same key.
    #[must_use]
    pub(crate) fn get_and_touch(&self, exptime: Exptime) -> Self {
        self.with_verb(RequestVerb::Retrieve { with_cas: false, touch: Some(exptime) }, Bytes::new())
    }

    /// `touch` of the same key.
    #[must_use]
    pub(crate) fn touch(&self, exptime: Exptime) -> Self {
        self.with_verb(RequestVerb::Touch { exptime }, Bytes::new())
    }

    /// `delete` of the same key.
    #[must_use]
    pub(crate) fn delete(&self) -> Self {
        self.with_verb(RequestVerb::Delete, Bytes::new())
    }

    /// A classic storage command on the same key, with this value.
    #[must_use]
    pub(crate) fn store(&self, verb: StoreVerb, client_flags: u32, exptime: Exptime, value: Bytes) -> Self {
        self.with_verb(RequestVerb::Store { verb, client_flags, exptime, cas_unique: 0 }, value)
    }

    fn with_verb(&self, verb: RequestVerb, data: Bytes) -> Self {
        Self { prefix: self.prefix.clone(), key: self.key.clone(), base64: None, data, verb }
    }

    /// Whether the key came as plain text, so that classic commands can name it. One in base64 may contain
    /// any bytes.
    #[must_use]
    pub(crate) const fn is_plain(&self) -> bool {
        self.base64.is_none()
    }

    /// The key that routes look at: without routing prefix, decoded from base64.
    #[must_use]
    pub(crate) const fn key(&self) -> &Bytes {
        &self.key
    }

    /// The routing prefix, `/region/cluster/`, or an empty string.
    #[must_use]
    pub(crate) const fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The value, without its CRLF.
    #[must_use]
    pub(crate) const fn data(&self) -> &Bytes {
        &self.data
    }

    /// The command to send, borrowed from this.
    #[must_use]
    pub(crate) fn command(&self) -> Command<'_> {
        let key = self.base64.as_ref().unwrap_or(&self.key).as_ref();
        debug_assert!(
            u32::try_from(self.data.len()).is_ok(),
            "the length of a value was a u32 when it was parsed"
        );
        let value_len = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        match self.verb {
            RequestVerb::Retrieve { with_cas, touch } => {
                Command::Retrieve(Retrieve { key, with_cas, touch, last: true })
            }
            RequestVerb::Store { verb, client_flags, exptime, cas_unique } => Command::Store(Store {
                verb,
                key,
                client_flags,
                exptime,
                value_len,
                cas_unique,
                noreply: false,
            }),
            RequestVerb::Delete => Command::Delete(Delete { key, noreply: false }),
            RequestVerb::Arithmetic { delta, decrement } => {
                Command::Arithmetic(Arithmetic { key, delta, decrement, noreply: false })
            }
            RequestVerb::Touch { exptime } => Command::Touch(Touch { key, exptime, noreply: false }),
            RequestVerb::Meta { verb, flags, ref tokens } => {
                Command::Meta(Meta { verb, key, value_len, flags: MetaFlags { tokens, ..flags } })
            }
        }
    }

    /// What the request does.
    #[must_use]
    pub(crate) fn operation(&self) -> Operation {
        match &self.verb {
            RequestVerb::Meta { verb, flags, .. } => Operation::from_meta(*verb, flags),
            _ => Operation::from_command(&self.command()).unwrap_or(Operation::Get),
        }
    }

    /// The kind of what the request does.
    #[must_use]
    pub(crate) fn class(&self) -> OperationClass {
        self.operation().class()
    }

    /// The verb and flags of a meta command; `None` for a classic one.
    #[must_use]
    pub(crate) fn meta(&self) -> Option<(MetaVerb, MetaFlags<'_>)> {
        match &self.verb {
            RequestVerb::Meta { verb, flags, tokens } => Some((*verb, MetaFlags { tokens, ..*flags })),
            _ => None,
        }
    }

    /// This request with the first `len` bytes of its key as the routing prefix.
    ///
    /// # Errors
    /// Nothing would be left of the key.
    pub(crate) fn split_prefix(&self, len: usize) -> Result<Self, BadKey> {
        if len >= self.key.len() {
            return Err(BadKey);
        }
        let mut split = self.with_key(self.key.slice(len..))?;
        split.prefix = self.key.slice(..len);
        Ok(split)
    }

    /// This request with its routing prefix as part of the key that is sent.
    ///
    /// # Errors
    /// The key would be too long.
    pub(crate) fn join_prefix(&self) -> Result<Self, BadKey> {
        if self.prefix.is_empty() {
            return Ok(self.clone());
        }
        let mut joined = self.with_key([&self.prefix[..], &self.key].concat().into())?;
        joined.prefix = Bytes::new();
        Ok(joined)
    }

    /// This request with another routing prefix.
    #[must_use]
    pub(crate) fn with_prefix(&self, prefix: Bytes) -> Self {
        Self { prefix, ..self.clone() }
    }

    /// This request with another key.
    ///
    /// # Errors
    /// The key is empty or too long, or it contains blanks or control bytes and the key of this request did
    /// not come in base64.
    pub(crate) fn with_key(&self, key: Bytes) -> Result<Self, BadKey> {
        let base64 = self.base64.is_some().then(|| encode_base64(&key));
        let sent = base64.as_ref().unwrap_or(&key);
        let foreign = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
        if sent.is_empty() || sent.len() > KEY_BYTES_MAX || sent.iter().any(foreign) {
            return Err(BadKey);
        }
        Ok(Self { key, base64, ..self.clone() })
    }

    /// The exptime of the item that the request stores or touches; `None` if the request does not set it.
    #[must_use]
    pub(crate) fn exptime(&self) -> Option<Exptime> {
        match &self.verb {
            RequestVerb::Retrieve { touch, .. } => *touch,
            RequestVerb::Store { verb: StoreVerb::Append | StoreVerb::Prepend, .. } => None,
            RequestVerb::Store { exptime, .. } | RequestVerb::Touch { exptime } => Some(*exptime),
            RequestVerb::Meta { verb: MetaVerb::Set, flags, .. } => {
                (!matches!(flags.mode, MetaMode::Append | MetaMode::Prepend)).then_some(flags.exptime)
            }
            RequestVerb::Meta { flags, .. } => flags.has(b'T').then_some(flags.exptime),
            RequestVerb::Delete | RequestVerb::Arithmetic { .. } => None,
        }
    }

    /// This request with another exptime; unchanged if [`OwnedRequest::exptime`] is `None`.
    #[must_use]
    pub(crate) fn with_exptime(&self, exptime: Exptime) -> Self {
        let mut changed = self.clone();
        if self.exptime().is_none() {
            return changed;
        }
        match &mut changed.verb {
            RequestVerb::Retrieve { touch, .. } => *touch = Some(exptime),
            RequestVerb::Store { exptime: old, .. } | RequestVerb::Touch { exptime: old } => *old = exptime,
            RequestVerb::Meta { flags, tokens, .. } => {
                let mut without = BytesMut::from(&tokens_without(&MetaFlags { tokens, ..*flags }, b'T')[..]);
                if !without.is_empty() {
                    without.put_u8(b' ');
                }
                without.put_slice(format!("T{}", exptime.0).as_bytes());
                flags.exptime = exptime;
                flags.present |= MetaFlags::bit(b'T');
                *tokens = without.freeze();
            }
            RequestVerb::Delete | RequestVerb::Arithmetic { .. } => {}
        }
        changed
    }
}

impl OwnedRequest {
    /// Whether a classic command can name the key, even if it came in base64.
    #[must_use]
    pub(crate) fn has_classic_key(&self) -> bool {
        self.key.len() <= KEY_BYTES_MAX && !self.key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
    }

    /// The client flags of the item that the request stores; 0 if it stores none.
    #[must_use]
    pub(crate) const fn client_flags(&self) -> u32 {
        match &self.verb {
            RequestVerb::Store { client_flags, .. } => *client_flags,
            RequestVerb::Meta { flags, .. } => flags.client_flags,
            _ => 0,
        }
    }

    /// This request with another value and other client flags; unchanged if it stores no value.
    #[must_use]
    pub(crate) fn with_value(&self, client_flags: u32, value: Bytes) -> Self {
        let mut changed = self.clone();
        match &mut changed.verb {
            RequestVerb::Store { client_flags: old, .. } => *old = client_flags,
            RequestVerb::Meta { verb: MetaVerb::Set, flags, tokens } => {
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

    /// This request with these meta flags, which have no argument, after its own; unchanged if it is a
    /// classic command.
    #[must_use]
    pub(crate) fn with_meta_flags(&self, letters: &[u8]) -> Self {
        let mut changed = self.clone();
        if let RequestVerb::Meta { flags, tokens, .. } = &mut changed.verb {
            for letter in letters {
                *tokens = with_token(tokens, &[*letter]);
                flags.present |= MetaFlags::bit(*letter);
            }
        }
        changed
    }
}

/// `tokens` with one more at the end.
fn with_token(tokens: &[u8], token: &[u8]) -> Bytes {
    if tokens.is_empty() { Bytes::copy_from_slice(token) } else { [tokens, b" ", token].concat().into() }
}

/// The tokens of `flags` without those of the flag `letter`.
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

/// `bytes` in base64, with padding.
pub(super) fn encode_base64(bytes: &[u8]) -> Bytes {
    STANDARD.encode(bytes).into()
}

#[cfg(test)]
mod tests;
