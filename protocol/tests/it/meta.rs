//! Every meta command, flag and mode, and the errors of lines that have others.

use crate::{Event, check, command, data, rejected};
use corecached_protocol::{Command, Exptime, Meta, MetaFlags, MetaMode, MetaVerb, ParseError};

/// Flags with `tokens`, which hold `letters` and no numbers.
fn flags<'a>(letters: &str, tokens: &'a str) -> MetaFlags<'a> {
    let present = letters.bytes().fold(0, |bits, letter| bits | MetaFlags::bit(letter));
    MetaFlags { present, tokens: tokens.as_bytes(), delta: 1, ..MetaFlags::default() }
}

fn meta(verb: MetaVerb, flags: MetaFlags) -> Event {
    let value_len = if verb == MetaVerb::Set { 2 } else { 0 };
    command(Command::Meta(Meta { verb, key: b"k", value_len, flags }))
}

/// `line` is refused with `error`, which is answered with `answer`; a `mn` after it is a command again.
#[track_caller]
fn check_error(line: impl AsRef<str>, error: ParseError, answer: &str) {
    let line = line.as_ref();
    assert_eq!(error.line(), format!("CLIENT_ERROR {answer}\r\n").as_bytes(), "{line:?}");
    let mut expected = vec![rejected(error), command(Command::MetaNoop)];
    let mut sent = format!("{line}\r\n");
    if line.starts_with("ms") {
        expected.insert(1, Event::Swallowed(4));
        sent.push_str("ab\r\n");
    }
    check(sent + "mn\r\n", &expected);
}

#[test]
fn each_verb_stands_alone() {
    for (line, verb) in [
        ("mg k", MetaVerb::Get),
        ("md k ", MetaVerb::Delete),
        ("me  k", MetaVerb::Debug),
        ("mg  k  ", MetaVerb::Get),
    ] {
        check(format!("{line}\r\n"), &[meta(verb, flags("", ""))]);
        check(format!("{line}\n"), &[meta(verb, flags("", ""))]);
    }
    let increment = MetaFlags { mode: MetaMode::Increment, ..flags("", "") };
    check("ma k\r\n", &[meta(MetaVerb::Arithmetic, increment)]);
    check("ms k 2\r\nab\r\n", &[meta(MetaVerb::Set, flags("", "")), data(b"ab")]);
    for line in ["mn\r\n", "mn \n", "mn foo bar\r\n"] {
        check(line, &[command(Command::MetaNoop)]);
    }
}

#[test]
fn every_verb_takes_every_flag() {
    let tokens = "q k O123 L P c f h l s t v u I x";
    for (line, verb) in [("mg k", MetaVerb::Get), ("md k", MetaVerb::Delete)] {
        check(format!("{line} {tokens}\r\n"), &[meta(verb, flags("qkOLPcfhlstvuIx", tokens))]);
    }
    let numbers = "T30 N-1 R5 E6 C7 F8 D9 J10 MS";
    let read = MetaFlags {
        exptime: Exptime(30),
        vivify: Exptime(-1),
        recache_s: 5,
        new_cas: 6,
        compare_cas: 7,
        client_flags: 8,
        delta: 9,
        initial: 10,
        ..flags("TNRECFDJM", numbers)
    };
    check(format!("ms k 2 {numbers}\r\nab\r\n"), &[meta(MetaVerb::Set, read), data(b"ab")]);
    check(format!("mg k {numbers}\r\n"), &[meta(MetaVerb::Get, read)]);
}

#[test]
fn flags_are_kept_as_they_were_sent() {
    check("mg  k   v  k5 \r\n", &[meta(MetaVerb::Get, flags("vk", "v  k5"))]);
    check("mg k Lpath/a Pb u\n", &[meta(MetaVerb::Get, flags("LPu", "Lpath/a Pb u"))]);
    check("mg k O\r\n", &[meta(MetaVerb::Get, flags("O", "O"))]);
}

#[test]
fn numbers_of_flags_are_read_to_their_bounds() {
    let with = |letters, tokens, change: fn(&mut MetaFlags)| {
        let mut read = flags(letters, tokens);
        change(&mut read);
        check(format!("mg k {tokens}\r\n"), &[meta(MetaVerb::Get, read)]);
    };
    with("T", "T-1", |flags| flags.exptime = Exptime(-1));
    with("T", "T2147483647", |flags| flags.exptime = Exptime(2_147_483_647));
    with("R", "R-2147483648", |flags| flags.recache_s = i32::MIN);
    with("R", "R2147483647", |flags| flags.recache_s = i32::MAX);
    with("C", "C18446744073709551615", |flags| flags.compare_cas = u64::MAX);
    with("D", "D18446744073709551615", |flags| flags.delta = u64::MAX);
    with("F", "F4294967295", |flags| flags.client_flags = u32::MAX);
}

