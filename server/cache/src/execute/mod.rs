//! Carries out a command on a key, on the store that owns the key, and writes the reply.
//!
//! Here a [`Command`] becomes calls of [`Store`], and their results become a reply. Which other files call a
//! store is listed in the documentation of the crate.

mod binary;

use corecached_engine::{
    ArithmeticHow, Counted, DeleteHow, Deleted, Item, Key, MetaGet, MetaGot, Mode, PinnedValue, Seconds,
    Store, StoreHow, Stored,
};
use corecached_protocol::{
    Arithmetic, Command, Delete, Expiry, Exptime, Meta, MetaFlags, MetaKey, MetaMode, MetaVerb, Retrieve,
    StoreVerb, Touch, line,
    meta::{self, MetaCode, MetaDebug, MetaItem},
    number, text,
};

use corecached_shard::counters::Counters;

use crate::config::CacheConfig;

/// Longest value in bytes that is copied into a reply on the shard that stores it. A longer one is sent from
/// the store.
pub(crate) const COPY_MAX: usize = 16 * 1024;
/// Longest value in bytes that is copied into a reply that crosses the mesh, or that is kept until earlier
/// replies have been sent. Such a value would be copied twice.
pub(crate) const COPY_ACROSS_MAX: usize = 4 * 1024;

/// A second that has always passed. It stands for a negative exptime.
const LONG_AGO: Seconds = Seconds(1);

/// A value that is sent from the store, and the offset in the output where it goes.
pub(crate) type LargeValue = Option<(usize, PinnedValue)>;

/// The store on which a command is carried out, with what else the command needs.
pub(crate) struct StoreCommand<'s> {
    /// The store that owns the key.
    pub store: &'s mut Store,
    /// The counters of the shard.
    pub counters: &'s mut Counters,
    /// The configuration, for its item size limit.
    pub config: &'s CacheConfig,
    /// The second at which the turn began.
    pub now: Seconds,
    /// Longest value in bytes that is copied into the reply.
    pub copy_max: usize,
}

