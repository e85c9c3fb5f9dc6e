//! A model of the store: random operations on a store and on a plain map, compared.
//!
//! [`Model::step`] draws one operation from a source of choices, does it on the store and on the map, and
//! compares. The source is a seeded generator here, bytes from proptest or from the fuzzer elsewhere, so this
//! file names nothing but the crate's public face; the module it is in says which kind of `Store` it drives.

use std::collections::BTreeMap;

use super::Store;

use crate::{
    ArithmeticHow, Counted, DeleteHow, Deleted, Item, Key, KeyHasher, MetaGet, MetaGot, Mode, PinnedValue,
    Seconds, StoreHow, Stored, Upload,
};

/// A source of choices: numbers below a given bound.
pub(crate) trait Choices {
    fn below(&mut self, bound: u32) -> u32;

    fn chance(&mut self, one_in: u32) -> bool {
        self.below(one_in) == 0
    }

    fn maybe<T>(&mut self, one_in: u32, some: impl FnOnce(&mut Self) -> T) -> Option<T>
    where
        Self: Sized,
    {
        if self.chance(one_in) { Some(some(self)) } else { None }
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    value: Vec<u8>,
    client_flags: u32,
    expires: Option<Seconds>,
    /// The cas unique, if the model has seen it.
    cas: Option<u64>,
    /// If the model has not seen the cas unique, it is above this.
    cas_above: u64,
    stale: bool,
    win_sent: bool,
    fetched: bool,
}

/// A store, and the map it must agree with.
pub(crate) struct Model {
    store: Store,
    hasher: KeyHasher,
    now: Seconds,
    entries: BTreeMap<Vec<u8>, Entry>,
    flush_at: Option<Seconds>,
    uploads: Vec<(Upload, Vec<u8>, usize)>,
    pins: Vec<(PinnedValue, Vec<u8>)>,
    /// Whether the store may lose items because it has too little memory for them.
    lossy: bool,
    value_bytes: u32,
    keys: u32,
    steps: u32,
}

impl Model {
    /// The second in which the store has to be made.
    pub(crate) const START: Seconds = Seconds(1_000_000);

    pub(crate) fn new(store: Store, hasher: KeyHasher, lossy: bool, keys: u32, value_bytes: u32) -> Model {
        Model {
            store,
            hasher,
            now: Model::START,
            entries: BTreeMap::new(),
            flush_at: None,
            uploads: Vec::new(),
            pins: Vec::new(),
            lossy,
            value_bytes,
            keys,
            steps: 0,
        }
    }

    /// Does one random operation and compares its result.
    pub(crate) fn step(&mut self, choices: &mut impl Choices) {
        let name = format!("key-{}", choices.below(self.keys)).into_bytes();
        self.turn();
        self.sync(&name);
        match choices.below(32) {
            0..8 => self.store(&name, choices),
            8..12 => self.get(&name, choices),
            12..16 => self.meta_get(&name, choices),
            16..19 => self.delete(&name, choices),
            19..23 => self.count(&name, choices),
            23 => self.touch(&name, choices),
            24..26 => self.upload(&name, choices),
            26 => self.pin(&name, choices),
            27 => self.unpin(choices),
            28 => self.now.0 += choices.below(4),
            29 => {
                let _ = self.store.maintain(self.now, choices.below(200) as usize);
            }
            30 if choices.chance(40) => self.flush(choices),
            _ => self.get(&name, choices),
        }
        self.turn();
        self.sync(&name);
        self.steps += 1;
        if self.steps.is_multiple_of(128) {
            self.store.check_invariants();
        }
    }

