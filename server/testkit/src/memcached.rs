//! A memcached without input and output: its items, over a clock that the caller holds, and the reply to each
//! command. It never reads the time, and never fails but as its fields say.

use std::collections::BTreeMap;

use bytes::Bytes;
use corecached_protocol::{
    Arithmetic, Command, ErrorKind, Meta, MetaFlags, MetaMode, MetaVerb, Reply, Store, StoreVerb, Touch, text,
};

/// The version that it says it has.
pub const VERSION: &str = "1.6.45";

/// An exptime of more seconds is a Unix time.
const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// One item.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// The value, without its CRLF.
    pub value: Bytes,
    /// The number that the client stored with the value.
    pub client_flags: u32,
    /// The cas unique.
    pub cas: u64,
    /// Unix milliseconds from which the item is gone; `None` is never.
    pub expires_at_ms: Option<u64>,
    /// The token that makes the client that has it fill the item was given out.
    pub token_sent: bool,
    /// The value was declared stale, as `md` with the flag `I` does.
    pub stale: bool,
}

/// A memcached: the items and the switches that tests turn.
#[derive(Debug, Default)]
pub struct Memcached {
    /// The items by key. Expired ones go with the next command.
    pub items: BTreeMap<Bytes, Item>,
    /// The cas unique of the last write.
    pub cas: u64,
    /// Every command is answered as if no connection could be made.
    pub dead: bool,
    /// Every `ms` is carried out, whatever its cas unique.
    pub ignores_cas: bool,
    /// Computes the reply to every command and the value that follows it, in place of the items.
    pub replies: Option<fn(&Command<'_>, &[u8]) -> Reply>,
}

impl Memcached {
    /// Carries `command` out at `now_ms`, Unix milliseconds, with the value `data` after it, and returns the
    /// reply. `noreply` and the meta flag `q` are not looked at.
    ///
    /// # Panics
    /// When the command is none that a proxy sends to a destination: `stats`, `me`, those of the binary
    /// protocol and the like.
    pub fn execute(&mut self, command: &Command<'_>, data: &[u8], now_ms: u64) -> Reply {
        if self.dead {
            return Reply::Error { kind: ErrorKind::Connect, line: "SERVER_ERROR connection error".into() };
        }
        if let Some(replies) = self.replies {
            return replies(command, data);
        }
        self.items.retain(|_, item| item.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms));
        let Some(key) = command.key().map(Bytes::copy_from_slice) else { return keyless(command) };
        let found = self.items.get(&key).cloned();
        match command {
            Command::Retrieve(retrieve) => match found {
                None => Reply::Miss,
                Some(item) => {
                    let Item { value, client_flags, cas, .. } = item.clone();
                    if let Some(exptime) = retrieve.touch {
                        self.items.insert(key, Item { expires_at_ms: expires_at(exptime.0, now_ms), ..item });
                    }
                    Reply::Value { client_flags, cas_unique: retrieve.with_cas.then_some(cas), value }
                }
            },
            Command::Store(store) => self.store(store, data, key, found, now_ms),
            Command::Delete(_) => match self.items.remove(&key) {
                Some(_) => Reply::Deleted,
                None => Reply::NotFound,
            },
            Command::Touch(Touch { exptime, .. }) => match found {
                None => Reply::NotFound,
                Some(item) => {
                    self.items.insert(key, Item { expires_at_ms: expires_at(exptime.0, now_ms), ..item });
                    Reply::Touched
                }
            },
            Command::Arithmetic(Arithmetic { delta, decrement, .. }) => match found {
                None => Reply::NotFound,
                Some(item) => match count(&item, *delta, *decrement) {
                    Some(number) => {
                        self.put(key, Item { value: number.to_string().into(), ..item });
                        Reply::Number(number)
                    }
                    None => non_numeric(),
                },
            },
            Command::Meta(command) => self.meta(command, data, key, found, now_ms),
            other => panic!("a memcached of the testkit was sent {other:?}, which no proxy sends"),
        }
    }

    /// Stores the item and returns its new cas unique.
    fn put(&mut self, key: Bytes, item: Item) -> u64 {
        self.cas += 1;
        self.items.insert(key, Item { cas: self.cas, ..item });
        self.cas
    }