impl StoreCommand<'_> {
    /// Carries out `command` on its key, whose hash is `hash`, with the value `data`, and appends the reply
    /// to `out`.
    ///
    /// Appends nothing when the client gets no reply. A value longer than `copy_max` is not appended but
    /// returned.
    pub(crate) fn execute(
        &mut self,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> LargeValue {
        match command {
            Command::Retrieve(retrieve) => return self.retrieve(retrieve, hash, out),
            Command::Store(store) => {
                let key = Key { bytes: store.key, hash };
                self.counters.commands.cmd_set += 1;
                let stored =
                    self.store.store(key, data, &how_to_store(store, self.config, self.now), self.now);
                self.store_reply(store, stored, out);
            }
            Command::Delete(delete) => self.delete(delete, hash, out),
            Command::Arithmetic(arithmetic) => self.arithmetic(arithmetic, hash, out),
            Command::Touch(touch) => self.touch(touch, hash, out),
            Command::Meta(meta) => {
                let mut scratch = [0; _];
                let key = Key { bytes: MetaKey::decode(meta, &mut scratch), hash };
                self.counters.commands.cmd_meta += 1;
                match meta.verb {
                    MetaVerb::Get => return self.meta_get(meta, key, out),
                    MetaVerb::Set => {
                        self.counters.commands.cmd_set += 1;
                        let stored = self.store.store(
                            key,
                            data,
                            &how_to_meta_set(meta, self.config, self.now),
                            self.now,
                        );
                        self.meta_set_reply(meta, stored, out);
                    }
                    MetaVerb::Delete => self.meta_delete(meta, key, out),
                    MetaVerb::Arithmetic => self.meta_arithmetic(meta, key, out),
                    MetaVerb::Debug => self.meta_debug(meta, key, out),
                }
            }
            Command::Binary(binary) => return self.binary(binary, hash, data, out),
            _ => unreachable!("a command without a key has no owner"),
        }
        None
    }

    /// Carries out `command` with a value that was uploaded in pieces. `upload` is `None` when there was no
    /// memory for it.
    pub(crate) fn commit(
        &mut self,
        command: &Command<'_>,
        hash: u64,
        upload: Option<corecached_engine::Upload>,
        out: &mut Vec<u8>,
    ) {
        self.counters.commands.cmd_set += 1;
        match command {
            Command::Store(store) => {
                let key = Key { bytes: store.key, hash };
                let how = how_to_store(store, self.config, self.now);
                let stored = self.commit_upload(upload, key, &how);
                self.store_reply(store, stored, out);
            }
            Command::Meta(meta) => {
                let mut scratch = [0; _];
                let key = Key { bytes: MetaKey::decode(meta, &mut scratch), hash };
                self.counters.commands.cmd_meta += 1;
                let how = how_to_meta_set(meta, self.config, self.now);
                let stored = self.commit_upload(upload, key, &how);
                self.meta_set_reply(meta, stored, out);
            }
            Command::Binary(binary) => self.binary_commit(binary, hash, upload, out),
            _ => unreachable!("only storage commands carry a value"),
        }
    }

    fn commit_upload(
        &mut self,
        upload: Option<corecached_engine::Upload>,
        key: Key<'_>,
        how: &StoreHow,
    ) -> Stored {
        match upload {
            Some(upload) => self.store.upload_commit(upload, key, how, self.now),
            None => {
                // As in memcached: the old value goes, since the client may believe that it was replaced.
                if how.mode == Mode::Set {
                    self.unlink(key);
                }
                Stored::NoMemory
            }
        }
    }

    /// Deletes the key, without a reply.
    pub(crate) fn unlink(&mut self, key: Key<'_>) {
        let _ = self.store.delete(key, &DeleteHow::default(), self.now);
    }

    fn retrieve(&mut self, retrieve: &Retrieve<'_>, hash: u64, out: &mut Vec<u8>) -> LargeValue {
        let Retrieve { with_cas, touch, last, .. } = *retrieve;
        let key = Key { bytes: retrieve.key, hash };
        let found = match touch {
            Some(exptime) => self.store.get_and_touch(key, expires_at(exptime, self.now), with_cas, self.now),
            None if with_cas => self.store.get_with_cas(key, self.now),
            None => self.store.get(key, self.now),
        };
        let mut large = None;
        let mut hit = found.is_some();
        if let Some(item) = found {
            let start = out.len();
            let cas = with_cas.then_some(item.cas);
            text::encode_value_header(out, retrieve.key, item.client_flags, item.value.len() as u32, cas);
            if item.value.len() <= self.copy_max {
                item.value.copy_to(out);
            } else {
                let handle = item.handle();
                match self.store.pin(handle) {
                    Some(value) => large = Some((out.len(), value)),
                    None => {
                        // Too much of the store is being sent already. Every client can handle a miss.
                        out.truncate(start);
                        self.counters.response_obj_oom += 1;
                        hit = false;
                    }
                }
            }
            if hit {
                out.extend_from_slice(b"\r\n");
            }
        }
        let counters = &mut *self.counters;
        if touch.is_some() {
            counters.commands.cmd_touch += 1;
            *if hit { &mut counters.commands.touch_hits } else { &mut counters.commands.touch_misses } += 1;
        } else {
            counters.commands.cmd_get += 1;
            *if hit { &mut counters.commands.get_hits } else { &mut counters.commands.get_misses } += 1;
        }
        if last {
            out.extend_from_slice(line::END);
        }
        large
    }

    fn store_reply(&mut self, store: &corecached_protocol::Store<'_>, stored: Stored, out: &mut Vec<u8>) {
        let counters = &mut *self.counters;
        let answer = match stored {
            Stored::Stored { .. } => line::STORED,
            Stored::NotStored => line::NOT_STORED,
            Stored::Exists => line::EXISTS,
            Stored::NotFound if store.verb == StoreVerb::Cas => line::NOT_FOUND,
            Stored::NotFound => line::NOT_STORED,
            Stored::TooLarge => {
                counters.store_too_large += 1;
                match store.verb {
                    StoreVerb::Append | StoreVerb::Prepend => line::NOT_STORED,
                    _ => line::TOO_LARGE,
                }
            }
            Stored::NoMemory => {
                counters.store_no_memory += 1;
                line::OUT_OF_MEMORY
            }
        };
        if store.verb == StoreVerb::Cas {
            match stored {
                Stored::Stored { .. } => counters.commands.cas_hits += 1,
                Stored::NotFound => counters.commands.cas_misses += 1,
                Stored::Exists => counters.commands.cas_badval += 1,
                _ => {}
            }
        }
        if !store.noreply {
            out.extend_from_slice(answer);
        }
    }

    fn delete(&mut self, delete: &Delete<'_>, hash: u64, out: &mut Vec<u8>) {
        let key = Key { bytes: delete.key, hash };
        let deleted = self.store.delete(key, &DeleteHow::default(), self.now) == Deleted::Deleted;
        let counters = &mut *self.counters;
        *if deleted { &mut counters.commands.delete_hits } else { &mut counters.commands.delete_misses } += 1;
        if !delete.noreply {
            out.extend_from_slice(if deleted { line::DELETED } else { line::NOT_FOUND });
        }
    }

    fn arithmetic(&mut self, arithmetic: &Arithmetic<'_>, hash: u64, out: &mut Vec<u8>) {
        let Arithmetic { delta, decrement, noreply, .. } = *arithmetic;
        let key = Key { bytes: arithmetic.key, hash };
        let how = ArithmeticHow { delta, decrement, ..ArithmeticHow::default() };
        let start = out.len();
        let found = match self.store.arithmetic(key, &how, self.now) {
            Counted::Value { value, .. } => {
                text::encode_number(out, value);
                Some(true)
            }
            Counted::NotFound => {
                out.extend_from_slice(line::NOT_FOUND);
                Some(false)
            }
            Counted::NotANumber | Counted::Exists => {
                out.extend_from_slice(line::NON_NUMERIC);
                None
            }
            Counted::NoMemory => {
                out.extend_from_slice(line::OUT_OF_MEMORY);
                None
            }
        };
        self.count_arithmetic(decrement, found);
        if noreply {
            out.truncate(start);
        }
    }

    fn count_arithmetic(&mut self, decrement: bool, found: Option<bool>) {
        let counters = &mut *self.counters;
        *match (decrement, found) {
            (false, Some(true)) => &mut counters.commands.incr_hits,
            (false, Some(false)) => &mut counters.commands.incr_misses,
            (true, Some(true)) => &mut counters.commands.decr_hits,
            (true, Some(false)) => &mut counters.commands.decr_misses,
            (_, None) => return,
        } += 1;
    }

    fn touch(&mut self, touch: &Touch<'_>, hash: u64, out: &mut Vec<u8>) {
        let key = Key { bytes: touch.key, hash };
        let touched = self.store.touch(key, expires_at(touch.exptime, self.now), self.now);
        let counters = &mut *self.counters;
        counters.commands.cmd_touch += 1;
        *if touched { &mut counters.commands.touch_hits } else { &mut counters.commands.touch_misses } += 1;
        if !touch.noreply {
            out.extend_from_slice(if touched { line::TOUCHED } else { line::NOT_FOUND });
        }
    }

    fn meta_get(&mut self, meta: &Meta<'_>, key: Key<'_>, out: &mut Vec<u8>) -> LargeValue {
        let (flags, now) = (&meta.flags, self.now);
        let touch = flags.has(b'T').then(|| expires_at(flags.exptime, now));
        let created = flags.has(b'N').then(|| expires_at(flags.vivify, now));
        let ask = MetaGet {
            touch,
            // Flags act in the order in which they are sent: for an item that is created, the last of N and T
            // decides.
            vivify: created.map(|expires| touch.filter(|_| flags.in_order(b'N', b'T')).unwrap_or(expires)),
            recache_below_s: flags.has(b'R').then_some(flags.recache_s.max(0) as u32),
            recache_after_touch: flags.in_order(b'T', b'R'),
            new_cas: flags.has(b'E').then_some(flags.new_cas),
            with_cas: flags.has(b'c') || flags.has(b'C'),
            bump: !flags.has(b'u'),
            binary_key: flags.has(b'b'),
        };
        let start = out.len();
        let mut large = None;
        let mut hit = true;
        let got = self.store.meta_get(key, &ask, now);
        let is_created = matches!(got, MetaGot::Vivified(_));
        match got {
            MetaGot::Hit(item) | MetaGot::Vivified(item) => {
                let mut shown = meta_item(&item, now);
                let before = if is_created { None } else { item.expires_before };
                let created = created.filter(|_| is_created);
                shown.ttl_s = ttl_s(expires_before_flag_t(flags, before, touch, created), now);
                let unchanged = flags.has(b'C') && item.cas == flags.compare_cas;
                if flags.has(b'v') && !unchanged {
                    meta::encode_header(out, MetaCode::Value, Some(shown.size), meta, &shown);
                    if item.value.len() <= self.copy_max {
                        item.value.copy_to(out);
                        out.extend_from_slice(b"\r\n");
                    } else {
                        let handle = item.handle();
                        match self.store.pin(handle) {
                            Some(value) => {
                                large = Some((out.len(), value));
                                out.extend_from_slice(b"\r\n");
                            }
                            None => {
                                out.truncate(start);
                                self.counters.response_obj_oom += 1;
                                hit = false;
                            }
                        }
                    }
                } else {
                    meta::encode_header(out, MetaCode::Done, None, meta, &shown);
                }
            }
            MetaGot::Miss => hit = false,
            MetaGot::NoMemory => {
                out.extend_from_slice(line::OUT_OF_MEMORY);
                self.counters.store_no_memory += 1;
                return None;
            }
        }
        let counters = &mut *self.counters;
        // As in memcached, a miss counts as one of a read even when it was to touch.
        if hit && ask.touch.is_some() {
            counters.commands.cmd_touch += 1;
            counters.commands.touch_hits += 1;
        } else {
            counters.commands.cmd_get += 1;
            *if hit { &mut counters.commands.get_hits } else { &mut counters.commands.get_misses } += 1;
        }
        if !hit && !meta::is_hidden(meta, MetaCode::Miss) {
            meta::encode_header(out, MetaCode::Miss, None, meta, &MetaItem::default());
        }
        large
    }

    fn meta_set_reply(&mut self, meta: &Meta<'_>, stored: Stored, out: &mut Vec<u8>) {
        let (code, item) = match stored {
            Stored::Stored { cas, value_len } => {
                (MetaCode::Done, MetaItem { cas, size: value_len as u32, ..MetaItem::default() })
            }
            Stored::NotStored => (MetaCode::NotStored, MetaItem::default()),
            Stored::Exists => (MetaCode::Exists, MetaItem::default()),
            Stored::NotFound => (MetaCode::NotFound, MetaItem::default()),
            Stored::TooLarge => {
                self.counters.store_too_large += 1;
                if !matches!(meta.flags.mode, MetaMode::Append | MetaMode::Prepend) {
                    return out.extend_from_slice(line::TOO_LARGE);
                }
                (MetaCode::NotStored, MetaItem::default())
            }
            Stored::NoMemory => {
                self.counters.store_no_memory += 1;
                return out.extend_from_slice(line::OUT_OF_MEMORY);
            }
        };
        if meta.flags.has(b'C') {
            match code {
                MetaCode::Done => self.counters.commands.cas_hits += 1,
                MetaCode::Exists => self.counters.commands.cas_badval += 1,
                _ => self.counters.commands.cas_misses += 1,
            }
        }
        if !meta::is_hidden(meta, code) {
            // A failed `ms` shows the size it was sent.
            let item = MetaItem { size: if code.is_success() { item.size } else { meta.value_len }, ..item };
            meta::encode_header(out, code, None, meta, &item);
        }
    }

    fn meta_delete(&mut self, meta: &Meta<'_>, key: Key<'_>, out: &mut Vec<u8>) {
        let (flags, now) = (&meta.flags, self.now);
        let how = DeleteHow {
            compare_cas: flags.has(b'C').then_some(flags.compare_cas),
            new_cas: flags.has(b'E').then_some(flags.new_cas),
            invalidate: flags.has(b'I'),
            expires: flags.has(b'T').then(|| expires_at(flags.exptime, now)),
            erase_value: flags.has(b'x'),
        };
        let code = match self.store.delete(key, &how, now) {
            Deleted::Deleted => MetaCode::Done,
            Deleted::NotFound => MetaCode::NotFound,
            Deleted::Exists => MetaCode::Exists,
            Deleted::NoMemory => return out.extend_from_slice(line::OUT_OF_MEMORY),
        };
        match code {
            // The item stays, stale.
            MetaCode::Done if how.invalidate => {}
            MetaCode::Done => self.counters.commands.delete_hits += 1,
            _ => self.counters.commands.delete_misses += 1,
        }
        if !meta::is_hidden(meta, code) {
            meta::encode_header(out, code, None, meta, &MetaItem::default());
        }
    }

    fn meta_arithmetic(&mut self, meta: &Meta<'_>, key: Key<'_>, out: &mut Vec<u8>) {
        let (flags, now) = (&meta.flags, self.now);
        let decrement = flags.mode == MetaMode::Decrement;
        let touch = flags.has(b'T').then(|| expires_at(flags.exptime, now));
        let created = flags.has(b'N').then(|| expires_at(flags.vivify, now));
        let last = |expires| touch.filter(|_| flags.in_order(b'N', b'T')).unwrap_or(expires);
        let how = ArithmeticHow {
            delta: flags.delta,
            decrement,
            create: created.map(|expires| (flags.initial, last(expires))),
            expires: touch,
            compare_cas: flags.has(b'C').then_some(flags.compare_cas),
            new_cas: flags.has(b'E').then_some(flags.new_cas),
            with_cas: flags.has(b'c'),
            binary_key: flags.has(b'b'),
        };
        let mut found = None;
        let code = match self.store.arithmetic(key, &how, now) {
            Counted::Value { value, item, created: is_created } => {
                found = (!is_created).then_some(true);
                let code = if flags.has(b'v') { MetaCode::Value } else { MetaCode::Done };
                if !meta::is_hidden(meta, code) {
                    let mut digits = Vec::new();
                    let mut shown = meta_item(&item, now);
                    let before = if is_created { None } else { item.expires_before };
                    let created = created.filter(|_| is_created);
                    shown.ttl_s = ttl_s(expires_before_flag_t(flags, before, touch, created), now);
                    let value_len = (code == MetaCode::Value).then(|| {
                        number::put_decimal(&mut digits, value);
                        digits.len() as u32
                    });
                    meta::encode_header(out, code, value_len, meta, &shown);
                    if value_len.is_some() {
                        out.extend_from_slice(&digits);
                        out.extend_from_slice(b"\r\n");
                    }
                }
                None
            }
            Counted::NotFound => {
                found = Some(false);
                Some(MetaCode::NotFound)
            }
            Counted::Exists => Some(MetaCode::Exists),
            Counted::NotANumber => {
                out.extend_from_slice(line::NON_NUMERIC);
                None
            }
            Counted::NoMemory => {
                out.extend_from_slice(line::OUT_OF_MEMORY);
                None
            }
        };
        self.count_arithmetic(decrement, found);
        if let Some(code) = code
            && !meta::is_hidden(meta, code)
        {
            meta::encode_header(out, code, None, meta, &MetaItem::default());
        }
    }

    fn meta_debug(&mut self, meta: &Meta<'_>, key: Key<'_>, out: &mut Vec<u8>) {
        match self.store.inspect(key, self.now) {
            Some((item, last_access)) => {
                let debug = MetaDebug {
                    ttl_s: ttl_s(item.expires, self.now),
                    last_access_s: self.now.0.saturating_sub(last_access.0),
                    cas: item.cas,
                    binary_key: item.binary_key,
                    fetched: item.hit_before,
                    class: 1,
                    size: u64::from(item.stored_bytes),
                };
                meta::encode_debug(out, meta, &debug);
            }
            None => out.extend_from_slice(line::META_MISS),
        }
    }
}