    /// Gives back all pins and uploads, and checks that the store has all items of the map.
    pub(crate) fn finish(mut self) {
        while let Some((upload, ..)) = self.uploads.pop() {
            self.store.upload_abort(upload);
        }
        while let Some((pinned, expected)) = self.pins.pop() {
            check_pinned(&pinned, &expected);
            self.store.unpin(pinned);
        }
        let names: Vec<Vec<u8>> = self.entries.keys().cloned().collect();
        for name in names {
            self.sync(&name);
        }
        while self.store.maintain(self.now, 1000) {}
        self.store.check_invariants();
        let stats = self.store.stats();
        assert_eq!((stats.segments_pinned, stats.uploads), (0, 0));
        self.store.flush(self.now, self.now);
        while self.store.maintain(self.now, 1000) {}
        let stats = self.store.stats();
        assert_eq!((stats.items, stats.bytes, stats.arena_bytes), (0, 0, 0));
        self.store.check_invariants();
    }

    fn key<'k>(&self, name: &'k [u8]) -> Key<'k> {
        Key { bytes: name, hash: self.hasher.hash(name) }
    }

    fn turn(&mut self) {
        let now = self.now;
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.entries.clear();
        }
        self.entries.retain(|_, entry| entry.expires.is_none_or(|at| at > now));
    }

    /// Checks that store and map agree on this key. If the item was evicted, removes it from the map.
    fn sync(&mut self, name: &[u8]) {
        let key = self.key(name);
        let Some(item) = self.store.peek(key, self.now) else {
            if self.entries.remove(name).is_some() {
                let stats = self.store.stats();
                assert!(
                    self.lossy && stats.evictions + stats.out_of_memory > 0,
                    "lost without need: {stats:?}"
                );
            }
            return;
        };
        let entry = self.entries.get_mut(name).expect("an item that must not be there");
        check_item(&item, entry);
        assert_eq!((item.hit_before, item.token_sent), (entry.fetched, entry.win_sent));
    }

    /// Checks that `got` is the item of the map or, if items may be lost, that there is none; returns which.
    fn agree<T: PartialEq + std::fmt::Debug>(&mut self, name: &[u8], got: T, present: T, absent: T) -> bool {
        if got == present {
            return self.entries.contains_key(name);
        }
        assert!(self.lossy, "got {got:?}, not {present:?}");
        assert_eq!(got, absent);
        self.entries.remove(name);
        false
    }

    fn store(&mut self, name: &[u8], choices: &mut impl Choices) {
        let how = self.how(name, choices);
        let value = self.value(choices);
        let got = self.store.store(self.key(name), &value, &how, self.now);
        self.stored(name, got, &value, &how);
    }

    /// `upload_write`, by means of the windows that a server reads a socket into.
    fn write_in_place(
        &mut self,
        upload: &mut crate::Upload,
        mut bytes: &[u8],
    ) -> Result<(), crate::NoMemory> {
        while !bytes.is_empty() {
            let window = self.store.upload_window(upload, self.now)?;
            let len = window.len().min(bytes.len());
            assert!(len > 0, "an unfinished value has a window");
            window[..len].copy_from_slice(&bytes[..len]);
            self.store.upload_filled(upload, len);
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn how(&mut self, name: &[u8], choices: &mut impl Choices) -> StoreHow {
        let modes = [Mode::Set, Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend];
        StoreHow {
            mode: modes[choices.below(6) as usize],
            client_flags: choices.below(3) * 1_000_000,
            expires: self.expires(choices),
            compare_cas: self.compare(name, choices),
            new_cas: choices.maybe(8, |choices| 1 + u64::from(choices.below(5000))),
            stale_if_older: choices.chance(3),
            vivify: choices.maybe(4, |choices| self.expires(choices)),
            with_cas: choices.chance(3),
            binary_key: false,
            value_bytes_max: None,
        }
    }

    /// A cas unique to compare with: that of the item, an older or a newer one.
    fn compare(&mut self, name: &[u8], choices: &mut impl Choices) -> Option<u64> {
        if !choices.chance(4) {
            return None;
        }
        let key = self.key(name);
        // The model has to know the unique to choose an older or newer one.
        if let Some(item) = self.store.get_with_cas(key, self.now) {
            let cas = item.cas;
            let entry = self.entries.get_mut(name).unwrap();
            entry.fetched = true;
            if cas != 0 {
                check_item(&item, entry);
            }
        }
        let cas = self.entries.get(name)?.cas?;
        Some([cas, cas, cas - 1, cas + 1][choices.below(4) as usize])
    }

    fn expires(&self, choices: &mut impl Choices) -> Option<Seconds> {
        choices.maybe(2, |choices| {
            let life = [0, 1, 2, 5, 30, 3000][choices.below(6) as usize];
            Seconds(self.now.0 + life)
        })
    }

    fn value(&self, choices: &mut impl Choices) -> Vec<u8> {
        if choices.chance(4) {
            return format!("{}", choices.below(1200)).into_bytes();
        }
        let most = if choices.chance(8) { self.value_bytes } else { self.value_bytes.min(300) };
        let len = choices.below(most + 1) as usize;
        let first = choices.below(256);
        (0..len).map(|n| (first as usize + n * 7 + n / 251) as u8).collect()
    }

    fn stored(&mut self, name: &[u8], got: Stored, value: &[u8], how: &StoreHow) {
        if got == Stored::NoMemory || got == Stored::TooLarge {
            assert!(self.lossy, "{got:?} in a large store");
            return; // `sync` finds out what is left
        }
        let old = self.entries.get(name).cloned();
        let expected = |old: Option<&Entry>| stored_entry(old, value, how);
        let present = expected(old.as_ref());
        let chosen = match (&got, &present) {
            (Stored::Stored { .. }, Ok(_)) => present,
            (_, Err(refused)) if *refused == got => return,
            _ => {
                assert!(self.lossy, "got {got:?}, not {present:?}");
                self.entries.remove(name);
                expected(None)
            }
        };
        let mut entry = match chosen {
            Ok(entry) => entry,
            Err(refused) => return assert_eq!(got, refused),
        };
        let Stored::Stored { cas, value_len } = got else { panic!("{got:?} instead of stored") };
        assert_eq!(value_len, entry.value.len());
        assert_eq!(cas != 0, how.with_cas);
        if cas != 0 {
            learn_cas(&mut entry, cas);
        }
        self.entries.insert(name.to_vec(), entry);
    }

    fn get(&mut self, name: &[u8], choices: &mut impl Choices) {
        let key = self.key(name);
        let way = choices.below(3);
        let touch = self.expires(choices);
        let item = match way {
            0 => self.store.get(key, self.now),
            1 => self.store.get_with_cas(key, self.now),
            _ => self.store.get_and_touch(key, touch, choices.chance(2), self.now),
        };
        let Some(entry) = self.entries.get_mut(name) else { return assert!(item.is_none()) };
        let Some(item) = item else { return assert!(self.lossy) };
        assert_eq!(item.hit_before, entry.fetched);
        assert_eq!(item.expires_before, entry.expires);
        entry.fetched = true;
        // If there is no memory for the field, the item keeps the old expiry.
        if way == 2 && !(self.lossy && item.expires == entry.expires) {
            entry.expires = touch;
        }
        check_item(&item, entry);
        assert!(way != 1 || item.cas != 0 || self.lossy);
    }

    fn meta_get(&mut self, name: &[u8], choices: &mut impl Choices) {
        let ask = MetaGet {
            touch: choices.maybe(4, |choices| self.expires(choices)),
            vivify: choices.maybe(3, |choices| self.expires(choices)),
            recache_below_s: choices.maybe(4, |choices| choices.below(20)),
            recache_after_touch: false,
            new_cas: choices.maybe(8, |choices| 1 + u64::from(choices.below(100))),
            with_cas: choices.chance(3),
            bump: !choices.chance(4),
            binary_key: false,
        };
        let key = self.key(name);
        let now = self.now;
        match self.store.meta_get(key, &ask, now) {
            MetaGot::Hit(item) => {
                let entry = self.entries.get_mut(name).expect("hit on nothing");
                let left = entry.expires.map(|at| at.0 - now.0);
                let early = ask.recache_below_s.zip(left).is_some_and(|(below, left)| left < below);
                assert_eq!(item.win, !entry.win_sent && (early || entry.stale));
                assert_eq!((item.token_sent, item.hit_before), (entry.win_sent, entry.fetched));
                assert_eq!(item.expires_before, entry.expires);
                entry.win_sent |= item.win;
                entry.fetched |= ask.bump;
                if let Some(expires) = ask.touch
                    && !(self.lossy && item.expires == entry.expires)
                {
                    entry.expires = expires;
                }
                check_item(&item, entry);
            }
            MetaGot::Vivified(item) => {
                let lost = self.entries.remove(name).is_some();
                assert!(!lost || self.lossy);
                let expires = ask.vivify.unwrap();
                let mut entry = Entry { win_sent: true, fetched: ask.bump, expires, ..Entry::default() };
                entry.cas = ask.new_cas;
                assert!(item.win);
                check_item(&item, &mut entry);
                self.entries.insert(name.to_vec(), entry);
            }
            MetaGot::Miss => {
                assert!(ask.vivify.is_none());
                assert!(self.lossy || !self.entries.contains_key(name));
            }
            MetaGot::NoMemory => assert!(self.lossy && ask.vivify.is_some()),
        }
    }

    fn delete(&mut self, name: &[u8], choices: &mut impl Choices) {
        let how = DeleteHow {
            compare_cas: self.compare(name, choices),
            new_cas: choices.maybe(8, |choices| 1 + u64::from(choices.below(5000))),
            invalidate: choices.chance(2),
            expires: choices.maybe(2, |choices| self.expires(choices)),
            erase_value: choices.chance(4),
        };
        let got = self.store.delete(self.key(name), &how, self.now);
        if got == Deleted::NoMemory {
            return assert!(self.lossy);
        }
        let entry = self.entries.get(name);
        let expected = match entry {
            None => Deleted::NotFound,
            Some(entry) if how.compare_cas.is_some_and(|cas| entry.cas != Some(cas)) => Deleted::Exists,
            Some(_) => Deleted::Deleted,
        };
        if !self.agree(name, got, expected, Deleted::NotFound) || got != Deleted::Deleted {
            return;
        }
        if !how.invalidate && !how.erase_value {
            self.entries.remove(name);
            return;
        }
        let entry = self.entries.get_mut(name).unwrap();
        if how.erase_value {
            let (cas, cas_above) = (how.new_cas.or(entry.cas), entry.cas_above);
            *entry = Entry { cas, cas_above, ..Entry::default() };
        }
        if let Some(expires) = how.expires {
            entry.expires = expires;
        }
        if how.invalidate {
            (entry.stale, entry.win_sent) = (true, false);
            change_cas(entry, how.new_cas);
        }
    }

    fn count(&mut self, name: &[u8], choices: &mut impl Choices) {
        let how = ArithmeticHow {
            delta: if choices.chance(10) { u64::MAX - 5 } else { u64::from(choices.below(100)) },
            decrement: choices.chance(2),
            create: choices.maybe(3, |choices| (u64::from(choices.below(1000)), self.expires(choices))),
            expires: choices.maybe(6, |choices| self.expires(choices)),
            compare_cas: self.compare(name, choices),
            new_cas: choices.maybe(8, |choices| 1 + u64::from(choices.below(5000))),
            with_cas: choices.chance(4),
            binary_key: false,
        };
        let key = self.key(name);
        let now = self.now;
        let lossy = self.lossy;
        let old = self.entries.get(name).cloned();
        let got = self.store.arithmetic(key, &how, now);
        let number = old.as_ref().and_then(|entry| number(&entry.value));
        let mismatch =
            how.compare_cas.is_some_and(|cas| old.as_ref().is_some_and(|old| old.cas != Some(cas)));
        match got {
            Counted::NotFound => assert!(how.create.is_none() && (old.is_none() || lossy)),
            Counted::NotANumber => assert!(old.is_some() && (number.is_none() || lossy)),
            Counted::Exists => assert!(mismatch),
            Counted::NoMemory => assert!(lossy),
            Counted::Value { value, item, created: true } => {
                let (initial, expires) = how.create.unwrap();
                assert!(value == initial && (old.is_none() || lossy));
                let text = initial.to_string().into_bytes();
                let mut entry = Entry { value: text, expires, cas: how.new_cas, ..Entry::default() };
                check_item(&item, &mut entry);
                self.entries.insert(name.to_vec(), entry);
            }
            Counted::Value { value, item, created: false } => {
                let mut entry = old.expect("counted nothing");
                let number = number.expect("counted what is no number");
                assert!(!mismatch);
                let down = u64::saturating_sub(number, how.delta);
                assert_eq!(value, if how.decrement { down } else { number.wrapping_add(how.delta) });
                let mut text = value.to_string().into_bytes();
                if text.len() <= entry.value.len() {
                    text.resize(entry.value.len(), b' ');
                } else {
                    (entry.stale, entry.win_sent) = (false, false);
                    entry.fetched = false;
                }
                entry.value = text;
                entry.expires = how.expires.unwrap_or(entry.expires);
                change_cas(&mut entry, how.new_cas);
                check_item(&item, &mut entry);
                self.entries.insert(name.to_vec(), entry);
            }
        }
    }

    fn touch(&mut self, name: &[u8], choices: &mut impl Choices) {
        let expires = self.expires(choices);
        let got = self.store.touch(self.key(name), expires, self.now);
        let present = self.entries.contains_key(name);
        if !got && present {
            // The item was found but there was no memory for the field, or it was gone before.
            self.entries.get_mut(name).expect("present").fetched = true;
            return assert!(self.lossy);
        }
        assert_eq!(got, present);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.fetched = true;
            entry.expires = expires;
        }
    }

    fn upload(&mut self, name: &[u8], choices: &mut impl Choices) {
        if self.uploads.len() < 3 && choices.chance(2) {
            let value = self.value(choices);
            match self.store.upload_begin(value.len(), self.now) {
                Ok(upload) => self.uploads.push((upload, value, 0)),
                Err(_) => assert!(self.lossy),
            }
            return;
        }
        let Some((mut upload, value, mut sent)) = self.uploads.pop() else { return };
        if choices.chance(8) {
            return self.store.upload_abort(upload);
        }
        let whole = choices.chance(2);
        let len =
            if whole { value.len() - sent } else { choices.below((value.len() - sent) as u32 + 1) as usize };
        let bytes = &value[sent..sent + len];
        let written = if choices.chance(2) {
            self.store.upload_write(&mut upload, bytes, self.now)
        } else {
            self.write_in_place(&mut upload, bytes)
        };
        if written.is_err() {
            assert!(self.lossy);
            return self.store.upload_abort(upload);
        }
        sent += len;
        assert_eq!(upload.remaining(), value.len() - sent);
        if sent < value.len() {
            self.uploads.insert(0, (upload, value, sent));
            return;
        }
        let how = self.how(name, choices);
        let got = self.store.upload_commit(upload, self.key(name), &how, self.now);
        self.stored(name, got, &value, &how);
    }

    fn pin(&mut self, name: &[u8], choices: &mut impl Choices) {
        if self.pins.len() > 3 && !choices.chance(10) {
            return self.unpin(choices);
        }
        let key = self.key(name);
        let Some(item) = self.store.peek(key, self.now) else { return };
        let mut expected = Vec::new();
        item.value.copy_to(&mut expected);
        let handle = item.handle();
        if let Some(pinned) = self.store.pin(handle) {
            self.pins.push((pinned, expected));
        }
    }

    fn unpin(&mut self, choices: &mut impl Choices) {
        if self.pins.is_empty() {
            return;
        }
        let at = choices.below(self.pins.len() as u32) as usize;
        let (pinned, expected) = self.pins.swap_remove(at);
        check_pinned(&pinned, &expected);
        self.store.unpin(pinned);
    }

    fn flush(&mut self, choices: &mut impl Choices) {
        let at = Seconds(self.now.0 + [0, 0, 3][choices.below(3) as usize]);
        self.store.flush(at, self.now);
        self.flush_at = Some(at);
    }
}

