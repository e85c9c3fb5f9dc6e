//! Every line that is refused: its answer, and the bytes that are skipped.

use crate::{Event, check, command, events, rejected};
use corecached_protocol::{Command, Delete, ParseError};

/// `line` is refused with `error`, which is answered with `answer`; a `mn` after it is a command again.
#[track_caller]
fn check_line(line: impl AsRef<str>, error: ParseError, answer: &str) {
    let line = line.as_ref();
    check(format!("{line}\r\nmn\r\n"), &[rejected(error), command(Command::MetaNoop)]);
    assert_eq!(error.line(), format!("{answer}\r\n").as_bytes(), "{line:?}");
}

/// `line` ends in `noreply` and is refused with `error`, which is not to be answered.
#[track_caller]
fn check_hidden(line: &str, error: ParseError) {
    check(
        format!("{line}\r\nmn\r\n"),
        &[Event::Rejected { error, noreply: true }, command(Command::MetaNoop)],
    );
}

/// `line` is refused, and the value after it is skipped.
#[track_caller]
fn check_swallowed(line: impl AsRef<str>, error: ParseError, noreply: bool) {
    check(
        format!("{}\r\nab\r\nmn\r\n", line.as_ref()),
        &[Event::Rejected { error, noreply }, Event::Swallowed(4), command(Command::MetaNoop)],
    );
}

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";

#[test]
fn unknown_commands_are_errors_and_case_and_leading_blanks_matter() {
    for line in
        ["bogus", "GET a", "Set a 0 0 1", " get a", "  mn", "versionx", "mget a", "mx k", "\tmn", "flush-all"]
    {
        check_line(line, ParseError::UnknownCommand, "ERROR");
    }
}

#[test]
fn lines_under_four_bytes_are_too_short() {
    for (sent, refused) in [("\r\n", 1), ("\n", 1), ("a\r\n", 1), ("ab\n", 1), ("mn\n", 1), ("\n\n\r\n", 3)] {
        check(sent, &vec![rejected(ParseError::LineTooShort); refused]);
    }
    assert_eq!(ParseError::LineTooShort.line(), b"CLIENT_ERROR bad command line format\r\n");
    check("abc\n", &[rejected(ParseError::UnknownCommand)]);
}

#[test]
fn missing_arguments_are_a_bad_line_even_under_noreply() {
    for line in [
        "get",
        "get ",
        "gets  ",
        "gat",
        "gat 0",
        "gats 0 ",
        "gat x",
        "set",
        "set k",
        "set k 0 0",
        "set k 0 noreply",
        "delete",
        "delete ",
        "incr",
        "incr k",
        "decr k ",
        "touch",
        "touch k",
        "verbosity",
        "mg",
        "mg ",
        "ms",
        "ms k",
        "ms k ",
        "md",
        "ma",
        "me",
    ] {
        check_line(line, ParseError::MissingArgument, BAD_FORMAT);
    }
}

#[test]
fn value_lengths_that_are_none_are_answered_and_nothing_is_skipped() {
    for len in ["x", "-1", "2147483646", "4294967296", "99999999999999999999999", "2x", "S2", "0x2", "+2"] {
        for line in [
            format!("set k 0 0 {len}"),
            format!("set k 0 0 {len} noreply"),
            format!("cas k 0 0 {len} 1"),
            format!("ms k {len}"),
            format!("ms k {len} q"),
        ] {
            check_line(line, ParseError::BadValueLen, BAD_FORMAT);
        }
    }
}

#[test]
fn a_cas_without_its_unique_skips_its_value() {
    for line in ["cas k 0 0 2", "cas k 0 0 2 ", &format!("cas {} 0 0 2", "k".repeat(251))] {
        check_swallowed(line, ParseError::MissingArgument, false);
    }
}

#[test]
fn other_errors_of_a_storage_line_skip_its_value_and_obey_noreply() {
    let long = "k".repeat(251);
    for (line, error) in [
        ("set k x 0 2", ParseError::BadNumber),
        ("set k -1 0 2", ParseError::BadNumber),
        ("set k 18446744073709551616 0 2", ParseError::BadNumber),
        ("add k 0 x 2", ParseError::BadNumber),
        ("add k 0 9223372036854775808 2", ParseError::BadNumber),
        ("cas k 0 0 2 x", ParseError::BadNumber),
        ("cas k 0 0 2 +1", ParseError::BadNumber),
        ("set k +-1 0 2", ParseError::BadNumber),
        ("set k 0 ++1 2", ParseError::BadNumber),
        ("cas k 0 0 2 -1", ParseError::BadNumber),
        ("cas k 0 0 2 18446744073709551616", ParseError::BadNumber),
        (&format!("set {long} 0 0 2"), ParseError::KeyTooLong),
        (&format!("append {long} x x 2"), ParseError::KeyTooLong),
    ] {
        assert_eq!(error.line(), format!("{BAD_FORMAT}\r\n").as_bytes());
        check_swallowed(line, error, false);
        check_swallowed(format!("{line} noreply"), error, true);
    }
    // The word that should have been the cas unique is the last one.
    check_swallowed("cas k 0 0 2 noreply", ParseError::BadNumber, true);
}

#[test]
fn the_longest_refused_value_is_skipped_to_its_end() {
    let events = events([&b"set k x 0 2147483645\r\n"[..]]);
    assert_eq!(events, [rejected(ParseError::BadNumber), Event::Swallowed(2_147_483_647)]);
}

