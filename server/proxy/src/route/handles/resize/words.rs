//! What a resize says to servers, and what it reads out of their replies: meta commands on the key of a
//! client's request, whatever form that came in.

use bytes::Bytes;
use corecached_protocol::{
    Arithmetic, Command, Limits, MetaFlags, MetaMode, MetaVerb, Parsed, Parser, Reply, Store, StoreVerb,
};

use crate::request::{Operation, OwnedRequest, tokens_without};

/// Seconds that a lease lives: how long a key whose copier died is missing, and longer than an old server may
/// take.
pub(super) const LEASE_S: u64 = 2;
/// Exptimes above it are absolute: memcached's 30 days.
const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// What a request is to a resize; the table in `mod.rs` says what becomes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResizeKind {
    /// `get`, `gets`
    Look,
    /// `mg`
    LookMeta,
    /// `set` and `delete`, whatever was there before.
    Overwrite,
    /// `add`
    Add,
    /// It changes a value that is there: `append`, `prepend`, `replace`, `incr`, `decr`.
    Change,
    /// `touch`, `gat`, `gats`
    Touch,
    /// It brings its own condition, or does something to an item that only a server can judge.
    Checked,
}

impl ResizeKind {
    /// Whether the request may change its key.
    pub(super) const fn changes(self) -> bool {
        !matches!(self, Self::Look | Self::LookMeta)
    }

    pub(super) fn from_request(request: &OwnedRequest) -> Self {
        let Some((verb, flags)) = request.meta() else {
            return match request.operation() {
                Operation::Get | Operation::Gets => Self::Look,
                Operation::Gat | Operation::Gats | Operation::Touch => Self::Touch,
                Operation::Set | Operation::Delete => Self::Overwrite,
                Operation::Add => Self::Add,
                Operation::Cas => Self::Checked,
                _ => Self::Change,
            };
        };
        let only = |letters: &[u8]| flags.iter().all(|(letter, _)| letters.contains(&letter));
        match verb {
            MetaVerb::Get | MetaVerb::Debug => Self::LookMeta,
            MetaVerb::Delete if only(b"Okb") => Self::Overwrite,
            MetaVerb::Set | MetaVerb::Arithmetic if flags.has(b'C') || flags.has(b'I') => Self::Checked,
            MetaVerb::Set => match flags.mode {
                MetaMode::Add => Self::Add,
                MetaMode::Append | MetaMode::Prepend | MetaMode::Replace => Self::Change,
                _ => Self::Overwrite,
            },
            MetaVerb::Arithmetic => Self::Change,
            MetaVerb::Delete => Self::Checked,
        }
    }
}

/// A meta command of these words on the key of `request`. `None` when no line holds it.
fn made(
    request: &OwnedRequest,
    verb: &str,
    words: impl AsRef<[u8]>,
    value: Option<&Bytes>,
) -> Option<OwnedRequest> {
    let words = words.as_ref();
    let mut line = Vec::with_capacity(320 + words.len());
    line.extend_from_slice(verb.as_bytes());
    line.push(b' ');
    line.extend_from_slice(request.command().key()?);
    if let Some(value) = value {
        line.extend_from_slice(format!(" {}", value.len()).as_bytes());
    }
    if !request.is_plain() {
        line.extend_from_slice(b" b");
    }
    if !words.is_empty() {
        line.push(b' ');
        line.extend_from_slice(words);
    }
    line.extend_from_slice(b"\r\n");
    match Parser::new().parse(&line, &Limits::default()) {
        Ok(Parsed::Complete { value: command, .. }) => {
            let made = OwnedRequest::new(&command, value.cloned().unwrap_or_default())?;
            Some(made.with_prefix(request.prefix().clone()))
        }
        _ => None,
    }
}

/// What is known of an item; with its value where that is wanted. `lease` takes one where there is no item.
pub(super) fn look(request: &OwnedRequest, value: bool, lease: bool) -> Option<OwnedRequest> {
    let value = if value { " v" } else { "" };
    let lease = if lease { format!(" N{LEASE_S}") } else { String::new() };
    made(request, "mg", format!("f c t s{value}{lease}"), None)
}

/// `found` in place of the lease `cas`. `None` of one that dies within the second: 0 seconds would be for
/// ever.
pub(super) fn fill(request: &OwnedRequest, found: &Found, cas: u64, now_ms: u64) -> Option<OwnedRequest> {
    let exptime = match found.ttl_s {
        ..0 => 0,
        0 => return None,
        ttl if ttl > RELATIVE_MAX_S => ttl.saturating_add((now_ms / 1000) as i64),
        ttl => ttl,
    };
    let words = format!("F{} T{exptime} C{cas} c", found.client_flags);
    made(request, "ms", words, Some(found.value.as_ref()?))
}

/// Gives a lease back, unless it is another's item by now.
pub(super) fn release(request: &OwnedRequest, cas: u64) -> Option<OwnedRequest> {
    made(request, "md", format!("C{cas}"), None)
}

/// `delete`, of any key.
pub(super) fn delete(request: &OwnedRequest) -> Option<OwnedRequest> {
    if request.is_plain() { Some(request.delete()) } else { made(request, "md", "", None) }
}

