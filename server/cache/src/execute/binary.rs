//! Carries out requests of the binary protocol on a key, on the store that owns the key.

use corecached_engine::{ArithmeticHow, Counted, DeleteHow, Deleted, Key, Mode, StoreHow, Stored, Upload};
use corecached_protocol::{Binary, BinaryVerb, binary, binary::Status};

use super::{LargeValue, StoreCommand, expires_at};

impl StoreCommand<'_> {
    /// Does for a binary request what [`StoreCommand::execute`] does.
    pub(super) fn binary(
        &mut self,
        binary: &Binary<'_>,
        hash: u64,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> LargeValue {
        let key = Key { bytes: binary.key, hash };
        match binary.verb {
            BinaryVerb::Get | BinaryVerb::Touch | BinaryVerb::GetAndTouch => {
                return self.binary_retrieve(binary, key, out);
            }
            BinaryVerb::Set
            | BinaryVerb::Add
            | BinaryVerb::Replace
            | BinaryVerb::Append
            | BinaryVerb::Prepend => {
                self.counters.commands.cmd_set += 1;
                let stored = self.store.store(key, data, &self.how_to_store_binary(binary), self.now);
                self.binary_stored(binary, stored, out);
            }
            BinaryVerb::Delete => self.binary_delete(binary, key, out),
            BinaryVerb::Increment | BinaryVerb::Decrement => self.binary_arithmetic(binary, key, out),
        }
        None
    }

    /// Does for a binary request what [`StoreCommand::commit`] does.
    pub(super) fn binary_commit(
        &mut self,
        binary: &Binary<'_>,
        hash: u64,
        upload: Option<Upload>,
        out: &mut Vec<u8>,
    ) {
        let how = self.how_to_store_binary(binary);
        let stored = self.commit_upload(upload, Key { bytes: binary.key, hash }, &how);
        self.binary_stored(binary, stored, out);
    }

    fn binary_retrieve(&mut self, binary: &Binary<'_>, key: Key<'_>, out: &mut Vec<u8>) -> LargeValue {
        let touches = binary.verb != BinaryVerb::Get;
        let found = if touches {
            self.store.get_and_touch(key, expires_at(binary.exptime(), self.now), true, self.now)
        } else {
            self.store.get_with_cas(key, self.now)
        };
        let shown_key = if binary.with_key { binary.key } else { &[] };
        let mut large = None;
        let mut hit = found.is_some();
        if let Some(item) = found {
            let start = out.len();
            let value_len = if binary.verb == BinaryVerb::Touch { 0 } else { item.value.len() };
            binary::encode_hit(out, binary.envelope, item.client_flags, shown_key, value_len, item.cas);
            if value_len <= self.copy_max {
                if value_len > 0 {
                    item.value.copy_to(out);
                }
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
        }
        let counters = &mut *self.counters;
        if touches {
            counters.commands.cmd_touch += 1;
            *if hit { &mut counters.commands.touch_hits } else { &mut counters.commands.touch_misses } += 1;
        } else {
            counters.commands.cmd_get += 1;
            *if hit { &mut counters.commands.get_hits } else { &mut counters.commands.get_misses } += 1;
        }
        if !hit && !binary.quiet {
            binary::encode_miss(out, binary.envelope, shown_key);
        }
        large
    }

    fn how_to_store_binary(&self, binary: &Binary<'_>) -> StoreHow {
        let compare_cas = self.compare_cas(binary);
        StoreHow {
            mode: match binary.verb {
                // `ADD` with a cas unique is a compare and swap, as in memcached.
                BinaryVerb::Add if compare_cas.is_none() => Mode::Add,
                BinaryVerb::Replace => Mode::Replace,
                BinaryVerb::Append => Mode::Append,
                BinaryVerb::Prepend => Mode::Prepend,
                _ => Mode::Set,
            },
            client_flags: binary.client_flags,
            expires: expires_at(binary.exptime(), self.now),
            compare_cas,
            // The reply shows the cas unique, and so does every later reply about the item.
            with_cas: true,
            value_bytes_max: Some(
                self.config.item_limit.value_bytes_max(binary.key.len(), binary.client_flags),
            ),
            ..StoreHow::default()
        }
    }

    /// The cas unique to compare with. `None` when the client sent none, or when items have none (`-C`).
    fn compare_cas(&self, binary: &Binary<'_>) -> Option<u64> {
        (binary.compare_cas != 0 && self.config.item_limit.cas).then_some(binary.compare_cas)
    }

    fn binary_stored(&mut self, binary: &Binary<'_>, stored: Stored, out: &mut Vec<u8>) {
        let counters = &mut *self.counters;
        let joins = matches!(binary.verb, BinaryVerb::Append | BinaryVerb::Prepend);
        if binary.compare_cas != 0 && !joins {
            match stored {
                Stored::Stored { .. } => counters.commands.cas_hits += 1,
                Stored::NotFound => counters.commands.cas_misses += 1,
                Stored::Exists => counters.commands.cas_badval += 1,
                _ => {}
            }
        }
        let status = match stored {
            Stored::Stored { cas, .. } => {
                if !binary.quiet {
                    binary::encode_done(out, binary.envelope, cas);
                }
                return;
            }
            Stored::NotStored => match binary.verb {
                BinaryVerb::Add => Status::Exists,
                BinaryVerb::Replace => Status::NotFound,
                _ => Status::NotStored,
            },
            Stored::Exists => Status::Exists,
            Stored::NotFound => Status::NotFound,
            Stored::TooLarge => {
                counters.store_too_large += 1;
                if joins { Status::NotStored } else { Status::TooLarge }
            }
            Stored::NoMemory => {
                counters.store_no_memory += 1;
                Status::OutOfMemory
            }
        };
        binary::encode_status(out, binary.envelope, status);
    }

    fn binary_delete(&mut self, binary: &Binary<'_>, key: Key<'_>, out: &mut Vec<u8>) {
        let how = DeleteHow { compare_cas: self.compare_cas(binary), ..DeleteHow::default() };
        let status = match self.store.delete(key, &how, self.now) {
            Deleted::Deleted => {
                self.counters.commands.delete_hits += 1;
                if !binary.quiet {
                    binary::encode_done(out, binary.envelope, 0);
                }
                return;
            }
            Deleted::NotFound => {
                self.counters.commands.delete_misses += 1;
                Status::NotFound
            }
            Deleted::Exists => Status::Exists,
            Deleted::NoMemory => Status::OutOfMemory,
        };
        binary::encode_status(out, binary.envelope, status);
    }

    fn binary_arithmetic(&mut self, binary: &Binary<'_>, key: Key<'_>, out: &mut Vec<u8>) {
        let decrement = binary.verb == BinaryVerb::Decrement;
        let creates = binary.expires != binary::DO_NOT_CREATE;
        let how = ArithmeticHow {
            delta: binary.delta,
            decrement,
            create: creates.then(|| (binary.initial, expires_at(binary.exptime(), self.now))),
            compare_cas: self.compare_cas(binary),
            with_cas: true,
            ..ArithmeticHow::default()
        };
        let (status, found) = match self.store.arithmetic(key, &how, self.now) {
            Counted::Value { value, item, created } => {
                if !binary.quiet {
                    binary::encode_number(out, binary.envelope, value, item.cas);
                }
                // A number that was created counts neither as a hit nor as a miss, as in memcached.
                (None, (!created).then_some(true))
            }
            Counted::NotFound => (Some(Status::NotFound), Some(false)),
            Counted::NotANumber => (Some(Status::NonNumeric), None),
            Counted::Exists => (Some(Status::Exists), None),
            Counted::NoMemory => (Some(Status::OutOfMemory), None),
        };
        self.count_arithmetic(decrement, found);
        if let Some(status) = status {
            binary::encode_status(out, binary.envelope, status);
        }
    }
}