    fn store(
        &mut self,
        store: &Store<'_>,
        data: &[u8],
        key: Bytes,
        found: Option<Item>,
        now_ms: u64,
    ) -> Reply {
        let expires_at_ms = expires_at(store.exptime.0, now_ms);
        let value = Bytes::copy_from_slice(data);
        let new = Item { value, client_flags: store.client_flags, expires_at_ms, ..Item::default() };
        let item = match (store.verb, found) {
            (StoreVerb::Set, _) | (StoreVerb::Add, None) | (StoreVerb::Replace, Some(_)) => new,
            (StoreVerb::Append, Some(item)) => joined(&item, &[&item.value, data]),
            (StoreVerb::Prepend, Some(item)) => joined(&item, &[data, &item.value]),
            (StoreVerb::Cas, Some(item)) if item.cas == store.cas_unique => new,
            (StoreVerb::Cas, Some(_)) => return Reply::Exists,
            (StoreVerb::Cas, None) => return Reply::NotFound,
            _ => return Reply::NotStored,
        };
        self.put(key, item);
        Reply::Stored
    }

    fn meta(&mut self, meta: &Meta<'_>, data: &[u8], key: Bytes, found: Option<Item>, now_ms: u64) -> Reply {
        let flags = &meta.flags;
        let line = |code: &str| Reply::Meta { line: header(code, flags, &key, None, now_ms), value: None };
        let refusal = match (number::<u64>(flags, b'C'), &found) {
            (Some(_), None) => Some("NF"),
            (Some(cas), Some(item)) if item.cas != cas => Some("EX"),
            _ => None,
        };
        match meta.verb {
            MetaVerb::Get => {
                let win = found.is_none();
                let mut item = match (found, number(flags, b'N')) {
                    (Some(item), _) => item,
                    (None, None) => return line("EN"),
                    (None, Some(lease_s)) => {
                        let expires_at_ms = expires_at(lease_s, now_ms);
                        self.put(key.clone(), Item { expires_at_ms, token_sent: true, ..Item::default() });
                        self.items[&key].clone()
                    }
                };
                if let Some(exptime) = number(flags, b'T') {
                    item.expires_at_ms = expires_at(exptime, now_ms);
                    self.items.insert(key.clone(), item.clone());
                }
                let mut reply = hit(flags, &key, &item, now_ms);
                if let Reply::Meta { line, .. } = &mut reply {
                    let token = if win { &b" W"[..] } else { b" Z" };
                    let stale = if item.stale { &b" X"[..] } else { b"" };
                    *line = [&line[..], stale, if item.token_sent { token } else { b"" }].concat().into();
                }
                reply
            }
            MetaVerb::Set => {
                let code = match (flags.mode, &found) {
                    (MetaMode::Append | MetaMode::Prepend | MetaMode::Replace, None)
                    | (MetaMode::Add, Some(_)) => Some("NS"),
                    _ => refusal.filter(|_| !self.ignores_cas),
                };
                if let Some(code) = code {
                    return line(code);
                }
                let item = match (flags.mode, found) {
                    (MetaMode::Append, Some(item)) => joined(&item, &[&item.value, data]),
                    (MetaMode::Prepend, Some(item)) => joined(&item, &[data, &item.value]),
                    _ => Item {
                        value: Bytes::copy_from_slice(data),
                        client_flags: number(flags, b'F').unwrap_or(0),
                        expires_at_ms: expires_at(number(flags, b'T').unwrap_or(0), now_ms),
                        ..Item::default()
                    },
                };
                self.put(key.clone(), item);
                let item = &self.items[&key];
                let line = header("HD", flags, &key, Some((item, b"c")), now_ms);
                Reply::Meta { line, value: None }
            }
            MetaVerb::Delete => {
                let code = refusal.unwrap_or(if found.is_some() { "HD" } else { "NF" });
                if code == "HD" {
                    self.items.remove(&key);
                }
                line(code)
            }
            MetaVerb::Arithmetic => {
                if let Some(code) = refusal {
                    return line(code);
                }
                let item = match (found, number(flags, b'N')) {
                    (None, None) => return line("NF"),
                    (None, Some(exptime)) => {
                        let value = number(flags, b'J').unwrap_or(0u64).to_string().into();
                        Item { value, expires_at_ms: expires_at(exptime, now_ms), ..Item::default() }
                    }
                    (Some(item), _) => {
                        let delta = number(flags, b'D').unwrap_or(1);
                        let Some(sum) = count(&item, delta, flags.mode == MetaMode::Decrement) else {
                            return non_numeric();
                        };
                        Item { value: sum.to_string().into(), ..item }
                    }
                };
                self.put(key.clone(), item);
                hit(flags, &key, &self.items[&key], now_ms)
            }
            MetaVerb::Debug => panic!("a memcached of the testkit was sent `me`, which no proxy sends"),
        }
    }
}

fn keyless(command: &Command<'_>) -> Reply {
    match command {
        Command::Version => Reply::Done,
        Command::MetaNoop => Reply::Meta { line: "MN".into(), value: None },
        other => panic!("a memcached of the testkit was sent {other:?}, which no proxy sends"),
    }
}

