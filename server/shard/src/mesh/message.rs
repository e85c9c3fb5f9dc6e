//! What shards send each other: requests with the bytes they name, and replies ready for the wire.

use corecached_engine::PinnedValue;
use corecached_protocol::{Arithmetic, Binary, Command, Delete, Meta, MetaFlags, Retrieve, Store, Touch};

use crate::admin::crawler::ItemList;
use crate::net::ConnId;

/// Where a reply goes: the connection and the place in its order.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo {
    /// On the asking shard.
    pub conn: ConnId,
    /// Number of the request on that connection; [`GATHER`] for an answer to a broadcast.
    pub sequence: u32,
}

/// The sequence number of answers to a broadcast.
pub const GATHER: u32 = u32::MAX;

/// What part of a reply bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Piece {
    /// All of it, or the last of it.
    #[default]
    Last,
    /// The first or next of it: more follow.
    More,
    /// An error in the place of the rest. It is the reply where nothing of that has been sent.
    Broken,
}

/// What one shard asks of another.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A command on a key, with its data block.
    Execute {
        /// Names the key and its arguments.
        command: Command<'a>,
        /// The key's hash, made once.
        hash: u64,
        /// The value, for commands that have one.
        data: &'a [u8],
    },
    /// Drop the key: a write to it was refused, and its old value would be stale.
    Unlink {
        /// As sent: base64 when `base64` says so.
        key: &'a [u8],
        /// The key's hash.
        hash: u64,
        /// A meta key in base64.
        base64: bool,
    },
    /// A value too large to wait for: its bytes follow in pieces.
    UploadBegin {
        /// Bytes of the value.
        value_len: u32,
    },
    /// The next piece. Never answered.
    UploadPiece {
        /// Its bytes.
        data: &'a [u8],
    },
    /// All pieces have come: do what the command says.
    UploadCommit {
        /// Names the key and its arguments.
        command: Command<'a>,
        /// The key's hash.
        hash: u64,
    },
    /// The client broke off. Never answered.
    UploadAbort,
    /// Something every shard must do; answered with [`GATHER`].
    Broadcast(Broadcast),
}

/// What every shard is asked to do at the same point of a connection's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// Everything stored so far dies at this second.
    Flush {
        /// Unix seconds.
        at_s: u32,
    },
    /// A new memory limit for each slice.
    MemoryLimit {
        /// Bytes a slice.
        bytes: usize,
    },
    /// Counters start again.
    ResetCounters,
    /// Name some of your items.
    DescribeItems {
        /// How many at most.
        limit: u32,
    },
    /// List some of your items; asked of one shard at a time.
    ListItems {
        /// Where to begin.
        from: u64,
        /// How.
        list: ItemList,
    },
    /// Describe your connections.
    DescribeConns,
    /// Of a proxy: describe what you count.
    DescribeRelay,
    /// Describe your prefix counters.
    DescribePrefixes,
    /// Count by prefix from now on, or no longer.
    CountPrefixes {
        /// From now on.
        on: bool,
    },
}

/// One shard's answer.
#[derive(Debug)]
pub struct Reply<'a> {
    /// To whom.
    pub to: ReplyTo,
    /// How much of it.
    pub piece: Piece,
    /// What the client gets; the pinned value goes in at `split`.
    pub bytes: &'a [u8],
    /// Where in `bytes` the value goes.
    pub split: usize,
    /// A value sent from where it lies.
    pub pinned: Option<PinnedValue>,
}

/// Messages from one shard to another, published together.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<Packed>,
    bytes: Vec<u8>,
    pinned: Vec<PinnedValue>,
    /// Pinned values going home.
    pub returned: Vec<PinnedValue>,
}

/// A message whose slices are places in the batch's bytes.
#[derive(Clone, Copy, Debug)]
enum Packed {
    Request { to: ReplyTo, hash: u64, request: Request<'static>, key: u32, extra: u32, data: u32 },
    Reply { to: ReplyTo, piece: Piece, len: u32, split: u32, pinned: bool },
}

/// A message taken from a batch.
#[derive(Debug)]
pub enum Message<'a> {
    /// Asked of us.
    Request {
        /// Where the answer goes.
        to: ReplyTo,
        /// What.
        request: Request<'a>,
    },
    /// Answered to us.
    Reply(Reply<'a>),
}

impl Batch {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.returned.is_empty()
    }