#[test]
fn keys_too_long_are_a_bad_line_and_obey_noreply() {
    let long = "k".repeat(251);
    for line in [
        format!("delete {long}"),
        format!("incr {long} 1"),
        format!("decr {long} x"),
        format!("touch {long} 0"),
    ] {
        check_line(&line, ParseError::KeyTooLong, BAD_FORMAT);
        check_hidden(&format!("{line} noreply"), ParseError::KeyTooLong);
    }
    let invalid = "CLIENT_ERROR invalid or duplicate flag";
    check_line(format!("ma {long} v"), ParseError::InvalidOrDuplicateFlag, invalid);
    for verb in ["mg", "md", "me"] {
        check_line(format!("{verb} {long}"), ParseError::KeyTooLong, BAD_FORMAT);
        check_line(format!("{verb} {long} q"), ParseError::KeyTooLong, BAD_FORMAT);
    }
    check_swallowed(format!("ms {long} 2 q"), ParseError::KeyTooLong, false);
}

#[test]
fn numbers_have_their_own_answers_and_obey_noreply() {
    for (line, error, answer) in [
        ("incr k x", ParseError::BadDelta, "CLIENT_ERROR invalid numeric delta argument"),
        ("incr k +1", ParseError::BadDelta, "CLIENT_ERROR invalid numeric delta argument"),
        ("touch k +1", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("flush_all +1", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("verbosity +1", ParseError::BadNumber, BAD_FORMAT),
        ("cache_memlimit +9", ParseError::BadMegabytes, "ERROR"),
        ("incr k -1", ParseError::BadDelta, "CLIENT_ERROR invalid numeric delta argument"),
        ("decr k 18446744073709551616", ParseError::BadDelta, "CLIENT_ERROR invalid numeric delta argument"),
        ("touch k x", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("touch k 2147483648", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("touch k -2147483649", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("flush_all 4294967295", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("flush_all x", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("flush_all noreply 0", ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument"),
        ("verbosity x", ParseError::BadNumber, BAD_FORMAT),
        ("verbosity -1", ParseError::BadNumber, BAD_FORMAT),
        ("cache_memlimit x", ParseError::BadMegabytes, "ERROR"),
        ("cache_memlimit -1", ParseError::BadMegabytes, "ERROR"),
    ] {
        check_line(line, error, answer);
        check_hidden(&format!("{line} noreply"), error);
    }
    check_line("cache_memlimit", ParseError::BadMegabytes, "ERROR");
    check_hidden("incr k noreply", ParseError::BadDelta);
    check_hidden("touch k noreply", ParseError::BadExptime);
    check_hidden("verbosity noreply", ParseError::BadNumber);
}

#[test]
fn a_retrieval_line_knows_no_noreply() {
    for line in ["gat x k", "gats x k noreply", "gat 9223372036854775808 k", "gat 2147483648 k"] {
        check_line(line, ParseError::BadExptime, "CLIENT_ERROR invalid exptime argument");
    }
}

#[test]
fn shutdown_is_graceful_or_plain() {
    for line in ["shutdown foo", "shutdown gracefully", "shutdown graceful now"] {
        check_line(line, ParseError::BadShutdownMode, "CLIENT_ERROR invalid shutdown mode");
    }
}

#[test]
fn web_requests_close_without_a_word() {
    for line in ["GET / HTTP/1.1", "POST HTTP/", "HTTP/1.0", "foo HTTP/2 "] {
        check(format!("{line}\r\nHost: here\r\n\r\n"), &[Event::Closed(ParseError::Http)]);
    }
    check_line("foo HTTP/1.0 a", ParseError::UnknownCommand, "ERROR");
    assert_eq!(ParseError::Http.line(), b"");
}

#[test]
fn a_line_of_over_2048_bytes_closes_unless_its_end_has_arrived() {
    let filler = "x".repeat(2049);
    for line in [filler.clone(), format!("set {filler}"), format!("mg k {filler}"), " ".repeat(2049)] {
        check(&line, &[Event::Closed(ParseError::LineTooLong)]);
    }
    // The lines arrive as a whole.
    for (line, error) in [
        (filler.clone(), ParseError::UnknownCommand),
        (format!("set {filler}"), ParseError::MissingArgument),
        (format!("mg k v v {filler}"), ParseError::DuplicateFlag),
        (" ".repeat(2049), ParseError::UnknownCommand),
        (format!("get{}", " ".repeat(2049)), ParseError::MissingArgument),
    ] {
        let line = format!("{line}\r\nmn\r\n");
        assert_eq!(events([line.as_bytes()]), [rejected(error), command(Command::MetaNoop)], "{line}");
    }
    let line = format!("delete k {filler}\r\n");
    let delete = Command::Delete(Delete { key: b"k", noreply: false });
    assert_eq!(events([line.as_bytes()]), [command(delete)]);
    let line = format!("set k x 0 2 {filler}\r\nab\r\n");
    assert_eq!(events([line.as_bytes()]), [rejected(ParseError::BadNumber), Event::Swallowed(4)]);
    assert_eq!(ParseError::LineTooLong.line(), b"");
    check(&filler[..2048], &[]);
}

#[test]
fn a_retrieval_line_that_goes_wrong_before_its_first_key_is_skipped_to_its_end() {
    let line = format!("gat x {}\r\nmn\r\n", "k ".repeat(3000));
    for piece_bytes in [1, 1000, 2049, 5000] {
        let events = events(line.as_bytes().chunks(piece_bytes));
        assert_eq!(
            events,
            [rejected(ParseError::BadExptime), command(Command::MetaNoop)],
            "pieces of {piece_bytes}"
        );
    }
}