/// The second at which an item with this exptime expires, as the store takes it. `None` is never.
pub(crate) fn expires_at(exptime: Exptime, now: Seconds) -> Option<Seconds> {
    match exptime.resolve(now.0) {
        Expiry::Never => None,
        Expiry::At(second) => Some(Seconds(second)),
        Expiry::Past => Some(LONG_AGO),
    }
}

/// The time of expiry that the flag `t` shows. Flags act in the order in which they are sent, so it is the
/// time after those flags before `t` that set it.
fn expires_before_flag_t(
    flags: &MetaFlags<'_>,
    before: Option<Seconds>,
    touch: Option<Option<Seconds>>,
    created: Option<Option<Seconds>>,
) -> Option<Seconds> {
    flags.iter().take_while(|&(letter, _)| letter != b't').fold(before, |expires, (letter, _)| match letter {
        b'T' => touch.unwrap_or(expires),
        b'N' => created.unwrap_or(expires),
        _ => expires,
    })
}

fn ttl_s(expires: Option<Seconds>, now: Seconds) -> Option<u32> {
    expires.map(|at| at.0.saturating_sub(now.0))
}

fn meta_item(item: &Item<'_>, now: Seconds) -> MetaItem {
    MetaItem {
        client_flags: item.client_flags,
        cas: item.cas,
        size: item.value.len() as u32,
        ttl_s: ttl_s(item.expires, now),
        hit_before: item.hit_before,
        last_access_s: now.0.saturating_sub(item.last_access().0),
        win: item.win,
        stale: item.stale,
        token_sent: item.token_sent,
        binary_key: item.binary_key,
    }
}

