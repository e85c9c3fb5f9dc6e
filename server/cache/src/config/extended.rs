//! The suboptions of `-o`: their names, the values that they take, and which of them have an effect.

use corecached_net::tls::HANDSHAKE_TIMEOUT_MS;
use corecached_shard::ConfigError;
use corecached_shard::config::leading_number;

/// The value that a suboption takes.
#[derive(Clone, Copy, Debug)]
enum ValueKind {
    /// No value. One that is given is ignored, as in memcached.
    Nothing,
    /// A whole number, from the first to the second.
    Number(u64, u64),
    /// As `Number`, read as C does: what follows the digits is ignored, and without digits it is 0.
    Digits(i64, i64),
    /// As `Digits`, or no value.
    DigitsOrNothing(i64, i64),
    /// A decimal fraction that is not less than this. What follows it is ignored.
    Fraction(f64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// Any text, or no value.
    Anything,
}

use ValueKind::{Anything, Digits, DigitsOrNothing, Fraction, Nothing, Number, Text, Word};

/// Any whole number.
const ANY: ValueKind = Number(0, u64::MAX);

/// Every suboption of memcached 1.6.45, and after them those that memcached does not have.
const SUBOPTIONS: &[(&str, ValueKind)] = &[
    ("maxconns_fast", Nothing),
    ("no_maxconns_fast", Nothing),
    ("hashpower", Number(12, 32)),
    ("no_hashexpand", Nothing),
    ("slab_reassign", Nothing),
    ("no_slab_reassign", Nothing),
    ("slab_automove", DigitsOrNothing(0, 2)),
    ("no_slab_automove", Nothing),
    ("slab_automove_ratio", Fraction(0.0)),
    ("slab_automove_window", Digits(3, i64::MAX)),
    ("slab_automove_freeratio", Fraction(f64::MIN)),
    ("slab_sizes", Text),
    ("slab_chunk_max", ANY),
    ("tail_repair_time", Digits(10, i64::MAX)),
    ("hash_algorithm", Word(&["jenkins", "murmur3", "xxh3"])),
    ("lru_crawler", Nothing),
    ("no_lru_crawler", Nothing),
    ("lru_crawler_sleep", Digits(0, 1_000_000)),
    ("lru_crawler_tocrawl", ANY),
    ("lru_maintainer", Nothing),
    ("no_lru_maintainer", Nothing),
    ("hot_lru_pct", Digits(1, 79)),
    ("warm_lru_pct", Digits(1, 79)),
    ("hot_max_factor", Fraction(0.0)),
    ("warm_max_factor", Fraction(0.0)),
    ("temporary_ttl", Anything),
    ("idle_timeout", Digits(i64::MIN, IDLE_TIMEOUT_MAX_S)),
    ("watcher_logbuf_size", ANY),
    ("worker_logbuf_size", ANY),
    ("read_buf_mem_limit", ANY),
    ("resp_obj_mem_limit", Anything),
    ("track_sizes", Nothing),
    ("no_track_sizes", Nothing),
    ("inline_ascii_resp", Nothing),
    ("no_inline_ascii_resp", Nothing),
    ("modern", Nothing),
    ("no_modern", Nothing),
    ("drop_privileges", Nothing),
    ("no_drop_privileges", Nothing),
    ("no_chunked_items", Nothing),
    ("sock_cookie_id", Anything),
    ("ssl_chain_cert", Text),
    ("ssl_key", Text),
    ("ssl_keyformat", Text),
    ("ssl_verify_mode", Number(0, 3)),
    ("ssl_ciphers", Text),
    ("ssl_ca_cert", Text),
    ("ssl_wbuf_size", Number(0, 1 << 20)),
    ("ssl_session_cache", Nothing),
    ("ssl_kernel_tls", Nothing),
    ("ssl_min_version", Number(0, 3)),
    ("ext_path", Text),
    ("ext_page_size", ANY),
    ("ext_page_count", ANY),
    ("ext_wbuf_size", ANY),
    ("ext_threads", ANY),
    ("ext_io_depth", ANY),
    ("ext_item_size", ANY),
    ("ext_item_age", ANY),
    ("ext_low_ttl", ANY),
    ("ext_recache_rate", ANY),
    ("ext_compact_under", ANY),
    ("ext_drop_under", ANY),
    ("ext_max_sleep", ANY),
    ("ext_max_frag", Fraction(0.0)),
    ("ext_drop_unread", Nothing),
    ("no_ext_drop_unread", Nothing),
    ("core_ports", Number(0, u16::MAX as u64)),
    ("ssl_handshake_timeout_ms", Number(*HANDSHAKE_TIMEOUT_MS.start(), *HANDSHAKE_TIMEOUT_MS.end())),
    ("ssl_watch_certs", Nothing),
];

/// Longest `idle_timeout` in seconds: a day, as in memcached.
const IDLE_TIMEOUT_MAX_S: i64 = 86_400;

/// Suboptions that have an effect. All others are accepted without one, and named in the log.
const WITH_EFFECT: &[&str] = &[
    // This server always rejects connections past the limit at once, and always has the settings of "modern".
    "maxconns_fast",
    "modern",
    "lru_crawler",
    "no_lru_crawler",
    "idle_timeout",
    "core_ports",
    "ssl_chain_cert",
    "ssl_key",
    "ssl_keyformat",
    "ssl_verify_mode",
    "ssl_ciphers",
    "ssl_ca_cert",
    "ssl_session_cache",
    "ssl_min_version",
    "ssl_handshake_timeout_ms",
    "ssl_watch_certs",
];

/// Suboptions without effect whose absence changes how much the cache holds, how much memory it may take, or
/// what it may do: what it means that they have none.
const WITHOUT_PROTECTION: &[(&str, &str)] = &[
    ("ext_path", "there is no storage on disk: the cache holds what fits -m, so raise -m"),
    (
        "drop_privileges",
        "no system call is forbidden to this process: use a seccomp profile, such as a container's",
    ),
    ("read_buf_mem_limit", "the buffers of connections have bounds of their own, which -c multiplies"),
];

/// Suboptions with this prefix are refused, since they ask for the proxy inside memcached.
const REFUSED_PREFIX: &str = "proxy_";

/// The suboptions that were given, with their values, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended(Vec<(String, Option<String>)>);

impl Extended {
    /// Their names, in the order given.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Whether suboption `name` was given.
    #[must_use]
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.names().any(|given| given == name)
    }

