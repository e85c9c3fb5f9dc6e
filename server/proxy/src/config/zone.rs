//! Zones of a pool's servers, as written: by index, or by a part of their names.

use super::server::Address;

/// The part of a pattern that matches the zone.
const ZONE: &str = "{zone}";

/// Which zones the servers of a pool are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Zones {
    /// The configuration does not say.
    #[default]
    Unknown,
    /// One for each server.
    Listed(Vec<String>),
    /// For a host name that fits this pattern, the part that is where the pattern has `{zone}`.
    Named(Pattern),
}

/// `cache-{zone}-*.example`: `*` stands for any bytes, `{zone}` for the zone, letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    before: String,
    after: String,
}

impl Pattern {
    /// `None` unless it has one `{zone}`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(ZONE)?;
        (!after.contains(ZONE)).then(|| Self { before: before.into(), after: after.into() })
    }

    /// The zone of `host`: the first and shortest text that fits.
    #[must_use]
    pub fn zone<'h>(&self, host: &'h str) -> Option<&'h str> {
        let is_zone = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        for (start, _) in host.char_indices().filter(|(start, _)| fits(&self.before, &host[..*start])) {
            let len = host.as_bytes()[start..].iter().take_while(|byte| is_zone(**byte)).count();
            if let Some(end) = (start + 1..=start + len).find(|&end| fits(&self.after, &host[end..])) {
                return Some(&host[start..end]);
            }
        }
        None
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{ZONE}{}", self.before, self.after)
    }
}

impl Zones {
    /// The zone of server `at`; empty when it is not known.
    #[must_use]
    pub fn zone_of<'z>(&'z self, at: usize, address: Option<&'z Address>) -> &'z str {
        match (self, address) {
            (Self::Listed(zones), _) => zones.get(at).map_or("", String::as_str),
            (Self::Named(pattern), Some(Address::Tcp { host, .. })) => pattern.zone(host).unwrap_or_default(),
            _ => "",
        }
    }
}

/// Whether all of `text` fits `pattern`.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_a_name_stands_where_the_pattern_says() {
        for (pattern, host, zone) in [
            ("cache-{zone}-*", "cache-a-0.cache.svc", Some("a")),
            ("cache-{zone}-*", "cache-a-b-0", Some("a")),
            ("cache-{zone}-?", "cache-a-0", None),
            ("*.{zone}.example", "c0.eu-west-1a.example", Some("eu-west-1a")),
            ("*.{zone}.example", "c0.example", None),
            ("*.{zone}.*", "a.b.c", Some("b")),
            ("{zone}", "z1", Some("z1")),
            ("{zone}", "z.1", None),
            ("{zone}-*", "-x", None),
            ("c{zone}", "c", None),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().zone(host), zone, "{pattern} {host}");
        }
        for pattern in ["", "cache-*", "{zone}{zone}"] {
            assert_eq!(Pattern::new(pattern), None, "{pattern}");
        }
    }
}
