//! Why a line is refused, the exact answer to it, and where the next line begins.

use crate::line;

/// The refusal of a line. Nothing was executed, so that a refused storage command leaves the old value as it
/// is. (The only refusal that deletes the old value is that of a value too large for the cache, which is
/// found by the server.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why the line is refused.
    pub error: ParseError,
    /// Bytes of the input that were used up. When the line is longer than the input, the calls that follow
    /// consume the rest of it, and each returns [`ParseError::RestOfLine`].
    pub consumed: usize,
    /// Bytes after those consumed to skip before the next parse: the value of the refused command and its
    /// CRLF. At most [`crate::VALUE_LEN_MAX`] + 2.
    pub swallow: u64,
    /// Whether to close the connection, once all replies before this one are sent.
    pub close: bool,
    /// Whether the line ended in `noreply`: do not send `error.line()`.
    pub noreply: bool,
}

/// The reason why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The first word is not the name of a command.
    UnknownCommand,
    /// The line has fewer than four bytes, its line end included.
    LineTooShort,
    /// The line has fewer words than the command needs.
    MissingArgument,
    /// A key has more than [`crate::Limits::key_bytes_max`] bytes.
    KeyTooLong,
    /// The value length is not a number from 0 to [`crate::VALUE_LEN_MAX`].
    BadValueLen,
    /// A number of a storage line other than the value length, or the level of `verbosity`, cannot be read.
    BadNumber,
    /// The exptime of `gat`, `gats`, `touch` or `flush_all` cannot be read.
    BadExptime,
    /// The number of `incr` or `decr` cannot be read.
    BadDelta,
    /// The number of `cache_memlimit` cannot be read.
    BadMegabytes,
    /// `shutdown` has a word other than `graceful`. A server that does not allow `shutdown` answers
    /// [`line::SHUTDOWN_NOT_ENABLED`] instead.
    BadShutdownMode,
    /// A meta flag was sent twice.
    DuplicateFlag,
    /// A meta flag does not exist.
    InvalidFlag,
    /// Any error in the flags or the base64 key of `ma` that has no answer of its own there.
    InvalidOrDuplicateFlag,
    /// The number of a meta flag cannot be read.
    BadToken,
    /// The number of the meta flag `D` cannot be read.
    BadMetaDelta,
    /// The number of the meta flag `J` cannot be read.
    BadMetaInitial,
    /// The number of the meta flag `F` cannot be read.
    BadMetaClientFlags,
    /// The key of a meta command with `b` is not base64.
    BadKeyEncoding,
    /// The key of `me` with `b` is not base64.
    BadDebugKeyEncoding,
    /// The meta flag `O` is followed by more than 31 bytes.
    OpaqueTooLong,
    /// A meta line has more than 20 words.
    TooManyFlags,
    /// The meta flag `M` of `ms` is not followed by a mode of `ms`.
    BadStoreMode,
    /// The meta flag `M` of `ma` is not followed by a mode of `ma`.
    BadArithmeticMode,
    /// More than [`crate::Limits::line_bytes_max`] bytes have arrived and no line end among them. The connection
    /// closes without an answer.
    LineTooLong,
    /// The line is a request of a browser or of a web probe. The connection closes without an answer.
    Http,
    /// On a binary connection, the bytes are not a request, or one with a value longer than
    /// [`crate::VALUE_LEN_MAX`]. The connection closes without an answer.
    BadMagic,
    /// The bytes are the rest of a line that was already refused. They are neither answered nor counted as an
    /// error.
    RestOfLine,
}

impl ParseError {
    /// The line that answers it, CRLF included; empty for errors without an answer.
    #[must_use]
    pub const fn line(&self) -> &'static [u8] {
        match self {
            Self::UnknownCommand | Self::BadMegabytes => line::ERROR,
            Self::LineTooShort
            | Self::MissingArgument
            | Self::KeyTooLong
            | Self::BadValueLen
            | Self::BadNumber
            | Self::BadMetaClientFlags
            | Self::BadDebugKeyEncoding => line::BAD_FORMAT,
            Self::BadExptime => line::BAD_EXPTIME,
            Self::BadDelta => line::BAD_DELTA,
            Self::BadShutdownMode => line::BAD_SHUTDOWN_MODE,
            Self::DuplicateFlag => line::DUPLICATE_FLAG,
            Self::InvalidFlag => line::INVALID_FLAG,
            Self::InvalidOrDuplicateFlag => line::INVALID_OR_DUPLICATE_FLAG,
            Self::BadToken => line::BAD_TOKEN,
            Self::BadMetaDelta => line::BAD_META_DELTA,
            Self::BadMetaInitial => line::BAD_META_INITIAL,
            Self::BadKeyEncoding => line::BAD_KEY_ENCODING,
            Self::OpaqueTooLong => line::OPAQUE_TOO_LONG,
            Self::TooManyFlags => line::TOO_MANY_FLAGS,
            Self::BadStoreMode => line::BAD_STORE_MODE,
            Self::BadArithmeticMode => line::BAD_ARITHMETIC_MODE,
            Self::LineTooLong | Self::Http | Self::BadMagic | Self::RestOfLine => b"",
        }
    }

    /// Whether the connection is to be closed.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(self, Self::LineTooLong | Self::Http | Self::BadMagic)
    }
}

/// The refusal of a whole line by its grammar, which does not know the bytes of the line: [`Rejected`]
/// without them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) error: ParseError,
    /// Bytes of the data block to skip.
    pub(crate) swallow: u64,
    pub(crate) noreply: bool,
}

impl From<ParseError> for Refused {
    fn from(error: ParseError) -> Self {
        Self { error, swallow: 0, noreply: false }
    }
}

impl Refused {
    /// The refusal of a line that used up `consumed` bytes of the input.
    pub(crate) fn into_rejected(self, consumed: usize) -> Rejected {
        let Self { error, swallow, noreply } = self;
        Rejected { error, consumed, swallow, close: error.closes(), noreply }
    }
}