    /// Bytes that its messages carry.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() + self.messages.len() * size_of::<Packed>()
    }

    /// Bytes it holds on to when empty.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity() + self.messages.capacity() * size_of::<Packed>()
    }

    /// Append a request.
    pub fn push_request(&mut self, to: ReplyTo, request: &Request<'_>) {
        let (hash, key, extra, data, request): (u64, &[u8], &[u8], &[u8], Request<'static>) = match *request {
            Request::Execute { command, hash, data } => {
                let (key, extra) = slices(&command);
                (hash, key, extra, data, Request::Execute { command: strip(command), hash, data: &[] })
            }
            Request::Unlink { key, hash, base64 } => {
                (hash, key, &[], &[], Request::Unlink { key: &[], hash, base64 })
            }
            Request::UploadPiece { data } => (0, &[], &[], data, Request::UploadPiece { data: &[] }),
            Request::UploadCommit { command, hash } => {
                let (key, extra) = slices(&command);
                (hash, key, extra, &[], Request::UploadCommit { command: strip(command), hash })
            }
            Request::UploadBegin { value_len } => (0, &[], &[], &[], Request::UploadBegin { value_len }),
            Request::UploadAbort => (0, &[], &[], &[], Request::UploadAbort),
            Request::Broadcast(what) => (0, &[], &[], &[], Request::Broadcast(what)),
        };
        for part in [key, extra, data] {
            self.bytes.extend_from_slice(part);
        }
        let (key, extra, data) = (key.len() as u32, extra.len() as u32, data.len() as u32);
        self.messages.push(Packed::Request { to, hash, request, key, extra, data });
    }

    /// Append a reply whose bytes `write` appends to the buffer it is given; it returns a value to pin into them.
    pub fn push_reply(
        &mut self,
        to: ReplyTo,
        piece: Piece,
        write: impl FnOnce(&mut Vec<u8>) -> Option<(usize, PinnedValue)>,
    ) {
        let start = self.bytes.len();
        let large = write(&mut self.bytes);
        let len = (self.bytes.len() - start) as u32;
        let (split, pinned) = match large {
            Some((at, value)) => {
                self.pinned.push(value);
                ((at - start) as u32, true)
            }
            None => (0, false),
        };
        self.messages.push(Packed::Reply { to, piece, len, split, pinned });
    }

    /// Hashes of the keys asked for, in order.
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        self.messages.iter().filter_map(|message| match message {
            Packed::Request { hash, request: Request::Execute { .. }, .. } => Some(*hash),
            _ => None,
        })
    }

    /// Give every message to `each`, in order, and leave the batch empty.
    pub fn drain(&mut self, mut each: impl FnMut(Message<'_>)) {
        let mut at = 0;
        let mut pinned = std::mem::take(&mut self.pinned).into_iter();
        let bytes = &self.bytes;
        let mut next = |len: u32| {
            at += len as usize;
            &bytes[at - len as usize..at]
        };
        for message in self.messages.drain(..) {
            match message {
                Packed::Request { to, hash, request, key, extra, data } => {
                    let (key, extra, data) = (next(key), next(extra), next(data));
                    let request = match request {
                        Request::Execute { command, .. } => {
                            Request::Execute { command: restore(command, key, extra), hash, data }
                        }
                        Request::Unlink { base64, .. } => Request::Unlink { key, hash, base64 },
                        Request::UploadPiece { .. } => Request::UploadPiece { data },
                        Request::UploadCommit { command, .. } => {
                            Request::UploadCommit { command: restore(command, key, extra), hash }
                        }
                        other => other,
                    };
                    each(Message::Request { to, request });
                }
                Packed::Reply { to, piece, len, split, pinned: has_pinned } => {
                    let bytes = next(len);
                    let pinned = if has_pinned { pinned.next() } else { None };
                    each(Message::Reply(Reply { to, piece, bytes, split: split as usize, pinned }));
                }
            }
        }
        self.bytes.clear();
    }
}

/// The slices that a keyed command borrows: its key, and the flags of a meta command.
fn slices<'a>(command: &Command<'a>) -> (&'a [u8], &'a [u8]) {
    match command {
        Command::Retrieve(retrieve) => (retrieve.key, &[]),
        Command::Store(store) => (store.key, &[]),
        Command::Delete(delete) => (delete.key, &[]),
        Command::Arithmetic(arithmetic) => (arithmetic.key, &[]),
        Command::Touch(touch) => (touch.key, &[]),
        Command::Meta(meta) => (meta.key, meta.flags.tokens),
        Command::Binary(binary) => (binary.key, &[]),
        _ => unreachable!("only commands on a key are forwarded"),
    }
}

fn strip(command: Command<'_>) -> Command<'static> {
    restore(command, &[], &[])
}

/// The same command over other bytes.
fn restore<'b>(command: Command<'_>, key: &'b [u8], tokens: &'b [u8]) -> Command<'b> {
    match command {
        Command::Retrieve(from) => {
            let Retrieve { with_cas, touch, last, .. } = from;
            Command::Retrieve(Retrieve { key, with_cas, touch, last })
        }
        Command::Store(from) => {
            let Store { verb, client_flags, exptime, value_len, cas_unique, noreply, .. } = from;
            Command::Store(Store { verb, key, client_flags, exptime, value_len, cas_unique, noreply })
        }
        Command::Delete(Delete { noreply, .. }) => Command::Delete(Delete { key, noreply }),
        Command::Arithmetic(Arithmetic { delta, decrement, noreply, .. }) => {
            Command::Arithmetic(Arithmetic { key, delta, decrement, noreply })
        }
        Command::Touch(Touch { exptime, noreply, .. }) => Command::Touch(Touch { key, exptime, noreply }),
        Command::Binary(from) => {
            let Binary {
                verb,
                quiet,
                with_key,
                envelope,
                compare_cas,
                client_flags,
                expires,
                delta,
                initial,
                value_len,
                ..
            } = from;
            Command::Binary(Binary {
                verb,
                quiet,
                with_key,
                envelope,
                key,
                compare_cas,
                client_flags,
                expires,
                delta,
                initial,
                value_len,
            })
        }
        Command::Meta(Meta { verb, value_len, flags, .. }) => {
            let MetaFlags {
                present,
                exptime,
                vivify,
                recache_s,
                new_cas,
                compare_cas,
                client_flags,
                delta,
                initial,
                mode,
                ..
            } = flags;
            let flags = MetaFlags {
                present,
                tokens,
                exptime,
                vivify,
                recache_s,
                new_cas,
                compare_cas,
                client_flags,
                delta,
                initial,
                mode,
            };
            Command::Meta(Meta { verb, key, value_len, flags })
        }
        _ => unreachable!("only commands on a key are forwarded"),
    }
}
