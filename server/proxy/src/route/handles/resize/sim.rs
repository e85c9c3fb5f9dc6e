//! Servers by hand for the tests of this module: what of memcached a resize relies on, over a clock and with
//! deaths that the test decides.

use std::collections::BTreeMap;

use bytes::Bytes;
use corecached_protocol::{
    Arithmetic, Command, ErrorKind, MetaFlags, MetaMode, MetaVerb, Reply, Store, StoreVerb, Touch,
};

use crate::request::OwnedRequest;

/// One item.
#[derive(Clone, Debug, Default)]
pub struct Item {
    pub value: Bytes,
    pub client_flags: u32,
    pub cas: u64,
    /// Unix milliseconds; `None`: never.
    pub dies_ms: Option<u64>,
    /// The token that makes the one who has it fill the item was given out.
    pub token_sent: bool,
    pub stale: bool,
}

/// A memcached.
#[derive(Debug, Default)]
pub struct FakeServer {
    pub items: BTreeMap<Bytes, Item>,
    pub dead: bool,
    /// Takes every `ms` whatever its cas unique: as if copies were not fenced.
    pub ignores_cas: bool,
    pub cas: u64,
    pub now_ms: u64,
}

fn meta(line: String, value: Option<Bytes>) -> Reply {
    Reply::Meta { line: line.into(), value }
}

fn number(text: &[u8]) -> i64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

impl FakeServer {
    fn dies(&self, exptime: i64) -> Option<u64> {
        match exptime {
            0 => None,
            // Absolute, as memcached has it.
            exptime if exptime > 60 * 60 * 24 * 30 => Some(exptime as u64 * 1000),
            exptime => Some(self.now_ms.saturating_add_signed(exptime * 1000)),
        }
    }

    fn put(&mut self, key: &Bytes, mut item: Item) -> u64 {
        self.cas += 1;
        item.cas = self.cas;
        self.items.insert(key.clone(), item);
        self.cas
    }

    pub fn answer(&mut self, request: &OwnedRequest, now_ms: u64) -> Reply {
        if self.dead {
            return Reply::Error { kind: ErrorKind::Connect, line: "SERVER_ERROR connection error".into() };
        }
        self.now_ms = now_ms;
        self.items.retain(|_, item| item.dies_ms.is_none_or(|dies_ms| dies_ms > now_ms));
        let command = request.command();
        let key = Bytes::copy_from_slice(command.key().unwrap());
        let there = self.items.get(&key).cloned();
        match command {
            Command::Retrieve(retrieve) => match there {
                None => Reply::Miss,
                Some(item) => {
                    if let Some(exptime) = retrieve.touch {
                        let dies_ms = self.dies(exptime.0);
                        self.items.get_mut(&key).unwrap().dies_ms = dies_ms;
                    }
                    let cas_unique = retrieve.with_cas.then_some(item.cas);
                    Reply::Value { client_flags: item.client_flags, cas_unique, value: item.value }
                }
            },
            Command::Store(store) => self.store(&store, request.data(), &key, there),
            Command::Delete(_) => match self.items.remove(&key) {
                Some(_) => Reply::Deleted,
                None => Reply::NotFound,
            },
            Command::Touch(Touch { exptime, .. }) => match there {
                None => Reply::NotFound,
                Some(item) => {
                    let dies_ms = self.dies(exptime.0);
                    self.items.insert(key, Item { dies_ms, ..item });
                    Reply::Touched
                }
            },
            Command::Arithmetic(Arithmetic { delta, decrement, .. }) => match there {
                None => Reply::NotFound,
                Some(item) => match Self::count(&item, delta, decrement) {
                    Some(count) => {
                        self.put(&key, Item { value: count.to_string().into(), ..item });
                        Reply::Number(count)
                    }
                    None => Reply::Error { kind: ErrorKind::Client, line: "CLIENT_ERROR non-numeric".into() },
                },
            },
            Command::Meta(command) => self.meta(command.verb, &command.flags, request.data(), &key, there),
            _ => panic!("{command:?}"),
        }
    }

    fn count(item: &Item, delta: u64, decrement: bool) -> Option<u64> {
        let count: u64 = std::str::from_utf8(&item.value).ok()?.parse().ok()?;
        Some(if decrement { count.saturating_sub(delta) } else { count.wrapping_add(delta) })
    }

    fn store(&mut self, store: &Store, data: &Bytes, key: &Bytes, there: Option<Item>) -> Reply {
        let dies_ms = self.dies(store.exptime.0);
        let new = Item { value: data.clone(), client_flags: store.client_flags, dies_ms, ..Item::default() };
        match (store.verb, there) {
            (StoreVerb::Set, _) | (StoreVerb::Add, None) | (StoreVerb::Replace, Some(_)) => {
                self.put(key, new)
            }
            (StoreVerb::Append, Some(item)) => {
                let value = [&item.value[..], data].concat().into();
                self.put(key, Item { value, token_sent: false, ..item })
            }
            (StoreVerb::Prepend, Some(item)) => {
                let value = [data, &item.value[..]].concat().into();
                self.put(key, Item { value, token_sent: false, ..item })
            }
            (StoreVerb::Cas, Some(item)) if item.cas == store.cas_unique => self.put(key, new),
            (StoreVerb::Cas, Some(_)) => return Reply::Exists,
            (StoreVerb::Cas, None) => return Reply::NotFound,
            _ => return Reply::NotStored,
        };
        Reply::Stored
    }

