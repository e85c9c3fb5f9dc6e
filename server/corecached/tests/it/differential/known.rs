//! The replies in which a memcached may differ from this server.

/// The versions that a difference is known of.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// 1.6.18, which Debian packages.
    Old,
    /// 1.6.45, whose protocol this server has.
    New,
}

/// One difference.
struct Known {
    of: Of,
    reason: &'static str,
    /// Whether it explains a difference: takes the command, the reply of memcached and ours.
    holds: fn(&[u8], &[u8], &[u8]) -> bool,
}

const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const ERROR: &[u8] = b"ERROR\r\n";

fn is_meta(sent: &[u8]) -> bool {
    sent.starts_with(b"mg ")
        || sent.starts_with(b"ms ")
        || sent.starts_with(b"md ")
        || sent.starts_with(b"ma ")
}

const KNOWN: &[Known] = &[
    Known {
        of: Of::New,
        reason: "an empty line follows the error of a key that is too long there",
        holds: |sent, theirs, ours| {
            (sent.starts_with(b"get") || sent.starts_with(b"gat"))
                && theirs == LINE_TOO_LONG
                && ours == BAD_FORMAT
        },
    },
    Known {
        of: Of::Old,
        reason: "missing words and lines under four bytes are ERROR there",
        holds: |_, theirs, ours| theirs == ERROR && ours == BAD_FORMAT,
    },
    Known {
        of: Of::Old,
        reason: "gat without a key finds nothing there",
        holds: |sent, theirs, ours| {
            sent.starts_with(b"gat 0\r\n") && theirs == b"END\r\n" && ours == BAD_FORMAT
        },
    },
    Known {
        of: Of::Old,
        reason: "q does not hide that ma created an item there",
        holds: |sent, theirs, ours| {
            sent.starts_with(b"ma ")
                && ours.is_empty()
                && (theirs.starts_with(b"HD ") || theirs.starts_with(b"VA "))
        },
    },
    Known {
        of: Of::Old,
        reason: "the version",
        holds: |sent, _, ours| sent.starts_with(b"version") && ours == b"VERSION 1.6.45\r\n",
    },
    Known {
        of: Of::Old,
        reason: "the value after a storage line with a wrong word is not skipped there, and taken for a command",
        holds: |sent, theirs, ours| sent.ends_with(b"\r\nzzzz\r\n") && theirs == [ours, ERROR].concat(),
    },
    Known {
        of: Of::Old,
        reason: "a cas without its unique is ERROR there, and its value is taken for a command",
        holds: |sent, theirs, ours| {
            sent.starts_with(b"cas ")
                && sent.ends_with(b" 0 0 4\r\nzzzz\r\n")
                && theirs == [ERROR, ERROR].concat()
                && ours == BAD_FORMAT
        },
    },
    Known {
        of: Of::Old,
        reason: "md has one text for all that is wrong with its flags there",
        holds: |sent, theirs, ours| {
            sent.starts_with(b"md ")
                && theirs == b"CLIENT_ERROR invalid or duplicate flag\r\n"
                && ours.starts_with(b"CLIENT_ERROR ")
        },
    },
    Known {
        of: Of::Old,
        reason: "opaque and key do not come back from what failed there",
        holds: |sent, theirs, ours| {
            let failed =
                |reply: &[u8]| [b"EN ", b"NF ", b"NS ", b"EX "].iter().any(|code| reply.starts_with(*code));
            is_meta(sent) && failed(theirs) && failed(ours) && theirs[..2] == ours[..2]
        },
    },
];

const LINE_TOO_LONG: &[u8] = b"CLIENT_ERROR bad command line format\r\n\r\n";

/// The reason why the replies to `sent` may differ; `None` if they may not.
pub fn reason(is_old: bool, sent: &[u8], theirs: &[u8], ours: &[u8]) -> Option<&'static str> {
    let of = if is_old { Of::Old } else { Of::New };
    let explains = |known: &&Known| known.of == of && (known.holds)(sent, theirs, ours);
    KNOWN.iter().find(explains).map(|known| known.reason)
}