fn check_pinned(pinned: &PinnedValue, expected: &[u8]) {
    let parts: Vec<u8> = pinned.parts().flatten().copied().collect();
    assert!(pinned.len() == expected.len() && parts == expected, "a pinned value changed");
}

/// Checks that the item is that of the entry, and notes a cas unique that was not seen before.
fn check_item(item: &Item<'_>, entry: &mut Entry) {
    let mut value = Vec::new();
    item.value.copy_to(&mut value);
    assert!(value == entry.value, "{} bytes instead of {}", value.len(), entry.value.len());
    assert_eq!(
        (item.client_flags, item.expires, item.stale),
        (entry.client_flags, entry.expires, entry.stale)
    );
    if item.cas != 0 {
        learn_cas(entry, item.cas);
    } else {
        assert_eq!(entry.cas, None, "a unique got lost");
    }
}

fn learn_cas(entry: &mut Entry, cas: u64) {
    match entry.cas {
        Some(known) => assert_eq!(cas, known),
        None => assert!(cas > entry.cas_above, "the unique fell from {} to {cas}", entry.cas_above),
    }
    entry.cas = Some(cas);
    entry.cas_above = cas;
}

/// Notes that the entry was changed: its cas unique is the requested one, or higher than before.
fn change_cas(entry: &mut Entry, wish: Option<u64>) {
    entry.cas = wish;
    if let Some(wish) = wish {
        entry.cas_above = wish;
    }
}

