//! Makes replies comparable: numbers in which two servers may differ are replaced.

use std::collections::HashMap;

use super::grammar::{Command, TTLS};

/// Longest duration of a test, seconds. TTLs are compared up to this difference.
const TTL_SLACK_S: i64 = 600;

/// The longest time by which an exptime of the past lies before the start of the server, seconds.
const PAST_MAX_S: i64 = 10_000;

/// The uniques that a server showed, and the last one for each key.
#[derive(Debug, Default)]
pub struct Uniques {
    /// The uniques of each key in the order in which they were shown.
    numbers: HashMap<Vec<u8>, Vec<u64>>,
    of_key: HashMap<Vec<u8>, u64>,
}

impl Uniques {
    /// The last unique that was shown for `key`.
    pub fn last_of(&self, key: &[u8]) -> Option<u64> {
        self.of_key.get(key).copied()
    }

    /// Takes note that `key` was shown with the unique `digits`. Returns the text that replaces it in the
    /// comparison.
    fn shown(&mut self, key: &[u8], digits: &str) -> String {
        let Ok(unique) = digits.parse::<u64>() else { return digits.to_owned() };
        if unique == 0 {
            return digits.to_owned(); // what failed commands show
        }
        self.of_key.insert(key.to_vec(), unique);
        let numbers = self.numbers.entry(key.to_vec()).or_default();
        let number = numbers.iter().position(|&known| known == unique).unwrap_or(numbers.len());
        if number == numbers.len() {
            numbers.push(unique);
        }
        format!("#{number}")
    }
}

/// The reply to `command` in a form that can be compared.
pub fn reply(command: &Command, mut rest: &[u8], uniques: &mut Uniques) -> Vec<u8> {
    let mut out = Vec::new();
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").map_or(rest.len(), |end| end + 2);
        let (line, after) = rest.split_at(end);
        rest = after;
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r\n").unwrap_or(line)).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let value_len = match words[..] {
            ["VALUE", _, _, len] => len.parse().ok(),
            ["VALUE", key, flags, len, unique] => {
                let shown = uniques.shown(key.as_bytes(), unique);
                out.extend_from_slice(format!("VALUE {key} {flags} {len} {shown}\r\n").as_bytes());
                let len: usize = len.parse().unwrap_or(0);
                let len = (len + 2).min(rest.len());
                out.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
                continue;
            }
            ["VA", len, ..] => len.parse().ok(),
            _ => None,
        };
        match words[0] {
            "VA" | "HD" | "EN" | "NS" | "EX" | "NF" if command.is_meta() => {
                let flags: Vec<String> =
                    words[1..].iter().map(|word| flag(word, &command.key, uniques)).collect();
                out.extend_from_slice(format!("{} {}\r\n", words[0], flags.join(" ")).as_bytes());
            }
            "ME" => out.extend_from_slice(debug(&words).as_bytes()),
            _ => out.extend_from_slice(line),
        }
        if let Some(len) = value_len {
            let len: usize = len;
            let len = (len + 2).min(rest.len());
            out.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
        }
    }
    out
}

fn flag(word: &str, key: &[u8], uniques: &mut Uniques) -> String {
    match word.split_at_checked(1) {
        Some(("c", digits)) => format!("c{}", uniques.shown(key, digits)),
        Some(("t", digits)) => format!("t{}", ttl(digits)),
        _ => word.to_owned(),
    }
}

/// The TTL that was set, from the remaining TTL.
fn ttl(digits: &str) -> String {
    let Ok(left) = digits.parse::<i64>() else { return digits.to_owned() };
    if left > i64::from(u32::MAX) - TTL_SLACK_S - PAST_MAX_S {
        return "0".to_owned(); // 1.6.18 shows what has passed as 32 bits that wrapped
    }
    let set = TTLS.iter().find(|&&ttl| left > ttl - TTL_SLACK_S && left <= ttl);
    match set {
        Some(ttl) => format!("~{ttl}"),
        None if left > *TTLS.last().unwrap() => "~absolute".to_owned(),
        None => digits.to_owned(),
    }
}

/// The reply to `me` without times, the unique and the memory of the item.
fn debug(words: &[&str]) -> String {
    let compared = words
        .iter()
        .filter(|word| !["la=", "cas=", "cls=", "size="].iter().any(|name| word.starts_with(name)));
    let shown: Vec<String> = compared
        .map(|word| match word.strip_prefix("exp=") {
            // 1.6.18 shows TTLs with the opposite sign.
            Some(digits) if digits != "-1" => format!("exp={}", ttl(digits.trim_start_matches('-'))),
            _ => (*word).to_owned(),
        })
        .collect();
    format!("{}\r\n", shown.join(" "))
}