    /// Which of the suboptions `names` was given last.
    #[must_use]
    pub(super) fn last_of(&self, names: &[&str]) -> Option<&str> {
        self.names().filter(|given| names.contains(given)).last()
    }

    /// The value that suboption `name` was set to last.
    #[must_use]
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(given, _)| given == name)?.1.as_deref()
    }

    /// The number that suboption `name` was set to last; 0 for a negative one.
    #[must_use]
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let (digits, _) = leading_number(self.value(name)?.trim());
        Some(digits.parse().unwrap_or(0))
    }

    /// Warns of the suboptions without effect that somebody may rely on.
    pub(super) fn warn(&self) {
        for (name, meaning) in WITHOUT_PROTECTION {
            // A limit of 0 is none.
            if self.is_set(name) && self.value(name) != Some("0") {
                tracing::warn!("-o {name} has no effect: {meaning}");
            }
        }
    }

    /// The suboptions without effect, as they are named in the log.
    #[must_use]
    pub(super) fn without_effect(&self) -> Vec<String> {
        self.names().filter(|name| !WITH_EFFECT.contains(name)).map(|name| format!("-o {name}")).collect()
    }
}

/// The names of all suboptions of `-o`.
pub fn suboption_names() -> impl Iterator<Item = &'static str> {
    SUBOPTIONS.iter().map(|(name, _)| *name)
}

/// Why the value of a suboption cannot be used. The text is the remedy.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
enum ValueError {
    #[error("give it a value: name=value")]
    Missing,
    #[error("give a whole number")]
    NotAWholeNumber,
    #[error("give a number of at least {0}")]
    TooSmall(i128),
    #[error("give a whole number from {0} to {1}")]
    OutOfRange(i128, i128),
    #[error("give a number of at least {0}")]
    BadFraction(f64),
    #[error("give one of {}", .0.join(", "))]
    OtherWord(&'static [&'static str]),
}

impl ValueKind {
    /// Checks a value that was given for a suboption of this kind. Returns the end of it that is ignored.
    fn check(self, value: Option<&str>) -> Result<&str, ValueError> {
        match (self, value) {
            (Nothing | Anything | DigitsOrNothing(..), None) | (Nothing | Anything, Some(_)) => Ok(""),
            (Digits(least, most) | DigitsOrNothing(least, most), Some(text)) => {
                let (digits, ignored) = leading_number(text.trim());
                let number = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(i128::MAX) };
                in_range(number, least.into(), most.into()).map(|()| ignored)
            }
            (_, None | Some("")) => Err(ValueError::Missing),
            (Number(least, most), Some(text)) => {
                let number = text.parse::<u64>().map_err(|_| match most {
                    u64::MAX => ValueError::NotAWholeNumber,
                    _ => ValueError::OutOfRange(least.into(), most.into()),
                });
                in_range(number?.into(), least.into(), most.into()).map(|()| "")
            }
            (Fraction(least), Some(text)) => match leading_fraction(text) {
                Some((number, ignored)) if number >= least => Ok(ignored),
                _ => Err(ValueError::BadFraction(least)),
            },
            (Word(words), Some(text)) if words.contains(&text) => Ok(""),
            (Word(words), Some(_)) => Err(ValueError::OtherWord(words)),
            (Text, Some(_)) => Ok(""),
        }
    }
}

