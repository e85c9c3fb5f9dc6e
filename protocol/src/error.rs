//! What can be wrong with a line, the exact answer to it, and where the next line begins.

use crate::line;

/// A line that is no command. Nothing was executed; a storage command refused here leaves the old value alone (only a
/// value too large for the cache deletes it, and that is the server's to find).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What was wrong.
    pub error: ParseError,
    /// Bytes of the input that are done with. The rest of a line longer than the input is taken by the calls that
    /// follow, each as [`ParseError::RestOfLine`].
    pub consumed: usize,
    /// Bytes behind `consumed` that are the value of the refused command and its CRLF: skip them before the next
    /// parse. At most [`crate::VALUE_LEN_MAX`] + 2.
    pub swallow: u64,
    /// Close the connection, after what was answered before.
    pub close: bool,
    /// The client asked not to be answered: keep `error.line()` back.
    pub noreply: bool,
}

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// No such command.
    UnknownCommand,
    /// Under four bytes with its line end.
    LineTooShort,
    /// Fewer words than the command needs.
    MissingArgument,
    /// Over [`crate::Limits::key_bytes_max`].
    KeyTooLong,
    /// The value length is not a number from 0 to [`crate::VALUE_LEN_MAX`].
    BadValueLen,
    /// A number of a storage line, or the level of `verbosity`.
    BadNumber,
    /// The exptime of `gat`, `gats`, `touch`, `flush_all`.
    BadExptime,
    /// `delete` with other words behind the key than `0` and `noreply`.
    DeleteUsage,
    /// The number of `incr`, `decr`.
    BadDelta,
    /// The number of `cache_memlimit`.
    BadMegabytes,
    /// `shutdown` with a word other than `graceful`. A server that has `shutdown` switched off answers
    /// [`line::SHUTDOWN_NOT_ENABLED`] instead.
    BadShutdownMode,
    /// A meta flag sent twice.
    DuplicateFlag,
    /// A meta flag that does not exist.
    InvalidFlag,
    /// `ma` only: anything wrong with its flags.
    InvalidOrDuplicateFlag,
    /// The number of a meta flag.
    BadToken,
    /// The number of the meta flag `D`.
    BadMetaDelta,
    /// The number of the meta flag `J`.
    BadMetaInitial,
    /// The number of the meta flag `F`.
    BadMetaClientFlags,
    /// The key of a meta command with `b` is not base64.
    BadKeyEncoding,
    /// The key of `me` with `b` is not base64.
    BadDebugKeyEncoding,
    /// The meta flag `O` with over 31 bytes.
    OpaqueTooLong,
    /// A meta line of over 20 words.
    TooManyFlags,
    /// The meta flag `M` without exactly one byte behind it.
    BadModeLength,
    /// The meta flag `M` of `ms`.
    BadStoreMode,
    /// The meta flag `M` of `ma`.
    BadArithmeticMode,
    /// No line end within [`crate::Limits::line_bytes_max`]; closes without an answer.
    LineTooLong,
    /// A browser or a web probe; closes without an answer.
    Http,
    /// Of a binary connection: no request, or one longer than any may be; closes without an answer.
    BadMagic,
    /// More of a line that was answered already; no answer, and nothing to count.
    RestOfLine,
}

impl ParseError {
    /// The answer, CRLF included; empty where there is none.
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
            Self::DeleteUsage => line::DELETE_USAGE,
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
            Self::BadModeLength => line::BAD_MODE_LENGTH,
            Self::BadStoreMode => line::BAD_STORE_MODE,
            Self::BadArithmeticMode => line::BAD_ARITHMETIC_MODE,
            Self::LineTooLong | Self::Http | Self::BadMagic | Self::RestOfLine => b"",
        }
    }

    /// Whether the connection ends with it.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(self, Self::LineTooLong | Self::Http | Self::BadMagic)
    }
}

/// What a grammar says of a whole line that it refuses; [`Rejected`] without the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub error: ParseError,
    /// Bytes of the data block to skip.
    pub swallow: u64,
    pub noreply: bool,
}

impl From<ParseError> for Refused {
    fn from(error: ParseError) -> Self {
        Self { error, swallow: 0, noreply: false }
    }
}

impl Refused {
    /// The refusal of a line that took `consumed` bytes.
    pub fn of_line(self, consumed: usize) -> Rejected {
        let Self { error, swallow, noreply } = self;
        Rejected { error, consumed, swallow, close: error.closes(), noreply }
    }
}
