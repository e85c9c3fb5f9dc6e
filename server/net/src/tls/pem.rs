//! The sections of a PEM file, as OpenSSL reads them and a little more: text around them, CR or LF or both at
//! line ends, blanks around lines, a byte order mark, and headers before the base64.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding may be missing, and what a last digit has too much is ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What stands between `-----BEGIN` and `-----END`.
#[derive(Debug)]
pub(super) struct Section {
    /// What it says to be, such as `CERTIFICATE`.
    pub(super) label: String,
    /// Whether a header says that it is encrypted.
    pub(super) encrypted: bool,
    base64: Vec<u8>,
}

/// Why a file is not PEM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A line begins a section and something else follows.
    #[error("line {line} is not a `-----BEGIN ...-----` alone: give each line of the file a line of its own")]
    Begin {
        /// Its number, from 1.
        line: usize,
    },
    /// A section does not end.
    #[error("{label} has no `-----END {label}-----` after it: the file is cut off, or lines are mixed up")]
    NoEnd {
        /// What the section says to be.
        label: String,
    },
    /// The text of a section is not base64.
    #[error("the text of {label} is not base64: {source}")]
    Base64 {
        /// What the section says to be.
        label: String,
        /// The place.
        source: base64::DecodeError,
    },
}

impl Section {
    /// The bytes that it stands for.
    pub(super) fn decode(&self) -> Result<Vec<u8>, PemError> {
        BASE64.decode(&self.base64).map_err(|source| PemError::Base64 { label: self.label.clone(), source })
    }
}

/// The sections of a file, in its order.
pub(super) fn sections(file: &[u8]) -> Result<Vec<Section>, PemError> {
    let (mut found, mut open) = (Vec::new(), None::<Section>);
    let lines = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file).split(|&byte| byte == b'\n');
    let lines = lines
        .enumerate()
        .flat_map(|(at, line)| line.split(|&byte| byte == b'\r').map(move |line| (at, line)));
    for (at, line) in lines {
        let line = line.trim_ascii();
        let Some(section) = &mut open else {
            if let Some(rest) = line.strip_prefix(b"-----BEGIN ") {
                let label = rest.strip_suffix(b"-----").filter(|label| !label.contains(&b'-'));
                let label = label.ok_or(PemError::Begin { line: at + 1 })?;
                let label = String::from_utf8_lossy(label).into_owned();
                open = Some(Section { label, encrypted: false, base64: Vec::new() });
            }
            continue;
        };
        if line.strip_prefix(b"-----END ").and_then(|rest| rest.strip_suffix(b"-----"))
            == Some(section.label.as_bytes())
        {
            found.extend(open.take());
        } else if line.starts_with(b"-----") {
            break;
        } else if line.contains(&b':') {
            section.encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        } else {
            section.base64.extend_from_slice(line);
        }
    }
    match open {
        Some(Section { label, .. }) => Err(PemError::NoEnd { label }),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "-----BEGIN A B-----\nAQID\nBAUG\n-----END A B-----\n";

    fn read(file: &[u8]) -> Vec<(String, Vec<u8>)> {
        let sections = sections(file).unwrap();
        sections.into_iter().map(|section| (section.label.clone(), section.decode().unwrap())).collect()
    }

    #[test]
    fn line_ends_blanks_and_text_around_change_nothing() {
        let expected = [("A B".to_owned(), vec![1, 2, 3, 4, 5, 6])];
        for file in [
            PLAIN.to_owned(),
            PLAIN.trim_end().to_owned(),
            PLAIN.replace('\n', "\r\n"),
            PLAIN.replace('\n', "\r"),
            PLAIN.replace('\n', "\n\n"),
            PLAIN.replace('\n', " \t\n"),
            PLAIN.replace('\n', "\n    "),
            PLAIN.replace("AQID\nBAUG", "AQIDBAUG"),
            PLAIN.replace("AQID\nBAUG", "A\nQ\nI\nDBAUG"),
            PLAIN.replace("AQID", "Name: value\n\nAQID"),
            format!("\u{feff}{PLAIN}"),
            format!("Subject: x\n{PLAIN}\nmore: y\n"),
        ] {
            assert_eq!(read(file.as_bytes()), expected, "{file:?}");
        }
        assert_eq!(read(PLAIN.repeat(3).as_bytes()).len(), 3);
        assert_eq!(read(b"\xff\xfe text: -----BEGIN A-----"), []);
        assert_eq!(read(b"-----BEGIN A-----\nAQ\n-----END A-----"), [("A".to_owned(), vec![1])]);
    }

    #[test]
    fn a_header_says_that_a_section_is_encrypted() {
        let encrypted = |header: &str| {
            sections(PLAIN.replace("AQID", &format!("{header}\n\nAQID")).as_bytes()).unwrap()[0].encrypted
        };
        assert!(encrypted("Proc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-256-CBC,00"));
        assert!(!encrypted("Proc-Type: 4,CLEAR"));
    }

    #[test]
    fn what_is_broken_is_named() {
        for (file, said) in [
            (PLAIN.replace('\n', ""), "line 1 is not a `-----BEGIN ...-----` alone"),
            (PLAIN.replace('\n', "\\n"), "line 1 is not a"),
            (format!("text\n{}", PLAIN.replace("B-----\nAQ", "B----\nAQ")), "line 2 is not a"),
            (PLAIN[..30].to_owned(), "A B has no `-----END A B-----` after it"),
            (PLAIN.replace("END A B", "END A"), "A B has no `-----END A B-----`"),
            (PLAIN[..30].to_owned() + PLAIN, "A B has no `-----END A B-----`"),
        ] {
            let error = sections(file.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(said), "{file:?}: {error}");
        }
        let error = sections(PLAIN.replace("AQID", "AQ!D").as_bytes()).unwrap()[0].decode().unwrap_err();
        assert!(error.to_string().starts_with("the text of A B is not base64: "), "{error}");
    }
}
