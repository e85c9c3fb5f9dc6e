//! Every classic command that is well formed.

use crate::{Event, check, command, data};
use corecached_protocol::{
    AdminVerb, Arithmetic, Command, Delete, Exptime, Limits, Store, StoreVerb, Touch, VALUE_LEN_MAX,
};

const SET: Store<'static> = Store {
    verb: StoreVerb::Set,
    key: b"k",
    client_flags: 0,
    exptime: Exptime(0),
    value_len: 2,
    cas_unique: 0,
    noreply: false,
};

fn store(store: Store) -> [Event; 2] {
    [command(Command::Store(store)), data(b"ab")]
}

#[test]
fn every_storage_verb_takes_a_value() {
    for (name, verb) in [
        ("set", StoreVerb::Set),
        ("add", StoreVerb::Add),
        ("replace", StoreVerb::Replace),
        ("append", StoreVerb::Append),
        ("prepend", StoreVerb::Prepend),
    ] {
        check(format!("{name} k 0 0 2\r\nab\r\n"), &store(Store { verb, ..SET }));
    }
    check("cas k 0 0 2 7\r\nab\r\n", &store(Store { verb: StoreVerb::Cas, cas_unique: 7, ..SET }));
    check(
        "cas k 0 0 2 18446744073709551615 noreply\r\nab\r\n",
        &store(Store { verb: StoreVerb::Cas, cas_unique: u64::MAX, noreply: true, ..SET }),
    );
}

#[test]
fn the_numbers_of_a_storage_line_are_read_to_their_bounds() {
    let client_flags = |client_flags| Store { client_flags, ..SET };
    let exptime = |exptime| Store { exptime: Exptime(exptime), ..SET };
    for (line, stored) in [
        ("set k 4294967295 0 2", client_flags(u32::MAX)),
        ("set k 4294967296 0 2", client_flags(0)),
        ("set k 18446744073709551615 0 2", client_flags(u32::MAX)),
        ("set k +5 +0 2", client_flags(5)),
        ("set k 0 2592000 2", exptime(2_592_000)),
        ("set k 0 -1 2", exptime(-1)),
        ("set k 0 2147483647 2", exptime(2_147_483_647)),
        ("set k 0 2147483648 2", exptime(-2_147_483_648)),
        ("set k 0 4294967295 2", exptime(-1)),
        ("set k 0  4294967295 2", exptime(-1)), // not as plain as the line before
        ("set k 0 4294967297 2", exptime(1)),
        ("set k 0 9223372036854775807 2", exptime(-1)),
        ("set k 0 0 0000000000000000000000002", SET),
    ] {
        check(format!("{line}\r\nab\r\n"), &store(stored));
    }
    check(
        format!("set k 0 0 {VALUE_LEN_MAX}\r\n"),
        &[command(Command::Store(Store { value_len: 2_147_483_645, ..SET }))],
    );
}

#[test]
fn noreply_is_the_last_word_and_other_words_are_ignored() {
    for (words, noreply) in [
        ("noreply", true),
        ("foo noreply", true),
        ("noreply  ", true),
        ("foo", false),
        ("noreply foo", false),
    ] {
        check(format!("set k 0 0 2 {words}\r\nab\r\n"), &store(Store { noreply, ..SET }));
        let one = Arithmetic { key: b"k", delta: 1, decrement: false, noreply };
        check(format!("incr k 1 {words}\r\n"), &[command(Command::Arithmetic(one))]);
        let touch = Touch { key: b"k", exptime: Exptime(1), noreply };
        check(format!("touch k 1 {words}\r\n"), &[command(Command::Touch(touch))]);
        check(format!("verbosity 1 {words}\r\n"), &[command(Command::Verbosity { level: 1, noreply })]);
        check(
            format!("cache_memlimit 64 {words}\r\n"),
            &[command(Command::CacheMemlimit { megabytes: 64, noreply })],
        );
    }
}

#[test]
fn a_line_ends_with_lf_or_crlf_and_blanks_run() {
    for line in ["set k 0 0 2\r\n", "set k 0 0 2\n", "set  k   0  0 2  \r\n", "set k 0 0 2 \n"] {
        check(format!("{line}ab\r\n"), &store(SET));
    }
}

