//! The users of the server and their passwords: the file of `-Y`, or for `-S` the file that
//! `MEMCACHED_SASL_PWDB` names.
//!
//! A line of the file is `user:password`. It is read at start and again on SIGHUP. Connections that have
//! authenticated stay authenticated.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Longest line in bytes, as in memcached.
const LINE_BYTES_MAX: usize = 256;
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
    /// A line has no colon, or is too long.
    #[error("line {line} is malformed: it should be user:password")]
    Malformed {
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
    list: RwLock<Arc<[User]>>,
}

impl Users {
    /// Reads the users of `file`.
    ///
    /// # Errors
    /// When the file cannot be read, is too long, or has a line that is not `user:password`.
    pub fn read(file: &Path) -> Result<Self, UsersError> {
        Ok(Self { file: file.to_owned(), list: RwLock::new(read(file)?.into()) })
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
        let list = read(&self.file)?.into();
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        Ok(())
    }

    /// What the first user sends to authenticate in the text protocol: name, space, password. `None` when
    /// there is no user.
    #[must_use]
    pub fn first_token(&self) -> Option<Vec<u8>> {
        self.list().first().map(|user| [&user.name, &b" "[..], &user.password].concat())
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

fn read(file: &Path) -> Result<Vec<User>, UsersError> {
    let len = std::fs::metadata(file).map_err(UsersError::Read)?.len();
    if len > FILE_BYTES_MAX {
        return Err(UsersError::TooLong { len });
    }
    parse(&std::fs::read(file).map_err(UsersError::Read)?)
}

fn parse(text: &[u8]) -> Result<Vec<User>, UsersError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n');
    let user = |(index, line): (usize, &[u8])| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&byte| byte == b':').filter(|_| line.len() < LINE_BYTES_MAX);
        let colon = colon.ok_or(UsersError::Malformed { line: index + 1 })?;
        Ok(User { name: line[..colon].into(), password: line[colon + 1..].into() })
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
            let list = parse(text.as_bytes()).unwrap();
            let users = Users { file: PathBuf::new(), list: RwLock::new(list.into()) };
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
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn a_line_without_colon_or_too_long_is_named() {
        for text in ["\n", "nocolon\n", "a:b\n\nc:d\n", &format!("a:b\n{}:y\n", "x".repeat(300))] {
            assert!(parse(text.as_bytes()).unwrap_err().to_string().contains("malformed"), "{text}");
        }
    }
}
