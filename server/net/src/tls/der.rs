//! Values of DER, read and written as far as keys and certificates need it. Nothing here knows what they mean.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// The tag `[0]` of a value that holds other values.
pub(super) const TAGGED_0: u8 = 0xa0;
/// The tag `[1]` of a value that holds other values.
pub(super) const TAGGED_1: u8 = 0xa1;

/// Reads values one after the other. `None` is what a value of the wanted kind does not begin with, or does not
/// fit into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The tag of the next value.
    pub(super) fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value, with its tag and length.
    pub(super) fn whole(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        self.content(self.tag()?)?;
        Some(&before[..before.len() - self.0.len()])
    }

    /// What the next value holds, if it has this tag.
    pub(super) fn content(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&[found, first], rest) = self.0.split_first_chunk()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Four bytes of length are more than any file here has.
            0x81..=0x84 => {
                let (len, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (len.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        if found != tag {
            return None;
        }
        self.0 = rest;
        Some(content)
    }

    /// What the next value holds, to be read likewise.
    pub(super) fn inner(&mut self, tag: u8) -> Option<Self> {
        self.content(tag).map(Self)
    }

    /// The digits of the next value, a positive integer, without zeros before them.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        self.content(INTEGER).map(significant)
    }
}

/// A number without the zeros before it.
pub(super) fn significant(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|&&byte| byte == 0).count()..]
}

/// A value with this tag that holds `parts`.
pub(super) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = u16::try_from(content.len()).expect("keys are short");
    let [high, low] = len.to_be_bytes();
    let head = match len {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_at_every_length_of_the_length() {
        for len in [0, 1, 127, 128, 255, 256, 65_535] {
            let content = vec![7; len];
            let written = [encode(OCTET_STRING, &[&content]), vec![INTEGER, 1, 5]].concat();
            let mut reader = Reader(&written);
            assert_eq!(reader.inner(SEQUENCE).map(|inner| inner.0), None);
            assert_eq!(reader.clone().whole().map(<[u8]>::len), Some(written.len() - 3));
            assert_eq!(reader.content(OCTET_STRING), Some(&content[..]));
            assert_eq!((reader.integer(), reader.tag()), (Some(&[5][..]), None));
        }
    }

    #[test]
    fn a_value_that_is_cut_off_or_of_no_bound_is_none() {
        let whole = encode(SEQUENCE, &[&[1; 300]]);
        for len in 0..whole.len() {
            assert_eq!(Reader(&whole[..len]).whole(), None, "{len}");
        }
        for bytes in
            [&[0x30, 0x80, 0, 0][..], &[0x30, 0x85, 0, 0, 0, 0, 1, 0], &[0x30, 0x84, 255, 255, 255, 255]]
        {
            assert_eq!(Reader(bytes).whole(), None, "{bytes:?}");
        }
    }
}