#[test]
fn a_value_may_look_like_commands_and_the_next_command_follows_it() {
    check(
        "set k 0 0 12\r\nget a\r\nquit\n\r\nversion\r\n",
        &[
            command(Command::Store(Store { value_len: 12, ..SET })),
            data(b"get a\r\nquit\n"),
            command(Command::Version),
        ],
    );
}

#[test]
fn past_a_bad_terminator_the_next_command_begins() {
    check(
        "set k 0 0 2\r\nabXXversion\r\n",
        &[command(Command::Store(SET)), Event::BadData, command(Command::Version)],
    );
}

#[test]
fn delete_ignores_all_words_but_a_noreply_at_the_end() {
    check("delete noreply\r\n", &[command(Command::Delete(Delete { key: b"noreply", noreply: false }))]);
    check("delete k 0\r\n", &[command(Command::Delete(Delete { key: b"k", noreply: false }))]);
    check("delete k 0 noreply\r\n", &[command(Command::Delete(Delete { key: b"k", noreply: true }))]);
    check("delete k noreply 0\r\n", &[command(Command::Delete(Delete { key: b"k", noreply: false }))]);
    check("delete k a b c d noreply\r\n", &[command(Command::Delete(Delete { key: b"k", noreply: true }))]);
}

#[test]
fn incr_and_decr_take_any_unsigned_number() {
    for (line, delta, decrement) in
        [("incr k 0", 0, false), ("decr k 7", 7, true), ("decr k 18446744073709551615", u64::MAX, true)]
    {
        let arithmetic = Arithmetic { key: b"k", delta, decrement, noreply: false };
        check(format!("{line}\r\n"), &[command(Command::Arithmetic(arithmetic))]);
    }
}

#[test]
fn flush_all_may_have_a_delay_and_noreply() {
    for (words, delay, noreply) in [
        ("", None, false),
        (" ", None, false),
        (" 0", Some(0), false),
        (" -1", Some(-1), false),
        (" 10 noreply", Some(10), true),
        (" noreply", None, true),
        (" 10 foo", Some(10), false),
    ] {
        check(
            format!("flush_all{words}\r\n"),
            &[command(Command::FlushAll { delay: delay.map(Exptime), noreply })],
        );
    }
}

#[test]
fn words_of_administrative_commands_are_handed_on_trimmed() {
    for (line, expected) in [
        ("stats", Command::Stats { words: b"" }),
        ("stats  detail  on ", Command::Stats { words: b"detail  on" }),
        ("slabs reassign 1 2", Command::Admin { verb: AdminVerb::Slabs, words: b"reassign 1 2" }),
        ("lru mode flat", Command::Admin { verb: AdminVerb::Lru, words: b"mode flat" }),
        ("lru_crawler metadump all", Command::Admin { verb: AdminVerb::LruCrawler, words: b"metadump all" }),
        ("watch", Command::Admin { verb: AdminVerb::Watch, words: b"" }),
        ("refresh_certs", Command::Admin { verb: AdminVerb::RefreshCerts, words: b"" }),
        (
            "extstore free_memchunks 1",
            Command::Admin { verb: AdminVerb::Extstore, words: b"free_memchunks 1" },
        ),
        ("debugtime p", Command::Admin { verb: AdminVerb::DebugTime, words: b"p" }),
        ("version", Command::Version),
        ("version now", Command::Version),
        ("quit", Command::Quit),
        ("quit now", Command::Quit),
        ("shutdown", Command::Shutdown { graceful: false }),
        ("shutdown graceful", Command::Shutdown { graceful: true }),
        ("verbosity 18446744073709551615", Command::Verbosity { level: u32::MAX, noreply: false }),
        ("cache_memlimit 1024", Command::CacheMemlimit { megabytes: 1024, noreply: false }),
    ] {
        check(format!("{line}\r\n"), &[command(expected)]);
    }
}

#[test]
fn a_line_may_have_2048_bytes_before_its_lf() {
    let blanks = |count| " ".repeat(count);
    let (head, tail) = ("verbosity 1", "\r\n");
    let room = Limits::default().line_bytes_max + "\n".len() - head.len() - tail.len();
    let expected = command(Command::Verbosity { level: 1, noreply: false });
    check(format!("{head}{}{tail}", blanks(room)), &[expected]);
}