/// `touch`, `gat` and `gats`, in words that show what item they met.
pub(super) fn touch(request: &OwnedRequest) -> Option<OwnedRequest> {
    let value = if request.operation() == Operation::Touch { "" } else { " v" };
    made(request, "mg", format!("T{} f c t s{value}", request.exptime()?.0), None)
}

/// A client's request on condition that the item is still that of `cas`.
pub(super) fn fenced(request: &OwnedRequest, cas: u64) -> Option<OwnedRequest> {
    let data = request.data();
    match request.command() {
        Command::Store(Store { verb, client_flags, exptime, .. }) => {
            let words = match verb {
                StoreVerb::Append => "MA ".to_owned(),
                StoreVerb::Prepend => "MP ".to_owned(),
                _ => format!("F{client_flags} T{} ", exptime.0),
            };
            made(request, "ms", format!("{words}C{cas}"), Some(data))
        }
        Command::Arithmetic(Arithmetic { delta, decrement, .. }) => {
            let mode = if decrement { "MD" } else { "MI" };
            made(request, "ma", format!("{mode} D{delta} v C{cas}"), None)
        }
        Command::Meta(meta) => {
            // An `add` or a `replace` of what the cas unique names is a `set` of it.
            let kept = match meta.flags.mode {
                MetaMode::Add | MetaMode::Replace => tokens_without(&meta.flags, b'M'),
                _ => Bytes::copy_from_slice(meta.flags.tokens),
            };
            let flags = MetaFlags { tokens: &kept, ..meta.flags };
            let kept = tokens_without(&flags, b'b');
            let words = [&kept[..], format!(" C{cas}").as_bytes()].concat();
            let (verb, value) = if meta.verb == MetaVerb::Set { ("ms", Some(data)) } else { ("ma", None) };
            made(request, verb, words.trim_ascii_start(), value)
        }
        _ => None,
    }
}

/// An item that a look met.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub client_flags: u32,
    pub cas: u64,
    /// Below 0: for ever.
    pub ttl_s: i64,
    pub value: Option<Bytes>,
}

/// What a look met.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Met {
    Nothing,
    /// An empty item that stands for one that is being copied; `won` is whether by us.
    Lease {
        won: bool,
        cas: u64,
    },
    Item(Found),
    /// An item that was declared stale.
    Stale(Found),
    Failure,
}

/// Reads the reply to [`look`] or [`touch`].
pub(super) fn met(reply: &Reply) -> Met {
    let Reply::Meta { line, value } = reply else {
        return if *reply == Reply::Miss { Met::Nothing } else { Met::Failure };
    };
    let mut words = line.split(|&byte| byte == b' ');
    match words.next() {
        Some(b"VA" | b"HD") => {}
        Some(b"EN") => return Met::Nothing,
        _ => return Met::Failure,
    }
    let mut found = Found { value: value.clone(), ttl_s: -1, ..Found::default() };
    let (mut len, mut won, mut sent, mut stale) = (1, false, false, false);
    for word in words {
        let Some((&letter, token)) = word.split_first() else { continue };
        let number = || std::str::from_utf8(token).ok().and_then(|text| text.parse::<i64>().ok());
        match letter {
            b'f' => found.client_flags = number().unwrap_or_default() as u32,
            b'c' => {
                found.cas =
                    std::str::from_utf8(token).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
            }
            b't' => found.ttl_s = number().unwrap_or_default(),
            b's' => len = number().unwrap_or_default(),
            b'W' => won = true,
            b'Z' => sent = true,
            b'X' => stale = true,
            _ => {}
        }
    }
    match (stale, len == 0 && (won || sent)) {
        (true, _) => Met::Stale(found),
        (false, true) => Met::Lease { won, cas: found.cas },
        (false, false) => Met::Item(found),
    }
}

/// Whether the reply to a client's own `mg` may have met a lease: its token was sent, and it shows no value.
pub(super) fn may_be_lease(reply: &Reply) -> bool {
    let Reply::Meta { line, value } = reply else { return false };
    value.as_ref().is_none_or(Bytes::is_empty) && line.split(|&byte| byte == b' ').any(|word| word == b"Z")
}

/// Whether a condition on a cas unique did not hold.
pub(super) fn is_refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Meta { line, .. } if matches!(line.get(..2), Some(b"EX" | b"NF" | b"NS")))
}

/// The cas unique that a storing command shows.
pub(super) fn stored_cas(reply: &Reply) -> Option<u64> {
    let Reply::Meta { line, .. } = reply else { return None };
    let cas = line.strip_prefix(b"HD c")?;
    std::str::from_utf8(cas).ok()?.trim_end().parse().ok()
}

/// The reply to [`fenced`] in the form that a classic client waits for.
pub(super) fn classic(request: &OwnedRequest, reply: Reply) -> Reply {
    let Reply::Meta { line, value } = &reply else { return reply };
    match (request.command(), line.get(..2)) {
        (Command::Store(_), Some(b"HD")) => Reply::Stored,
        (Command::Arithmetic(_), Some(b"VA")) => {
            let number = value.as_ref().and_then(|value| std::str::from_utf8(value).ok());
            number.and_then(|number| number.trim_end().parse().ok()).map_or(reply, Reply::Number)
        }
        _ => reply,
    }
}
