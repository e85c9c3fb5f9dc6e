//! Arithmetic: increment and decrement of values that are decimal numbers.

use std::cmp::Ordering;

use crate::clock::{Seconds, or_never};
use crate::index::Index;
use crate::item::{self, Fields, Location, flag};
use crate::key::Key;
use crate::value::Item;

use super::content::Source;
use super::{ItemBefore, Store};

/// The options of an increment or decrement.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArithmeticHow {
    /// The number to add or subtract.
    pub delta: u64,
    /// Whether to subtract.
    pub decrement: bool,
    /// If there is no item, creates one with this number and expiry; `delta` is not applied.
    pub create: Option<(u64, Option<Seconds>)>,
    /// A new expiry for an item that exists; `Some(None)` for never.
    pub expires: Option<Option<Seconds>>,
    /// Changes the item only if it has this cas unique.
    pub compare_cas: Option<u64>,
    /// The cas unique for the item; without it the store chooses one.
    pub new_cas: Option<u64>,
    /// Assigns a cas unique if the item has none.
    pub with_cas: bool,
    /// Whether the client gave the key in base64. Stored with an item that is created.
    pub binary_key: bool,
}

/// The result of an increment or decrement.
#[derive(Clone, Copy, Debug)]
pub enum Counted<'s> {
    /// The number was changed, or the item created.
    Value {
        /// The new number.
        value: u64,
        /// The item after the change.
        item: Item<'s>,
        /// Whether the item was created.
        created: bool,
    },
    /// There is no item, and none was to be created.
    NotFound,
    /// The value does not begin with a number of 64 bits, or is longer than 1 KiB.
    NotANumber,
    /// The item has another cas unique.
    Exists,
    /// There is no memory for the new value.
    NoMemory,
}

/// Digits of the largest number, 2^64 - 1.
const DIGITS_MAX: usize = 20;
/// Longest value taken for a number, including blanks, bytes. Values this short are always in one part.
const TEXT_BYTES_MAX: usize = 1024;

impl<I: Index> Store<I> {
    /// Adds to the number that is the item's value, modulo 2^64, or subtracts from it, down to 0. A text that
    /// is not longer than before is padded with blanks on the right to the old length. Client flags stay.
    pub fn arithmetic(&mut self, key: Key<'_>, how: &ArithmeticHow, now: Seconds) -> Counted<'_> {
        self.apply_due_flush(now);
        self.pay_scan_debt(now);
        let Some(at) = self.find_counting(key, now) else {
            let Some((initial, expires)) = how.create else { return Counted::NotFound };
            return self.create_number(key, initial, expires, how, now);
        };
        let record = self.record(at);
        if record.value_len() == 0 {
            return Counted::NotANumber;
        }
        let text = record.value(&self.log.arena).as_contiguous();
        let number = text.filter(|text| text.len() <= TEXT_BYTES_MAX).and_then(parse);
        if how.compare_cas.is_some_and(|wanted| self.compare_cas(at, wanted) != Ordering::Equal) {
            return Counted::Exists;
        }
        let Some(number) = number else { return Counted::NotANumber };
        let value =
            if how.decrement { number.saturating_sub(how.delta) } else { number.wrapping_add(how.delta) };
        let before = ItemBefore::from_record(self.record(at));
        match self.write_number(key, at, value, how, now) {
            Some(at) => Counted::Value { value, item: self.item(at, before), created: false },
            None => {
                self.count_out_of_memory();
                Counted::NoMemory
            }
        }
    }

    /// Creates an item with the number `initial`.
    fn create_number(
        &mut self,
        key: Key<'_>,
        initial: u64,
        expires: Option<Seconds>,
        how: &ArithmeticHow,
        now: Seconds,
    ) -> Counted<'_> {
        if !key.fits() {
            return Counted::NotFound;
        }
        let mut digits = [0; DIGITS_MAX];
        let text = decimal(initial, &mut digits);
        let marks = if how.binary_key { flag::BINARY_KEY } else { 0 };
        let cas = self.cas_for_write(None, how.new_cas, how.with_cas);
        let fields = Fields { marks, expires: or_never(expires), client_flags: 0, cas };
        let sources = [Source::Bytes(text), Source::Bytes(&[])];
        match self.replace(key, None, &fields, sources, text.len(), None, false, now) {
            Some(at) if self.is_indexed(key.hash, at) => {
                let before = ItemBefore { flags: 0, expires: fields.expires };
                Counted::Value { value: initial, item: self.item(at, before), created: true }
            }
            // `Some`: the index had no room for the item, and it was dropped again.
            _ => {
                self.count_out_of_memory();
                Counted::NoMemory
            }
        }
    }

    /// Writes the new number, and returns the location of the item then. `None` if there is no memory.
    fn write_number(
        &mut self,
        key: Key<'_>,
        at: Location,
        value: u64,
        how: &ArithmeticHow,
        now: Seconds,
    ) -> Option<Location> {
        let mut digits = [0; DIGITS_MAX];
        let text = decimal(value, &mut digits);
        let record = self.record(at);
        let mut fields = record.fields();
        let value_len = record.value_len();
        let expires = how.expires.map_or(fields.expires, or_never);
        let new_cas = self.cas_for_write(fields.cas, how.new_cas, how.with_cas || fields.cas.is_some());
        let fits = text.len() <= value_len;
        // The old text may be in use by a sender if its segment is pinned.
        let pinned = self.log.segments[self.log.segments.segment_of(at.offset())].pins > 0;
        if fits && !pinned && fields.cas.is_some() == new_cas.is_some() {
            let value_at = at.offset() + self.record(at).value_at();
            let target = self.log.arena.bytes_mut(value_at, value_len);
            target[..text.len()].copy_from_slice(text);
            target[text.len()..].fill(b' ');
            if let Some(cas) = new_cas {
                item::set_cas(&mut self.log.arena, at, cas);
            }
            return self.set_expires(key.hash, at, expires, now);
        }
        fields.expires = expires;
        fields.cas = new_cas;
        let mut padded = [b' '; TEXT_BYTES_MAX];
        padded[..text.len()].copy_from_slice(text);
        // A new record gets the bytes and marks it would have had in place. With a longer text it counts as a
        // new item.
        let len = text.len().max(value_len);
        if !fits {
            fields.marks &= flag::BINARY_KEY;
        }
        let sources = [Source::Bytes(&padded[..len]), Source::Bytes(&[])];
        self.replace(key, Some(at), &fields, sources, len, None, false, now)
    }
}

/// The number at the start of a value, as memcached reads it with strtoull: blanks, a sign, digits, and then
/// the end, a blank or a NUL, which anything may follow ("12 abc" is 12). A negative number is taken modulo 2^64, and is valid if that is below 2^63.
fn parse(text: &[u8]) -> Option<u64> {
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|&byte| !is_blank(byte))?;
    let (negative, rest) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    if digits == 0 || rest.get(digits).is_some_and(|&byte| byte != 0 && !is_blank(byte)) {
        return None;
    }
    let add = |number: u64, &digit: &u8| number.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let number = rest[..digits].iter().try_fold(0, add)?;
    if !negative {
        return Some(number);
    }
    Some(number.wrapping_neg()).filter(|number| number >> 63 == 0)
}

/// The decimal text of a number, at the end of `digits`.
fn decimal(number: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}