fn non_numeric() -> Reply {
    let line = "CLIENT_ERROR cannot increment or decrement non-numeric value".into();
    Reply::Error { kind: ErrorKind::Client, line }
}

/// When an item with this exptime is gone, Unix milliseconds; one of a negative exptime is so at once.
fn expires_at(exptime: i64, now_ms: u64) -> Option<u64> {
    match exptime {
        0 => None,
        exptime if exptime > RELATIVE_MAX_S => Some(exptime as u64 * 1000),
        _ => Some(now_ms.saturating_add_signed(exptime * 1000)),
    }
}

fn count(item: &Item, delta: u64, decrement: bool) -> Option<u64> {
    let number: u64 = std::str::from_utf8(&item.value).ok()?.parse().ok()?;
    Some(if decrement { number.saturating_sub(delta) } else { number.wrapping_add(delta) })
}

/// `item` with a value of these parts, which somebody filled.
fn joined(item: &Item, parts: &[&[u8]]) -> Item {
    Item { value: parts.concat().into(), token_sent: false, ..item.clone() }
}

/// The number of a meta flag, as written in the command.
fn number<T: std::str::FromStr>(flags: &MetaFlags<'_>, wanted: u8) -> Option<T> {
    let (_, token) = flags.iter().find(|(letter, _)| *letter == wanted)?;
    let number = std::str::from_utf8(token).ok().and_then(|digits| digits.parse().ok());
    Some(number.unwrap_or_else(|| panic!("{} is no number", token.escape_ascii())))
}

/// The reply to `mg` and `ma` that shows `item`: with its value when the flag `v` asks for it.
fn hit(flags: &MetaFlags<'_>, key: &[u8], item: &Item, now_ms: u64) -> Reply {
    let value = flags.has(b'v').then(|| item.value.clone());
    let code = if value.is_some() { format!("VA {}", item.value.len()) } else { "HD".to_owned() };
    Reply::Meta { line: header(&code, flags, key, Some((item, b"fcst")), now_ms), value }
}

/// `code` and what the flags ask for, in their order: opaque and key always; of the item, where there is one,
/// what is among these letters.
fn header(code: &str, flags: &MetaFlags<'_>, key: &[u8], item: Option<(&Item, &[u8])>, now_ms: u64) -> Bytes {
    let mut line = code.as_bytes().to_vec();
    for (letter, token) in flags.iter() {
        let shown = item.filter(|(_, letters)| letters.contains(&letter)).map(|(item, _)| item);
        let number = match (letter, shown) {
            (b'O', _) => {
                line.extend_from_slice(&[b" O", token].concat());
                continue;
            }
            (b'k', _) => {
                line.extend_from_slice(&[b" k", key].concat());
                continue;
            }
            (b'f', Some(item)) => i64::from(item.client_flags),
            (b'c', Some(item)) => item.cas as i64,
            (b's', Some(item)) => item.value.len() as i64,
            (b't', Some(item)) => {
                item.expires_at_ms.map_or(-1, |at_ms| (at_ms.saturating_sub(now_ms) / 1000) as i64)
            }
            _ => continue,
        };
        line.extend_from_slice(format!(" {}{number}", char::from(letter)).as_bytes());
    }
    line.into()
}

/// Appends `reply`, the reply to `command`, as a memcached sends it. The reply to one key of a retrieval is
/// without the `END` of the line.
///
/// # Panics
/// When a value answers anything but a retrieval.
pub fn encode_reply(command: &Command<'_>, reply: &Reply, out: &mut Vec<u8>) {
    let line: &[u8] = match reply {
        Reply::Value { client_flags, cas_unique, value } => {
            let Command::Retrieve(retrieve) = command else { panic!("a value answers {command:?}") };
            text::encode_value_header(out, retrieve.key, *client_flags, value.len() as u32, *cas_unique);
            value
        }
        Reply::Miss => return,
        Reply::Number(number) => return text::encode_number(out, *number),
        Reply::Done if matches!(command, Command::Version) => return text::encode_version(out, VERSION),
        Reply::Meta { line, value: Some(value) } => {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
            value
        }
        Reply::Meta { line, value: None } | Reply::Error { line, .. } => line,
        Reply::Stored => b"STORED",
        Reply::NotStored => b"NOT_STORED",
        Reply::Exists => b"EXISTS",
        Reply::NotFound => b"NOT_FOUND",
        Reply::Deleted => b"DELETED",
        Reply::Touched => b"TOUCHED",
        Reply::Done => b"OK",
    };
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}