#[test]
fn modes_are_one_upper_case_letter_or_sign() {
    for (token, mode) in [
        ("MS", MetaMode::Set),
        ("ME", MetaMode::Add),
        ("MA", MetaMode::Append),
        ("MP", MetaMode::Prepend),
        ("MR", MetaMode::Replace),
    ] {
        let read = MetaFlags { mode, ..flags("M", token) };
        check(format!("ms k 2 {token}\r\nab\r\n"), &[meta(MetaVerb::Set, read), data(b"ab")]);
    }
    for (token, mode) in [
        ("MI", MetaMode::Increment),
        ("M+", MetaMode::Increment),
        ("MD", MetaMode::Decrement),
        ("M-", MetaMode::Decrement),
    ] {
        check(
            format!("ma k {token}\r\n"),
            &[meta(MetaVerb::Arithmetic, MetaFlags { mode, ..flags("M", token) })],
        );
    }
    for token in ["Ms", "Me", "MI", "M+", "MX"] {
        check_error(format!("ms k 2 {token}"), ParseError::BadStoreMode, "invalid mode for ms M token");
    }
    for token in ["Mi", "Md", "MS", "MX"] {
        check_error(format!("ma k {token}"), ParseError::BadArithmeticMode, "invalid mode for ma M token");
    }
    for token in ["M", "Mset", "M1S"] {
        check_error(format!("ms k 2 {token}"), ParseError::BadStoreMode, "invalid mode for ms M token");
        check_error(format!("ma k {token}"), ParseError::BadArithmeticMode, "invalid mode for ma M token");
    }
    // Only the first letter counts, and only for verbs that have modes.
    let append = MetaFlags { mode: MetaMode::Append, ..flags("M", "MAppend") };
    check("ms k 2 MAppend\r\nab\r\n", &[meta(MetaVerb::Set, append), data(b"ab")]);
    for verb in [MetaVerb::Get, MetaVerb::Delete] {
        let word = if verb == MetaVerb::Get { "mg" } else { "md" };
        check(format!("{word} k MX\r\n"), &[meta(verb, flags("M", "MX"))]);
    }
}

#[test]
fn every_verb_but_ma_says_what_is_wrong_with_a_flag() {
    let long_opaque = format!("O{}", "o".repeat(32));
    for (tokens, error, answer) in [
        ("v v", ParseError::DuplicateFlag, "duplicate flag"),
        ("v k c v", ParseError::DuplicateFlag, "duplicate flag"),
        ("O1 O2", ParseError::DuplicateFlag, "duplicate flag"),
        ("z", ParseError::InvalidFlag, "invalid flag"),
        ("v S5", ParseError::InvalidFlag, "invalid flag"),
        ("q z", ParseError::InvalidFlag, "invalid flag"),
        ("T", ParseError::BadToken, "bad token in command line format"),
        ("Tx", ParseError::BadToken, "bad token in command line format"),
        ("T5x", ParseError::BadToken, "bad token in command line format"),
        ("T2147483648", ParseError::BadToken, "bad token in command line format"),
        ("N-2147483649", ParseError::BadToken, "bad token in command line format"),
        ("R4294967295", ParseError::BadToken, "bad token in command line format"),
        ("N", ParseError::BadToken, "bad token in command line format"),
        ("R1.5", ParseError::BadToken, "bad token in command line format"),
        ("C-1", ParseError::BadToken, "bad token in command line format"),
        ("C18446744073709551616", ParseError::BadToken, "bad token in command line format"),
        ("E", ParseError::BadToken, "bad token in command line format"),
        ("Dx", ParseError::BadMetaDelta, "invalid numeric delta value"),
        ("J-1", ParseError::BadMetaInitial, "invalid numeric initial value"),
        ("Fx", ParseError::BadMetaClientFlags, "bad command line format"),
        ("F4294967296", ParseError::BadMetaClientFlags, "bad command line format"),
        ("F-1", ParseError::BadMetaClientFlags, "bad command line format"),
        ("b", ParseError::BadKeyEncoding, "error decoding key"),
        (&long_opaque, ParseError::OpaqueTooLong, "opaque token too long"),
    ] {
        for verb in ["mg k", "ms k 2", "md k"] {
            check_error(format!("{verb} {tokens}"), error, answer);
        }
        match error {
            ParseError::OpaqueTooLong => check_error(format!("ma k {tokens}"), error, answer),
            _ => check_error(
                format!("ma k {tokens}"),
                ParseError::InvalidOrDuplicateFlag,
                "invalid or duplicate flag",
            ),
        }
    }
}