fn how_to_store(store: &corecached_protocol::Store<'_>, config: &CacheConfig, now: Seconds) -> StoreHow {
    StoreHow {
        mode: match store.verb {
            StoreVerb::Set | StoreVerb::Cas => Mode::Set,
            StoreVerb::Add => Mode::Add,
            StoreVerb::Replace => Mode::Replace,
            StoreVerb::Append => Mode::Append,
            StoreVerb::Prepend => Mode::Prepend,
        },
        client_flags: store.client_flags,
        expires: expires_at(store.exptime, now),
        compare_cas: (store.verb == StoreVerb::Cas).then_some(store.cas_unique),
        value_bytes_max: Some(config.item_limit.value_bytes_max(store.key.len(), store.client_flags)),
        ..StoreHow::default()
    }
}

fn how_to_meta_set(meta: &Meta<'_>, config: &CacheConfig, now: Seconds) -> StoreHow {
    let flags = &meta.flags;
    StoreHow {
        mode: match flags.mode {
            MetaMode::Add => Mode::Add,
            MetaMode::Append => Mode::Append,
            MetaMode::Prepend => Mode::Prepend,
            MetaMode::Replace => Mode::Replace,
            MetaMode::Set | MetaMode::Increment | MetaMode::Decrement => Mode::Set,
        },
        client_flags: flags.client_flags,
        expires: expires_at(flags.exptime, now),
        compare_cas: flags.has(b'C').then_some(flags.compare_cas),
        new_cas: flags.has(b'E').then_some(flags.new_cas),
        stale_if_older: flags.has(b'I'),
        vivify: flags.has(b'N').then(|| expires_at(flags.vivify, now)),
        with_cas: flags.has(b'c'),
        binary_key: flags.has(b'b'),
        value_bytes_max: Some(config.item_limit.value_bytes_max(meta.key.len(), flags.client_flags)),
    }
}