fn in_range(number: i128, least: i128, most: i128) -> Result<(), ValueError> {
    match number {
        number if (least..=most).contains(&number) => Ok(()),
        _ if most >= i128::from(i64::MAX) => Err(ValueError::TooSmall(least)),
        _ => Err(ValueError::OutOfRange(least.max(0), most)),
    }
}

/// The longest beginning of `text` that is a decimal fraction, and what follows it.
pub(super) fn leading_fraction(text: &str) -> Option<(f64, &str)> {
    let ends = (1..=text.len()).rev().filter(|&end| text.is_char_boundary(end));
    ends.filter_map(|end| Some((text[..end].parse().ok()?, &text[end..]))).next()
}

/// Checks every suboption of `lists`.
///
/// # Errors
/// The first suboption that is unknown, refused, or has a value that cannot be used.
pub(super) fn check(lists: &[String]) -> Result<Extended, ConfigError> {
    let mut extended = Extended::default();
    let options =
        lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|option| !option.is_empty());
    for option in options {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if name.starts_with(REFUSED_PREFIX) {
            let remedy = "remove it: the proxy here is another command, see corecached proxy --help";
            return Err(ConfigError::new("-o", option, remedy, 1));
        }
        let Some((_, kind)) = SUBOPTIONS.iter().find(|(known, _)| *known == name) else {
            return Err(ConfigError::new("-o", option, "remove it: there is no such suboption", 1));
        };
        let ignored =
            kind.check(value).map_err(|error| ConfigError::new("-o", option, &error.to_string(), 1))?;
        if !ignored.is_empty() {
            tracing::warn!("-o {option:?}: leave out {ignored:?}, which is ignored");
        }
        extended.0.push((name.to_owned(), value.map(str::to_owned)));
    }
    Ok(extended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(list: &str) -> Result<Vec<String>, String> {
        check(&[list.to_owned()]).map(|found| found.without_effect()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_charts_and_unit_files_pass_is_accepted() {
        for list in [
            "modern",
            "modern,track_sizes",
            "modern,track_sizes,ext_path=/data/file:9G,ext_wbuf_size=16",
            "no_maxconns_fast,hashpower=20,slab_automove=0,lru_crawler,idle_timeout=60",
            "hash_algorithm=murmur3,warm_max_factor=3.0",
            " modern , ",
        ] {
            assert!(checked(list).is_ok(), "{list}: {:?}", checked(list));
        }
        assert_eq!(checked("modern,track_sizes").unwrap(), ["-o track_sizes"]);
    }

    #[test]
    fn numbers_are_read_as_c_reads_them_where_memcached_does() {
        for (text, seconds) in
            [("60", 60), ("60s", 60), ("1.5", 1), ("+7", 7), ("soon", 0), ("", 0), ("-1", 0)]
        {
            let extended = check(&[format!("idle_timeout={text}")]).unwrap();
            assert_eq!(extended.number("idle_timeout"), Some(seconds), "{text}");
        }
        for list in [
            "slab_reassign,slab_automove",
            "slab_automove=",
            "slab_automove=1.5",
            "slab_automove_window=10x",
            "tail_repair_time=10x",
            "hot_max_factor=1e",
            "slab_automove_freeratio=-1",
            "temporary_ttl",
            "sock_cookie_id=",
            "no_chunked_items",
            "lru_crawler_sleep=a",
        ] {
            assert!(checked(list).is_ok(), "{list}: {:?}", checked(list));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value_and_the_remedy() {
        for (list, part) in [
            ("nonsense", "no such suboption"),
            ("hashpower=99", "12 to 32"),
            ("hashpower=twenty", "12 to 32"),
            ("lru_crawler_tocrawl=x", "a whole number"),
            ("slab_automove_window=2", "at least 3"),
            ("hashpower", "name=value"),
            ("slab_automove=7", "0 to 2"),
            ("hash_algorithm=md5", "jenkins, murmur3, xxh3"),
            ("proxy_config=/k", "corecached proxy"),
            ("idle_timeout=86401", "0 to 86400"),
            ("ssl_verify_mode=4", "0 to 3"),
            ("ssl_handshake_timeout_ms=99", "100 to 600000"),
            ("ssl_min_version=tls1.3", "0 to 3"),
        ] {
            let error = checked(list).unwrap_err();
            assert!(error.contains(part) && error.contains(list), "{list}: {error}");
        }
    }
}