/// The entry after a write, or the result that refuses it.
fn stored_entry(old: Option<&Entry>, value: &[u8], how: &StoreHow) -> Result<Entry, Stored> {
    let mut new = Entry {
        value: value.to_vec(),
        client_flags: how.client_flags,
        expires: how.expires,
        ..Entry::default()
    };
    let joins = matches!(how.mode, Mode::Append | Mode::Prepend);
    let Some(old) = old else {
        match how.mode {
            Mode::Set | Mode::Replace if how.compare_cas.is_some() => return Err(Stored::NotFound),
            Mode::Replace => return Err(Stored::NotStored),
            Mode::Append | Mode::Prepend if how.compare_cas.is_some() => return Err(Stored::NotStored),
            Mode::Append | Mode::Prepend => new.expires = how.vivify.ok_or(Stored::NotStored)?,
            _ => {}
        }
        change_cas(&mut new, how.new_cas);
        return Ok(new);
    };
    if how.mode == Mode::Add {
        return Err(Stored::NotStored);
    }
    if let Some(wanted) = how.compare_cas {
        let cas = old.cas.expect("compared unseen");
        if wanted < cas && how.stale_if_older && !joins {
            new.stale = true;
            new.win_sent = old.win_sent;
            new.expires = old.expires;
        } else if wanted != cas {
            return Err(Stored::Exists);
        }
    }
    if joins {
        new.client_flags = old.client_flags;
        new.expires = old.expires;
        new.value = match how.mode {
            Mode::Append => [&old.value, value].concat(),
            _ => [value, &old.value].concat(),
        };
    }
    new.cas_above = old.cas_above;
    change_cas(&mut new, how.new_cas);
    Ok(new)
}

/// The number a text begins with, as C's strtoull and memcached's rules on what may surround it have it.
/// Values over 1 KiB are none to this store.
fn number(text: &[u8]) -> Option<u64> {
    if text.len() > 1024 {
        return None;
    }
    let text: String = text.iter().map(|&byte| char::from(byte)).collect();
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
    if end > 20 {
        return None;
    }
    let number: u64 = unsigned[..end].parse().ok()?;
    let ends = [' ', '\t', '\n', '\x0b', '\x0c', '\r', '\0'];
    if unsigned[end..].starts_with(|c| !ends.contains(&c)) {
        return None;
    }
    let number = if text.starts_with('-') { number.wrapping_neg() } else { number };
    (!text.starts_with('-') || number <= i64::MAX as u64).then_some(number)
}
