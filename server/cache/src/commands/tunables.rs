//! Commands that tune parts of memcached that this server does not have. Lines that memcached would accept
//! are accepted, others get its error, and nothing changes.

use corecached_protocol::{AdminVerb, line};

/// The highest slab class of memcached.
const CLASS_MAX: i32 = 63;

/// The reply to a `cache_memlimit` that is more than the slices can address, or less than the largest item
/// needs.
pub(crate) const MEMLIMIT_ADJUST_FAILED: &[u8] =
    b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n";

/// The reply to `verb` with `words`; empty when the client wants none.
#[must_use]
pub(crate) fn answer(verb: AdminVerb, words: &[u8]) -> &'static [u8] {
    let mut words = words.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    // Of these verbs only one knows it.
    if verb == AdminVerb::Slabs && words.clone().next_back() == Some(b"noreply") {
        return b"";
    }
    let mut next = || words.next().unwrap_or(b"");
    match verb {
        AdminVerb::Slabs => match (next(), next(), next(), next()) {
            (b"automove", b"", ..) => line::ERROR,
            (b"automove", b"ratio" | b"freeratio", number, _) => match decimal::<f64>(number) {
                Some(_) => line::OK,
                None => line::ERROR,
            },
            (b"automove", b"window", number, _) => match decimal::<u64>(number) {
                Some(3..=1800) => line::OK,
                Some(_) => line::BAD_AUTOMOVE_WINDOW,
                None => line::BAD_FORMAT,
            },
            (b"automove", mode, ..) => match decimal::<u32>(mode) {
                Some(0..=2) => line::OK,
                Some(_) => line::ERROR,
                None => line::BAD_FORMAT,
            },
            (b"reassign", from, to, b"") if !to.is_empty() => {
                match (decimal::<i32>(from), decimal::<i32>(to)) {
                    (Some(from), Some(to)) if from == to => line::SAME_SLAB_CLASS,
                    (Some(0..=CLASS_MAX), Some(0..=CLASS_MAX)) => line::NO_SPARE_PAGE,
                    (Some(_), Some(_)) => line::BAD_SLAB_CLASS,
                    _ => line::BAD_FORMAT,
                }
            }
            _ => line::ERROR,
        },
        AdminVerb::Lru => match (next(), next(), next(), next(), next()) {
            (b"mode", b"flat" | b"segmented", ..) => line::OK,
            (b"temp_ttl", number, ..) if decimal::<i64>(number).is_some() => line::OK,
            (b"tune", hot, warm, hot_factor, warm_factor) => {
                let factors = [hot_factor, warm_factor].map(decimal::<f64>);
                match (decimal::<u32>(hot), decimal::<u32>(warm), factors) {
                    (Some(hot), Some(warm), [Some(_), Some(_)]) if u64::from(hot) + u64::from(warm) <= 80 => {
                        line::OK
                    }
                    (Some(_), Some(_), [Some(_), Some(_)]) => line::BAD_LRU_SHARES,
                    _ => line::ERROR,
                }
            }
            _ => line::ERROR,
        },
        AdminVerb::RefreshCerts => line::TLS_NOT_ENABLED,
        // Other files carry out the first two, and `debugtime` when it is switched on.
        AdminVerb::LruCrawler | AdminVerb::Watch | AdminVerb::Extstore | AdminVerb::DebugTime => line::ERROR,
    }
}

fn decimal<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
