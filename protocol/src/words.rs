//! The words of a line, which are separated by blanks. Only the space is a blank; a tab is a byte of a word.

use crate::scan::find_either;

/// The rest of a line, which is read word by word.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The words of `line`, from which the line end was removed.
    #[inline]
    pub(crate) fn new(line: &'a [u8]) -> Self {
        Self(line)
    }

    /// Splits a line into its verb and the words after it. The verb is empty when the line begins with a
    /// blank.
    #[inline]
    pub(crate) fn split_verb(line: &'a [u8]) -> (&'a [u8], Self) {
        let mut words = Self(line);
        let end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        (words.take(end), words)
    }

    /// The number of bytes that are left, blanks included.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next word, searched byte by byte since numbers and flags are short; empty at the end of the line.
    #[inline]
    pub(crate) fn next(&mut self) -> &'a [u8] {
        self.skip_blanks();
        let end = self.0.iter().position(|&byte| byte == b' ').unwrap_or(self.0.len());
        self.take(end)
    }

    /// The next word, searched several bytes at a time since keys are longer; empty at the end of the line.
    #[inline]
    pub(crate) fn next_key(&mut self) -> &'a [u8] {
        self.skip_blanks();
        let end = find_either::<b' ', b' '>(self.0).unwrap_or(self.0.len());
        self.take(end)
    }

    /// Everything that is left, without blanks at either end.
    #[inline]
    pub(crate) fn rest(mut self) -> &'a [u8] {
        self.skip_blanks();
        while let [rest @ .., b' '] = self.0 {
            self.0 = rest;
        }
        self.0
    }

    /// Whether the last word of the line is among those that are left, and is `noreply`.
    #[inline]
    pub(crate) fn end_in_noreply(self) -> bool {
        match self.rest() {
            [] => false,
            [before @ .., b'n', b'o', b'r', b'e', b'p', b'l', b'y'] => matches!(before, [] | [.., b' ']),
            _ => false,
        }
    }

    /// Moves on to the next word, or to the end of the line.
    #[inline]
    pub(crate) fn skip_blanks(&mut self) {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    #[inline]
    fn take(&mut self, end: usize) -> &'a [u8] {
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_blanks_part_words_and_tabs_do_not() {
        for read in [Words::next, Words::next_key] {
            let mut words = Words::new(b"  set a\tb   7  ");
            assert_eq!(read(&mut words), b"set");
            assert_eq!(read(&mut words), b"a\tb");
            assert_eq!(words.rest(), b"7");
            assert_eq!(read(&mut words), b"7");
            assert_eq!(words.rest(), b"");
            assert_eq!(read(&mut words), b"");
            assert_eq!(read(&mut words), b"");
        }
    }

    #[test]
    fn noreply_counts_as_the_last_word_only_and_as_a_whole_word() {
        for (line, noreply) in [
            ("noreply", true),
            (" 0 noreply  ", true),
            ("", false),
            ("  ", false),
            ("noreply 0", false),
            ("xnoreply", false),
            ("noreplyx", false),
            ("NOREPLY", false),
        ] {
            assert_eq!(Words::new(line.as_bytes()).end_in_noreply(), noreply, "{line:?}");
        }
    }
}
