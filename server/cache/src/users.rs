//! Who may use the server, and with which passwords: the file of `-Y`, or that of `MEMCACHED_SASL_PWDB` for `-S`.
//!
//! A line is `user:password`. Read at start and again on SIGHUP; connections that have authenticated stay so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Longest line, bytes, as in memcached.
const LINE_BYTES_MAX: usize = 256;
/// Longest file, bytes: hundreds of users. memcached stops at eight.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A user and the password.
type Entry = (Box<[u8]>, Box<[u8]>);

/// Users and their passwords.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entries(Vec<Entry>);

/// The users of a file.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    entries: RwLock<Arc<Entries>>,
}

impl Users {
    /// Those of `file`.
    ///
    /// # Errors
    /// When it cannot be read, or a line is not what it should be.
    pub fn read(file: &Path) -> Result<Self, String> {
        let entries = RwLock::new(Arc::new(read(file)?));
        Ok(Self { file: file.to_owned(), entries })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Read the file again.
    ///
    /// # Errors
    /// As [`Users::read`]; then the users stay who they were.
    pub fn reload(&self) -> Result<(), String> {
        let entries = Arc::new(read(&self.file)?);
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        Ok(())
    }

    /// What the first user shows to the text protocol: name, space, password. `None` when there is no user.
    #[must_use]
    pub fn first_token(&self) -> Option<Vec<u8>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.0.first().map(|(user, password)| [user, &b" "[..], password].concat())
    }

    /// Whether `user` has this password. Takes as long whatever is wrong.
    #[must_use]
    pub fn admit(&self, user: &[u8], password: &[u8]) -> bool {
        let entries = Arc::clone(&self.entries.read().unwrap_or_else(PoisonError::into_inner));
        let fits = |(known, secret): &Entry| equal(known, user) & equal(secret, password);
        entries.0.iter().map(fits).fold(false, |any, fits| any | fits)
    }

    /// Whether the message of the SASL mechanism `PLAIN` names a user and the right password: `[as whom] NUL user NUL
    /// password`.
    #[must_use]
    pub fn admit_plain(&self, message: &[u8]) -> bool {
        let mut parts = message.splitn(3, |&byte| byte == 0);
        match (parts.next(), parts.next(), parts.next()) {
            // Acting for somebody else is not offered.
            (Some(whom), Some(user), Some(password)) if whom.is_empty() || whom == user => {
                self.admit(user, password)
            }
            _ => false,
        }
    }
}

fn read(file: &Path) -> Result<Entries, String> {
    let len = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if len > FILE_BYTES_MAX {
        return Err(format!("{len} bytes are too many: at most {FILE_BYTES_MAX}"));
    }
    parse(&std::fs::read(file).map_err(|error| error.to_string())?)
}

fn parse(text: &[u8]) -> Result<Entries, String> {
    if text.is_empty() {
        return Ok(Entries::default());
    }
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n');
    let entry = |(number, line): (usize, &[u8])| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&byte| byte == b':').filter(|_| line.len() < LINE_BYTES_MAX);
        let colon =
            colon.ok_or_else(|| format!("line {} is malformed: it should be user:password", number + 1))?;
        Ok((line[..colon].into(), line[colon + 1..].into()))
    };
    Ok(Entries(lines.enumerate().map(entry).collect::<Result<_, String>>()?))
}

/// Whether both are the same, in a time that tells nothing but their lengths.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_list_of_users_with_or_without_its_last_line_end() {
        for text in ["user:pass\nbob:se:cret\n", "user:pass\r\nbob:se:cret"] {
            let entries = parse(text.as_bytes()).unwrap();
            let users = Users { file: PathBuf::new(), entries: RwLock::new(Arc::new(entries)) };
            assert!(users.admit(b"user", b"pass") && users.admit(b"bob", b"se:cret"));
            for (user, password) in
                [("user", "pas"), ("user", "se:cret"), ("bo", "se:cret"), ("", ""), ("user", "")]
            {
                assert!(!users.admit(user.as_bytes(), password.as_bytes()), "{user} {password}");
            }
            assert!(users.admit_plain(b"\0user\0pass") && users.admit_plain(b"user\0user\0pass"));
            for message in [&b""[..], b"user\0pass", b"\0user\0pas", b"bob\0user\0pass", b"\0user\0pass\0"] {
                assert!(!users.admit_plain(message), "{message:?}");
            }
        }
        assert_eq!(parse(b"").unwrap(), Entries::default());
    }

    #[test]
    fn a_line_without_colon_or_too_long_is_named() {
        for text in ["\n", "nocolon\n", "a:b\n\nc:d\n", &format!("a:b\n{}:y\n", "x".repeat(300))] {
            assert!(parse(text.as_bytes()).unwrap_err().contains("malformed"), "{text}");
        }
    }
}