#[test]
fn of_several_errors_the_graver_is_answered() {
    let bad_token = "bad token in command line format";
    for (tokens, error, answer) in [
        ("Tx z", ParseError::InvalidFlag, "invalid flag"),
        ("Tx v v", ParseError::DuplicateFlag, "duplicate flag"),
        ("v v z", ParseError::DuplicateFlag, "duplicate flag"),
        ("z v v", ParseError::InvalidFlag, "invalid flag"),
        ("Tx Dx", ParseError::BadMetaDelta, "invalid numeric delta value"),
        (&format!("O{} Tx", "o".repeat(40)), ParseError::BadToken, bad_token),
    ] {
        check_error(format!("mg k {tokens}"), error, answer);
    }
    let tokens = format!("O{} MX", "o".repeat(40));
    check_error(format!("ms k 2 {tokens}"), ParseError::BadStoreMode, "invalid mode for ms M token");
}

#[test]
fn a_flag_that_is_no_letter_skips_the_value_of_ms() {
    for flag in [&b"5"[..], b"-", b"\x01", b"\xff", b"+5"] {
        let line = [&b"ms k 2 v "[..], flag, b"\r\nab\r\nmn\r\n"].concat();
        check(line, &[rejected(ParseError::InvalidFlag), Event::Swallowed(4), command(Command::MetaNoop)]);
    }
    check_error("mg k 5", ParseError::InvalidFlag, "invalid flag");
    check_error("ma k 5", ParseError::InvalidOrDuplicateFlag, "invalid or duplicate flag");
}

#[test]
fn an_opaque_has_at_most_31_bytes() {
    let opaque = format!("O{}", "o".repeat(31));
    check(format!("mg k {opaque}\r\n"), &[meta(MetaVerb::Get, flags("O", &opaque))]);
}

#[test]
fn a_line_has_at_most_20_words() {
    let letters = "qOLPcfhlstvuIxTNRECk";
    let words: Vec<String> = letters
        .chars()
        .map(|letter| if "TNREC".contains(letter) { format!("{letter}1") } else { letter.into() })
        .collect();
    for (head, verb, flags_max) in [("mg k", MetaVerb::Get, 18), ("ms k 2", MetaVerb::Set, 17)] {
        let tokens = words[..flags_max].join(" ");
        let mut read = MetaFlags {
            exptime: Exptime(1),
            vivify: Exptime(1),
            recache_s: 1,
            ..flags(&letters[..flags_max], &tokens)
        };
        if flags_max == 18 {
            read.new_cas = 1;
        }
        let value = if verb == MetaVerb::Set { "ab\r\n" } else { "" };
        let mut expected = vec![meta(verb, read)];
        expected.extend((verb == MetaVerb::Set).then(|| data(b"ab")));
        check(format!("{head} {tokens}\r\n{value}"), &expected);
        check_error(
            format!("{head} {tokens} {}", words[flags_max]),
            ParseError::TooManyFlags,
            "options flags are too long",
        );
    }
}

#[test]
fn base64_keys_are_checked_before_anything_is_done() {
    let with_key = |key: &'static [u8], verb| {
        let value_len = if verb == MetaVerb::Set { 2 } else { 0 };
        command(Command::Meta(Meta { verb, key, value_len, flags: flags("bk", "b k") }))
    };
    check("mg Zm9vYg== b k\r\n", &[with_key(b"Zm9vYg==", MetaVerb::Get)]);
    check("ms Zm9v 2 b k\r\nab\r\n", &[with_key(b"Zm9v", MetaVerb::Set), data(b"ab")]);
    for key in ["Zm9", "!!!!", "====", "Zg==Zg=="] {
        check_error(format!("mg {key} b"), ParseError::BadKeyEncoding, "error decoding key");
        check_error(format!("ms {key} 2 v b"), ParseError::BadKeyEncoding, "error decoding key");
        check_error(format!("me {key} b"), ParseError::BadDebugKeyEncoding, "bad command line format");
    }
}

#[test]
fn me_looks_for_base64_and_ignores_all_else() {
    let debug = |letters| {
        command(Command::Meta(Meta {
            verb: MetaVerb::Debug,
            key: b"Zm9v",
            value_len: 0,
            flags: flags(letters, ""),
        }))
    };
    check("me Zm9v b\r\n", &[debug("b")]);
    check("me Zm9v z q q 5 Tx\r\n", &[debug("")]);
}

#[test]
fn flags_are_listed_in_the_order_they_were_sent() {
    let flags = flags("tTk", "t T30  k");
    let listed: Vec<(u8, &[u8])> = flags.iter().collect();
    assert_eq!(listed, [(b't', &b""[..]), (b'T', b"30"), (b'k', b"")]);
    assert!(flags.in_order(b't', b'T') && !flags.in_order(b'T', b't'));
    assert!(!flags.in_order(b't', b'v') && !flags.in_order(b'v', b't'));
}
