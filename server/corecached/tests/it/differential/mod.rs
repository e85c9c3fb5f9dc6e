//! Random commands to a real memcached and to this server: every reply must be the same.
//!
//! A seed determines the commands. Each is followed by `mn`, whose reply marks the end of the command's
//! reply. Many commands are sent at once. Numbers that cannot be equal are replaced before the comparison:
//! uniques of a key are numbered in the order in which a server shows them, and TTLs are rounded. Every memcached
//! of this machine is compared with: 1.6.45, whose protocol this server has, and 1.6.18, which Debian packages.
//! [`known`] lists for each the differences with their reasons, and nothing else may differ.
//!
//! `DIFFERENTIAL_SEEDS=100` runs the seeds 0 to 99, `DIFFERENTIAL_SEEDS=17..18` the seed 17 alone.

mod canonical;
mod grammar;
mod known;

use std::ops::Range;
use std::time::Instant;

use crate::support::{Backend, Client, Launch, Memcached, Server, shorten};
use canonical::Uniques;
use grammar::{Command, Grammar};

const SEEDS: u64 = 18;
const COMMANDS_PER_SEED: usize = 6_000;
/// Most commands sent at once.
const BATCH_MAX: usize = 48;
/// Commands on the same keys that are shown before one whose replies differ.
const HISTORY_SHOWN: usize = 8;

/// Switches off threads of memcached that hold items at times, which changes how it pads the results of
/// arithmetic.
const QUIET: &str = "no_lru_maintainer,no_lru_crawler,no_slab_reassign";

const DELIMITER: &[u8] = b"mn\r\n";
/// The reply to it. No key, value or text of a command contains it.
const DELIMITED: &[u8] = b"MN\r\n";

/// One of the two servers, with the uniques that it showed.
struct Side {
    name: &'static str,
    server: Server,
    client: Client,
    uniques: Uniques,
}

impl Side {
    fn new(name: &'static str, server: Server) -> Self {
        let client = Client::connect(&server);
        Self { name, server, client, uniques: Uniques::default() }
    }

    /// Sends `commands`. Returns their replies in a form that can be compared with those of the other server.
    fn replies(&mut self, commands: &[Command]) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend_from_slice(&command.bytes(&self.uniques));
            bytes.extend_from_slice(DELIMITER);
        }
        let (mut seen, mut looked) = (0, 0);
        let got = self.client.exchange(&bytes, |got| {
            while let Some(at) = memchr_delimited(&got[looked..]) {
                seen += 1;
                looked += at + DELIMITED.len();
            }
            looked = looked.max(got.len().saturating_sub(DELIMITED.len() - 1));
            seen >= commands.len()
        });
        let mut rest = &got[..];
        let mut replies = Vec::new();
        for command in commands {
            let end = memchr_delimited(rest).unwrap();
            replies.push(canonical::reply(command, &rest[..end], &mut self.uniques));
            rest = &rest[end + DELIMITED.len()..];
        }
        assert!(rest.is_empty(), "{} said more than it was asked: {}", self.name, shorten(rest));
        replies
    }
}

fn memchr_delimited(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == b'M') {
        if bytes[from + at..].starts_with(DELIMITED) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The result of one seed.
struct Outcome {
    compared: usize,
    known: usize,
    failure: Option<String>,
}

fn compare(memcached: &Memcached, seed: u64, backend: Backend, shards: usize) -> Outcome {
    let reference = Launch::memcached(memcached, &["-m", "1024", "-o", QUIET]).serve();
    let mut theirs = Side::new("memcached", reference);
    let mut ours = Side::new("corecached", Server::start_on(backend, shards, &["-m", "1024"]));
    let mut grammar = Grammar::new(seed, memcached.is_old());
    let mut outcome = Outcome { compared: 0, known: 0, failure: None };
    let mut history: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while outcome.compared < COMMANDS_PER_SEED {
        let commands = grammar.batch(BATCH_MAX);
        let replies = theirs.replies(&commands).into_iter().zip(ours.replies(&commands));
        for (command, (their, our)) in commands.iter().zip(replies) {
            outcome.compared += 1;
            let sent = command.bytes(&theirs.uniques);
            if their != our {
                if known::reason(memcached.is_old(), &sent, &their, &our).is_none() {
                    let place = format!(
                        "{memcached}, seed {seed}, {backend:?}, {shards} shards, command {}",
                        outcome.compared
                    );
                    outcome.failure = Some(place + &describe(&history, &sent, &their, &our));
                    return outcome;
                }
                outcome.known += 1;
            }
            history.push((sent, our));
        }
    }
    assert!(theirs.server.is_running() && ours.server.is_running());
    outcome
}

/// Describes the difference, with the commands on the same keys before it.
fn describe(history: &[(Vec<u8>, Vec<u8>)], sent: &[u8], their: &[u8], our: &[u8]) -> String {
    let keys_of = |command: &[u8]| -> Vec<Vec<u8>> {
        let line = command.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let words = line.split(|byte| b" \r".contains(byte)).skip(1);
        words.filter(|word| word.starts_with(b"key") || word.len() > 200).map(<[u8]>::to_vec).collect()
    };
    let keys = keys_of(sent);
    let concerns = |command: &[u8]| {
        command.starts_with(b"flush_all") || keys_of(command).iter().any(|key| keys.contains(key))
    };
    let mut before: Vec<String> = history
        .iter()
        .rev()
        .filter(|(command, _)| concerns(command))
        .take(HISTORY_SHOWN)
        .map(|(command, reply)| format!("  before     {} -> {}", shorten(command), shorten(reply)))
        .collect();
    before.reverse();
    format!(
        "\n{}\n  sent       {}\n  memcached  {}\n  corecached {}",
        before.join("\n"),
        shorten(sent),
        shorten(their),
        shorten(our)
    )
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("DIFFERENTIAL_SEEDS") else { return 0..SEEDS };
    let number = |digits: &str| digits.parse().expect("DIFFERENTIAL_SEEDS is N or FROM..TO");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}

#[test]
fn replies_are_those_of_a_memcached() {
    let servers: Vec<(Backend, usize)> =
        [1, 2, 4].into_iter().flat_map(|shards| Backend::all().iter().map(move |&b| (b, shards))).collect();
    for memcached in Memcached::all() {
        let start = Instant::now();
        let (mut compared, mut known, mut failures) = (0, 0, Vec::new());
        for seed in seeds() {
            let (backend, shards) = servers[seed as usize % servers.len()];
            let outcome = compare(memcached, seed, backend, shards);
            compared += outcome.compared;
            known += outcome.known;
            failures.extend(outcome.failure);
        }
        let took = start.elapsed();
        println!("{memcached}: {compared} commands compared, {known} known differences, {took:?}");
        assert!(failures.is_empty(), "{} seeds differ\n{}", failures.len(), failures.join("\n"));
    }
}