    fn meta(
        &mut self,
        verb: MetaVerb,
        flags: &MetaFlags,
        data: &Bytes,
        key: &Bytes,
        there: Option<Item>,
    ) -> Reply {
        let token = |wanted: u8| flags.iter().find_map(|(letter, token)| (letter == wanted).then_some(token));
        let cas = token(b'C').map(|token| number(token) as u64);
        let refused = |item: &Option<Item>| match (cas, item) {
            (Some(_), None) => Some("NF"),
            (Some(cas), Some(item)) if item.cas != cas => Some("EX"),
            _ => None,
        };
        match verb {
            MetaVerb::Get => {
                let mut won = false;
                if there.is_none() {
                    let Some(lease) = token(b'N') else { return meta("EN".into(), None) };
                    let dies_ms = self.dies(number(lease));
                    self.put(key, Item { dies_ms, token_sent: true, ..Item::default() });
                    won = true;
                }
                let touched = token(b'T').map(|token| self.dies(number(token)));
                let now_ms = self.now_ms;
                let item = self.items.get_mut(key).unwrap();
                if let Some(dies_ms) = touched {
                    item.dies_ms = dies_ms;
                }
                let mut line = match flags.has(b'v') {
                    true => format!("VA {}", item.value.len()),
                    false => "HD".into(),
                };
                for (letter, _) in flags.iter() {
                    match letter {
                        b'f' => line += &format!(" f{}", item.client_flags),
                        b'c' => line += &format!(" c{}", item.cas),
                        b's' => line += &format!(" s{}", item.value.len()),
                        b't' => {
                            let ttl = item
                                .dies_ms
                                .map_or(-1, |dies_ms| (dies_ms.saturating_sub(now_ms) / 1000) as i64);
                            line += &format!(" t{ttl}");
                        }
                        _ => {}
                    }
                }
                if item.stale {
                    line += " X";
                }
                if won {
                    line += " W";
                } else if item.token_sent {
                    line += " Z";
                }
                let value = flags.has(b'v').then(|| item.value.clone());
                meta(line, value)
            }
            MetaVerb::Set => {
                let refused = if self.ignores_cas { None } else { refused(&there) };
                let refused = match (flags.mode, &there) {
                    (MetaMode::Append | MetaMode::Prepend | MetaMode::Replace, None) => Some("NS"),
                    (MetaMode::Add, Some(_)) => Some("NS"),
                    _ => refused,
                };
                if let Some(refused) = refused {
                    return meta(refused.into(), None);
                }
                let cas = match (flags.mode, there) {
                    (MetaMode::Append, Some(item)) => {
                        let value = [&item.value[..], data].concat().into();
                        self.put(key, Item { value, token_sent: false, ..item })
                    }
                    _ => {
                        let dies_ms = self.dies(token(b'T').map_or(0, number));
                        let client_flags = token(b'F').map_or(0, number) as u32;
                        self.put(key, Item { value: data.clone(), client_flags, dies_ms, ..Item::default() })
                    }
                };
                meta(if flags.has(b'c') { format!("HD c{cas}") } else { "HD".into() }, None)
            }
            MetaVerb::Delete => {
                if let Some(refused) = refused(&there) {
                    return meta(refused.into(), None);
                }
                let code = if self.items.remove(key).is_some() { "HD" } else { "NF" };
                let opaque = token(b'O').map_or(String::new(), |token| format!(" O{}", number(token)));
                meta(format!("{code}{opaque}"), None)
            }
            MetaVerb::Arithmetic => {
                let Some(item) = there else { return meta("NF".into(), None) };
                if let Some(refused) = refused(&Some(item.clone())) {
                    return meta(refused.into(), None);
                }
                let delta = token(b'D').map_or(1, number) as u64;
                match Self::count(&item, delta, flags.mode == MetaMode::Decrement) {
                    Some(count) => {
                        let value = Bytes::from(count.to_string());
                        self.put(key, Item { value: value.clone(), ..item });
                        meta(format!("VA {}", value.len()), Some(value))
                    }
                    None => Reply::Error { kind: ErrorKind::Client, line: "CLIENT_ERROR non-numeric".into() },
                }
            }
            MetaVerb::Debug => panic!("me"),
        }
    }
}

/// Copies a tag of an item in; what a client of `md ... I` does.
pub fn declare_stale(server: &mut FakeServer, key: &str) {
    if let Some(item) = server.items.get_mut(key.as_bytes()) {
        item.stale = true;
    }
}
