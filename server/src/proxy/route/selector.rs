//! Choosing by key prefix, and routing prefixes with `*`.

use super::tree::NodeId;

/// The node of the longest prefix that `key` begins with; `policies` has the longest first.
#[inline]
pub(super) fn by_prefix(policies: &[(Box<[u8]>, NodeId)], wildcard: NodeId, key: &[u8]) -> NodeId {
    policies.iter().find_map(|(prefix, node)| key.starts_with(prefix).then_some(*node)).unwrap_or(wildcard)
}

/// Whether the routing prefix `known` fits `pattern`, in which `*` stands for any bytes but `/`.
pub(super) fn glob(pattern: &[u8], known: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit: the star takes one byte more.
    let (mut at, mut from, mut retry) = (0, 0, None);
    while from < known.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, from));
        } else if pattern.get(at) == Some(&known[from]) {
            at += 1;
            from += 1;
        } else {
            match retry {
                Some((star, taken)) if known[taken] != b'/' => {
                    at = star;
                    from = taken + 1;
                    retry = Some((star, taken + 1));
                }
                _ => return false,
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}
