//! The users of the server and their passwords: the file of `-Y`, or for `-S` the file that
//! `MEMCACHED_SASL_PWDB` names.
//!
//! A line of the file is `user:password`. It is read at start and again on SIGHUP. Connections that have
//! authenticated stay authenticated.
//!
//! In the text protocol a client sends the name, a blank and the password, so that a name may not have a blank.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Longest line in bytes, without its end, as in memcached.
const LINE_BYTES_MAX: usize = 255;
/// Longest file in bytes. That is enough for hundreds of users; memcached stops at eight.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// The file is too long.
    #[error("{len} bytes are too many: at most {FILE_BYTES_MAX}")]
    TooLong {
        /// Length of the file in bytes.
        len: u64,
    },
    /// The file is empty.
    #[error("it is empty: nobody could authenticate")]
    Empty,
    /// A line has no colon.
    #[error("line {line} is malformed: it should be user:password")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A line is too long.
    #[error("line {line} is malformed: it has {len} bytes, more than {LINE_BYTES_MAX}")]
    LineTooLong {
        /// Number of the line, from 1.
        line: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// The name of a line cannot be sent in the text protocol.
    #[error("line {line}: the user has a blank, and no client can send that in the text protocol")]
    BlankInName {
        /// Number of the line, from 1.
        line: usize,
    },
}

/// A user.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: Box<[u8]>,
    password: Box<[u8]>,
}

/// The users of a file.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    /// Whether clients authenticate in the text protocol.
    text: bool,
    /// Never empty.
    list: RwLock<Arc<[User]>>,
}

impl Users {
    /// Reads the users of `file`, who authenticate in the text protocol (`text`) or by SASL.
    ///
    /// # Errors
    /// When the file cannot be read, is empty or too long, or has a line that is not `user:password` or cannot
    /// be sent.
    pub fn read(file: &Path, text: bool) -> Result<Self, UsersError> {
        Ok(Self { file: file.to_owned(), text, list: RwLock::new(read(file, text)?.into()) })
    }

    /// The file that the users are in.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// As [`Users::read`]. Then the users do not change.
    pub(crate) fn reload(&self) -> Result<(), UsersError> {
        let list = read(&self.file, self.text)?.into();
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        Ok(())
    }

    /// What the first user sends to authenticate in the text protocol: name, space, password.
    #[must_use]
    pub fn first_token(&self) -> Vec<u8> {
        let list = self.list();
        let User { name, password } = &list[0];
        [name, &b" "[..], password].concat()
    }

    /// Whether `name` is a user with this password. The time that it takes does not tell what is wrong.
    #[must_use]
    pub(crate) fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let matches = |user: &User| equal(&user.name, name) & equal(&user.password, password);
        self.list().iter().map(matches).fold(false, |any, matches| any | matches)
    }

    /// Whether the message of the SASL mechanism `PLAIN` names a user and the right password. The message is
    /// `[authorization identity] NUL name NUL password`.
    #[must_use]
    pub(crate) fn admit_plain(&self, message: &[u8]) -> bool {
        let mut parts = message.splitn(3, |&byte| byte == 0);
        match (parts.next(), parts.next(), parts.next()) {
            // A user cannot act as another one.
            (Some(identity), Some(name), Some(password)) if identity.is_empty() || identity == name => {
                self.admit(name, password)
            }
            _ => false,
        }
    }

    fn list(&self) -> Arc<[User]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(file: &Path, text: bool) -> Result<Vec<User>, UsersError> {
    let len = std::fs::metadata(file).map_err(UsersError::Read)?.len();
    if len > FILE_BYTES_MAX {
        return Err(UsersError::TooLong { len });
    }
    parse(&std::fs::read(file).map_err(UsersError::Read)?, text)
}

fn parse(content: &[u8], text: bool) -> Result<Vec<User>, UsersError> {
    if content.is_empty() {
        return Err(UsersError::Empty);
    }
    let lines = content.strip_suffix(b"\n").unwrap_or(content).split(|&byte| byte == b'\n');
    let user = |(index, content): (usize, &[u8])| {
        let (line, len) = (index + 1, content.len());
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        if content.len() > LINE_BYTES_MAX {
            return Err(UsersError::LineTooLong { line, len });
        }
        let colon = content.iter().position(|&byte| byte == b':').ok_or(UsersError::Malformed { line })?;
        let (name, password) = (&content[..colon], &content[colon + 1..]);
        if text && name.contains(&b' ') {
            return Err(UsersError::BlankInName { line });
        }
        Ok(User { name: name.into(), password: password.into() })
    };
    lines.enumerate().map(user).collect()
}

/// Whether both are equal. The time that it takes depends only on their lengths.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_list_of_users_with_or_without_its_last_line_end() {
        for text in ["user:pass\nbob:se:cret\n", "user:pass\r\nbob:se:cret"] {
            let list = parse(text.as_bytes(), true).unwrap();
            let users = Users { file: PathBuf::new(), text: true, list: RwLock::new(list.into()) };
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
    }

    #[test]
    fn a_line_without_colon_or_too_long_is_named() {
        let too_long = format!("a:b\n{}:y\n", "x".repeat(254));
        let texts = [("\n", 1), ("nocolon\n", 1), ("a:b\n\nc:d\n", 2), (&too_long, 2)];
        for (text, line) in texts {
            for over_text in [true, false] {
                let error = parse(text.as_bytes(), over_text).unwrap_err().to_string();
                assert!(error.starts_with(&format!("line {line} is malformed")), "{text}: {error}");
            }
        }
        assert!(parse(format!("{}:y\n", "x".repeat(253)).as_bytes(), true).is_ok());
        assert!(parse(b"", true).is_err(), "as in memcached");
    }

    #[test]
    fn a_name_with_a_blank_is_refused_where_a_blank_ends_it() {
        let file = b"a:b\nbo b:secret\n";
        let error = parse(file, true).unwrap_err().to_string();
        assert!(error.starts_with("line 2: the user has a blank"), "{error}");
        assert!(parse(file, false).is_ok());
        for text in ["bob:se cret", "bob: secret ", "bob:", ":secret"] {
            assert!(parse(text.as_bytes(), true).is_ok(), "{text}");
        }
    }
}
