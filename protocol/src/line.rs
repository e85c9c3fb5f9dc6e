//! Every reply that is a constant, CRLF included, byte for byte as memcached 1.6 sends it.
//!
//! The answers to refused lines are among them; [`crate::ParseError::line`] chooses between those.

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        pub const $name: &[u8] = concat!($text, "\r\n").as_bytes();
    )*};
}

lines! {
    /// A value was stored.
    STORED = "STORED";
    /// `add`, `replace`, `append`, `prepend`: the condition did not hold.
    NOT_STORED = "NOT_STORED";
    /// `cas`: the item was changed since the client read it.
    EXISTS = "EXISTS";
    /// There is no such item.
    NOT_FOUND = "NOT_FOUND";
    /// `delete`: the item was deleted.
    DELETED = "DELETED";
    /// `touch`: the item has the new exptime.
    TOUCHED = "TOUCHED";
    /// An administrative command was carried out.
    OK = "OK";
    /// Ends the values of a retrieval line, and a list of stats.
    END = "END";
    /// `stats reset`: the counters start again at 0.
    RESET = "RESET";
    /// The answer to `mn`.
    META_NOOP = "MN";
    /// `mg` and `me` without flags to return: there is no such item.
    META_MISS = "EN";
    /// A meta command succeeded and has no flags to return.
    META_DONE = "HD";

    /// There is no such command, or the arguments of an administrative command make no sense.
    ERROR = "ERROR";
    /// A line that is too short, lacks arguments, or has one that cannot be read.
    BAD_FORMAT = "CLIENT_ERROR bad command line format";
    /// The value is not followed by CRLF.
    BAD_DATA_CHUNK = "CLIENT_ERROR bad data chunk";
    /// `gat`, `gats`, `touch`, `flush_all`: the exptime cannot be read.
    BAD_EXPTIME = "CLIENT_ERROR invalid exptime argument";
    /// `incr`, `decr`: the argument is not a number.
    BAD_DELTA = "CLIENT_ERROR invalid numeric delta argument";
    /// `incr`, `decr`, `ma`: the stored value is not a number.
    NON_NUMERIC = "CLIENT_ERROR cannot increment or decrement non-numeric value";
    /// `flush_all` where it is switched off (`-F`).
    FLUSH_NOT_ALLOWED = "CLIENT_ERROR flush_all not allowed";
    /// `watch` where it is switched off (`-W`).
    WATCH_NOT_ALLOWED = "CLIENT_ERROR watch commands not allowed";
    /// `shutdown` with a word other than `graceful`.
    BAD_SHUTDOWN_MODE = "CLIENT_ERROR invalid shutdown mode";
    /// `slabs automove_window` with a number outside 3 to 1800.
    BAD_AUTOMOVE_WINDOW = "CLIENT_ERROR automove window too low or too high";
    /// `stats cachedump` where dumps are switched off (`-X`).
    STATS_CACHEDUMP_NOT_ALLOWED = "CLIENT_ERROR stats cachedump not allowed";
    /// `stats cachedump` with fewer words than it needs.
    BAD_COMMAND_LINE = "CLIENT_ERROR bad command line";
    /// `stats cachedump` of a class that does not exist.
    ILLEGAL_SLAB_CLASS = "CLIENT_ERROR Illegal slab id";
    /// `stats detail` without one of its three words.
    STATS_DETAIL_USAGE = "CLIENT_ERROR usage: stats detail on|off|dump";
    /// A command that was sent before the client authenticated (`-Y`).
    UNAUTHENTICATED = "CLIENT_ERROR unauthenticated";
    /// `user password` is not followed by CRLF (`-Y`).
    BAD_TERMINATION = "CLIENT_ERROR bad command line termination";
    /// The wrong password (`-Y`).
    AUTHENTICATION_FAILURE = "CLIENT_ERROR authentication failure";
    /// The value does not hold `user password` (`-Y`).
    BAD_AUTHENTICATION_TOKEN = "CLIENT_ERROR bad authentication token format";
    /// A value over 16 KB in place of `user password` (`-Y`).
    AUTHENTICATION_TOKEN_TOO_LONG = "CLIENT_ERROR auth token too long";

    /// Meta: a flag was sent twice.
    DUPLICATE_FLAG = "CLIENT_ERROR duplicate flag";
    /// Meta: a flag does not exist.
    INVALID_FLAG = "CLIENT_ERROR invalid flag";
    /// `ma`: any error in a flag that has no answer of its own.
    INVALID_OR_DUPLICATE_FLAG = "CLIENT_ERROR invalid or duplicate flag";
    /// Meta: the number of a flag cannot be read.
    BAD_TOKEN = "CLIENT_ERROR bad token in command line format";
    /// Meta: the number of `D` cannot be read.
    BAD_META_DELTA = "CLIENT_ERROR invalid numeric delta value";
    /// Meta: the number of `J` cannot be read.
    BAD_META_INITIAL = "CLIENT_ERROR invalid numeric initial value";
    /// Meta: the key is not base64 although the flag `b` says so.
    BAD_KEY_ENCODING = "CLIENT_ERROR error decoding key";
    /// Meta: `O` is followed by more than 31 bytes.
    OPAQUE_TOO_LONG = "CLIENT_ERROR opaque token too long";
    /// Meta: the line has more than 20 words.
    TOO_MANY_FLAGS = "CLIENT_ERROR options flags are too long";
    /// `ms`: `M` names a mode that `ms` does not have.
    BAD_STORE_MODE = "CLIENT_ERROR invalid mode for ms M token";
    /// `ma`: `M` names a mode that `ma` does not have.
    BAD_ARITHMETIC_MODE = "CLIENT_ERROR invalid mode for ma M token";

    /// The value is larger than any the cache can store. A `set` has deleted the old value.
    TOO_LARGE = "SERVER_ERROR object too large for cache";
    /// There is no memory for the value, and nothing may or can be evicted.
    OUT_OF_MEMORY = "SERVER_ERROR out of memory storing object";
    /// `shutdown` without `-A`.
    SHUTDOWN_NOT_ENABLED = "SERVER_ERROR: shutdown not enabled";

    /// `cache_memlimit` under 8 MB.
    MEMLIMIT_TOO_SMALL = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
    /// `slabs reassign` from or to a class that does not exist.
    BAD_SLAB_CLASS = "BADCLASS invalid src or dst class id";
    /// `slabs reassign` from a class to itself.
    SAME_SLAB_CLASS = "SAME src and dst class are identical";
    /// `slabs reassign` from a class without a spare page.
    NO_SPARE_PAGE = "NOSPARE source class has no spare pages";
    /// `lru_crawler crawl` of a class that does not exist.
    BAD_CRAWLER_CLASS = "BADCLASS invalid class id";
    /// `lru_crawler sleep` with more than 1,000,000 us.
    CRAWLER_SLEEP_TOO_LONG = "CLIENT_ERROR sleep must be one second or less";
    /// `lru_crawler crawl` of empty classes.
    CRAWLER_NOT_STARTED = "NOTSTARTED no items to crawl";
    /// A proxy: a key is too long.
    BAD_KEY = "CLIENT_ERROR bad key";
    /// A proxy: the command does not exist or is malformed. The connection closes.
    MALFORMED_REQUEST = "CLIENT_ERROR malformed request";
    /// A proxy: `flush_all` where it is not enabled.
    COMMAND_DISABLED = "SERVER_ERROR Command disabled";
    /// A proxy: the command is one that only a cache server carries out.
    COMMAND_NOT_SUPPORTED = "SERVER_ERROR Command not supported";
    /// A proxy: `stats` with a group that does not exist.
    BAD_STATS_COMMAND = "CLIENT_ERROR bad stats command";
    /// `lru_crawler enable` while the crawler is already enabled.
    CRAWLER_NOT_RESTARTED = "ERROR failed to start lru crawler thread";
    /// `lru_crawler metadump` and `mgdump` where they are switched off (`-X`).
    METADUMP_NOT_ALLOWED = "ERROR metadump not allowed";
    /// `lru tune` with hot and warm shares above 80 percent together.
    BAD_LRU_SHARES = "ERROR hot and warm pcts must not exceed 80";
    /// `watch` while 20 connections already watch.
    TOO_MANY_WATCHERS = "WATCHER_TOO_MANY log watcher limit reached";
    /// `refresh_certs` without TLS.
    TLS_NOT_ENABLED = "Error TLS not enabled";
}
